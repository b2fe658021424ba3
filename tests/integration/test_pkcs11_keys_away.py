# SPDX-License-Identifier: Apache-2.0
"""test_revocation.py and test_rotation.py again, with the root key in a token."""

import pytest
import test_revocation
import test_rotation
from key_states import windows
from mountpoint import LONG

pytest_plugins = ["pkcs11_fixture"]

# Tests that find the fixtures below instead of their own module's.
BORROWED = {
    test_revocation: [
        "test_a_lease_that_ended_in_a_sleep_serves_nothing_before_a_probe",
        "test_it_can_be_unmounted_while_locked",
        "test_no_key_is_in_memory_while_it_is_locked",
        "test_nothing_can_be_read_any_more_and_all_of_it_comes_back",
        "test_two_signals_end_it_while_locked_and_in_use",
        "test_what_was_written_before_is_there_afterwards",
        "test_writers_get_errors_and_lose_nothing_that_was_synced",
    ],
    test_rotation: [
        "test_a_new_version_is_taken_up_within_the_window",
        "test_a_revocation_in_the_middle_ends_it_and_it_goes_on_afterwards",
        "test_a_version_that_is_refused_is_not_left_for_an_older_one",
        "test_an_open_file_without_a_name_survives_rotation_and_revocation",
        "test_killed_at_random_points_nothing_is_lost_and_it_finishes",
        "test_many_revocations_while_programs_work",
        "test_many_rotations_while_programs_work_and_then_the_old_versions_are_disabled",
        "test_without_a_window_nothing_happens_by_itself",
    ],
}
LONG_ONES = {test_revocation: ["test_every_cached_page_is_gone_within_the_window"]}

for module in BORROWED:
    for name in BORROWED[module] + (LONG_ONES.get(module, []) if LONG else []):
        globals()[name] = getattr(module, name)

held = test_revocation.held


@pytest.fixture(params=["kek", "kms"] if LONG else ["kms"])
def dek_wrap(request):
    return request.param


@pytest.fixture
def revocable(make_token_volume, dek_wrap):
    return make_token_volume(test_revocation.CONF | {"volume": {"dek_wrap": dek_wrap}})


@pytest.fixture
def kek_volume(make_token_volume):
    return make_token_volume(windows())


@pytest.fixture
def volume(request, make_token_volume):
    marker = request.node.get_closest_marker("conf")
    return make_token_volume(marker.args[0] if marker else test_rotation.CONF)
