# SPDX-License-Identifier: Apache-2.0
"""Many users on one mount, each with their own rights: on a plain directory, and on a mount."""

import errno
import os
import stat

import pytest
from helpers import as_user, in_parallel, noise, raises, read_file, write_file
from mountpoint import run, turnkeyfs

ALICE, BOB, STAFF, GUESTS = 1000, 1001, 2000, 2001


def alice(function, *args, groups=(STAFF,)):
    as_user(ALICE, ALICE, list(groups), function, *args)


def bob(function, *args, groups=()):
    as_user(BOB, BOB, list(groups), function, *args)


@pytest.fixture
def open_place(place):
    """A place where everybody may create."""
    os.chmod(place.path, 0o777)
    return place


def owner_of(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def test_what_a_user_creates_is_theirs(open_place):
    place = open_place

    def create():
        write_file(place / "f", noise(10_000))
        os.mkdir(place / "d")
        os.symlink("f", place / "l")
        os.mkfifo(place / "p")
        os.mknod(place / "n", stat.S_IFREG | 0o644)
        write_file(place / "d/f", b"")

    alice(create)
    for name in ("f", "d", "l", "p", "n", "d/f"):
        assert owner_of(place / name) == (ALICE, ALICE), name
    place.remount()
    assert owner_of(place / "d/f") == (ALICE, ALICE)
    bob(lambda: read_file(place / "f"))
    if place.volume:
        below = place.volume.below((place.path / "f").relative_to(place.volume.mnt))
        assert owner_of(below) == (ALICE, ALICE), "quota counts for the user"


def test_private_files_are_private(open_place):
    place = open_place

    def create():
        write_file(place / "f", b"private", mode=0o600)
        os.mkdir(place / "d", 0o700)
        write_file(place / "d/inside", b"", mode=0o666)

    def try_everything():
        raises(errno.EACCES, read_file, place / "f")
        raises(errno.EACCES, write_file, place / "f", b"")
        raises(errno.EACCES, os.truncate, place / "f", 0)
        raises(errno.EACCES, os.listdir, place / "d")
        raises(errno.EACCES, os.stat, place / "d/inside")
        raises(errno.EACCES, write_file, place / "d/new", b"")
        raises(errno.EPERM, os.chmod, place / "f", 0o666)
        raises(errno.EPERM, os.chown, place / "f", BOB, BOB)
        raises(errno.EPERM, os.utime, place / "f", (0, 0))
        raises(errno.EACCES, os.setxattr, place / "f", "user.a", b"")
        raises(errno.EACCES, os.getxattr, place / "f", "user.a")

    alice(create)
    bob(try_everything)
    alice(lambda: read_file(place / "f"))
    assert read_file(place / "f") == b"private"


def test_a_directory_without_write_permission_stays_as_it_is(open_place):
    place = open_place

    def create():
        os.mkdir(place / "d", 0o755)
        write_file(place / "d/f", b"x")

    def try_to_change():
        raises(errno.EACCES, write_file, place / "d/new", b"")
        raises(errno.EACCES, os.mkdir, place / "d/new")
        raises(errno.EACCES, os.unlink, place / "d/f")
        raises(errno.EACCES, os.rename, place / "d/f", place / "stolen")
        write_file(place / "own", b"")
        raises(errno.EACCES, os.link, place / "own", place / "d/link")
        raises(errno.EACCES, os.symlink, "f", place / "d/link")

    alice(create)
    bob(try_to_change)
    assert os.listdir(place / "d") == ["f"]


def test_supplementary_groups_count(place):
    write_file(place / "f", b"for the staff")
    os.chown(place / "f", 0, STAFF)
    os.chmod(place / "f", 0o660)
    os.mkdir(place / "d")
    os.chown(place / "d", 0, STAFF)
    os.chmod(place / "d", 0o770)

    def member():
        write_file(place / "f", b"changed")
        write_file(place / "d/new", b"")
        os.unlink(place / "d/new")
        write_file(place / "d/mine", b"")

    alice(member, groups=[GUESTS, STAFF])
    bob(lambda: raises(errno.EACCES, read_file, place / "f"), groups=[GUESTS])
    bob(lambda: raises(errno.EACCES, write_file, place / "d/new", b""))
    assert owner_of(place / "d/mine") == (ALICE, ALICE)


def test_many_supplementary_groups_count(place):
    """More than fit into the request: the daemon must not judge by a part of them."""
    os.mkdir(place / "d")
    os.chown(place / "d", 0, 5199)
    os.chmod(place / "d", 0o770)
    alice(lambda: write_file(place / "d/f", b"x"), groups=range(5000, 5200))
    assert owner_of(place / "d/f") == (ALICE, ALICE)


def test_setgid_directories_hand_their_group_down(open_place):
    place = open_place
    os.mkdir(place / "shared")
    os.chown(place / "shared", 0, STAFF)
    os.chmod(place / "shared", 0o2775)

    def create():
        write_file(place / "shared/f", b"")
        os.mkdir(place / "shared/d")
        os.mkfifo(place / "shared/p")

    alice(create)
    assert owner_of(place / "shared/f") == (ALICE, STAFF)
    assert owner_of(place / "shared/d") == (ALICE, STAFF)
    assert owner_of(place / "shared/p") == (ALICE, STAFF)
    assert os.stat(place / "shared/d").st_mode & stat.S_ISGID


def test_setgid_on_a_file_of_a_foreign_group_is_dropped(open_place):
    place = open_place
    os.mkdir(place / "shared")
    os.chown(place / "shared", 0, GUESTS)
    os.chmod(place / "shared", 0o2777)

    def create():
        fd = os.open(place / "shared/f", os.O_CREAT | os.O_WRONLY, 0o2755)
        os.close(fd)

    alice(create)
    assert owner_of(place / "shared/f") == (ALICE, GUESTS)
    assert not os.stat(place / "shared/f").st_mode & stat.S_ISGID


def test_giving_files_away_is_for_root(open_place):
    place = open_place

    def try_it():
        write_file(place / "f", b"")
        raises(errno.EPERM, os.chown, place / "f", BOB, -1)
        os.chown(place / "f", -1, STAFF)
        raises(errno.EPERM, os.chown, place / "f", -1, GUESTS)

    alice(try_it)
    assert owner_of(place / "f") == (ALICE, STAFF)


def test_a_read_only_file_is_open_for_its_creator_alone(open_place):
    """O_CREAT with mode 0444 gives a descriptor that writes: git and tar do that."""
    place = open_place

    def create():
        fd = os.open(place / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, noise(20_000))
        os.fsync(fd)
        assert os.pread(fd, 10, 0) == noise(20_000)[:10]
        os.close(fd)
        raises(errno.EACCES, os.open, place / "f", os.O_WRONLY)

    alice(create)
    bob(lambda: raises(errno.EACCES, os.open, place / "f", os.O_WRONLY))
    assert read_file(place / "f") == noise(20_000)


def test_a_mode_without_permissions_still_lets_the_creator_write(open_place):
    place = open_place

    def create():
        fd = os.open(place / "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o000)
        os.write(fd, b"through the descriptor")
        os.close(fd)
        raises(errno.EACCES, read_file, place / "f")

    alice(create)
    assert read_file(place / "f") == b"through the descriptor"


def test_users_work_at_the_same_time(open_place):
    """The daemon switches identities per thread: none may leak into another's request."""
    place = open_place

    def work(uid):
        for i in range(60):
            name = place / f"{uid}-{i}"
            write_file(name, noise(3000, uid), mode=0o600)
            os.mkdir(place / f"d{uid}-{i}")
            assert owner_of(name) == (uid, uid)
            assert read_file(name) == noise(3000, uid)

    uids = range(3000, 3004)
    in_parallel([lambda uid=uid: as_user(uid, uid, [], work, uid) for uid in uids])
    for uid in uids:
        for i in range(60):
            assert owner_of(place / f"{uid}-{i}") == (uid, uid)
            assert owner_of(place / f"d{uid}-{i}") == (uid, uid)


def test_root_without_rights_of_its_own_writes_for_others(place):
    """A file of another user, with no permission for anybody, is open to root as anywhere."""
    write_file(place / "f", b"x", mode=0o000)
    os.chown(place / "f", ALICE, ALICE)
    place.remount()
    assert read_file(place / "f") == b"x"
    write_file(place / "f", b"longer")
    assert read_file(place / "f") == b"longer"
    assert owner_of(place / "f") == (ALICE, ALICE)


def test_umask_of_each_user_counts(open_place):
    place = open_place

    def create(mask, name):
        os.umask(mask)
        write_file(place / name, b"", mode=0o666)

    alice(create, 0o077, "private")
    bob(create, 0o002, "shared")
    assert stat.S_IMODE(os.stat(place / "private").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(place / "shared").st_mode) == 0o664


@pytest.mark.conf({"mount": {"allow_other": "no"}})
def test_without_allow_other_nobody_else_gets_in(volume):
    write_file(volume.mnt / "f", b"x")
    os.chmod(volume.mnt, 0o777)
    bob(lambda: raises(errno.EACCES, os.listdir, volume.mnt))
    bob(lambda: raises(errno.EACCES, read_file, volume.mnt / "f"))
    assert run(turnkeyfs(), "status", volume.mnt).returncode == 0


def test_another_user_gets_no_status(volume):
    """The control channel answers root and the owner."""
    bob(lambda: raises(errno.EACCES, os.listdir, volume.cipher))
