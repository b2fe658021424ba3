# SPDX-License-Identifier: Apache-2.0
"""Entries made by somebody with write access to the backing directory, even with its keys.

Whatever they are called, listings go on without them, each is logged and counted, and
`verify --repair` makes them usable, so that they can be removed.
"""

import errno
import hashlib
import os
import shutil
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from helpers import NOBODY, raises, read_file, write_file
from mountpoint import KEY_RECORD, reader, run, scaled, turnkeyfs

pytestmark = pytest.mark.conf({"volume": {"names": "encrypted"}})

DAMAGED = 14
LONG = "long" * 60
GOOD = ["short", LONG, "s" * 175, "l" * 176]
BACKINGS = [
    "here",
    *(pytest.param(kind, marks=pytest.mark.backing(kind)) for kind in ("ext4", "xfs", "btrfs")),
]


class Attacker:
    """Who has the keys of a directory and writes below what the filesystem never would."""

    def __init__(self, volume, relative):
        self.path = os.fsencode(volume.below(relative))
        self.key = volume.reader().directory(os.fsdecode(self.path)).name_key()
        self.made = 0

    def seal(self, name):
        return AESSIV(self.key).encrypt(name, None)

    def short(self, name):
        return reader.base64url(self.seal(name)).encode()

    def hashed(self, cipher):
        return b"@" + reader.base64url(hashlib.sha256(cipher).digest()).encode()

    def put(self, backing, target=None):
        """An entry of that backing name, and its sibling if @target is what that holds."""
        path = os.path.join(self.path, backing)
        write_file(path, b"")
        if target is not None:
            os.symlink(target, path + b".name")
        self.made += 1

    def put_long(self, name):
        cipher = self.seal(name)
        self.put(self.hashed(cipher), reader.base64url(cipher).encode())


def names_that_are_none(attacker):
    """Ciphertexts that authenticate, of what is no name, or in the wrong form."""
    for name in (b".", b"..", b"a/b", b"/", b"a\0b", b"\0", b"ends\0", b"../../etc/passwd"):
        attacker.put(attacker.short(name))
    # AES-SIV makes a tag of nothing, too; the library here refuses that.
    for name in (b"in the long form", b"x" * 175, b"x" * 256, b"a/" * 100, b"\0" * 200):
        attacker.put_long(name)


def texts_that_are_none(attacker):
    """Backing names that no ciphertext has."""
    good = attacker.short(b"a name of this directory")
    last = {b"A": b"B", b"Q": b"R", b"g": b"h", b"w": b"x"}.get(good[-1:], b"_")
    for name in (
        b"a",
        b"@",
        b"plain.txt",
        b"\xff\xfe\xfd",
        b"new\nline",
        b"-" * 255,
        b"@" * 255,
        b"A" * 255,
        b"A" * 253,
        b"_" * 23,
        b"\xc3" * 255,
        b"@" + b"A" * 43,
        b"@" + b"A" * 44,
        b"@" + b"A" * 42 + b".name",
        b"@" + b"A" * 44 + b".name",
        good + b"=",
        good[:-1],
        good[:-1] + last,
        good.swapcase(),
    ):
        attacker.put(name)


def siblings_that_are_none(attacker):
    """Long entries whose siblings lie, and siblings of other kinds."""
    cipher = attacker.seal(b"n" * 200)
    text = reader.base64url(cipher).encode()
    other = reader.base64url(attacker.seal(b"o" * 200)).encode()
    for number, target in enumerate(
        (
            text,  # right, but of another hash
            other,
            b"x" * 1000,
            b"A" * 4095,
            b"/" * 4095,
            b"../" * 1300,
            b"new\nline",
            b"not base64url!",
            b"\xff\xfe",
            text + b"=",
            text[:-1],
            b"A",
            b"/etc/passwd",
        )
    ):
        name = b"@" + reader.base64url(hashlib.sha256(b"%d" % number).digest()).encode()
        if len(target) <= attacker.target_max:
            attacker.put(name, target)
    # Under the right hash, but another text.
    attacker.put(attacker.hashed(cipher), other)
    for number, make in enumerate((os.mkdir, os.mkfifo, os.mknod)):
        name = b"@" + reader.base64url(hashlib.sha256(b"kind %d" % number).digest()).encode()
        attacker.put(name)
        make(os.path.join(attacker.path, name + b".name"))
        attacker.made += 1  # what is no symlink is no sibling


