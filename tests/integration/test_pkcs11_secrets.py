# SPDX-License-Identifier: Apache-2.0
"""test_secrets.py again, with the root key in a token: also the PIN is nowhere it should not be."""

import pytest
import test_secrets
from mountpoint import sanitized
from pkcs11_token import PIN

pytestmark = pytest.mark.skipif(
    sanitized(), reason="sanitizers keep freed memory and dumpable pages"
)
pytest_plugins = ["pkcs11_fixture"]

# Tests that find the fixtures below instead of their own module's.
for name in (
    "test_a_forced_core_holds_no_key",
    "test_no_key_and_no_passphrase_is_in_memory_when_the_daemon_ends",
    "test_nothing_of_a_key_is_in_the_log_the_command_line_or_the_environment",
):
    globals()[name] = getattr(test_secrets, name)


@pytest.fixture
def volume(make_token_volume):
    volume = make_token_volume({"log": {"level": "debug"}}, mount=False)
    volume.passphrase = PIN.encode()
    return volume.mount()


@pytest.fixture
def guarded(volume):
    return volume
