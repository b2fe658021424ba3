# SPDX-License-Identifier: Apache-2.0
"""FUSE over io_uring: taken if wanted, where root has switched it on and libfuse has it; otherwise not missed."""

import os
import pathlib
import stat

import pytest
from helpers import NOBODY, as_user, noise, read_file, write_file
from mountpoint import run, turnkeyfs, wait_for

SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")

pytestmark = pytest.mark.skipif(not SWITCH.exists(), reason="a kernel without FUSE over io_uring")


@pytest.fixture
def switch():
    before = SWITCH.read_text()
    yield SWITCH.write_text
    SWITCH.write_text(before)


def libfuse_has_it():
    return "liburing" in run("ldd", turnkeyfs()).stdout


def rings(volume):
    """The daemon's threads that wait for io_uring."""
    tasks = pathlib.Path(f"/proc/{volume.pid}/task").iterdir()
    return [task for task in tasks if (task / "comm").read_text().startswith("fuse-ring")]


def assert_works(volume):
    write_file(volume.mnt / "f", noise(3_000_000))
    volume.remount()
    assert read_file(volume.mnt / "f") == noise(3_000_000)
    os.rename(volume.mnt / "f", volume.mnt / "g")
    assert os.listdir(volume.mnt) == ["g"]
    # What libfuse has to pass on of a request for it: a write that clears set-id bits.
    os.chmod(volume.mnt, 0o755)
    os.chown(volume.mnt / "g", NOBODY.pw_uid, NOBODY.pw_gid)
    os.chmod(volume.mnt / "g", 0o6755)
    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], append, volume.mnt / "g")
    assert stat.S_IMODE(os.stat(volume.mnt / "g").st_mode) == 0o755
    volume.umount()
    volume.assert_verifies_clean()


def append(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    os.close(fd)


def test_switched_on_it_is_used_if_libfuse_has_it(make_volume, switch):
    switch("Y")
    volume = make_volume(conf={"mount": {"io_uring": "yes"}})
    if libfuse_has_it():
        wait_for(lambda: rings(volume), what="a thread for io_uring")
    else:
        volume.expect_log("failed to start io-uring")  # libfuse 3.18, built without it
    assert_works(volume)


def test_switched_off_it_is_not_missed(make_volume, switch):
    switch("N")
    volume = make_volume(conf={"mount": {"io_uring": "yes"}})
    assert_without(volume)


def test_by_default_it_is_not_used(make_volume, switch):
    switch("Y")
    assert_without(make_volume())


def assert_without(volume):
    write_file(volume.mnt / "first", b"")
    os.unlink(volume.mnt / "first")
    assert rings(volume) == []
    assert_works(volume)
