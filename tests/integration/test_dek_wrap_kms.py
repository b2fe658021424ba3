# SPDX-License-Identifier: Apache-2.0
"""dek_wrap = kms: each file's key wrapped by the root key itself, in a longer record."""

import errno
import os
import shutil

import pytest
from damage import flip, flip_attribute
from helpers import BORDER_SIZES, noise, raises, read_file, write_file
from modelrun import assert_reader_agrees, play
from mountpoint import KEY_RECORD, scaled
from turnkeyfs_reader import BLOCK, backing_size

pytestmark = pytest.mark.conf({"volume": {"dek_wrap": "kms"}})


def test_files_of_every_size_are_read_back_and_by_the_second_reader(volume):
    for size in BORDER_SIZES:
        write_file(volume.mnt / f"f{size}", noise(size))
    volume.remount()
    for size in BORDER_SIZES:
        assert read_file(volume.mnt / f"f{size}") == noise(size)
        assert os.stat(volume.mnt / f"f{size}").st_size == size
    volume.umount()
    for size in BORDER_SIZES:
        assert volume.read_below(f"f{size}") == noise(size)
        assert os.stat(volume.below(f"f{size}")).st_size == backing_size(size, BLOCK)
    volume.assert_verifies_clean()


def test_the_volume_says_so(volume):
    assert volume.status()["dek_wrap"] == "kms"
    write_file(volume.mnt / "f", b"x")
    record = os.getxattr(volume.below("f"), KEY_RECORD)
    assert record[0] == 2 and len(record) > 64


@pytest.mark.deadline(200)
def test_random_operations_do_the_same_as_on_a_plain_directory(volume, plain):
    play(volume, plain, None, "--ops", scaled(10_000, 100_000), "--remount-every", 2500)
    volume.umount()
    assert_reader_agrees(volume, plain)
    volume.assert_verifies_clean()


def test_lost_and_damaged_records_heal(volume):
    volume.expect_log("warning: .*record")
    for i in range(100):
        write_file(volume.mnt / f"f{i}", noise(5000, i))
    volume.umount()
    for i in range(100):
        if i % 3 == 0:
            os.removexattr(volume.below(f"f{i}"), KEY_RECORD)
        elif i % 3 == 1:
            flip_attribute(volume.below(f"f{i}"), i * 7)
        else:
            flip(volume.below(f"f{i}"), 0, i * 7)
    volume.mount()
    for i in range(100):
        assert read_file(volume.mnt / f"f{i}") == noise(5000, i)
    assert volume.counter("records_restored") == 100
    volume.umount()
    volume.assert_verifies_clean()


def test_a_record_of_another_volume_is_refused(volume, make_volume):
    """The same root key unwraps it: only the MAC tells."""
    conf = {"local": {"keystore": volume.keystore}, "volume": {"dek_wrap": "kms"}}
    other = make_volume("other", conf=conf)
    write_file(other.mnt / "f", noise(5000))
    other.umount()
    volume.expect_log("error: .*record")
    write_file(volume.mnt / "own", b"")  # so that there is a key for names
    volume.umount()
    shutil.copy(other.below("f"), volume.below("f"))
    os.setxattr(volume.below("f"), KEY_RECORD, os.getxattr(other.below("f"), KEY_RECORD))
    volume.mount()
    raises(errno.EIO, read_file, volume.mnt / "f")
