# SPDX-License-Identifier: Apache-2.0
"""Several root keys for one volume, one of them in a token: it may lie in a safe meanwhile."""

import shutil

import azure_volume
import pytest
import turnkeyfs_reader as reader
from azure_volume import fails, owned_vault, record_versions, turnkeyfs
from helpers import read_file, write_file
from key_states import RootKey, refused, wait_refused, wait_state, windows
from pkcs11_token import EXPECTED_PKCS11, TokenKeys
from test_protector import ADDED, CONTENT, check_opens, keystore_conf, listed, mount_with, vault_conf

pytest_plugins = ["emulator_fixture", "pkcs11_fixture"]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


def token_conf(token, *key):
    """A configuration with a key in the token, which is made."""
    conf = token.conf("recovery", **windows())
    RootKey(conf).create(*key)
    return conf


@pytest.mark.parametrize("key", [(), ("--type", "RSA", "--bits", "2048")], ids=["AES", "RSA"])
def test_a_token_that_is_not_there_follows_the_vault(make_volume, emulator, token, key):
    volume = make_volume(mount=False, init=False)
    volume.expect_log(EXPECTED_PKCS11 + "|" + ADDED)
    own = vault_conf(volume, emulator, owned_vault(emulator))
    shutil.copy(own, volume.conf)
    volume.init().mount()
    recovery = token_conf(token, *key)
    turnkeyfs("protector", "add", volume.mnt, recovery)
    assert [p["provider"] for p in listed(volume.mnt)["protectors"]] == ["azure", "pkcs11"]
    write_file(volume.mnt / "f", CONTENT)

    token.unplug()
    turnkeyfs("key", "rotate", "-c", own)
    turnkeyfs("rotate", "--wait", volume.mnt)
    assert record_versions(volume) == {2}
    said = turnkeyfs("protector", "list", "-c", recovery, volume.mnt, check=False)
    assert said.returncode == 11
    token.plug_in()
    assert listed(volume.mnt, "-c", recovery)["protectors"][1]["checked"]["state"] == "usable"
    volume.umount()
    check_opens(volume, recovery)
    with reader.Volume(volume.cipher, TokenKeys(token)).open("f") as f:
        assert f.read() == CONTENT
    # And the vault follows the token.
    RootKey(recovery).rotate()
    turnkeyfs("rotate", "-c", recovery, volume.cipher)
    assert record_versions(volume) == {3}
    check_opens(volume, own, recovery)


def test_a_key_that_the_token_refuses_locks_its_mount_alone(make_token_volume):
    volume = make_token_volume(windows())
    volume.expect_log(ADDED)
    own = shutil.copy(volume.conf, volume.directory / "own.conf")
    recovery = keystore_conf(volume)
    turnkeyfs("protector", "add", volume.mnt, recovery)
    write_file(volume.mnt / "f", CONTENT)
    volume.key.disable()
    wait_refused(read_file, volume.mnt / "f")
    wait_state(volume, "revoked")
    assert refused(read_file, volume.mnt / "f")
    volume.umount()
    fails(12, "mount", "-c", own, volume.cipher, volume.mnt)
    mount_with(volume, recovery)
    assert read_file(volume.mnt / "f") == CONTENT
    assert volume.status()["daemon"]["protector"] == 2
    volume.umount()
    RootKey(own).enable()
    check_opens(volume, own)
