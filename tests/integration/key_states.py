# SPDX-License-Identifier: Apache-2.0
"""Root keys that are refused and given out again, and what a mount must do then."""

import errno
import json
import os
import signal
import time

from azure_volume import turnkeyfs
from mountpoint import sanitized, wait_for

WINDOW = 2  # seconds, for revocation
IN_USE = 6  # exit code

# What a daemon may say while its key is refused or out of reach, or comes back.
EXPECTED = (
    r"locked, the key is|the KMS (can't be reached|does not (accept|confirm))|still locked|cannot ask for the root key"
    r"|rotation window of [0-9]+ s is missed|can't be rewrapped: Key has been revoked"
    r"|rotation of .* stopped|is locked: its root key|root key in the keystore .* is disabled"
)


def windows(revocation=WINDOW, rotation=0, grace=None, **more):
    """Section [kms] with windows of seconds; by default no rotation happens by itself."""
    values = {"revocation_window": revocation, "rotation_window": rotation} | more
    if grace is not None:
        values["outage_grace"] = grace
    return {"kms": values}


def state(volume):
    return volume.status(volume.cipher)["daemon"]["state"]


def wait_state(volume, wanted, seconds=None):
    """Until the mount says so; how long it took."""
    began = time.monotonic()
    wait_for(lambda: state(volume) == wanted, seconds or 20, f"the state {wanted}")
    return time.monotonic() - began


def refused(function, *args, number=errno.EKEYREVOKED):
    """Whether it fails with that errno; any other failure is raised."""
    try:
        function(*args)
    except OSError as e:
        if e.errno != number:
            raise
        return True
    return False


def wait_refused(function, *args, number=errno.EKEYREVOKED, seconds=20):
    """Until @function is refused; how long it took."""
    began = time.monotonic()
    wait_for(lambda: refused(function, *args, number=number), seconds, "the refusal")
    return time.monotonic() - began


def wait_served(function, *args, seconds=20, number=errno.EKEYREVOKED):
    began = time.monotonic()
    wait_for(lambda: not refused(function, *args, number=number), seconds, "the return")
    return time.monotonic() - began


def allowed(seconds):
    """A time limit, with what a slow or sanitized machine adds."""
    return seconds * 4 + 2 if sanitized() else seconds + 1


class RootKey:
    """A root key, as its owner handles it with turnkeyfs. Versions are named by number: from 1, the
    oldest."""

    place = ()

    def __init__(self, conf, mnt=None):
        self.conf, self.mnt = conf, mnt

    def command(self, *words, **more):
        return turnkeyfs("key", words[0], "-c", self.conf, *words[1:], *self.place, **more)

    def versions(self):
        return json.loads(self.command("list", "--json").stdout)["versions"]

    def enabled(self):
        return [version["version"] for version in self.versions() if version["enabled"]]

    def name(self, number):
        return self.versions()[int(number) - 1]["version"]

    def create(self, *words):
        self.command("create", *words)
        return self

    def rotate(self):
        self.command("rotate")

    def rotate_now(self):
        """A new version, and the mount takes it up at once."""
        self.rotate()
        done = turnkeyfs("rotate", self.mnt, check=False)
        assert done.returncode in (0, IN_USE), done.stderr  # it may have begun by itself

    def set_enabled(self, enabled, name):
        self.command(*(("enable",) if enabled else ("disable", "--yes")), name)

    def disable(self, number="1"):
        self.set_enabled(False, self.name(number))

    def enable(self, number="1"):
        self.set_enabled(True, self.name(number))


class LocalKey(RootKey):
    """The root key of a volume with the provider local."""

    def __init__(self, volume):
        super().__init__(volume.conf, volume.mnt)
        self.place = (volume.cipher,)
        volume.expect_log(EXPECTED)

    def rotate_now(self):
        turnkeyfs("rotate", self.mnt)  # which makes the version


def touch_mapping(memory, write=False):
    """The signal that ends a child which touches this mapping, or 0."""
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGBUS, signal.SIGSEGV):
            signal.signal(number, signal.SIG_DFL)
        if write:
            memory[0] = memory[0]
        else:
            memory[0]  # pylint: disable=pointless-statement
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
