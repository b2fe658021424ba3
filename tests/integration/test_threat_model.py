# SPDX-License-Identifier: Apache-2.0
"""docs/threat-model.md: what each row of its table of changes says is shown by a test. Here is which, and
here are those that no other subject has: above all what is *not* found."""

import errno
import importlib
import os
import re
import shutil

import pytest
from damage import cell_at, page_at, peek, poke, swap
from helpers import (
    BLOCK,
    FALLOC_PUNCH_HOLE,
    GROUP,
    RENAME_EXCHANGE,
    fallocate,
    noise,
    raises,
    read_file,
    renameat2,
    write_file,
)
from mountpoint import TOP
from test_integrity import CELL, EXIT_DAMAGED_DATA, Damaged, assert_sealed

# The first cell of each row, and its tests: of a file of this folder, or of tests/unit.
ROWS = {
    "any bit of a block's data or of its cell": [
        "test_integrity.test_a_flipped_bit_in_a_data_page_fails_that_block_alone",
        "test_integrity.test_a_flipped_bit_in_the_short_last_block_fails_that_block_alone",
        "test_integrity.test_any_flipped_bit_of_a_cell_fails_its_block_alone",
    ],
    "blocks swapped within a file": ["test_integrity.test_blocks_swapped_within_a_file_fail"],
    "blocks or whole tag pages swapped between files": [
        "test_integrity.test_a_block_swapped_with_the_same_block_of_another_file_fails_in_both",
        "test_threat_model.test_a_tag_page_and_its_blocks_of_another_file_fail",
    ],
    "key record changed": [
        "test_integrity.test_any_flipped_bit_of_the_attribute_heals_from_the_copy",
        "test_integrity.test_any_flipped_bit_of_the_copy_heals_from_the_attribute",
    ],
    "key record removed": [
        "test_integrity.test_a_removed_attribute_heals_from_the_copy",
        "test_integrity.test_a_lost_copy_heals_from_the_attribute",
        "test_integrity.test_a_file_without_a_usable_record_fails_whole_and_alone",
    ],
    "key records swapped between files, in attribute and copy": [
        "test_integrity.test_records_swapped_whole_fail_every_block"
    ],
    "record or file from another volume": ["test_integrity.test_a_file_of_another_volume_fails"],
    "volume file changed": [
        "test_integrity.test_any_flipped_bit_of_the_volume_file_is_refused",
        "test_integrity.test_a_volume_file_cut_short_is_refused",
    ],
    "volume file from another volume": [
        "test_integrity.test_the_volume_file_of_another_volume_is_refused_by_the_keystore",
        "test_integrity.test_the_volume_file_of_another_volume_opens_no_file",
    ],
    "whole volume replaced, with a keystore entry that opens it": [
        "test_integrity.test_a_pinned_volume_is_not_exchanged_for_another"
    ],
    "file cut inside a block": ["test_integrity.test_a_backing_file_that_was_cut_does_not_open"],
    "file cut between two blocks": [
        "test_integrity.test_a_backing_file_that_was_cut_does_not_open",
        "test_threat_model.test_a_cut_at_any_border_of_a_block_is_found",
    ],
    "file cut to nothing": ["test_integrity.test_a_file_cut_to_nothing_is_an_empty_file"],
    "block, group or tail replaced by a hole (cells of zeros)": [
        "test_integrity.test_blocks_replaced_by_holes_fail",
        "test_integrity.test_a_group_replaced_by_a_hole_fails",
        "test_threat_model.test_any_block_replaced_by_a_hole_is_found",
        "test_threat_model.test_a_tail_replaced_by_a_hole_is_found",
        "test_threat_model.test_behind_the_first_hole_of_a_sparse_file_a_block_can_be_taken_away",
    ],
    "seal removed": [
        "test_integrity.test_a_cut_that_takes_the_seal_with_it_does_not_hide",
        "test_integrity.test_the_seal_of_another_file_does_not_hold",
        "test_threat_model.test_a_seal_removed_with_every_cell_is_not_missed",
    ],
    "old tail appended": [
        "test_integrity.test_an_old_tail_appended_to_a_shortened_file_is_not_shown",
        "test_integrity.test_a_backing_file_with_noise_at_its_end_gives_zeros_or_eio",
        "test_threat_model.test_an_old_tail_over_a_new_one_is_found",
    ],
    "older state of a block, with its cell, put back": [
        "test_threat_model.test_an_older_block_with_its_cell_is_not_noticed"
    ],
    "older state of a file, a directory or the whole volume put back": [
        "test_threat_model.test_an_older_state_of_a_file_is_not_noticed",
        "test_threat_model.test_an_older_state_of_the_volume_is_not_noticed",
    ],
    "an entry renamed, or moved to another directory": [
        "test_names.test_a_changed_name_is_left_out_and_repaired",
        "test_names.test_entries_moved_between_directories_do_not_authenticate",
    ],
    "what two names stand for swapped, or put in another's place: files, or directories with all "
    "that is in them": ["test_threat_model.test_what_two_names_stand_for_can_be_swapped"],
    "an entry removed": ["test_threat_model.test_an_entry_removed_is_not_missed"],
    "a directory's key record removed or damaged": [
        "test_names.test_a_directory_without_its_record_breaks_nothing_else"
    ],
    "a directory's key record replaced by another directory's": [
        "test_names.test_a_directory_without_its_record_breaks_nothing_else"
    ],
    "the sibling of a long name removed or changed": [
        "test_names.test_an_entry_without_its_sibling_is_still_had_by_name",
        "unit/test_names.test_read__what_does_not_authenticate_is_left_out_and_counted",
    ],
    "something else than a symlink in the place of a sibling": [
        "test_names_attacks.test_what_takes_the_place_of_a_sibling_is_not_destroyed"
    ],
    "a name doubled, in its short and its long form": [
        "unit/test_names.test_read__a_short_name_in_the_long_form_is_left_out"
    ],
    "an entry made with the keys (E, before) that is called `.`, `..`, or holds `/` or NUL; a backing name that is "
    "no text of ours": ["test_names_attacks.test_no_name_below_breaks_a_listing"],
    "`user.*` attribute changed, or copied to another file or another name": [
        "test_attributes_encrypted.test_a_damaged_value_is_an_error_until_it_is_replaced",
        "test_attributes_encrypted.test_a_damaged_name_is_left_out_and_reported",
        "test_attributes_encrypted.test_an_attribute_copied_to_another_file_is_no_attribute_there",
        "test_attributes_encrypted.test_a_value_under_another_name_or_in_another_file_is_an_error",
    ],
    "`user.*` attribute removed, or an older value of it put back": [
        "test_attributes_encrypted.test_an_older_value_or_a_removed_attribute_is_not_noticed"
    ],
    "symlink target changed, or another volume's": [
        "test_attributes_encrypted.test_a_target_that_was_tampered_with_is_an_error",
        "test_attributes_encrypted.test_a_target_of_another_volume_is_an_error",
    ],
    "targets swapped between symlinks of the volume, or an older one put back": [
        "test_attributes_encrypted.test_targets_swapped_between_symlinks_are_not_noticed"
    ],
    "owner, mode, times, ACLs, attributes of other namespaces changed": [
        "test_threat_model.test_what_the_backing_filesystem_keeps_can_be_changed"
    ],
    "with `names = plain`: any attribute or symlink target changed": [
        "test_threat_model.test_with_plain_names_attributes_and_targets_can_be_changed"
    ],
}


