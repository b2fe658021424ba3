# SPDX-License-Identifier: Apache-2.0
"""Damage below a mount: bits, blocks, cells and records, by the offsets of docs/format.md."""

import errno
import os

from helpers import BLOCK
from mountpoint import KEY_RECORD
from turnkeyfs_reader import CELL, GROUP_BLOCKS, GROUP_STRIDE, HEADER, RECORD_LEN


def cell_at(index):
    group, k = divmod(index, GROUP_BLOCKS)
    return group * GROUP_STRIDE + HEADER + k * CELL


def page_at(index):
    group, k = divmod(index, GROUP_BLOCKS)
    return group * GROUP_STRIDE + BLOCK + k * BLOCK


def peek(path, offset, length):
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(length)


def poke(path, offset, content):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(content)


def flip(path, offset, bit=0):
    """Flip one bit; @bit counts on from the byte at @offset."""
    offset, bit = offset + bit // 8, bit % 8
    poke(path, offset, bytes([peek(path, offset, 1)[0] ^ (1 << bit)]))


def swap(path_a, offset_a, path_b, offset_b, length):
    a, b = peek(path_a, offset_a, length), peek(path_b, offset_b, length)
    poke(path_a, offset_a, b)
    poke(path_b, offset_b, a)


def swap_blocks(path_a, index_a, path_b, index_b):
    """Swap two blocks whole: pages with their cells."""
    swap(path_a, page_at(index_a), path_b, page_at(index_b), BLOCK)
    swap(path_a, cell_at(index_a), path_b, cell_at(index_b), CELL)


def record_attribute(path):
    return os.getxattr(path, KEY_RECORD)


def flip_attribute(path, bit):
    record = bytearray(record_attribute(path))
    record[bit // 8] ^= 1 << (bit % 8)
    os.setxattr(path, KEY_RECORD, bytes(record))


def swap_attributes(path_a, path_b):
    a, b = record_attribute(path_a), record_attribute(path_b)
    os.setxattr(path_a, KEY_RECORD, b)
    os.setxattr(path_b, KEY_RECORD, a)


def swap_copies(path_a, path_b):
    swap(path_a, 0, path_b, 0, RECORD_LEN)


def clear_copy(path):
    poke(path, 0, bytes(RECORD_LEN))


def read_blocks(path, direct=False):
    """{index: content, or None where reading fails with EIO}, block by block."""
    found = {}
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        for index in range(-(-os.fstat(fd).st_size // BLOCK)):
            try:
                found[index] = os.pread(fd, BLOCK, index * BLOCK)
            except OSError as e:
                assert e.errno == errno.EIO, e
                found[index] = None
    finally:
        os.close(fd)
    return found


def bad_blocks(blocks):
    return {index for index, content in blocks.items() if content is None}


def assert_blocks(path, content, bad, direct=False):
    """Exactly the blocks @bad fail, and all others hold what @content says."""
    blocks = read_blocks(path, direct)
    assert len(blocks) == -(-len(content) // BLOCK)
    assert bad_blocks(blocks) == set(bad)
    for index, found in blocks.items():
        if found is not None:
            assert found == content[index * BLOCK : (index + 1) * BLOCK], f"block {index}"
