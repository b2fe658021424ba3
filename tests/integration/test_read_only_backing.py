# SPDX-License-Identifier: Apache-2.0
"""The backing filesystem becomes read-only under a mount: by its administrator, or by an error."""

import errno
import os
import pathlib
import time

import pytest
from azure_volume import kek_states, rotation, turnkeyfs
from helpers import noise, raises, read_file, write_file
from key_states import LocalKey, refused, state, wait_served, wait_state, windows
from mountpoint import mounts, run, wait_for
from mountpoint import turnkeyfs as turnkeyfs_program

ROTATION_WINDOW = 2
EXPECTED = r"Read-only file system|Input/output error|rotation window of \d+ s is missed|is disabled"

pytestmark = pytest.mark.backing("ext4")


CONF = windows(rotation=ROTATION_WINDOW)


@pytest.fixture
def volume(request, make_volume):
    marker = request.node.get_closest_marker("conf")
    volume = make_volume(conf=marker.args[0] if marker else CONF)
    volume.key = LocalKey(volume)
    volume.expect_log(EXPECTED)
    for i in range(20):
        write_file(volume.mnt / f"f{i}", noise(5000, i))
    os.sync()
    return volume


def check(volume):
    for i in range(20):
        assert read_file(volume.mnt / f"f{i}") == noise(5000, i)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refuse_changes(volume):
    """Every change of the tree is refused as on any read-only filesystem."""
    mnt = volume.mnt
    changes = {
        "create": lambda: os.open(mnt / "new", os.O_CREAT | os.O_WRONLY),
        "open to write": lambda: os.open(mnt / "f1", os.O_WRONLY),
        "truncate": lambda: os.truncate(mnt / "f1", 3),
        "mkdir": lambda: os.mkdir(mnt / "dir"),
        "unlink": lambda: os.unlink(mnt / "f1"),
        "rename": lambda: os.rename(mnt / "f1", mnt / "g1"),
        "link": lambda: os.link(mnt / "f1", mnt / "g1"),
        "symlink": lambda: os.symlink("f1", mnt / "l"),
        "chmod": lambda: os.chmod(mnt / "f1", 0o600),
        "setxattr": lambda: os.setxattr(mnt / "f1", "user.a", b"1"),
        "utime": lambda: os.utime(mnt / "f1", (1, 1)),
    }
    for what, change in changes.items():
        print(what)
        raises(errno.EROFS, change)


def check_while_read_only(volume):
    refuse_changes(volume)
    check(volume)
    volume.key.rotate()
    wait_for(lambda: rotation(volume)["state"] == "failed", 20, "the failure")
    assert "Read-only file system" in rotation(volume)["error"]
    assert kek_states(volume) == {1: "active"}
    # It is tried again, at leisure.
    before, lines = cpu_seconds(volume.pid), len(volume.log().splitlines())
    time.sleep(2 * ROTATION_WINDOW)
    assert cpu_seconds(volume.pid) - before < 0.5
    assert len(volume.log().splitlines()) - lines < 60
    assert turnkeyfs("status", volume.cipher, check=False).returncode == 19
    # Revocation needs no writing.
    volume.key.disable()
    wait_state(volume, "revoked")
    assert refused(os.listdir, volume.mnt)
    volume.key.enable()
    wait_served(os.listdir, volume.mnt)
    wait_state(volume, "active")
    check(volume)


# With a journal, which is open for writing, the kernel refuses to remount.
@pytest.mark.conf(CONF | {"mount": {"durability": "relaxed"}})
def test_remounted_read_only_and_back(volume, backing):
    run("mount", "-o", "remount,ro", backing)
    try:
        check_while_read_only(volume)
    finally:
        run("mount", "-o", "remount,rw", backing)
    write_file(volume.mnt / "new", b"served")
    wait_for(lambda: kek_states(volume).get(1) == "retired", 20, "the rotation")
    assert state(volume) == "active"
    check(volume)
    volume.remount()
    check(volume)
    volume.umount()
    volume.assert_verifies_clean()


def loop_device(backing):
    return pathlib.Path(mounts()[str(backing)][1]).name


def test_an_error_makes_it_read_only(volume, backing):
    trigger = pathlib.Path(f"/sys/fs/ext4/{loop_device(backing)}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("ext4 offers no way to have an error here")
    run("mount", "-o", "remount,errors=remount-ro", backing)
    fd = os.open(volume.mnt / "open", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"synced")
    os.fsync(fd)
    trigger.write_text("1")
    os.pwrite(fd, b"lost, and said so", 0)
    raises((errno.EROFS, errno.EIO), os.fsync, fd)
    refused(os.close, fd, number=errno.EROFS)
    check_while_read_only(volume)

    run(turnkeyfs_program(), "umount", volume.mnt, check=False)
    volume.daemon.wait(20)
    volume.forget_daemon()
    run("umount", backing)
    image = backing.parent / "ext4.img"
    assert run("e2fsck", "-fy", image, check=False).returncode in (0, 1)
    run("mount", "-o", "loop", image, backing)
    volume.mount()
    assert read_file(volume.mnt / "open") == b"synced"
    check(volume)
    wait_for(lambda: kek_states(volume).get(1) == "retired", 20, "the rotation")
    volume.umount()
    volume.assert_verifies_clean()
