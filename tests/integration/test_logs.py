# SPDX-License-Identifier: Apache-2.0
"""Log lines: to the journal with fields, to syslog, to stderr; which, how many, and without names."""

import os
import pathlib
import shutil
import socket

import pytest

from mountpoint import children, comm, run, turnkeyfs, wait_for

NAME = "Miriams-Befund"  # of directory and file, and in no line of a log


class Listener:
    """A datagram socket in place of journald's or syslog's."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.datagrams = []

    def read(self):
        while True:
            try:
                self.datagrams.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return self.datagrams

    def entries(self):
        """Datagrams of the journal's protocol, each as {field: value}."""
        found = []
        for datagram in self.read():
            assert datagram.endswith("\n")
            lines = [line.split("=", 1) for line in datagram[:-1].split("\n")]
            assert all(len(line) == 2 and line[0].isupper() for line in lines), datagram
            assert len(dict(lines)) == len(lines)
            found.append(dict(lines))
        return found


def listening(name, work, monkeypatch):
    """A Listener that daemons take for the journal, or for syslog, as @name says."""
    listener = Listener(work / name)
    monkeypatch.setenv(f"TURNKEYFS_{name.upper()}_SOCKET", str(work / name))
    yield listener
    listener.socket.close()


@pytest.fixture
def journal(work, monkeypatch):
    yield from listening("journal", work, monkeypatch)


@pytest.fixture
def syslog(work, monkeypatch):
    yield from listening("syslog", work, monkeypatch)


def damage(volume, path):
    """Spoil a block of the unmounted file @path."""
    with open(volume.below(path), "r+b") as f:
        f.seek(8192)
        f.write(b"damage")


def fill(volume):
    (volume.mnt / NAME).mkdir()
    (volume.mnt / NAME / NAME).write_bytes(b"x" * 20000)


def read_damaged(volume):
    """A file is made, damaged while it is not mounted, and found to be."""
    fill(volume)
    volume.umount()
    damage(volume, f"{NAME}/{NAME}")
    volume.mount()
    fail_to_read(volume)


def fail_to_read(volume):
    with pytest.raises(OSError):
        (volume.mnt / NAME / NAME).read_bytes()


def test_lines_of_the_journal_have_fields(journal, make_volume):
    volume = make_volume(conf={"log": {"target": "journal"}})
    read_damaged(volume)
    volume.umount()
    entries = journal.entries()
    mounted = next(e for e in entries if e["MESSAGE"].startswith("mounted "))
    assert mounted["PRIORITY"] == "6" and mounted["SYSLOG_IDENTIFIER"] == "turnkeyfs"
    assert mounted["TURNKEYFS_VOLUME"] == str(volume.cipher)
    assert mounted["CODE_FILE"].endswith("cli/cmd_mount.c") and int(mounted["CODE_LINE"]) > 0
    assert mounted["CODE_FUNC"] == "when_ready"
    assert mounted["TURNKEYFS_EVENT"] == "cmd_mount.when_ready"
    bad = [e for e in entries if e["TURNKEYFS_EVENT"] == "content.note_bad_block"]
    assert bad and {e["PRIORITY"] for e in bad} == {"3"}
    assert "info:" not in volume.log() and "error:" not in volume.log()


def test_auto_takes_the_journal_where_stderr_is_its_stream(journal, make_volume, monkeypatch):
    volume = make_volume(mount=False)
    volume.log_path.touch()
    found = os.stat(volume.log_path)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    volume.mount()
    # Served is one thing, said another: it comes a moment later.
    wait_for(lambda: "mounted" in volume.log(), what="the line")
    volume.umount()
    assert not journal.read()
    before = volume.log()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    volume.mount()
    wait_for(lambda: any(e["MESSAGE"].startswith("mounted ") for e in journal.entries()), what="the line")
    volume.umount()
    assert volume.log() == before


def test_without_a_journal_syslog_is_taken(work, syslog, make_volume, monkeypatch):
    monkeypatch.setenv("TURNKEYFS_JOURNAL_SOCKET", str(work / "nobody"))
    make_volume(conf={"log": {"target": "journal"}}).umount()
    syslog.read()  # its queue holds a few
    make_volume("other", conf={"log": {"target": "syslog"}}).umount()
    said = syslog.read()
    assert any("the journal can't be reached" in line for line in said)
    assert sum("turnkeyfs[" in line and ": mounted " in line for line in said) == 2
    assert any(line.startswith("<30>") for line in said)  # daemon.info


def test_a_syslog_that_does_not_read_stops_nothing(syslog, make_volume):
    """Its queue holds a few datagrams; syslog(3) waits for room."""
    volume = make_volume(conf={"log": {"target": "syslog"}})
    fill(volume)
    volume.umount()
    damage(volume, f"{NAME}/{NAME}")
    volume.mount()
    for _ in range(15):
        fail_to_read(volume)
    wait_for(lambda: what_was_lost_is_said(syslog, volume))
    volume.umount()


