# SPDX-License-Identifier: Apache-2.0
"""Several root keys for one volume: each opens it, all follow each rotation, and the one that a
mount lives on is the only one that counts for it."""

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import time

import azure_volume
import mountpoint
import pytest
import turnkeyfs_reader as reader
from azure_volume import VaultKeys, fails, key_id, owned_vault, record_versions, turnkeyfs
from helpers import new_seed, noise, read_file, write_file
from key_states import EXPECTED, WINDOW, allowed, refused, wait_refused, wait_state, windows
from mountpoint import run, scaled, wait_for

pytest_plugins = ["emulator_fixture"]

CONTENT = noise(20_000)
ADDED = r"warning: .* was added: it opens the volume as protector|warning: .*protector \d+ was removed"


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


def keystore_conf(volume, name="recovery", **more):
    """A configuration with another keystore, which need not be there yet."""
    local = {"keystore": volume.directory / f"{name}.keystore"} | more
    return azure_volume.write(
        volume.directory / f"{name}.conf", {"local": local} | windows(rotation=0)
    )


def vault_conf(volume, emulator, vault, name="vault", **kms):
    sections = azure_volume.sections(
        emulator, key_id(vault), volume.directory, kms=windows()["kms"] | kms
    )
    return azure_volume.write(volume.directory / f"{name}.conf", sections)


@pytest.fixture
def shared(make_volume):
    """A mounted volume with its keystore, and a recovery keystore."""
    volume = make_volume(conf=windows())
    volume.expect_log(EXPECTED)
    volume.expect_log(ADDED)
    volume.recovery = keystore_conf(volume)
    turnkeyfs("protector", "add", volume.mnt, volume.recovery)
    write_file(volume.mnt / "f", CONTENT)
    return volume


@pytest.fixture
def vaulted(make_volume, emulator):
    """A mounted volume under a key in a vault, and a recovery keystore."""
    volume = make_volume(mount=False, init=False)
    volume.expect_log(EXPECTED)
    volume.expect_log(ADDED)
    volume.vault = owned_vault(emulator)
    shutil.copy(vault_conf(volume, emulator, volume.vault), volume.conf)
    volume.init().mount()
    volume.recovery = keystore_conf(volume)
    turnkeyfs("protector", "add", volume.mnt, volume.recovery)
    write_file(volume.mnt / "f", CONTENT)
    return volume


def listed(path, *options, check=True):
    done = turnkeyfs("protector", "list", "--json", *options, path, check=check)
    return json.loads(done.stdout)


def numbers(path):
    return [protector["number"] for protector in listed(path)["protectors"]]


def mount_with(volume, conf):
    """From now on the volume is used with that configuration."""
    shutil.copy(conf, volume.conf)
    return volume.mount()


def check_opens(volume, *confs):
    """Each mounts it and reads it."""
    for conf in confs:
        mount_with(volume, conf)
        assert read_file(volume.mnt / "f") == CONTENT
        volume.umount()


# --- what users see ----------------------------------------------------------------------------


def test_a_recovery_keystore_opens_the_volume_of_a_vault(vaulted):
    protectors = listed(vaulted.mnt)["protectors"]
    assert [p["provider"] for p in protectors] == ["azure", "local"]
    assert vaulted.status()["format"] == 2
    assert vaulted.status()["daemon"]["protector"] == 1
    vaulted.umount()
    own = shutil.copy(vaulted.conf, vaulted.directory / "own.conf")
    check_opens(vaulted, vaulted.recovery, own)
    # The independent reader, by either of them.
    keystore = reader.Keystore.open(vaulted.directory / "recovery.keystore")
    for keys in (keystore, VaultKeys(vaulted.vault)):
        with reader.Volume(vaulted.cipher, keys).open("f") as f:
            assert f.read() == CONTENT
    vaulted.assert_verifies_clean()


