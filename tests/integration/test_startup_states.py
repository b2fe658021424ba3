# SPDX-License-Identifier: Apache-2.0
"""A vault that can't be reached, that answers badly, and that comes back: while mounted and at the
start. Unmounting in each of these states."""

import errno
import json
import os
import subprocess
import time

import azure_volume
import mountpoint
import pytest
from azure_volume import key_id, key_version, kek_states, owned_vault, turnkeyfs
from helpers import noise, read_file, write_file
from key_states import EXPECTED, allowed, refused, state, wait_refused, wait_served, wait_state
from mountpoint import is_mounted, run, scaled, wait_for

pytest_plugins = ["emulator_fixture"]

QUICK = {"connect_timeout": 1, "request_timeout": 1}
SERVED = b"served"


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


@pytest.fixture
def make_azure(make_volume):
    """A function that makes a mounted volume with a root key in @emulator."""

    def make(emulator, vault, mount=True, **kms):
        volume = make_volume(mount=False, init=False)
        kms = {"revocation_window": 2, "rotation_window": 0, "outage_grace": 600} | kms
        azure_volume.write(
            volume.conf,
            azure_volume.sections(emulator, key_id(vault), volume.directory, kms=kms, azure=QUICK),
        )
        volume.expect_log(EXPECTED + "|outside its dates|expired|trying again for")
        volume.init()
        volume.mount()
        write_file(volume.mnt / "f", SERVED)
        return volume if mount else volume.umount()

    return make


def look(volume):
    assert read_file(volume.mnt / "f") == SERVED
    os.listdir(volume.mnt)


def cut(emulator, vault):
    emulator.control("fault", kind="drop", count=None, vault=vault.name, unauthenticated=True)


# --- while mounted -------------------------------------------------------------------------------


def test_a_stopped_vault_is_served_without_until_the_grace_ends(make_emulator, make_azure):
    emulator = make_emulator()
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, outage_grace=8)
    fd = os.open(volume.mnt / "f", os.O_RDONLY)
    began = time.monotonic()
    emulator.restart()  # so that it comes back on the same ports
    emulator.stop()
    wait_state(volume, "degraded")
    look(volume)
    write_file(volume.mnt / "written", noise(5000))
    wait_refused(os.pread, fd, 1, 0, number=errno.ENOKEY)
    took = time.monotonic() - began
    print(f"served for {took:.2f} s of a grace of 8 s")
    assert 5 < took < allowed(12)
    assert state(volume) == "outage"
    assert refused(os.listdir, volume.mnt, number=errno.ENOKEY)
    emulator.start()
    wait_served(os.pread, fd, 1, 0, number=errno.ENOKEY)
    assert os.pread(fd, 10, 0) == SERVED
    assert read_file(volume.mnt / "written") == noise(5000)
    os.close(fd)


@pytest.mark.parametrize(
    "trouble",
    [
        {"kind": "throttle", "retry_after": 1},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 500},
        {"kind": "drop"},
        {"kind": "half"},
        {"kind": "body", "body": "<html>"},
    ],
    ids=lambda trouble: f"{trouble['kind']}{trouble.get('status', '')}",
)
def test_a_vault_in_trouble_is_degraded_and_left_by_itself(emulator, make_azure, trouble):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault)
    emulator.control("fault", count=None, vault=vault.name, **trouble)
    wait_state(volume, "degraded")
    look(volume)
    before = emulator.counters()["by_operation"]
    time.sleep(2)
    asked = sum(emulator.counters()["by_operation"].values()) - sum(before.values())
    assert asked <= 30, "bounded while it fails"
    emulator.control("clear_faults")
    wait_state(volume, "active")
    look(volume)


def test_a_flapping_vault_is_never_closed(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault)
    seen = set()
    for i in range(scaled(3, 60)):
        emulator.control("fail", status=503, count=2 + i % 3, vault=vault.name)
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            look(volume)
            seen.add(state(volume))
    assert seen <= {"active", "degraded"}
    wait_state(volume, "active")


def test_an_identity_that_is_lost_counts_as_refused_at_the_window_s_end(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault)
    emulator.control("client", disabled=True)
    emulator.control("signing_key")  # tokens that were handed out are void, too
    try:
        took = wait_refused(look, volume)
        print(f"identity lost, refused after {took:.2f} s")
        assert took <= 2 * allowed(2)
        assert state(volume) == "revoked"
    finally:
        emulator.control("client", disabled=False)
    wait_served(look, volume)
    assert state(volume) == "active"


def test_a_lost_role_is_refused_and_given_back(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault)
    emulator.control("revoke", vault=vault.name, permissions=["unwrapKey"])
    assert wait_refused(look, volume) <= allowed(2)
    emulator.control("grant", vault=vault.name, permissions=["unwrapKey"])
    wait_served(look, volume)


def test_a_deleted_key_is_refused_until_it_is_recovered(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault)
    vault.ok("DELETE", "/keys/kek")
    took = wait_refused(look, volume)
    print(f"deleted, refused after {took:.2f} s")
    assert took <= allowed(2)
    wait_for(lambda: vault.post("/deletedkeys/kek/recover").status == 200, 20, "the recovery")
    wait_served(look, volume)


def expire(vault, past=True):
    when = int(time.time()) + (-3600 if past else 3600)
    vault.ok("PATCH", "/keys/kek", {"attributes": {"exp": when, "nbf": when - 20}})


