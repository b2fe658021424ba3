# SPDX-License-Identifier: Apache-2.0
"""Somebody who can write the encrypted directory changes the volume file of a volume with several
protectors: docs/threat-model.md, "Several root keys". What is not found is shown as well."""

import errno
import os
import re
import shutil

import pytest
from azure_volume import fails, turnkeyfs
from helpers import raises, read_file, write_file
from key_states import EXPECTED, RootKey, windows
from test_protector import ADDED, CONTENT, keystore_conf, mount_with, numbers

pytest_plugins = ["pkcs11_fixture"]

DAMAGED = 5  # exit code
WRONG_KEY = 10


class Target:
    """A volume with two protectors, not mounted, whose file is taken apart into sections."""

    def __init__(self, volume, recovery):
        self.volume = volume
        volume.expect_log(EXPECTED)
        volume.expect_log(ADDED)
        self.own = shutil.copy(volume.conf, volume.directory / "own.conf")
        self.recovery = recovery
        turnkeyfs("protector", "add", volume.mnt, recovery)
        write_file(volume.mnt / "f", CONTENT)
        volume.umount()
        self.path = volume.cipher / "turnkeyfs.volume"
        self.good = self.path.read_text()

    def sections(self):
        return re.split(r"^(?=\[)", self.path.read_text(), flags=re.M)[1:]

    def section(self, name):
        (found,) = [s for s in self.sections() if s.startswith(f"[{name}]\n")]
        return found

    def line(self, section, key):
        """A value with the lines that it goes on in."""
        return re.search(rf"^{key} = .*\n(?:[ \t].*\n)*", self.section(section), re.M)[0]

    def replace(self, old, new):
        assert old != new
        text = self.path.read_text()
        assert text.count(old) >= 1
        self.path.write_text(text.replace(old, new, 1))

    def assert_refused(self):
        """By both keys, and nothing is written by that."""
        changed = self.path.read_text()
        assert changed != self.good
        for conf in (self.own, self.recovery):
            done = turnkeyfs("protector", "list", "-c", conf, self.volume.cipher, check=False)
            assert done.returncode in (DAMAGED, WRONG_KEY), (done.returncode, done.stderr)
        fails(turnkeyfs("protector", "list", "-c", self.own, self.volume.cipher, check=False).returncode,
              "mount", "-c", self.own, self.volume.cipher, self.volume.mnt)  # fmt: skip
        assert self.path.read_text() == changed
        self.path.write_text(self.good)

    def assert_opens(self, *confs):
        for conf in confs:
            turnkeyfs("protector", "list", "-c", conf, self.volume.cipher)


@pytest.fixture
def target(make_volume):
    volume = make_volume(conf=windows())
    return Target(volume, keystore_conf(volume))


@pytest.fixture(params=["keystores", "token"])
def either(request, make_volume):
    """Two keystores, or a keystore and a token."""
    volume = make_volume(conf=windows())
    if request.param == "keystores":
        return Target(volume, keystore_conf(volume))
    conf = request.getfixturevalue("token").conf("recovery")
    RootKey(conf).create()
    return Target(volume, conf)


# --- found -----------------------------------------------------------------------------------------


def test_blobs_exchanged_within_a_volume(either):
    for key in ("blob", "public", "sealed"):
        first, second = either.line("wrap 1.1", key), either.line("wrap 1.2", key)
        either.replace(first, "\0")
        either.replace(second, first)
        either.replace("\0", second)
        either.assert_refused()
    either.assert_opens(either.own, either.recovery)


def test_wraps_exchanged_with_their_numbers(target):
    first, second = target.section("wrap 1.1"), target.section("wrap 1.2")
    for swapped in (
        first.replace("1.1", "1.2") + second.replace("1.2", "1.1"),
        second.replace("1.2", "1.1") + first.replace("1.1", "1.2"),
        second + first,
    ):
        target.replace(first + second, swapped)
        target.assert_refused()


