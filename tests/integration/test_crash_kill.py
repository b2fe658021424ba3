# SPDX-License-Identifier: Apache-2.0
"""The daemon killed while it works: what was acknowledged is there, everything can be read.

What a loss of power leaves is `tests/crash`. Here the page cache survives, and the daemon's memory
does not.
"""

import os
import random
import threading
import time

import pytest
from helpers import BLOCK, read_file, write_file
from mountpoint import run, scaled

BLOCKS = 300


def stamp(index, version):
    """A block's content that says which it is."""
    return (f"{index}:{version};".encode() * BLOCK)[:BLOCK]


class Writer(threading.Thread):
    """Overwrites blocks, fsyncs now and then, and keeps account of what it may find again."""

    def __init__(self, path, seed):
        super().__init__(daemon=True)
        self.path = path
        self.rng = random.Random(seed)
        self.version = 0
        self.acknowledged = {i: 0 for i in range(BLOCKS)}
        self.written = {i: {0} for i in range(BLOCKS)}  # since the last fsync, and that

    def run(self):
        try:
            fd = os.open(self.path, os.O_RDWR)
            while True:
                self.step(fd)
        except OSError:
            pass  # the daemon is gone

    def step(self, fd):
        for _ in range(self.rng.randrange(1, 20)):
            index = self.rng.randrange(BLOCKS)
            self.version += 1
            self.written[index].add(self.version)
            os.pwrite(fd, stamp(index, self.version), index * BLOCK)
        now = {i: max(versions) for i, versions in self.written.items()}
        os.fdatasync(fd)
        self.acknowledged = now
        self.written = {i: {version} for i, version in now.items()}

    def check(self, content):
        for index in range(BLOCKS):
            block = content[index * BLOCK : (index + 1) * BLOCK]
            allowed = self.written[index] | {self.acknowledged[index]}
            assert any(block == stamp(index, v) for v in allowed), f"block {index}: {block[:30]}"


def kill_and_mount(volume):
    volume.kill()
    volume.daemon.wait(30)
    volume.forget_daemon()
    run("umount", "-l", volume.mnt)
    volume.assert_verifies_clean()
    volume.mount()


@pytest.mark.parametrize("seed", range(scaled(3, 100)))
def test_a_killed_daemon_loses_nothing_that_was_acknowledged(volume, seed):
    path = volume.mnt / "f"
    write_file(path, b"".join(stamp(i, 0) for i in range(BLOCKS)))
    volume.remount()
    for attempt in range(3):
        writer = Writer(path, f"{seed}.{attempt}")
        if attempt > 0:
            found = read_file(path)
            writer.version = 1_000_000 * attempt
            for i in range(BLOCKS):
                text = found[i * BLOCK : (i + 1) * BLOCK].split(b";")[0].split(b":")
                writer.acknowledged[i] = int(text[1])
                writer.written[i] = {int(text[1])}
        writer.start()
        time.sleep(random.Random(f"{seed}{attempt}").uniform(0.05, 0.6))
        kill_and_mount(volume)
        writer.join(30)
        writer.check(read_file(path))
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.conf({"mount": {"durability": "relaxed"}})
def test_a_relaxed_mount_works_as_well(volume):
    path = volume.mnt / "f"
    write_file(path, stamp(0, 0) * 50)
    volume.remount()
    with open(path, "r+b") as f:
        f.seek(5 * BLOCK)
        f.write(stamp(5, 1))
        os.fsync(f.fileno())
    os.truncate(path, 20 * BLOCK + 7)
    content = stamp(0, 0) * 5 + stamp(5, 1) + (stamp(0, 0) * 15)[: 14 * BLOCK + 7]
    volume.remount()
    assert read_file(path) == content
    volume.umount()
    volume.assert_verifies_clean()


def test_a_volume_with_a_full_journal_verifies_and_reads(volume):
    """What the journal holds counts for verify and for the independent reader, too."""
    path = volume.mnt / "f"
    write_file(path, stamp(0, 0) * 50)
    volume.remount()
    fd = os.open(path, os.O_RDWR)
    for i in range(50):
        os.pwrite(fd, stamp(i, 1), i * BLOCK)
    os.fdatasync(fd)
    os.close(fd)
    volume.kill()
    volume.daemon.wait(30)
    volume.forget_daemon()
    run("umount", "-l", volume.mnt)
    content = b"".join(stamp(i, 1) for i in range(50))
    assert volume.read_below("f") == content
    volume.assert_verifies_clean()
    assert volume.read_below("f") == content
    volume.mount()
    assert read_file(path) == content
