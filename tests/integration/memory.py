# SPDX-License-Identifier: Apache-2.0
"""The memory of a running process: its mappings, and what is found in them."""

import re
import signal
import subprocess
from dataclasses import dataclass, field

from mountpoint import wait_for

CHUNK = 16 << 20


@dataclass
class Mapping:
    """One line of /proc/PID/smaps, with its flags: lo is locked, dd stays out of core dumps."""

    start: int
    end: int
    name: str
    flags: list = field(default_factory=list)


def mappings(pid):
    found = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line)
            if head:
                found.append(Mapping(int(head[1], 16), int(head[2], 16), head[4].strip()))
                readable = "r" in head[3]
            elif line.startswith("VmFlags:"):
                found[-1].flags = line.split()[1:]
                if not readable or found[-1].name in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                    found.pop()
    return found


def contents(pid, mapping):
    """The bytes of a mapping, piece by piece; pieces overlap by the length of a key."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start in range(mapping.start, mapping.end, CHUNK):
            try:
                memory.seek(start)
                yield memory.read(min(CHUNK + 128, mapping.end - start))
            except OSError:  # a guard page, or a file that was cut
                continue


def search(pid, needles):
    """[(what, mapping)] for every needle ({what: bytes}) found in the process's memory."""
    found = []
    for mapping in mappings(pid):
        for piece in contents(pid, mapping):
            for what, needle in needles.items():
                if needle in piece:
                    found.append((what, mapping))
    return found


def search_file(path, needles):
    """What of @needles a file holds."""
    with open(path, "rb") as f:
        content = f.read()
    return [what for what, needle in needles.items() if needle in content]


def places(found):
    """For a message: what was found where."""
    return [f"{what} in {m.name or 'anonymous'} {m.start:x} {' '.join(m.flags)}" for what, m in found]


class StoppedAtExit:
    """A process held by gdb at its exit_group, the moment when all should be wiped."""

    def __init__(self, pid, directory):
        self.pid = pid
        self.stopped = directory / "stopped"
        self.go_on = directory / "go-on"
        self.ready = directory / "gdb.ready"
        self.log = directory / "gdb.log"
        script = directory / "gdb.script"
        script.write_text(
            "set pagination off\n"
            "set confirm off\n"
            "handle SIGUSR1 SIGTERM SIGPIPE nostop noprint pass\n"
            "catch syscall exit_group\n"
            f"shell touch {self.ready}\n"
            "continue\n"
            f"shell touch {self.stopped}; while [ ! -e {self.go_on} ]; do sleep 0.05; done\n"
            "detach\n"
            "quit\n"
        )
        with open(self.log, "wb") as log:
            self.gdb = subprocess.Popen(
                ["gdb", "-nx", "-batch", "-p", str(pid), "-x", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._ready, 60, "gdb")

    def _ready(self):
        assert self.gdb.poll() is None, self.log.read_text()
        return self.ready.exists()

    def wait(self):
        """Until the process is held."""
        wait_for(lambda: self.stopped.exists() or self.gdb.poll() is not None, 60, "exit_group")
        assert self.stopped.exists(), self.log.read_text()
        assert "exit_group" in self.log.read_text()

    def release(self):
        self.go_on.touch()
        self.gdb.wait(30)

    def close(self):
        if self.gdb.poll() is None:
            self.gdb.send_signal(signal.SIGKILL)
            self.gdb.wait()

