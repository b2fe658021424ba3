# SPDX-License-Identifier: Apache-2.0
"""A daemon that is killed while one of its threads waits for the kernel, which waits for the daemon:
the mount is dead like any other, not stuck, and the volume can be mounted again."""

import contextlib
import ctypes
import errno
import os
import pathlib
import random
import signal
import threading
import time

import pytest
from helpers import NOBODY, new_seed, noise, read_file, write_file
from key_states import LocalKey, allowed, refused, wait_served, windows
from memory import places, search
from mountpoint import is_mounted, run, sanitized, scaled, turnkeyfs, wait_for
from test_secrets import busy_work, key_needles

SYNCED = noise(300_000, 4)  # its last block is being written again
DIRTY = 24 << 20  # about what the kernel lets a FUSE filesystem gather
CONTROL = "/sys/fs/fuse/connections"
SYS_SETRESUID, SYS_SETRESGID = 117, 119  # x86_64


@pytest.fixture
def volume(make_volume):
    volume = make_volume(conf=windows())
    volume.key = LocalKey(volume)
    return volume


@pytest.fixture
def control_files():
    """As systemd mounts them everywhere; without them only root can end a connection."""
    made = not os.path.ismount(CONTROL)
    if made:
        run("mount", "-t", "fusectl", "fusectl", CONTROL)
    yield
    if made:
        run("umount", "-l", CONTROL)  # guardians of other mounts may hold files in it


# --- in the middle -------------------------------------------------------------------------------


def in_thread(function, *args, owner=None):
    """A thread, of another user if need be; that it fails is nothing: the mount dies under it."""

    def work():
        if owner:
            libc = ctypes.CDLL(None)
            libc.syscall(SYS_SETRESGID, owner.pw_gid, owner.pw_gid, owner.pw_gid)
            libc.syscall(SYS_SETRESUID, owner.pw_uid, owner.pw_uid, owner.pw_uid)
        with contextlib.suppress(OSError):
            function(*args)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def waits_for_itself(pid):
    """Whether a thread waits for pages where no signal reaches it."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            state = (task / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            where = (task / "wchan").read_text(encoding="utf-8")
            if state == "D" and ("folio" in where or "writeback" in where or "wb_" in where):
                return True
    return False


class Victim:
    """A daemon, and a file with synced bytes in front and dirty ones behind them."""

    def __init__(self, volume, owner=None):
        self.volume = volume
        self.owner = owner
        self.path = volume.mnt / "f"
        in_thread(self.create, owner=owner).join()

    def create(self):
        write_file(self.path, SYNCED)
        self.fd = os.open(self.path, os.O_RDWR)
        os.fsync(self.fd)

    def dirty(self):
        os.pwrite(self.fd, os.urandom(1 << 20) * (DIRTY >> 20), len(SYNCED))

    def seek(self):
        in_thread(os.lseek, self.fd, 0, os.SEEK_HOLE, owner=self.owner)

    def revoke(self):
        """There must be dirty pages at the moment that the daemon hears of it."""

        def write_until_refused():
            while True:
                self.dirty()

        in_thread(self.volume.key.disable)
        in_thread(write_until_refused)

    def terminate(self):
        os.kill(self.volume.pid, signal.SIGTERM)

    def wait_open(self, way):
        """What makes another attempt possible after one that came too late."""
        if way == "revoke":
            wait_for(lambda: refused(os.pread, self.fd, 1, 0), 20, "the refusal")
            self.volume.key.enable()
            wait_served(os.pread, self.fd, 1, 0)
        elif way == "terminate":
            os.close(self.fd)
            self.volume.daemon.wait(20)
            self.volume.forget_daemon()
            self.volume.mount()
            self.create()

    def stop_in_the_middle(self, way):
        """Stop the daemon while it waits for itself: it stays there then. True if that worked."""
        pid = self.volume.pid
        in_thread(self.dirty, owner=self.owner).join()
        getattr(self, way)()
        end = time.monotonic() + 4
        while time.monotonic() < end and self.volume.daemon.poll() is None:
            if not waits_for_itself(pid):
                continue
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.1)
            if waits_for_itself(pid):
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def kill(self, way):
        """Kill it in the middle; how long it took to be gone."""
        try:
            for _ in range(10):
                if self.stop_in_the_middle(way):
                    return self.kill_now()
                self.wait_open(way)
            pytest.skip("the daemon was never caught in the middle")
        finally:
            with contextlib.suppress(OSError):
                os.close(self.fd)

    def kill_now(self):
        began = time.monotonic()
        self.volume.kill()
        self.volume.daemon.wait(10)
        self.volume.forget_daemon()
        return time.monotonic() - began


def errno_of(path, owner):
    found = []

    def look():
        try:
            os.stat(path)
            found.append(0)
        except OSError as e:
            found.append(e.errno)

    in_thread(look, owner=owner).join()
    return found[0]


def check_dead_and_mount_again(victim):
    volume = victim.volume
    assert errno_of(victim.path, victim.owner) == errno.ENOTCONN
    said = volume.command("mount", volume.cipher, volume.mnt, check=False)
    assert said.returncode != 0 and "dead mount" in said.stderr, said.stderr
    run(*volume.prefix, turnkeyfs(), "umount", volume.mnt)
    assert not is_mounted(volume.mnt)
    volume.mount()


def check_synced(victim):
    """What was synced is there. A new block that no fsync covered may be half there."""
    victim.volume.expect_log("block [0-9]+ .* does not authenticate")
    found = []

    def read():
        with open(victim.path, "rb", buffering=0) as f:
            found.append(f.read(len(SYNCED)))

    in_thread(read, owner=victim.owner).join()
    assert found == [SYNCED]


@pytest.mark.parametrize("way", ["seek", "revoke"])
def test_killed_while_it_waits_for_itself_it_leaves_a_volume_that_mounts(volume, way):
    victim = Victim(volume)
    took = victim.kill(way)
    print(f"killed in the middle of {way}: gone after {took:.2f} s")
    assert took < allowed(4)
    if way == "revoke":
        volume.key.enable()
    check_dead_and_mount_again(victim)
    check_synced(victim)


def test_killed_after_it_was_asked_to_end_it_leaves_a_volume_that_mounts(volume):
    """What a service manager does that loses patience."""
    victim = Victim(volume)
    assert victim.kill("terminate") < allowed(4)
    run("umount", "-l", volume.mnt, check=False)
    volume.mount()
    check_synced(victim)


def test_the_same_without_root(control_files, mine):
    victim = Victim(mine, NOBODY)
    assert victim.kill("seek") < allowed(4)
    check_dead_and_mount_again(victim)
    check_synced(victim)


# --- the guardian --------------------------------------------------------------------------------


@pytest.mark.skipif(sanitized(), reason="sanitizers make the memory of processes large")
def test_the_guardian_holds_no_key_and_nothing_of_the_volume(volume):
    busy_work(volume.mnt)
    found = search(volume.guardian, key_needles(volume))
    assert not found, places(found)
    directory = pathlib.Path(f"/proc/{volume.guardian}/fd")
    held = [os.readlink(fd) for fd in directory.iterdir()]
    assert not [path for path in held if "fuse" in path or str(volume.cipher) in path], held
    assert os.readlink(f"/proc/{volume.guardian}/cwd") == "/"


def is_gone(pid):
    """Init may take its time to bury it."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True
    return text.rsplit(")", 1)[1].split()[0] == "Z"


