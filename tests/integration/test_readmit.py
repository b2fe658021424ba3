# SPDX-License-Identifier: Apache-2.0
"""A backup from before a rotation: its key records are refused until their KEK version is admitted again."""

import errno
import json
import os
import shutil
import time

import azure_volume
import pytest
from azure_volume import fails, kek_states, key_id, owned_vault, record_versions, rotation, turnkeyfs
from helpers import noise, raises, read_file, write_file
from key_states import RootKey
from mountpoint import run, wait_for

pytest_plugins = ["emulator_fixture", "pkcs11_fixture"]

USAGE, IN_USE, WRONG_KEY, REVOKED, DAMAGED = 2, 6, 10, 12, 14
COUNT = 8


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


@pytest.fixture(params=["kek", "kms"])
def dek_wrap(request):
    return request.param


def fill(volume):
    os.makedirs(volume.mnt / "dir/inner")
    for i in range(COUNT):
        write_file(volume.mnt / ("dir/inner" if i % 2 else "dir") / f"f{i}", noise(3000, i))
    write_file(volume.mnt / "kept", b"never lost")


def check(volume):
    for i in range(COUNT):
        content = read_file(volume.mnt / ("dir/inner" if i % 2 else "dir") / f"f{i}")
        assert content == noise(3000, i)
    assert read_file(volume.mnt / "kept") == b"never lost"


def back_up(volume, work):
    run("cp", "-a", volume.cipher / "root", work / "backup")


def put_back(volume, work):
    """The directory as it was backed up, in the place of what has become of it."""
    name = os.path.relpath(volume.below("dir"), volume.cipher / "root")
    shutil.rmtree(volume.cipher / "root" / name)
    run("cp", "-a", work / "backup" / name, volume.cipher / "root" / name)


def readmit(volume, version=1, *options):
    return turnkeyfs("key", "readmit", "-c", volume.conf, *options, version, volume.cipher)


@pytest.fixture
def make_rotated(make_volume, work):
    """A function: a volume that was filled, backed up, rotated, and got part of the backup."""

    def make(conf):
        volume = make_volume(conf=conf, init=False, mount=False)
        volume.init().mount()
        fill(volume)
        volume.umount()
        back_up(volume, work)
        turnkeyfs("rotate", "-c", volume.conf, volume.cipher)
        assert kek_states(volume) == {1: "retired", 2: "active"}
        put_back(volume, work)
        return volume

    return make


def test_what_is_older_than_a_rotation_is_refused_and_then_admitted(make_rotated, dek_wrap):
    volume = make_rotated({"volume": {"dek_wrap": dek_wrap}})
    volume.expect_log("key record")
    done = volume.command("verify", "--json", volume.cipher, check=False)
    assert done.returncode == DAMAGED and "key readmit 1" in done.stderr
    found = json.loads(done.stdout)["findings"]
    assert found and all(finding["retired"] == 1 for finding in found if "retired" in finding)
    assert {finding["kind"] for finding in found} >= {"record"}
    volume.mount()
    if volume.names_encrypted():
        raises(errno.EIO, os.listdir, volume.mnt / "dir")
    else:
        raises(errno.EIO, read_file, volume.mnt / "dir/f0")
    said = fails(IN_USE, "key", "readmit", "-c", volume.conf, "1", volume.cipher)
    assert str(volume.mnt) in said
    volume.umount()
    assert "accepted again" in readmit(volume).stdout
    assert kek_states(volume) == {1: "active", 2: "active"}
    document = json.loads(readmit(volume, 1, "--json").stdout)
    expected = {"schema": 1, "done": "in use", "version": "1", "place": str(volume.cipher)}
    assert document == expected
    volume.assert_verifies_clean()
    volume.reader()  # which checks the MAC
    volume.mount()
    check(volume)
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 60, "the rotation")
    check(volume)
    volume.umount()
    assert record_versions(volume) == {2}
    volume.assert_verifies_clean()


def test_rotate_finishes_it_as_well(make_rotated):
    volume = make_rotated({})
    assert json.loads(readmit(volume, 1, "--json").stdout)["done"] == "readmitted"
    turnkeyfs("rotate", "-c", volume.conf, volume.cipher)
    assert kek_states(volume) == {1: "retired", 2: "retired", 3: "active"}
    assert record_versions(volume) == {3}
    volume.mount()
    check(volume)


def test_the_window_begins_with_the_admission(make_rotated):
    """Else the KEK version's age would count, and a missed window be reported."""
    volume = make_rotated({"kms": {"rotation_window": 8}})
    time.sleep(8)
    readmit(volume)
    volume.mount()
    wait_for(lambda: kek_states(volume)[1] == "retired", 60, "the rotation")
    assert not rotation(volume)["window_missed"]
    assert "missed" not in volume.log()


