# SPDX-License-Identifier: Apache-2.0
"""
The official Azure SDK (@azure/keyvault-keys, @azure/identity), unchanged.

A test module says `pytest_plugins = ["emulator_fixture", "sdk_fixture"]` and takes `sdk`.
"""

import json
import os
import re
import shutil
import subprocess

import pytest
from emulator_client import EMULATOR

SDK = EMULATOR.parent / "sdk"
# Left out of git; installed once.
INSTALLED = SDK.parent.parent / "build-sdk"
OLDEST_NODE = 20


def node_version():
    try:
        text = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return 0
    found = re.match(r"v(\d+)", text)
    return int(found[1]) if found else 0


@pytest.fixture(scope="session")
def installed():
    """The directory with the SDK, as package-lock.json says."""
    if node_version() < OLDEST_NODE or not shutil.which("npm"):
        pytest.skip(f"needs npm, and node {OLDEST_NODE} or newer")
    wanted = (SDK / "package-lock.json").read_bytes()
    mark = INSTALLED / "installed-lock.json"
    if not mark.exists() or mark.read_bytes() != wanted:
        INSTALLED.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(SDK / name, INSTALLED)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=INSTALLED, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        mark.write_bytes(wanted)
    return INSTALLED


@pytest.fixture
def sdk(installed, emulator):
    """A function that runs a command of the driver and returns its result."""

    def run(*command, credential="secret", environment=None):
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("AZURE_", "IDENTITY_"))}
        variables = {
            "SDK_DIR": str(installed),
            "NODE_EXTRA_CA_CERTS": emulator.ca,
            "CREDENTIAL": credential,
        }
        done = subprocess.run(
            ["node", SDK / "driver.js", emulator.directory / "ready.json", *command],
            env=clean | variables | (environment or {}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run
