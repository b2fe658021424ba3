# SPDX-License-Identifier: Apache-2.0
"""What the journal costs others: descriptors, space of removed files, privileges of its thread."""

import os
import pathlib

import pytest
from helpers import noise, read_file, write_file
from mountpoint import wait_for

CAP_SYS_RESOURCE = 24


@pytest.mark.deadline(120)
def test_files_that_the_journal_holds_leave_room_for_others(volume):
    count, held_count = 500, 150
    for i in range(count):
        write_file(volume.mnt / f"f{i}", noise(6000))
    volume.umount()
    volume.prefix = ("prlimit", "--nofile=400:400")
    volume.mount()
    held = [open(volume.mnt / f"f{i}", "rb") for i in range(held_count)]
    for i in range(held_count, count):
        with open(volume.mnt / f"f{i}", "ab") as f:
            f.write(b"x" * 100)
    for f in held:
        f.close()
    assert read_file(volume.mnt / f"f{count - 1}") == noise(6000) + b"x" * 100


def descriptors(volume):
    fds = pathlib.Path(f"/proc/{volume.pid}/fd")
    found = []
    for fd in fds.iterdir():
        try:
            found.append(os.readlink(fd))
        except FileNotFoundError:
            pass
    return found


@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_space_of_a_removed_file_is_free_at_once(volume, how):
    write_file(volume.mnt / "file", noise(100_000))
    write_file(volume.mnt / "other", b"")
    volume.remount()
    with open(volume.mnt / "file", "r+b") as f:
        f.write(b"x" * 100)
    if how == "unlink":
        os.unlink(volume.mnt / "file")
    else:
        os.rename(volume.mnt / "other", volume.mnt / "file")
    wait_for(
        lambda: not any(path.endswith("(deleted)") for path in descriptors(volume)),
        3,
        "the end of the removed file",
    )


def capabilities(status):
    return int(status.read_text().split("CapEff:")[1].split()[0], 16)


@pytest.mark.skipif(
    not capabilities(pathlib.Path("/proc/self/status")) >> CAP_SYS_RESOURCE & 1,
    reason="no capability that could be kept",
)
def test_no_thread_keeps_a_capability_that_the_others_gave_up(volume):
    for task in pathlib.Path(f"/proc/{volume.pid}/task").iterdir():
        held = capabilities(task / "status")
        assert not held >> CAP_SYS_RESOURCE & 1, (task / "comm").read_text()
