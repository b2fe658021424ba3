# SPDX-License-Identifier: Apache-2.0
"""A file whose overwrites can't be put in place: only it suffers, `status` names it, and it heals.

The backing filesystem is real: it refuses every write to a file that was made immutable."""

import errno
import os
import re

import pytest
from helpers import noise, raises, read_file
from mountpoint import run, turnkeyfs, wait_for

BLOCK = 4096
BLOCKS = 64
LEN = BLOCKS * BLOCK
EXPECTED = r"can't be put in place|can't be synced|wait until these can be opened"

pytestmark = pytest.mark.backing("ext4")


def overwrite(path, content, off=0):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, content, off)
        os.fsync(fd)
    finally:
        os.close(fd)


def held(volume):
    return volume.status()["daemon"]["held"]


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def refuse(below, refused=True):
    return run("chattr", "+i" if refused else "-i", below, check=False).returncode == 0


@pytest.fixture
def volume(make_volume):
    volume = make_volume()
    volume.expect_log(EXPECTED)
    for name in ("held", "other"):
        with open(volume.mnt / name, "wb") as f:
            f.write(noise(LEN, name == "held"))
            os.fsync(f.fileno())
    return volume


@pytest.mark.deadline(300)
def test_only_the_file_that_cannot_be_written_suffers(volume):
    below = volume.below("held")
    content = noise(5 * BLOCK, 7)
    expected = content + noise(LEN, 1)[len(content) :]
    overwrite(volume.mnt / "held", content)
    if not refuse(below):
        pytest.skip("no immutable files here")
    try:
        # Four times the journal.
        for i in range(1024):
            overwrite(volume.mnt / "other", noise(16 * BLOCK, i), 16 * BLOCK * (i % 4))
        assert held(volume) == {
            "files": 1,
            "kept": 1,
            "path": str(below),
            "error": os.strerror(errno.EPERM),
        }
        text = run(turnkeyfs(), "status", volume.mnt).stdout
        assert re.search(r"^files held +1 that can't be written, .*not permitted", text, re.M)
        assert str(below) in volume.log()
        # What was acknowledged is read, and nothing more is taken.
        drop_cache(volume.mnt / "held")
        assert read_file(volume.mnt / "held") == expected
        raises(errno.EPERM, overwrite, volume.mnt / "held", b"x" * BLOCK, 40 * BLOCK)
    finally:
        assert refuse(below, False)
    overwrite(volume.mnt / "held", b"y" * 100, 9 * BLOCK)
    expected = expected[: 9 * BLOCK] + b"y" * 100 + expected[9 * BLOCK + 100 :]
    assert held(volume) == {"files": 0, "kept": 0, "path": None, "error": None}
    assert read_file(volume.mnt / "held")[: 40 * BLOCK] == expected[: 40 * BLOCK]
    volume.remount()
    volume.assert_verifies_clean()
    assert read_file(volume.mnt / "held")[: 40 * BLOCK] == expected[: 40 * BLOCK]
    for i in range(1020, 1024):
        with open(volume.mnt / "other", "rb") as f:
            f.seek(16 * BLOCK * (i % 4))
            assert f.read(16 * BLOCK) == noise(16 * BLOCK, i)


@pytest.mark.deadline(300)
def test_killed_while_a_file_is_held(volume):
    below = volume.below("held")
    content = noise(5 * BLOCK, 7)
    overwrite(volume.mnt / "held", content)
    if not refuse(below):
        pytest.skip("no immutable files here")
    try:
        for i in range(512):
            overwrite(volume.mnt / "other", noise(16 * BLOCK, i))
        wait_for(lambda: held(volume)["kept"] == 1, 20, "the kept entries")
        volume.kill()
        volume.daemon.wait(30)
        volume.forget_daemon()
        run("umount", "-l", volume.mnt)
    finally:
        assert refuse(below, False)
    # What is kept counts for the independent reader and for verify, too.
    assert b"\nkept = " in (volume.cipher / "turnkeyfs.volume").read_bytes()
    assert volume.read_below("held")[: 5 * BLOCK] == content
    volume.mount()
    assert read_file(volume.mnt / "held")[: 5 * BLOCK] == content
    assert read_file(volume.mnt / "other")[: 16 * BLOCK] == noise(16 * BLOCK, 511)
    assert held(volume)["kept"] == 0
    volume.assert_verifies_clean()
