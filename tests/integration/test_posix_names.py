# SPDX-License-Identifier: Apache-2.0
"""Names, directories and links: each test holds on a plain directory, and on a mount as well."""

import ctypes
import errno
import os
import socket
import stat

import pytest
from helpers import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    libc,
    raises,
    read_file,
    renameat2,
    write_file,
)
from mountpoint import run

LONGEST = "n" * 255


# --- create and remove ---------------------------------------------------------------------------


def test_a_directory_is_made_listed_and_removed(place):
    os.mkdir(place / "d", 0o750)
    st = os.stat(place / "d")
    assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o750
    assert os.listdir(place / "d") == []
    raises(errno.EEXIST, os.mkdir, place / "d")
    write_file(place / "d" / "f", b"x")
    raises(errno.ENOTEMPTY, os.rmdir, place / "d")
    raises(errno.EISDIR, os.unlink, place / "d")
    raises(errno.ENOTDIR, os.rmdir, place / "d" / "f")
    os.unlink(place / "d" / "f")
    os.rmdir(place / "d")
    raises(errno.ENOENT, os.rmdir, place / "d")


def test_paths_through_what_is_no_directory_fail(place):
    write_file(place / "f", b"")
    raises(errno.ENOTDIR, os.stat, place / "f" / "x")
    raises(errno.ENOENT, os.stat, place / "none" / "x")
    raises(errno.ENOTDIR, write_file, place / "f" / "x", b"")
    raises(errno.ENOENT, os.unlink, place / "none")


def test_the_longest_names(place):
    for name in (LONGEST, "ü" * 127, "\U0001f511" * 63):
        write_file(place / name, name.encode())
        os.mkdir(place / (name[:-1] + "d"))
    place.remount()
    assert read_file(place / LONGEST) == LONGEST.encode()
    assert LONGEST in os.listdir(place.path)
    raises(errno.ENAMETOOLONG, write_file, place / (LONGEST + "n"), b"")
    raises(errno.ENAMETOOLONG, os.mkdir, place / (LONGEST + "n"))
    raises(errno.ENAMETOOLONG, os.stat, place / (LONGEST + "n"))
    raises(errno.ENAMETOOLONG, os.symlink, "x", place / (LONGEST + "n"))
    raises(errno.ENAMETOOLONG, os.rename, place / LONGEST, place / (LONGEST + "n"))


def test_names_are_any_bytes_but_slash_and_nul(place):
    directory = os.fsencode(place.path)
    names = [bytes([i]) for i in range(1, 256) if i not in (ord("/"), ord("."))]
    names += [b"...", b" leading", b"trailing ", b"new\nline", b"\xff\xfe", b"-rf", b"a\\b"]
    for name in names:
        with open(directory + b"/" + name, "wb") as f:
            f.write(name)
    place.remount()
    assert sorted(os.listdir(directory)) == sorted(names)
    for name in names:
        assert read_file(directory + b"/" + name) == name


def test_a_path_deeper_than_path_max(place):
    """Step by step, as rm -r and find do it."""
    depth, name = 40, "d" * 200
    start = os.open(place.path, os.O_RDONLY)
    fd = os.dup(start)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    file = os.open("f", os.O_RDWR | os.O_CREAT, dir_fd=fd)
    os.write(file, b"deep")
    assert os.pread(file, 10, 0) == b"deep"
    os.close(file)
    assert os.listdir(fd) == ["f"]
    os.rename("f", "g", src_dir_fd=fd, dst_dir_fd=fd)
    os.unlink("g", dir_fd=fd)
    os.close(fd)
    os.close(start)
    run("rm", "-r", place / name)
    assert os.listdir(place.path) == []


def test_unlinking_the_directory_one_is_in(place):
    os.mkdir(place / "d")
    fd = os.open(place / "d", os.O_RDONLY)
    os.rmdir(place / "d")
    assert os.listdir(fd) == []
    raises(errno.ENOENT, os.open, "f", os.O_RDWR | os.O_CREAT, dir_fd=fd)
    os.close(fd)


# --- rename --------------------------------------------------------------------------------------


def test_rename_replaces_atomically(place):
    write_file(place / "a", b"a")
    write_file(place / "b", b"b")
    inode = os.stat(place / "a").st_ino
    os.rename(place / "a", place / "b")
    assert read_file(place / "b") == b"a" and os.stat(place / "b").st_ino == inode
    assert os.listdir(place.path) == ["b"]
    os.rename(place / "b", place / "b")
    assert read_file(place / "b") == b"a"