def test_a_refused_key_locks_its_mount_whatever_the_other_could_open(vaulted):
    turnkeyfs("key", "disable", "--yes", "-c", vaulted.recovery, "1")
    time.sleep(WINDOW * 1.5)
    assert vaulted.status()["daemon"]["state"] == "active", "nobody asks the other one"
    turnkeyfs("key", "enable", "-c", vaulted.recovery, "1")

    vaulted.vault.set_enabled("kek", False)
    took = wait_refused(read_file, vaulted.mnt / "f")
    assert took <= allowed(WINDOW)
    wait_state(vaulted, "revoked")
    time.sleep(WINDOW)
    assert refused(read_file, vaulted.mnt / "f")
    # Neither can the mount be made to leave the refused key behind ...
    said = fails(12, "protector", "add", vaulted.mnt, keystore_conf(vaulted, "third"))
    assert "third.keystore is left" in said
    fails(12, "protector", "remove", "--yes", vaulted.mnt, "2")
    assert numbers(vaulted.cipher) == [1, 2]
    vaulted.umount()
    fails(12, "mount", "-c", vaulted.conf, vaulted.cipher, vaulted.mnt)
    # ... but who holds the recovery key, and says so, opens it.
    own = shutil.copy(vaulted.conf, vaulted.directory / "own.conf")
    check_opens(vaulted, vaulted.recovery)
    vaulted.vault.set_enabled("kek", True)
    check_opens(vaulted, own)


def test_who_is_out_of_reach_follows(vaulted, emulator):
    own = shutil.copy(vaulted.conf, vaulted.directory / "own.conf")
    vaulted.umount()
    emulator.control("fault", kind="status", count=None, vault=vaulted.vault.name, status=503)
    fails(11, "mount", "-c", own, vaulted.cipher, vaulted.mnt)
    mount_with(vaulted, vaulted.recovery)
    turnkeyfs("rotate", "--wait", vaulted.mnt)
    assert record_versions(vaulted) == {2}
    turnkeyfs("rotate", "--wait", vaulted.mnt)
    vaulted.umount()
    said = turnkeyfs("protector", "list", "-c", own, vaulted.cipher, check=False)
    assert said.returncode == 11 and "asked now: unreachable" in said.stdout
    emulator.control("clear_faults", vault=vaulted.vault.name)
    check_opens(vaulted, own, vaulted.recovery)


@pytest.mark.parametrize("kind", ["vaults", "keystores"])
def test_two_of_a_kind_rotate_in_turn(make_volume, emulator, kind):
    volume = make_volume(mount=False, init=False)
    volume.expect_log(ADDED)
    if kind == "vaults":
        vaults = [owned_vault(emulator), owned_vault(emulator)]
        confs = [vault_conf(volume, emulator, v, f"v{i}") for i, v in enumerate(vaults)]
    else:
        confs = [keystore_conf(volume, name) for name in ("one", "two")]
    shutil.copy(confs[0], volume.conf)
    volume.init().mount()
    turnkeyfs("protector", "add", volume.mnt, confs[1])
    write_file(volume.mnt / "f", CONTENT)
    volume.umount()
    for turn in range(4):
        conf = confs[turn % 2]
        if kind == "vaults":
            turnkeyfs("key", "rotate", "-c", conf)
        if turn < 2:
            turnkeyfs("rotate", "-c", conf, volume.cipher)
        else:
            mount_with(volume, conf)
            turnkeyfs("rotate", "--wait", volume.mnt)
            volume.umount()
        assert record_versions(volume) == {turn + 2}
        check_opens(volume, *confs)
    for conf in confs:
        checked = [p["checked"] for p in listed(volume.cipher, "-c", conf)["protectors"]]
        assert [c["state"] for c in checked if c] == ["usable"]
    assert volume.status(volume.cipher)["no_longer_needed"], "it says what may be disabled"


def test_a_new_version_in_the_vault_is_taken_up_for_both(make_volume, emulator):
    volume = make_volume(mount=False, init=False)
    volume.expect_log(ADDED)
    vault = owned_vault(emulator)
    shutil.copy(vault_conf(volume, emulator, vault, rotation_window=4), volume.conf)
    own = shutil.copy(volume.conf, volume.directory / "own.conf")
    volume.init().mount()
    recovery = keystore_conf(volume)
    turnkeyfs("protector", "add", volume.mnt, recovery)
    write_file(volume.mnt / "f", CONTENT)
    old = azure_volume.key_version(vault)
    turnkeyfs("key", "rotate", "-c", volume.conf)
    wait_for(lambda: record_versions(volume) == {2}, 30, "the rotation")
    wait_for(lambda: volume.status()["no_longer_needed"], 30, "the retirement")
    assert [root["version"] for root in volume.status()["no_longer_needed"]] == [old]
    volume.umount()
    vault.set_enabled("kek", False, old)
    check_opens(volume, own, recovery)


