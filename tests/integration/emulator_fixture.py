# SPDX-License-Identifier: Apache-2.0
"""
Fixtures with the Key Vault emulator.

A test module says `pytest_plugins = ["emulator_fixture"]` and takes `emulator`, `vault` or `hsm`.
"""

import pytest
from emulator_client import Emulator


@pytest.fixture(scope="session")
def emulator_process(tmp_path_factory):
    """One emulator for all tests of a run."""
    emulator = Emulator(tmp_path_factory.mktemp("emulator")).start()
    yield emulator
    assert emulator.stop() == 0, emulator.log()[-3000:]


@pytest.fixture
def emulator(emulator_process):
    """Running, without any hook left from the test before; fails a test that broke the emulator."""
    emulator_process.control("reset")
    emulator_process.read_ready()
    yield emulator_process
    broken = emulator_process.counters()["internal_errors"]
    assert not broken, broken[0]


@pytest.fixture
def make_emulator(tmp_path):
    """A function that starts emulators with arguments of their own."""
    made = []

    def make(*arguments, name="emulator", **more):
        made.append(Emulator(tmp_path / name, *arguments, **more).start())
        return made[-1]

    yield make
    for emulator in made:
        emulator.kill()


@pytest.fixture
def vault(emulator):
    return emulator.vault()


@pytest.fixture
def hsm(emulator):
    return emulator.vault(hsm=True)