def test_an_escrow_from_before_the_rotation_serves_again(make_volume, work):
    volume = make_volume()
    fill(volume)
    turnkeyfs("escrow", "export", volume.mnt, work / "escrow")
    volume.umount()
    turnkeyfs("rotate", "-c", volume.conf, volume.cipher)
    path = volume.below("dir/f0")
    os.removexattr(path, "user.turnkey")
    with open(path, "r+b") as f:
        f.write(bytes(64))
    words = ("escrow", "restore", "-c", volume.conf, volume.cipher, work / "escrow")
    assert "key readmit 1" in fails(DAMAGED, *words)
    readmit(volume)
    turnkeyfs(*words)
    volume.mount()
    check(volume)
    wait_for(lambda: kek_states(volume)[1] == "retired", 60, "the rotation")


def test_a_disabled_root_key_version_is_not_admitted(make_rotated, dek_wrap):
    volume = make_rotated({"volume": {"dek_wrap": dek_wrap}})
    before = read_file(volume.cipher / "turnkeyfs.volume")
    turnkeyfs("key", "disable", "--yes", "-c", volume.conf, "1")
    fails(REVOKED, "key", "readmit", "-c", volume.conf, "1", volume.cipher)
    assert read_file(volume.cipher / "turnkeyfs.volume") == before
    turnkeyfs("key", "enable", "-c", volume.conf, "1")
    readmit(volume)
    volume.mount()
    check(volume)


@pytest.mark.parametrize("version", ["0", "3", "x", "1x", "-1", "65536", "99999999999999999999"])
def test_a_version_that_never_was_is_said(make_rotated, version):
    volume = make_rotated({})
    fails(USAGE, "key", "readmit", "-c", volume.conf, "--", version, volume.cipher)
    assert kek_states(volume) == {1: "retired", 2: "active"}


def check_as_long_as_the_version_is_enabled(volume, work):
    fill(volume)
    volume.umount()
    back_up(volume, work)
    (old,) = volume.key.enabled()
    volume.key.rotate()
    turnkeyfs("rotate", "-c", volume.conf, volume.cipher)
    put_back(volume, work)
    volume.key.set_enabled(False, old)
    said = fails(REVOKED, "key", "readmit", "-c", volume.conf, "1", volume.cipher)
    assert old in said
    volume.key.set_enabled(True, old)
    readmit(volume)
    volume.mount()
    check(volume)
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 60, "the rotation")
    volume.key.set_enabled(False, old)
    volume.remount()
    check(volume)


def test_with_a_vault_as_long_as_it_has_the_version(emulator, make_volume, work, dek_wrap):
    vault = owned_vault(emulator)
    volume = make_volume(mount=False, init=False)
    conf = azure_volume.sections(emulator, key_id(vault), volume.directory)
    azure_volume.write(volume.conf, conf | {"volume": {"dek_wrap": dek_wrap, "names": "plain"}})
    volume.key = RootKey(volume.conf)
    volume.init().mount()
    check_as_long_as_the_version_is_enabled(volume, work)


def test_with_a_token_as_long_as_it_has_the_version(make_token_volume, work, dek_wrap):
    volume = make_token_volume({"volume": {"dek_wrap": dek_wrap, "names": "plain"}})
    check_as_long_as_the_version_is_enabled(volume, work)


def test_every_protector_opens_what_was_admitted(make_rotated, work):
    """Also one that came after the version was retired."""
    volume = make_rotated({})
    own = volume.conf
    recovery = azure_volume.write(work / "recovery.conf", {
        "local": {"keystore": work / "recovery.keystore"}})  # fmt: skip
    turnkeyfs("protector", "add", "-c", own, volume.cipher, recovery)
    readmit(volume)
    assert kek_states(volume) == {1: "active", 2: "active"}
    volume.conf = recovery
    volume.mount()
    check(volume)
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 60, "the rotation")
    volume.umount()
    assert record_versions(volume) == {2}
    volume.conf = own
    volume.mount()
    check(volume)
    volume.umount()
    volume.assert_verifies_clean()


def test_after_a_move_the_former_root_key_is_named(emulator, make_volume, work, dek_wrap):
    volume = make_volume(conf={"volume": {"dek_wrap": dek_wrap, "names": "plain"}})
    fill(volume)
    volume.umount()
    back_up(volume, work)
    vault = owned_vault(emulator)
    sections = azure_volume.sections(emulator, key_id(vault), volume.directory)
    home, away = volume.conf, azure_volume.write(volume.directory / "away.conf", sections)
    turnkeyfs("rotate", "-c", home, "--to", away, volume.cipher)
    put_back(volume, work)
    volume.conf = away
    assert "[kms] previous" in fails(WRONG_KEY, "key", "readmit", "-c", away, "1", volume.cipher)
    sections["kms"]["previous"] = home
    azure_volume.write(away, sections)
    readmit(volume)
    volume.mount()
    check(volume)
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 60, "the rotation")
    volume.umount()
    assert record_versions(volume) == {2}
