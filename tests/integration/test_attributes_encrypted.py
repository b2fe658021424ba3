# SPDX-License-Identifier: Apache-2.0
"""Attributes of the user namespace and symlink targets, encrypted with the names: what can be
seen and changed below, what of that is noticed, and that programs carry them about as ever."""

import errno
import os
import subprocess

import pytest
import turnkeyfs_reader as reader
from helpers import NOBODY, as_user, in_parallel, noise, raises, read_file, write_file
from key_states import LocalKey, wait_refused, wait_served, windows
from mountpoint import KEY_RECORD, run, turnkeyfs

PREFIX = "user.turnkey."
NAME_MAX = 170
TARGET_MAX = 3043
SEALED = 28  # bytes that a sealed value has more

pytestmark = pytest.mark.conf({"volume": {"names": "encrypted"}})


def attributes(path):
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def stored(volume, relative):
    """{stored name: stored value} of the attributes below, the key record left out."""
    path = volume.below(relative)
    return {
        name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith(PREFIX)
    }


def only(mapping):
    (item,) = mapping.items()
    return item


def expect_damage(volume):
    volume.expect_log("does not authenticate")


def set_everywhere(volume):
    """A file and a directory with three attributes each."""
    write_file(volume.mnt / "f", noise(5000))
    os.mkdir(volume.mnt / "d")
    for name in "fd":
        os.setxattr(volume.mnt / name, "user.confidential", b"cleartext " + name.encode())
        os.setxattr(volume.mnt / name, "user.empty", b"")
        os.setxattr(volume.mnt / name, "user.bytes", bytes(range(256)))


def expected_of(name):
    return {
        "user.confidential": b"cleartext " + name.encode(),
        "user.empty": b"",
        "user.bytes": bytes(range(256)),
    }


# --- attributes ----------------------------------------------------------------------------------


def test_nothing_of_an_attribute_is_plain_below(volume):
    set_everywhere(volume)
    for name in "fd":
        found = stored(volume, name)
        assert len(found) == 3
        assert sorted(len(value) for value in found.values()) == [SEALED, SEALED + 11, SEALED + 256]
        text = " ".join(found) + " ".join(map(repr, found.values()))
        assert "confidential" not in text and "clear" not in text and "empty" not in text
    assert not set(stored(volume, "f")) & set(stored(volume, "d")), "names tell files apart"


def test_attributes_outlive_a_remount_and_the_reader_agrees(volume):
    set_everywhere(volume)
    volume.remount()
    for name in "fd":
        assert attributes(volume.mnt / name) == expected_of(name)
    volume.umount()
    for name in "fd":
        found = volume.reader().attributes(volume.below(name))
        assert found == {os.fsencode(key): value for key, value in expected_of(name).items()}
    volume.assert_verifies_clean()


def test_an_attribute_replaced_many_times_keeps_one_place(volume):
    write_file(volume.mnt / "f", b"")
    for i in range(300):
        os.setxattr(volume.mnt / "f", "user.counter", str(i).encode())
    assert len(stored(volume, "f")) == 1
    assert attributes(volume.mnt / "f") == {"user.counter": b"299"}


def test_names_up_to_the_limit(volume):
    write_file(volume.mnt / "f", b"")
    path = volume.mnt / "f"
    for length in (6, 7, 100, NAME_MAX - 1, NAME_MAX):
        name = "user." + "n" * (length - 5)
        os.setxattr(path, name, b"v")
        assert attributes(path) == {name: b"v"}
        os.removexattr(path, name)
    for length in (NAME_MAX + 1, 255):
        name = "user." + "n" * (length - 5)
        raises(errno.ERANGE, os.setxattr, path, name, b"v")
        raises(errno.ENODATA, os.getxattr, path, name)
        raises(errno.ENODATA, os.removexattr, path, name)
    assert os.listxattr(path) == []


