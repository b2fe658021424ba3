# SPDX-License-Identifier: Apache-2.0
"""The thinnest path: make a volume, mount it, store a file, see what lies below."""

import os
import stat

import pytest
from helpers import BLOCK, BORDER_SIZES, noise, read_file, write_file
from mountpoint import KEY_RECORD, run, turnkeyfs, wait_for
from turnkeyfs_reader import backing_size, plain_size


def test_a_file_is_read_back_after_a_remount(volume):
    content = noise(100_000)
    write_file(volume.mnt / "file", content)
    assert read_file(volume.mnt / "file") == content
    volume.remount()
    assert read_file(volume.mnt / "file") == content


def test_the_bytes_below_are_not_the_plaintext(volume):
    content = b"a line that anybody could recognise\n" * 3000
    write_file(volume.mnt / "file", content)
    volume.umount()
    below = read_file(volume.below("file"))
    assert b"recognise" not in below
    assert len(set(below[BLOCK : 2 * BLOCK])) > 200, "no ciphertext looks like that"


def test_two_equal_files_are_different_below(volume):
    write_file(volume.mnt / "a", bytes(BLOCK))
    write_file(volume.mnt / "b", bytes(BLOCK))
    volume.umount()
    assert read_file(volume.below("a")) != read_file(volume.below("b"))


def test_the_same_content_written_again_is_different_below(volume):
    write_file(volume.mnt / "a", noise(BLOCK))
    volume.umount()
    before = read_file(volume.below("a"))
    volume.mount()
    write_file(volume.mnt / "a", noise(BLOCK))
    volume.umount()
    assert read_file(volume.below("a"))[BLOCK:] != before[BLOCK:]


@pytest.mark.parametrize("size", BORDER_SIZES)
def test_sizes_at_the_borders_of_blocks_and_groups(volume, size):
    content = noise(size)
    write_file(volume.mnt / "file", content)
    volume.remount()
    assert os.stat(volume.mnt / "file").st_size == size
    assert read_file(volume.mnt / "file") == content
    volume.umount()
    assert os.stat(volume.below("file")).st_size == backing_size(size)
    assert plain_size(backing_size(size)) == size
    assert volume.read_below("file") == content
    volume.assert_verifies_clean()


def test_an_empty_file_is_empty_below(volume):
    write_file(volume.mnt / "file", b"")
    volume.umount()
    assert os.stat(volume.below("file")).st_size == 0
    assert volume.read_below("file") == b""


def test_the_key_record_takes_64_bytes(volume):
    write_file(volume.mnt / "file", b"x")
    volume.umount()
    record = os.getxattr(volume.below("file"), KEY_RECORD)
    assert len(record) == 64
    assert record[0] == 1 and record[1] == 0, "version and flags"
    assert int.from_bytes(record[2:4], "big") == 1, "KEK version"
    assert read_file(volume.below("file"))[:64] == record, "the copy"


@pytest.mark.backing("ext4")
def test_the_key_record_takes_no_extra_block_on_ext4_with_256_byte_inodes(volume, backing):
    """The record lies inside the inode: a file with it takes what a file without it takes."""
    for name in ("empty", "file"):
        write_file(volume.mnt / name, b"" if name == "empty" else b"x")
    volume.umount()
    for name in ("empty", "file"):
        below = volume.below(name)
        without = backing / name
        write_file(without, read_file(below))
        os.sync()
        assert os.stat(below).st_blocks == os.stat(without).st_blocks
    # What the sentence above is worth: one byte more would show.
    os.setxattr(backing / "empty", KEY_RECORD, bytes(65))
    assert os.stat(backing / "empty").st_blocks > os.stat(volume.below("empty")).st_blocks


def test_the_keystore_is_private_and_outside(volume):
    assert stat.S_IMODE(volume.keystore.stat().st_mode) == 0o600
    assert volume.cipher not in volume.keystore.parents


def test_other_users_can_t_look_into_the_encrypted_directory(volume):
    assert stat.S_IMODE(volume.cipher.stat().st_mode) == 0o700


def test_a_mount_in_the_background_returns_when_it_can_be_used(make_volume):
    volume = make_volume(mount=False)
    volume.command("mount", volume.cipher, volume.mnt, timeout=60)
    try:
        pid = volume.status()["daemon"]["pid"]
        write_file(volume.mnt / "file", b"there")
        assert read_file(volume.mnt / "file") == b"there"
    finally:
        run(turnkeyfs(), "umount", volume.mnt)
    # umount waits for the volume lock; the process may need a moment more to be gone.
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the daemon's end")
    assert volume.read_below("file") == b"there"


def test_status_names_the_mount_and_its_counters(volume):
    write_file(volume.mnt / "file", noise(50_000))
    read_file(volume.mnt / "file")
    by_mountpoint = volume.status()
    by_cipherdir = volume.status(volume.cipher)
    for document in (by_mountpoint, by_cipherdir):
        assert document["mountpoint"] == str(volume.mnt)
        assert document["path"] == str(volume.cipher)
        assert document["volume_id"] == volume.reader().id.hex()
        daemon = document["daemon"]
        assert daemon["pid"] == volume.pid
        assert daemon["fingerprint"] == volume.reader().fingerprint
        assert daemon["counters"]["block_failures"] == 0
    assert by_mountpoint["daemon"]["counters"]["written_bytes"] >= 0
    volume.umount()
    assert volume.status(volume.cipher)["daemon"] is None
    assert volume.status(volume.cipher)["unclean_mounts"] == 0


def test_a_killed_daemon_leaves_a_volume_that_mounts_again(volume):
    content = noise(30_000)
    write_file(volume.mnt / "file", content)
    os.sync()
    volume.kill()
    volume.daemon.wait(10)
    volume.forget_daemon()
    run(turnkeyfs(), "umount", volume.mnt, check=False)
    volume.close()
    volume.mount()
    assert read_file(volume.mnt / "file") == content
    assert volume.status()["unclean_mounts"] >= 1


def test_two_volumes_are_mounted_at_once(volume, make_volume):
    other = make_volume("other")
    write_file(volume.mnt / "file", b"one")
    write_file(other.mnt / "file", b"other")
    assert read_file(volume.mnt / "file") == b"one"
    assert read_file(other.mnt / "file") == b"other"


@pytest.mark.conf({"mount": {"read_only": "yes"}})
def test_a_read_only_mount_refuses_writes(volume):
    with pytest.raises(OSError, match="Read-only file system"):
        write_file(volume.mnt / "file", b"x")


def test_sigterm_ends_the_mount_in_order(volume):
    write_file(volume.mnt / "file", b"kept")
    os.kill(volume.pid, 15)
    assert volume.daemon.wait(30) == 0
    volume.forget_daemon()
    assert volume.read_below("file") == b"kept"
    assert volume.status(volume.cipher)["unclean_mounts"] == 0
