# SPDX-License-Identifier: Apache-2.0
"""A mount for root alone: the kernel judges nobody, which must not show but in speed."""

import errno
import os
import stat
import subprocess

import pytest
from helpers import in_child, libc, raises, read_file, write_file
from mountpoint import run

OTHER = 1000

pytestmark = pytest.mark.conf({"mount": {"allow_other": "no"}})


def judged(volume):
    """Whether the kernel judges permissions in this mount."""
    for line in open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape"):
        if line.split()[4] == str(volume.mnt):
            return "default_permissions" in line.split(" - ")[1].split()[2].split(",")
    raise AssertionError(f"{volume.mnt} is not mounted")


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def acl_of(path):
    return run("getfacl", "-p", "-n", "-c", path).stdout.split()


def test_the_kernel_judges_where_it_may_not_be_root(volume, make_volume):
    assert not judged(volume)
    assert judged(make_volume("everybody", conf={"mount": {"allow_other": "yes"}}))
    # A daemon that may not do everything is no measure of what root may do.
    prefix = ("setpriv", "--bounding-set", "-dac_override", "--")
    assert judged(make_volume("bounded", conf={"mount": {"allow_other": "no"}}, prefix=prefix))


def test_an_ordinary_users_mount_is_judged(mine):
    assert judged(mine)


def test_access_is_what_root_may_do(volume):
    write_file(volume.mnt / "f", b"", mode=0)
    os.mkdir(volume.mnt / "d", 0)
    for path in (volume.mnt / "f", volume.mnt / "d"):
        assert os.access(path, os.F_OK | os.R_OK | os.W_OK)
    assert os.access(volume.mnt / "d", os.X_OK)
    for mode in (0, 0o666, 0o644):
        os.chmod(volume.mnt / "f", mode)
        assert not os.access(volume.mnt / "f", os.X_OK)
        assert not os.access(volume.mnt / "f", os.R_OK | os.X_OK)
    for mode in (0o100, 0o010, 0o001):
        os.chmod(volume.mnt / "f", mode)
        assert os.access(volume.mnt / "f", os.X_OK)
    assert not os.access(volume.mnt / "nothing", os.F_OK)


def test_what_nobody_may_execute_is_not_executed(volume):
    write_file(volume.mnt / "f", b"#!/bin/sh\necho ran\n", mode=0o666)
    raises(errno.EACCES, subprocess.run, [volume.mnt / "f"], check=True)
    os.chmod(volume.mnt / "f", 0o100)
    assert subprocess.run([volume.mnt / "f"], capture_output=True, check=True).stdout == b"ran\n"


def test_root_goes_where_modes_forbid_it(volume):
    os.mkdir(volume.mnt / "d", 0)
    write_file(volume.mnt / "d/f", b"x", mode=0)
    os.symlink("f", volume.mnt / "d/l")
    volume.remount()
    assert read_file(volume.mnt / "d/l") == b"x"
    assert sorted(os.listdir(volume.mnt / "d")) == ["f", "l"]
    run("env", "-C", volume.mnt / "d", "rm", "f", "l")
    assert not os.listdir(volume.mnt / "d")


def test_a_read_only_mount_stays_one(volume):
    write_file(volume.mnt / "f", b"x", mode=0o777)
    volume.umount().mount("-o", "ro")
    assert not os.access(volume.mnt / "f", os.W_OK)
    assert os.access(volume.mnt / "f", os.R_OK | os.X_OK)
    raises(errno.EROFS, os.unlink, volume.mnt / "f")


def test_acls_show_in_modes_at_once(volume):
    path = volume.mnt / "f"
    write_file(path, b"", mode=0o600)
    assert mode_of(path) == 0o600
    run("setfacl", "-m", "u:1000:rwx", path)
    assert mode_of(path) == 0o670
    os.chmod(path, 0o640)
    assert "mask::r--" in acl_of(path) and "user:1000:rwx" in " ".join(acl_of(path))
    assert mode_of(path) == 0o640
    run("setfacl", "-m", "m::rw", path)
    assert mode_of(path) == 0o660
    run("setfacl", "-b", path)
    assert mode_of(path) == 0o600
    assert sorted(acl_of(path)) == ["group::---", "other::---", "user::rw-"]


def test_default_acls_are_inherited_and_replace_the_umask(volume):
    place = volume.mnt / "d"
    os.mkdir(place)
    run("setfacl", "-d", "-m", "u:1000:rwx,g::r-x,o::---", place)
    old = os.umask(0o077)
    try:
        write_file(place / "f", b"x", mode=0o666)
        os.mkdir(place / "sub", 0o777)
        write_file(volume.mnt / "masked", b"", mode=0o666)
    finally:
        os.umask(old)
    assert mode_of(place / "f") == 0o660
    assert mode_of(volume.mnt / "masked") == 0o600
    assert "default:user:1000:rwx" in acl_of(place / "sub")
    volume.remount()
    assert "user:1000:rwx" in " ".join(acl_of(place / "f"))


def test_set_id_bits_are_inherited_and_cleared(volume):
    place = volume.mnt / "d"
    os.mkdir(place)
    os.chown(place, 0, 2000)
    os.chmod(place, 0o2775)
    os.mkdir(place / "sub")
    write_file(place / "f", b"")
    assert os.stat(place / "f").st_gid == 2000
    assert os.stat(place / "sub").st_gid == 2000 and mode_of(place / "sub") & stat.S_ISGID
    os.chmod(place / "f", 0o6755)
    os.chown(place / "f", OTHER, OTHER)
    assert mode_of(place / "f") == 0o755


def test_root_in_another_users_name_is_kept_out(volume):
    """fsuid is not what the kernel looks at when it lets the owner in."""
    write_file(volume.mnt / "f", b"secret", mode=0o644)
    os.mkdir(volume.mnt / "d", 0o777)
    os.chmod(volume.mnt, 0o777)

    def as_other():
        libc.setfsgid(OTHER)
        libc.setfsuid(OTHER)
        raises(errno.EACCES, read_file, volume.mnt / "f")
        raises(errno.EACCES, write_file, volume.mnt / "d/new", b"")
        raises(errno.EACCES, os.listdir, volume.mnt / "d")
        raises(errno.EACCES, os.unlink, volume.mnt / "f")
        raises(errno.EACCES, os.rename, volume.mnt / "f", volume.mnt / "g")
        raises(errno.EACCES, os.chmod, volume.mnt / "f", 0o777)

    in_child(as_other)
    assert read_file(volume.mnt / "f") == b"secret" and mode_of(volume.mnt / "f") == 0o644
