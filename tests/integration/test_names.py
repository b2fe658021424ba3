# SPDX-License-Identifier: Apache-2.0
"""Encrypted names: of every length and byte, below and above; crashes, damage and attackers."""

import ctypes
import errno
import os
import random
import shutil
import threading
import time

import pytest
from helpers import (
    NOBODY,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    as_user,
    in_parallel,
    libc,
    raises,
    read_file,
    renameat2,
    tree,
    write_file,
)
from mountpoint import KEY_RECORD, reader, run, scaled, turnkeyfs

pytestmark = pytest.mark.conf({"volume": {"names": "encrypted"}})

DAMAGED = 14
SHORT = 175  # the longest name that is stored as its ciphertext
ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def name_of(length, character="n"):
    return character * length


def below(volume, relative=""):
    """The backing directory of @relative, as bytes."""
    return os.fsencode(volume.below(relative))


def is_sibling(name):
    return name.startswith(b"@") and name.endswith(b".name")


def assert_siblings_match(directory):
    """Every long entry has its sibling, and no sibling is left alone."""
    names = os.listdir(directory)
    hashed = {name for name in names if name.startswith(b"@") and not is_sibling(name)}
    assert {name + b".name" for name in hashed} == set(filter(is_sibling, names))


def findings(document, *kinds):
    return [found for found in document["findings"] if found["kind"] in kinds]


# --- what is stored ------------------------------------------------------------------------------


def test_names_of_every_length(volume):
    for length in range(1, 256):
        write_file(volume.mnt / name_of(length), b"%d" % length)
    raises(errno.ENAMETOOLONG, os.stat, volume.mnt / name_of(256))
    raises(errno.ENAMETOOLONG, os.mkdir, volume.mnt / name_of(256))
    expected = {name_of(length): b"%d" % length for length in range(1, 256)}
    for _ in range(2):
        assert set(os.listdir(volume.mnt)) == set(expected)
        for name, content in expected.items():
            assert read_file(volume.mnt / name) == content
        volume.remount()
    volume.umount()
    decrypted = volume.reader()
    assert {path for path, _ in decrypted.walk()} == set(expected)
    for name, content in expected.items():
        with decrypted.open(name) as f:
            assert f.read() == content
    assert_siblings_match(below(volume))
    volume.assert_verifies_clean()
    volume.mount()
    for name in expected:
        os.unlink(volume.mnt / name)
    assert os.listdir(volume.cipher / "root") == []


def test_every_byte_and_no_normalisation(volume):
    top = os.fsencode(volume.mnt)
    names = {b"a" + bytes([byte]) + b"z" for byte in range(1, 256) if byte != ord("/")}
    names |= {b"e\xcc\x81", b"\xc3\xa9", b"Case", b"case", b"-", b"_", b"@", b"...", b" ", b".name"}
    names |= {b"@" + b"A" * 43, b"@" + b"A" * 43 + b".name", b"\xff" * 255}
    for name in names:
        os.mkdir(os.path.join(top, name))
    assert set(os.listdir(top)) == names
    volume.umount()
    assert {os.fsencode(path) for path, _ in volume.reader().walk()} == names
    volume.assert_verifies_clean()


def test_nothing_of_a_name_is_plain_below(volume):
    for length in (1, 20, SHORT, SHORT + 1, 255):
        os.mkdir(volume.mnt / name_of(length, "d"))
        write_file(volume.mnt / name_of(length, "d") / "secretname", b"x")
    for directory, directories, files in os.walk(below(volume)):
        for name in directories + files:
            assert b"secret" not in name and b"dddd" not in name
            stripped = name.removeprefix(b"@").removesuffix(b".name")
            assert set(stripped) <= ALPHABET and len(name) <= 255, name
    same = [volume.below(f"{name_of(n, 'd')}/secretname").name for n in (1, 20, 176)]
    assert len(set(same)) == 3, "the same name looks the same in two directories"


def test_a_deep_tree(volume):
    """Far deeper than a path can be long, with long and short names."""
    fds = [os.open(volume.mnt, os.O_RDONLY)]
    for depth in range(60):
        name = name_of((depth * 37) % 255 + 1, chr(ord("a") + depth % 26))
        os.mkdir(name, dir_fd=fds[-1])
        fds.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
        os.mknod(f"file{depth}", dir_fd=fds[-1])
    for fd in fds:
        os.close(fd)
    volume.umount()
    document = volume.assert_verifies_clean()
    assert document["totals"]["files"] == 60 and document["totals"]["directories"] == 61
    volume.mount()
    fd = os.open(volume.mnt, os.O_RDONLY)
    for depth in range(60):
        (name,) = [name for name in os.listdir(fd) if not name.startswith("file")]
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
        assert f"file{depth}" in os.listdir(fd)
    os.close(fd)


