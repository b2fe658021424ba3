# SPDX-License-Identifier: Apache-2.0
"""A mount without root: made, mounted by fusermount3 and used by one ordinary user."""

import errno
import os
import random
import shutil
import stat
import threading
import time

import azure_volume
import mountpoint
import pytest
from helpers import (
    GROUP,
    NOBODY,
    RENAME_EXCHANGE,
    as_user,
    noise,
    raises,
    read_file,
    renameat2,
    write_file,
)
from modelrun import assert_reader_agrees, play
from mountpoint import run, scaled, wait_for

def nobody(function, *args):
    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], function, *args)


def test_a_file_is_stored_and_read_back(mine):
    nobody(write_file, mine.mnt / "f", noise(100_000))
    mine.remount()

    def check():
        assert read_file(mine.mnt / "f") == noise(100_000)

    nobody(check)
    mine.umount()
    assert mine.read_below("f") == noise(100_000)
    assert os.stat(mine.below("f")).st_uid == NOBODY.pw_uid
    mine.assert_verifies_clean()


def test_even_root_stays_outside(mine):
    raises(errno.EACCES, os.listdir, mine.mnt)


def test_read_only_files_are_written_by_their_creator_and_rewritten_never(mine):
    """As git makes its objects: mode 0444 from the start."""

    def work():
        fd = os.open(mine.mnt / "object", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, noise(GROUP + 5))
        os.fsync(fd)
        os.close(fd)
        raises(errno.EACCES, os.open, mine.mnt / "object", os.O_RDWR)
        assert read_file(mine.mnt / "object") == noise(GROUP + 5)
        os.link(mine.mnt / "object", mine.mnt / "linked")
        os.chmod(mine.mnt / "object", 0o400)
        os.utime(mine.mnt / "object", ns=(1, 2))

    nobody(work)
    mine.remount()

    def check():
        assert read_file(mine.mnt / "linked") == noise(GROUP + 5)
        assert os.stat(mine.mnt / "linked").st_mtime_ns == 2
        os.unlink(mine.mnt / "object")
        assert os.stat(mine.mnt / "linked").st_nlink == 1

    nobody(check)


def test_a_file_without_any_permission_can_be_made_readable_again(mine):
    def work():
        write_file(mine.mnt / "f", b"content")
        os.chmod(mine.mnt / "f", 0)
        raises(errno.EACCES, read_file, mine.mnt / "f")

    nobody(work)
    mine.remount()

    def again():
        assert os.stat(mine.mnt / "f").st_size == 7
        os.chmod(mine.mnt / "f", 0o600)
        assert read_file(mine.mnt / "f") == b"content"

    nobody(again)


def test_directories_move_while_files_in_them_are_open(mine):
    """Without file handles the daemon finds files by parent and name: they change here."""

    def work():
        os.makedirs(mine.mnt / "a/b/c")
        write_file(mine.mnt / "a/b/c/f", b"first")
        fd = os.open(mine.mnt / "a/b/c/f", os.O_RDWR)
        directory = os.open(mine.mnt / "a/b", os.O_RDONLY)
        os.rename(mine.mnt / "a", mine.mnt / "z")
        os.rename(mine.mnt / "z/b/c", mine.mnt / "c")
        os.pwrite(fd, b"FIRST", 0)
        assert read_file(mine.mnt / "c/f") == b"FIRST"
        assert os.listdir(directory) == []
        os.mkdir("new", dir_fd=directory)
        assert os.listdir(mine.mnt / "z/b") == ["new"]
        os.mkdir(mine.mnt / "a")
        write_file(mine.mnt / "a/f", b"another")
        renameat2(mine.mnt / "a", mine.mnt / "c", RENAME_EXCHANGE)
        assert read_file(mine.mnt / "a/f") == b"FIRST" and read_file(mine.mnt / "c/f") == b"another"
        assert os.pread(fd, 5, 0) == b"FIRST"

    nobody(work)


def test_hard_links_survive_the_name_they_were_found_by(mine):
    def work():
        write_file(mine.mnt / "a", noise(9000))
        os.link(mine.mnt / "a", mine.mnt / "b")
        os.stat(mine.mnt / "b")
        os.unlink(mine.mnt / "a")
        assert read_file(mine.mnt / "b") == noise(9000)
        os.mkdir(mine.mnt / "d")
        os.link(mine.mnt / "b", mine.mnt / "d/c")
        os.rename(mine.mnt / "b", mine.mnt / "e")
        os.unlink(mine.mnt / "e")
        assert read_file(mine.mnt / "d/c") == noise(9000)
        os.truncate(mine.mnt / "d/c", 5)
        assert read_file(mine.mnt / "d/c") == noise(9000)[:5]

    nobody(work)