def sockets(pid):
    links = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]


@pytest.mark.parametrize("target", ["journal", "syslog"])
def test_the_guardian_of_a_mount_in_the_background_opens_its_log_once(journal, syslog, make_volume, target):
    volume = make_volume(conf={"log": {"target": target}}, mount=False)
    volume.command("mount", volume.cipher, volume.mnt)
    try:
        daemon = int((volume.cipher / "turnkeyfs.lock").read_text().splitlines()[0])
        guardian = next(pid for pid in children(daemon) if comm(pid) == "tkfs-guardian")
        # That of its orders; syslog's; and the journal's, which syslog stands in for.
        assert len(sockets(guardian)) == (3 if target == "journal" else 2)
    finally:
        run(turnkeyfs(), "umount", volume.mnt)


def what_was_lost_is_said(syslog, volume):
    syslog.read()
    fail_to_read(volume)
    return any("lines of the log were lost" in line for line in syslog.read())


def test_levels(make_volume):
    volume = make_volume(conf={"log": {"level": "error"}})
    volume.umount()
    assert "mounted" not in volume.log()


@pytest.mark.parametrize("line", ["target = file", "names = maybe", "level = loud"])
def test_values_that_are_refused(work, line):
    (work / "x.conf").write_text(f"[log]\n{line}\n")
    done = run(turnkeyfs(), "init", "-c", work / "x.conf", work / "cipher", check=False)
    assert done.returncode == 3 and "x.conf:2" in done.stderr


def test_a_flood_of_one_kind_is_cut_and_said(make_volume):
    volume = make_volume()
    (volume.mnt / "f").write_bytes(b"x" * 4096 * 100)
    volume.umount()
    with open(volume.below("f"), "r+b") as f:
        for page in range(1, 101):
            f.seek(4096 * page)
            f.write(b"damage")
    volume.expect_log("does not authenticate|left out|key record|seal")
    volume.mount()
    for page in range(100):
        with pytest.raises(OSError):
            with open(volume.mnt / "f", "rb", buffering=0) as f:
                f.seek(4096 * page)
                f.read(1)
    lines = [line for line in volume.log().splitlines() if "does not authenticate" in line]
    assert 0 < len(lines) <= 60


@pytest.mark.backing("tmpfs")
@pytest.mark.parametrize("names", ["encrypted", "plain"])
def test_no_name_is_in_a_log(work, make_volume, names):
    """Whatever goes wrong with a file: damage, no space, a key that is revoked, a rotation."""
    conf = {"kms": {"revocation_window": 2}, "log": {"level": "debug"}, "volume": {"names": names}}
    volume = make_volume(conf=conf)
    volume.expect_log(".")
    read_damaged(volume)
    free = shutil.disk_usage(volume.cipher).free
    with pytest.raises(OSError):
        with open(volume.mnt / NAME / (NAME + "2"), "wb", buffering=0) as f:
            for _ in range(free // (1 << 20) + 64):
                f.write(b"x" * (1 << 20))
            os.fsync(f.fileno())
    (volume.mnt / NAME / (NAME + "2")).unlink()
    run(turnkeyfs(), "key", "disable", "--yes", "-c", volume.conf, "1")
    wait_for(lambda: volume.status()["daemon"]["state"] == "revoked")
    run(turnkeyfs(), "key", "enable", "-c", volume.conf, "1")
    wait_for(lambda: volume.status()["daemon"]["state"] == "active")
    # The file that is gone gives its space back when nothing of it is on its way any more.
    wait_for(lambda: shutil.disk_usage(volume.cipher).free > free // 2)
    volume.command("rotate", "--wait", volume.mnt)
    assert "does not authenticate" in volume.log() and "locked" in volume.log()
    assert NAME not in volume.log()


@pytest.mark.parametrize("said", ["no", "yes"])
def test_a_plain_name_is_said_where_that_is_asked_for(make_volume, said):
    volume = make_volume(conf={"volume": {"names": "plain"}, "log": {"names": said}})
    volume.expect_log("does not authenticate|rewrapped|rotation")
    read_damaged(volume)
    below = volume.below(f"{NAME}/{NAME}")
    # Nor by a rotation, which can't rewrap what is immutable.
    run("chattr", "+i", below)
    try:
        volume.command("rotate", "--wait", volume.mnt, check=False)
    finally:
        run("chattr", "-i", below)
    lines = volume.log().splitlines()
    damaged = next(line for line in lines if "does not authenticate" in line)
    stuck = next(line for line in lines if "can't be rewrapped" in line)
    if said == "yes":
        assert str(below) in damaged and f"/{NAME}/{NAME}" in stuck
        return
    assert f"inode {os.stat(below).st_ino}:" in damaged and f"inode {os.stat(below).st_ino} " in stuck
    assert NAME not in volume.log()
