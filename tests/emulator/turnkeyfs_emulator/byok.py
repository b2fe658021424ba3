# SPDX-License-Identifier: Apache-2.0
"""
BYOK: a key wrapped to a key exchange key (KEK) in the vault, and what a customer's HSM does to
make such a blob.

Source: "Bring your own key specification": RSA-OAEP (SHA-1) of an AES-256 key, then AES-KWP
(RFC 5649) of the PKCS#8 key or the octets; CKM_RSA_AES_KEY_WRAP.
"""

import json
import os
import urllib.parse

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding

from . import errors, material
from .encoding import b64url, parse_object, unb64url

OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
MECHANISM = "CKM_RSA_AES_KEY_WRAP"


def make_blob(kek_kid, kek_public, secret):
    """The .byok file's content. @secret: PKCS#8 DER, or the octets of a symmetric key."""
    aes = os.urandom(32)
    ciphertext = kek_public.encrypt(aes, OAEP) + keywrap.aes_key_wrap_with_padding(aes, secret)
    return json.dumps(
        {
            "schema_version": "1.0.0",
            "header": {"kid": kek_kid, "alg": "dir", "enc": MECHANISM},
            "ciphertext": b64url(ciphertext),
            "generator": "turnkeyfs emulator",
        }
    ).encode()


def open_blob(key_hsm, kty, find_kek):
    """
    The material in @key_hsm (base64url of the blob).

    @find_kek: from (name, version) to the KEK's Version, or a ServiceError.
    """
    try:
        blob = parse_object(unb64url(key_hsm))
        header = blob["header"]
        if header["enc"] != MECHANISM or header["alg"] != "dir":
            raise ValueError("unknown alg or enc")
        name, version = urllib.parse.urlsplit(header["kid"]).path.split("/")[2:4]
        ciphertext = unb64url(blob["ciphertext"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise errors.bad_parameter(f"Property key_hsm has invalid value: {e}") from None
    kek = find_kek(name, version)
    if kek.kty != "RSA-HSM" or kek.ops != ["import"]:
        raise errors.bad_parameter("The key exchange key must be RSA-HSM with key_ops [import]")
    size = kek.material.bits // 8
    try:
        aes = kek.material.key.decrypt(ciphertext[:size], OAEP)
        secret = keywrap.aes_key_unwrap_with_padding(aes, ciphertext[size:])
        return _material(secret, kty)
    except (ValueError, TypeError, keywrap.InvalidUnwrap) as e:
        raise errors.bad_parameter(f"Property key_hsm has invalid value: {e}") from None


def _material(secret, kty):
    family = material.family_of(kty)
    if family == "oct":
        if 8 * len(secret) not in material.OCT_SIZES:
            raise ValueError("an AES key has 128, 192 or 256 bits")
        return material.Material("oct", secret)
    found = material.from_pkcs8(secret)
    if found.family != family:
        raise ValueError(f"the blob holds no {family} key")
    return found