def test_a_wrap_that_is_there_twice(target):
    wrap = target.section("wrap 1.2")
    for name in ("1.2", "1.1", "1.3", "1.16", "1.17", "2.2", "0.2", "1.0"):
        target.replace(wrap, wrap + wrap.replace("1.2", name, 1))
        target.assert_refused()


def test_a_protector_of_somebody_s_own(target, make_volume):
    """Theirs opens a volume of theirs; with the same keys in ours it opens nothing."""
    other = make_volume(name="other", conf=windows())
    theirs = Target(other, target.recovery)
    for section in ("wrap 1.1", "wrap 1.2"):
        target.replace(target.section("mounts"), theirs.section(section).replace("1.1", "1.3")
                       .replace("1.2", "1.3") + target.section("mounts"))  # fmt: skip
        target.assert_refused()
    # The recovery key is a protector of both: neither wraps nor KEKs can be exchanged for that.
    for section in ("wrap 1.2", "kek 1"):
        target.replace(target.section(section), theirs.section(section))
        target.assert_refused()
    for key in ("blob", "public", "sealed"):
        target.replace(target.line("wrap 1.2", key), theirs.line("wrap 1.2", key))
        target.assert_refused()


def test_the_whole_file_of_another_volume_of_the_same_keys(target, make_volume):
    """As with one root key: it opens, but none of the files does; a pin finds it at once."""
    theirs = Target(make_volume(name="other", conf=windows()), target.recovery)
    target.path.write_text(theirs.good)
    turnkeyfs("protector", "list", "-c", target.recovery, target.volume.cipher)
    fails(WRONG_KEY, "protector", "list", "-c", target.own, target.volume.cipher)
    (pin,) = re.findall(r"^fingerprint = (\w+)$", target.good, re.M)
    pinned = target.recovery.with_name("pinned.conf")
    pinned.write_text(target.recovery.read_text() + f"[volume]\nfingerprint = {pin}\n")
    fails(WRONG_KEY, "mount", "-c", pinned, target.volume.cipher, target.volume.mnt)


def test_back_to_format_1(target):
    """Without what makes the others follow, as if a release before had written it."""
    target.replace("format = 2\n", "format = 1\n")
    target.assert_refused()
    target.replace("format = 2\n", "format = 1\n")
    target.replace(target.line("turnkeyfs", "fingerprint"), "")
    for wrap in ("wrap 1.1", "wrap 1.2"):
        for key in ("public", "sealed"):
            target.replace(target.line(wrap, key), "")
    target.assert_refused()
    target.replace(target.section("wrap 1.2"), "")
    target.assert_refused()


# --- not found ---------------------------------------------------------------------------------------


def test_an_older_file_brings_a_removed_protector_back(either):
    """Nothing outside the volume says what is newest: the removed one opens what there was then."""
    volume = either.volume
    turnkeyfs("protector", "remove", "--yes", "-c", either.own, volume.cipher, "2")
    fails(WRONG_KEY, "protector", "list", "-c", either.recovery, volume.cipher)
    mount_with(volume, either.own)
    write_file(volume.mnt / "since", CONTENT)
    volume.umount()
    new = either.path.read_text()
    either.path.write_text(either.good)
    either.assert_opens(either.own, either.recovery)
    assert numbers(volume.cipher) == [1, 2], "at least the list shows it"
    # Without a rotation since, new files, too.
    mount_with(volume, either.recovery)
    assert read_file(volume.mnt / "f") == read_file(volume.mnt / "since") == CONTENT
    volume.umount()
    # With one, whatever was made or rewrapped since is out of its reach.
    either.path.write_text(new)
    turnkeyfs("rotate", "-c", either.own, volume.cipher)
    either.path.write_text(either.good)
    volume.expect_log("key record is damaged or not live")
    mount_with(volume, either.recovery)
    raises(errno.EIO, os.listdir, volume.mnt)
