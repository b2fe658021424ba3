# SPDX-License-Identifier: Apache-2.0
"""The recipe of docs/kms-pkcs11.md for a TPM 2.0, with the emulator swtpm.

One client at a time: there is no resource manager before the emulator, as the kernel's /dev/tpmrm0
is before a TPM. So keys are managed while nothing is mounted.
"""

import glob
import os
import shutil
import socket
import subprocess

import azure_volume
import mountpoint
import pytest
from azure_volume import kek_states, turnkeyfs
from helpers import noise, read_file, write_file
from key_states import RootKey, state, wait_state
from mountpoint import run, wait_for
from pkcs11_token import EXPECTED_PKCS11

PIN = "tpm-4711-needle"
LABEL = "turnkeyfs"
MODULES = glob.glob("/usr/lib/*/pkcs11/libtpm2_pkcs11.so") + glob.glob("/usr/lib*/pkcs11/libtpm2_pkcs11.so")


def free_ports():
    """Two that follow each other: the protocol of swtpm wants that."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Tpm:
    def __init__(self, directory):
        self.directory = directory
        self.port = free_ports()
        self.process = None
        (directory / "state").mkdir(parents=True)

    def start(self):
        self.process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory}/state",
             "--server", f"type=tcp,port={self.port}", "--ctrl", f"type=tcp,port={self.port + 1}",
             "--flags", "not-need-init,startup-clear"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(self.answers, 20, "the TPM")

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port + 1)) == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@pytest.fixture
def tpm(work, monkeypatch):
    if not MODULES or not shutil.which("swtpm") or not shutil.which("pkcs11-tool"):
        pytest.skip("no libtpm2-pkcs11, swtpm or pkcs11-tool")
    store = work / "store"
    store.mkdir()
    found = Tpm(work / "tpm")
    monkeypatch.setenv("TPM2_PKCS11_STORE", str(store))
    monkeypatch.setenv("TPM2_PKCS11_TCTI", f"swtpm:host=127.0.0.1,port={found.port}")
    monkeypatch.setenv("TPM2_PKCS11_BACKEND", "esysdb")
    monkeypatch.setenv("TPM2_PKCS11_LOG_LEVEL", "0")
    monkeypatch.setenv("TSS2_LOG", "all+none")
    found.start()
    tool = ["pkcs11-tool", "--module", MODULES[0]]
    run(*tool, "--init-token", "--slot-index", "0", "--label", LABEL, "--so-pin", "sopin")
    run(*tool, "--token-label", LABEL, "--login", "--login-type", "so", "--so-pin", "sopin",
        "--init-pin", "--pin", PIN)  # fmt: skip
    yield found
    found.stop()


@pytest.fixture
def volume(tpm, make_volume):
    volume = make_volume(mount=False, init=False)
    pin = volume.directory / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    azure_volume.write(volume.conf, {
        "kms": {"provider": "pkcs11", "revocation_window": 8, "rotation_window": 0},
        "pkcs11": {"module": MODULES[0], "uri": f"pkcs11:token={LABEL};object=root", "pin": f"file:{pin}"},
        "volume": {"names": mountpoint.NAMES, "journal_size": 1},
    })  # fmt: skip
    volume.expect_log(EXPECTED_PKCS11 + "|^(WARNING|ERROR):")
    volume.key = RootKey(volume.conf).create("--type", "RSA", "--bits", "2048")
    return volume.init().mount()


def test_the_root_key_is_in_a_tpm(volume, tpm):
    write_file(volume.mnt / "f", noise(5000))
    tpm.stop()
    wait_state(volume, "degraded", 40)
    assert read_file(volume.mnt / "f") == noise(5000)
    tpm.start()
    wait_state(volume, "active", 40)
    volume.umount()

    # From here on without a mount: there is one client at a time.
    doctor = turnkeyfs("doctor", "-c", volume.conf).stdout
    assert "ok    wrap: RSA-OAEP-256" in doctor and "it stays in the token" in doctor, doctor
    volume.key.disable()
    assert [v["enabled"] for v in volume.key.versions()] == [False]
    assert "disabled" in azure_volume.fails(12, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    volume.key.enable()
    volume.mount()
    assert state(volume) == "active" and read_file(volume.mnt / "f") == noise(5000)
    volume.umount()

    volume.key.rotate()
    turnkeyfs("rotate", "-c", volume.conf, volume.cipher)
    assert kek_states(volume) == {1: "retired", 2: "active"}
    volume.mount()
    assert read_file(volume.mnt / "f") == noise(5000)
    volume.umount()
    assert PIN not in volume.log() and PIN not in " ".join(os.listdir(volume.directory))