@pytest.mark.parametrize(
    ("filesystem", "largest", "beyond"),
    [
        # What each gives to one attribute, with its own overhead and our 28 bytes taken off.
        pytest.param(kind, largest, beyond, marks=pytest.mark.backing(kind))
        for kind, largest, beyond in (
            ("ext4", 3900, errno.ENOSPC),
            ("xfs", 65536 - SEALED, errno.E2BIG),
            ("btrfs", 16000, errno.ENOSPC),
            ("tmpfs", 65536 - SEALED, errno.E2BIG),
        )
    ],
)
def test_the_largest_value_is_the_backing_filesystems(volume, filesystem, largest, beyond):
    path = volume.mnt / "f"
    write_file(path, b"")
    os.setxattr(path, "user.a", noise(largest))
    assert os.getxattr(path, "user.a") == noise(largest)
    raises(beyond, os.setxattr, path, "user.a", noise(largest + 500))
    assert os.getxattr(path, "user.a") == noise(largest), "a refused value changes nothing"
    raises(errno.E2BIG, os.setxattr, path, "user.a", bytes(65537))


def test_our_own_attributes_are_invisible_and_untouchable(volume):
    set_everywhere(volume)
    for name in "fd":
        path, below = volume.mnt / name, volume.below(name)
        before = {key: os.getxattr(below, key) for key in os.listxattr(below)}
        for ours in (KEY_RECORD, PREFIX, PREFIX + "x", *stored(volume, name)):
            raises(errno.ENODATA, os.getxattr, path, ours)
            raises(errno.ENODATA, os.removexattr, path, ours)
            raises(errno.EPERM, os.setxattr, path, ours, b"x")
        assert {key: os.getxattr(below, key) for key in os.listxattr(below)} == before
        assert sorted(os.listxattr(path)) == sorted(expected_of(name))


def test_other_namespaces_pass_through(volume):
    write_file(volume.mnt / "f", b"x")
    path, below = volume.mnt / "f", volume.below("f")
    os.setxattr(path, "trusted.a", b"t")
    os.setxattr(path, "security.test", b"s")
    run("setfacl", "-m", "u:1000:rw", path)
    assert os.getxattr(below, "trusted.a") == b"t"
    assert os.getxattr(below, "security.test") == b"s"
    assert os.getxattr(below, "system.posix_acl_access") == os.getxattr(
        path, "system.posix_acl_access"
    )
    assert stored(volume, "f") == {}


def test_a_foreign_attribute_below_is_nobodys(volume):
    write_file(volume.mnt / "f", b"x")
    os.setxattr(volume.below("f"), "user.backup", b"below")
    assert os.listxattr(volume.mnt / "f") == []
    raises(errno.ENODATA, os.getxattr, volume.mnt / "f", "user.backup")
    os.setxattr(volume.mnt / "f", "user.backup", b"above")
    assert os.getxattr(volume.below("f"), "user.backup") == b"below"
    assert attributes(volume.mnt / "f") == {"user.backup": b"above"}


def test_permissions_are_those_of_plain_attributes(volume):
    path = volume.mnt / "f"
    write_file(path, b"x", mode=0o444)
    os.setxattr(path, "user.a", b"1")
    os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)

    def owner():
        assert os.getxattr(path, "user.a") == b"1"
        raises(errno.EACCES, os.setxattr, path, "user.a", b"2")
        raises(errno.EACCES, os.removexattr, path, "user.a")

    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], owner)
    os.chmod(path, 0o200)
    as_user(
        NOBODY.pw_uid, NOBODY.pw_gid, [], lambda: raises(errno.EACCES, os.getxattr, path, "user.a")
    )
    os.chmod(path, 0o600)
    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], lambda: os.setxattr(path, "user.a", b"2"))
    assert os.getxattr(path, "user.a") == b"2"


