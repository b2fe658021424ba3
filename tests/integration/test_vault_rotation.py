# SPDX-License-Identifier: Apache-2.0
"""test_rotation.py's long ones with the root key in a vault, and the end of old keys there."""

import re
import time

import azure_volume
import pytest
import test_rotation
from azure_volume import key_id, key_version, owned_vault, turnkeyfs
from key_states import EXPECTED, RootKey
from mountpoint import wait_for
from test_rotation import check, disable_old, fill, wait_done

pytest_plugins = ["emulator_fixture"]

DAY = 86400

# They find the fixture `volume` below instead of their own module's.
for name in (
    "test_killed_at_random_points_nothing_is_lost_and_it_finishes",
    "test_many_revocations_while_programs_work",
    "test_many_rotations_while_programs_work_and_then_the_old_versions_are_disabled",
):
    globals()[name] = getattr(test_rotation, name)


@pytest.fixture
def emulator(make_emulator):
    """One of its own: the clock is moved."""
    return make_emulator()


@pytest.fixture
def vault(emulator, monkeypatch):
    azure_volume.scrub_environment(monkeypatch)
    return owned_vault(emulator)


@pytest.fixture
def volume(emulator, vault, make_volume):
    volume = make_volume(mount=False, init=False)
    kms = {"revocation_window": 2, "rotation_window": 3, "outage_grace": 600}
    azure_volume.write(volume.conf, azure_volume.sections(
        emulator, key_id(vault), volume.directory, kms=kms))  # fmt: skip
    volume.expect_log(EXPECTED)
    volume.init().mount()
    volume.key = RootKey(volume.conf, volume.mnt)
    volume.reader_keys = lambda: azure_volume.VaultKeys(vault)
    return volume


def move_to_another_key(volume, emulator, vault):
    """So that no version of the first one is needed any more."""
    vault.create("other")
    target = azure_volume.write(volume.directory / "other.conf", azure_volume.sections(
        emulator, key_id(vault, "other"), volume.directory))  # fmt: skip
    turnkeyfs("rotate", "--wait", "--to", target, volume.mnt)
    volume.umount()
    volume.conf = target
    volume.mount()


def purge(emulator, vault, name):
    """Single versions can't be deleted in a vault, nor a key purged before its retention ends."""
    vault.ok("DELETE", f"/keys/{name}")
    wait_for(lambda: vault.get(f"/deletedkeys/{name}").status == 200, 20, "the deletion")
    emulator.control("clock", advance=91 * DAY, scopes=["keys"])
    assert vault.get(f"/deletedkeys/{name}").status == 404
    assert vault.get(f"/keys/{name}").status == 404


def test_a_key_that_was_left_and_purged_is_not_missed(volume, emulator, vault):
    fill(volume, 300)
    for newest in (2, 3):
        volume.key.rotate()
        wait_done(volume, newest)
    assert len(disable_old(volume)) == 2
    move_to_another_key(volume, emulator, vault)
    purge(emulator, vault, "kek")
    time.sleep(3)  # a revocation window and more
    check(volume, 300)
    volume.remount()
    check(volume, 300)
    volume.umount()
    volume.assert_verifies_clean()


def test_a_rotation_that_the_vault_stops_is_said_and_goes_on_by_itself(volume, emulator, vault):
    fill(volume, 10)
    with volume.stopped():  # until the new version is there, and its answers are wrong
        vault.ok("POST", "/keys/kek/rotate", {})
        other = {"kid": "https://127.0.0.1/keys/other/1"}
        emulator.control("fault", kind="patch", set=other, operation="unwrapKey",
                         version=key_version(vault), count=None)
    said = re.compile(f"error: rotation of {re.escape(str(volume.cipher))} stopped: .*another key")
    wait_for(lambda: said.search(volume.log()), 20, "word of the rotation that stopped")
    emulator.control("clear_faults")
    wait_done(volume, 2)
    check(volume, 10)