def test_list_tells_what_the_volume_file_says_and_what_a_key_says(shared):
    document = listed(shared.mnt)
    assert document["schema"] == 1 and document["format"] == 2 and not document["authentic"]
    assert [p["number"] for p in document["protectors"]] == [1, 2]
    assert all(p["kek_versions"] == [1] and not p["lagging"] for p in document["protectors"])
    assert all(p["checked"] is None for p in document["protectors"])
    # While it is mounted with the other key.
    document = listed(shared.mnt, "-c", shared.recovery)
    assert document["authentic"]
    checked = document["protectors"][1]["checked"]
    assert checked == {"state": "usable", "newest_version": "1", "error": None}
    assert document["protectors"][0]["checked"] is None
    turnkeyfs("key", "rotate", "-c", shared.recovery)
    assert "has a newer version, 2" in turnkeyfs(
        "protector", "list", "-c", shared.recovery, shared.mnt
    ).stdout
    turnkeyfs("key", "disable", "--yes", "-c", shared.recovery, "1")
    done = turnkeyfs("protector", "list", "-c", shared.recovery, shared.mnt, check=False)
    assert done.returncode == 12 and "asked now: refused" in done.stdout
    stranger = keystore_conf(shared, "stranger")
    turnkeyfs("key", "create", "-c", stranger)
    fails(10, "protector", "list", "-c", stranger, "-j", shared.mnt)


def test_what_is_removed_opens_nothing_and_comes_back(shared):
    own = shutil.copy(shared.conf, shared.directory / "own.conf")
    said = fails(2, "protector", "remove", "--yes", shared.mnt, "1")
    assert "was opened by protector 1 itself" in said
    assert "no terminal" in fails(2, "protector", "remove", shared.mnt, "2")
    fails(2, "protector", "remove", "--yes", shared.mnt, "3")
    fails(2, "protector", "remove", "--yes", shared.mnt, "x")
    fails(2, "protector", "add", shared.mnt, shared.recovery)  # it is one already
    turnkeyfs("protector", "remove", "--yes", shared.mnt, "2")
    assert numbers(shared.mnt) == [1]
    fails(2, "protector", "remove", "--yes", shared.mnt, "1")
    turnkeyfs("rotate", "--wait", shared.mnt)
    shared.umount()
    fails(10, "mount", "-c", shared.recovery, shared.cipher, shared.mnt)
    turnkeyfs("protector", "add", "-c", own, shared.cipher, shared.recovery)
    check_opens(shared, shared.recovery, own)
    # The first one goes, the other is the only one then.
    turnkeyfs("protector", "remove", "--yes", "-c", shared.recovery, shared.cipher, "1")
    fails(10, "mount", "-c", own, shared.cipher, shared.mnt)
    check_opens(shared, shared.recovery)
    fails(2, "protector", "remove", "--yes", "-c", shared.recovery, shared.cipher, "2")


def test_an_old_volume_file_gives_a_removed_key_no_new_record(shared):
    """As docs/threat-model.md says: what it opened before, and nothing that was made since."""
    old = read_file(shared.cipher / "turnkeyfs.volume")
    turnkeyfs("protector", "remove", "--yes", shared.mnt, "2")
    turnkeyfs("rotate", "--wait", shared.mnt)
    write_file(shared.mnt / "new", b"since then")
    new = shared.below("new")
    shared.umount()
    (shared.cipher / "turnkeyfs.volume").write_bytes(old)
    keystore = reader.Keystore.open(shared.directory / "recovery.keystore")
    volume = reader.Volume(shared.cipher, keystore)
    with pytest.raises(reader.RecordDamaged, match="KEK version 2 is not live"):
        volume.unwrap_record(os.getxattr(new, mountpoint.KEY_RECORD))


def test_the_passphrase_of_the_new_one_never_reaches_the_mount(shared):
    (shared.directory / "phrase").write_text("correct horse")
    (shared.directory / "phrase").chmod(0o600)
    third = keystore_conf(shared, "third", passphrase=f"file:{shared.directory}/phrase")
    turnkeyfs("protector", "add", shared.mnt, third)
    assert numbers(shared.mnt) == [1, 2, 3]
    log = shared.log()
    assert "was added: it opens the volume as protector 3" in log
    assert "third.keystore" not in log
    shared.umount()
    (shared.directory / "phrase").write_text("wrong")
    fails(9, "mount", "-c", third, shared.cipher, shared.mnt)
    (shared.directory / "phrase").write_text("correct horse")
    check_opens(shared, third)


