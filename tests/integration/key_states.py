# SPDX-License-Identifier: Apache-2.0
"""Root keys that are refused and given out again, and what a mount must do then."""

import errno
import os
import signal
import time

from azure_volume import turnkeyfs
from mountpoint import sanitized, wait_for

WINDOW = 2  # seconds, for revocation

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


class LocalKey:
    """The root key of a volume with the provider local: its newest version, or all of them."""

    def __init__(self, volume):
        self.volume = volume
        volume.expect_log(EXPECTED)

    def command(self, *words):
        return turnkeyfs("key", words[0], "-c", self.volume.conf, *words[1:], self.volume.cipher)

    def rotate(self):
        self.command("rotate")

    def rotate_now(self):
        """A new version, and the mount takes it up at once."""
        turnkeyfs("rotate", self.volume.mnt)

    def disable(self, version="1"):
        self.command("disable", "--yes", version)

    def enable(self, version="1"):
        self.command("enable", version)


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