def test_names_that_differ_little_are_different_files(volume):
    names = [name_of(254, "x") + end for end in "abc"] + [name_of(SHORT - 1, "x") + end for end in "abc"]
    for name in names:
        write_file(volume.mnt / name, name[-1:].encode())
    assert sorted(os.listdir(volume.mnt)) == sorted(names)
    for name in names:
        assert read_file(volume.mnt / name) == name[-1:].encode()


@pytest.mark.parametrize("new", [1, SHORT, SHORT + 1, 255])
@pytest.mark.parametrize("old", [1, SHORT, SHORT + 1, 255])
def test_renames_links_and_exchanges_between_lengths(volume, old, new):
    for directory in ("one", name_of(200, "t")):
        os.mkdir(volume.mnt / directory)
    a = volume.mnt / "one" / name_of(old, "a")
    b = volume.mnt / name_of(200, "t") / name_of(new, "b")
    write_file(a, b"content")
    os.rename(a, b)
    assert read_file(b) == b"content" and os.listdir(a.parent) == []
    os.link(b, a)
    raises(errno.EEXIST, renameat2, a, b, RENAME_NOREPLACE)
    os.rename(a, b)  # links to one file: nothing happens
    assert a.exists() and b.exists()
    os.unlink(a)
    write_file(a, b"other")
    renameat2(a, b, RENAME_EXCHANGE)
    assert read_file(a) == b"content" and read_file(b) == b"other"
    for directory in ("one", name_of(200, "t")):
        assert_siblings_match(below(volume, directory))
    os.rename(b, a)
    assert read_file(a) == b"other" and os.listdir(b.parent) == []
    os.symlink("target", b)
    os.unlink(b)
    os.mkfifo(b)
    os.unlink(b)
    os.mkdir(b)
    os.rmdir(b)
    assert os.listdir(below(volume, name_of(200, "t"))) == []
    volume.umount()
    volume.assert_verifies_clean()


def test_a_large_directory_is_listed_whole_and_from_any_place(volume):
    """Offsets that telldir gave lead back to where they were taken."""
    names = {name_of(1 + n % 250, "f") + str(n % 97000) for n in range(scaled(4000))}
    names = {name for name in names if len(name) <= 255}
    for name in names:
        os.close(os.open(volume.mnt / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(volume.mnt)) == names
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(volume.mnt)))
    seen = []
    while True:
        offset = libc.telldir(stream)
        entry = libc.readdir(stream)
        if not entry:
            break
        seen.append((offset, ctypes.string_at(entry + 19)))
    assert {os.fsdecode(name) for _, name in seen} - {".", ".."} == names
    for offset, name in random.Random(1).sample(seen, 200):
        libc.seekdir(stream, ctypes.c_long(offset))
        assert ctypes.string_at(libc.readdir(stream) + 19) == name
    libc.closedir(stream)


def test_plain_is_a_choice_that_the_volume_keeps(make_volume):
    volume = make_volume(conf={"volume": {"names": "plain"}})
    write_file(volume.mnt / "seen", b"x")
    assert volume.status()["names"] == "plain"
    assert os.listdir(volume.cipher / "root") == ["seen"]
    volume.umount()
    volume.write_conf({"volume": {"names": "encrypted"}})  # for init alone
    volume.mount()
    write_file(volume.mnt / "too", b"x")
    assert sorted(os.listdir(volume.cipher / "root")) == ["seen", "too"]


# --- crashes -------------------------------------------------------------------------------------


