# SPDX-License-Identifier: Apache-2.0
"""What somebody changes in the encrypted directory is found: EIO, never other plaintext.

Each test writes through the mount, unmounts, does its damage below, and mounts again. The rest of
the file, and all other files, must stay readable; the log says what is wrong, `status` counts it,
`verify` finds it, and the independent reader agrees on the blocks.
"""

import errno
import faulthandler
import mmap
import os
import random
import shutil
import signal

import pytest
from damage import (
    assert_blocks,
    bad_blocks,
    cell_at,
    clear_copy,
    flip,
    flip_attribute,
    page_at,
    poke,
    read_blocks,
    record_attribute,
    swap_attributes,
    swap_blocks,
    swap_copies,
)
from helpers import BLOCK, GROUP, noise, raises, read_file, write_file
from mountpoint import KEY_RECORD, run, scaled, turnkeyfs
from turnkeyfs_reader import CELL, RECORD_LEN, BlockDamaged, ReaderError

EXIT_DAMAGED_VOLUME = 5
EXIT_WRONG_KEY = 10
EXIT_DAMAGED_DATA = 14


class Damaged:
    """A volume with files whose content is known, unmounted for the damage."""

    def __init__(self, volume):
        self.volume = volume
        self.content = {}
        volume.expect_log("error: .*|warning: .*record")

    def write(self, name, length, seed=None):
        content = noise(length, seed if seed is not None else name)
        write_file(self.volume.mnt / name, content)
        self.content[name] = content
        return self

    def umount(self):
        self.volume.umount()
        return self

    def below(self, name):
        return self.volume.below(name)

    def mount(self):
        self.volume.mount()
        return self

    def path(self, name):
        return self.volume.mnt / name

    def lines(self, name):
        """Log lines that name the file."""
        return [line for line in self.volume.log().splitlines() if name in line]

    def findings(self):
        """verify's findings for each file: {path: [finding]}, and its exit code."""
        code, document = self.volume.verify()
        found = {}
        for finding in document["findings"]:
            found.setdefault(finding["path"], []).append(finding)
        return code, found

    def assert_bad(self, name, bad):
        """Exactly these blocks of a file fail: for verify, the reader, and both ways to read."""
        code, found = self.findings()
        assert code == (EXIT_DAMAGED_DATA if bad else 0)
        assert finding_blocks(found.get(name, [])) == set(bad)
        assert reader_bad_blocks(self.volume, name) == set(bad)
        self.mount()
        failures = self.volume.counter("block_failures")
        assert_blocks(self.path(name), self.content[name], bad)
        assert_blocks(self.path(name), self.content[name], bad, direct=True)
        if bad:
            assert self.volume.counter("block_failures") >= failures + len(bad)
            assert self.lines(name), f"no log line names {name}:\n{self.volume.log()}"

    def assert_good(self, name):
        assert read_file(self.path(name)) == self.content[name]


def finding_blocks(findings):
    blocks = set()
    for finding in findings:
        if finding["kind"] != "block":
            continue
        first = finding["offset"] // BLOCK
        last = (finding["offset"] + finding["length"] - 1) // BLOCK
        blocks.update(range(first, last + 1))
    return blocks