# The same of the table under "Several root keys".
SHARED = {
    "the root key of a mount is disabled, another protector could open the volume": [
        "test_protector.test_a_refused_key_locks_its_mount_whatever_the_other_could_open",
        "test_pkcs11.test_two_protectors_one_of_them_revoked",
    ],
    "the volume is mounted anew, by another protector": [
        "test_protector.test_a_refused_key_locks_its_mount_whatever_the_other_could_open"
    ],
    "somebody adds a protector to outlive a revocation": [
        "test_protector.test_a_refused_key_locks_its_mount_whatever_the_other_could_open",
        "unit/test_volume_protector.test_change__wants_the_own_one_now",
    ],
    "a protector was removed": [
        "test_protector.test_what_is_removed_opens_nothing_and_comes_back",
        "test_protector.test_an_old_volume_file_gives_a_removed_key_no_new_record",
    ],
    "an older volume file is put back": [
        "test_protector_attacks.test_an_older_file_brings_a_removed_protector_back"
    ],
    "somebody once opened the volume, by a protector that was removed since, and can write the "
    "encrypted directory": [
        "unit/test_volume_protector.test_unlock__a_removed_protector_that_may_write_the_file"
    ],
    "a protector that is not there follows a rotation": [
        "test_protector_pkcs11.test_a_token_that_is_not_there_follows_the_vault",
        "unit/test_volume_protector.test_rotate__who_is_not_there_follows",
    ],
    "somebody seals keys of their own to the public halves, which anybody can read": [
        "unit/test_volume_protector.test_unlock__a_volume_of_public_halves"
    ],
    "wraps moved between protectors, KEK versions or volumes, exchanged, doubled, given another number, "
    "taken out or put back; `format = 2` made `format = 1`": [
        "test_protector_attacks.test_blobs_exchanged_within_a_volume",
        "test_protector_attacks.test_wraps_exchanged_with_their_numbers",
        "test_protector_attacks.test_a_wrap_that_is_there_twice",
        "test_protector_attacks.test_a_protector_of_somebody_s_own",
        "test_protector_attacks.test_back_to_format_1",
        "unit/test_volume_protector.test_protector__what_is_moved_does_not_open",
        "unit/test_volume_protector.test_unlock__every_byte_of_the_file",
        "unit/test_volume_protector.test_unlock__wraps_taken_or_put_back",
    ],
    "the volume file of another volume with the same recovery key": [
        "test_protector_attacks.test_the_whole_file_of_another_volume_of_the_same_keys"
    ],
    "an old root key version of a protector that is not there becomes known": [],  # it follows from the format
    "a quantum computer": [],
}


