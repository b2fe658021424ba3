# SPDX-License-Identifier: Apache-2.0
"""A root key that is disabled takes the mounted data away within the window, cached plaintext
included; enabled again it brings everything back to the same mount and the same descriptors."""

import errno
import mmap
import os
import random
import signal
import threading
import time

import pytest
from helpers import GROUP, direct_buffer, noise, raises, read_file, write_file
from key_states import (
    WINDOW,
    LocalKey,
    allowed,
    refused,
    state,
    touch_mapping,
    wait_refused,
    wait_served,
    wait_state,
    windows,
)
from memory import places, search
from mountpoint import run, sanitized, scaled, turnkeyfs, wait_for
from test_secrets import busy_work, key_needles

CONF = windows()


@pytest.fixture(params=["kek", "kms"])
def dek_wrap(request):
    return request.param


@pytest.fixture
def revocable(make_volume, dek_wrap):
    volume = make_volume(conf=CONF | {"volume": {"dek_wrap": dek_wrap}})
    volume.key = LocalKey(volume)
    return volume


@pytest.fixture
def kek_volume(make_volume):
    volume = make_volume(conf=CONF)
    volume.key = LocalKey(volume)
    return volume


class Held:
    """Files that a process has open, mapped, listed and cached."""

    def __init__(self, mnt):
        self.mnt = mnt
        self.content = noise(3 * GROUP + 100, 1)
        (mnt / "dir").mkdir()
        write_file(mnt / "cached", self.content)
        write_file(mnt / "mapped", self.content)
        write_file(mnt / "never-listed", b"x")
        write_file(mnt / "unlinked", self.content)
        os.symlink("cached", mnt / "link")
        os.setxattr(mnt / "cached", "user.note", b"secret")
        self.fd = os.open(mnt / "cached", os.O_RDWR)
        self.direct = os.open(mnt / "cached", os.O_RDONLY | os.O_DIRECT)
        self.unlinked = os.open(mnt / "unlinked", os.O_RDWR)
        os.unlink(mnt / "unlinked")
        self.dir = os.open(mnt / "dir", os.O_RDONLY | os.O_DIRECTORY)
        self.mapped_fd = os.open(mnt / "mapped", os.O_RDWR)
        self.mapped = mmap.mmap(self.mapped_fd, 0)
        self.check()

    def read_direct(self):
        buffer = direct_buffer(bytes(4096))
        assert os.preadv(self.direct, [buffer], 4096) == 4096
        return bytes(buffer)

    def check(self):
        assert os.pread(self.fd, len(self.content), 0) == self.content
        assert os.pread(self.unlinked, len(self.content), 0) == self.content
        assert self.read_direct() == self.content[4096:8192]
        assert self.mapped[:] == self.content
        assert os.readlink(self.mnt / "link") == "cached"
        assert os.getxattr(self.mnt / "cached", "user.note") == b"secret"
        assert "cached" in os.listdir(self.mnt)
        assert os.listdir(self.dir) == []

    def ways(self):
        """{what: function} that must be refused."""
        mnt = self.mnt
        return {
            "read": lambda: os.pread(self.fd, 10, 0),
            "read of an unlinked file": lambda: os.pread(self.unlinked, 10, 0),
            "direct read": self.read_direct,
            "open": lambda: os.close(os.open(mnt / "mapped", os.O_RDONLY)),
            "open to write": lambda: os.close(os.open(mnt / "mapped", os.O_WRONLY)),
            "readdir": lambda: os.listdir(mnt),
            "readdir of an open directory": lambda: os.listdir(self.dir),
            "readlink": lambda: os.readlink(mnt / "link"),
            "getxattr": lambda: os.getxattr(mnt / "cached", "user.note"),
            "listxattr": lambda: os.listxattr(mnt / "cached"),
            "setxattr": lambda: os.setxattr(mnt / "cached", "user.n", b"x"),
            "stat": lambda: os.stat(mnt / "cached"),
            "fstat": lambda: os.fstat(self.fd),
            "stat of a name never listed": lambda: os.stat(mnt / "never-listed"),
            "stat of a missing name": lambda: os.stat(mnt / "missing"),
            "create": lambda: os.close(os.open(mnt / "new", os.O_CREAT | os.O_WRONLY)),
            "mkdir": lambda: os.mkdir(mnt / "new"),
            "rename": lambda: os.rename(mnt / "never-listed", mnt / "renamed"),
            "link": lambda: os.link(mnt / "cached", mnt / "other"),
            "unlink": lambda: os.unlink(mnt / "never-listed"),
            "truncate": lambda: os.ftruncate(self.fd, 10),
            "write": lambda: os.pwrite(self.fd, b"x" * 10, 0),
            "fallocate": lambda: os.posix_fallocate(self.fd, 0, 1 << 22),
            "seek": lambda: os.lseek(self.fd, 0, os.SEEK_DATA),
            "copy": self.copy,
        }

    def copy(self):
        """The kernel reads and writes pages for it, and makes any failure of that EIO."""
        try:
            os.copy_file_range(self.fd, self.mapped_fd, 10, 0, 0)
        except OSError as e:
            raise OSError(errno.EKEYREVOKED if e.errno == errno.EIO else e.errno, "") from e

    def close(self):
        self.mapped.close()
        for fd in (self.fd, self.direct, self.unlinked, self.dir, self.mapped_fd):
            os.close(fd)