def reader_bad_blocks(volume, name):
    bad = set()
    with volume.reader().open(name) as f:
        for index in range(-(-f.size // BLOCK)):
            try:
                f.read_block(index)
            except BlockDamaged as e:
                bad.add(e.index)
    return bad


@pytest.fixture
def damaged(volume):
    return Damaged(volume)


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [0, 1, 2047, BLOCK - 1])
def test_a_flipped_bit_in_a_data_page_fails_that_block_alone(damaged, byte):
    damaged.write("f", 5 * BLOCK + 100).write("other", 9000).umount()
    flip(damaged.below("f"), page_at(2) + byte, 3)
    damaged.assert_bad("f", {2})
    damaged.assert_good("other")


def test_a_flipped_bit_in_the_short_last_block_fails_that_block_alone(damaged):
    damaged.write("f", 3 * BLOCK + 100).umount()
    flip(damaged.below("f"), page_at(3) + 99, 7)
    damaged.assert_bad("f", {3})


def test_a_flipped_bit_in_a_later_group_fails_that_block_alone(damaged):
    damaged.write("f", 2 * GROUP + 3 * BLOCK).umount()
    bad = {0, 123, 124, 200, 249}
    for index in bad:
        flip(damaged.below("f"), page_at(index) + index, index % 8)
    damaged.assert_bad("f", bad)


def test_any_flipped_bit_of_a_cell_fails_its_block_alone(damaged):
    """Every bit of IV, tag, length and mount once, each in a block of its own."""
    damaged.write("f", 512 * BLOCK).umount()
    for bit in range(256):
        flip(damaged.below("f"), cell_at(2 * bit), bit)
    damaged.assert_bad("f", {2 * bit for bit in range(256)})


def test_any_flipped_bit_of_a_hole_s_cell_fails_its_block(damaged):
    """A hole that somebody fills with noise is damage, in present and in absent groups."""
    path = damaged.path("f")
    write_file(path, b"")
    os.truncate(path, 3 * GROUP)
    with open(path, "r+b") as f:
        f.write(noise(BLOCK))
    damaged.content["f"] = noise(BLOCK) + bytes(3 * GROUP - BLOCK)
    damaged.umount()
    bad = {5, 60, 124 + 7, 248 + 100}
    for index in bad:
        flip(damaged.below("f"), cell_at(index), index % 256)
    damaged.assert_bad("f", bad)


def test_a_data_page_below_a_hole_is_never_shown(damaged):
    path = damaged.path("f")
    write_file(path, b"")
    os.truncate(path, 10 * BLOCK)
    damaged.content["f"] = bytes(10 * BLOCK)
    damaged.umount()
    poke(damaged.below("f"), page_at(4), noise(BLOCK))
    damaged.assert_bad("f", set())


@pytest.mark.parametrize(
    "a, b", [(1, 2), (0, 123), (3, 124 + 3), (5, 124 + 6)], ids=lambda index: f"block{index}"
)
def test_blocks_swapped_within_a_file_fail(damaged, a, b):
    damaged.write("f", 2 * GROUP).umount()
    swap_blocks(damaged.below("f"), a, damaged.below("f"), b)
    damaged.assert_bad("f", {a, b})


def test_a_block_copied_over_another_fails(damaged):
    damaged.write("f", 4 * BLOCK).umount()
    below = damaged.below("f")
    shutil.copy(below, str(below) + ".old")
    swap_blocks(below, 1, str(below) + ".old", 3)
    os.unlink(str(below) + ".old")
    damaged.assert_bad("f", {1})


def test_a_block_swapped_with_the_same_block_of_another_file_fails_in_both(damaged):
    damaged.write("f", 4 * BLOCK).write("g", 4 * BLOCK).umount()
    swap_blocks(damaged.below("f"), 2, damaged.below("g"), 2)
    damaged.assert_bad("f", {2})
    assert_blocks(damaged.path("g"), damaged.content["g"], {2})


def test_a_whole_tag_page_of_another_group_fails_the_group(damaged):
    damaged.write("f", 2 * GROUP + BLOCK).umount()
    content = read_file(damaged.below("f"))
    poke(damaged.below("f"), 512000 + 128, content[128:BLOCK])
    damaged.assert_bad("f", set(range(124, 248)))


def test_noise_over_a_tag_page_fails_the_group_and_not_the_next(damaged):
    damaged.write("f", 2 * GROUP).umount()
    poke(damaged.below("f"), 512000, noise(BLOCK, "tags"))
    damaged.assert_bad("f", set(range(124, 248)))


def test_the_log_has_one_clear_line_for_a_bad_block(damaged):
    damaged.write("marked", 8 * BLOCK).umount()
    flip(damaged.below("marked"), page_at(6))
    damaged.mount()
    assert bad_blocks(read_blocks(damaged.path("marked"), direct=True)) == {6}
    lines = damaged.lines(damaged.below("marked").name)
    assert len(lines) == 1, lines
    assert "error:" in lines[0] and str(6 * BLOCK) in lines[0], lines


def test_the_log_does_not_grow_with_the_damage(damaged):
    damaged.write("f", 4 * GROUP).umount()
    for index in range(4 * 124):
        flip(damaged.below("f"), page_at(index))
    damaged.mount()
    assert len(bad_blocks(read_blocks(damaged.path("f"), direct=True))) == 4 * 124
    assert len(damaged.volume.log().splitlines()) < 100


# --- records -------------------------------------------------------------------------------------


def many_files(damaged, count):
    for i in range(count):
        damaged.write(f"f{i}", BLOCK + i)
    damaged.umount()


def assert_all_restored(damaged, count):
    """Every file reads as before, and both its records are whole again."""
    code, found = damaged.findings()
    assert code in (0, EXIT_DAMAGED_DATA)
    assert len(found) == count, "verify tells what it would restore"
    damaged.mount()
    for name in damaged.content:
        damaged.assert_good(name)
    assert damaged.volume.counter("records_restored") >= count
    damaged.umount()
    for name in damaged.content:
        copy = read_file(damaged.below(name))[:RECORD_LEN]
        assert record_attribute(damaged.below(name)) == copy, name
    damaged.volume.assert_verifies_clean()


def test_any_flipped_bit_of_the_attribute_heals_from_the_copy(damaged):
    many_files(damaged, 512)
    for bit in range(512):
        flip_attribute(damaged.below(f"f{bit}"), bit)
    assert_all_restored(damaged, 512)


def test_any_flipped_bit_of_the_copy_heals_from_the_attribute(damaged):
    many_files(damaged, 512)
    for bit in range(512):
        flip(damaged.below(f"f{bit}"), 0, bit)
    assert_all_restored(damaged, 512)


def test_a_removed_attribute_heals_from_the_copy(damaged):
    damaged.write("f", 3 * BLOCK).write("big", GROUP + 1).umount()
    os.removexattr(damaged.below("f"), KEY_RECORD)
    os.removexattr(damaged.below("big"), KEY_RECORD)
    assert_all_restored(damaged, 2)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 500])
