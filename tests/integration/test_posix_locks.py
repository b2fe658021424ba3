# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: on a plain directory, and on a mount as well."""

import errno
import fcntl
import os
import threading
import time

import pytest
from helpers import in_child, ofd_lock, raises, write_file


@pytest.fixture
def file(place):
    write_file(place / "f", bytes(1000))
    return place / "f"


def opened(path):
    return os.open(path, os.O_RDWR)


def test_flock_excludes_other_processes(file):
    fd = opened(file)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def other():
        mine = opened(file)
        raises(errno.EWOULDBLOCK, fcntl.flock, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raises(errno.EWOULDBLOCK, fcntl.flock, mine, fcntl.LOCK_SH | fcntl.LOCK_NB)

    in_child(other)
    fcntl.flock(fd, fcntl.LOCK_SH)
    in_child(lambda: fcntl.flock(opened(file), fcntl.LOCK_SH | fcntl.LOCK_NB))
    in_child(lambda: raises(errno.EWOULDBLOCK, fcntl.flock, opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.close(fd)
    in_child(lambda: fcntl.flock(opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB))


def test_posix_locks_exclude_by_range(file):
    fd = opened(file)
    fcntl.lockf(fd, fcntl.LOCK_EX, 100, 100)

    def other():
        mine = opened(file)
        raises(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 150)
        raises(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_SH | fcntl.LOCK_NB, 0, 0)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 200)

    in_child(other)
    fcntl.lockf(fd, fcntl.LOCK_UN, 50, 100)
    in_child(lambda: fcntl.lockf(opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 100))
    in_child(lambda: raises(errno.EAGAIN, fcntl.lockf, opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 150))
    os.close(fd)


def test_shared_posix_locks_are_shared(file):
    fd = opened(file)
    fcntl.lockf(fd, fcntl.LOCK_SH)
    in_child(lambda: fcntl.lockf(opened(file), fcntl.LOCK_SH | fcntl.LOCK_NB))
    in_child(lambda: raises(errno.EAGAIN, fcntl.lockf, opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.close(fd)


def test_closing_any_descriptor_drops_a_process_s_posix_locks(file):
    fd = opened(file)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    os.close(opened(file))
    in_child(lambda: fcntl.lockf(opened(file), fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.close(fd)


def test_posix_locks_end_with_their_process(file):
    in_child(lambda: fcntl.lockf(opened(file), fcntl.LOCK_EX))
    fd = opened(file)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_ofd_locks_belong_to_the_open_file(file):
    fd, again = opened(file), opened(file)
    ofd_lock(fd, fcntl.F_WRLCK, 0, 100)
    raises(errno.EAGAIN, ofd_lock, again, fcntl.F_WRLCK, 50, 100)
    ofd_lock(again, fcntl.F_WRLCK, 100, 100)
    in_child(lambda: raises(errno.EAGAIN, ofd_lock, opened(file), fcntl.F_RDLCK, 0, 1))
    copy = os.dup(fd)
    ofd_lock(copy, fcntl.F_UNLCK, 0, 100)
    os.close(copy)
    in_child(lambda: ofd_lock(opened(file), fcntl.F_WRLCK, 0, 100))
    os.close(fd)
    os.close(again)


@pytest.mark.parametrize("kind", ["flock", "posix", "ofd"])
def test_a_waiting_lock_comes_when_the_other_goes(file, kind):
    lock = {
        "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX),
        "posix": lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX),
        "ofd": lambda fd: ofd_lock(fd, fcntl.F_WRLCK, wait=True),
    }[kind]
    read_end, write_end = os.pipe()
    holder = opened(file)
    lock(holder)

    def wait_for_it():
        os.close(holder)  # inherited, and as good as the parent's
        mine = opened(file)
        os.write(write_end, b"w")
        lock(mine)
        os.write(write_end, b"l")

    waiter = threading.Thread(target=in_child, args=(wait_for_it,), daemon=True)
    waiter.start()
    assert os.read(read_end, 1) == b"w"
    time.sleep(0.2)
    os.set_blocking(read_end, False)
    raises(errno.EAGAIN, os.read, read_end, 1)
    os.set_blocking(read_end, True)
    os.close(holder)
    assert os.read(read_end, 1) == b"l"
    waiter.join(10)
    assert not waiter.is_alive()
    os.close(read_end)
    os.close(write_end)


def test_a_deadlock_of_posix_locks_is_found_or_timed_out(file):
    """The kernel sees both processes: EDEADLK for one of them, as anywhere."""
    fd = opened(file)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine = opened(file)
            fcntl.lockf(mine, fcntl.LOCK_EX, 1, 1)
            os.write(ready[1], b"r")
            os.read(go[0], 1)
            fcntl.lockf(mine, fcntl.LOCK_EX, 1, 0)
            code = 0
        except OSError as e:
            code = 2 if e.errno == errno.EDEADLK else 1
        finally:
            os._exit(code)
    assert os.read(ready[0], 1) == b"r"
    os.write(go[1], b"g")
    time.sleep(0.2)
    deadlock = False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
    except OSError as e:
        assert e.errno == errno.EDEADLK
        deadlock = True
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert os.WEXITSTATUS(status) in (0, 2)
    assert deadlock or os.WEXITSTATUS(status) == 2
    for end in (*ready, *go):
        os.close(end)
