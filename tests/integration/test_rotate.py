# SPDX-License-Identifier: Apache-2.0
"""Rotation, and the move from one root key to another: mounted, unmounted, interrupted."""

import fcntl
import os
import threading

import azure_volume
import pytest
from azure_volume import fails, kek_states, key_id, owned_vault, record_versions, rotation, turnkeyfs
from helpers import noise, read_file, write_file
from mountpoint import run, scaled, wait_for

pytest_plugins = ["emulator_fixture"]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


@pytest.fixture(params=["kek", "kms"])
def dek_wrap(request):
    return request.param


def fill(volume, count=20):
    (volume.mnt / "dir").mkdir(exist_ok=True)
    for i in range(count):
        write_file(volume.mnt / ("dir" if i % 2 else ".") / f"f{i}", noise(3000, i))


def records(volume, count=20):
    """Key records that fill made: with encrypted names, directories have one, too."""
    return count + (2 if volume.names_encrypted() else 0)


def check(volume, count=20):
    for i in range(count):
        content = read_file(volume.mnt / ("dir" if i % 2 else ".") / f"f{i}")
        assert content == noise(3000, i)


def other_keystore(volume, name="other"):
    """A configuration with another keystore, which is made."""
    conf = azure_volume.write(
        volume.directory / f"{name}.conf",
        {"local": {"keystore": volume.directory / f"{name}.keystore"}},
    )
    turnkeyfs("key", "create", "-c", conf)
    return conf


def azure_conf(volume, emulator, vault, name="azure", **options):
    return azure_volume.write(
        volume.directory / f"{name}.conf",
        azure_volume.sections(emulator, key_id(vault), volume.directory, **options),
    )


def unneeded(volume):
    return [root["version"] for root in volume.status(volume.cipher)["no_longer_needed"]]


def lock_file(path, locked):
    """Whether the backing file could be made immutable."""
    return run("chattr", "+i" if locked else "-i", path, check=False).returncode == 0


# --- a new version of the same key ---------------------------------------------------------------


def test_without_a_mount_it_is_done_at_once(make_volume, dek_wrap):
    volume = make_volume(conf={"volume": {"dek_wrap": dek_wrap}})
    fill(volume)
    volume.umount()
    blocks = {"kek": 4096, "kms": 8192}[dek_wrap]  # where the first one lies

    def below():
        files = [path for path in (volume.cipher / "root").rglob("*") if path.is_file()]
        return {path: read_file(path)[blocks:] for path in files}

    before = below()
    assert len(before) == 20 and all(before.values())
    said = volume.command("rotate", volume.cipher).stdout
    assert "KEK version 2" in said and f"{records(volume)} of {records(volume)} files" in said
    assert str(volume.keystore) in said, "it says to back it up"
    assert kek_states(volume) == {1: "retired", 2: "active"}
    assert record_versions(volume) == {2}
    assert unneeded(volume) == ["1"]
    assert below() == before, "content is not touched"
    volume.assert_verifies_clean()
    turnkeyfs("key", "disable", "--yes", "-c", volume.conf, "1")
    volume.mount()
    check(volume)


def test_a_mount_does_it_when_it_is_told_to(make_volume, dek_wrap):
    volume = make_volume(conf={"volume": {"dek_wrap": dek_wrap}})
    fill(volume)
    assert rotation(volume)["state"] == "none"
    turnkeyfs("rotate", "--wait", volume.mnt)
    state = rotation(volume)
    assert state["state"] == "done" and state["kek_version"] == 2
    assert state["rewrapped"] == records(volume) and state["failed"] == 0 and state["error"] is None
    assert 0 < state["started"] <= state["ended"]
    assert kek_states(volume) == {1: "retired", 2: "active"}
    check(volume)
    write_file(volume.mnt / "new", b"under the new one")
    volume.remount()
    check(volume)
    volume.umount()
    assert record_versions(volume) == {2}
    volume.assert_verifies_clean()


def test_without_wait_status_shows_how_far_it_is(volume):
    fill(volume)
    said = turnkeyfs("rotate", volume.cipher).stdout
    assert f"turnkeyfs status {volume.cipher}" in said
    wait_for(lambda: rotation(volume)["state"] == "done", 30, "the rotation")
    text = turnkeyfs("status", volume.mnt).stdout
    assert "rotation        done" in text
    assert "no longer needed by this volume, may be disabled: local key" in text


