# SPDX-License-Identifier: Apache-2.0
"""
The algorithms of wrap, unwrap, encrypt, decrypt, sign, verify.

Source: Key Vault REST API, JsonWebKeyEncryptionAlgorithm and JsonWebKeySignatureAlgorithm; "About
keys", "Cryptographic protection". RSA-OAEP is SHA-1 with MGF1-SHA-1, RSA-OAEP-256 SHA-256 with
MGF1-SHA-256, the label is empty.
"""

import hmac
import os
import re

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import errors

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
EC_ALGORITHMS = {
    "ES256": ("P-256", "256"),
    "ES384": ("P-384", "384"),
    "ES512": ("P-521", "512"),
    "ES256K": ("P-256K", "256"),
}
# Known only from api-version 7.6 on.
SINCE_7_6 = ("CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD", "HS256", "HS384", "HS512")

_WRONG = (ValueError, InvalidTag, keywrap.InvalidUnwrap)


def _rsa_padding(alg):
    if alg == "RSA1_5":
        return padding.PKCS1v15()
    hash_kind = {"RSA-OAEP": hashes.SHA1, "RSA-OAEP-256": hashes.SHA256}.get(alg)
    if hash_kind is None:
        raise _unknown(alg)
    return padding.OAEP(mgf=padding.MGF1(hash_kind()), algorithm=hash_kind(), label=None)


def _unknown(alg):
    return errors.bad_parameter(f"Property alg has invalid value: {alg} does not fit this key")


def _need(fields, name, length=None):
    value = fields.get(name)
    if value is None or length is not None and len(value) != length:
        raise errors.bad_parameter(f"Property {name} has invalid value")
    return value


def encrypt(material, alg, fields, wrapping):
    """@fields: value, iv, aad as octets. The answer's members as octets."""
    value = _need(fields, "value")
    try:
        if material.family == "RSA":
            scheme = _rsa_padding(alg)
            return {"value": material.key.public_key().encrypt(value, scheme)}
        if material.family == "oct":
            return _aes_encrypt(material, alg, fields, wrapping)
    except _WRONG as e:
        raise errors.bad_parameter(f"Property value has invalid value. {e}") from None
    raise _unknown(alg)


def decrypt(material, alg, fields, wrapping):
    """@fields: value, iv, aad, tag as octets. The plaintext; BadParameter if it is damaged."""
    value = _need(fields, "value")
    try:
        if material.family == "RSA":
            return material.key.decrypt(value, _rsa_padding(alg))
        if material.family == "oct":
            return _aes_decrypt(material, alg, fields, wrapping)
    except _WRONG as e:
        raise errors.bad_parameter(f"Property value has invalid value. {e}") from None
    raise _unknown(alg)


def _aes_mode(material, alg, wrapping):
    """KW, KWP, GCM, CBC or CBCPAD; the algorithm's size must be the key's."""
    if alg in ("CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD") and wrapping:
        return "KWP" if alg.endswith("PAD") else "KW"
    found = re.fullmatch(r"A(128|192|256)(KW|GCM|CBC|CBCPAD)", alg)
    if not found or int(found[1]) != material.bits or wrapping and found[2] != "KW":
        raise _unknown(alg)
    return found[2]


def _aes_encrypt(material, alg, fields, wrapping):
    mode, key, value = _aes_mode(material, alg, wrapping), material.key, fields["value"]
    if mode == "KW":
        return {"value": keywrap.aes_key_wrap(key, value)}
    if mode == "KWP":
        return {"value": keywrap.aes_key_wrap_with_padding(key, value)}
    if mode == "GCM":
        if fields.get("iv") is not None:
            raise errors.bad_parameter("Property iv has invalid value: the service makes it")
        iv, aad = os.urandom(12), fields.get("aad")
        sealed = AESGCM(key).encrypt(iv, value, aad)
        answer = {"value": sealed[:-16], "iv": iv, "tag": sealed[-16:]}
        return answer | ({} if aad is None else {"aad": aad})
    iv = _need(fields, "iv", 16)
    if mode == "CBCPAD":
        padder = block_padding.PKCS7(128).padder()
        value = padder.update(value) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return {"value": encryptor.update(value) + encryptor.finalize(), "iv": iv}


def _aes_decrypt(material, alg, fields, wrapping):
    mode, key, value = _aes_mode(material, alg, wrapping), material.key, fields["value"]
    if mode == "KW":
        return keywrap.aes_key_unwrap(key, value)
    if mode == "KWP":
        return keywrap.aes_key_unwrap_with_padding(key, value)
    if mode == "GCM":
        iv, tag = _need(fields, "iv", 12), _need(fields, "tag", 16)
        return AESGCM(key).decrypt(iv, value + tag, fields.get("aad"))
    decryptor = Cipher(algorithms.AES(key), modes.CBC(_need(fields, "iv", 16))).decryptor()
    value = decryptor.update(value) + decryptor.finalize()
    if mode == "CBCPAD":
        unpadder = block_padding.PKCS7(128).unpadder()
        value = unpadder.update(value) + unpadder.finalize()
    return value


def _signature_hash(material, alg):
    """(RS, PS, ES or HS; the hash), if @alg fits the key."""
    if material.family == "EC":
        curve, bits = EC_ALGORITHMS.get(alg, (None, None))
        if curve != material.curve:
            raise _unknown(alg)
        return "ES", HASHES[bits]()
    found = re.fullmatch(r"(RS|PS|HS)(256|384|512)", alg)
    if not found or (found[1] == "HS") != (material.family == "oct"):
        raise _unknown(alg)
    return found[1], HASHES[found[2]]()


def _rsa_signature(kind, digest_hash):
    if kind == "RS":
        return padding.PKCS1v15()
    return padding.PSS(mgf=padding.MGF1(digest_hash), salt_length=digest_hash.digest_size)


def sign(material, alg, digest):
    """The signature; of EC keys r and s side by side. HS...: the MAC of @digest (DOUBTFUL)."""
    kind, digest_hash = _signature_hash(material, alg)
    _need({"value": digest}, "value", digest_hash.digest_size)
    if kind == "HS":
        return hmac.digest(material.key, digest, digest_hash.name)
    if kind == "ES":
        der = material.key.sign(digest, ec.ECDSA(utils.Prehashed(digest_hash)))
        length = (material.key.key_size + 7) // 8
        return b"".join(n.to_bytes(length, "big") for n in utils.decode_dss_signature(der))
    return material.key.sign(digest, _rsa_signature(kind, digest_hash), utils.Prehashed(digest_hash))


def verify(material, alg, digest, signature):
    """Whether it is right."""
    kind, digest_hash = _signature_hash(material, alg)
    _need({"digest": digest}, "digest", digest_hash.digest_size)
    if kind == "HS":
        return hmac.compare_digest(signature, sign(material, alg, digest))
    public = material.key.public_key()
    try:
        if kind == "ES":
            length = (material.key.key_size + 7) // 8
            if len(signature) != 2 * length:
                return False
            r, s = (int.from_bytes(part, "big") for part in (signature[:length], signature[length:]))
            der = utils.encode_dss_signature(r, s)
            public.verify(der, digest, ec.ECDSA(utils.Prehashed(digest_hash)))
        else:
            scheme = _rsa_signature(kind, digest_hash)
            public.verify(signature, digest, scheme, utils.Prehashed(digest_hash))
    except InvalidSignature:
        return False
    return True
