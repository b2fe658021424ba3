# SPDX-License-Identifier: Apache-2.0
"""Modes, owners, times, attributes and ACLs: on a plain directory, and on a mount as well."""

import errno
import mmap
import os
import stat
import time

import pytest
from helpers import BLOCK, as_user, noise, raises, read_file, tree, write_file
from mountpoint import KEY_RECORD, run

NOBODY = 65534
SECOND = 1_000_000_000


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- modes and owners ----------------------------------------------------------------------------


def test_modes_are_kept(place):
    write_file(place / "f", b"x")
    for mode in (0o000, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o7777):
        os.chmod(place / "f", mode)
        assert mode_of(place / "f") == mode
    os.chmod(place / "f", 0o4711)
    place.remount()
    assert mode_of(place / "f") == 0o4711


def test_umask_applies(place):
    old = os.umask(0o027)
    try:
        write_file(place / "f", b"", mode=0o666)
        os.mkdir(place / "d", 0o777)
        os.mkfifo(place / "p", 0o666)
    finally:
        os.umask(old)
    assert [mode_of(place / name) for name in "fdp"] == [0o640, 0o750, 0o640]


def test_owners_are_kept(place):
    write_file(place / "f", b"x")
    os.symlink("f", place / "l")
    os.chown(place / "f", 1234, 5678)
    os.chown(place / "l", 12, 34, follow_symlinks=False)
    os.chown(place / "f", -1, 999)
    place.remount()
    st = os.stat(place / "f")
    assert (st.st_uid, st.st_gid) == (1234, 999)
    st = os.lstat(place / "l")
    assert (st.st_uid, st.st_gid) == (12, 34)


def test_chown_by_another_than_root_clears_suid_and_sgid(place):
    """Root's chown clears them as well, for regular files that may be executed."""
    write_file(place / "f", b"x")
    os.chmod(place / "f", 0o6755)
    os.chown(place / "f", NOBODY, NOBODY)
    assert mode_of(place / "f") == 0o755


@pytest.mark.users
@pytest.mark.parametrize("how", ["write", "truncate", "fallocate", "copy"])
def test_a_change_by_another_user_clears_suid_and_sgid(place, how):
    write_file(place / "f", b"some content")
    write_file(place / "source", b"other content")
    os.chown(place / "f", 1000, 1000)
    os.chmod(place / "f", 0o6777)

    def change():
        fd = os.open(place / "f", os.O_RDWR)
        if how == "write":
            os.write(fd, b"x")
        elif how == "truncate":
            os.ftruncate(fd, 3)
        elif how == "fallocate":
            os.posix_fallocate(fd, 0, 100)
        else:
            source = os.open(place / "source", os.O_RDONLY)
            assert os.copy_file_range(source, fd, 10, 0, 0) == 10
            os.close(source)
        os.close(fd)

    as_user(NOBODY, NOBODY, [], change)
    assert mode_of(place / "f") == 0o777


@pytest.mark.users
def test_the_sticky_bit_protects_others_files(place):
    os.mkdir(place / "tmp")
    os.chmod(place / "tmp", 0o1777)

    def mine():
        write_file(place / "tmp/mine", b"")

    def theirs():
        raises(errno.EPERM, os.unlink, place / "tmp/mine")
        raises(errno.EPERM, os.rename, place / "tmp/mine", place / "tmp/stolen")

    as_user(1000, 1000, [], mine)
    as_user(1001, 1001, [], theirs)
    as_user(1000, 1000, [], lambda: os.unlink(place / "tmp/mine"))


# --- times ---------------------------------------------------------------------------------------


def test_times_are_set_to_the_nanosecond(place):
    write_file(place / "f", b"x")
    os.symlink("f", place / "l")
    os.mkdir(place / "d")
    for name in "fld":
        os.utime(place / name, ns=(123_456_789_012, 987_654_321_098_765), follow_symlinks=False)
    place.remount()
    for name in "fld":
        st = os.lstat(place / name)
        assert (st.st_atime_ns, st.st_mtime_ns) == (123_456_789_012, 987_654_321_098_765)