def test_programs_go_on_meanwhile(volume):
    count = scaled(400)
    fill(volume, count)
    stop = threading.Event()
    failures = []

    def work():
        i = 0
        while not stop.is_set():
            try:
                path = volume.mnt / f"busy{i % 7}"
                write_file(path, noise(2000, i))
                os.rename(path, volume.mnt / "dir" / f"moved{i % 5}")
                if read_file(volume.mnt / "dir" / f"moved{i % 5}") != noise(2000, i):
                    failures.append(f"content of {i}")
            except OSError as e:
                failures.append(str(e))
            i += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            turnkeyfs("rotate", "--wait", volume.mnt)
    finally:
        stop.set()
        thread.join()
    assert not failures, failures[:3]
    check(volume, count)
    volume.umount()
    assert record_versions(volume) == {4}
    volume.assert_verifies_clean()


SLOW = {"kms": {"rewrap_rate": 250}}  # files per second, where a rotation is to be interrupted


@pytest.mark.conf(SLOW)
def test_an_interrupted_rotation_goes_on_with_the_next_mount(volume):
    count = 600
    for i in range(count):
        write_file(volume.mnt / f"f{i}", b"x")
    os.sync()
    turnkeyfs("rotate", volume.mnt)
    wait_for(lambda: rotation(volume)["rewrapped"] > 50, 30, "the beginning")
    volume.expect_log("the key record's (copy|attribute)")  # killed between the two
    volume.kill()
    volume.daemon.wait(10)
    volume.forget_daemon()
    run("umount", "-l", volume.mnt)
    assert kek_states(volume) == {1: "active", 2: "active"}
    assert record_versions(volume) == {1, 2}
    volume.mount()
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 60, "the end")
    wait_for(lambda: rotation(volume)["state"] == "done", 10, "done")
    assert rotation(volume)["rewrapped"] < count, "it went on where it was"
    volume.umount()
    assert record_versions(volume) == {2}
    assert volume.keystore.read_text().count("[version ") == 2, "going on makes no new version"


@pytest.mark.conf(SLOW)
def test_unmounting_stops_it_and_keeps_what_was_done(volume):
    count = 600
    for i in range(count):
        write_file(volume.mnt / f"f{i}", b"x")
    turnkeyfs("rotate", volume.mnt)
    wait_for(lambda: rotation(volume)["rewrapped"] > 100, 30, "the beginning")
    volume.umount()
    assert kek_states(volume) == {1: "active", 2: "active"}
    volume.command("rotate", volume.cipher)
    states = kek_states(volume)
    assert [version for version in states if states[version] == "active"] == [3]
    assert record_versions(volume) == {3}
    volume.assert_verifies_clean()


def test_a_file_that_can_t_be_rewrapped_keeps_the_old_version(volume):
    fill(volume)
    os.makedirs(volume.mnt / "in/here")
    write_file(volume.mnt / "in/here/a file", b"locked")
    volume.umount()
    locked = volume.below("in/here/a file")
    named = "rotation: '/in/here/a file' can't be rewrapped: Operation not permitted"
    if not lock_file(locked, True):
        pytest.skip("no immutable files here")
    try:
        said = volume.command("rotate", volume.cipher, check=False)
        assert said.returncode == 1
        assert "1 files could not be rewrapped" in said.stderr
        assert named in said.stderr
        assert kek_states(volume) == {1: "active", 2: "active"}
        assert unneeded(volume) == []
        volume.expect_log("rotation")
        volume.mount()
        wait_for(lambda: rotation(volume)["state"] == "incomplete", 30, "the end of the pass")
        assert rotation(volume)["failed"] == 1
        # A mount's log has no plaintext names: the line has the path below.
        assert "can't be rewrapped: Operation not permitted" in volume.log()
        check(volume)
    finally:
        lock_file(locked, False)
    turnkeyfs("rotate", "--wait", volume.mnt)
    volume.umount()
    assert record_versions(volume) == {3}


def test_of_many_files_that_can_t_be_rewrapped_a_few_are_named(volume):
    fill(volume, 60)
    volume.umount()
    directory = volume.below("dir")
    files = [os.path.join(directory, name) for name in os.listdir(directory)]
    files = [path for path in files if os.path.isfile(path) and not os.path.islink(path)]
    if not all(lock_file(path, True) for path in files):
        pytest.skip("no immutable files here")
    try:
        said = volume.command("rotate", volume.cipher, check=False)
        assert said.returncode == 1 and f"{len(files)} files could not be" in said.stderr
        assert said.stderr.count("can't be rewrapped") == 20
        assert said.stderr.count("there are more such files") == 1
    finally:
        for path in files:
            lock_file(path, False)