@pytest.fixture
def good(volume):
    """A directory with entries of all kinds, and one for the attacker."""
    for directory in ("d", "other"):
        os.mkdir(volume.mnt / directory)
        for name in GOOD:
            write_file(volume.mnt / directory / name, name.encode() + directory.encode())
    return volume


def assert_good(volume, directory="d"):
    for name in GOOD:
        assert read_file(volume.mnt / directory / name) == name.encode() + directory.encode()


@pytest.mark.parametrize("filesystem", BACKINGS)
@pytest.mark.parametrize("what", [names_that_are_none, texts_that_are_none, siblings_that_are_none])
def test_no_name_below_breaks_a_listing(good, what, filesystem):
    volume = good
    volume.expect_log("left out of the listing")
    volume.expect_log("similar lines were left out")
    attacker = Attacker(volume, "d")
    attacker.target_max = 1000 if filesystem == "xfs" else 4095
    what(attacker)
    volume.remount()
    before = volume.counter("name_failures")
    assert sorted(os.listdir(volume.mnt / "d")) == sorted(GOOD)
    assert volume.counter("name_failures") == before + attacker.made, "each is counted, once"
    logged = [line for line in volume.log().splitlines() if "left out of the listing" in line]
    assert min(attacker.made, 20) <= len(logged) <= 40, "and logged, but not without end"
    assert "verify --repair" in logged[0]
    assert_good(volume)
    found = run("find", volume.mnt, "-ls").stdout
    assert found.count("\n") == 3 + 2 * len(GOOD)
    # It can't be removed while there is something that nobody sees; then it can.
    done = run("rm", "-rf", volume.mnt / "d", check=False)
    assert done.returncode == 1 and "not empty" in done.stderr
    volume.umount()
    # The independent reader refuses the same entries, and no others.
    decrypted, refused = volume.reader(), []
    listed = {path for path, _, _ in decrypted.walk_backing(refused)}
    assert listed == {"d", "other"} | {f"other/{name}" for name in GOOD}
    assert len(refused) == attacker.made
    assert all(isinstance(failure, reader.NameDamaged) for failure in refused)
    assert len(reader.check(decrypted)) == attacker.made
    code, document = volume.verify("--repair")
    assert code == DAMAGED and document["totals"]["repairs"] == attacker.made
    assert volume.assert_verifies_clean()["totals"]["orphans"] == 0
    volume.mount()
    assert len(os.listdir(volume.mnt / "d")) == attacker.made
    run("rm", "-rf", volume.mnt / "d")
    assert os.listdir(volume.mnt) == ["other"]
    assert_good(volume, "other")
    volume.umount()
    volume.assert_verifies_clean()


def test_a_name_of_nothing_is_none(good):
    """The ciphertext of the empty name is its tag alone."""
    volume = good
    volume.expect_log("left out of the listing")
    attacker = Attacker(volume, "d")
    for tag in (bytes(16), bytes(15), b"", os.urandom(16)):
        if tag:
            attacker.put(reader.base64url(tag).encode())
        attacker.put(attacker.hashed(tag), reader.base64url(tag).encode() or b"=")
    volume.remount()
    assert sorted(os.listdir(volume.mnt / "d")) == sorted(GOOD)


def test_entries_copied_to_other_directories(good):
    """What authenticates in one directory does not in another, siblings included."""
    volume = good
    volume.expect_log("left out of the listing")
    source, target = Attacker(volume, "other"), Attacker(volume, "d")
    for name in os.listdir(source.path):
        os.link(
            os.path.join(source.path, name),
            os.path.join(target.path, name),
            follow_symlinks=False,
        )
    volume.remount()
    assert sorted(os.listdir(volume.mnt / "d")) == sorted(GOOD)
    assert volume.counter("name_failures") == len(GOOD)
    assert_good(volume)
    assert_good(volume, "other")


