# SPDX-License-Identifier: Apache-2.0
"""
Backup blobs: opaque to the client, sealed under a key of this emulator, or of the Managed HSM.

Source: Key Vault REST API, "Backup Key", "Restore Key". A vault's blob fits any vault of the
same subscription, which here is the state directory; an HSM's its security domain.
"""

import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import errors
from .encoding import b64url, unb64url
from .keys import Key

MAX_PAST_VERSIONS = 500
MAGIC = b"KeyBackup1"


def seal(key, secret):
    if len(key.versions) > MAX_PAST_VERSIONS:
        raise errors.bad_parameter(f"A key with over {MAX_PAST_VERSIONS} versions has no backup")
    iv = os.urandom(12)
    text = json.dumps(key.to_json()).encode()
    return b64url(MAGIC + iv + AESGCM(secret).encrypt(iv, text, MAGIC))


def open_blob(value, secret):
    """The Key in it; BadParameter if it is damaged or comes from elsewhere."""
    try:
        blob = unb64url(value)
        if not blob.startswith(MAGIC):
            raise ValueError("no backup")
        rest = blob[len(MAGIC) :]
        return Key.from_json(json.loads(AESGCM(secret).decrypt(rest[:12], rest[12:], MAGIC)))
    except (ValueError, InvalidTag):
        raise errors.bad_parameter("Property value has invalid value: not a backup") from None