def rows_of_the_document(head):
    """The first cells of the table that begins with @head."""
    text = (TOP / "docs" / "threat-model.md").read_text(encoding="utf-8")
    table = text.split(head, 1)[1].split("\n\n", 1)[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.split("\n")[2:]]


def is_test(name):
    """Whether there is a test of this name."""
    where, test = name.rsplit(".", 1)
    if where.startswith("unit/"):
        source = (TOP / "tests" / f"{where}.c").read_text(encoding="utf-8")
        return re.search(rf"\({test}\)", source) is not None  # in the list of its tests
    return callable(getattr(importlib.import_module(where), test, None))


def test_every_row_has_a_test():
    assert rows_of_the_document("| change | found |") == list(ROWS)
    assert rows_of_the_document("for whoever wants to revoke:\n\n| | |") == list(SHARED)
    for table in (ROWS, SHARED):
        assert [name for tests in table.values() for name in tests if not is_test(name)] == []


@pytest.fixture
def damaged(volume):
    return Damaged(volume)


# --- found -----------------------------------------------------------------------------------------


def many_files(damaged, count, length):
    """Files of one length; the paths below by their names."""
    for number in range(count):
        damaged.write(f"f{number}", length)
    paths = {f"f{number}": damaged.below(f"f{number}") for number in range(count)}
    damaged.umount()
    return paths


def assert_all_found(damaged, names):
    """Each file has a finding, and does not read to its end; what is read is right."""
    code, found = damaged.findings()
    assert code == EXIT_DAMAGED_DATA
    assert set(found) == set(names)
    damaged.mount()
    for name in names:
        raises(errno.EIO, read_file, damaged.path(name))