def test_rename_between_directories(place):
    for name in ("d1", "d2", "d1/sub"):
        os.mkdir(place / name)
    write_file(place / "d1/sub/f", b"moved")
    os.rename(place / "d1/sub", place / "d2/sub")
    assert read_file(place / "d2/sub/f") == b"moved"
    os.rename(place / "d2/sub/f", place / "f")
    place.remount()
    assert read_file(place / "f") == b"moved"
    assert os.listdir(place / "d1") == [] and os.listdir(place / "d2/sub") == []


def test_rename_refuses_what_makes_no_sense(place):
    os.mkdir(place / "d")
    os.mkdir(place / "d/sub")
    os.mkdir(place / "empty")
    write_file(place / "f", b"")
    raises(errno.EINVAL, os.rename, place / "d", place / "d/sub/x")
    raises((errno.ENOTEMPTY, errno.EEXIST), os.rename, place / "empty", place / "d")
    raises(errno.EISDIR, os.rename, place / "f", place / "d")
    raises(errno.ENOTDIR, os.rename, place / "d", place / "f")
    raises(errno.ENOENT, os.rename, place / "none", place / "x")
    os.rename(place / "d", place / "empty")
    assert sorted(os.listdir(place.path)) == ["empty", "f"]


def test_rename_noreplace(place):
    write_file(place / "a", b"a")
    write_file(place / "b", b"b")
    raises(errno.EEXIST, renameat2, place / "a", place / "b", RENAME_NOREPLACE)
    assert read_file(place / "b") == b"b"
    renameat2(place / "a", place / "c", RENAME_NOREPLACE)
    assert read_file(place / "c") == b"a"


def test_rename_exchange(place):
    write_file(place / "f", b"file")
    os.mkdir(place / "d")
    write_file(place / "d/inside", b"inside")
    renameat2(place / "f", place / "d", RENAME_EXCHANGE)
    assert read_file(place / "d") == b"file" and read_file(place / "f/inside") == b"inside"
    raises(errno.ENOENT, renameat2, place / "f", place / "none", RENAME_EXCHANGE)
    place.remount()
    assert read_file(place / "d") == b"file" and read_file(place / "f/inside") == b"inside"


def test_files_stay_open_while_their_directory_moves(place):
    os.mkdir(place / "d")
    write_file(place / "d/f", b"before")
    fd = os.open(place / "d/f", os.O_RDWR)
    directory = os.open(place / "d", os.O_RDONLY)
    os.rename(place / "d", place / "moved")
    os.mkdir(place / "d")
    os.pwrite(fd, b"after!", 0)
    assert read_file(place / "moved/f") == b"after!"
    new = os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
    os.write(new, b"new")
    for each in (fd, directory, new):
        os.close(each)
    assert read_file(place / "moved/new") == b"new" and os.listdir(place / "d") == []


# --- links ---------------------------------------------------------------------------------------


def test_hard_links_are_one_file(place):
    write_file(place / "a", b"one")
    os.mkdir(place / "d")
    os.link(place / "a", place / "d/b")
    assert os.stat(place / "a").st_nlink == 2
    assert os.path.samefile(place / "a", place / "d/b")
    write_file(place / "d/b", b"changed")
    assert read_file(place / "a") == b"changed"
    os.chmod(place / "a", 0o600)
    assert stat.S_IMODE(os.stat(place / "d/b").st_mode) == 0o600
    place.remount()
    assert os.path.samefile(place / "a", place / "d/b")
    os.unlink(place / "a")
    assert read_file(place / "d/b") == b"changed" and os.stat(place / "d/b").st_nlink == 1


def test_link_errors(place):
    write_file(place / "a", b"")
    os.mkdir(place / "d")
    raises(errno.EEXIST, os.link, place / "a", place / "d")
    raises(errno.EPERM, os.link, place / "d", place / "e")
    raises(errno.ENOENT, os.link, place / "none", place / "e")
    os.symlink("a", place / "s")
    os.link(place / "s", place / "t", follow_symlinks=False)
    assert os.readlink(place / "t") == "a"


def test_nothing_below_is_another_device(place):
    """rename and link work across all of the mount: EXDEV has no place here."""
    deep = place / "x/y/z"
    os.makedirs(deep)
    write_file(place / "f", b"")
    os.link(place / "f", deep / "g")
    os.rename(place / "f", deep / "f")
    assert os.stat(deep).st_dev == os.stat(place.path).st_dev == os.stat(deep / "f").st_dev


@pytest.mark.parametrize("target", ["f", "../outside", "/etc/passwd", "x" * 1000, " \n\t", "ü"])
def test_symlinks_keep_their_target(place, target):
    os.symlink(target, place / "link")
    st = os.lstat(place / "link")
    assert stat.S_ISLNK(st.st_mode) and st.st_size == len(target.encode())
    place.remount()
    assert os.readlink(place / "link") == target
    os.rename(place / "link", place / "renamed")
    assert os.readlink(place / "renamed") == target


