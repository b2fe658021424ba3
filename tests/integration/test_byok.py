# SPDX-License-Identifier: Apache-2.0
"""
Keys of one's own: imported by `turnkeyfs key import`, as PEM or as a transfer blob, and volumes
under them. The blobs are made here, by Microsoft's "Bring your own key specification".
"""

import base64
import json
import os

import azure_volume
import pytest
from azure_volume import fails, kek_states, key_id, key_version, record_versions, turnkeyfs
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from helpers import noise, read_file, write_file
from mountpoint import wait_for
from turnkeyfs_emulator.encoding import b64url, int_bytes, unb64url

pytest_plugins = ["emulator_fixture", "sdk_fixture"]

OAEP_1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
OAEP_256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
OPS = ["wrapKey", "unwrapKey"]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


def new_key(bits=2048):
    return rsa.generate_private_key(65537, bits)


def pkcs8(key, encoding, encryption=None):
    encryption = encryption or serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption)


def as_pem(path, key):
    path.write_bytes(pkcs8(key, serialization.Encoding.PEM))
    return path


def exchange_key(vault, name="exchange", **changes):
    """The key in the vault's HSM that blobs are made for."""
    body = {"kty": "RSA-HSM", "key_size": 3072, "key_ops": ["import"]} | changes
    return vault.create(name, **body)["key"]


def transfer_blob(exchange, key, oaep=OAEP_1, **header):
    """What the customer's HSM would make: an AES key by RSA-OAEP, and under that the PKCS#8."""
    modulus = int.from_bytes(unb64url(exchange["n"]), "big")
    public = rsa.RSAPublicNumbers(65537, modulus).public_key()
    aes = os.urandom(32)
    wrapped = keywrap.aes_key_wrap_with_padding(aes, pkcs8(key, serialization.Encoding.DER))
    return {
        "schema_version": "1.0.0",
        "header": {"kid": exchange["kid"], "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"} | header,
        "ciphertext": b64url(public.encrypt(aes, oaep) + wrapped),
        "generator": "test_byok.py",
    }


def as_blob(path, exchange, key):
    path.write_text(json.dumps(transfer_blob(exchange, key)))
    return path


class Owner:
    """Brings keys into a vault, in one of the two ways."""

    def __init__(self, vault, directory, way):
        self.vault = vault
        self.directory = directory
        self.way = way
        self.exchange = exchange_key(vault) if way == "blob" else None

    def bring(self, conf, key):
        path = self.directory / "key-to-import"
        if self.way == "pem":
            turnkeyfs("key", "import", "-c", conf, as_pem(path, key))
        else:
            blob = as_blob(path, self.exchange, key)
            turnkeyfs("key", "import", "--byok", "-c", conf, blob)
        path.unlink()


@pytest.fixture(params=["pem", "blob"])
def owner(request, emulator, work):
    return Owner(emulator.vault(purge_protection=True), work, request.param)


@pytest.fixture
def make_byok(emulator, make_volume):
    """A function that makes a volume's place with a configuration for @vault's key `kek`."""

    def make(vault, dek_wrap="kek", **kms):
        volume = make_volume(mount=False, init=False)
        sections = azure_volume.sections(emulator, key_id(vault), volume.directory, kms=kms)
        sections["volume"] = {"dek_wrap": dek_wrap}
        azure_volume.write(volume.conf, sections)
        return volume

    return make


def modulus(key):
    return int_bytes(key.public_key().public_numbers().n)


def wrap_in(volume, section):
    """(version, blob) of a [wrap] of the volume file: docs/format.md."""
    text = (volume.cipher / "turnkeyfs.volume").read_text()
    lines = text.split(f"[wrap {section}]\n")[1].split("\n[")[0].replace("\n ", "").splitlines()
    values = dict(line.split(" = ", 1) for line in lines)
    return values["version"], unb64url(values["blob"].replace(" ", ""))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_volume_under_an_imported_key(owner, make_byok, bits):
    key = new_key(bits)
    volume = make_byok(owner.vault)
    owner.bring(volume.conf, key)
    found = owner.vault.ok("GET", "/keys/kek")["key"]
    assert unb64url(found["n"]) == modulus(key)
    assert found["kty"] == ("RSA" if owner.way == "pem" else "RSA-HSM")
    assert found["key_ops"] == OPS
    volume.init().mount()
    write_file(volume.mnt / "f", noise(100_000))
    volume.remount()
    assert read_file(volume.mnt / "f") == noise(100_000)
    # Its owner can do without the vault: the KEK is under the key that was brought.
    version, blob = wrap_in(volume, "1.1")
    assert version == key_version(owner.vault)
    assert len(key.decrypt(blob, OAEP_256)) == 32
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.parametrize("dek_wrap", ["kek", "kms"])
def test_a_volume_is_rotated_to_an_imported_version(owner, make_byok, dek_wrap):
    volume = make_byok(owner.vault, dek_wrap, rotation_window=3)
    owner.bring(volume.conf, new_key())
    volume.init().mount()
    for i in range(10):
        write_file(volume.mnt / f"f{i}", noise(3000, i))
    old = key_version(owner.vault)
    newer = new_key(3072)
    owner.bring(volume.conf, newer)
    wanted = {1: "retired", 2: "active"}
    wait_for(lambda: kek_states(volume) == wanted, 20, "the rotation")
    assert record_versions(volume) == {2}
    owner.vault.set_enabled("kek", False, old)
    volume.remount()
    for i in range(10):
        assert read_file(volume.mnt / f"f{i}") == noise(3000, i)
    version, blob = wrap_in(volume, "2.1")
    assert version == key_version(owner.vault) != old
    assert len(newer.decrypt(blob, OAEP_256)) == 32