@pytest.mark.parametrize("expiry", ["warn", "revoke"])
def test_an_expired_key(emulator, make_azure, expiry):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, key_expiry=expiry)
    expire(vault)
    if expiry == "warn":
        time.sleep(3)
        look(volume)
        assert state(volume) == "active"
        return
    assert wait_refused(look, volume, number=errno.EKEYEXPIRED) <= allowed(4)
    assert state(volume) == "expired"
    vault.ok("PATCH", "/keys/kek", {"attributes": {"exp": int(time.time()) + 3600, "nbf": 0}})
    wait_served(look, volume, number=errno.EKEYEXPIRED)


def test_a_new_version_in_the_vault_is_taken_up_and_the_old_one_disabled(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, rotation_window=3)
    old = key_version(vault)
    for i in range(100):
        write_file(volume.mnt / f"n{i}", b"x")
    vault.ok("POST", "/keys/kek/rotate", {})
    began = time.monotonic()
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 20, "the rotation")
    print(f"new version in the vault: all under it after {time.monotonic() - began:.2f} s of 3 s")
    vault.set_enabled("kek", False, old)
    time.sleep(1)
    look(volume)
    assert state(volume) == "active"
    volume.remount()
    look(volume)


def test_calls_to_the_vault_are_bounded(emulator, make_azure):
    """What docs/rotation-and-revocation.md says of one mount, by short windows."""
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, rotation_window=4)
    emulator.control("counters", reset=True)
    seconds = scaled(6, 60)
    time.sleep(seconds)
    for _ in range(50):
        look(volume)
    count = emulator.counters()["by_operation"]
    print(f"calls in {seconds} s, windows of 2 and 4 s: {count}")
    probes = sum(n for name, n in count.items() if "unwrap" in name.lower())
    assert seconds / (2 * 0.3) - 2 <= probes <= seconds / (2 * 0.2) + 1, count
    assert sum(count.values()) - probes <= seconds / (4 * 0.2) * 2 + 4, count


# --- unmounting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("grace,wanted", [(600, "degraded"), (1, "outage")])
def test_it_can_be_unmounted_while_the_vault_is_away(emulator, make_azure, grace, wanted):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, outage_grace=grace)
    write_file(volume.mnt / "dirty", noise(30_000))
    cut(emulator, vault)
    wait_state(volume, wanted)
    began = time.monotonic()
    volume.umount()
    assert time.monotonic() - began < allowed(5)
    emulator.control("clear_faults")
    volume.mount()
    assert read_file(volume.mnt / "dirty") == noise(30_000)


# --- at the start --------------------------------------------------------------------------------


def start(volume, *words):
    return subprocess.Popen(
        [mountpoint.turnkeyfs(), "mount", "-c", volume.conf, *words, volume.cipher, volume.mnt],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_a_timeout_a_mount_fails_at_once_and_says_why(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, mount=False)
    cut(emulator, vault)
    began = time.monotonic()
    said = volume.command("mount", volume.cipher, volume.mnt, check=False)
    assert said.returncode == 11, said.stderr
    assert vault.url.split("//")[1].split(":")[0] in said.stderr
    assert time.monotonic() - began < allowed(15)
    assert not is_mounted(volume.mnt)


def test_with_a_timeout_a_mount_waits_for_the_vault_and_says_why(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, mount=False, mount_timeout=60)
    cut(emulator, vault)
    mount = start(volume)
    said = mount.stderr.readline()
    assert "trying again for" in said and "warning" in said, said
    assert mount.poll() is None and not is_mounted(volume.mnt)
    assert "in use" in azure_volume.fails(6, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    emulator.control("clear_faults")
    assert mount.wait(40) == 0
    look(volume)
    turnkeyfs("umount", volume.mnt)


def test_the_timeout_of_a_mount_ends(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, mount=False, mount_timeout=2)
    cut(emulator, vault)
    began = time.monotonic()
    mount = start(volume)
    assert mount.wait(60) == 11
    assert time.monotonic() - began >= 2
    assert not is_mounted(volume.mnt)


def test_a_refusal_is_not_waited_for(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(emulator, vault, mount=False, mount_timeout=600)
    vault.set_enabled("kek", False)
    began = time.monotonic()
    assert start(volume).wait(60) == 12
    assert time.monotonic() - began < allowed(10)


# --- a missed window -----------------------------------------------------------------------------


def test_a_missed_rotation_window_is_an_alarm(make_volume):
    volume = make_volume(conf={"kms": {"rotation_window": 2, "revocation_window": 2}})
    volume.expect_log("rotation|can't be rewrapped|Operation not permitted")
    for i in range(5):
        write_file(volume.mnt / f"f{i}", SERVED)
    volume.remount()
    locked = volume.below("f0")
    if run("chattr", "+i", locked, check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        turnkeyfs("status", volume.cipher)
        turnkeyfs("key", "rotate", "-c", volume.conf, volume.cipher)

        def status(*words):
            return turnkeyfs("status", *words, volume.cipher, check=False)

        wait_for(lambda: status().returncode == 19, 20, "the alarm")
        done = status("--json")
        rotation = json.loads(done.stdout)["daemon"]["rotation"]
        assert done.returncode == 19 and "window" in done.stderr
        assert rotation["window_missed"] and rotation["window_s"] == 2
        assert rotation["files_by_version"]["older"] >= 1
        assert "MISSED" in status().stdout
        wait_for(lambda: "window of 2 s is missed" in volume.log(), 10, "the log line")
    finally:
        run("chattr", "-i", locked)
    wait_for(lambda: status().returncode == 0, 20, "the end of the alarm")
    text = status().stdout
    assert "NOT within the window" in text, text
    assert kek_states(volume) == {1: "retired", 2: "active"}
    turnkeyfs("key", "rotate", "-c", volume.conf, volume.cipher)
    wait_for(lambda: "was within the window" in status().stdout, 20, "one that is in time")