def test_a_cut_at_any_border_of_a_block_is_found(damaged):
    blocks = 16
    for name, path in (paths := many_files(damaged, blocks, blocks * BLOCK)).items():
        # From no block's data to all but the last: the tag page alone is a file without bytes.
        os.truncate(path, page_at(int(name[1:])) + (1 if name == "f0" else 0))
    assert_all_found(damaged, paths)


def test_any_block_replaced_by_a_hole_is_found(damaged):
    blocks = 16
    for name, path in (paths := many_files(damaged, blocks, blocks * BLOCK - 100)).items():
        index = int(name[1:])
        poke(path, cell_at(index), bytes(CELL))
        with open(path, "r+b") as f:
            fallocate(f.fileno(), FALLOC_PUNCH_HOLE, page_at(index), BLOCK)
    assert_all_found(damaged, paths)


@pytest.mark.parametrize("first", [1, 100, 124, 126])
def test_a_tail_replaced_by_a_hole_is_found(damaged, first):
    """From a block on to the end, over a group's border."""
    damaged.write("f", GROUP + 3 * BLOCK).umount()
    path = damaged.below("f")
    size = os.path.getsize(path)
    for index in range(first, 127):
        poke(path, cell_at(index), bytes(CELL))
    os.truncate(path, page_at(first))
    os.truncate(path, size)
    # The cells of the second group are behind the first group's data.
    damaged.assert_bad("f", set(range(first, 127)))


def test_a_tag_page_and_its_blocks_of_another_file_fail(damaged):
    """The second group, whole, since the first has the files' own records."""
    damaged.write("f", 2 * GROUP).write("g", 2 * GROUP).umount()
    swap(damaged.below("f"), 512000, damaged.below("g"), 512000, 512000)
    damaged.assert_bad("f", set(range(124, 248)))


def test_an_old_tail_over_a_new_one_is_found(damaged):
    """A file that was cut and written on: its old tail's blocks, without their old cells."""
    damaged.write("f", 20 * BLOCK)
    damaged.volume.umount()
    old = peek(damaged.below("f"), page_at(10), 10 * BLOCK)
    damaged.volume.mount()
    os.truncate(damaged.path("f"), 10 * BLOCK)
    damaged.write("f", 20 * BLOCK, seed="new").umount()
    poke(damaged.below("f"), page_at(10), old)
    damaged.assert_bad("f", set(range(10, 20)))


# --- not found ---------------------------------------------------------------------------------------


def assert_clean(damaged, name, content):
    """Nothing is noticed: the file reads as @content."""
    damaged.volume.assert_verifies_clean()
    damaged.mount()
    assert read_file(damaged.path(name)) == content


def test_behind_the_first_hole_of_a_sparse_file_a_block_can_be_taken_away(damaged):
    path = damaged.path("f")
    content = bytearray(20 * BLOCK)
    with open(path, "wb") as f:
        f.truncate(len(content))
        for index in (0, 1, 15):
            content[index * BLOCK : (index + 1) * BLOCK] = noise(BLOCK, index)
            f.seek(index * BLOCK)
            f.write(noise(BLOCK, index))
    damaged.umount()
    poke(damaged.below("f"), cell_at(15), bytes(CELL))
    content[15 * BLOCK : 16 * BLOCK] = bytes(BLOCK)
    assert_clean(damaged, "f", content)


def test_a_seal_removed_with_every_cell_is_not_missed(damaged):
    """Without the seal one cell that is left tells; without any, all is a hole."""
    damaged.write("f", 20 * BLOCK).write("other", 100).umount()
    path = damaged.below("f")
    poke(path, 64, bytes(64))
    for index in range(19):
        poke(path, cell_at(index), bytes(CELL))
    assert_sealed(damaged, "f")
    damaged.volume.umount()
    poke(path, cell_at(19), bytes(CELL))
    assert_clean(damaged, "f", bytes(20 * BLOCK))