def test_an_attribute_of_another_length_heals_from_the_copy(damaged, length):
    damaged.write("f", 100).umount()
    os.setxattr(damaged.below("f"), KEY_RECORD, noise(length))
    assert_all_restored(damaged, 1)


def test_a_lost_copy_heals_from_the_attribute(damaged):
    damaged.write("f", 3 * BLOCK).umount()
    clear_copy(damaged.below("f"))
    assert_all_restored(damaged, 1)


@pytest.mark.conf({"volume": {"names": "plain"}})  # otherwise it takes the escrow: test_escrow.py
def test_a_tree_copied_without_attributes_opens_and_heals(damaged):
    """What cp, rsync -a and most backups do."""
    for i in range(20):
        damaged.write(f"f{i}", i * 30_000)
    damaged.umount()
    cipher = damaged.volume.cipher
    run("cp", "-r", cipher, f"{cipher}.copy")
    shutil.rmtree(cipher)
    os.rename(f"{cipher}.copy", cipher)
    raises(errno.ENODATA, os.getxattr, damaged.below("f1"), KEY_RECORD)
    damaged.mount()
    for name in damaged.content:
        damaged.assert_good(name)
    damaged.umount()
    assert len(record_attribute(damaged.below("f1"))) == RECORD_LEN
    damaged.volume.assert_verifies_clean()


def test_swapped_attributes_lose_to_the_copies(damaged):
    damaged.write("f", 2 * BLOCK).write("g", 2 * BLOCK).umount()
    swap_attributes(damaged.below("f"), damaged.below("g"))
    assert_all_restored(damaged, 2)


def test_swapped_copies_lose_to_the_attributes(damaged):
    damaged.write("f", 2 * BLOCK).write("g", 2 * BLOCK).umount()
    swap_copies(damaged.below("f"), damaged.below("g"))
    assert_all_restored(damaged, 2)


