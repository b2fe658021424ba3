# SPDX-License-Identifier: Apache-2.0
"""Many processes in the same directories at once: names and files come and go under each other.

Nobody can say what such a run must leave; but each call must end as on any filesystem, content must
be somebody's whole write, and afterwards everything must be readable and authentic.
"""

import errno
import os
import random
import time
import traceback

import pytest
from helpers import (
    BLOCK,
    GROUP,
    NOBODY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    as_user,
    in_parallel,
    new_seed,
    noise,
    read_file,
    renameat2,
    write_file,
)
from mountpoint import LONG

PROCESSES = 6
SECONDS = 60 if LONG else 4

# How a call may fail when somebody else was faster. EIO, ESTALE and EBADF are not among them.
HARMLESS = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,  # a directory into itself
    errno.ELOOP,
    errno.ENXIO,
    errno.ENODATA,
    errno.EMLINK,
    errno.EPERM,  # a hard link to a directory
}


class Player:
    """One process: random operations on few names, so that all meet."""

    def __init__(self, top, seed):
        self.top = os.fspath(top)
        self.random = random.Random(seed)
        self.seed = seed

    def name(self):
        depth = self.random.randrange(1, 4)
        return os.path.join(self.top, *(f"n{self.random.randrange(5)}" for _ in range(depth)))

    def create(self):
        try:
            fd = os.open(self.name(), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            # The name came and went twice within one call: the kernel asks no third time.
            if e.errno == errno.ESTALE:
                return
            raise
        try:
            os.write(fd, bytes([self.seed]) * self.random.choice([1, 100, BLOCK, 20_000]))
            if self.random.random() < 0.1:
                os.fsync(fd)
            os.fstat(fd)
        finally:
            os.close(fd)

    def read(self):
        read_file(self.name())

    def directory(self):
        os.mkdir(self.name())

    def listing(self):
        with os.scandir(self.random.choice([self.name(), self.top])) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)

    def remove(self):
        name = self.name()
        try:
            os.unlink(name)
        except (IsADirectoryError, PermissionError):
            os.rmdir(name)

    def rename(self):
        if self.random.random() < 0.6:
            os.rename(self.name(), self.name())
        else:
            flag = self.random.choice([RENAME_EXCHANGE, RENAME_NOREPLACE])
            renameat2(self.name(), self.name(), flag)

    def link(self):
        os.link(self.name(), self.name(), follow_symlinks=False)

    def symlink(self):
        os.symlink(self.random.choice(["n0", "n1/n2", "../n3"]), self.name())

    def attributes(self):
        name = self.name()
        os.chmod(name, 0o755)
        os.utime(name, (1, 2))
        os.setxattr(name, "user.a", b"value")
        os.getxattr(name, "user.a")
        os.listxattr(name)
        os.stat(name)

    def cut(self):
        os.truncate(self.name(), self.random.choice([0, 10, BLOCK, 100_000]))

    def hold(self):
        """A file used for a while, whatever becomes of its name."""
        fd = os.open(self.name(), os.O_RDWR)
        try:
            for _ in range(5):
                os.pwrite(fd, bytes([self.seed]) * 50, self.random.randrange(30_000))
                os.pread(fd, 5000, 0)
                os.fstat(fd)
        finally:
            os.close(fd)

    def play(self, seconds):
        operations = [
            *[self.create] * 4,
            self.read,
            *[self.directory] * 2,
            self.listing,
            *[self.remove] * 3,
            *[self.rename] * 3,
            self.link,
            self.symlink,
            self.attributes,
            self.cut,
            self.hold,
        ]
        end = time.monotonic() + seconds
        done = 0
        while time.monotonic() < end:
            operation = self.random.choice(operations)
            try:
                operation()
                done += 1
            except OSError as e:
                if e.errno not in HARMLESS:
                    where = traceback.extract_tb(e.__traceback__)[-1].line
                    raise AssertionError(f"{operation.__name__}: {where}: {e}") from e
        assert done > 100


def read_everything(top):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                assert set(read_file(path)) <= set(range(PROCESSES + 1)), path


def play_all(top, become):
    first = new_seed()
    players = [Player(top, i + 1) for i in range(PROCESSES)]
    for i, player in enumerate(players):
        player.random.seed(first + i)
    in_parallel([lambda player=player: become(player.play, SECONDS) for player in players])


def test_names_and_files_under_each_other(volume):
    play_all(volume.mnt, lambda function, *args: function(*args))
    read_everything(volume.mnt)
    volume.remount()
    read_everything(volume.mnt)
    volume.umount()
    volume.assert_verifies_clean()


def test_names_and_files_under_each_other_without_root(mine):
    def become(function, *args):
        as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], function, *args)

    play_all(mine.mnt, become)
    become(read_everything, mine.mnt)
    mine.remount()
    become(read_everything, mine.mnt)
    mine.umount()
    mine.assert_verifies_clean()


@pytest.mark.parametrize("size", [100, 3 * BLOCK, GROUP + BLOCK])
def test_a_file_replaced_by_rename_is_always_whole(place, size):
    """Readers see the old or the new version, never a mixture."""
    versions = [bytes([i]) * size for i in range(5)]
    write_file(place / "f", versions[0])
    end = time.monotonic() + 1.5

    def replace(writer):
        i = 0
        while time.monotonic() < end:
            i += 1
            write_file(place / f"new{writer}", versions[i % 5])
            os.rename(place / f"new{writer}", place / "f")

    def read():
        while time.monotonic() < end:
            content = read_file(place / "f")
            assert len(content) == size and len(set(content)) == 1

    in_parallel([lambda: replace(0), lambda: replace(1), read, read])


def test_one_of_many_creates_wins(place):
    """O_EXCL picks one, also where the kernel asks for the same name many times at once."""
    rounds = 40
    os.mkdir(place / "won")

    def create(process):
        for i in range(rounds):
            try:
                os.close(os.open(place / f"f{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            write_file(place / f"won/{i}-{process}", b"")

    in_parallel([lambda process=process: create(process) for process in range(4)])
    assert len(os.listdir(place / "won")) == rounds


def test_growing_and_cutting_at_once_leaves_zeros_or_data(place):
    """Writers extend while others truncate: bytes are somebody's or zeros."""
    write_file(place / "f", b"")
    end = time.monotonic() + 1.5
    limit = 2 * GROUP

    def write(process):
        rng = random.Random(process)
        fd = os.open(place / "f", os.O_RDWR)
        while time.monotonic() < end:
            os.pwrite(fd, bytes([process]) * rng.randrange(1, 60_000), rng.randrange(limit))

    def cut():
        rng = random.Random(99)
        while time.monotonic() < end:
            os.truncate(place / "f", rng.randrange(limit))

    def read():
        while time.monotonic() < end:
            assert set(read_file(place / "f")) <= {0, 1, 2}

    in_parallel([lambda: write(1), lambda: write(2), cut, read])
    place.remount()
    assert set(read_file(place / "f")) <= {0, 1, 2}


def test_noise_is_noise():
    """What read_everything relies on: content that is damaged would not look like ours."""
    assert not set(noise(BLOCK)) <= set(range(PROCESSES + 1))
