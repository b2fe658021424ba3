# SPDX-License-Identifier: Apache-2.0
"""Random operations on the mount and on a plain directory come to the same result.

tests/model does the operations; here it runs on a fresh volume, and afterwards the independent
reader and `verify` look at what lies below.
"""

import os

import pytest
from modelrun import assert_reader_agrees, play
from mountpoint import scaled

OPS = scaled(25_000, 250_000)
SEEDS = [int(seed) for seed in os.environ.get("TURNKEYFS_TEST_SEEDS", "").split()] or [None, None]


@pytest.mark.deadline(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_operations_do_the_same_as_on_a_plain_directory(volume, plain, seed):
    play(volume, plain, seed, "--ops", OPS, "--remount-every", OPS // 4)
    volume.umount()
    assert_reader_agrees(volume, plain)
    volume.assert_verifies_clean()


@pytest.mark.deadline(200)
@pytest.mark.parametrize(
    "filesystem",
    [
        pytest.param(kind, marks=pytest.mark.backing(kind))
        for kind in ("tmpfs", "ext4", "xfs", "btrfs")
    ],
)
def test_random_operations_do_the_same_on_every_backing_filesystem(volume, plain, filesystem):
    play(volume, plain, None, "--ops", scaled(5_000, 100_000), "--remount-every", 1000)
    volume.umount()
    assert_reader_agrees(volume, plain)
    volume.assert_verifies_clean()


@pytest.mark.deadline(300)
@pytest.mark.parametrize("turn", range(2))
def test_names_of_all_lengths_and_bytes(volume, plain, turn):
    """A hundred names that come, go, move and are linked: few operations on content."""
    options = ["--files", 99, "--wild-names", "--max-size", 600_000]
    for kind in ("map-write", "fallocate", "burst-write", "burst-append", "pwrite", "pread"):
        options += ["--skip", kind]
    play(volume, plain, None, "--ops", scaled(10_000, 200_000), "--remount-every", 2500, *options)
    volume.umount()
    assert_reader_agrees(volume, plain)
    volume.assert_verifies_clean()


@pytest.mark.deadline(200)
def test_one_small_file_with_many_operations(volume, plain):
    """Few names and small sizes: everything meets in the same blocks."""
    play(volume, plain, None, "--ops", scaled(10_000, 200_000), "--files", 2, "--max-size", 600_000)
    volume.umount()
    assert_reader_agrees(volume, plain)


@pytest.mark.slow
@pytest.mark.deadline(200)
def test_large_files_with_many_groups(volume, plain):
    play(volume, plain, None, "--ops", scaled(3_000, 100_000), "--files", 4, "--max-size", 40 << 20)
    volume.umount()
    assert_reader_agrees(volume, plain)
