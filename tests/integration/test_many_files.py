# SPDX-License-Identifier: Apache-2.0
"""Very many files with few descriptors: what the daemon holds must not grow with what it knows."""

import os
import pathlib
import time

import pytest
from helpers import read_file, write_file
from mountpoint import run, sanitized, scaled

FILES = scaled(20_000, 200_000)
PER_DIRECTORY = 500
LIMIT = 1024  # descriptors for the daemon

pytestmark = [pytest.mark.slow, pytest.mark.deadline(300)]


class Figures:
    """Memory, descriptors and time by phase; printed at the end, pass or fail."""

    def __init__(self, pid):
        self.pid = pid
        self.rows = []
        self.began = time.monotonic()

    def memory_kib(self):
        for line in open(f"/proc/{self.pid}/status", encoding="ascii"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def take(self, phase):
        row = (phase, self.memory_kib(), self.descriptors(), time.monotonic() - self.began)
        self.rows.append(row)
        self.began = time.monotonic()
        return row

    def show(self):
        print(f"\n{FILES} files in directories of {PER_DIRECTORY}, {LIMIT} descriptors allowed")
        for phase, memory, descriptors, seconds in self.rows:
            rate = f"{FILES / seconds:8.0f} files/s" if seconds else ""
            print(f"{phase:22} {memory / 1024:8.1f} MiB {descriptors:5} fds {seconds:7.2f} s {rate}")


@pytest.fixture
def limited(make_volume):
    """A volume whose daemon may open few descriptors."""
    return make_volume(prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}", "--"))


@pytest.fixture
def figures(limited):
    found = Figures(limited.pid)
    yield found
    found.show()


def name_of(top, i):
    return top / f"d{i // PER_DIRECTORY}/f{i}"


def test_many_files_are_made_walked_read_and_removed(limited, figures):
    top = limited.mnt / "many"
    top.mkdir()
    figures.take("before")
    for i in range(FILES):
        if i % PER_DIRECTORY == 0:
            (top / f"d{i // PER_DIRECTORY}").mkdir()
        write_file(name_of(top, i), b"file %d" % i)
    figures.take("created")
    found = sum(len(names) for _, _, names in os.walk(top))
    assert found == FILES
    run("find", top, "-type", "f", "-newermt", "2100-01-01")  # stat of every file
    figures.take("walked")
    for i in range(FILES):
        assert read_file(name_of(top, i)) == b"file %d" % i
    figures.take("read")
    run("rm", "-r", top)
    figures.take("removed")
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2\n", encoding="ascii")
    figures.take("forgotten")
    for phase, memory, descriptors, _ in figures.rows:
        assert descriptors < 100, f"{phase}: {descriptors} descriptors"
        if not sanitized():
            per_file = (memory - figures.rows[0][1]) * 1024 / FILES
            assert per_file < 1024 or memory < 300 * 1024, f"{phase}: {per_file:.0f} bytes a file"


def test_more_open_files_than_descriptors_is_an_error_of_those_alone(limited):
    """The daemon runs out; the application hears EMFILE or ENFILE, and everything else goes on."""
    write_file(limited.mnt / "kept", b"kept")
    held, failure = [], None
    try:
        for i in range(LIMIT + 200):
            held.append(os.open(limited.mnt / f"f{i}", os.O_RDWR | os.O_CREAT))
    except OSError as e:
        failure = e
    assert len(held) > LIMIT - 200, failure
    assert failure is None or failure.strerror in ("Too many open files", "Too many open files in system")
    for i, fd in enumerate(held):
        os.write(fd, b"open file %d" % i)
    for fd in held:
        os.close(fd)
    for i in range(len(held)):
        assert read_file(limited.mnt / f"f{i}") == b"open file %d" % i
    assert read_file(limited.mnt / "kept") == b"kept"


def test_many_open_files_within_the_limit(limited, figures):
    held = [os.open(limited.mnt / f"f{i}", os.O_RDWR | os.O_CREAT) for i in range(900)]
    figures.take("900 open")
    for i, fd in enumerate(held):
        os.write(fd, b"%d" % i)
        os.unlink(limited.mnt / f"f{i}")
    for i, fd in enumerate(held):
        assert os.pread(fd, 10, 0) == b"%d" % i
        os.close(fd)
    figures.take("closed")
    assert figures.rows[-1][2] < 100