def test_records_swapped_whole_fail_every_block(damaged):
    damaged.write("f", 2 * BLOCK + 5).write("g", 2 * BLOCK).write("other", 100).umount()
    swap_attributes(damaged.below("f"), damaged.below("g"))
    swap_copies(damaged.below("f"), damaged.below("g"))
    code, found = damaged.findings()
    assert code == EXIT_DAMAGED_DATA and set(found) == {"f", "g"}
    assert finding_blocks(found["f"]) == {0, 1, 2}
    with pytest.raises(ReaderError):
        damaged.volume.read_below("f")
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path("f"))
    raises(errno.EIO, read_file, damaged.path("g"))
    damaged.assert_good("other")


def break_records(path):
    """Neither the attribute nor the copy can be used afterwards."""
    flip_attribute(path, 300)
    flip(path, 0, 300)


def remove_records(path):
    os.removexattr(path, KEY_RECORD)
    clear_copy(path)


@pytest.mark.parametrize("harm", [break_records, remove_records])
def test_a_file_without_a_usable_record_fails_whole_and_alone(damaged, harm):
    damaged.write("f", 2 * BLOCK).write("other", 2 * BLOCK).umount()
    harm(damaged.below("f"))
    code, found = damaged.findings()
    assert code == EXIT_DAMAGED_DATA and list(found) == ["f"]
    with pytest.raises(ReaderError):
        damaged.volume.read_below("f")
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path("f"))
    raises(errno.EIO, write_file_in_place, damaged.path("f"), b"x")
    assert damaged.volume.counter("record_failures") >= 1
    assert damaged.lines("f")
    damaged.assert_good("other")


def write_file_in_place(path, content):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("harm", [break_records, remove_records])
def test_a_file_that_can_t_be_read_can_be_listed_renamed_and_removed(damaged, harm):
    os.mkdir(damaged.path("d"))
    damaged.write("d/f", 2 * BLOCK).write("d/other", 10).umount()
    harm(damaged.below("d/f"))
    damaged.mount()
    assert sorted(os.listdir(damaged.path("d"))) == ["f", "other"]
    assert os.stat(damaged.path("d/f")).st_size == 2 * BLOCK
    os.rename(damaged.path("d/f"), damaged.path("d/g"))
    os.unlink(damaged.path("d/g"))
    damaged.assert_good("d/other")


def test_an_empty_file_without_records_is_a_file_like_any_other(damaged):
    damaged.write("f", 0).umount()
    if KEY_RECORD in os.listxattr(damaged.below("f")):
        os.removexattr(damaged.below("f"), KEY_RECORD)
    damaged.volume.assert_verifies_clean()
    damaged.mount()
    damaged.assert_good("f")
    damaged.write("f", 5000, seed=1).umount()
    assert damaged.volume.read_below("f") == damaged.content["f"]
    assert len(record_attribute(damaged.below("f"))) == RECORD_LEN


# --- the shape of the backing file ---------------------------------------------------------------


def assert_sealed(damaged, name):
    """The file does not open, for verify, the reader and the mount alike; others do."""
    code, found = damaged.findings()
    assert code == EXIT_DAMAGED_DATA
    assert "seal" in {finding["kind"] for finding in found[name]}
    with pytest.raises(ReaderError):
        damaged.volume.read_below(name)
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path(name))
    assert damaged.lines(name)
    damaged.assert_good("other")


CUTS = [4097, page_at(1), page_at(3), page_at(3) + 50, 512000 - 1, 512000, 512001, page_at(125)]


@pytest.mark.parametrize("size", CUTS)
def test_a_backing_file_that_was_cut_does_not_open(damaged, size):
    """At a block's border, within a block, at a group's border."""
    damaged.write("f", GROUP + 3 * BLOCK).write("other", 100).umount()
    os.truncate(damaged.below("f"), size)
    assert_sealed(damaged, "f")


@pytest.mark.parametrize("size", [0, 1, 64, 4096])
def test_a_file_cut_to_nothing_is_an_empty_file(damaged, size):
    """Without bytes it has no seal: docs/threat-model.md says so."""
    damaged.write("f", GROUP + 3 * BLOCK).umount()
    os.truncate(damaged.below("f"), size)
    damaged.mount()
    assert read_file(damaged.path("f")) == b""


def test_a_cut_that_takes_the_seal_with_it_does_not_hide(damaged):
    damaged.write("f", 20 * BLOCK).write("other", 100).umount()
    poke(damaged.below("f"), 64, bytes(64))
    os.truncate(damaged.below("f"), page_at(10))
    assert_sealed(damaged, "f")