def test_the_official_sdk_sees_the_key_that_was_brought(sdk, owner, make_byok):
    key = new_key()
    volume = make_byok(owner.vault)
    owner.bring(volume.conf, key)
    volume.init()
    shown = sdk("get", owner.vault.url, "kek")
    assert base64.b64decode(shown["n"]) == modulus(key)
    assert shown["keyOperations"] == OPS
    # It unwraps what the owner wraps, and the owner what it wraps; and it opens our KEK.
    secret = bytes(range(32))
    ours = base64.b64encode(key.public_key().encrypt(secret, OAEP_256)).decode()
    opened = sdk("unwrap", shown["id"], "RSA-OAEP-256", ours)["value"]
    assert base64.b64decode(opened) == secret
    theirs = sdk("wrap", shown["id"], "RSA-OAEP-256", base64.b64encode(secret).decode())["value"]
    assert key.decrypt(base64.b64decode(theirs), OAEP_256) == secret
    _, blob = wrap_in(volume, "1.1")
    kek = sdk("unwrap", shown["id"], "RSA-OAEP-256", base64.b64encode(blob).decode())["value"]
    assert base64.b64decode(kek) == key.decrypt(blob, OAEP_256)


def test_a_managed_hsm_takes_both(emulator, make_byok, work):
    hsm = emulator.vault(hsm=True, purge_protection=True)
    volume = make_byok(hsm)
    for way in ("pem", "blob"):
        key = new_key()
        Owner(hsm, work, way).bring(volume.conf, key)
        found = hsm.ok("GET", "/keys/kek")["key"]
        assert (found["kty"], unb64url(found["n"])) == ("RSA-HSM", modulus(key))
    volume.init().mount()
    write_file(volume.mnt / "f", b"x")
    volume.remount()
    assert read_file(volume.mnt / "f") == b"x"


# --- what is refused -----------------------------------------------------------------------------


def spoilt(blob):
    """{what is wrong: the blob}"""
    flipped = unb64url(blob["ciphertext"])
    flipped = flipped[:-1] + bytes([flipped[-1] ^ 1])
    return {
        "ciphertext damaged": blob | {"ciphertext": b64url(flipped)},
        "ciphertext cut": blob | {"ciphertext": blob["ciphertext"][:-8]},
        "no ciphertext": {k: v for k, v in blob.items() if k != "ciphertext"},
        "no header": {k: v for k, v in blob.items() if k != "header"},
        "another mechanism": blob | {"header": blob["header"] | {"enc": "A256GCM"}},
        "an unknown exchange key": blob
        | {"header": blob["header"] | {"kid": blob["header"]["kid"][:-32] + "0" * 32}},
    }


def test_a_blob_that_is_not_right_imports_nothing(emulator, make_byok, work):
    vault = emulator.vault(purge_protection=True)
    volume = make_byok(vault)
    exchange = exchange_key(vault)
    general = exchange_key(vault, "general", key_ops=["wrapKey", "unwrapKey"])
    blobs = spoilt(transfer_blob(exchange, new_key())) | {
        "OAEP with SHA-256": transfer_blob(exchange, new_key(), OAEP_256),
        "an exchange key for other things": transfer_blob(general, new_key()),
    }
    path = work / "key.byok"
    for what, blob in blobs.items():
        path.write_text(json.dumps(blob))
        done = turnkeyfs("key", "import", "--byok", "-c", volume.conf, path, check=False)
        wanted = (12, "HTTP 404") if what == "an unknown exchange key" else (2, "HTTP 400")
        assert done.returncode == wanted[0] and wanted[1] in done.stderr, (what, done.stderr)
    assert vault.get("/keys/kek").status == 404


def test_a_pem_that_is_not_right_is_never_sent(emulator, make_byok, work):
    vault = emulator.vault(purge_protection=True)
    volume = make_byok(vault)
    key = new_key()
    sealed = serialization.BestAvailableEncryption(b"secret")
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    wrong = {
        "encrypted": (pkcs8(key, serialization.Encoding.PEM, sealed), "encrypted"),
        "too small": (pkcs8(new_key(1024), serialization.Encoding.PEM), "2048"),
        "public": (public, "private key"),
        "a blob": (json.dumps(transfer_blob(exchange_key(vault), key)).encode(), "--byok"),
    }
    path = work / "key.pem"
    for what, (content, says) in wrong.items():
        path.write_bytes(content)
        assert says in fails(2, "key", "import", "-c", volume.conf, path), what
    assert emulator.count("import") == 0
