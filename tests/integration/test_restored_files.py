# SPDX-License-Identifier: Apache-2.0
"""Files that come into the backing tree while it is mounted, as from a backup."""

import errno
import os
import subprocess

import pytest
from helpers import as_user, raises, read_file, write_file


@pytest.fixture
def restored(volume):
    """A directory for everybody, and a function that puts a root-only file into it from below."""
    os.mkdir(volume.mnt / "d")
    os.chmod(volume.mnt / "d", 0o777)
    write_file(volume.mnt / "kept", b"for root's eyes", mode=0o600)
    os.sync()

    def restore(name):
        subprocess.run(["cp", "-a", volume.below("kept"), volume.below(f"d/{name}")], check=True)
        return volume.mnt / "d" / name

    return restore


@pytest.mark.parametrize("flags", [0, os.O_TRUNC])
def test_o_creat_opens_no_file_of_somebody_else(volume, restored, flags):
    name = volume.mnt / "d/f"
    # The kernel learns that there is nothing, and remembers it.
    raises(errno.ENOENT, os.stat, name)
    restored("f")

    def create():
        raises(errno.EACCES, os.open, name, os.O_CREAT | os.O_RDWR | flags, 0o666)

    as_user(1000, 1000, [], create)
    assert read_file(name) == b"for root's eyes"


def test_o_creat_and_o_trunc_empty_a_restored_file(volume, restored):
    name = volume.mnt / "d/f"
    raises(errno.ENOENT, os.stat, name)
    restored("f")
    os.close(os.open(name, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o666))
    assert read_file(name) == b""