def test_two_entries_with_one_sibling_text_are_one_name(good):
    volume = good
    volume.expect_log("left out of the listing")
    attacker = Attacker(volume, "d")
    real = [n for n in os.listdir(attacker.path) if n.startswith(b"@") and not n.endswith(b".name")]
    text = os.readlink(os.path.join(attacker.path, real[0] + b".name"))
    for character in b"ABC":
        attacker.put(b"@" + bytes([character]) * 43, text)
    volume.remount()
    assert sorted(os.listdir(volume.mnt / "d")) == sorted(GOOD)
    assert volume.counter("name_failures") == 3


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_takes_the_place_of_a_sibling_is_not_destroyed(good, kind):
    """A long name can't be made there, and says so; what is there comes back by a repair."""
    volume = good
    volume.expect_log("is in the place of a long name|left out of the listing")
    name = "w" * 230
    place = volume.below(f"d/{name}").with_name(volume.below(f"d/{name}").name + ".name")
    moved = volume.below("other")
    if kind == "file":
        moved = volume.below("other/short")
    os.rename(moved, place)
    volume.remount()
    raises(errno.EIO, write_file, volume.mnt / "d" / name, b"content")
    raises(errno.EIO, os.mkdir, volume.mnt / "d" / name)
    raises(errno.EIO, os.rename, volume.mnt / "d/short", volume.mnt / "d" / name)
    assert sorted(os.listdir(volume.mnt / "d")) == sorted(GOOD)
    assert_good(volume)
    # A rotation sees it, too.
    volume.umount()
    run(turnkeyfs(), "rotate", "-c", volume.conf, volume.cipher)
    record = os.getxattr(place, KEY_RECORD)
    assert int.from_bytes(record[2:4], "big") == 2
    code, document = volume.verify("--repair")
    assert code == DAMAGED and document["totals"]["repairs"] == 1
    (renamed,) = [found["renamed_to"] for found in document["findings"] if "renamed_to" in found]
    volume.mount()
    recovered = volume.mnt / renamed
    if kind == "file":
        assert read_file(recovered) == b"shortother"
    else:
        assert sorted(os.listdir(recovered)) == sorted(GOOD)
    write_file(volume.mnt / "d" / name, b"content")
    assert read_file(volume.mnt / "d" / name) == b"content"


@pytest.mark.parametrize("live", [False, True])
def test_ten_thousand_of_them(volume, live):
    """All begin alike, so that their new names must be told apart by something else."""
    volume.expect_log("left out of the listing|similar lines were left out")
    count = scaled(10_000)
    os.mkdir(volume.mnt / "d")
    write_file(volume.mnt / "d" / "seen", b"content")
    path = volume.below("d")
    for number in range(count):
        os.mknod(path / f"{'A' * 60}{number:06d}")
    volume.remount()
    log_before = len(volume.log())
    assert os.listdir(volume.mnt / "d") == ["seen"]
    assert volume.counter("name_failures") == count
    assert len(volume.log()) - log_before < 40_000
    if not live:
        volume.umount()
    code, document = volume.verify()
    assert code == DAMAGED and len(document["findings"]) == count
    done = volume.command("verify", "--repair", volume.cipher, check=False)
    assert done.returncode == DAMAGED
    assert f"{count} entries renamed" in done.stdout and "have new names" in done.stderr
    volume.assert_verifies_clean()
    if not live:
        volume.mount()
    names = os.listdir(volume.mnt / "d")
    assert len(names) == count + 1 and sum(n.startswith("recovered-AAAA") for n in names) == count
    assert live or volume.counter("name_failures") == 0
    shutil.rmtree(volume.mnt / "d")
    assert os.listdir(volume.mnt) == []


def test_what_can_not_be_renamed_is_said(volume):
    volume.expect_log("left out of the listing")
    os.mkdir(volume.mnt / "d")
    write_file(volume.mnt / "d" / "f", b"content")
    path = volume.below("d")
    os.rename(volume.below("d/f"), path / "bad")
    volume.umount()
    if run("chattr", "+i", path, check=False).returncode:
        pytest.skip("no immutable directories here")
    try:
        code, document = volume.verify("--repair")
        assert code == DAMAGED and document["totals"]["repairs"] == 0
        (finding,) = document["findings"]
        assert finding["repair_error"] == os.strerror(errno.EPERM)
        done = volume.command("verify", "--repair", volume.cipher, check=False)
        assert "cannot be renamed" in done.stdout
    finally:
        run("chattr", "-i", path)