def test_permissions_are_those_of_plain_attributes_without_root(mine):
    """The daemon has no more rights than its user: a mode must not stand in its own way."""

    def use():
        for name in ("file", "empty", "dir"):
            path = mine.mnt / name
            if name == "dir":
                os.mkdir(path)
            else:
                write_file(path, b"x" if name == "file" else b"")
            os.setxattr(path, "user.a", b"1")
            os.chmod(path, 0o555)
            assert os.getxattr(path, "user.a") == b"1"
            assert os.listxattr(path) == ["user.a"]
            raises(errno.EACCES, os.setxattr, path, "user.a", b"2")
            raises(errno.EACCES, os.removexattr, path, "user.a")
            os.chmod(path, 0o300)
            raises(errno.EACCES, os.getxattr, path, "user.a")
            os.setxattr(path, "user.a", b"3")
            os.setxattr(path, "user.b", b"4")
            os.removexattr(path, "user.b")
            os.chmod(path, 0o700)
            assert attributes(path) == {"user.a": b"3"}

    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], use)
    mine.remount()

    def look():
        for name in ("file", "empty", "dir"):
            assert attributes(mine.mnt / name) == {"user.a": b"3"}

    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], look)


def test_many_at_once_in_one_file(volume):
    write_file(volume.mnt / "f", b"")
    path = volume.mnt / "f"

    def worker(number):
        for i in range(200):
            os.setxattr(path, f"user.{number}", f"{number}.{i}".encode())
            assert os.getxattr(path, f"user.{number}") == f"{number}.{i}".encode()
            if i % 10 == 0:
                assert f"user.{number}" in os.listxattr(path)
                os.removexattr(path, f"user.{number}")
                assert f"user.{number}" not in os.listxattr(path)

    in_parallel([lambda number=number: worker(number) for number in range(4)])
    assert attributes(path) == {f"user.{number}": f"{number}.199".encode() for number in range(4)}


# --- damage --------------------------------------------------------------------------------------


def test_a_damaged_value_is_an_error_until_it_is_replaced(volume):
    expect_damage(volume)
    set_everywhere(volume)
    for name in "fd":
        path, below = volume.mnt / name, volume.below(name)
        for key, value in stored(volume, name).items():
            damaged = bytearray(value)
            damaged[-1] ^= 1
            os.setxattr(below, key, bytes(damaged))
        for key in expected_of(name):
            raises(errno.EIO, os.getxattr, path, key)
        assert sorted(os.listxattr(path)) == sorted(expected_of(name))
        os.setxattr(path, "user.empty", b"new")
        assert os.getxattr(path, "user.empty") == b"new"
        os.removexattr(path, "user.bytes")
    assert volume.counter("attribute_failures") >= 6
    volume.umount()
    code, document = volume.verify()
    assert code != 0
    found = {(f["kind"], f["path"], f["attribute"]) for f in document["findings"]}
    assert found == {("attribute", path, "user.confidential") for path in ("f", "d")}


def test_a_damaged_name_is_left_out_and_reported(volume):
    expect_damage(volume)
    set_everywhere(volume)
    odd = PREFIX + "AAAAAAAAAAAAAAAAAAAAAAAAAA"
    for name in "fd":
        os.setxattr(volume.below(name), odd, b"x")
        assert attributes(volume.mnt / name) == expected_of(name)
    assert volume.counter("attribute_failures") >= 2
    volume.umount()
    _, document = volume.verify()
    found = {(f["kind"], f["path"], f["attribute"]) for f in document["findings"]}
    assert found == {("attribute", path, odd) for path in ("f", "d")}
    with pytest.raises(reader.AttributeDamaged):
        volume.reader().attributes(volume.below("f"))


def test_an_attribute_copied_to_another_file_is_no_attribute_there(volume):
    expect_damage(volume)
    for name in "ab":
        write_file(volume.mnt / name, b"x")
    os.setxattr(volume.mnt / "a", "user.origin", b"trusted")
    key, value = only(stored(volume, "a"))
    os.setxattr(volume.below("b"), key, value)
    assert os.listxattr(volume.mnt / "b") == []
    raises(errno.ENODATA, os.getxattr, volume.mnt / "b", "user.origin")
    volume.umount()
    _, document = volume.verify()
    assert [(f["kind"], f["path"]) for f in document["findings"]] == [("attribute", "b")]


