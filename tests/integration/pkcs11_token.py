# SPDX-License-Identifier: Apache-2.0
"""Tokens of SoftHSM, and a second way to use their keys."""

import ctypes
import os
import pathlib

import azure_volume
import mountpoint
import turnkeyfs_reader as reader
from key_states import EXPECTED
from mountpoint import run

SOFTHSM = next(
    (
        path
        for path in (
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/lib64/softhsm/libsofthsm2.so",
        )
        if os.path.exists(path)
    ),
    None,
)
PIN = "pin-4711-needle"
SO_PIN = "12345678"
LABEL = "unit-token"
AAD = b"turnkeyfs root wrap 1"

EXPECTED_PKCS11 = EXPECTED + "|the root key pkcs11:|cannot log in to the token"


def faulty_module():
    """The module that fails as its rules say: tests/tools/faulty_pkcs11.h."""
    return pathlib.Path(mountpoint.turnkeyfs()).parent / "tests/tools/libtk_faulty_pkcs11.so"


def uri(label, token=LABEL):
    return f"pkcs11:token={token};object={label}"


class Token:
    """A token in a directory of its own, and what its owner does with the usual tools."""

    def __init__(self, directory, objects, monkeypatch):
        self.directory = directory
        self.module = SOFTHSM
        self.label = LABEL
        self.pin = PIN
        self.objects = objects
        self.pin_file = directory / "pin"
        self.rules_file = directory / "rules"
        self.directory.mkdir()
        self.objects.mkdir()
        conf = directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self.objects}\nobjectstore.backend = file\n")
        self.write_pin(PIN)
        monkeypatch.setenv("SOFTHSM2_CONF", str(conf))
        monkeypatch.setenv("TK_FAULTY_MODULE", SOFTHSM)
        monkeypatch.setenv("TK_FAULTY_RULES", str(self.rules_file))
        self.rules_file.write_text("")
        run("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN)

    def write_pin(self, pin):
        self.pin_file.write_text(pin + "\n")
        self.pin_file.chmod(0o600)

    def set_rules(self, text=""):
        """Of the faulty module, from its next call on."""
        new = self.rules_file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.rules_file)

    def pkcs11_tool(self, *words, **more):
        return run("pkcs11-tool", "--module", self.module, "--token-label", self.label, "--login",
                   "--pin", self.pin, *words, **more)  # fmt: skip

    def p11tool(self, *words, **more):
        return run("p11tool", "--provider", self.module, "--batch", "--login", *words,
                   env=os.environ | {"GNUTLS_PIN": self.pin}, **more)  # fmt: skip

    def sections(self, label, module=None, kms=None, pkcs11=None, **more):
        return {
            "kms": {"provider": "pkcs11"} | (kms or {}),
            "pkcs11": {
                "module": module or self.module,
                "uri": uri(label, self.label),
                "pin": f"file:{self.pin_file}",
            }
            | (pkcs11 or {}),
            "volume": {"names": mountpoint.NAMES, "journal_size": 1} | more.pop("volume", {}),
        } | more  # fmt: skip

    def conf(self, label="root", name=None, **more):
        path = self.directory / f"{name or label}.conf"
        return azure_volume.write(path, self.sections(label, **more))

    def unplug(self):
        """The slot is empty from now on."""
        self.objects.rename(self.objects.with_name("unplugged"))
        self.objects.mkdir()

    def plug_in(self):
        self.objects.rmdir()
        self.objects.with_name("unplugged").rename(self.objects)


# --- a second way to the keys: the structures of PKCS#11 by hand ----------------------------------


