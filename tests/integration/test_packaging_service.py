# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, and what it leaves behind: sd_notify, the watchdog, dead mounts."""

import errno
import os
import signal
import socket
import subprocess
import threading
import time

import mountpoint
import pytest
from mountpoint import run, wait_for


class Manager:
    """The manager's end of $NOTIFY_SOCKET: collects what arrives, with the instant."""

    def __init__(self, path, watchdog_s=None):
        self.path = path
        self.messages = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.settimeout(0.1)
        self.ended = False
        self.environment = {"NOTIFY_SOCKET": path}
        if watchdog_s:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while not self.ended:
            try:
                self.messages.append(self.socket.recv(65536).decode())
            except TimeoutError:
                pass

    def said(self, line):
        return [message for message in list(self.messages) if line in message.splitlines()]

    def status(self):
        return [line for m in list(self.messages) for line in m.splitlines() if line.startswith("STATUS=")]

    def close(self):
        self.ended = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def managed(work, make_volume, monkeypatch):
    """A function that mounts a volume under a manager of ours."""
    managers = []

    def start(watchdog_s=None, address=None, conf=None):
        volume = make_volume(mount=False, conf=conf)
        manager = Manager(address or str(work / "notify"), watchdog_s)
        managers.append(manager)
        for name, value in manager.environment.items():
            monkeypatch.setenv(name, value)
        return volume, manager

    yield start
    for manager in managers:
        manager.close()


def test_ready_is_said_when_mounted_and_stopping_at_the_end(managed):
    volume, manager = managed()
    volume.mount()
    wait_for(lambda: manager.said("READY=1"), what="READY=1")
    assert any(str(volume.mnt) in status for status in manager.status())
    volume.umount()
    assert manager.said("STOPPING=1")
    assert len(manager.said("READY=1")) == 1
    assert not manager.said("WATCHDOG=1"), "nobody asked for it"


def test_an_abstract_socket(managed):
    volume, manager = managed(address=f"@turnkeyfs-test-{os.getpid()}")
    volume.mount()
    wait_for(lambda: manager.said("READY=1"), what="READY=1")


def test_without_the_key_it_is_never_ready(managed):
    volume, manager = managed()
    volume.keystore.rename(volume.directory / "elsewhere")
    done = volume.command("mount", "-f", volume.cipher, volume.mnt, check=False)
    assert done.returncode == 7
    wait_for(lambda: manager.status(), what="a status")
    assert not manager.said("READY=1")
    assert str(volume.keystore) in manager.status()[-1], "the manager is told why"


def test_the_guardian_can_not_speak_for_the_daemon(managed):
    volume, manager = managed(watchdog_s=60)
    volume.mount()
    wait_for(lambda: manager.said("READY=1"), what="READY=1")
    fds = os.listdir(f"/proc/{volume.guardian}/fd")
    links = [os.readlink(f"/proc/{volume.guardian}/fd/{fd}") for fd in fds]
    sockets = [link for link in links if link.startswith("socket:")]
    assert len(sockets) == 1, links  # that of the daemon's orders, which is of another kind
    inode = sockets[0].removeprefix("socket:[").removesuffix("]")
    with open("/proc/net/unix", encoding="utf-8") as f:
        (kind,) = [line.split()[4] for line in f if line.split()[6] == inode]
    assert int(kind, 16) == socket.SOCK_SEQPACKET


def test_the_watchdog_is_fed_while_the_mount_answers(managed):
    volume, manager = managed(watchdog_s=0.4)
    volume.mount()
    wait_for(lambda: len(manager.said("WATCHDOG=1")) >= 3, what="three signs of life")
    assert any("the key is active" in status for status in manager.status())
    volume.umount()