def test_the_seal_of_another_file_does_not_hold(damaged):
    damaged.write("f", 20 * BLOCK).write("g", 10 * BLOCK).write("other", 100).umount()
    poke(damaged.below("f"), 64, read_file(damaged.below("g"))[64:128])
    os.truncate(damaged.below("f"), page_at(10))
    assert_sealed(damaged, "f")


def test_an_old_tail_appended_to_a_shortened_file_is_not_shown(damaged):
    """It is above the seal; what is there authenticates, but is no part of the file."""
    damaged.write("f", 20 * BLOCK)
    damaged.volume.umount()
    old = read_file(damaged.below("f"))
    damaged.volume.mount()
    os.truncate(damaged.path("f"), 10 * BLOCK)
    damaged.volume.umount()
    with open(damaged.below("f"), "r+b") as f:
        f.seek(page_at(10))
        f.write(old[page_at(10) :])
    damaged.mount()
    assert_right_or_eio(damaged.path("f"), damaged.content["f"][: 10 * BLOCK] + bytes(10 * BLOCK))


@pytest.mark.parametrize("count", [1, 3, 124])
def test_blocks_replaced_by_holes_fail(damaged, count):
    damaged.write("f", GROUP + 3 * BLOCK).umount()
    poke(damaged.below("f"), cell_at(0), bytes(CELL * count))
    damaged.assert_bad("f", set(range(count)))


def test_a_group_replaced_by_a_hole_fails(damaged):
    damaged.write("f", 3 * GROUP).umount()
    poke(damaged.below("f"), 512000, bytes(512000))
    damaged.assert_bad("f", set(range(124, 248)))


@pytest.mark.parametrize("closed", [True, False])
def test_a_file_cut_and_grown_to_its_old_length_opens_again(damaged, closed):
    path = damaged.path("f")
    damaged.write("f", 10 * BLOCK)
    with open(path, "r+b", buffering=0) as f:
        if not closed:
            f.write(damaged.content["f"])
            os.fsync(f.fileno())
        os.truncate(f.fileno(), 5 * BLOCK)
        os.truncate(f.fileno(), 10 * BLOCK)
    damaged.content["f"] = damaged.content["f"][: 5 * BLOCK] + bytes(5 * BLOCK)
    damaged.volume.remount()
    damaged.assert_good("f")
    damaged.volume.umount()
    damaged.volume.assert_verifies_clean()


def test_a_file_that_grew_and_shrank_is_sealed_as_it_is(damaged):
    path = damaged.path("f")
    damaged.write("f", 20 * BLOCK).write("other", 100)
    damaged.volume.remount()
    os.truncate(path, 7 * BLOCK + 5)
    damaged.volume.remount()
    with open(path, "ab") as f:
        f.write(noise(3 * BLOCK, "more"))
    damaged.content["f"] = damaged.content["f"][: 7 * BLOCK + 5] + noise(3 * BLOCK, "more")
    damaged.volume.remount()
    damaged.assert_good("f")
    damaged.volume.umount()
    damaged.volume.assert_verifies_clean()
    os.truncate(damaged.below("f"), page_at(10))
    assert_sealed(damaged, "f")


def test_a_backing_file_with_noise_at_its_end_gives_zeros_or_eio(damaged):
    damaged.write("f", 3 * BLOCK + 100).umount()
    with open(damaged.below("f"), "ab") as f:
        f.write(noise(3 * BLOCK))
    damaged.mount()
    assert_right_or_eio(damaged.path("f"), damaged.content["f"] + bytes(3 * BLOCK))


def test_a_file_of_noise_gives_eio(damaged):
    damaged.write("other", 1).umount()  # so that there is a key for names
    write_file(damaged.below("noise"), noise(20_000))
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path("noise"))


