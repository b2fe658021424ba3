# SPDX-License-Identifier: Apache-2.0
"""test_rotation.py's long ones with the root key in a vault, and the end of old keys there."""

import os
import time

import azure_volume
import pytest
from azure_volume import key_id, kek_states, owned_vault, turnkeyfs
from key_states import EXPECTED, wait_served, wait_state
from mountpoint import scaled, wait_for
from test_rotation import Programs, check, fill, unexplained, wait_done

pytest_plugins = ["emulator_fixture"]

DAY = 86400


class VaultKey:
    """A root key in the emulator, as its owner handles it."""

    def __init__(self, vault, name="kek"):
        self.vault, self.name = vault, name

    def rotate(self):
        self.vault.ok("POST", f"/keys/{self.name}/rotate", {})

    def versions(self):
        """{version: whether it is enabled}"""
        listed = []
        page = self.vault.ok("GET", f"/keys/{self.name}/versions")
        while page:
            listed += page["value"]
            following = page.get("nextLink")
            page = following and self.vault.get(
                following.removeprefix(self.vault.url), api_version=None
            ).json
        return {v["kid"].rsplit("/", 1)[1]: v["attributes"]["enabled"] for v in listed}

    def set_enabled(self, enabled, version):
        self.vault.set_enabled(self.name, enabled, version)


@pytest.fixture
def emulator(make_emulator):
    """One of its own: the clock is moved."""
    return make_emulator()


@pytest.fixture
def vault(emulator, monkeypatch):
    azure_volume.scrub_environment(monkeypatch)
    return owned_vault(emulator)


@pytest.fixture
def volume(emulator, vault, make_volume):
    volume = make_volume(mount=False, init=False)
    kms = {"revocation_window": 2, "rotation_window": 3, "outage_grace": 600}
    azure_volume.write(volume.conf, azure_volume.sections(
        emulator, key_id(vault), volume.directory, kms=kms))  # fmt: skip
    volume.expect_log(EXPECTED)
    volume.init().mount()
    volume.key = VaultKey(vault)
    return volume


def not_needed(volume):
    return [root["version"] for root in volume.status(volume.cipher)["no_longer_needed"]]


def move_to_another_key(volume, emulator, vault):
    """So that no version of the first one is needed any more."""
    vault.create("other")
    target = azure_volume.write(volume.directory / "other.conf", azure_volume.sections(
        emulator, key_id(vault, "other"), volume.directory))  # fmt: skip
    turnkeyfs("rotate", "--wait", "--to", target, volume.mnt)
    volume.umount()
    volume.conf = target
    volume.mount()


def purge(emulator, vault, name):
    """Single versions can't be deleted in a vault, nor a key purged before its retention ends."""
    vault.ok("DELETE", f"/keys/{name}")
    wait_for(lambda: vault.get(f"/deletedkeys/{name}").status == 200, 20, "the deletion")
    emulator.control("clock", advance=91 * DAY, scopes=["keys"])
    assert vault.get(f"/deletedkeys/{name}").status == 404
    assert vault.get(f"/keys/{name}").status == 404


@pytest.mark.slow
@pytest.mark.deadline(240)
def test_many_rotations_and_then_the_old_versions_are_disabled_and_purged(volume, emulator, vault):
    fill(volume, 300)
    with Programs(volume.mnt) as programs:
        for newest in range(2, scaled(6, 50) + 2):
            volume.key.rotate()
            wait_done(volume, newest)
    assert not programs.failures, programs.failures[0]
    assert all(programs.rounds.values()), programs.rounds
    old = not_needed(volume)
    assert len(old) == newest - 1
    for version in old:
        volume.key.set_enabled(False, version)
    enabled = [version for version, enabled in volume.key.versions().items() if enabled]
    assert len(enabled) == 1 and enabled[0] not in old
    time.sleep(3)  # a revocation window and more
    programs.check()
    volume.remount()
    programs.check()
    move_to_another_key(volume, emulator, vault)
    purge(emulator, vault, "kek")
    time.sleep(3)
    programs.check()
    volume.remount()
    programs.check()
    check(volume, 300)
    print(f"{newest - 1} rotations; {programs.rounds}")
    assert list(kek_states(volume).values()).count("active") == 1
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.slow
@pytest.mark.deadline(240)
def test_many_disablings_while_programs_work(volume):
    away = []
    fill(volume, 50)
    (version,) = volume.key.versions()
    with Programs(volume.mnt) as programs:
        for _ in range(scaled(6, 50)):
            time.sleep(0.3)
            began = time.monotonic()
            volume.key.set_enabled(False, version)
            wait_state(volume, "revoked")
            volume.key.set_enabled(True, version)
            wait_served(os.listdir, volume.mnt)
            wait_state(volume, "active")
            away.append((began, time.monotonic()))
    wrong = unexplained(programs.failures, away)
    assert not wrong, wrong[0]
    programs.check()
    check(volume, 50)
    volume.remount()
    programs.check()
    print(f"{len(away)} disablings; {programs.rounds}, {len(programs.failures)} refused")
    volume.umount()
    volume.assert_verifies_clean()
