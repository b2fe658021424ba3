# SPDX-License-Identifier: Apache-2.0
"""`turnkeyfs umount` and a daemon that may not answer. What it leaves of a dead one and of a living one
is in test_packaging_service; that it wakes no automount, in test_automount."""

import contextlib
import subprocess

import pytest
from mountpoint import is_mounted, run, turnkeyfs, wait_for

BOUND = 100  # seconds: more than any of it takes, unless it takes for ever


@pytest.fixture(params=["root", "user"])
def volume(request):
    if request.param == "user":
        return request.getfixturevalue("mine")
    return request.getfixturevalue("make_volume")()


def umount(volume, *words):
    words = [*volume.prefix, turnkeyfs(), "umount", *words]
    return subprocess.Popen(
        [str(word) for word in words], cwd=volume.mnt.parent, stderr=subprocess.PIPE, text=True
    )


def check_ended_well(volume):
    """The daemon has ended by itself, and what was written before is there."""
    assert volume.daemon.wait(BOUND) == 0
    volume.forget_daemon()
    volume.mount()
    assert run(*volume.prefix, "cat", volume.mnt / "file").stdout == "content\n"


def in_each_spelling(function):
    return pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/.//./", "{0.name}"])(function)


@in_each_spelling
def test_a_mount_whose_daemon_hangs_is_taken_away_and_the_daemon_waited_for(volume, spelling):
    run(*volume.prefix, "sh", "-c", "echo content >mnt/file", cwd=volume.mnt.parent)
    with contextlib.ExitStack() as stack:
        with volume.stopped():
            asked = stack.enter_context(umount(volume, spelling.format(volume.mnt)))
            wait_for(lambda: not is_mounted(volume.mnt), BOUND, "the end of the mount")
            assert asked.poll() is None
        assert asked.wait(BOUND) == 0
    check_ended_well(volume)


def test_a_mount_that_another_namespace_has_is_waited_for(make_volume):
    volume = make_volume()
    (volume.mnt / "file").write_text("content\n")
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 600"]
    with subprocess.Popen(private, stdout=subprocess.PIPE, text=True) as container:
        try:
            assert container.stdout.readline() == "ready\n"
            with umount(volume, volume.mnt) as asked:
                assert "another mount namespace" in asked.stderr.readline()
                assert not is_mounted(volume.mnt)
                assert asked.poll() is None and volume.daemon.poll() is None
                container.kill()
                assert asked.wait(BOUND) == 0
        finally:
            container.kill()
    check_ended_well(volume)


def test_a_mount_in_use_whose_daemon_hangs_is_in_use(volume):
    words = [str(word) for word in (*volume.prefix, "sh", "-c", "cd mnt && echo in && cat")]
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=volume.mnt.parent, **ends) as user, contextlib.ExitStack() as stack:
        assert user.stdout.readline() == b"in\n"
        with volume.stopped():
            asked = stack.enter_context(umount(volume, volume.mnt))
            assert asked.wait(BOUND) == 6
            assert "is busy" in asked.stderr.read()
        assert is_mounted(volume.mnt)


@in_each_spelling
def test_umount_dead_takes_a_daemon_that_hangs_for_a_living_one(volume, spelling):
    with contextlib.ExitStack() as stack:
        with volume.stopped():
            asked = stack.enter_context(umount(volume, "--dead", spelling.format(volume.mnt)))
            assert asked.wait(BOUND) == 0
            assert asked.stderr.read() == ""
            assert is_mounted(volume.mnt)


@pytest.mark.parametrize("words", [["--dead"], []])
def test_a_dead_mount_goes_although_its_volume_is_mounted_elsewhere(make_volume, work, words):
    volume = make_volume()
    volume.kill()
    volume.daemon.wait(BOUND)
    volume.forget_daemon()
    dead, volume.mnt = volume.mnt, work / "elsewhere"
    volume.mnt.mkdir()
    try:
        volume.mount()
        run(turnkeyfs(), "umount", *words, dead, timeout=BOUND)
        assert not is_mounted(dead)
        assert is_mounted(volume.mnt)
    finally:
        if is_mounted(dead):
            run("umount", "-l", dead)
