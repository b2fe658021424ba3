# SPDX-License-Identifier: Apache-2.0
"""
Fixtures with a token of SoftHSM.

A test module says `pytest_plugins = ["pkcs11_fixture"]` and takes `token` or `make_token_volume`.
"""

import itertools
import pathlib
import shutil
import tempfile

import azure_volume
import pytest
from key_states import RootKey
from pkcs11_token import EXPECTED_PKCS11, SOFTHSM, Token, TokenKeys


@pytest.fixture
def token(work, monkeypatch):
    if not SOFTHSM or not shutil.which("softhsm2-util"):
        pytest.skip("no SoftHSM")
    # SoftHSM cuts its files and writes them anew, which a disk that others sync stops for seconds.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Token(work / "token", pathlib.Path(directory) / "tokens", monkeypatch)


@pytest.fixture
def make_token_volume(token, make_volume):
    """A function that makes mounted volumes with a root key in the token, a key each."""
    numbers = itertools.count(1)

    def make(conf=None, key=(), module=None, mount=True, **pkcs11):
        label = f"root{next(numbers)}"
        volume = make_volume(name=f"volume-{label}", mount=False, init=False)
        conf = {section: dict(values) for section, values in (conf or {}).items()}
        azure_volume.write(volume.conf, token.sections(label, module, pkcs11=pkcs11, **conf))
        volume.expect_log(EXPECTED_PKCS11)
        volume.key = RootKey(volume.conf, volume.mnt).create(*key)
        volume.reader_keys = lambda: TokenKeys(token)
        volume.init()
        return volume.mount() if mount else volume

    return make