@pytest.fixture
def held(revocable):
    found = Held(revocable.mnt)
    yield found
    found.close()


# --- locked --------------------------------------------------------------------------------------


def test_nothing_can_be_read_any_more_and_all_of_it_comes_back(revocable, held):
    for _ in range(2):
        revocable.key.disable()
        took = wait_refused(os.pread, held.fd, 10, 0)
        assert took <= allowed(WINDOW), took
        wait_state(revocable, "revoked")
        open_still = [what for what, way in held.ways().items() if not refused(way)]
        assert not open_still, open_still
        assert touch_mapping(held.mapped) == signal.SIGBUS
        assert touch_mapping(held.mapped, write=True) == signal.SIGBUS
        text = run(turnkeyfs(), "status", revocable.cipher).stdout
        assert "revoked" in text
        revocable.key.enable()
        wait_served(os.pread, held.fd, 10, 0)
        held.check()
        assert touch_mapping(held.mapped, write=True) == 0
        # Nothing of what was refused happened.
        assert sorted(os.listdir(revocable.mnt)) == ["cached", "dir", "link", "mapped", "never-listed"]
        assert os.listxattr(revocable.mnt / "cached") == ["user.note"]


def test_every_cached_page_is_gone_within_the_window(revocable, held):
    """One process reads, another one maps, one lists, all of it all the time."""
    last = {}
    stop = threading.Event()
    ways = {k: v for k, v in held.ways().items() if k in (
        "read", "direct read", "readdir", "readlink", "getxattr", "stat", "open")}  # fmt: skip

    def hammer(what, way):
        while not stop.is_set():
            try:
                way()
                last[what] = time.monotonic()
            except OSError as e:
                assert e.errno == errno.EKEYREVOKED
                time.sleep(0.001)

    threads = [threading.Thread(target=hammer, args=way) for way in ways.items()]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    revocable.key.disable()
    wait_state(revocable, "revoked")
    time.sleep(allowed(WINDOW))
    stop.set()
    for thread in threads:
        thread.join()
    late = {what: t - began for what, t in last.items()}
    print(f"last success after disabling: {late}")
    assert set(late) == set(ways)
    assert max(late.values()) <= allowed(WINDOW), late
    assert touch_mapping(held.mapped) == signal.SIGBUS
    revocable.key.enable()
    wait_served(os.pread, held.fd, 10, 0)


def test_what_was_written_before_is_there_afterwards(kek_volume):
    """Dirty pages, of write(2) and of a mapping, never synced."""
    mnt = kek_volume.mnt
    content = noise(2 * GROUP + 77, 3)
    write_file(mnt / "mapped", bytes(GROUP))
    fd = os.open(mnt / "written", os.O_RDWR | os.O_CREAT)
    mapped_fd = os.open(mnt / "mapped", os.O_RDWR)
    with mmap.mmap(mapped_fd, 0) as memory:
        kek_volume.key.disable()
        os.pwrite(fd, content, 0)
        memory[:] = content[:GROUP]
        wait_refused(os.pread, fd, 10, 0)
        wait_state(kek_volume, "revoked")
        kek_volume.key.enable()
        wait_served(os.pread, fd, 10, 0)
        os.fsync(fd)
        os.fsync(mapped_fd)
        assert os.pread(fd, len(content) + 1, 0) == content
        assert memory[:] == content[:GROUP]
    os.close(fd)
    os.close(mapped_fd)
    kek_volume.remount()
    assert read_file(mnt / "written") == content
    assert read_file(mnt / "mapped") == content[:GROUP]
    kek_volume.umount()
    kek_volume.assert_verifies_clean()


