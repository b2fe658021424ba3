# SPDX-License-Identifier: Apache-2.0
"""A mount that an automount asks for, as systemd does with x-systemd.automount: this is its part."""

import fcntl
import os
import select
import struct
import subprocess

import mountpoint
import pytest
from mountpoint import run

READY, FAIL = 0x9360, 0x9361  # AUTOFS_IOC_READY, AUTOFS_IOC_FAIL
MISSING = 5  # autofs_ptype_missing_direct


class Automount:
    """An autofs over one directory. The test's process group is the one that may pass."""

    def __init__(self, place):
        self.place = place
        self.requests, kernels_end = os.pipe()
        options = f"fd={kernels_end},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        done = run(
            "mount", "-i", "-t", "autofs", "-o", options, "test", place,
            check=False, pass_fds=[kernels_end],
        )  # fmt: skip
        os.close(kernels_end)
        if done.returncode:
            os.close(self.requests)
            pytest.skip(f"no autofs here: {done.stderr}")
        self.root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        self.token = None

    def wait(self):
        """Until somebody wants to see what is there."""
        assert select.select([self.requests], [], [], 100)[0], "nobody came"
        _, kind, self.token = struct.unpack_from("=iiI", os.read(self.requests, 512))
        assert kind == MISSING

    def answer(self, what):
        fcntl.ioctl(self.root, what, self.token)
        self.token = None

    def close(self):
        if self.token is not None:
            self.answer(FAIL)  # or what waits there would do so for ever
        os.close(self.root)
        os.close(self.requests)
        run("umount", "-l", self.place)


@pytest.fixture
def scene(make_volume):
    """A volume with a file, and an automount where it belongs."""
    volume = make_volume()
    (volume.mnt / "file").write_text("hello")
    volume.umount()
    automount = Automount(volume.mnt)
    yield volume, automount
    while mountpoint.mounts().get(str(volume.mnt), ("",))[0] == "fuse.turnkeyfs":
        run(mountpoint.turnkeyfs(), "umount", volume.mnt)
    automount.close()


def visitor(volume):
    """Somebody who looks into it, from outside of the process group."""
    words = ["cat", volume.mnt / "file"]
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_who_looks_into_it_gets_the_mount(scene):
    volume, automount = scene
    with visitor(volume) as looking:
        automount.wait()
        volume.command("mount", volume.cipher, volume.mnt, timeout=100)
        automount.answer(READY)
        assert looking.communicate(timeout=100)[0] == b"hello"


def test_after_a_failure_who_looks_again_gets_it(scene):
    volume, automount = scene
    away = volume.keystore.rename(volume.directory / "away")
    with visitor(volume) as looking:
        automount.wait()
        assert volume.command("mount", volume.cipher, volume.mnt, check=False).returncode == 7
        automount.answer(FAIL)
        assert looking.communicate(timeout=100)[0] == b""
    away.rename(volume.keystore)
    with visitor(volume) as looking:
        automount.wait()
        volume.command("mount", volume.cipher, volume.mnt, timeout=100)
        automount.answer(READY)
        assert looking.communicate(timeout=100)[0] == b"hello"


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/.//./"])
@pytest.mark.parametrize("words, code", [((), 17), (("--dead",), 0)])
def test_an_unmount_is_no_look_into_it(scene, words, code, spelling):
    volume, automount = scene
    words = [mountpoint.turnkeyfs(), "umount", *words, spelling.format(volume.mnt)]
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL) as asking:
        end = os.pidfd_open(asking.pid)
        woken = automount.requests in select.select([automount.requests, end], [], [], 100)[0]
        os.close(end)
        if woken:
            automount.wait()
            automount.answer(FAIL)
        assert asking.wait(100) == code
        assert not woken