def test_symlinks_are_followed(place):
    write_file(place / "f", b"target")
    os.symlink("f", place / "link")
    os.symlink("loop", place / "loop")
    assert read_file(place / "link") == b"target"
    write_file(place / "link", b"through")
    assert read_file(place / "f") == b"through"
    raises(errno.ELOOP, read_file, place / "loop")
    os.mkdir(place / "d")
    os.symlink("d", place / "dlink")
    write_file(place / "dlink/x", b"x")
    assert os.listdir(place / "d") == ["x"]
    raises(errno.ENOTDIR, os.rmdir, place / "dlink")


# --- special files -------------------------------------------------------------------------------


def test_fifos_carry_bytes(place):
    os.mkfifo(place / "fifo", 0o640)
    place.remount()
    st = os.stat(place / "fifo")
    assert stat.S_ISFIFO(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o640
    fd = os.open(place / "fifo", os.O_RDWR)
    os.write(fd, b"through")
    assert os.read(fd, 100) == b"through"
    os.close(fd)


def test_sockets_connect(place):
    cwd = os.open(".", os.O_RDONLY)
    os.chdir(place.path)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
            client.sendall(b"hello")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(10) == b"hello"
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
    finally:
        os.fchdir(cwd)
        os.close(cwd)


def test_device_nodes_keep_their_numbers(place):
    os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(place / "block", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    place.remount()
    st = os.stat(place / "null")
    assert stat.S_ISCHR(st.st_mode) and st.st_rdev == os.makedev(1, 3)
    st = os.stat(place / "block")
    assert stat.S_ISBLK(st.st_mode) and st.st_rdev == os.makedev(7, 200)


def test_mknod_makes_regular_files(place):
    os.mknod(place / "f", stat.S_IFREG | 0o640)
    write_file(place / "f", b"content")
    place.remount()
    assert read_file(place / "f") == b"content"


# --- readdir -------------------------------------------------------------------------------------


def test_a_large_directory_lists_each_name_once(place):
    names = {f"name-{i:05d}-{'x' * (i % 50)}" for i in range(3000)}
    for name in names:
        os.close(os.open(place / name, os.O_CREAT | os.O_WRONLY))
    listed = os.listdir(place.path)
    assert len(listed) == len(names) and set(listed) == names


def test_entries_tell_type_and_inode(place):
    write_file(place / "f", b"")
    os.mkdir(place / "d")
    os.symlink("f", place / "l")
    os.mkfifo(place / "p")
    kinds = {}
    with os.scandir(place.path) as entries:
        for entry in entries:
            kinds[entry.name] = (entry.is_file(follow_symlinks=False), entry.is_dir())
            assert entry.inode() == os.lstat(entry.path).st_ino
    assert kinds == {"f": (True, False), "d": (False, True), "l": (False, False), "p": (False, False)}


def test_a_directory_that_changes_while_it_is_read(place):
    """What stays is listed exactly once; what comes or goes may be listed or not."""
    stay = {f"stay{i}" for i in range(500)}
    for name in stay | {f"go{i}" for i in range(500)}:
        write_file(place / name, b"")
    listed = []
    with os.scandir(place.path) as entries:
        for i, entry in enumerate(entries):
            listed.append(entry.name)
            if i < 500:
                os.unlink(place / f"go{i}")
                write_file(place / f"come{i}", b"")
    assert len(listed) == len(set(listed))
    assert stay <= set(listed)


def test_removing_while_reading_empties_a_directory(place):
    os.mkdir(place / "d")
    for i in range(1000):
        write_file(place / f"d/{i}", b"")
    run("rm", "-r", place / "d")
    assert not os.path.exists(place / "d")


def test_rewinding_shows_what_is_new(place):
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.c_void_p
    libc.readdir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]

    def count(stream):
        n = 0
        while libc.readdir(stream):
            n += 1
        return n

    write_file(place / "a", b"")
    stream = libc.opendir(os.fsencode(place.path))
    assert count(stream) == 3  # with . and ..
    write_file(place / "b", b"")
    libc.rewinddir(stream)
    assert count(stream) == 4
    libc.closedir(stream)


def test_link_counts_of_directories_follow_the_filesystem_below(place):
    before = os.stat(place.path).st_nlink
    os.mkdir(place / "d")
    after = os.stat(place.path).st_nlink
    assert after in (before, before + 1)  # btrfs counts no subdirectories
    os.rmdir(place / "d")
    assert os.stat(place.path).st_nlink == before