def test_an_older_block_with_its_cell_is_not_noticed(damaged):
    damaged.write("f", 10 * BLOCK)
    old = damaged.content["f"]
    damaged.volume.umount()
    path = damaged.below("f")
    cell, page = peek(path, cell_at(4), CELL), peek(path, page_at(4), BLOCK)
    damaged.volume.mount()
    damaged.write("f", 10 * BLOCK, seed="new").umount()
    new = damaged.content["f"]
    poke(path, page_at(4), page)
    poke(path, cell_at(4), cell)
    assert_clean(damaged, "f", new[: 4 * BLOCK] + old[4 * BLOCK : 5 * BLOCK] + new[5 * BLOCK :])


def test_an_older_state_of_a_file_is_not_noticed(damaged, work):
    damaged.write("f", 30 * BLOCK)
    old = damaged.content["f"]
    damaged.volume.umount()
    saved = work / "saved"
    shutil.copy(damaged.below("f"), saved)
    damaged.volume.mount()
    damaged.write("f", 50 * BLOCK, seed="new").umount()
    shutil.copy(saved, damaged.below("f"))
    assert_clean(damaged, "f", old)


def test_an_older_state_of_the_volume_is_not_noticed(damaged, work):
    damaged.write("f", 30 * BLOCK)
    old = damaged.content["f"]
    damaged.volume.umount()
    saved = work / "saved"
    shutil.copytree(damaged.volume.cipher, saved, copy_function=shutil.copy2)
    damaged.volume.mount()
    damaged.write("f", 50 * BLOCK, seed="new").write("g", 100).umount()
    shutil.rmtree(damaged.volume.cipher)
    shutil.move(saved, damaged.volume.cipher)
    assert_clean(damaged, "f", old)
    assert os.listdir(damaged.volume.mnt) == ["f"]


def test_what_two_names_stand_for_can_be_swapped(damaged):
    mnt = damaged.volume.mnt
    for name in "ab":
        os.mkdir(mnt / name)
        write_file(mnt / name / "in", name.encode())
        write_file(mnt / f"{name}.txt", name.encode() * 5000)
    below = {name: damaged.below(name) for name in ("a", "b", "a.txt", "b.txt")}
    damaged.umount()
    renameat2(below["a"], below["b"], RENAME_EXCHANGE)
    renameat2(below["a.txt"], below["b.txt"], RENAME_EXCHANGE)
    assert_clean(damaged, "a/in", b"b")
    assert read_file(mnt / "a.txt") == b"b" * 5000


def test_an_entry_removed_is_not_missed(damaged):
    damaged.write("f", 100).write("g", 100).umount()
    os.unlink(damaged.below("f"))
    assert_clean(damaged, "g", damaged.content["g"])
    assert os.listdir(damaged.volume.mnt) == ["g"]


def test_what_the_backing_filesystem_keeps_can_be_changed(damaged):
    damaged.write("f", 100).umount()
    path = damaged.below("f")
    os.chown(path, 12, 34)
    os.chmod(path, 0o4755)
    os.setxattr(path, "trusted.t", b"anything")
    os.utime(path, (1_000_000_000, 1_100_000_000))
    assert_clean(damaged, "f", damaged.content["f"])
    st = os.stat(damaged.path("f"))
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777, st.st_mtime) == (12, 34, 0o4755, 1_100_000_000)


@pytest.mark.conf({"volume": {"names": "plain"}})
def test_with_plain_names_attributes_and_targets_can_be_changed(damaged):
    mnt = damaged.volume.mnt
    damaged.write("f", 100)
    os.setxattr(mnt / "f", "user.a", b"old")
    os.symlink("old", mnt / "link")
    damaged.umount()
    os.setxattr(damaged.below("f"), "user.a", b"new")
    os.unlink(damaged.below("link"))
    os.symlink("new", damaged.below("link"))
    assert_clean(damaged, "f", damaged.content["f"])
    assert (os.getxattr(mnt / "f", "user.a"), os.readlink(mnt / "link")) == (b"new", "new")