def assert_right_or_eio(path, content):
    """A cell that was zeroed above the seal is a hole, which reads as zeros."""
    try:
        blocks = read_blocks(path)
    except OSError as e:
        assert e.errno == errno.EIO
        return
    for index, found in blocks.items():
        if found is not None:
            right = content[index * BLOCK : index * BLOCK + len(found)]
            hole = bytes(len(found))
            assert found in (right, hole), f"block {index} holds wrong bytes"


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_gives_no_wrong_bytes_and_no_crash(damaged, seed):
    """Noise, swaps, zeros, cuts and copies anywhere in a dozen backing files."""
    rng = random.Random(seed)
    names = [f"f{i}" for i in range(12)]
    for name in names:
        damaged.write(name, rng.choice([100, BLOCK, 3 * BLOCK + 1, 50_000, GROUP, GROUP + 9000]))
    damaged.umount()
    for _ in range(60):
        harm_somewhere(rng, damaged.below(rng.choice(names)), damaged.below(rng.choice(names)))
    assert damaged.findings()[0] == EXIT_DAMAGED_DATA
    damaged.mount()
    for name in names:
        assert_right_or_eio(damaged.path(name), damaged.content[name] + bytes(GROUP))
    assert damaged.volume.daemon.poll() is None


def harm_somewhere(rng, path, other):
    size = os.stat(path).st_size
    at = rng.randrange(max(size, 1))
    kind = rng.randrange(6)
    if kind == 0:
        flip(path, at if at < size else 0, rng.randrange(8)) if size else None
    elif kind == 1:
        poke(path, at, rng.randbytes(min(rng.choice([1, 32, 64, 4096]), max(size - at, 0))))
    elif kind == 2:
        poke(path, at, bytes(min(rng.choice([32, 128, 4096]), max(size - at, 0))))
    elif kind == 3:
        swap_attributes(path, other)
    elif kind == 4:
        poke(path, at & ~31, read_file(other)[at & ~31 : (at & ~31) + 4096])
    else:
        os.truncate(path, size - min(size, rng.randrange(1, 5000)))


# --- while it is mounted -------------------------------------------------------------------------


def test_damage_under_a_mount_is_found_when_it_is_read(damaged):
    damaged.write("f", 20 * BLOCK)
    damaged.volume.remount()
    flip(damaged.below("f"), page_at(7))
    assert_blocks(damaged.path("f"), damaged.content["f"], {7}, direct=True)


def test_a_damaged_block_written_whole_is_good_again(damaged):
    damaged.write("f", 4 * BLOCK).umount()
    flip(damaged.below("f"), page_at(1))
    flip(damaged.below("f"), cell_at(2))
    damaged.mount()
    fresh = noise(2 * BLOCK, "fresh")
    with open(damaged.path("f"), "r+b") as f:
        f.seek(BLOCK)
        f.write(fresh)
    damaged.volume.remount()
    content = damaged.content["f"]
    assert read_file(damaged.path("f")) == content[:BLOCK] + fresh + content[3 * BLOCK :]
    damaged.umount()
    damaged.volume.assert_verifies_clean()


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "direct"])
def test_a_damaged_block_written_in_part_fails_the_write(damaged, flags):
    """Its other bytes are lost: the write must not make them up."""
    damaged.write("f", 4 * BLOCK).umount()
    flip(damaged.below("f"), page_at(1))
    damaged.mount()
    fd = os.open(damaged.path("f"), os.O_RDWR | flags)
    try:
        raises(errno.EIO, os.pwrite, fd, b"part", BLOCK + 10)
    finally:
        os.close(fd)
    assert_blocks(damaged.path("f"), damaged.content["f"], {1})


def test_a_file_with_a_damaged_block_can_be_emptied_and_written_anew(damaged):
    damaged.write("f", 4 * BLOCK).umount()
    flip(damaged.below("f"), page_at(1))
    damaged.mount()
    damaged.write("f", 3 * BLOCK, seed="new")
    damaged.volume.remount()
    damaged.assert_good("f")


def test_cutting_inside_a_damaged_block_fails_and_cutting_before_it_works(damaged):
    damaged.write("f", 4 * BLOCK).umount()
    flip(damaged.below("f"), page_at(2))
    damaged.mount()
    raises(errno.EIO, os.truncate, damaged.path("f"), 2 * BLOCK + 10)
    os.truncate(damaged.path("f"), 2 * BLOCK)
    assert read_file(damaged.path("f")) == damaged.content["f"][: 2 * BLOCK]


