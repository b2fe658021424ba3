# SPDX-License-Identifier: Apache-2.0
"""
Key material: RSA, EC, AES; to and from JWK, and to and from the state directory.

Source: Key Vault REST API, "About keys", "Import Key", JsonWebKey.
"""

import base64
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from . import errors
from .encoding import b64url, int_bytes, unb64url
from .keypool import SIZES

CURVES = {
    "P-256": (ec.SECP256R1, 32),
    "P-384": (ec.SECP384R1, 48),
    "P-521": (ec.SECP521R1, 66),
    "P-256K": (ec.SECP256K1, 32),
}
CURVE_NAMES = {curve.name: name for name, (curve, _) in CURVES.items()}
OCT_SIZES = (128, 192, 256)

RSA_OPS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
DEFAULT_OPS = {
    "RSA": RSA_OPS,
    "EC": ["sign", "verify"],
    "oct": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
}
ALLOWED_OPS = {"RSA": RSA_OPS, "EC": ["sign", "verify"], "oct": RSA_OPS}


class Material:
    """@family: RSA, EC or oct. @key: a private key of `cryptography`, or the octets."""

    def __init__(self, family, key):
        self.family = family
        self.key = key

    @property
    def bits(self):
        return 8 * len(self.key) if self.family == "oct" else self.key.key_size

    @property
    def curve(self):
        """P-256 and the like."""
        return CURVE_NAMES[self.key.curve.name]

    def public_members(self):
        """What a JWK shows: never a private member."""
        if self.family == "RSA":
            numbers = self.key.public_key().public_numbers()
            return {"n": b64url(int_bytes(numbers.n)), "e": b64url(int_bytes(numbers.e))}
        if self.family == "EC":
            numbers = self.key.public_key().public_numbers()
            length = CURVES[self.curve][1]
            return {
                "crv": self.curve,
                "x": b64url(int_bytes(numbers.x, length)),
                "y": b64url(int_bytes(numbers.y, length)),
            }
        return {}

    def store(self):
        if self.family == "oct":
            return base64.b64encode(self.key).decode()
        der = self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return base64.b64encode(der).decode()


def load(family, stored):
    data = base64.b64decode(stored)
    return Material("oct", data) if family == "oct" else from_pkcs8(data)


def from_pkcs8(der):
    """ValueError if it is nothing that Key Vault takes."""
    key = serialization.load_der_private_key(der, None)
    if isinstance(key, rsa.RSAPrivateKey):
        family = "RSA"
        if key.key_size not in SIZES:
            raise ValueError("RSA keys have 2048, 3072 or 4096 bits")
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVE_NAMES:
        family = "EC"
    else:
        raise ValueError("neither RSA nor a known curve")
    return Material(family, key)


def family_of(kty):
    return kty.removesuffix("-HSM")


def generate(kty, body, pool):
    """For a create request's @body."""
    family = family_of(kty)
    size, curve = body.get("key_size"), body.get("crv")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
        raise errors.bad_parameter("Property key_size has invalid value")
    if family == "RSA":
        exponent = body.get("public_exponent", 65537)
        if exponent not in (3, 65537) or isinstance(exponent, bool):
            raise errors.bad_parameter("Property public_exponent has invalid value")
        if (size or 2048) not in SIZES:
            raise errors.bad_parameter("Property key_size has invalid value")
        return Material("RSA", pool.take(size or 2048, exponent))
    if family == "EC":
        if not isinstance(curve or "P-256", str) or (curve or "P-256") not in CURVES:
            raise errors.bad_parameter("Property crv has invalid value")
        return Material("EC", ec.generate_private_key(CURVES[curve or "P-256"][0]()))
    if (size or 256) not in OCT_SIZES:
        raise errors.bad_parameter("Property key_size has invalid value")
    return Material("oct", secrets.token_bytes((size or 256) // 8))


def like(other, pool):
    """Fresh material of the same kind: a rotation."""
    if other.family == "RSA":
        exponent = other.key.public_key().public_numbers().e
        return Material("RSA", pool.take(other.bits, exponent))
    if other.family == "EC":
        return Material("EC", ec.generate_private_key(other.key.curve))
    return Material("oct", secrets.token_bytes(len(other.key)))


def from_jwk(jwk):
    """The private key in an import request's JWK; ServiceError if it is wrong or incomplete."""
    family = family_of(jwk["kty"])
    try:
        if family == "oct":
            octets = unb64url(_member(jwk, "k"))
            if 8 * len(octets) not in OCT_SIZES:
                raise ValueError("Property k has invalid length")
            return Material("oct", octets)
        if family == "EC":
            return Material("EC", _ec_key(jwk))
        return Material("RSA", _rsa_key(jwk))
    except (ValueError, TypeError, OverflowError) as e:
        raise errors.bad_parameter(f"Property key has invalid value: {e}") from None


def _member(jwk, name):
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    return value


def _number(jwk, name):
    return int.from_bytes(unb64url(_member(jwk, name)), "big")


def _rsa_key(jwk):
    n, e, d, p, q, dp, dq, qi = (
        _number(jwk, name) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")
    )
    if n.bit_length() not in SIZES:
        raise ValueError("RSA keys have 2048, 3072 or 4096 bits")
    public = rsa.RSAPublicNumbers(e, n)
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _ec_key(jwk):
    curve = _member(jwk, "crv")
    if curve not in CURVES:
        raise ValueError("unknown crv")
    public = ec.EllipticCurvePublicNumbers(
        _number(jwk, "x"), _number(jwk, "y"), CURVES[curve][0]()
    )
    key = ec.EllipticCurvePrivateNumbers(_number(jwk, "d"), public).private_key()
    derived = ec.derive_private_key(_number(jwk, "d"), CURVES[curve][0]())
    if derived.public_key().public_numbers() != public:
        raise ValueError("x and y do not belong to d")
    return key