def test_without_root_it_is_the_same(mine):
    mine.expect_log("left out of the listing")

    def as_owner(*words, check=True):
        done = subprocess.run(
            words,
            user=NOBODY.pw_uid,
            group=NOBODY.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    as_owner("mkdir", mine.mnt / "d")
    as_owner("touch", mine.mnt / "d/seen", mine.mnt / "d/hidden")
    path = mine.below("d/hidden")
    os.rename(path, path.with_name("bad"))
    mine.remount()
    assert as_owner("ls", mine.mnt / "d").stdout == "seen\n"
    assert as_owner("rm", "-r", mine.mnt / "d", check=False).returncode == 1
    mine.umount()
    code, document = mine.verify("--repair")
    assert code == DAMAGED and document["totals"]["repairs"] == 1
    mine.mount()
    as_owner("rm", "-r", mine.mnt / "d")


def test_a_directory_that_ignores_case(make_volume, work):
    """Below ext4 with casefold: base64url tells cases apart, and names are found all the same."""
    image, below = work / "image", work / "folded"
    below.mkdir()
    with open(image, "wb") as f:
        f.truncate(256 << 20)
    made = run("mkfs.ext4", "-q", "-F", "-O", "casefold", image, check=False)
    if made.returncode or run("mount", "-o", "loop", image, below, check=False).returncode:
        pytest.skip("no casefold here")
    try:
        (below / "in").mkdir()
        if run("chattr", "+F", below / "in", check=False).returncode:
            pytest.skip("no casefold here")
        volume = make_volume(init=False, mount=False)
        volume.cipher = below / "in" / "cipher"
        volume.expect_log("left out of the listing")
        volume.init().mount()
        names = {f"{text}{number}" for text in ("name", "NAME", "Name") for number in range(100)}
        names |= {text * 50 for text in ("name", "NAME", "Name")}
        for name in names:
            write_file(volume.mnt / name, name.encode())
        volume.remount()
        assert set(os.listdir(volume.mnt)) == names
        for name in names:
            assert read_file(volume.mnt / name) == name.encode()
        folded = volume.below("name1")
        os.rename(folded, folded.with_name(folded.name.swapcase()))
        volume.remount()
        assert set(os.listdir(volume.mnt)) == names - {"name1"}
        volume.umount()
    finally:
        if os.path.ismount(volume.mnt if "volume" in locals() else below / "none"):
            run("umount", "-l", volume.mnt, check=False)
        run("umount", below, check=False)


def test_links_that_lead_out_are_not_followed(good, work):
    """Entries that are symlinks below: their targets are no text of this volume."""
    volume = good
    volume.expect_log("the symlink's target does not authenticate")
    secret = work / "secret"
    write_file(secret, b"outside")
    attacker = Attacker(volume, "d")
    for number, target in enumerate((os.fsencode(secret), b"/etc", b"..", b".", b"A" * 4000)):
        os.symlink(target, os.path.join(attacker.path, attacker.short(b"link%d" % number)))
    volume.remount()
    listed = sorted(os.listdir(volume.mnt / "d"))
    assert listed == sorted(GOOD + [f"link{number}" for number in range(5)])
    for number in range(5):
        path = volume.mnt / "d" / f"link{number}"
        assert stat.S_ISLNK(os.lstat(path).st_mode)
        raises(errno.EIO, os.readlink, path)
        raises(errno.EIO, os.stat, path)
    shown = run("ls", "-l", volume.mnt / "d", check=False).stdout
    assert all(f" link{number}" in shown for number in range(5))
    run("rm", "-rf", volume.mnt / "d")
    assert not (volume.mnt / "d").exists() and read_file(secret) == b"outside"


def test_the_reader_goes_on_behind_damage(good, work):
    """Its extraction has all that can be read, and says what is missing."""
    volume = good
    os.symlink("target", volume.mnt / "link")
    os.mkdir(volume.mnt / "lost")
    write_file(volume.mnt / "lost" / "f", b"x")
    hidden = volume.below("d/short")
    lost, link = volume.below("lost"), volume.below("link")
    volume.umount()
    os.rename(hidden, hidden.with_name("bad"))
    os.removexattr(lost, KEY_RECORD)
    os.unlink(link)
    os.symlink("elsewhere", link)
    words = ("/usr/bin/python3", reader.__file__, "--keystore", volume.keystore, volume.cipher)
    for more in ((), ("--extract", work / "out")):
        done = run(*words, *more, check=False)
        assert done.returncode == 1 and not done.stderr
        kinds = sorted(line.split(":")[0] for line in done.stdout.splitlines())
        assert kinds == ["NameDamaged", "RecordDamaged", "TargetDamaged"]
    assert sorted(os.listdir(work / "out")) == ["d", "lost", "other"]
    assert sorted(os.listdir(work / "out/d")) == sorted(set(GOOD) - {"short"})
    assert read_file(work / "out/other/short") == b"shortother"