def test_what_can_not_be_is_refused_in_words(make_volume, shared):
    volume = make_volume("per-file", mount=False, conf={"volume": {"dek_wrap": "kms"}})
    third = keystore_conf(volume, "third")
    said = fails(18, "protector", "add", "-c", volume.conf, volume.cipher, third)
    assert "dek_wrap = kms" in said
    assert not (volume.directory / "third.keystore").exists()
    turnkeyfs("key", "create", "-c", third)
    for path in (shared.mnt, shared.cipher):
        said = fails(18, "rotate", "-c", shared.conf, "--to", third, path)
        assert "protector add" in said
        if path == shared.mnt:
            shared.umount()
    inside = azure_volume.write(
        shared.directory / "inside.conf", {"local": {"keystore": shared.cipher / "x.keystore"}}
    )
    fails(3, "protector", "add", "-c", shared.conf, shared.cipher, inside)
    assert numbers(shared.cipher) == [1, 2]


def test_a_volume_file_in_an_escrow_is_opened_by_either(shared):
    escrow = shared.directory / "escrow"
    turnkeyfs("escrow", "export", shared.cipher, escrow)
    shared.umount()
    (shared.cipher / "turnkeyfs.volume").unlink()
    turnkeyfs("escrow", "restore", "-c", shared.recovery, shared.cipher, escrow)
    check_opens(shared, shared.recovery)


# --- crashes ------------------------------------------------------------------------------------


def start(*words):
    return subprocess.Popen(
        [mountpoint.turnkeyfs(), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed_after(seconds, *words):
    program = start(*words)
    try:
        program.wait(seconds)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGKILL)
        program.wait()
    return program.returncode


@pytest.mark.deadline(300)
def test_killed_at_any_moment_it_is_added_or_not(shared):
    own = shutil.copy(shared.conf, shared.directory / "own.conf")
    turnkeyfs("protector", "remove", "--yes", shared.mnt, "2")
    shared.umount()
    dice = random.Random(new_seed())
    began = time.monotonic()
    turnkeyfs("protector", "add", "-c", own, shared.cipher, shared.recovery)
    whole = time.monotonic() - began
    outcomes = set()
    for _ in range(scaled(16, 300)):
        there = 2 in numbers(shared.cipher)
        words = ("remove", "--yes", "-c", own, shared.cipher, "2")
        if not there:
            words = ("add", "-c", own, shared.cipher, shared.recovery)
        killed_after(dice.uniform(0, 3) * whole, "protector", *words)
        now = 2 in numbers(shared.cipher)
        outcomes.add(now != there)
        turnkeyfs("protector", "list", "-c", own, shared.cipher)
        done = turnkeyfs("protector", "list", "-c", shared.recovery, shared.cipher, check=False)
        assert done.returncode == (0 if now else 10), done.stderr
    assert True in outcomes, "killed too early every time"
    check_opens(shared, own)


@pytest.mark.deadline(300)
def test_the_mount_is_killed_while_protectors_come_and_go(shared):
    """Who was acknowledged opens it, and who was acknowledged to be gone does not."""
    own = shutil.copy(shared.conf, shared.directory / "own.conf")
    dice = random.Random(new_seed())
    outcomes = collections.Counter()
    began = time.monotonic()
    turnkeyfs("protector", "remove", "--yes", shared.mnt, "2")
    whole = time.monotonic() - began
    for _ in range(scaled(6, 40)):
        there = 2 in numbers(shared.cipher)
        words = ("add", shared.mnt, shared.recovery)
        if there:
            words = ("remove", "--yes", shared.mnt, "2")
        if dice.random() < 0.5:
            start("rotate", shared.mnt).wait(60)
        changing = start("protector", *words)
        time.sleep(dice.uniform(0, 4) * whole)
        shared.kill()
        shared.daemon.wait(30)
        shared.forget_daemon()
        acknowledged = changing.wait(60) == 0
        run("umount", "-l", shared.mnt)
        now = 2 in numbers(shared.cipher)
        outcomes[acknowledged, now != there] += 1
        if acknowledged:
            assert now != there
        turnkeyfs("protector", "list", "-c", own, shared.cipher)
        if now:
            mount_with(shared, shared.recovery)
            assert read_file(shared.mnt / "f") == CONTENT
            shared.umount()
        else:
            fails(10, "mount", "-c", shared.recovery, shared.cipher, shared.mnt)
        mount_with(shared, own)
        assert read_file(shared.mnt / "f") == CONTENT
    print(f"(acknowledged, changed): {dict(outcomes)}")
    shared.umount()
    shared.assert_verifies_clean()