def test_one_time_can_be_left_alone(place):
    run("touch", place / "f")
    run("touch", "-a", "-d", "2001-02-03 04:05:06.5", place / "f")
    run("touch", "-m", "-d", "2011-02-03 04:05:06.25", place / "f")
    st = os.stat(place / "f")
    assert st.st_atime_ns % SECOND == 500_000_000 and st.st_mtime_ns % SECOND == 250_000_000


def rewritten(path, i):
    with open(path, "r+b", buffering=0) as f:
        f.seek(i % 3 * BLOCK)
        f.write(noise(BLOCK))
        if i % 2:
            os.fsync(f.fileno())


def appended(path, _):
    with open(path, "ab") as f:
        f.write(noise(100))


def cut(path, i):
    os.truncate(path, i * 10)


def mapped(path, _):
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as memory:
        memory[5:10] = b"hello"
        memory.flush()


def mtimes(place, count):
    return [os.stat(place / f"f{i}").st_mtime_ns for i in range(count)]


@pytest.mark.parametrize("change", [None, rewritten, appended, cut, mapped])
def test_mtimes_are_the_same_after_a_remount(place, change):
    """rsync, make and git compare them: when we wrote something below is not when it was written."""
    count = 200
    for i in range(count):
        write_file(place / f"f{i}", noise(BLOCK + i))
    if change:
        place.remount()
        for i in range(count):
            change(place / f"f{i}", i)
    before = mtimes(place, count)
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
        drop.write("2")
    assert mtimes(place, count) == before
    place.remount()
    assert mtimes(place, count) == before


@pytest.mark.parametrize("open_files", [False, True], ids=["closed", "open"])
def test_a_set_mtime_outlives_the_writes_before_it(place, open_files):
    """tar and rsync write, set the time and close: later flushes must not change it."""
    wanted = 1_234_567_890 * SECOND + 111
    fd = os.open(place / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, noise(3 * BLOCK))
    if open_files:
        os.utime(fd, ns=(wanted, wanted))
        os.fsync(fd)
        os.close(fd)
    else:
        os.close(fd)
        os.utime(place / "f", ns=(wanted, wanted))
    assert os.stat(place / "f").st_mtime_ns == wanted
    place.remount()
    assert os.stat(place / "f").st_mtime_ns == wanted
    assert len(read_file(place / "f")) == 3 * BLOCK


def test_mtime_and_ctime_move_with_changes(place):
    write_file(place / "f", b"x")

    def changed(action, mtime):
        before = os.stat(place / "f")
        time.sleep(0.02)
        action()
        after = os.stat(place / "f")
        assert after.st_ctime_ns > before.st_ctime_ns
        assert (after.st_mtime_ns > before.st_mtime_ns) == mtime

    changed(lambda: write_file(place / "f", b"longer"), True)
    changed(lambda: os.truncate(place / "f", 2), True)
    changed(lambda: os.chmod(place / "f", 0o600), False)
    changed(lambda: os.chown(place / "f", 1, 1), False)
    changed(lambda: os.link(place / "f", place / "g"), False)
    changed(lambda: os.setxattr(place / "f", "user.a", b"1"), False)
    changed(lambda: os.rename(place / "g", place / "h"), False)


def test_reading_changes_no_mtime(place):
    write_file(place / "f", noise(BLOCK))
    place.remount()
    before = os.stat(place / "f")
    read_file(place / "f")
    place.remount()
    after = os.stat(place / "f")
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_directory_times_move_with_their_entries(place):
    os.mkdir(place / "d")
    os.utime(place / "d", ns=(0, 0))
    write_file(place / "d/f", b"")
    assert os.stat(place / "d").st_mtime_ns > 0
    os.utime(place / "d", ns=(0, 0))
    os.unlink(place / "d/f")
    assert os.stat(place / "d").st_mtime_ns > 0


def test_cp_p_and_tar_keep_times_over_a_remount(place, work):
    source = work / "source"
    os.mkdir(source)
    for i in range(20):
        write_file(source / f"f{i}", noise(i * 1000, i))
        os.utime(source / f"f{i}", ns=(i * SECOND + i, 10**18 + i * 7))
    os.mkdir(source / "d")
    os.symlink("f1", source / "l")
    os.utime(source / "l", ns=(5, 7), follow_symlinks=False)
    os.utime(source / "d", ns=(5, 7))
    run("cp", "-a", source, place / "copied")
    run("tar", "-C", source, "--format=posix", "-cf", work / "t.tar", ".")
    os.mkdir(place / "untarred")
    run("tar", "-C", place / "untarred", "-xf", work / "t.tar")
    place.remount()
    assert tree(place / "copied", with_times=True) == tree(source, with_times=True)
    assert tree(place / "untarred", with_times=True) == tree(source, with_times=True)


