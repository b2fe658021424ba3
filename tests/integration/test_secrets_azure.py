# SPDX-License-Identifier: Apache-2.0
"""
With the root key in a vault: no client secret, no certificate's key, no assertion, no token and no key
in a log at any level, on a command line, in the environment of a child, in a core, or in memory that
a core would take; whatever way this machine proves who it is.
"""

import base64
import os
import re
import shutil
import stat

import azure_volume
import pytest
import turnkeyfs_reader as reader
from azure_volume import VaultKeys, key_id, owned_vault, turnkeyfs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers import noise, read_file, write_file
from key_states import EXPECTED, wait_state
from memory import places, search, search_file
from mountpoint import run, sanitized, wait_for

pytest_plugins = ["emulator_fixture"]
pytestmark = pytest.mark.skipif(
    sanitized(), reason="sanitizers keep freed memory and dumpable pages"
)

WAYS = ("client-secret", "client-certificate", "workload-identity", "managed-identity", "azure-cli")
PASSWORD = "correct horse battery staple 4711"
LEVELS = ("error", "info")  # debug is what the other tests have


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


# --- what must not be found ----------------------------------------------------------------------


def forms(what, octets):
    """{what, in which form: bytes}"""
    return {
        what: octets,
        f"{what}, hexadecimal": octets.hex().encode(),
        f"{what}, base64url": base64.urlsafe_b64encode(octets).rstrip(b"="),
        f"{what}, base64": base64.b64encode(octets).rstrip(b"="),
    }


def private_numbers(what, pem, password=None):
    """Of a RSA key; also as OpenSSL keeps numbers in memory."""
    key = serialization.load_pem_private_key(pem, password)
    numbers = key.private_numbers()
    found = {}
    for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp"):
        value = getattr(numbers, name)
        octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
        found |= forms(f"{what}: {name}", octets) | {f"{what}: {name}, in memory": octets[::-1]}
    return found


def jwt_needles(what, token):
    """The whole, and its signature, without which the rest is worth nothing."""
    return {what: token.encode(), f"{what}, signature": token.rsplit(".", 1)[1].encode()[:300]}


def secret_needles(emulator):
    """Of identities: what the emulator gave out, and what it was shown."""
    needles = {"client secret": emulator.client_secret.encode(), "password": PASSWORD.encode()}
    seen = emulator.control("tokens_seen")
    tokens = {header.split(" ", 1)[1] for header in seen["tokens"].values()}
    assert tokens
    for kind, found in (("token", tokens), ("assertion", seen["assertions"])):
        for i, token in enumerate(found):
            needles |= jwt_needles(f"{kind} {i}", token)
    pem = open(emulator.client_certificate, "rb").read()
    needles |= private_numbers("certificate", pem)
    needles["certificate, PEM"] = pem.split(b"PRIVATE KEY-----\n")[1].split(b"\n")[1]
    return needles


def key_needles(volume, vault):
    """Of the volume: KEKs, volume key, DEKs and what is derived from them."""
    keys = VaultKeys(vault)
    found = {}
    for what, key in reader.keys(keys, reader.Volume(volume.cipher, keys)):
        found |= forms(what, key)
    assert any(what.startswith("DEK of") for what in found)
    return found


# --- identities ----------------------------------------------------------------------------------