def test_a_value_under_another_name_or_in_another_file_is_an_error(volume):
    expect_damage(volume)
    for name in "ab":
        write_file(volume.mnt / name, b"x")
        os.setxattr(volume.mnt / name, "user.origin", name.encode())
    key_a, value_a = only(stored(volume, "a"))
    key_b, _ = only(stored(volume, "b"))
    os.setxattr(volume.below("b"), key_b, value_a)
    raises(errno.EIO, os.getxattr, volume.mnt / "b", "user.origin")

    os.setxattr(volume.mnt / "a", "user.other", b"other")
    (key_other,) = set(stored(volume, "a")) - {key_a}
    os.setxattr(volume.below("a"), key_other, value_a)
    raises(errno.EIO, os.getxattr, volume.mnt / "a", "user.other")
    assert os.getxattr(volume.mnt / "a", "user.origin") == b"a"


def test_an_older_value_or_a_removed_attribute_is_not_noticed(volume):
    """What docs/threat-model.md says is not detected, is not."""
    write_file(volume.mnt / "f", b"x")
    os.setxattr(volume.mnt / "f", "user.a", b"older")
    key, value = only(stored(volume, "f"))
    os.setxattr(volume.mnt / "f", "user.a", b"newer")
    os.setxattr(volume.below("f"), key, value)
    assert os.getxattr(volume.mnt / "f", "user.a") == b"older"
    os.removexattr(volume.below("f"), key)
    assert os.listxattr(volume.mnt / "f") == []


# --- symlinks ------------------------------------------------------------------------------------


def test_targets_are_not_plain_below_and_have_the_right_size(volume):
    targets = ["/", "../somewhere/else", "/absolute", "é" * 20, "t" * 700]
    for i, target in enumerate(targets):
        os.symlink(target, volume.mnt / f"l{i}")
    for _ in range(2):
        for i, target in enumerate(targets):
            path = volume.mnt / f"l{i}"
            assert os.lstat(path).st_size == len(os.fsencode(target))
            assert os.readlink(path) == target
            assert target not in os.readlink(volume.below(f"l{i}"))
        volume.remount()
    volume.umount()
    for i, target in enumerate(targets):
        assert volume.reader().target(volume.below(f"l{i}")) == os.fsencode(target)
    volume.assert_verifies_clean()


def test_symlinks_are_followed(volume):
    os.mkdir(volume.mnt / "d")
    write_file(volume.mnt / "d/f", b"content")
    os.symlink("d/f", volume.mnt / "to-file")
    os.symlink("d", volume.mnt / "to-dir")
    os.symlink("to-dir", volume.mnt / "to-to-dir")
    assert read_file(volume.mnt / "to-file") == b"content"
    assert read_file(volume.mnt / "to-to-dir/f") == b"content"
    os.symlink("missing", volume.mnt / "dangling")
    raises(errno.ENOENT, read_file, volume.mnt / "dangling")
    os.link(volume.mnt / "to-file", volume.mnt / "hard", follow_symlinks=False)
    assert os.readlink(volume.mnt / "hard") == "d/f"


def test_the_longest_target(volume):
    os.symlink("t" * TARGET_MAX, volume.mnt / "longest")
    raises(errno.ENAMETOOLONG, os.symlink, "t" * (TARGET_MAX + 1), volume.mnt / "longer")
    volume.remount()
    assert os.readlink(volume.mnt / "longest") == "t" * TARGET_MAX
    assert os.listdir(volume.mnt) == ["longest"]


@pytest.mark.backing("xfs")
def test_the_longest_target_on_xfs(volume):
    os.symlink("t" * 739, volume.mnt / "longest")
    raises(errno.ENAMETOOLONG, os.symlink, "t" * 740, volume.mnt / "longer")
    assert os.readlink(volume.mnt / "longest") == "t" * 739
    assert os.listdir(volume.mnt) == ["longest"]


