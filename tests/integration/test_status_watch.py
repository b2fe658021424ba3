# SPDX-License-Identifier: Apache-2.0
"""status --watch: a screen on a terminal, blocks of text elsewhere, through the end of a mount and a new one."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from helpers import noise, write_file
from mountpoint import run, turnkeyfs

ENTER, LEAVE = "\033[?1049h", "\033[?7h\033[?25h\033[?1049l"
INTERVAL = ("--interval", "0.1")
PATIENCE = 60  # seconds: how slow a machine may be


class Watcher:
    """A running `status --watch`: what it has written, as it comes."""

    def __init__(self, process, fd):
        self.process = process
        self.fd = fd
        self.text = ""

    def until(self, pattern, since=0):
        """Reads on until @pattern stands behind position @since; returns the match."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.compile(pattern, re.S).search(self.text, since)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text[-4000:]!r}"
            if select.select([self.fd], [], [], 1)[0]:
                self.text += os.read(self.fd, 65536).decode()
        return found

    def end(self, signal_number=signal.SIGINT):
        """All that was written, to the end. A watcher that was asked to end did so well."""
        self.process.send_signal(signal_number)
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
            while more := os.read(self.fd, 65536):
                self.text += more.decode()
        assert self.process.wait(PATIENCE) == 0
        return self.text


@pytest.fixture
def watch():
    started = []

    def begin(path, *options, terminal=True, term="xterm", rows=40, columns=100):
        theirs, ours = os.pipe()[::-1] if not terminal else pty.openpty()[::-1]
        if terminal:
            resize(ours, rows, columns)
        process = subprocess.Popen(
            [turnkeyfs(), "status", "--watch", *options, path],
            stdin=subprocess.DEVNULL, stdout=theirs, env={**os.environ, "TERM": term})
        os.close(theirs)
        started.append(Watcher(process, ours))
        return started[-1]

    yield begin
    for watcher in started:
        watcher.process.kill()
        watcher.process.wait()
        os.close(watcher.fd)


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def screens(text):
    """What was drawn, screen by screen, as lines without escapes."""
    return [[re.sub(r"\033\[[?0-9;]*[A-Za-z]", "", line) for line in screen.split("\r\n")]
            for screen in text.split("\033[H")[2:]]


def test_a_screen_is_drawn_and_taken_away(volume, watch):
    watcher = watch(volume.mnt, *INTERVAL)
    watcher.until(r"requests/s.*\033\[J")
    write_file(volume.mnt / "f", noise(100_000))
    watcher.until(r"written[^\n]* [1-9]\d* requests in all")
    text = watcher.end()
    assert text.startswith(ENTER) and text.endswith(LEAVE), text[-100:]
    assert text.count(ENTER) == text.count(LEAVE) == 1
    screen = "\n".join(screens(text)[0])
    for word in ("state", "active", "lease", "KEK version 1", "read", "written", "fsync", "errors",
                 "cache", "journal", "KMS calls", "rotation", "up"):
        assert word in screen, screen


def test_it_fits_the_terminal_also_a_smaller_one(volume, watch):
    watcher = watch(volume.mnt, "--interval", "3600", rows=50, columns=78)
    watcher.until(r"up  .*\033\[J")
    assert max(len(line) for line in screens(watcher.text)[0]) <= 78
    # Nobody waits for the next look.
    seen = len(watcher.text)
    resize(watcher.fd, 7, 30)
    watcher.process.send_signal(signal.SIGWINCH)  # the terminal is not the process' own
    watcher.until(r"\033\[H.*\033\[J", seen)
    screen = screens(watcher.end())[-1]
    assert len(screen) == 7 and max(len(line) for line in screen) <= 30, screen


def test_stopped_it_gives_the_terminal_back(volume, watch):
    watcher = watch(volume.mnt, *INTERVAL)
    watcher.until(r"\033\[J")
    watcher.process.send_signal(signal.SIGTSTP)
    watcher.until(re.escape(LEAVE))
    assert os.WIFSTOPPED(os.waitpid(watcher.process.pid, os.WUNTRACED)[1])
    watcher.process.send_signal(signal.SIGCONT)
    watcher.until(re.escape(LEAVE) + ".*" + re.escape(ENTER) + r".*\033\[J")
    watcher.end(signal.SIGTERM)


def test_elsewhere_blocks_or_lines_of_json_are_printed(volume, watch):
    for options in ({"terminal": False}, {"term": "dumb"}):
        watcher = watch(volume.mnt, *INTERVAL, **options)
        watcher.until(r"state.*\n\r?\n.*state.*\n\r?\n")
        assert "\033" not in watcher.end()
    watcher = watch(volume.mnt, "--json", *INTERVAL)
    watcher.until(r"\n.*\n")
    lines = watcher.end().splitlines()[:2]
    assert [json.loads(line)["daemon"]["pid"] for line in lines] == [volume.pid] * 2
    # Whoever reads may leave.
    watcher = watch(volume.mnt, *INTERVAL, terminal=False)
    watcher.until("state")
    os.close(watcher.fd)
    watcher.fd = os.open("/dev/null", os.O_RDONLY)
    assert watcher.process.wait(PATIENCE) == -signal.SIGPIPE


def test_a_mount_may_end_and_come_back(volume, watch):
    watcher = watch(volume.mnt, *INTERVAL, terminal=False)
    watcher.until(rf"process {volume.pid}\b")
    volume.umount()
    watcher.until(r"in use +no\n.*the mount ended \d+ s ago; waiting for another")
    volume.mount()
    seen = len(watcher.text)
    watcher.until(rf"state +active.*up [^\n]*process {volume.pid}\b", seen)
    watcher.end()


def test_it_waits_for_a_first_mount(make_volume, watch):
    volume = make_volume(mount=False)
    watcher = watch(volume.cipher, *INTERVAL, terminal=False)
    watcher.until("not mounted; waiting for a mount")
    # A volume that can't be read for a while is said to be so.
    (volume.cipher / "turnkeyfs.volume").rename(volume.directory / "away")
    watcher.until("turnkeyfs.volume")
    (volume.directory / "away").rename(volume.cipher / "turnkeyfs.volume")
    volume.mount()
    watcher.until("state +active")
    watcher.end()


def test_as_json_a_look_that_fails_is_a_line_too(make_volume, watch):
    volume = make_volume(mount=False)
    watcher = watch(volume.cipher, "--json", *INTERVAL, terminal=False)
    watcher.until(r'"schema".*\n')
    (volume.cipher / "turnkeyfs.volume").rename(volume.directory / "away")
    watcher.until(r'"error".*\n')
    (volume.directory / "away").rename(volume.cipher / "turnkeyfs.volume")
    watcher.until(r'"error".*\n.*"schema".*\n')
    lines = [json.loads(line) for line in watcher.end().splitlines()]
    failed = [line for line in lines if "error" in line]
    assert all(list(line) == ["error"] and "turnkeyfs.volume" in line["error"] for line in failed), failed
    assert all("volume_id" in line for line in lines if line not in failed)


@pytest.mark.parametrize("interval", ["0", "-1", "1s", "", "nan", "4000"])
def test_an_interval_has_to_be_one(interval):
    done = run(turnkeyfs(), "status", "--watch", "--interval", interval, "/", check=False)
    assert done.returncode == 2 and "from 0.1 to 3600" in done.stderr, done


def test_an_interval_goes_with_watch():
    done = run(turnkeyfs(), "status", "--interval", "1", "/", check=False)
    assert done.returncode == 2 and "--watch" in done.stderr, done