def test_an_unlinked_open_file_lives_on(mine):
    def work():
        fd = os.open(mine.mnt / "f", os.O_RDWR | os.O_CREAT)
        os.write(fd, noise(5000))
        os.unlink(mine.mnt / "f")
        os.ftruncate(fd, 6000)
        os.fchmod(fd, 0o640)
        os.setxattr(fd, "user.a", b"1")
        assert os.pread(fd, 10_000, 0) == noise(5000) + bytes(1000)
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(mine.mnt) == []

    nobody(work)


def test_many_files_are_walked_and_removed(mine):
    def work():
        for i in range(300):
            os.makedirs(mine.mnt / f"d{i % 20}", exist_ok=True)
            write_file(mine.mnt / f"d{i % 20}/f{i}", noise(100 + i))
        for i in range(300):
            assert read_file(mine.mnt / f"d{i % 20}/f{i}") == noise(100 + i)
        shutil.rmtree(mine.mnt / "d3")
        assert len(os.listdir(mine.mnt)) == 19

    nobody(work)


@pytest.mark.deadline(200)
def test_random_operations_do_the_same_as_on_a_plain_directory(mine, plain):
    os.chown(plain, NOBODY.pw_uid, NOBODY.pw_gid)
    play(mine, plain, None, "--ops", scaled(10_000, 100_000), "--remount-every", 2500)
    mine.umount()
    assert_reader_agrees(mine, plain)
    mine.assert_verifies_clean()


def test_status_answers_the_owner(mine):
    done = run(*mine.prefix, mountpoint.turnkeyfs(), "status", mine.mnt)
    assert "owner only" in done.stdout


# --- what its owner may not write ----------------------------------------------------------------

MODES = (0o444, 0o400, 0o644, 0o200, 0o000, 0o4555)


def make_modes(mnt, count):
    for i in range(count):
        fd = os.open(mnt / f"f{i}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, noise(100 + i, i))
        os.fchmod(fd, MODES[i % len(MODES)])
        os.close(fd)


def check_modes(mine, count):
    """Below, as root sees it."""
    for i in range(count):
        mode = stat.S_IMODE(os.stat(mine.below(f"f{i}")).st_mode)
        assert mode == MODES[i % len(MODES)], (i, oct(mode))


def verify_readable(mine, count):
    for i in range(count):
        os.chmod(mine.below(f"f{i}"), 0o600)
    mine.assert_verifies_clean()


def rotate(mine, *words):
    return run(*mine.prefix, mountpoint.turnkeyfs(), "rotate", *words, mine.mnt)


def test_rotation_rewraps_files_that_their_owner_may_not_write(mine):
    count = 120
    nobody(make_modes, mine.mnt, count)
    stop = threading.Event()
    seen = set()

    def watch():
        """As another program of the user: it never sees a mode that nobody set."""
        def look():
            for i in range(count):
                mode = stat.S_IMODE(os.stat(mine.mnt / f"f{i}").st_mode)
                assert mode == MODES[i % len(MODES)], (i, oct(mode))

        while not stop.is_set():
            try:
                nobody(look)
                seen.add(None)
            except AssertionError as e:
                seen.add(str(e))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(3):
            rotate(mine, "--wait")
    finally:
        stop.set()
        thread.join()
    assert seen == {None}, seen
    check_modes(mine, count)
    assert not os.listdir(mine.cipher / "lifted")
    mine.umount()
    assert azure_volume.record_versions(mine) == {4}
    verify_readable(mine, count)


@pytest.mark.slow
def test_killed_while_modes_are_lifted_they_are_put_back(mine):
    mine.expect_log("the key record's copy")
    count = 300
    nobody(make_modes, mine.mnt, count)
    os.sync()
    generator = random.Random(3)
    left = 0
    for _ in range(scaled(10, 100)):
        rotate(mine)
        time.sleep(generator.uniform(0, 0.06))
        mine.kill()
        mine.daemon.wait(10)
        mine.forget_daemon()
        run("umount", "-l", mine.mnt, check=False)
        lifted = mine.cipher / "lifted"
        left += lifted.exists() and bool(os.listdir(lifted))
        mine.mount()
        rotate_or_wait(mine)
        check_modes(mine, count)
    print(f"{left} times a mode was lifted")
    mine.umount()
    assert azure_volume.record_versions(mine) == {max(azure_volume.kek_states(mine))}
    verify_readable(mine, count)


def rotate_or_wait(mine):
    """The mount goes on with the unfinished rotation by itself."""
    def states():
        return list(azure_volume.kek_states(mine).values())

    wait_for(lambda: states().count("active") == 1, 30, "the end of the rotation")