@pytest.mark.conf({"mount": {"read_only": "yes"}})
def test_a_read_only_mount_refuses(volume):
    assert "read-only" in fails(2, "rotate", volume.mnt)
    assert kek_states(volume) == {1: "active"}


def test_a_volume_in_use_otherwise_is_refused(volume):
    volume.umount()
    with open(volume.cipher / "turnkeyfs.lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use" in fails(6, "rotate", "-c", volume.conf, volume.cipher)


def test_the_vault_s_new_version_is_taken(emulator, make_volume, dek_wrap):
    vault = owned_vault(emulator)
    volume = make_volume(mount=False, init=False)
    conf = azure_volume.sections(emulator, key_id(vault), volume.directory)
    azure_volume.write(volume.conf, conf | {"volume": {"dek_wrap": dek_wrap}})
    volume.init().mount()
    fill(volume)
    old = azure_volume.key_version(vault)
    turnkeyfs("rotate", "--wait", volume.mnt)
    assert rotation(volume)["state"] == "current", "the vault has no new version"
    assert kek_states(volume) == {1: "active"}
    turnkeyfs("key", "rotate", "-c", volume.conf)
    turnkeyfs("rotate", "--wait", volume.mnt)
    assert rotation(volume)["state"] == "done"
    assert unneeded(volume) == [old]
    turnkeyfs("key", "disable", "--yes", "-c", volume.conf, old)
    check(volume)
    volume.remount()
    check(volume)


# --- to another key ------------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [True, False])
def test_to_another_keystore(make_volume, dek_wrap, mounted):
    volume = make_volume(conf={"volume": {"dek_wrap": dek_wrap}})
    fill(volume)
    target = other_keystore(volume)
    if mounted:
        turnkeyfs("rotate", "--wait", "--to", target, volume.mnt)
        assert volume.status()["daemon"]["keystore"] == str(volume.directory / "other.keystore")
        check(volume)
        volume.umount()
    else:
        volume.umount()
        volume.command("rotate", "--to", target, volume.cipher)
    assert "wants id" in fails(10, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    volume.keystore.unlink()
    volume.conf = target
    volume.mount()
    check(volume)


@pytest.mark.parametrize("mounted", [True, False])
def test_from_local_to_a_vault_and_back(emulator, make_volume, dek_wrap, mounted):
    volume = make_volume(conf={"volume": {"dek_wrap": dek_wrap}})
    fill(volume)
    vault = owned_vault(emulator)
    home, away = volume.conf, azure_conf(volume, emulator, vault)
    fingerprint = volume.status()["daemon"]["fingerprint"]
    for source, target in ((home, away), (away, home)):
        volume.conf = source
        if mounted:
            turnkeyfs("rotate", "--wait", "--to", target, volume.mnt)
            check(volume)
        volume.umount()
        if not mounted:
            volume.command("rotate", "--to", target, volume.cipher)
        volume.conf = target
        volume.mount()
        check(volume)
    assert volume.status()["daemon"]["fingerprint"] == fingerprint, "it is the same volume"
    assert unneeded(volume) == [azure_volume.key_version(vault)]
    assert kek_states(volume) == {1: "retired", 2: "retired", 3: "active"}


def test_from_vault_to_vault(emulator, make_volume, dek_wrap):
    old, new = owned_vault(emulator), owned_vault(emulator, key_size=4096)
    volume = make_volume(mount=False, init=False)
    conf = azure_volume.sections(emulator, key_id(old), volume.directory)
    azure_volume.write(volume.conf, conf | {"volume": {"dek_wrap": dek_wrap}})
    volume.init().mount()
    fill(volume)
    target = azure_conf(volume, emulator, new, "new")
    turnkeyfs("rotate", "--wait", "--to", target, volume.mnt)
    assert volume.status()["daemon"]["key"] == key_id(new)
    old.ok("DELETE", "/keys/kek")
    check(volume)
    write_file(volume.mnt / "later", b"under the new vault's key")
    turnkeyfs("key", "rotate", "-c", target)
    turnkeyfs("rotate", "--wait", volume.mnt)
    assert rotation(volume)["state"] == "done", "rotations now follow the new key"
    volume.umount()
    volume.conf = target
    volume.mount()
    check(volume)


@pytest.mark.deadline(300)
def test_an_interrupted_move_wants_both_keys_and_goes_on(emulator, make_volume, dek_wrap):
    """Vault to vault, so that both are asked in the same words."""
    old, new = owned_vault(emulator), owned_vault(emulator)
    volume = make_volume(mount=False, init=False)
    conf = azure_volume.sections(emulator, key_id(old), volume.directory, kms={"rewrap_rate": 100})
    azure_volume.write(volume.conf, conf | {"volume": {"dek_wrap": dek_wrap}})
    volume.init().mount()
    count = 300
    for i in range(count):
        write_file(volume.mnt / f"f{i}", b"%d" % i)
    os.sync()
    target = azure_conf(volume, emulator, new, "new")
    turnkeyfs("rotate", "--to", target, volume.mnt)
    wait_for(lambda: rotation(volume)["rewrapped"] > 20, 30, "the beginning")
    volume.umount()
    assert kek_states(volume) == {1: "active", 2: "active"}

    said = fails(10, "mount", "-c", target, volume.cipher, volume.mnt)
    assert "[kms] previous" in said
    both = azure_conf(volume, emulator, new, "both", kms={"previous": volume.conf})
    volume.conf = both
    volume.assert_verifies_clean()
    volume.mount()
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 90, "the end")
    old.ok("DELETE", "/keys/kek")
    volume.remount()
    assert read_file(volume.mnt / f"f{count - 1}") == b"%d" % (count - 1)
    volume.umount()
    volume.conf = target
    volume.assert_verifies_clean()


def test_a_target_that_can_t_be_used_changes_nothing(emulator, volume):
    fill(volume)
    vault = emulator.vault(purge_protection=True)  # without the key
    target = azure_conf(volume, emulator, vault)
    volume.expect_log("error: rotation of .* stopped: the root key .* is not in the vault")
    assert "is not in the vault" in fails(12, "rotate", "--wait", "--to", target, volume.mnt)
    assert rotation(volume)["state"] == "failed"
    assert rotation(volume)["kind"] == 12
    assert volume.status()["daemon"]["keystore"] == str(volume.keystore)
    assert kek_states(volume) == {1: "active"}
    check(volume)
    volume.remount()
    check(volume)


@pytest.mark.parametrize(
    "text,code,said",
    [
        ("[mount]\nthreads = 100\n", 3, "threads"),
        ("[local]\nkeystore = /nonexistent/keystore\n", 7, "/nonexistent/keystore"),
    ],
)
def test_a_wrong_target_configuration_is_said_at_once(volume, text, code, said):
    target = volume.directory / "target.conf"
    target.write_text(text)
    assert said in fails(code, "rotate", "--to", target, volume.mnt)
    assert said in fails(code, "rotate", "--to", target.name, volume.mnt, cwd=volume.directory)
    assert rotation(volume)["state"] == "none"


def test_a_mount_can_t_be_asked_to_type_a_secret(emulator, volume):
    vault = owned_vault(emulator)
    target = azure_conf(volume, emulator, vault, azure={"client_secret": "prompt"})
    assert "can't ask for a secret" in fails(3, "rotate", "--to", target, volume.mnt)


def test_one_at_a_time(emulator, volume):
    fill(volume)
    vault = owned_vault(emulator)
    target = azure_conf(volume, emulator, vault)
    emulator.control("fault", kind="slow", ms=1500, count=3)
    turnkeyfs("rotate", "--to", target, volume.mnt)
    assert rotation(volume)["state"] == "running"
    assert "running already" in fails(6, "rotate", volume.mnt)
    assert "running already" in fails(6, "rotate", "--to", target, volume.mnt)
    wait_for(lambda: rotation(volume)["state"] == "done", 30, "the end")
    check(volume)


def test_another_user_may_not_ask_for_it(volume):
    os.chmod(volume.cipher, 0o711)
    program = azure_volume.mountpoint.turnkeyfs()
    done = run("setpriv", "--reuid=65534", "--clear-groups", program, "rotate", volume.cipher,
               check=False)  # fmt: skip
    assert done.returncode != 0
    assert kek_states(volume) == {1: "active"}
