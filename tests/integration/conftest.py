# SPDX-License-Identifier: Apache-2.0
"""Fixtures, and the rules that hold for every test: root only, a deadline, a quiet daemon."""

import faulthandler
import gc
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "emulator"))

import helpers  # noqa: E402  (found by the line above)
import mountpoint  # noqa: E402

DEADLINE = 120  # seconds for a test that doesn't say otherwise
FILESYSTEMS = ("plain", "tmpfs", "ext4", "xfs", "btrfs")


def pytest_addoption(parser):
    parser.addoption(
        "--backing",
        choices=FILESYSTEMS,
        default="plain",
        help="the filesystem below the volumes; plain: whatever the scratch directory lies on",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out by tests/run --quick and under sanitizers")
    config.addinivalue_line("markers", "deadline(seconds): the time this test may take")
    config.addinivalue_line("markers", "backing(kind): the filesystem below the volume")
    config.addinivalue_line("markers", "users: other users than the mount's owner take part")
    config.addinivalue_line("markers", "conf(sections): the volume's configuration")
    # A shell without job control has what it starts in the background ignore them, and so would
    # the programs that tests send them to.
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    reason = None
    if os.geteuid() != 0:
        reason = "needs root: mounts, loop devices, other users"
    elif not mountpoint.turnkeyfs():
        reason = "no turnkeyfs: build it, or say in $TURNKEYFS where it is"
    elif not os.path.exists("/dev/fuse"):
        reason = "no /dev/fuse"
    for item in items:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif mountpoint.ALLOW_OTHER == "no" and item.get_closest_marker("users"):
            item.add_marker(pytest.mark.skip(reason="mounts are for root only"))


# --- deadline ------------------------------------------------------------------------------------


class DeadlinePassed(Exception):
    pass


def on_deadline(*_):
    raise DeadlinePassed


class Watchdog:
    """Ends a test that hangs, also in a request to the filesystem, which no signal interrupts:
    the daemons are killed first, then the request fails and the signal gets through."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.timer = threading.Timer(seconds, self.expire)
        self.timer.daemon = True
        self.main = threading.main_thread().ident

    def expire(self):
        print(f"\nthe deadline of {self.seconds} s has passed", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.__stderr__)
        for volume in list(mountpoint.LIVE):
            print(volume.stacks(), file=sys.__stderr__)
            volume.kill()
        signal.pthread_kill(self.main, signal.SIGALRM)


def deadline_of(item):
    marker = item.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else DEADLINE
    if mountpoint.LONG:
        seconds *= 10
    return seconds * (4 if mountpoint.turnkeyfs() and mountpoint.sanitized() else 1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    old = signal.signal(signal.SIGALRM, on_deadline)
    watchdog = Watchdog(deadline_of(item))
    watchdog.timer.start()
    yield
    watchdog.timer.cancel()
    signal.signal(signal.SIGALRM, old)


# --- directories ---------------------------------------------------------------------------------


def open_to_all(path):
    """Let other users pass through @path and what pytest made above it."""
    path = pathlib.Path(path)
    while path.stat().st_uid == 0 and path.name and not path.stat().st_mode & stat.S_IXOTH:
        path.chmod(path.stat().st_mode | 0o111)
        path = path.parent


@pytest.fixture
def work(tmp_path):
    """A scratch directory that other users can get to."""
    open_to_all(tmp_path)
    return tmp_path


def make_filesystem(kind, directory):
    filesystem = mountpoint.Filesystem(kind, directory)
    reason = filesystem.mount()
    if reason:
        filesystem.umount()
        pytest.skip(reason)
    return filesystem


@pytest.fixture
def backing(request, work):
    """Where CIPHERDIRs go: the filesystem of the marker, else of --backing."""
    marker = request.node.get_closest_marker("backing")
    kind = marker.args[0] if marker else request.config.getoption("--backing")
    if kind == "plain":
        yield work
        return
    filesystem = make_filesystem(kind, work)
    yield filesystem.path
    filesystem.umount()


# --- volumes -------------------------------------------------------------------------------------


def finish(volume):
    """Take a volume down, and fail if that or its daemon's log gives cause."""
    gc.collect()  # descriptors that a failed test's frames still hold
    problems = volume.close()
    alarms = volume.alarms()
    if problems or alarms:
        print(f"--- log of the daemon of {volume.cipher}\n{volume.log()[-20000:]}")
    assert not problems, "\n".join(problems)
    assert not alarms, "the daemon said: " + "\n".join(alarms[:20])


@pytest.fixture
def make_volume(work, backing):
    """A function that makes volumes, mounted or not; all are taken down afterwards."""
    made = []

    def make(name="volume", mount=True, conf=None, init=True, prefix=()):
        below = backing / name
        below.mkdir(exist_ok=True)
        volume = mountpoint.Volume(work / name, below, conf, prefix)
        made.append(volume)
        if init:
            volume.init()
        if mount:
            volume.mount()
        return volume

    yield make
    failures = []
    for volume in made:
        try:
            finish(volume)
        except AssertionError as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


def conf_of(request):
    marker = request.node.get_closest_marker("conf")
    return marker.args[0] if marker else None


@pytest.fixture
def volume(request, make_volume):
    """One volume, mounted."""
    return make_volume(conf=conf_of(request))


@pytest.fixture
def plain():
    """An empty directory in memory, which the model test takes to be right."""
    directory = tempfile.mkdtemp(prefix="turnkeyfs-model-", dir="/dev/shm")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def fuse_for_all():
    """/dev/fuse as udev makes it; containers and small machines may not have udev."""
    if not shutil.which("fusermount3"):
        pytest.skip("no fusermount3")
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", mode)


@pytest.fixture
def mine(request, fuse_for_all, work):
    """A volume that belongs to an ordinary user, mounted by that user."""
    user = helpers.NOBODY
    home = work / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    prefix = ("setpriv", "--reuid", user.pw_uid, "--regid", user.pw_gid, "--clear-groups", "--")
    volume = mountpoint.Volume(home, conf=conf_of(request), prefix=prefix)
    for path in (volume.mnt, volume.conf):
        os.chown(path, user.pw_uid, user.pw_gid)
    volume.init().mount()
    yield volume
    finish(volume)


class Place:
    """A directory to test in: on a mount, or plain, to prove the test's expectations."""

    def __init__(self, path, volume=None):
        self.path = path
        self.volume = volume

    def __truediv__(self, name):
        return self.path / name

    def remount(self):
        if self.volume:
            self.volume.remount()


@pytest.fixture(scope="module")
def shared_volume(request, tmp_path_factory):
    """One mounted volume for all tests of a module that use `place`."""
    directory = tmp_path_factory.mktemp("shared")
    open_to_all(directory)
    kind = request.config.getoption("--backing")
    filesystem = None if kind == "plain" else make_filesystem(kind, directory)
    volume = mountpoint.Volume(directory, filesystem and filesystem.path).init().mount()
    yield volume
    try:
        finish(volume)
    finally:
        if filesystem:
            filesystem.umount()


@pytest.fixture(params=["plain", "mount"])
def place(request, work):
    """The same test twice: on a plain directory, where it must hold, and on a mount."""
    if request.param == "plain":
        directory = work / "place"
        directory.mkdir(mode=0o755)
        yield Place(directory)
        return
    volume = request.getfixturevalue("shared_volume")
    if volume.daemon is None or volume.daemon.poll() is not None:
        pytest.fail("an earlier test of this module has ended the daemon")
    before = len(volume.alarms())
    directory = volume.mnt / work.name
    directory.mkdir(mode=0o755)
    yield Place(directory, volume)
    alarms = volume.alarms()[before:]
    assert not alarms, "the daemon said: " + "\n".join(alarms[:20])


def pytest_report_header():
    program = mountpoint.turnkeyfs()
    if not program:
        return "no turnkeyfs"
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    return f"turnkeyfs: {program}, {version.stdout.strip()}"
