# SPDX-License-Identifier: Apache-2.0
"""A week of a vault in trouble, for several mounts at once: with windows of a second, so that as many
of them pass in minutes as do in a week of the default ones. tests/unit/test_week.c has the same
in simulated time, with default windows and a fleet.

A trouble is begun, lasts a while, and ends. Afterwards every mount serves again by itself; what
it asked meanwhile is counted.
"""

import base64
import contextlib
import errno
import os
import random
import re
import time

import azure_volume
import pytest
from azure_volume import key_id, kek_states, key_version, owned_vault
from helpers import new_seed, read_file, write_file
from key_states import EXPECTED, state
from mountpoint import sanitized, scaled, wait_for

WINDOW = 1
SERVED = b"served"
# After the end of a trouble: a pause, a call that is under way until its deadline of 2 s, one
# more, and what a loaded machine takes.
BACK_WITHIN = 15 if not sanitized() else 60
# Calls of a mount in a second: six attempts to a call at most, each with a token before it.
CALLS_MAX = 14
PER_TROUBLE = 4  # calls that a trouble may cost a mount, however short it is


pytest_plugins = ["emulator_fixture"]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


class Week:
    """The vault, the mounts, and what may happen to them."""

    def __init__(self, emulator, vault, volumes, seed):
        self.emulator, self.vault, self.volumes = emulator, vault, volumes
        self.random = random.Random(seed)
        self.seen = {}  # trouble: how often
        self.slowest = {}  # trouble: seconds until all were back
        self.busiest = {}  # trouble: calls per mount and second
        self.states = set()

    # --- troubles: each yields while it lasts ---

    def fault(self, **fields):
        @contextlib.contextmanager
        def trouble():
            self.emulator.control("fault", count=None, **fields)
            yield
            self.emulator.control("clear_faults")

        return trouble

    @contextlib.contextmanager
    def flapping(self):
        self.emulator.control("fault", kind="status", status=503, count=self.random.randrange(1, 40))
        self.emulator.control("fault", kind="half", count=self.random.randrange(1, 10))
        yield
        self.emulator.control("clear_faults")

    @contextlib.contextmanager
    def half_dead(self):
        """The vault answers, slowly and not to the end; the authority not at all."""
        self.emulator.control("fault", kind="slow", ms=700, count=None)
        self.emulator.control("fault", kind="half", count=None, operation="unwrapKey")
        self.emulator.control("fault", kind="drop", count=None, target="authority")
        yield
        self.emulator.control("clear_faults")

    @contextlib.contextmanager
    def bad_certificate(self):
        self.emulator.control("certificate", kind="expired")
        yield
        self.emulator.control("certificate", kind="good")

    @contextlib.contextmanager
    def disabled(self):
        self.vault.set_enabled("kek", False, self.version())
        yield
        self.vault.set_enabled("kek", True, self.version())

    @contextlib.contextmanager
    def deleted(self):
        self.vault.ok("DELETE", "/keys/kek")
        yield
        wait_for(lambda: self.vault.post("/deletedkeys/kek/recover").status == 200, 20, "recovery")

    @contextlib.contextmanager
    def no_permission(self):
        self.emulator.control("revoke", vault=self.vault.name, permissions=["unwrapKey"])
        yield
        self.emulator.control("grant", vault=self.vault.name, permissions=["unwrapKey"])

    @contextlib.contextmanager
    def behind_a_firewall(self):
        self.emulator.control("firewall", vault=self.vault.name)
        yield
        self.emulator.control("firewall", on=False, vault=self.vault.name)

    @contextlib.contextmanager
    def no_identity(self):
        self.emulator.control("client", disabled=True)
        self.emulator.control("signing_key")
        yield
        self.emulator.control("client", disabled=False)
        self.renew_token()

    @contextlib.contextmanager
    def new_tokens(self):
        self.emulator.control("signing_key")
        self.emulator.control("cae", vault=self.vault.name)
        self.renew_token()
        yield

    @contextlib.contextmanager
    def new_version(self):
        self.vault.ok("POST", "/keys/kek/rotate", {})
        yield

    def renew_token(self):
        """The test's own: it is as void as the daemons'."""
        self.vault = self.vault.with_token(None)
        said = self.vault.get("/keys/kek").headers.get("WWW-Authenticate", "")
        claims = re.search('claims="([^"]+)"', said)
        if claims:
            claims = base64.b64decode(claims[1]).decode()
            token = self.emulator.access_token(self.vault.audience, claims=claims)
            self.vault = self.vault.with_token(token)

    def version(self):
        return key_version(self.vault)

    def troubles(self):
        """{name: (trouble, whether the mounts may be locked by it)}"""
        outages = {
            "throttle": {"kind": "throttle"},
            "throttle, 1 s": {"kind": "throttle", "retry_after": 1},
            "throttle, 5 s": {"kind": "throttle", "retry_after": 5},
            "500": {"kind": "status", "status": 500},
            "503": {"kind": "status", "status": 503, "retry_after": 1},
            "408": {"kind": "status", "status": 408},
            "drop": {"kind": "drop", "unauthenticated": True},
            "drop after": {"kind": "drop", "when": "after"},
            "reset": {"kind": "reset", "unauthenticated": True},
            "slow": {"kind": "slow", "ms": 1500},
            "trickle": {"kind": "trickle", "ms": 20},
            "half": {"kind": "half"},
            "redirect": {"kind": "redirect"},
            "a page": {"kind": "body", "body": "<html>"},
            "nonsense": {"kind": "json", "hostile": "wrong_types"},
            "another key": {"kind": "patch", "set": {"kid": "https://127.0.0.1/keys/other/1"}},
            "no tokens": {"kind": "status", "status": 503, "target": "authority"},
        }
        found = {name: (self.fault(**fields), False) for name, fields in outages.items()}
        for way in (self.flapping, self.half_dead, self.bad_certificate, self.new_version):
            found[way.__name__] = (way, False)
        # Two refusals of tokens in one call count as a lost identity, if only until the next
        # probe: which a window of a second is too short for.
        for way in (self.disabled, self.deleted, self.no_permission, self.behind_a_firewall,
                    self.no_identity, self.new_tokens):  # fmt: skip
            found[way.__name__] = (way, True)
        return found

    # --- the course of things ---

    def look(self, may_be_locked):
        for volume in self.volumes:
            try:
                assert read_file(volume.mnt / "f") == SERVED
                os.listdir(volume.mnt)
            except OSError as e:
                assert may_be_locked and e.errno == errno.EKEYREVOKED, e

    def all_active(self):
        states = [state(volume) for volume in self.volumes]
        self.states |= set(states)
        return set(states) == {"active"}

    def calls(self):
        counters = self.emulator.counters()
        return counters["total"] + sum(counters["authority"].values())

    def go_through(self, name, trouble, may_be_locked):
        before = self.calls()
        began = time.monotonic()
        with trouble():
            lasts = self.random.choice((0.3, 1, 2.5))
            while time.monotonic() < began + lasts:
                self.look(may_be_locked)
                self.states |= {state(volume) for volume in self.volumes}
                time.sleep(0.1)
        ended = time.monotonic()
        wait_for(self.all_active, BACK_WITHIN, f"the end of '{name}' for all mounts")
        back = time.monotonic()
        self.look(False)
        rate = (self.calls() - before) / len(self.volumes) / (back - began)
        self.seen[name] = self.seen.get(name, 0) + 1
        self.slowest[name] = max(self.slowest.get(name, 0), round(back - ended, 1))
        self.busiest[name] = max(self.busiest.get(name, 0), round(rate, 1))
        assert rate <= CALLS_MAX + PER_TROUBLE / (back - began), (name, rate)

    def live(self, seconds):
        """All troubles once, then at random for as long as there is time."""
        troubles = self.troubles()
        waiting = sorted(troubles)
        self.random.shuffle(waiting)
        end = time.monotonic() + seconds
        while waiting or time.monotonic() < end:
            name = waiting.pop() if waiting else self.random.choice(sorted(troubles))
            self.go_through(name, *troubles[name])
            time.sleep(self.random.choice((0, 0, 1)))