def test_an_entry_without_its_sibling_is_still_had_by_name(volume):
    volume.expect_log("left out of the listing: the sibling with its long name is missing")
    name = name_of(200)
    write_file(volume.mnt / name, b"content")
    sibling = below(volume, name) + b".name"
    os.unlink(sibling)
    volume.remount()
    assert os.listdir(volume.mnt) == []
    assert read_file(volume.mnt / name) == b"content"
    assert volume.counter("name_failures") >= 1
    volume.umount()
    code, document = volume.verify()
    assert code == DAMAGED and len(findings(document, "sibling")) == 1
    volume.mount()
    # Making it again finds it there, and has the sibling back.
    raises(errno.EEXIST, os.mkdir, volume.mnt / name)
    assert os.listdir(volume.mnt) == []  # what the kernel was told is not its business
    os.rename(volume.mnt / name, volume.mnt / name_of(201))
    assert os.listdir(volume.mnt) == [name_of(201)]
    os.unlink(below(volume, name_of(201)) + b".name")
    os.unlink(volume.mnt / name_of(201))
    assert os.listdir(volume.cipher / "root") == []


def test_siblings_without_entries_are_in_nobodys_way(volume):
    for directory in ("d", "e", name_of(230, "e")):
        os.mkdir(volume.mnt / directory)
        for character in "xy":
            write_file(volume.mnt / directory / name_of(200, character), b"")
    volume.umount()
    for directory in ("d", "e", name_of(230, "e")):
        for character in "xy":
            os.unlink(below(volume, f"{directory}/{name_of(200, character)}"))
    volume.mount()
    assert os.listdir(volume.mnt / "d") == []
    volume.umount()
    document = volume.assert_verifies_clean()
    assert document["totals"]["orphans"] == 6
    volume.mount()
    write_file(volume.mnt / "d" / name_of(200, "x"), b"again")
    assert os.listdir(volume.mnt / "d") == [name_of(200, "x")]
    raises(errno.ENOTEMPTY, os.rmdir, volume.mnt / "d")
    os.unlink(volume.mnt / "d" / name_of(200, "x"))
    os.rename(volume.mnt / "d", volume.mnt / "e")
    os.rmdir(volume.mnt / "e")
    os.rmdir(volume.mnt / name_of(230, "e"))
    assert os.listdir(volume.cipher / "root") == []


