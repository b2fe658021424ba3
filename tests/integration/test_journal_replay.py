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


def test_a_journal_with_the_number_of_the_mount_that_begins_is_left_out(volume):
    """Volume file and files come from a backup, the journal is that of a mount after it."""
    write_file(volume.mnt / "file", noise(10 * BLOCK))
    volume.umount()
    backup = volume.directory / "backup"
    copy_tree(volume.cipher, backup)
    volume.mount()
    overwrite(volume.mnt / "file", 3, b"B")
    crash(volume)
    copy_tree(backup / "turnkeyfs.volume", volume.cipher)
    copy_tree(f"{backup}/root/.", volume.cipher / "root")
    volume.expect_log("warning: .*journal is an older one")
    volume.mount()
    assert read_file(volume.mnt / "file") == noise(10 * BLOCK)
    crash(volume)
    volume.mount()
    assert read_file(volume.mnt / "file") == noise(10 * BLOCK)


def test_an_old_journal_put_back_is_left_out(volume):
    """Mounts that crashed stay in the list of unclean ones, but their journal counts once."""
    write_file(volume.mnt / "file", noise(10 * BLOCK))
    volume.remount()
    overwrite(volume.mnt / "file", 3, b"B")
    crash(volume)
    old = (volume.cipher / JOURNAL).read_bytes()
    volume.mount()
    overwrite(volume.mnt / "file", 3, b"C")
    volume.umount()
    with open(volume.cipher / JOURNAL, "r+b") as f:
        f.write(old)
    volume.assert_verifies_clean()
    volume.expect_log("warning: .*journal is an older one")
    volume.mount()
    assert block_of(volume.mnt / "file", 3) == b"C" * BLOCK


def test_a_missing_journal_is_said(volume):
    write_file(volume.mnt / "file", noise(10 * BLOCK))
    crash(volume)
    os.unlink(volume.cipher / JOURNAL)
    volume.expect_log("warning: .*journal is missing")
    volume.mount()
    assert "journal is missing" in volume.log()
    volume.remount()
    assert volume.log().count("journal is missing") == 1