def test_the_guardian_outlives_what_a_service_manager_sends_and_goes_with_the_daemon(volume):
    guardian = volume.guardian
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(guardian, number)
    time.sleep(0.1)
    assert not is_gone(guardian)
    volume.umount()
    assert is_gone(guardian)
    volume.mount()
    guardian = volume.guardian
    volume.kill()
    volume.daemon.wait(10)
    volume.forget_daemon()
    wait_for(lambda: is_gone(guardian), 5, "its end")


def test_a_mount_without_its_guardian_serves_and_ends(volume):
    write_file(volume.mnt / "f", b"")  # the mount is the daemon's now, which it is a moment after it is there
    os.kill(volume.guardian, signal.SIGKILL)
    write_file(volume.mnt / "f", b"content")
    volume.remount()
    assert read_file(volume.mnt / "f") == b"content"


def test_a_failed_mount_leaves_no_guardian(volume):
    volume.umount()
    volume.key.disable()
    said = volume.command("mount", "-f", volume.cipher, volume.mnt, check=False, timeout=30)
    assert said.returncode == 12, said.stderr
    volume.key.enable()


# --- two signals ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_signals_end_it_while_somebody_seeks(volume):
    """The seeker may be waiting for writeback, which the ending workers would have to serve."""
    dice = random.Random(new_seed())
    for i in range(scaled(5, 30)):
        fd = os.open(volume.mnt / "f", os.O_RDWR | os.O_CREAT)
        stop = threading.Event()

        def work(function, *args, stop=stop):
            while not stop.is_set():
                function(*args)

        offset = dice.randrange(1 << 20)
        threads = [
            in_thread(work, os.pwrite, fd, bytes(3 << 20), offset),
            in_thread(work, os.lseek, fd, 0, os.SEEK_HOLE),
            in_thread(work, os.lseek, fd, 0, os.SEEK_DATA),
        ]
        time.sleep(0.05 + 0.03 * i % 0.2)
        os.kill(volume.pid, signal.SIGTERM)
        # Two that are pending at once are one.
        wait_for(lambda i=i: volume.log().count("unmounting on signal") == i + 1, 20, "the first")
        time.sleep(0.02 * (i % 3))
        os.kill(volume.pid, signal.SIGTERM)
        volume.expect_log("ended by a second signal|fuse: failed to unmount")
        assert volume.daemon.wait(20) == 0
        volume.forget_daemon()
        stop.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        with contextlib.suppress(OSError):
            os.close(fd)
        volume.mount()
