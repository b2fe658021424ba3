# SPDX-License-Identifier: Apache-2.0
"""System calls that Python lacks, other users, and small things that several tests need."""

import ctypes
import errno
import fcntl
import os
import pwd
import random
import signal
import struct
import threading

NOBODY = pwd.getpwnam("nobody")  # the ordinary user of tests that want one

libc = ctypes.CDLL(None, use_errno=True)

BLOCK = 4096
GROUP = 124 * BLOCK  # plaintext bytes of a group: docs/format.md, "Content"

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2 | FALLOC_KEEP_SIZE
FALLOC_ZERO_RANGE = 16
AT_FDCWD = -100
PR_SET_PDEATHSIG = 1

# Sizes at, before and after the borders of blocks and groups.
BORDER_SIZES = (
    1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    GROUP - 1,
    GROUP,
    GROUP + 1,
    GROUP + BLOCK,
    2 * GROUP,
    2 * GROUP + 17,
)


def checked(result):
    """A libc call's result; -1 becomes the OSError that it stands for."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old, new, flags):
    checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def ofd_lock(fd, kind, start=0, length=0, wait=False):
    """An open file description lock; BlockingIOError if somebody else has it."""
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)


def raises(numbers, function, *args, **kwargs):
    """@function must fail with this errno, or with one of these."""
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    expected = " or ".join(errno.errorcode[number] for number in numbers)
    try:
        result = function(*args, **kwargs)
    except OSError as e:
        assert e.errno in numbers, f"{errno.errorcode.get(e.errno)}, not {expected}"
        return
    raise AssertionError(f"{expected} expected, but it returned {result!r}")


def noise(length, seed=0):
    """Bytes that look random, the same for the same seed."""
    return random.Random(seed).randbytes(length)


def new_seed():
    """A new one, which a failing test shows, or that of $TURNKEYFS_TEST_SEEDS."""
    given = os.environ.get("TURNKEYFS_TEST_SEEDS", "").split()
    chosen = int(given[0]) if given else random.randrange(1 << 30)
    print(f"seed {chosen}")
    return chosen


def direct_buffer(content):
    """@content in page-aligned memory, for O_DIRECT."""
    import mmap

    buffer = mmap.mmap(-1, max(len(content), 1))
    buffer.write(content)
    return buffer


def write_file(path, content, flags=0, mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def in_child(function, *args):
    """Run @function in a child process; its exception comes back as an AssertionError."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(read_end)
            function(*args)
            code = 0
        except BaseException as e:
            os.write(write_end, f"{type(e).__name__}: {e}".encode()[:4096])
        finally:
            os._exit(code)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"in a child: {text or status}"


def as_user(uid, gid, groups, function, *args):
    """As in_child, as another user."""

    def become_and_run():
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        function(*args)

    in_child(become_and_run)


def in_parallel(functions):
    """All at once, each in a child process."""
    failures = []

    def one(function):
        try:
            in_child(function)
        except AssertionError as e:
            failures.append(str(e))

    threads = [threading.Thread(target=one, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n".join(failures)


def tree(directory, with_times=False):
    """{path: (mode, owner, group, size, link target, content, mtime)} of everything below."""
    found = {}
    top = os.fspath(directory)
    for path, directories, files in os.walk(top):
        for name in directories + files:
            full = os.path.join(path, name)
            st = os.lstat(full)
            is_link = os.path.islink(full)
            is_file = os.path.isfile(full) and not is_link
            found[os.path.relpath(full, top)] = (
                st.st_mode,
                st.st_uid,
                st.st_gid,
                st.st_size if is_file else None,
                os.readlink(full) if is_link else None,
                read_file(full) if is_file else None,
                st.st_mtime_ns if with_times else None,
            )
    return found


def assert_same_tree(a, b, with_times=False):
    """Compare two trees; the message names paths, not contents."""
    left, right = tree(a, with_times), tree(b, with_times)
    assert sorted(left) == sorted(right)
    different = [path for path in left if left[path] != right[path]]
    assert not different, f"{len(different)} paths differ, such as {different[:5]}"