class Way:
    """Options and variables of one way to prove who this machine is."""

    def __init__(self, emulator, directory, kind, audience):
        self.options = {"auth": kind}
        self.variables = {}
        self.child = directory / "child"
        if kind != "client-secret":
            self.options["client_secret"] = None
        if kind == "client-certificate":
            self.options |= self.sealed_certificate(emulator, directory)
        if kind == "workload-identity":
            token = directory / "federated"
            token.write_text(emulator.control("federated_token")["token"])
            self.options["token_file"] = token
        if kind == "managed-identity":
            self.options |= {"client_id": None, "tenant_id": None, "authority": None}
            self.variables["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = emulator.identity
        if kind == "azure-cli":
            self.options |= {"client_id": None, "authority": None}
            self.variables |= self.program(emulator, directory, audience)

    @staticmethod
    def sealed_certificate(emulator, directory):
        pem = open(emulator.client_certificate, "rb").read()
        key = serialization.load_pem_private_key(pem, None)
        sealed = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
        (directory / "sealed.pem").write_bytes(sealed + pem[pem.index(b"-----BEGIN CERT") :])
        (directory / "password").write_text(PASSWORD)
        (directory / "password").chmod(0o600)
        return {
            "certificate": directory / "sealed.pem",
            "certificate_password": f"file:{directory}/password",
        }

    def program(self, emulator, directory, audience):
        """An `az` that writes down all that it gets from us."""
        self.child.mkdir()
        token = emulator.access_token(audience)
        (directory / "az-token").write_text(token)  # the program's own business
        program = directory / "bin" / "az"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f"cat /proc/self/environ >>{self.child}/environ\n"
            f"tr '\\0' ' ' </proc/$$/cmdline >>{self.child}/cmdline\n"
            f"ls -l /proc/$$/fd >>{self.child}/fds\n"
            f"token=$(cat {directory}/az-token)\n"
            """printf '{"accessToken":"%s","expires_on":%s}' "$token" $(($(date +%s) + 3000))\n"""
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        # What is in our environment is not passed on either.
        hidden = {"AZURE_CLIENT_SECRET": emulator.client_secret, "SOME_TOKEN": PASSWORD}
        return hidden | {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.fixture
def way(request, emulator, work, monkeypatch):
    found = Way(emulator, work, request.param, f"https://{emulator.vault_suffix}")
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def vault(emulator):
    return owned_vault(emulator)


@pytest.fixture
def make_secretive(emulator, vault, way, make_volume):
    """A function that makes a mounted volume, and keeps what every command said."""

    def make(dek_wrap="kek", level="debug"):
        volume = make_volume(mount=False, init=False)
        sections = azure_volume.sections(
            emulator, key_id(vault), volume.directory, azure=way.options,
            kms={"revocation_window": 2, "rotation_window": 2}, log={"level": level},
            volume={"dek_wrap": dek_wrap},
        )  # fmt: skip
        sections["azure"] = {k: v for k, v in sections["azure"].items() if v is not None}
        azure_volume.write(volume.conf, sections)
        volume.expect_log(EXPECTED + "|azure: |the root key|Entra ID|error:|warning:")
        volume.spoken = []
        say(volume, "init", "-c", volume.conf, volume.cipher)
        return volume.mount()

    return make


def say(volume, *words):
    done = turnkeyfs(*words, check=False)
    volume.spoken.append(f"{words}: {done.stdout}{done.stderr}")
    return done


def use(volume, vault, emulator):
    """Whatever brings keys and tokens through our hands: also refusals, renewals, rotations."""
    for i in range(5):
        write_file(volume.mnt / f"f{i}", noise(5000, i))
    volume.remount()
    for i in range(5):
        read_file(volume.mnt / f"f{i}")
    emulator.control("fault", kind="token", reason="expired", vault=vault.name)
    say(volume, "status", volume.mnt)
    say(volume, "doctor", "-c", volume.conf, volume.cipher)
    say(volume, "key", "list", "-c", volume.conf)
    say(volume, "key", "rotate", "-c", volume.conf)
    wanted = {1: "retired", 2: "active"}
    wait_for(lambda: azure_volume.kek_states(volume) == wanted, 20, "the rotation")
    for operation in ("unwrapKey", "get"):
        for hostile in ("huge", "duplicates", "wrong_types", "truncated"):
            emulator.control(
                "fault", kind="json", hostile=hostile, operation=operation, vault=vault.name, size=5000
            )
            say(volume, "doctor", "-c", volume.conf)
    emulator.control("revoke", vault=vault.name, permissions=["unwrapKey"])
    wait_state(volume, "revoked")
    emulator.control("grant", vault=vault.name, permissions=["unwrapKey"])
    wait_state(volume, "active")


def check_texts(volume, way, needles):
    process = f"/proc/{volume.pid}"
    paths = [volume.log_path, f"{process}/cmdline", f"{process}/environ", volume.conf,
             volume.cipher / "turnkeyfs.volume"]  # fmt: skip
    if way.child.exists():
        paths += [way.child / name for name in ("environ", "cmdline", "fds")]
        assert "account get-access-token" in (way.child / "cmdline").read_text()
        paths.remove(f"{process}/environ")  # where the test put something itself
    for path in paths:
        assert not search_file(path, needles), path
    spoken = "\n".join(volume.spoken).encode()
    found = [what for what, needle in needles.items() if needle in spoken]
    assert not found
    for text in (spoken, volume.log_path.read_bytes()):
        assert b"Bearer ey" not in text and not re.search(rb"eyJ[A-Za-z0-9_-]{10}", text)


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.deadline(400)
@pytest.mark.parametrize("way, dek_wrap", [(WAYS[0], "kek"), *((way, "kms") for way in WAYS)],
                         indirect=["way"])  # fmt: skip
def test_nothing_secret_leaves_the_process(emulator, vault, way, make_secretive, dek_wrap, work):
    volume = make_secretive(dek_wrap)
    use(volume, vault, emulator)
    needles = secret_needles(emulator) | key_needles(volume, vault)
    assert "HTTP 200" in volume.log(), "debug is on"
    check_texts(volume, way, needles)
    if way.child.exists():  # the environment that the test itself gave us
        del needles["client secret"], needles["password"]
    # What is asked of the vault is under way nearly all the time.
    emulator.control("fault", kind="slow", ms=500, count=None, vault=vault.name)
    with open(volume.mnt / "f1", "rb") as f:
        f.read(10)
        check_core(volume, work, needles)
        check_memory(volume, needles)


def check_core(volume, work, needles):
    """gdb's gcore, by root, which respects what is marked as not to be dumped."""
    if not shutil.which("gcore"):
        return
    run("gcore", "-o", work / "core", volume.pid)
    found = search_file(work / f"core.{volume.pid}", needles)
    assert not found, found


def check_memory(volume, needles):
    """What is in memory at all lies in locked pages that no core takes."""
    found = search(volume.pid, needles)
    assert any(what.startswith("DEK of f1") for what, _ in found), "the search finds what is there"
    exposed = [(w, m) for w, m in found if "dd" not in m.flags or "lo" not in m.flags]
    assert not exposed, places(exposed)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("way", ["client-secret"], indirect=True)
def test_no_level_of_the_log_tells(emulator, vault, make_secretive, way, level):
    volume = make_secretive("kms", level)
    use(volume, vault, emulator)
    check_texts(volume, way, secret_needles(emulator) | key_needles(volume, vault))


def test_an_imported_key_is_not_told(emulator, vault, work):
    """Its private half goes through our hands once."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (work / "key.pem").write_bytes(pem)
    sections = azure_volume.sections(emulator, key_id(vault, "mine"), work, log={"level": "debug"})
    conf = azure_volume.write(work / "c.conf", sections)
    needles = private_numbers("imported", pem) | secret_needles_after(emulator, conf, work)
    for fault in (None, "truncated", "wrong_types"):
        if fault:
            emulator.control("fault", kind="json", hostile=fault, operation="import", vault=vault.name)
        done = turnkeyfs("key", "import", "-c", conf, work / "key.pem", check=False)
        text = (done.stdout + done.stderr).encode()
        assert "HTTP 200" in done.stderr
        assert not [what for what, needle in needles.items() if needle in text]


def secret_needles_after(emulator, conf, work):
    turnkeyfs("key", "import", "-c", conf, work / "key.pem")
    return secret_needles(emulator)