def test_writers_get_errors_and_lose_nothing_that_was_synced(kek_volume):
    """Programs write and sync all the time while the key goes and comes."""
    mnt = kek_volume.mnt
    acknowledged = {}
    stop = threading.Event()
    surprises = []

    def work(number):
        path = mnt / f"w{number}"
        generator = random.Random(number)
        fd = None
        sequence = 0
        while not stop.is_set():
            try:
                if fd is None:
                    fd = os.open(path, os.O_RDWR | os.O_CREAT)
                block = generator.randrange(300)
                sequence += 1
                piece = noise(4096, number * 1_000_000 + sequence)
                os.pwrite(fd, piece, block * 4096)
                acknowledged.pop((number, block), None)
                os.fsync(fd)
                acknowledged[number, block] = piece
            except OSError as e:
                if e.errno != errno.EKEYREVOKED:
                    surprises.append(f"{number}: {e}")
                    return
                time.sleep(0.01)
        if fd is not None:
            try:
                os.close(fd)
            except OSError as e:
                surprises.append(f"close: {e}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(scaled(3, 50)):
            time.sleep(0.5)
            kek_volume.key.disable()
            wait_state(kek_volume, "revoked")
            kek_volume.key.enable()
            wait_state(kek_volume, "active")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not surprises, surprises[:3]
    assert len(acknowledged) > 20
    kek_volume.remount()
    for (number, block), piece in acknowledged.items():
        with open(mnt / f"w{number}", "rb") as f:
            assert os.pread(f.fileno(), 4096, block * 4096) == piece, (number, block)


def data_keys(volume):
    """Needles: every key that opens data. What authenticates the volume file and records stays."""
    kept = ("root key version", "volume file MAC key", "record MAC key", "the passphrase")
    return {what: n for what, n in key_needles(volume).items() if not what.startswith(kept)}


def wait_wiped(volume, needles, seconds=60):
    """The state is told first, then nothing is served any more, and then the keys go."""
    deadline = time.monotonic() + seconds
    while found := search(volume.pid, needles):
        assert time.monotonic() < deadline, places(found)
        time.sleep(0.05)


@pytest.mark.skipif(sanitized(), reason="sanitizers keep freed memory")
def test_no_key_is_in_memory_while_it_is_locked(revocable, held):
    busy_work(revocable.mnt)
    open_files = [open(revocable.mnt / f"f{i}", "rb") for i in range(3, 10)]
    for f in open_files:
        f.read(1)
    needles = data_keys(revocable)
    assert {what for what, _ in search(revocable.pid, needles)} >= {"DEK of f3", "DEK of cached"}
    revocable.key.disable()
    wait_state(revocable, "revoked")
    wait_refused(os.pread, held.fd, 1, 0)
    wait_wiped(revocable, needles)
    revocable.key.enable()
    wait_served(os.pread, held.fd, 1, 0)
    for f in open_files:
        f.close()


@pytest.mark.skipif(sanitized(), reason="sanitizers keep freed memory")
def test_no_key_stays_behind_that_requests_under_way_brought(kek_volume):
    """Files are opened, made and read by many threads at the moment of the revocation."""
    mnt = kek_volume.mnt
    for i in range(30):
        write_file(mnt / f"f{i}", noise(5000, i))
    stop = threading.Event()

    def hammer(seed):
        generator = random.Random(seed)
        held = []
        while not stop.is_set():
            try:
                held.append(os.open(mnt / f"f{generator.randrange(30)}", os.O_RDONLY))
                os.pread(held[-1], 5000, 0)
                made = mnt / f"n{seed}-{generator.randrange(5)}"
                refused(os.unlink, made, number=errno.ENOENT)
                held.append(os.open(made, os.O_CREAT | os.O_RDWR))
            except OSError:
                time.sleep(0.001)
            while len(held) > 50:
                os.close(held.pop(0))
        for fd in held:
            os.close(fd)

    threads = [threading.Thread(target=hammer, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(scaled(2, 10)):
            kek_volume.key.disable()
            wait_state(kek_volume, "revoked")
            time.sleep(0.1)  # what was let in has been answered
            wait_wiped(kek_volume, {w: n for w, n in data_keys(kek_volume).items() if len(n) == 32})
            kek_volume.key.enable()
            wait_state(kek_volume, "active")
            time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_many_dirty_pages_and_many_inodes_go_within_the_window(make_volume):
    volume = make_volume(conf=windows(revocation=5))
    volume.key = LocalKey(volume)
    for i in range(scaled(1500, 100_000)):
        write_file(volume.mnt / f"f{i}", b"x")
    big = noise(24 << 20, 7)
    fd = os.open(volume.mnt / "big", os.O_RDWR | os.O_CREAT)
    began = time.monotonic()
    volume.key.disable()
    os.pwrite(fd, big, 0)
    wait_refused(os.pread, fd, 1, 0)
    wait_state(volume, "revoked")
    took = time.monotonic() - began
    print(f"24 MiB dirty and thousands of inodes: locked after {took:.2f} s")
    assert took <= allowed(5)
    volume.key.enable()
    wait_served(os.pread, fd, 1, 0)
    assert os.pread(fd, len(big), 0) == big
    os.close(fd)


# --- stopped, as a machine that sleeps ------------------------------------------------------------


def stop_and_read(volume, while_stopped):
    """Stop the daemon for longer than its lease; what the first read afterwards comes to."""
    fd = os.open(volume.mnt / "f", os.O_RDONLY | os.O_DIRECT)
    outcome = []

    def read():
        try:
            outcome.append(os.preadv(fd, [direct_buffer(bytes(4096))], 0))
        except OSError as e:
            outcome.append(-e.errno)

    thread = threading.Thread(target=read)
    try:
        with volume.stopped():
            thread.start()
            while_stopped()
            time.sleep(WINDOW + 0.5)
            assert not outcome
    finally:
        if thread.ident:
            thread.join(20)
        os.close(fd)
    return outcome[0]


def test_a_lease_that_ended_in_a_sleep_serves_nothing_before_a_probe(revocable):
    write_file(revocable.mnt / "f", noise(4096))
    os.sync()
    assert stop_and_read(revocable, lambda: None) == 4096
    assert stop_and_read(revocable, revocable.key.disable) == -errno.EKEYREVOKED
    wait_state(revocable, "revoked")
    revocable.key.enable()
    wait_state(revocable, "active")
    assert stop_and_read(revocable, lambda: None) == 4096


# --- unmounting ----------------------------------------------------------------------------------


def test_it_can_be_unmounted_while_locked(kek_volume):
    write_file(kek_volume.mnt / "f", b"content")
    kek_volume.key.disable()
    wait_state(kek_volume, "revoked")
    kek_volume.umount()
    said = kek_volume.command("mount", kek_volume.cipher, kek_volume.mnt, check=False)
    assert said.returncode == 12, said.stderr
    assert "disabled" in said.stderr
    kek_volume.key.enable()
    kek_volume.mount()
    assert read_file(kek_volume.mnt / "f") == b"content"


def test_two_signals_end_it_while_locked_and_in_use(kek_volume):
    write_file(kek_volume.mnt / "f", b"content")
    with open(kek_volume.mnt / "f", "rb"):
        kek_volume.key.disable()
        wait_state(kek_volume, "revoked")
        os.kill(kek_volume.pid, signal.SIGTERM)
        time.sleep(0.3)
        os.kill(kek_volume.pid, signal.SIGTERM)
        kek_volume.expect_log("ended by a second signal|fuse: failed to unmount")
        assert kek_volume.daemon.wait(20) == 0
        kek_volume.forget_daemon()
    kek_volume.key.enable()
    kek_volume.mount()
    assert read_file(kek_volume.mnt / "f") == b"content"


@pytest.mark.slow
def test_two_signals_end_it_while_it_is_being_locked(kek_volume):
    """The keeper may be waiting for writeback, which the ending workers would have to serve."""
    for i in range(scaled(4, 20)):
        fd = os.open(kek_volume.mnt / "f", os.O_RDWR | os.O_CREAT)
        kek_volume.key.disable()
        end = time.monotonic() + 0.3 + 0.1 * (i % 4)
        while time.monotonic() < end:
            refused(os.pwrite, fd, b"x" * (1 << 20), 0)
        os.kill(kek_volume.pid, signal.SIGTERM)
        time.sleep(0.05)
        os.kill(kek_volume.pid, signal.SIGTERM)
        kek_volume.expect_log("ended by a second signal|fuse: failed to unmount")
        assert kek_volume.daemon.wait(20) == 0
        kek_volume.forget_daemon()
        try:
            os.close(fd)
        except OSError:
            pass
        kek_volume.key.enable()
        kek_volume.mount()


def test_a_dead_lock_of_seeks_and_writes_with_the_sweep_does_not_exist(kek_volume):
    """Seeks ask the kernel to write back, too, from a thread of their own."""
    stop = threading.Event()
    fd = os.open(kek_volume.mnt / "f", os.O_RDWR | os.O_CREAT)

    def work(function):
        while not stop.is_set():
            refused(function)

    functions = (
        lambda: os.pwrite(fd, b"x" * 9000, random.randrange(1 << 20)),
        lambda: os.lseek(fd, 0, os.SEEK_HOLE),
        lambda: os.ftruncate(fd, random.randrange(1 << 20)),
    )
    threads = [threading.Thread(target=work, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for _ in range(3):
        kek_volume.key.disable()
        wait_state(kek_volume, "revoked")
        kek_volume.key.enable()
        wait_state(kek_volume, "active")
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    os.close(fd)


def test_a_locked_mount_answers_status_and_statfs(kek_volume):
    kek_volume.key.disable()
    wait_state(kek_volume, "revoked")
    os.statvfs(kek_volume.mnt)
    os.stat(kek_volume.mnt)
    lease = kek_volume.status()["daemon"]["lease"]
    assert "disabled" in lease["trouble"]
    kek_volume.key.enable()
    wait_for(lambda: state(kek_volume) == "active", 20, "the return")
    assert kek_volume.status()["daemon"]["lease"]["trouble"] == ""
    raises(errno.ENOENT, os.stat, kek_volume.mnt / "missing")
