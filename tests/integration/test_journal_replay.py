# SPDX-License-Identifier: Apache-2.0
"""Which journal is replayed, and into which files: copies, backups, files that moved."""

import os
import shutil
import subprocess

from helpers import BLOCK, noise, read_file, write_file

JOURNAL = "journal/journal"


def copy_tree(source, target):
    subprocess.run(["cp", "-a", "--", source, target], check=True)


def overwrite(path, block, letter):
    """A block of @letter, acknowledged by fdatasync."""
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, letter * BLOCK, block * BLOCK)
    os.fdatasync(fd)
    os.close(fd)


def block_of(path, block):
    return read_file(path)[block * BLOCK : (block + 1) * BLOCK]


def crash(volume):
    volume.kill()
    volume.close()


def test_a_copy_is_replayed_into_itself(volume, make_volume):
    """The copy's files have the same keys, and the original's can be opened by handle."""
    write_file(volume.mnt / "file", noise(10 * BLOCK))
    volume.remount()
    overwrite(volume.mnt / "file", 3, b"B")
    crash(volume)
    copy = make_volume("copy", mount=False, init=False)
    copy.keystore = volume.keystore
    copy.write_conf({})
    shutil.rmtree(copy.cipher, ignore_errors=True)
    copy_tree(volume.cipher, copy.cipher)
    with open(volume.cipher / JOURNAL, "r+b") as f:  # what only the copy's journal holds now
        f.write(bytes(os.fstat(f.fileno()).st_size))
    volume.mount()
    overwrite(volume.mnt / "file", 3, b"C")
    volume.umount()
    copy.mount()
    assert "overwrites of 1 files put in place" in copy.log()
    assert block_of(copy.mnt / "file", 3) == b"B" * BLOCK
    copy.umount()
    volume.mount()
    assert block_of(volume.mnt / "file", 3) == b"C" * BLOCK