def test_a_mount_that_answers_nothing_does_not_feed_the_watchdog(managed, backing):
    """Its only thread waits for a backing filesystem that stands still; its timer does not."""
    filesystem = mountpoint.Filesystem("ext4", backing, 1 << 26)
    reason = filesystem.mount()
    if reason:
        pytest.skip(reason)
    volume, manager = managed(watchdog_s=0.4, conf={"mount": {"threads": 1, "durability": "relaxed"}})
    volume.cipher = filesystem.path / "cipher"
    writer = None
    try:
        volume.init().mount()
        wait_for(lambda: manager.said("WATCHDOG=1"), what="a sign of life")
        run("fsfreeze", "-f", filesystem.path)
        try:
            writer = subprocess.Popen(["mkdir", volume.mnt / "directory"])
            # One sign may be under way; then there is silence.
            wait_for(lambda: silent_for(manager, 2), 30, "silence")
        finally:
            run("fsfreeze", "-u", filesystem.path)
        assert writer.wait(30) == 0
        before = len(manager.said("WATCHDOG=1"))
        wait_for(lambda: len(manager.said("WATCHDOG=1")) > before, what="a sign of life again")
        volume.umount()
    finally:
        if writer:
            writer.kill()
        volume.close()
        filesystem.umount()


def silent_for(manager, seconds):
    before = len(manager.said("WATCHDOG=1"))
    time.sleep(seconds)
    return len(manager.said("WATCHDOG=1")) == before


def test_umount_dead_takes_away_what_a_killed_daemon_left_even_in_use(make_volume):
    volume = make_volume()
    user = open(volume.mnt / "file", "w")
    volume.kill()
    volume.daemon.wait(30)
    volume.forget_daemon()
    wait_for(lambda: not os.path.exists(volume.mnt), what="ENOTCONN")
    run(mountpoint.turnkeyfs(), "umount", "--dead", volume.mnt)
    assert not mountpoint.is_mounted(volume.mnt)
    with pytest.raises(OSError):
        os.fsync(user.fileno())
    try:
        user.close()
    except OSError:
        pass
    volume.mount()


def test_umount_dead_asks_no_cache_whether_a_mount_is_dead(make_volume):
    """The kernel may tell the root's attributes for a while after the daemon is gone."""
    volume = make_volume()
    volume.mnt.stat()
    volume.kill()
    volume.daemon.wait(60)
    volume.forget_daemon()
    wait_for(lambda: statfs_error(volume.mnt) == errno.ENOTCONN, what="the end of the connection")
    run(mountpoint.turnkeyfs(), "umount", "--dead", volume.mnt)
    assert not mountpoint.is_mounted(volume.mnt)


def statfs_error(path):
    try:
        os.statvfs(path)
    except OSError as e:
        return e.errno
    return 0


def test_umount_dead_leaves_a_living_mount_alone(volume):
    run(mountpoint.turnkeyfs(), "umount", "--dead", volume.mnt)
    assert mountpoint.is_mounted(volume.mnt)
    assert os.kill(volume.pid, 0) is None
    assert os.listdir(volume.mnt) == []


def test_umount_dead_minds_no_missing_mount(work):
    run(mountpoint.turnkeyfs(), "umount", "--dead", work)
    run(mountpoint.turnkeyfs(), "umount", "--dead", work / "missing")


def test_a_stopped_service_has_written_everything(managed):
    """As `systemctl stop` with a program in the mount: SIGTERM, after `umount` was refused."""
    volume, manager = managed()
    volume.mount()
    with open(volume.mnt / "file", "wb") as user:
        user.write(b"x" * 1000000)
        assert run(mountpoint.turnkeyfs(), "umount", volume.mnt, check=False).returncode == 6
        os.kill(volume.pid, signal.SIGTERM)
        wait_for(lambda: not mountpoint.is_mounted(volume.mnt), what="the mount to be gone")
        user.write(b"y" * 1000000)
    assert volume.daemon.wait(30) == 0
    volume.forget_daemon()
    assert manager.said("STOPPING=1")
    volume.mount()
    assert (volume.mnt / "file").read_bytes() == b"x" * 1000000 + b"y" * 1000000
