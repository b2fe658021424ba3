# SPDX-License-Identifier: Apache-2.0
"""JSON Web Tokens, RS256 and PS256 (RFC 7515, 7519)."""

import json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from .encoding import b64url, parse_object, unb64url

PADDINGS = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32),
}


def sign(header, claims, private_key):
    signed = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    signature = private_key.sign(signed.encode(), PADDINGS[header["alg"]], hashes.SHA256())
    return f"{signed}.{b64url(signature)}"


def parse(token):
    """(header, claims, signed text, signature); ValueError if it isn't a JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("a JWT has three parts")
    header, claims = (parse_object(unb64url(part)) for part in parts[:2])
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), unb64url(parts[2])


def verify(token, public_key):
    """Whether @public_key made the signature, with the algorithm that the header names."""
    header, _, signed, signature = parse(token)
    scheme = PADDINGS.get(header.get("alg") if isinstance(header.get("alg"), str) else None)
    if scheme is None:
        return False
    try:
        public_key.verify(signature, signed, scheme, hashes.SHA256())
    except InvalidSignature:
        return False
    return True