def churn(directory, seed):
    """Long names made, renamed and removed until the filesystem is gone."""
    chance = random.Random(seed)
    names = [directory / name_of(length, c) for length in (180, 255) for c in "abcd"]
    for turn in range(100_000):
        a, b = chance.sample(names, 2)
        try:
            action = chance.randrange(5)
            if action == 0:
                os.close(os.open(a, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            elif action == 1:
                os.rename(a, b)
            elif action == 2:
                os.link(a, b)
            elif action == 3:
                os.unlink(a)
            else:
                renameat2(a, b, RENAME_EXCHANGE)
        except OSError as e:
            if e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
                return turn
            assert e.errno in (errno.ENOENT, errno.EEXIST), e
    raise AssertionError("it was not killed")


@pytest.mark.parametrize("seed", range(4))
def test_no_kill_leaves_an_entry_that_is_not_listed(volume, seed):
    thread = threading.Thread(target=churn, args=(volume.mnt, seed))
    thread.start()
    time.sleep(0.3 + seed / 10)
    volume.kill()
    thread.join(60)
    volume.close()
    document = volume.assert_verifies_clean()
    assert document["totals"]["orphans"] <= 1
    volume.mount()
    hashed = [n for n in os.listdir(below(volume)) if n.startswith(b"@") and not is_sibling(n)]
    assert len(os.listdir(volume.mnt)) == len(hashed)
    for name in os.listdir(volume.mnt):
        os.unlink(volume.mnt / name)
    assert os.listdir(volume.mnt) == []


def test_a_directory_that_a_crash_left_without_record_gets_one(volume):
    os.mkdir(volume.mnt / "d")
    path = below(volume, "d")
    os.removexattr(path, KEY_RECORD)
    volume.remount()
    raises(errno.ENOENT, os.stat, volume.mnt / "d" / "none")
    assert os.listdir(volume.mnt / "d") == []
    write_file(volume.mnt / "d" / "new", b"content")
    assert os.getxattr(path, KEY_RECORD)
    volume.remount()
    assert read_file(volume.mnt / "d" / "new") == b"content"


# --- attackers and accidents ---------------------------------------------------------------------


def test_a_changed_name_is_left_out_and_repaired(volume):
    volume.expect_log("left out of the listing")
    for name in ("a", "b", name_of(200)):
        write_file(volume.mnt / name, name[:1].encode() * 5000)
    for name in ("a", name_of(200)):
        path = below(volume, name)
        changed = path[:-1] + (b"A" if path[-1:] != b"A" else b"Q")
        os.rename(path, changed)
    volume.remount()
    assert os.listdir(volume.mnt) == ["b"]
    raises(errno.ENOENT, os.stat, volume.mnt / "a")
    assert volume.counter("name_failures") >= 2
    volume.umount()
    code, document = volume.verify()
    assert code == DAMAGED and len(document["findings"]) == 2
    assert len(findings(document, "name", "sibling")) == 2
    code, document = volume.verify("--repair")
    assert code == DAMAGED and document["totals"]["repairs"] == 2
    assert document["totals"]["orphans"] == 1  # of the long name
    recovered = {found["renamed_to"] for found in document["findings"]}
    assert all(name.startswith("recovered-") for name in recovered)
    volume.assert_verifies_clean()
    volume.mount()
    assert set(os.listdir(volume.mnt)) == {"b"} | recovered
    contents = {read_file(volume.mnt / name)[:1] for name in recovered}
    assert contents == {b"a", b"n"}


def test_entries_moved_between_directories_do_not_authenticate(volume):
    volume.expect_log("left out of the listing: its name does not authenticate")
    for directory in "ab":
        os.mkdir(volume.mnt / directory)
        for name in ("same", f"only-{directory}", name_of(220, directory)):
            write_file(volume.mnt / directory / name, directory.encode())
    a, b = below(volume, "a"), below(volume, "b")
    for name in os.listdir(a):
        os.rename(os.path.join(a, name), os.path.join(b, name))
    volume.remount()
    assert os.listdir(volume.mnt / "a") == []
    assert sorted(os.listdir(volume.mnt / "b")) == sorted(["same", "only-b", name_of(220, "b")])
    assert read_file(volume.mnt / "b" / "same") == b"b"
    volume.umount()
    code, document = volume.verify()
    assert code == DAMAGED and len(findings(document, "name")) == 3
    assert all(found["path"].startswith("b/") for found in document["findings"])
    # Whole directories can be exchanged: the threat model says so.
    renameat2(a, b, RENAME_EXCHANGE)
    volume.mount()
    assert os.listdir(volume.mnt / "b") == []


@pytest.mark.parametrize("damage", ["missing", "damaged", "another's"])
def test_a_directory_without_its_record_breaks_nothing_else(volume, damage):
    volume.expect_log("the directory's key record is (missing|damaged)")
    volume.expect_log("left out of the listing: its name does not authenticate")
    for directory in ("good", "bad"):
        os.mkdir(volume.mnt / directory)
        write_file(volume.mnt / directory / "file", directory.encode())
    path = below(volume, "bad")
    record = os.getxattr(path, KEY_RECORD)
    if damage == "missing":
        os.removexattr(path, KEY_RECORD)
    elif damage == "damaged":
        os.setxattr(path, KEY_RECORD, record[:-1] + bytes([record[-1] ^ 1]))
    else:
        os.setxattr(path, KEY_RECORD, os.getxattr(below(volume, "good"), KEY_RECORD))
    volume.remount()
    assert sorted(os.listdir(volume.mnt)) == ["bad", "good"]
    assert read_file(volume.mnt / "good" / "file") == b"good"
    if damage == "another's":
        # It is a record of this volume: only what it should open tells that it is wrong.
        assert os.listdir(volume.mnt / "bad") == []
        raises(errno.ENOENT, os.stat, volume.mnt / "bad" / "file")
    else:
        raises(errno.EIO, os.listdir, volume.mnt / "bad")
        raises(errno.EIO, os.stat, volume.mnt / "bad" / "file")
        raises(errno.EIO, os.mkdir, volume.mnt / "bad" / "new")
        assert volume.counter("record_failures") > 0
    raises(errno.ENOTEMPTY, os.rmdir, volume.mnt / "bad")
    os.rename(volume.mnt / "bad", volume.mnt / "moved")
    volume.umount()
    code, document = volume.verify()
    assert code == DAMAGED
    kind, where = ("name", "moved/") if damage == "another's" else ("directory", "moved")
    assert [found["path"].startswith(where) for found in findings(document, kind)] == [True]
    os.setxattr(path := below(volume, "moved"), KEY_RECORD, record)
    assert path
    volume.assert_verifies_clean()
    volume.mount()
    assert read_file(volume.mnt / "moved" / "file") == b"bad"


def test_a_rotation_sees_entries_whose_names_are_damaged(volume):
    """Their key records must not be left under the old key."""
    volume.expect_log("left out of the listing")
    os.mkdir(volume.mnt / "d")
    write_file(volume.mnt / "d" / "f", b"content")
    path = below(volume, "d/f")
    os.rename(path, os.path.join(os.path.dirname(path), b"damaged"))
    volume.umount()
    run(turnkeyfs(), "key", "rotate", "-c", volume.conf)
    volume.command("rotate", volume.cipher)
    keks = {kek["version"]: kek["state"] for kek in volume.status(volume.cipher)["kek_versions"]}
    assert keks == {1: "retired", 2: "active"}
    code, document = volume.verify("--repair")
    assert code == DAMAGED and document["totals"]["repairs"] == 1
    volume.mount()
    (name,) = os.listdir(volume.mnt / "d")
    assert read_file(volume.mnt / "d" / name) == b"content"


def test_all_is_there_after_a_copy_with_attributes(volume, work):
    os.mkdir(volume.mnt / "d")
    for length in (1, SHORT, SHORT + 1, 255):
        os.mkdir(volume.mnt / "d" / name_of(length, "d"))
        write_file(volume.mnt / "d" / name_of(length, "f"), name_of(length).encode())
    before = tree(volume.mnt)
    volume.umount()
    run("cp", "-a", volume.cipher, work / "copy")
    shutil.rmtree(volume.cipher)
    run("cp", "-a", work / "copy", volume.cipher)
    volume.mount()
    assert tree(volume.mnt) == before


# --- many at once --------------------------------------------------------------------------------


def compete(directory, seed):
    chance = random.Random(seed)
    names = [directory / name_of(200, c) for c in "abc"] + [directory / "short"]
    for _ in range(scaled(400)):
        a, b = chance.sample(names, 2)
        try:
            action = chance.randrange(6)
            if action < 2:
                os.close(os.open(a, os.O_CREAT | os.O_WRONLY))
            elif action == 2:
                os.rename(a, b)
            elif action == 3:
                os.unlink(a)
            elif action == 4:
                os.link(a, b)
            else:
                renameat2(a, b, RENAME_EXCHANGE)
        except OSError as e:
            assert e.errno in (errno.ENOENT, errno.EEXIST), e


def test_many_processes_at_the_same_long_names_lose_no_sibling(volume):
    in_parallel([lambda seed=seed: compete(volume.mnt, seed) for seed in range(8)])
    assert_siblings_match(below(volume))
    assert volume.counter("name_failures") == 0
    listed = set(os.listdir(volume.mnt))
    assert listed <= {name_of(200, c) for c in "abc"} | {"short"}
    volume.umount()
    volume.assert_verifies_clean()


def test_many_processes_that_make_the_first_entry_agree_on_the_key(volume):
    for turn in range(10):
        directory = volume.mnt / f"d{turn}"
        os.mkdir(directory)
        os.removexattr(below(volume, f"d{turn}"), KEY_RECORD)
    volume.remount()
    for turn in range(10):
        directory = volume.mnt / f"d{turn}"
        in_parallel([lambda n=n, d=directory: write_file(d / f"f{n}", b"x") for n in range(6)])
        assert sorted(os.listdir(directory)) == [f"f{n}" for n in range(6)]
    volume.umount()
    volume.assert_verifies_clean()


# --- without root --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o100, 0o300, 0o500])
def test_without_root_a_directory_that_its_owner_can_not_read_keeps_its_names(mine, mode):
    directory = mine.mnt / "d"

    def make():
        os.mkdir(directory)
        write_file(directory / "found", b"content")
        os.chmod(directory, mode)

    def look():
        assert read_file(directory / "found") == b"content"
        assert directory.stat().st_mode & 0o7777 == mode

    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], make)
    mine.remount()
    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], look)
    assert os.stat(mine.below("d")).st_mode & 0o7777 == mode


def test_the_reader_extracts_what_the_mount_shows(volume, work):
    for length in (3, SHORT, SHORT + 1, 255):
        directory = volume.mnt / name_of(length, "d")
        os.mkdir(directory)
        for inner in (2, 200):
            write_file(directory / name_of(inner, "f"), name_of(length * inner).encode())
            os.symlink(name_of(inner, "t"), directory / name_of(inner, "l"))
    assert not reader.extract(volume.reader(), work / "extracted")
    assert {p: v[4:6] for p, v in tree(work / "extracted").items()} == {
        p: v[4:6] for p, v in tree(volume.mnt).items()
    }
