# SPDX-License-Identifier: Apache-2.0
"""File content: each test holds on a plain directory, and on a mount just the same."""

import errno
import mmap
import os
import stat

import pytest
from helpers import (
    BLOCK,
    BORDER_SIZES,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    GROUP,
    direct_buffer,
    fallocate,
    in_child,
    in_parallel,
    noise,
    raises,
    read_file,
    write_file,
)
from mountpoint import Filesystem, run, wait_for

FOUR_BLOCKS = noise(4 * BLOCK)


@pytest.fixture
def opened(place):
    """open(name, flags) whose descriptors are closed at the end."""
    fds = []

    def open_it(name, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
        fds.append(os.open(place / name, flags, mode))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)


# --- open ----------------------------------------------------------------------------------------


def test_o_creat_with_o_excl_refuses_what_exists(place, opened):
    opened("f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    raises(errno.EEXIST, os.open, place / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.symlink("nowhere", place / "link")
    raises(errno.EEXIST, os.open, place / "link", os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_o_trunc_empties(place, opened):
    write_file(place / "f", FOUR_BLOCKS)
    fd = opened("f", os.O_RDWR | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0
    os.pwrite(fd, b"x", 5)
    assert read_file(place / "f") == b"\0\0\0\0\0x"


def test_o_directory_and_o_nofollow(place):
    write_file(place / "f", b"")
    raises(errno.ENOTDIR, os.open, place / "f", os.O_RDONLY | os.O_DIRECTORY)
    os.symlink("f", place / "link")
    raises(errno.ELOOP, os.open, place / "link", os.O_RDONLY | os.O_NOFOLLOW)
    os.mkdir(place / "d")
    raises(errno.EISDIR, os.open, place / "d", os.O_WRONLY)


def test_access_modes_of_descriptors_hold(place, opened):
    write_file(place / "f", b"abc")
    raises(errno.EBADF, os.write, opened("f", os.O_RDONLY), b"x")
    raises(errno.EBADF, os.read, opened("f", os.O_WRONLY), 1)
    assert read_file(place / "f") == b"abc"


def test_writing_in_the_middle_of_a_block_through_a_write_only_descriptor(place, opened):
    """The filesystem has to read what the application may not."""
    write_file(place / "f", FOUR_BLOCKS)
    place.remount()
    fd = opened("f", os.O_WRONLY)
    os.pwrite(fd, b"middle", BLOCK + 100)
    os.fsync(fd)
    expected = bytearray(FOUR_BLOCKS)
    expected[BLOCK + 100 : BLOCK + 106] = b"middle"
    assert read_file(place / "f") == expected


def test_a_file_without_read_permission_can_be_written_by_root(place):
    write_file(place / "f", FOUR_BLOCKS, mode=0o200)
    with open(place / "f", "r+b") as f:
        f.seek(100)
        f.write(b"x")
    assert read_file(place / "f")[100:101] == b"x"


# --- read and write ------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, os.O_SYNC, os.O_DSYNC], ids=["plain", "sync", "dsync"])
@pytest.mark.parametrize("size", BORDER_SIZES)
def test_write_and_read_at_every_border(place, opened, size, flags):
    content = noise(size)
    write_file(place / "f", content, flags)
    fd = opened("f")
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, size + 10, 0) == content
    for offset in (size - 1, size, size + 1, size // 2):
        assert os.pread(fd, 10, offset) == content[offset : offset + 10]


@pytest.mark.parametrize("border", [BLOCK, GROUP, 2 * GROUP])
def test_an_overwrite_across_a_border(place, opened, border):
    content = bytearray(noise(border + 2 * BLOCK))
    write_file(place / "f", content)
    fd = opened("f")
    for before, length in ((1, 2), (100, 5000), (BLOCK, 2 * BLOCK), (0, 1)):
        patch = noise(length, before)
        os.pwrite(fd, patch, border - before)
        content[border - before : border - before + length] = patch
    assert read_file(place / "f") == content


def test_a_write_beyond_the_end_leaves_zeros_between(place, opened):
    for offset in (10, BLOCK + 1, GROUP + 3, 3 * GROUP - 1):
        fd = opened(f"f{offset}")
        os.write(fd, b"start")
        os.pwrite(fd, b"end", offset)
        assert read_file(place / f"f{offset}") == b"start".ljust(offset, b"\0") + b"end"


def test_vectored_reads_and_writes(place, opened):
    fd = opened("f")
    assert os.pwritev(fd, [b"a" * 5000, b"b" * 3, b"c" * 5000], 100) == 10003
    buffers = [bytearray(5100), bytearray(3), bytearray(9000)]
    assert os.preadv(fd, buffers, 0) == 10103
    assert bytes(buffers[0]) == bytes(100) + b"a" * 5000
    assert bytes(buffers[1]) == b"bbb"


def test_positions_belong_to_the_open_file(place, opened):
    fd = opened("f")
    again = os.dup(fd)
    os.write(fd, b"one")
    os.write(again, b"two")
    os.lseek(fd, 1, os.SEEK_SET)
    assert os.read(again, 10) == b"netwo"
    os.close(again)
    assert os.lseek(fd, -2, os.SEEK_END) == 4
    raises(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)


def test_append_goes_to_the_end_whatever_the_position(place, opened):
    write_file(place / "f", b"start")
    fd = opened("f", os.O_RDWR | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b" middle")
    other = opened("f", os.O_RDWR | os.O_APPEND)
    os.write(other, b" more")
    os.write(fd, b" end")
    assert read_file(place / "f") == b"start middle more end"


@pytest.mark.parametrize("length", [7, 100, 4096, 5000])
def test_several_processes_append_whole_records(place, length):
    """Every record is there once, unbroken."""
    write_file(place / "f", b"")

    def append(writer):
        fd = os.open(place / "f", os.O_WRONLY | os.O_APPEND)
        for i in range(50):
            record = f"{writer}{i:02d}".encode().ljust(length, b".")
            assert os.write(fd, record) == length

    in_parallel([lambda writer=writer: append(writer) for writer in range(4)])
    content = read_file(place / "f")
    records = [content[at : at + length] for at in range(0, len(content), length)]
    expected = [f"{w}{i:02d}".encode().ljust(length, b".") for w in range(4) for i in range(50)]
    assert sorted(records) == sorted(expected)


def test_processes_write_neighbouring_bytes_of_the_same_blocks(place):
    size, writers, stripe = 64 * 1024, 4, 37
    write_file(place / "f", bytes(size))

    def write_stripes(writer):
        fd = os.open(place / "f", os.O_WRONLY)
        for at in range(writer * stripe, size, writers * stripe):
            os.pwrite(fd, bytes([writer + 1]) * min(stripe, size - at), at)

    in_parallel([lambda writer=writer: write_stripes(writer) for writer in range(writers)])
    expected = bytes((at // stripe) % writers + 1 for at in range(size))
    assert read_file(place / "f") == expected
    place.remount()
    assert read_file(place / "f") == expected


def test_one_process_reads_what_another_wrote(place, opened):
    fd = opened("f")
    os.write(fd, b"before")

    def check_and_change():
        assert read_file(place / "f") == b"before"
        write_file(place / "f", b"after, and longer")

    in_child(check_and_change)
    assert os.pread(fd, 100, 0) == b"after, and longer"


# --- O_DIRECT ------------------------------------------------------------------------------------


def test_direct_io_sees_and_is_seen_by_buffered_io(place, opened):
    fd = opened("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    buffered = opened("f")
    os.write(fd, direct_buffer(FOUR_BLOCKS))
    assert os.pread(buffered, 5 * BLOCK, 0) == FOUR_BLOCKS
    os.pwrite(buffered, noise(BLOCK, 1), BLOCK)
    target = direct_buffer(bytes(4 * BLOCK))
    assert os.preadv(fd, [target], 0) == 4 * BLOCK
    assert target[:] == FOUR_BLOCKS[:BLOCK] + noise(BLOCK, 1) + FOUR_BLOCKS[2 * BLOCK :]


def test_direct_reads_end_at_the_end(place, opened):
    write_file(place / "f", FOUR_BLOCKS[: 2 * BLOCK + 100])
    fd = opened("f", os.O_RDONLY | os.O_DIRECT)
    target = direct_buffer(bytes(8 * BLOCK))
    assert os.preadv(fd, [target], 0) == 2 * BLOCK + 100
    assert os.preadv(fd, [target], 4 * BLOCK) == 0


@pytest.mark.parametrize("offset", [0, GROUP - BLOCK, GROUP, 5 * GROUP - 2 * BLOCK])
def test_large_direct_writes_across_groups(place, opened, offset):
    content = noise(2 << 20, offset)
    fd = opened("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwritev(fd, [direct_buffer(content)], offset) == len(content)
    assert read_file(place / "f") == bytes(offset) + content


# --- mmap ----------------------------------------------------------------------------------------


def test_two_processes_share_a_mapping(place, opened):
    write_file(place / "f", bytes(4 * BLOCK))
    memory = mmap.mmap(opened("f"), 4 * BLOCK)

    def change():
        fd = os.open(place / "f", os.O_RDWR)
        theirs = mmap.mmap(fd, 4 * BLOCK)
        assert theirs[BLOCK : BLOCK + 5] == b"hello"
        theirs[3 * BLOCK : 3 * BLOCK + 5] = b"there"

    memory[BLOCK : BLOCK + 5] = b"hello"
    in_child(change)
    assert memory[3 * BLOCK : 3 * BLOCK + 5] == b"there"
    memory.flush()
    memory.close()
    content = read_file(place / "f")
    assert content[BLOCK : BLOCK + 5] == b"hello" and content[3 * BLOCK : 3 * BLOCK + 5] == b"there"


def test_mapped_writes_are_there_after_close_and_remount(place):
    write_file(place / "f", bytes(GROUP + 2 * BLOCK))
    with open(place / "f", "r+b") as f:
        memory = mmap.mmap(f.fileno(), 0)
    memory[GROUP - 3 : GROUP + 3] = b"border"
    memory.close()
    place.remount()
    assert read_file(place / "f")[GROUP - 3 : GROUP + 3] == b"border"


def test_mappings_and_writes_see_each_other(place, opened):
    write_file(place / "f", FOUR_BLOCKS)
    fd = opened("f")
    memory = mmap.mmap(fd, 4 * BLOCK)
    os.pwrite(fd, b"written", 5000)
    assert memory[5000:5007] == b"written"
    memory[6000:6006] = b"mapped"
    assert os.pread(fd, 6, 6000) == b"mapped"
    memory.close()


def test_the_last_page_of_a_mapping_is_zero_beyond_the_end(place, opened):
    write_file(place / "f", b"a" * 100)
    memory = mmap.mmap(opened("f"), 100)
    assert memory[99:100] == b"a"
    memory.close()
    with open(place / "f", "r+b") as f:
        f.truncate(200)
    assert read_file(place / "f")[100:] == bytes(100)


def test_a_private_mapping_changes_nothing(place, opened):
    write_file(place / "f", FOUR_BLOCKS)
    memory = mmap.mmap(opened("f"), 0, flags=mmap.MAP_PRIVATE)
    memory[0:4] = b"mine"
    memory.close()
    assert read_file(place / "f") == FOUR_BLOCKS


def test_a_program_on_the_mount_runs(place):
    with open("/bin/true", "rb") as f:
        write_file(place / "program", f.read(), mode=0o755)
    assert os.spawnl(os.P_WAIT, place / "program", "program") == 0


# --- truncate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_descriptor", [True, False], ids=["ftruncate", "truncate"])
@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, GROUP - 1, GROUP, GROUP + 1])
def test_shrinking_and_growing_again_reads_zeros(place, opened, size, by_descriptor):
    content = noise(GROUP + 3 * BLOCK + 7)
    write_file(place / "f", content)
    target = opened("f") if by_descriptor else place / "f"
    os.truncate(target, size)
    assert os.stat(place / "f").st_size == size
    os.truncate(target, len(content) + BLOCK)
    assert read_file(place / "f") == content[:size].ljust(len(content) + BLOCK, b"\0")
    place_again = content[:size].ljust(len(content) + BLOCK, b"\0")
    if not by_descriptor:
        place.remount()
        assert read_file(place / "f") == place_again


def test_truncate_errors(place, opened):
    write_file(place / "f", b"abc")
    raises(errno.EINVAL, os.truncate, place / "f", -1)
    raises(errno.ENOENT, os.truncate, place / "none", 0)
    os.mkdir(place / "d")
    raises(errno.EISDIR, os.truncate, place / "d", 0)
    raises(errno.EINVAL, os.ftruncate, opened("f", os.O_RDONLY), 0)


def test_an_enormous_sparse_file(place, opened):
    fd = opened("f")
    size = 1 << 40
    os.ftruncate(fd, size)
    os.pwrite(fd, b"far", size - 3)
    os.pwrite(fd, b"middle", size // 2 + 5)
    assert os.pread(fd, 10, size - 10) == bytes(7) + b"far"
    assert os.pread(fd, 20, size // 2) == bytes(5) + b"middle" + bytes(9)
    assert os.stat(place / "f").st_size == size
    os.ftruncate(fd, 100)
    assert read_file(place / "f") == bytes(100)


# --- fallocate and holes -------------------------------------------------------------------------


def tmpfs_can_t_zero(function, *args):
    """FALLOC_FL_ZERO_RANGE is more than a plain tmpfs can."""
    try:
        function(*args)
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            pytest.skip("the plain directory's filesystem can't zero a range")
        raise


def test_fallocate_extends_with_zeros(place, opened):
    fd = opened("f")
    os.write(fd, b"start")
    fallocate(fd, 0, 0, 3 * BLOCK)
    assert os.fstat(fd).st_size == 3 * BLOCK
    assert read_file(place / "f") == b"start".ljust(3 * BLOCK, b"\0")
    fallocate(fd, 0, 0, 10)
    assert os.fstat(fd).st_size == 3 * BLOCK


def test_fallocate_can_keep_the_size(place, opened):
    fd = opened("f")
    os.write(fd, b"start")
    fallocate(fd, FALLOC_KEEP_SIZE, 0, GROUP)
    assert os.fstat(fd).st_size == 5
    assert read_file(place / "f") == b"start"
    os.pwrite(fd, b"later", 2 * BLOCK)
    assert read_file(place / "f") == b"start".ljust(2 * BLOCK, b"\0") + b"later"


PUNCHES = [
    (0, BLOCK),
    (10, 20),
    (BLOCK - 5, 10),
    (100, 3 * BLOCK),
    (0, 10 * GROUP),
    (GROUP - 10, 20),
    (BLOCK, GROUP),
    (0, GROUP),
]


@pytest.mark.parametrize("offset, length", PUNCHES)
def test_punched_ranges_read_zeros(place, opened, offset, length):
    content = bytearray(noise(2 * GROUP + 100))
    write_file(place / "f", content)
    fallocate(opened("f"), FALLOC_PUNCH_HOLE, offset, length)
    end = min(offset + length, len(content))
    content[offset:end] = bytes(end - offset)
    assert read_file(place / "f") == content


@pytest.mark.parametrize("offset, length", PUNCHES)
@pytest.mark.parametrize("keep", [0, FALLOC_KEEP_SIZE], ids=["extend", "keep"])
def test_zeroed_ranges_read_zeros(place, opened, offset, length, keep):
    content = noise(2 * GROUP + 100)
    write_file(place / "f", content)
    tmpfs_can_t_zero(fallocate, opened("f"), FALLOC_ZERO_RANGE | keep, offset, length)
    end = offset + length
    size = max(end, len(content)) if not keep else len(content)
    expected = (content[:offset] + bytes(length) + content[end:])[:size].ljust(size, b"\0")
    assert read_file(place / "f") == expected


def test_fallocate_errors(place, opened):
    fd = opened("f")
    raises(errno.EINVAL, fallocate, fd, 0, 0, 0)
    raises(errno.EINVAL, fallocate, fd, 0, -1, 10)
    raises(errno.EBADF, fallocate, opened("f", os.O_RDONLY), 0, 0, 10)


def test_punching_gives_space_back(place, opened):
    write_file(place / "f", noise(4 * GROUP))
    fd = opened("f")
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    fallocate(fd, FALLOC_PUNCH_HOLE, GROUP, 2 * GROUP)
    os.fsync(fd)
    assert os.fstat(fd).st_blocks < before * 0.6


def segments(fd):
    """[(kind, start, end)] as SEEK_DATA and SEEK_HOLE tell them."""
    size, at, found = os.fstat(fd).st_size, 0, []
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO
            found.append(("hole", at, size))
            break
        if data > at:
            found.append(("hole", at, data))
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append(("data", data, at))
    return found


def test_seek_data_and_hole_tell_where_data_is(place, opened):
    """They may call a hole data, but never data a hole; a large hole must be found."""
    fd = opened("f")
    os.ftruncate(fd, 8 * GROUP)
    os.pwrite(fd, noise(100), 10)
    os.pwrite(fd, noise(BLOCK), 5 * GROUP)
    os.fsync(fd)
    found = segments(fd)
    for at in (10, 109, 5 * GROUP, 5 * GROUP + BLOCK - 1):
        assert any(kind == "data" and start <= at < end for kind, start, end in found), found
    assert sum(end - start for kind, start, end in found if kind == "hole") > 6 * GROUP, found
    raises(errno.ENXIO, os.lseek, fd, 8 * GROUP, os.SEEK_DATA)
    raises(errno.ENXIO, os.lseek, fd, 8 * GROUP, os.SEEK_HOLE)
    assert os.lseek(fd, 8 * GROUP - 1, os.SEEK_HOLE) <= 8 * GROUP


def test_seek_data_finds_what_was_only_just_written(place, opened):
    """Without a sync between: programs copy sparse files by these calls."""
    fd = opened("f")
    os.ftruncate(fd, 2 * GROUP)
    os.pwrite(fd, b"data", GROUP + 5)
    assert os.lseek(fd, 0, os.SEEK_DATA) <= GROUP + 5
    other = opened("g")
    os.pwrite(other, b"data", 3)
    assert os.lseek(other, 0, os.SEEK_DATA) <= 3
    assert os.lseek(other, 3, os.SEEK_HOLE) == 7


def test_a_sparse_copy_has_the_same_bytes(place):
    with open(place / "f", "wb") as f:
        for at in (0, GROUP - 1, 3 * GROUP + 5, 9 * GROUP):
            f.seek(at)
            f.write(noise(5000, at))
    run("cp", "--sparse=always", place / "f", place / "g")
    run("cp", "--sparse=auto", place / "f", place / "h")
    assert read_file(place / "f") == read_file(place / "g") == read_file(place / "h")
    assert os.stat(place / "g").st_blocks * 512 < 2 * GROUP


# --- copy_file_range -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, target, length",
    [
        (0, 0, 2 * GROUP),
        (10, 5, 100),
        (BLOCK, 2 * BLOCK, BLOCK),
        (GROUP - 7, 3, GROUP),
        (0, GROUP - 1, 2 * BLOCK),
    ],
)
def test_copy_file_range_copies_bytes(place, opened, source, target, length):
    content, old = noise(2 * GROUP + 50), noise(GROUP, 1)
    write_file(place / "f", content)
    write_file(place / "g", old)
    fd_in, fd_out, done = opened("f"), opened("g"), 0
    while done < length:
        n = os.copy_file_range(fd_in, fd_out, length - done, source + done, target + done)
        if not n:
            break
        done += n
    copied = content[source : source + length]
    assert done == len(copied)
    expected = bytearray(max(len(old), target + done))
    expected[: len(old)] = old
    expected[target : target + done] = copied
    assert read_file(place / "g") == expected


def test_copy_file_range_of_several_megabytes(place, opened):
    content = noise(5 << 20)
    write_file(place / "f", content)
    fd_in, fd_out, done = opened("f"), opened("g"), 0
    while done < len(content):
        done += os.copy_file_range(fd_in, fd_out, len(content) - done, done, 100 + done)
    assert read_file(place / "g") == bytes(100) + content


def test_copy_file_range_within_a_file(place, opened):
    write_file(place / "f", FOUR_BLOCKS)
    fd = opened("f")
    assert os.copy_file_range(fd, fd, BLOCK, 0, 3 * BLOCK) == BLOCK
    assert read_file(place / "f") == FOUR_BLOCKS[: 3 * BLOCK] + FOUR_BLOCKS[:BLOCK]
    raises(errno.EINVAL, os.copy_file_range, fd, fd, 2 * BLOCK, 0, BLOCK)


# --- unlinked files ------------------------------------------------------------------------------


def test_an_open_file_outlives_its_name(place, opened):
    write_file(place / "f", FOUR_BLOCKS)
    fd = opened("f")
    os.unlink(place / "f")
    assert not os.path.exists(place / "f")
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, 4 * BLOCK, 0) == FOUR_BLOCKS
    os.pwrite(fd, b"still", GROUP)
    os.ftruncate(fd, GROUP + 3)
    os.fsync(fd)
    os.fchmod(fd, 0o600)
    assert os.pread(fd, 10, GROUP) == b"sti"
    write_file(place / "f", b"another")
    assert os.pread(fd, 10, 0) == FOUR_BLOCKS[:10]
    assert read_file(place / "f") == b"another"


def test_an_open_file_replaced_by_rename_keeps_its_content(place, opened):
    write_file(place / "f", b"old")
    write_file(place / "g", b"new")
    fd = opened("f")
    os.rename(place / "g", place / "f")
    assert os.pread(fd, 10, 0) == b"old"
    os.pwrite(fd, b"OLD", 0)
    assert read_file(place / "f") == b"new"
    assert os.pread(fd, 10, 0) == b"OLD"


def test_a_mapping_outlives_descriptor_and_name(place):
    write_file(place / "f", FOUR_BLOCKS)
    with open(place / "f", "r+b") as f:
        memory = mmap.mmap(f.fileno(), 0)
    os.unlink(place / "f")
    memory[0:4] = b"kept"
    memory.flush()
    assert memory[0:10] == b"kept" + FOUR_BLOCKS[4:10]
    memory.close()


# --- sync and space ------------------------------------------------------------------------------


def test_sync_calls_return(place, opened):
    fd = opened("f")
    os.write(fd, FOUR_BLOCKS)
    os.fsync(fd)
    os.fdatasync(fd)
    directory = os.open(place.path, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.sync()


def test_syncfs_does_not_mind_removed_files(place):
    write_file(place / "gone", FOUR_BLOCKS)
    write_file(place / "replaced", FOUR_BLOCKS)
    write_file(place / "kept", FOUR_BLOCKS)
    os.unlink(place / "gone")
    os.rename(place / "kept", place / "replaced")
    run("sync", "-f", place.path)


def test_statvfs_is_that_of_the_filesystem_below(place):
    found = os.statvfs(place.path)
    assert found.f_blocks > 0 and found.f_bavail <= found.f_bfree <= found.f_blocks
    assert found.f_namemax == 255
    if place.volume:
        below = os.statvfs(place.volume.cipher)
        assert found.f_blocks * found.f_frsize == below.f_blocks * below.f_frsize
        assert found.f_files == below.f_files


def test_st_blocks_is_near_what_is_stored(place):
    write_file(place / "f", noise(GROUP))
    fd = os.open(place / "f", os.O_RDONLY)
    os.fsync(fd)
    assert GROUP <= os.fstat(fd).st_blocks * 512 <= GROUP + 16 * BLOCK
    os.close(fd)
    assert stat.S_ISREG(os.stat(place / "f").st_mode)


def test_no_space_is_enospc_and_what_was_there_stays(work, make_volume):
    """A small filesystem below, filled to the brim."""
    (work / "small").mkdir()
    small = Filesystem("ext4", work / "small", size=16 << 20)
    reason = small.mount()
    if reason:
        pytest.skip(reason)
    try:
        volume = make_volume("small", mount=False, init=False)
        volume.cipher = small.path / "cipher"
        volume.init().mount()
        write_file(volume.mnt / "kept", FOUR_BLOCKS)
        fill(volume.mnt / "filler")
        assert read_file(volume.mnt / "kept") == FOUR_BLOCKS
        os.unlink(volume.mnt / "filler")
        # Its space comes back when the kernel forgets it, a moment later.
        wait_for(lambda: os.statvfs(small.path).f_bavail > 200, what="free space")
        write_file(volume.mnt / "again", FOUR_BLOCKS)
        assert read_file(volume.mnt / "again") == FOUR_BLOCKS
        volume.umount()
        volume.assert_verifies_clean()
    finally:
        if volume.daemon:
            volume.close()
        small.umount()


def fill(path):
    """Write until there is no space; the error comes from write, fsync or close."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError) as failure:
        try:
            for _ in range(64):
                os.write(fd, noise(1 << 20))
            os.fsync(fd)
        finally:
            os.close(fd)
    assert failure.value.errno == errno.ENOSPC