def replace_target(volume, relative, target):
    path = volume.below(relative)
    os.unlink(path)
    os.symlink(target, path)


def test_a_target_that_was_tampered_with_is_an_error(volume):
    expect_damage(volume)
    for name in ("plain", "flipped", "cut", "good"):
        os.symlink("../target", volume.mnt / name)
    good = os.readlink(volume.below("good"))
    volume.umount()
    replace_target(volume, "plain", "/etc/passwd")
    replace_target(volume, "flipped", ("A" if good[20] != "A" else "B").join((good[:20], good[21:])))
    replace_target(volume, "cut", good[:-4])
    _, document = volume.verify()
    findings = sorted((f["kind"], f["path"]) for f in document["findings"])
    assert findings == [("target", "cut"), ("target", "flipped"), ("target", "plain")]
    volume.mount()
    for name in ("plain", "flipped", "cut"):
        os.lstat(volume.mnt / name)
        raises(errno.EIO, os.readlink, volume.mnt / name)
        raises(errno.EIO, os.stat, volume.mnt / name)
    assert os.readlink(volume.mnt / "good") == "../target"
    assert volume.counter("target_failures") >= 3
    assert sorted(os.listdir(volume.mnt)) == ["cut", "flipped", "good", "plain"]
    for name in ("plain", "flipped", "cut"):
        os.unlink(volume.mnt / name)


def test_targets_swapped_between_symlinks_are_not_noticed(volume):
    """What docs/threat-model.md says is not detected, is not."""
    for name in "ab":
        os.symlink(f"../{name}", volume.mnt / name)
    a, b = (os.readlink(volume.below(name)) for name in "ab")
    volume.umount()
    replace_target(volume, "a", b)
    replace_target(volume, "b", a)
    volume.mount()
    assert [os.readlink(volume.mnt / name) for name in "ab"] == ["../b", "../a"]


def test_a_target_of_another_volume_is_an_error(volume, make_volume):
    expect_damage(volume)
    other = make_volume("other", conf={"volume": {"names": "encrypted"}})
    for one in (volume, other):
        os.symlink("../target", one.mnt / "l")
    foreign = os.readlink(other.below("l"))
    volume.umount()
    replace_target(volume, "l", foreign)
    volume.mount()
    raises(errno.EIO, os.readlink, volume.mnt / "l")


# --- programs ------------------------------------------------------------------------------------


@pytest.fixture
def source(work):
    """A plain tree with attributes and symlinks."""
    top = work / "source"
    os.makedirs(top / "d/deep")
    for i, path in enumerate(("f", "d/g", "d/deep/h")):
        write_file(top / path, noise(i * 3000, i))
        os.setxattr(top / path, "user.mime_type", f"text/{i}".encode())
        os.setxattr(top / path, "user.empty", b"")
    os.setxattr(top / "d", "user.on.directory", bytes(range(200)))
    os.symlink("../f", top / "d/l")
    os.symlink("/nowhere/at/all", top / "dangling")
    return top