# --- extended attributes -------------------------------------------------------------------------


def test_user_attributes_are_set_read_listed_and_removed(place):
    write_file(place / "f", b"x")
    os.mkdir(place / "d")
    for name in "fd":
        path = place / name
        os.setxattr(path, "user.one", b"first")
        os.setxattr(path, "user.two", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
    place.remount()
    for name in "fd":
        path = place / name
        assert os.getxattr(path, "user.one") == b"first"
        assert os.getxattr(path, "user.two") == b""
        assert os.getxattr(path, "user.bytes") == bytes(range(256))
        assert sorted(os.listxattr(path)) == ["user.bytes", "user.one", "user.two"]
        os.removexattr(path, "user.one")
        raises(errno.ENODATA, os.getxattr, path, "user.one")
        raises(errno.ENODATA, os.removexattr, path, "user.one")
        assert sorted(os.listxattr(path)) == ["user.bytes", "user.two"]


def test_create_and_replace_flags(place):
    write_file(place / "f", b"x")
    raises(errno.ENODATA, os.setxattr, place / "f", "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(place / "f", "user.a", b"1", os.XATTR_CREATE)
    raises(errno.EEXIST, os.setxattr, place / "f", "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(place / "f", "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(place / "f", "user.a") == b"3"


def test_attributes_by_descriptor_and_on_unlinked_files(place):
    fd = os.open(place / "f", os.O_RDWR | os.O_CREAT)
    os.setxattr(fd, "user.a", b"1")
    os.unlink(place / "f")
    assert os.getxattr(fd, "user.a") == b"1"
    os.setxattr(fd, "user.b", b"2")
    assert sorted(os.listxattr(fd)) == ["user.a", "user.b"]
    os.close(fd)


def test_user_attributes_on_symlinks_and_fifos_are_refused(place):
    os.symlink("f", place / "l")
    os.mkfifo(place / "p")
    for name in "lp":
        raises(
            errno.EPERM, os.setxattr, place / name, "user.a", b"1", follow_symlinks=False
        )


def test_trusted_and_security_attributes_pass_through(place):
    write_file(place / "f", b"x")
    for name, value in (("trusted.a", b"t"), ("security.test", b"s")):
        try:
            os.setxattr(place / "f", name, value)
        except OSError as e:
            if e.errno in (errno.EOPNOTSUPP, errno.EPERM) and place.volume is None:
                pytest.skip(f"no {name} on the plain directory")
            raise
        assert os.getxattr(place / "f", name) == value


def test_file_capabilities_work(place):
    with open("/bin/true", "rb") as f:
        write_file(place / "f", f.read(), mode=0o755)
    # VFS_CAP_REVISION_2, effective: CAP_NET_RAW
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(place / "f", "security.capability", capability)
    place.remount()
    assert os.getxattr(place / "f", "security.capability") == capability
    with open(place / "f", "ab") as f:
        f.write(b"changed")
    raises(errno.ENODATA, os.getxattr, place / "f", "security.capability")


def test_the_key_record_is_invisible_and_untouchable(shared_volume):
    """Only on a mount: nobody sees, sets or removes it from above."""
    path = shared_volume.mnt / "record"
    write_file(path, noise(5000))
    below = shared_volume.below("record")
    record = os.getxattr(below, KEY_RECORD)
    assert os.listxattr(path) == []
    raises(errno.ENODATA, os.getxattr, path, KEY_RECORD)
    for action, args in (
        (os.setxattr, (path, KEY_RECORD, b"x" * 64)),
        (os.setxattr, (path, KEY_RECORD, b"x" * 64, os.XATTR_CREATE)),
        (os.removexattr, (path, KEY_RECORD)),
    ):
        with pytest.raises(OSError):
            action(*args)
    assert os.getxattr(below, KEY_RECORD) == record
    os.setxattr(path, "user.turnkeys", b"another name")
    assert os.listxattr(path) == ["user.turnkeys"]
    fd = os.open(shared_volume.mnt, os.O_RDONLY)
    raises(errno.ENODATA, os.getxattr, fd, KEY_RECORD)
    os.close(fd)
    assert len(read_file(path)) == 5000


def test_copying_attributes_back_does_not_copy_a_key(shared_volume, work):
    """cp -a of a file out and in again gives it a key of its own."""
    path = shared_volume.mnt / "original"
    write_file(path, noise(5000))
    run("cp", "-a", path, work / "outside")
    run("cp", "-a", work / "outside", shared_volume.mnt / "returned")
    run("cp", "-a", path, shared_volume.mnt / "copy")
    records = {
        os.getxattr(shared_volume.below(name), KEY_RECORD)
        for name in ("original", "returned", "copy")
    }
    assert len(records) == 3


# --- POSIX ACLs ----------------------------------------------------------------------------------


def getfacl(path):
    lines = run("getfacl", "-p", "-n", "-c", path).stdout.split()
    return sorted(lines)


@pytest.mark.users
def test_acls_are_kept_and_obeyed(place):
    write_file(place / "f", b"secret", mode=0o600)
    run("setfacl", "-m", "u:1000:r--,g:2000:rw-", place / "f")
    place.remount()
    assert "user:1000:r--" in getfacl(place / "f") and "group:2000:rw-" in getfacl(place / "f")
    as_user(1000, 1000, [], lambda: read_file(place / "f"))
    as_user(1001, 1001, [2000], lambda: write_file(place / "f", b"changed"))
    as_user(1001, 1001, [], lambda: raises(errno.EACCES, read_file, place / "f"))
    as_user(1000, 1000, [], lambda: raises(errno.EACCES, write_file, place / "f", b""))
    run("setfacl", "-x", "u:1000", place / "f")
    as_user(1000, 1000, [], lambda: raises(errno.EACCES, read_file, place / "f"))
    run("setfacl", "-b", place / "f")
    assert getfacl(place / "f") == ["group::---", "other::---", "user::rw-"]


@pytest.mark.users
def test_chmod_and_acl_mask_move_together(place):
    write_file(place / "f", b"", mode=0o600)
    run("setfacl", "-m", "u:1000:rwx", place / "f")
    assert mode_of(place / "f") == 0o670
    os.chmod(place / "f", 0o640)
    assert "mask::r--" in getfacl(place / "f")
    as_user(1000, 1000, [], lambda: raises(errno.EACCES, write_file, place / "f", b""))


@pytest.mark.users
def test_default_acls_are_inherited_and_replace_the_umask(place):
    os.mkdir(place / "d")
    run("setfacl", "-d", "-m", "u:1000:rwx,g::r-x,o::---", place / "d")
    old = os.umask(0o077)
    try:
        write_file(place / "d/f", b"x", mode=0o666)
        os.mkdir(place / "d/sub", 0o777)
        os.mkfifo(place / "d/p", 0o666)
    finally:
        os.umask(old)
    assert "user:1000:rwx" in " ".join(getfacl(place / "d/f"))
    assert mode_of(place / "d/f") == 0o660, "the mask is the mode's, the umask is not applied"
    assert "default:user:1000:rwx" in getfacl(place / "d/sub")
    assert "user:1000:rwx" in " ".join(getfacl(place / "d/p"))
    place.remount()
    as_user(1000, 1000, [], lambda: write_file(place / "d/f", b"changed"))
    as_user(1001, 1001, [], lambda: raises(errno.EACCES, read_file, place / "d/f"))
    write_file(place / "d/sub/deep", b"")
    assert "user:1000:rwx" in " ".join(getfacl(place / "d/sub/deep"))


def test_acls_travel_with_cp_and_tar(place, work):
    write_file(place / "f", b"x")
    run("setfacl", "-m", "u:1000:rwx", place / "f")
    run("cp", "-a", place / "f", place / "g")
    run("tar", "--acls", "-C", place.path, "-cf", work / "t.tar", "f")
    os.mkdir(place / "out")
    run("tar", "--acls", "-C", place / "out", "-xf", work / "t.tar")
    assert getfacl(place / "g") == getfacl(place / "f") == getfacl(place / "out/f")