@pytest.mark.slow
@pytest.mark.deadline(240)
def test_a_week_of_trouble_leaves_every_mount_serving(make_emulator, make_volume):
    emulator = make_emulator()
    vault = owned_vault(emulator)
    volumes = []
    for i in range(scaled(3, 8)):
        volume = make_volume(name=f"volume{i}", mount=False, init=False)
        kms = {"revocation_window": WINDOW, "rotation_window": 4, "outage_grace": 600}
        azure = {"connect_timeout": 1, "request_timeout": 1}
        azure_volume.write(
            volume.conf,
            azure_volume.sections(emulator, key_id(vault), volume.directory, kms=kms, azure=azure),
        )
        volume.expect_log(EXPECTED)
        volume.init().mount()
        write_file(volume.mnt / "f", SERVED)
        volumes.append(volume)
    seconds = scaled(30, 1260)
    print(f"{len(volumes)} mounts for {seconds} s: {len(volumes) * seconds} windows")
    emulator.control("counters", reset=True)
    week = Week(emulator, vault, volumes, new_seed())
    began = time.monotonic()
    week.live(seconds)
    took = time.monotonic() - began
    print(f"{sum(week.seen.values())} troubles: {week.seen}")
    print(f"seconds until all served again, at most: {week.slowest}")
    print(f"calls per mount and second, at most: {week.busiest}")
    print(f"{week.calls() / len(volumes) / took:.1f} calls per mount and second in {took:.0f} s")
    assert {"active", "degraded", "revoked"} <= week.states
    wait_for(lambda: all(list(kek_states(volume).values()).count("active") == 1
             for volume in volumes), 30, "the last rotation")  # fmt: skip
    for volume in volumes:
        volume.remount()
        assert read_file(volume.mnt / "f") == SERVED
