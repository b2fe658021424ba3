# SPDX-License-Identifier: Apache-2.0
"""The kernel reads ahead of a sequential reader further than FUSE's default."""

import os
import pathlib

import pytest


def readahead_of(directory):
    device = os.stat(directory).st_dev
    return pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")


@pytest.mark.skipif(os.geteuid() != 0 or not os.access("/sys/class/bdi", os.W_OK), reason="needs root, and /sys")
def test_root_mounts_read_ahead_further(volume):
    assert readahead_of(volume.mnt).read_text() == "512\n"