class Mechanism(ctypes.Structure):
    _fields_ = [("type", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("length", ctypes.c_ulong)]


class GcmParameters(ctypes.Structure):
    _fields_ = [("iv", ctypes.c_void_p), ("iv_len", ctypes.c_ulong), ("iv_bits", ctypes.c_ulong),
                ("aad", ctypes.c_void_p), ("aad_len", ctypes.c_ulong), ("tag_bits", ctypes.c_ulong)]  # fmt: skip


class OaepParameters(ctypes.Structure):
    _fields_ = [("hash", ctypes.c_ulong), ("mgf", ctypes.c_ulong), ("source", ctypes.c_ulong),
                ("data", ctypes.c_void_p), ("data_len", ctypes.c_ulong)]  # fmt: skip


class Attribute(ctypes.Structure):
    _fields_ = [("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong)]


CKA_LABEL, CKA_ID, CKA_DECRYPT, CKA_START_DATE, CKA_END_DATE = 3, 0x102, 0x105, 0x110, 0x111
CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_ENCRYPT, CKA_VALUE_LEN, CKA_EXTRACTABLE = 1, 2, 0x103, 0x104, 0x161, 0x162
CKM_AES_KEY_GEN = 0x1080
CKA_CLASS, CKO_PRIVATE_KEY, CKO_SECRET_KEY = 0, 3, 4
CKM_AES_GCM, CKM_RSA_PKCS_OAEP, CKM_SHA_1, CKG_MGF1_SHA1 = 0x1087, 9, 0x220, 1


class Module:
    """A session with a module, without p11-kit and without our code; a context."""

    def __init__(self, token):
        self.token = token
        self.module = ctypes.CDLL(token.module)
        self.session = ctypes.c_ulong()

    def call(self, name, *args):
        rv = getattr(self.module, name)(*args)
        assert rv == 0, f"{name}: {rv:#x}"

    def __enter__(self):
        self.call("C_Initialize", None)
        slots = (ctypes.c_ulong * 16)()
        count = ctypes.c_ulong(16)
        self.call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        slot = next(s for s in slots[: count.value] if self.label_of(s) == self.token.label)
        self.call("C_OpenSession", ctypes.c_ulong(slot), ctypes.c_ulong(6), None, None,
                  ctypes.byref(self.session))  # fmt: skip
        pin = self.token.pin.encode()
        self.call("C_Login", self.session, ctypes.c_ulong(1), pin, ctypes.c_ulong(len(pin)))
        return self

    def __exit__(self, *_):
        self.call("C_Finalize", None)

    def label_of(self, slot):
        info = ctypes.create_string_buffer(512)
        self.call("C_GetTokenInfo", ctypes.c_ulong(slot), info)
        return info.raw[:32].decode().rstrip()

    def find(self, version, kind):
        """The handle of the object with that CKA_ID."""
        identity = ctypes.create_string_buffer(bytes.fromhex(version), len(version) // 2)
        kind = ctypes.c_ulong(kind)
        template = (Attribute * 2)(
            Attribute(CKA_ID, ctypes.addressof(identity), len(version) // 2),
            Attribute(CKA_CLASS, ctypes.addressof(kind), ctypes.sizeof(kind)),
        )
        found, count = ctypes.c_ulong(), ctypes.c_ulong()
        self.call("C_FindObjectsInit", self.session, template, ctypes.c_ulong(2))
        self.call("C_FindObjects", self.session, ctypes.byref(found), ctypes.c_ulong(1), ctypes.byref(count))
        self.call("C_FindObjectsFinal", self.session)
        assert count.value == 1, f"no object {version}"
        return found

    def set(self, version, attribute, value, kind=CKO_SECRET_KEY):
        buffer = ctypes.create_string_buffer(value, len(value))
        template = Attribute(attribute, ctypes.addressof(buffer), len(value))
        self.call("C_SetAttributeValue", self.session, self.find(version, kind), ctypes.byref(template),
                  ctypes.c_ulong(1))  # fmt: skip

    def generate(self, label, identity):
        """An AES key for all to see: SoftHSM reads the dates of no other back."""
        name, identity = label.encode(), bytes.fromhex(identity)
        held = []

        def attribute(kind, value):
            held.append(ctypes.create_string_buffer(value, len(value)))
            return Attribute(kind, ctypes.addressof(held[-1]), len(value))

        flags = {CKA_TOKEN: 1, CKA_PRIVATE: 0, CKA_SENSITIVE: 1, CKA_EXTRACTABLE: 0, CKA_ENCRYPT: 1,
                 CKA_DECRYPT: 1}  # fmt: skip
        attributes = [attribute(kind, bytes([on])) for kind, on in flags.items()]
        attributes += [attribute(CKA_LABEL, name), attribute(CKA_ID, identity)]
        attributes.append(attribute(CKA_VALUE_LEN, (32).to_bytes(ctypes.sizeof(ctypes.c_ulong), "little")))
        template = (Attribute * len(attributes))(*attributes)
        mechanism, key = Mechanism(CKM_AES_KEY_GEN, None, 0), ctypes.c_ulong()
        self.call("C_GenerateKey", self.session, ctypes.byref(mechanism), template,
                  ctypes.c_ulong(len(attributes)), ctypes.byref(key))  # fmt: skip

    def decrypt(self, version, mechanism, blob, kind):
        out = ctypes.create_string_buffer(512)
        length = ctypes.c_ulong(512)
        self.call("C_DecryptInit", self.session, ctypes.byref(mechanism), self.find(version, kind))
        self.call("C_Decrypt", self.session, blob, ctypes.c_ulong(len(blob)), out, ctypes.byref(length))
        return out.raw[: length.value]

    def unwrap(self, version, algorithm, blob):
        if algorithm == "AES-256-GCM":
            iv = ctypes.create_string_buffer(blob[:12], 12)
            aad = ctypes.create_string_buffer(AAD, len(AAD))
            parameters = GcmParameters(ctypes.addressof(iv), 12, 96, ctypes.addressof(aad), len(AAD), 128)
            kind, body, mechanism = CKO_SECRET_KEY, blob[12:], CKM_AES_GCM
        else:
            assert algorithm == "RSA-OAEP", algorithm
            parameters = OaepParameters(CKM_SHA_1, CKG_MGF1_SHA1, 1, None, 0)
            kind, body, mechanism = CKO_PRIVATE_KEY, blob, CKM_RSA_PKCS_OAEP
        mechanism = Mechanism(mechanism, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        return self.decrypt(version, mechanism, body, kind)


class TokenKeys:
    """A token as the independent reader's keystore."""

    provider = "pkcs11"
    versions = {}  # root keys stay in the token

    def __init__(self, token):
        self.token = token

    def unwrap(self, wrap, blob=None):
        with Module(self.token) as module:
            return module.unwrap(wrap["version"], wrap["algorithm"], blob or reader.unbase64url(wrap["blob"]))
