# SPDX-License-Identifier: Apache-2.0
"""
One answer of Key Vault or Entra ID, and what a mount does about it.

A Row says who gives the answer and what must come of it; a Scene plays it: a volume with a vault of
its own in a shared emulator, so that many can be played at once. See test_azure_mount_answers.py.
"""

import base64
import dataclasses
import errno
import json
import os
import time
import urllib.parse

import azure_volume
import mountpoint
from azure_volume import key_id
from helpers import noise, read_file, write_file
from key_states import EXPECTED, allowed
from mountpoint import sanitized
from relay import Relay

CONTENT = noise(20_000)
PAUSE = 0.2  # between two looks at a state: a program each
# What the daemon says of the answers themselves.
MESSAGES = (
    r"azure: |the root key |no answer from|Entra ID|is in trouble|identity service"
    r"|no usable key record"
)
# A state has to last until a sanitized program, of several at once, has been asked what it is.
SLOW = 3 if sanitized() else 1
SECTION = {"revocation_window": 2, "rotation_window": 0, "outage_grace": 600}


@dataclasses.dataclass(frozen=True)
class Phase:
    """A state of the mount, and what a file that is opened in it, and one that was open, give."""

    state: str
    new: int = None  # an errno; None: it is served
    held: int = None
    new_kms: int = None  # with dek_wrap = kms, where opening a file asks the vault


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an answer is taken for."""

    phases: tuple
    code: int  # exit code of a mount that meets it at its start; 0: it mounts
    log: str = ""  # how the daemon's log puts it
    kms: dict = dataclasses.field(default_factory=dict)  # options, so that the phases can be told


SERVED = Outcome((Phase("active"),), 0)
REVOKED = Outcome(
    (Phase("revoked", errno.EKEYREVOKED, errno.EKEYREVOKED, errno.EKEYREVOKED),),
    12,
    "error: {}: locked, the key is revoked: ",
)
OUTAGE_OVER = Phase("outage", errno.ENOKEY, errno.ENOKEY, errno.ENOKEY)
UNREACHABLE = Outcome(
    (Phase("degraded", new_kms=errno.ENOKEY),),
    11,
    "warning: {}: the KMS can't be reached; served until the outage grace ends: ",
)
# The same until the grace has passed.
OUTAGE = dataclasses.replace(
    UNREACHABLE, phases=(*UNREACHABLE.phases, OUTAGE_OVER), kms={"outage_grace": 8 * SLOW}
)
# Said at once, and as good as a refusal once the window has passed.
IDENTITY_LOST = Outcome(
    (Phase("degraded", new_kms=errno.ENOKEY), *REVOKED.phases),
    12,
    "error: {}: the KMS does not accept this machine's identity; served until the revocation window"
    " ends: ",
    {"revocation_window": 4 * SLOW},
)
# The vault does not open what it opened before: no refusal, but no confirmation either.
DAMAGED = Outcome(
    (Phase("degraded", new_kms=errno.EIO), OUTAGE_OVER),
    5,
    "error: {}: the KMS does not confirm the key, which it gave out before; served until the outage"
    " grace ends: ",
    {"outage_grace": 8 * SLOW},
)


@dataclasses.dataclass(frozen=True)
class Row:
    what: str
    give: object  # from the Scene: from now on the answer is given
    outcome: Outcome
    says: tuple = ()  # the message in log and status, and of a mount that fails
    names: str = "key"  # who or what the message names: key or application
    take_back: object = None  # besides the faults of the vault and the application
    modes: tuple = ("kek",)
    kms: dict = dataclasses.field(default_factory=dict)
    azure: dict = dataclasses.field(default_factory=dict)
    vault: dict = dataclasses.field(default_factory=dict)  # options of Emulator.vault
    auth: str = "client-secret"
    check: object = None  # from the Scene: more, while the answer is given
    recovers: object = None  # instead of waiting for the state `active`
    at_mount: bool = True  # also given to `mount`
    relayed: bool = False  # the vault is reached through a Relay


class Scene:
    def __init__(self, emulator, directory, row, mode):
        self.emulator = emulator
        self.row = row
        self.mode = mode
        directory.mkdir(parents=True)
        self.vault = emulator.vault(**{"purge_protection": True} | row.vault)
        self.vault = self.vault.with_token(emulator.tokens[self.vault.audience])
        self.vault.create("kek", **({"kty": "RSA-HSM"} if row.vault.get("hsm") else {}))
        self.application = None
        self.relay = None
        self.volume = mountpoint.Volume(directory)
        self.volume.expect_log(EXPECTED + "|" + MESSAGES)
        self.mark = 0

    # --- steering ---

    def fault(self, kind, count=None, **more):
        self.emulator.control("fault", kind=kind, count=count, vault=self.vault.name, **more)

    def refusal(self, status, code, inner=None, message="An emulated refusal.", **more):
        """That answer to every request with a token."""
        error = {"code": code, "message": message}
        if inner:
            error["innererror"] = {"code": inner}
        body = json.dumps({"error": error})
        self.fault("status", status=status, body=body, content_type="application/json", **more)

    def no_more_tokens(self, **fault):
        """The authority, or the identity service, answers so to us; the token we have is void."""
        self.emulator.control("fault", count=None, app=self.application["appid"], **fault)
        self.void_token()

    def void_token(self):
        if self.volume.daemon:
            self.fault("token", count=1, reason="expired")

    def change_application(self, **changes):
        self.emulator.control("client", appid=self.application["appid"], **changes)
        self.void_token()

    def patch(self, **body):
        self.vault.ok("PATCH", "/keys/kek", body)

    def give(self):
        self.mark = len(self.volume.log())
        self.row.give(self)

    def take_back(self):
        self.emulator.control("clear_faults", vault=self.vault.name)
        if self.application:
            self.emulator.control("clear_faults", app=self.application["appid"])
        if self.row.take_back:
            self.row.take_back(self)

    # --- the volume ---

    def configure(self):
        url = self.vault.url
        if self.row.relayed:
            parts = urllib.parse.urlsplit(url)
            self.relay = Relay(parts.port)
            url = f"https://{parts.hostname}:{self.relay.port}"
        self.vault.key = key_id(self.vault).replace(self.vault.url, url)
        sections = azure_volume.sections(
            self.emulator,
            self.vault.key,
            self.volume.directory,
            kms=SECTION | self.row.outcome.kms | self.row.kms,
            azure=self.identity() | {"connect_timeout": 2, "request_timeout": 5} | self.row.azure,
            volume={"dek_wrap": self.mode},
        )
        if self.row.auth != "client-secret":
            del sections["azure"]["client_secret"]
        sections["azure"] = {k: v for k, v in sections["azure"].items() if v is not None}
        azure_volume.write(self.volume.conf, sections)

    def identity(self):
        """Options for an application, or managed identity, of our own."""
        directory = self.volume.directory
        if self.row.auth == "managed-identity":
            self.application = self.emulator.control("managed_identity")
            return {"auth": "managed-identity", "client_id": self.application["appid"],
                    "tenant_id": None, "authority": None}  # fmt: skip
        by_certificate = self.row.auth == "client-certificate"
        self.application = self.emulator.control("application", certificate=by_certificate)
        (directory / "secret").write_text(self.application["secret"])
        (directory / "secret").chmod(0o600)
        (directory / "client.pem").write_text(self.application["pem"])
        (directory / "client.pem").chmod(0o600)
        options = {"client_id": self.application["appid"]}
        if by_certificate:
            return options | {"auth": "client-certificate", "certificate": directory / "client.pem"}
        return options | {"client_secret": f"file:{directory}/secret"}

    def state(self):
        return self.daemon()["state"]

    def daemon(self):
        return self.volume.status(self.volume.cipher)["daemon"]

    def wait_state(self, wanted, seconds=30 * SLOW):
        began = time.monotonic()
        while (found := self.state()) != wanted:
            assert time.monotonic() - began < seconds, f"{found}, not {wanted}\n{self.said()}"
            time.sleep(PAUSE)
        return time.monotonic() - began

    def said(self):
        """The daemon's log since the answer was given."""
        return self.volume.log()[self.mark :]

    def check_message(self, text):
        """It says what failed, on which key, why, and what to do."""
        named = {
            "key": self.vault.key,
            "application": self.application["appid"],
            "authority": self.emulator.authority,
            "nothing": "",
        }[self.row.names]
        missing = [piece for piece in (named, *self.row.says) if piece not in text]
        assert not missing, (missing, text)

    # --- what applications see ---

    def read_new(self):
        """Of a file that nobody has opened since the mount."""
        return read_file(self.volume.mnt / "new")

    def read_held(self, fd):
        return os.pread(fd, len(CONTENT), 0)

    def check_files(self, phase, fd):
        new = phase.new_kms if self.mode == "kms" else phase.new
        assert answer(self.read_new) == (new or CONTENT), phase
        assert answer(self.read_held, fd) == (phase.held or CONTENT), phase

    def check_content(self):
        for name in ("held", "new"):
            assert read_file(self.volume.mnt / name) == CONTENT, name

    # --- the play ---

    def play(self):
        """What was measured: {what: seconds}."""
        try:
            self.configure()
            self.volume.init().mount()
            for name in ("held", "new", "spare"):
                write_file(self.volume.mnt / name, CONTENT)
            self.volume.remount()
            took = self.play_mounted()
            if self.row.at_mount:
                self.play_start()
            return took
        finally:
            self.end()

    def play_mounted(self):
        took = {}
        fd = os.open(self.volume.mnt / "held", os.O_RDWR)
        try:
            assert self.read_held(fd) == CONTENT
            self.give()
            for number, phase in enumerate(self.row.outcome.phases):
                took[phase.state] = self.wait_state(phase.state)
                if number == 0 and phase.state != "active":
                    self.check_said()
                self.check_files(phase, fd)
            if self.row.outcome is REVOKED:
                assert took["revoked"] <= allowed(SECTION["revocation_window"]), took
            if self.row.check:
                self.row.check(self)
            self.take_back()
            took["back"] = self.wait_state("active")
            assert self.read_held(fd) == CONTENT
        finally:
            os.close(fd)
        self.check_content()
        write_file(self.volume.mnt / "after", CONTENT)
        self.volume.umount()
        return took

    def check_said(self):
        self.check_message(self.said())
        assert self.row.outcome.log.format(self.volume.cipher) in self.said()
        self.check_message(self.daemon()["lease"]["trouble"])

    def play_start(self):
        """The same answer for a mount that begins."""
        volume = self.volume
        self.give()
        if self.row.outcome.code:
            began = time.monotonic()
            message = azure_volume.fails(
                self.row.outcome.code, "mount", "-c", volume.conf, volume.cipher, volume.mnt
            )
            assert time.monotonic() - began < allowed(15)
            self.check_message(message)
            assert not mountpoint.is_mounted(volume.mnt)
            self.take_back()
        volume.mount()
        if not self.row.outcome.code:
            self.take_back()
        self.check_content()
        assert read_file(volume.mnt / "after") == CONTENT
        volume.umount()

    def end(self):
        problems = self.volume.close()
        if self.relay:
            self.relay.close()
        self.vault.close()
        alarms = self.volume.alarms()
        assert not problems, problems
        assert not alarms, alarms[:20]


def answer(function, *arguments):
    """What it returns, or the errno."""
    try:
        return function(*arguments)
    except OSError as e:
        return e.errno


def authority_error(status, error, number, text="Emulated."):
    """Fields of a fault: what the token endpoint says instead of a token."""
    body = {"error": error, "error_description": f"AADSTS{number}: {text}",
            "error_codes": [number], "trace_id": "0" * 8}  # fmt: skip
    return {"kind": "status", "target": "authority", "status": status, "body": json.dumps(body),
            "content_type": "application/json"}  # fmt: skip


def claims_challenge(authority):
    """The header of a 401 that no token satisfies."""
    wanted = {"access_token": {"nbf": {"essential": True, "value": "1"}}}
    text = base64.b64encode(json.dumps(wanted).encode()).decode()
    return {"WWW-Authenticate": f'Bearer realm="", authorization_uri="{authority}/oauth2/authorize"'
            f', error="insufficient_claims", claims="{text}"'}  # fmt: skip