def everything(top):
    """{path: (target, attributes)} of a tree."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            target = os.readlink(path) if os.path.islink(path) else None
            found[os.path.relpath(path, top)] = (
                target,
                None if target else {n: os.getxattr(path, n) for n in os.listxattr(path)},
                os.lstat(path).st_size if target or os.path.isfile(path) else None,
            )
    return found


COPIES = {
    "cp": ["cp -a {from}/. {to}"],
    "rsync": ["rsync -aX {from}/ {to}/"],
    "tar": ["tar --xattrs -C {from} -cf {work}/t.tar .", "tar --xattrs -C {to} -xf {work}/t.tar"],
    "setfattr": [
        "cp -r --preserve=mode {from}/. {to}",
        "cd {from} && getfattr -h -R -d -e hex . >{work}/attributes",
        "cd {to} && setfattr -h --restore={work}/attributes",
    ],
}


@pytest.mark.parametrize("how", COPIES)
def test_programs_carry_them_in_about_and_out(volume, source, work, how):
    expected = everything(source)
    os.mkdir(work / "back")
    places = [source, volume.mnt / "in", volume.mnt / "about", work / "back"]
    for a, b in zip(places, places[1:]):
        os.makedirs(b, exist_ok=True)
        for command in COPIES[how]:
            words = command.replace("{from}", str(a)).replace("{to}", str(b))
            run("sh", "-ec", words.replace("{work}", str(work)))
        assert everything(b) == expected, (how, b)
        if b == volume.mnt / "about":
            volume.remount()
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.parametrize("how", ["cp -a {from}/. {to}", "rsync -aX {from}/ {to}/"])
def test_a_copy_of_the_cipherdir_has_them_at_once(volume, source, work, how):
    run("cp", "-a", f"{source}/.", volume.mnt)
    volume.umount()
    copy = work / "copy"
    os.mkdir(copy)
    run("sh", "-ec", how.replace("{from}", str(volume.cipher)).replace("{to}", str(copy)))
    volume.cipher = copy
    volume.mount()
    assert everything(volume.mnt) == everything(source)
    volume.umount()
    volume.assert_verifies_clean()


def test_getfattr_dumps_them(volume):
    set_everywhere(volume)
    done = run("getfattr", "-d", "--absolute-names", volume.mnt / "f")
    assert 'user.confidential="cleartext f"' in done.stdout and PREFIX not in done.stdout


# --- key changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dek_wrap", ["kek", "kms"])
def test_attributes_outlive_a_rotation_while_they_are_in_use(make_volume, dek_wrap):
    volume = make_volume(conf={"volume": {"names": "encrypted", "dek_wrap": dek_wrap}})
    set_everywhere(volume)
    os.symlink("f", volume.mnt / "l")
    for i in range(40):
        write_file(volume.mnt / f"d/{i}", b"x")
    fd = os.open(volume.mnt / "f", os.O_RDONLY)
    rotation = subprocess.Popen(
        [turnkeyfs(), "rotate", "--wait", volume.mnt], stdout=subprocess.DEVNULL
    )
    count = 0
    while rotation.poll() is None or count < 40:
        for path in (fd, volume.mnt / f"d/{count % 40}", volume.mnt / "d"):
            os.setxattr(path, "user.count", str(count).encode())
            assert os.getxattr(path, "user.count") == str(count).encode()
        count += 1
    assert rotation.returncode == 0
    os.close(fd)
    volume.remount()
    assert attributes(volume.mnt / "f").items() >= expected_of("f").items()
    assert os.readlink(volume.mnt / "l") == "f"
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.parametrize("dek_wrap", ["kek", "kms"])
def test_a_revocation_takes_them_away_and_gives_them_back(make_volume, dek_wrap):
    volume = make_volume(conf=windows() | {"volume": {"names": "encrypted", "dek_wrap": dek_wrap}})
    key = LocalKey(volume)
    set_everywhere(volume)
    os.symlink("f", volume.mnt / "l")
    fds = {name: os.open(volume.mnt / name, os.O_RDONLY) for name in "fd"}
    assert os.readlink(volume.mnt / "l") == "f"
    key.disable()
    wait_refused(os.getxattr, fds["f"], "user.confidential")
    for fd in fds.values():
        raises(errno.EKEYREVOKED, os.getxattr, fd, "user.confidential")
        raises(errno.EKEYREVOKED, os.listxattr, fd)
        raises(errno.EKEYREVOKED, os.setxattr, fd, "user.new", b"x")
    raises(errno.EKEYREVOKED, os.readlink, volume.mnt / "l")
    raises(errno.EKEYREVOKED, os.symlink, "f", volume.mnt / "m")
    key.enable()
    wait_served(os.getxattr, fds["f"], "user.confidential")
    for name, fd in fds.items():
        assert attributes(fd) == expected_of(name)
        os.close(fd)
    assert os.readlink(volume.mnt / "l") == "f"