def test_a_mapping_of_a_damaged_block_is_a_bus_error(damaged):
    damaged.write("f", 4 * BLOCK).umount()
    flip(damaged.below("f"), page_at(2))
    damaged.mount()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        try:
            with open(damaged.path("f"), "rb") as f:
                memory = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
                assert memory[0:10] == damaged.content["f"][0:10]
                memory[2 * BLOCK : 2 * BLOCK + 10]
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS
    assert damaged.volume.daemon.poll() is None


# --- the volume file -----------------------------------------------------------------------------


def flips_of(text, count, seed):
    """Positions and bits to flip, all over the file."""
    rng = random.Random(seed)
    while count:
        at, bit = rng.randrange(len(text)), rng.randrange(8)
        changed = bytearray(text)
        changed[at] ^= 1 << bit
        yield at, bytes(changed)
        count -= 1


def test_any_flipped_bit_of_the_volume_file_is_refused(damaged):
    damaged.write("f", 100).umount()
    path = damaged.volume.cipher / "turnkeyfs.volume"
    text = read_file(path)
    for at, changed in flips_of(text, scaled(300, 5000), 1):
        write_file(path, changed)
        done = damaged.volume.command("verify", damaged.volume.cipher, check=False)
        assert done.returncode in (EXIT_DAMAGED_VOLUME, EXIT_WRONG_KEY, 18), (
            f"byte {at}: exit code {done.returncode}: {done.stderr}{done.stdout}"
        )
        assert len(done.stderr.splitlines()) == 1, done.stderr
    write_file(path, text)
    damaged.volume.assert_verifies_clean()


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2, -70])
def test_a_volume_file_cut_short_is_refused(damaged, cut):
    damaged.umount()
    path = damaged.volume.cipher / "turnkeyfs.volume"
    text = read_file(path)
    write_file(path, text[:cut])
    done = damaged.volume.command("verify", damaged.volume.cipher, check=False)
    assert done.returncode == EXIT_DAMAGED_VOLUME, done.stderr


def test_the_volume_file_of_another_volume_is_refused_by_the_keystore(damaged, make_volume):
    damaged.write("f", 100).umount()
    other = make_volume("other", mount=False)
    shutil.copy(other.cipher / "turnkeyfs.volume", damaged.volume.cipher / "turnkeyfs.volume")
    done = damaged.volume.command("verify", damaged.volume.cipher, check=False)
    assert done.returncode == EXIT_WRONG_KEY, done.stderr


def shared_keystore(damaged, make_volume):
    """Another volume that the same keystore opens."""
    conf = {"local": {"keystore": damaged.volume.keystore}}
    return make_volume("other", mount=False, conf=conf)


def test_the_volume_file_of_another_volume_opens_no_file(damaged, make_volume):
    """With a shared keystore the other volume's file is authentic: the records are not."""
    damaged.write("f", 100).umount()
    other = shared_keystore(damaged, make_volume)
    shutil.copy(other.cipher / "turnkeyfs.volume", damaged.volume.cipher / "turnkeyfs.volume")
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path("f"))


def test_a_pinned_volume_is_not_exchanged_for_another(damaged, make_volume):
    fingerprint = damaged.volume.reader().fingerprint
    damaged.umount()
    other = shared_keystore(damaged, make_volume)
    damaged.volume.write_conf({"volume": {"fingerprint": fingerprint}})
    damaged.volume.assert_verifies_clean()
    done = run(turnkeyfs(), "verify", "-c", damaged.volume.conf, other.cipher, check=False)
    assert done.returncode == EXIT_WRONG_KEY, done.stderr


def test_a_file_of_another_volume_fails(damaged, make_volume):
    other = shared_keystore(damaged, make_volume).mount()
    write_file(other.mnt / "f", noise(5000))
    other.umount()
    damaged.write("own", 1).umount()  # so that there is a key for names
    run("cp", "-a", other.below("f"), damaged.below("f"))
    damaged.mount()
    raises(errno.EIO, read_file, damaged.path("f"))
