# SPDX-License-Identifier: Apache-2.0
"""The emulator's cryptography, checked against an implementation outside of it."""

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from turnkeyfs_emulator.encoding import b64url, unb64url

pytest_plugins = ["emulator_fixture"]

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
RSA_PADDINGS = {
    "RSA1_5": (padding.PKCS1v15(), 11),
    "RSA-OAEP": (padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None), 42),
    "RSA-OAEP-256": (padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None), 66),
}
CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1,
          "P-256K": ec.SECP256K1}  # fmt: skip


def number(text):
    return int.from_bytes(unb64url(text), "big")


def public_key(jwk):
    if jwk["kty"].startswith("RSA"):
        return rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
    curve = CURVES[jwk["crv"]]()
    return ec.EllipticCurvePublicNumbers(number(jwk["x"]), number(jwk["y"]), curve).public_key()


def do(vault, operation, alg, key="kek", **fields):
    """The Answer of a crypto call; the fields are octets."""
    body = {"alg": alg} | {name: b64url(octets) for name, octets in fields.items()}
    return vault.post(f"/keys/{key}/{operation}", body)


def result(answer):
    assert answer.status == 200, answer.raw
    return unb64url(answer.json["value"])


@pytest.mark.parametrize("bits", (2048, 3072, 4096))
@pytest.mark.parametrize("alg", RSA_PADDINGS)
def test_rsa_wraps_with_the_documented_padding(vault, bits, alg):
    bundle = vault.create("kek", key_size=bits)
    scheme, overhead = RSA_PADDINGS[alg]
    dek = os.urandom(32)
    # Wrapped outside, unwrapped by the service; also by decrypt, which is the same.
    wrapped = public_key(bundle["key"]).encrypt(dek, scheme)
    assert len(wrapped) == bits // 8
    for operation in ("unwrapkey", "decrypt"):
        answer = do(vault, operation, alg, value=wrapped)
        assert result(answer) == dek
        assert answer.json["kid"] == bundle["key"]["kid"]
    # Wrapped by the service.
    for operation in ("wrapkey", "encrypt"):
        answer = do(vault, operation, alg, value=dek)
        assert answer.json["kid"] == bundle["key"]["kid"]
        assert result(do(vault, "unwrapkey", alg, value=result(answer))) == dek
    # The largest input, and one octet more.
    largest = bits // 8 - overhead
    assert do(vault, "wrapkey", alg, value=bytes(largest)).status == 200
    assert do(vault, "wrapkey", alg, value=bytes(largest + 1)).error[0] == "BadParameter"


def test_wrapping_is_randomised(vault):
    vault.create("kek")
    assert len({result(do(vault, "wrapkey", "RSA-OAEP-256", value=b"x")) for _ in range(3)}) == 3


def test_a_wrong_ciphertext_is_a_bad_parameter(vault):
    vault.create("kek")
    wrapped = result(do(vault, "wrapkey", "RSA-OAEP-256", value=bytes(32)))
    damaged = bytes([wrapped[0] ^ 1]) + wrapped[1:]
    for alg, value in (
        ("RSA-OAEP-256", damaged),
        ("RSA-OAEP-256", wrapped[:-1]),
        ("RSA-OAEP-256", wrapped + b"\0"),
        ("RSA-OAEP-256", b"\xff" * 256),
        ("RSA-OAEP", wrapped),
    ):
        answer = do(vault, "unwrapkey", alg, value=value)
        assert (answer.status, answer.error) == (400, ("BadParameter", None))
    vault.create("kek")  # another version: the versionless form means the newest
    assert do(vault, "unwrapkey", "RSA-OAEP-256", value=wrapped).status == 400


@pytest.mark.parametrize(
    "body",
    (
        {},
        {"alg": "RSA-OAEP-256"},
        {"alg": "RSA-OAEP-256", "value": ""},
        {"alg": "RSA-OAEP-256", "value": "A"},
        {"alg": "RSA-OAEP-256", "value": "AA+/"},
        {"alg": "RSA-OAEP-256", "value": "AA=="},
        {"alg": "RSA-OAEP-256", "value": 7},
        {"alg": "RSA-OAEP-256", "value": None},
        {"alg": "RSA-OAEP-512", "value": "AAAA"},
        {"alg": "A256KW", "value": "A" * 32},
        {"alg": ["RSA-OAEP-256"], "value": "AAAA"},
        {"value": "AAAA"},
    ),
)
def test_a_wrap_request_that_the_service_refuses(vault, body):
    vault.create("kek")
    answer = vault.post("/keys/kek/wrapkey", body)
    assert (answer.status, answer.error) == (400, ("BadParameter", None))


def test_padding_in_a_request_is_a_switch(emulator, vault):
    vault.create("kek")
    emulator.settings(accept_padding=True)
    body = {"alg": "RSA-OAEP-256", "value": "AA=="}
    assert vault.post("/keys/kek/wrapkey", body).status == 200


# --- AES -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", (128, 192, 256))
def test_aes_key_wrap(hsm, bits):
    secret, dek = os.urandom(bits // 8), os.urandom(32)
    jwk = {"kty": "oct-HSM", "k": b64url(secret)}
    kid = hsm.ok("PUT", "/keys/kek", {"key": jwk})["key"]["kid"]
    answer = do(hsm, "wrapkey", f"A{bits}KW", value=dek)
    assert result(answer) == keywrap.aes_key_wrap(secret, dek) and answer.json["kid"] == kid
    assert len(result(answer)) == 40
    assert result(do(hsm, "unwrapkey", f"A{bits}KW", value=result(answer))) == dek
    damaged = bytes(40)
    assert do(hsm, "unwrapkey", f"A{bits}KW", value=damaged).error == ("BadParameter", None)
    for wrong in (b"x", bytes(8), bytes(33)):
        assert do(hsm, "wrapkey", f"A{bits}KW", value=wrong).status == 400
    other = 128 if bits != 128 else 256
    assert do(hsm, "wrapkey", f"A{other}KW", value=dek).status == 400
    assert do(hsm, "wrapkey", f"A{bits}GCM", value=dek).status == 400
    assert do(hsm, "wrapkey", "RSA-OAEP-256", value=dek).status == 400


def test_aes_key_wrap_with_padding_is_known_from_7_6_on(hsm):
    hsm.create("kek", kty="oct-HSM")
    body = {"alg": "CKM_AES_KEY_WRAP_PAD", "value": b64url(b"seventeen octets!")}
    assert hsm.post("/keys/kek/wrapkey", body).status == 400
    wrapped = hsm.ok("POST", "/keys/kek/wrapkey", body, api_version="7.6")["value"]
    back = hsm.ok("POST", "/keys/kek/unwrapkey", body | {"value": wrapped}, api_version="7.6")
    assert back["value"] == body["value"]


@pytest.mark.parametrize("bits", (128, 192, 256))
def test_aes_gcm(hsm, bits):
    secret = os.urandom(bits // 8)
    hsm.ok("PUT", "/keys/kek", {"key": {"kty": "oct-HSM", "k": b64url(secret)}})
    answer = do(hsm, "encrypt", f"A{bits}GCM", value=b"some text", aad=b"about it").json
    iv, tag, value = (unb64url(answer[name]) for name in ("iv", "tag", "value"))
    assert (len(iv), len(tag), len(value)) == (12, 16, 9)
    assert AESGCM(secret).decrypt(iv, value + tag, b"about it") == b"some text"
    back = do(hsm, "decrypt", f"A{bits}GCM", value=value, iv=iv, tag=tag, aad=b"about it")
    assert result(back) == b"some text"
    for wrong in (
        {"aad": b"else"}, {"tag": bytes(16)}, {"tag": b""}, {"iv": bytes(12)}, {"iv": b"x"},
    ):  # fmt: skip
        fields = {"value": value, "iv": iv, "tag": tag, "aad": b"about it"} | wrong
        assert do(hsm, "decrypt", f"A{bits}GCM", **fields).status == 400
    assert do(hsm, "encrypt", f"A{bits}GCM", value=b"x", iv=bytes(12)).status == 400


@pytest.mark.parametrize("bits", (128, 192, 256))
def test_aes_cbc(hsm, bits):
    hsm.create("kek", kty="oct-HSM", key_size=bits)
    iv = os.urandom(16)
    for alg, text in ((f"A{bits}CBC", bytes(48)), (f"A{bits}CBCPAD", b"any length")):
        wrapped = result(do(hsm, "encrypt", alg, value=text, iv=iv))
        assert result(do(hsm, "decrypt", alg, value=wrapped, iv=iv)) == text
        assert do(hsm, "encrypt", alg, value=text).status == 400
        assert do(hsm, "decrypt", alg, value=wrapped[:-1], iv=iv).status == 400
    assert do(hsm, "encrypt", f"A{bits}CBC", value=b"odd", iv=iv).status == 400


# --- signatures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", HASHES)
@pytest.mark.parametrize("kind", ("RS", "PS"))
def test_rsa_signatures(vault, kind, bits):
    public = public_key(vault.create("kek")["key"])
    digest_hash = HASHES[bits]()
    digest = hashlib.new(digest_hash.name, b"message").digest()
    signature = result(do(vault, "sign", kind + bits, value=digest))
    scheme = padding.PKCS1v15()
    if kind == "PS":
        scheme = padding.PSS(padding.MGF1(digest_hash), digest_hash.digest_size)
    public.verify(signature, digest, scheme, utils.Prehashed(digest_hash))
    check_verify(vault, kind + bits, digest, signature)


@pytest.mark.parametrize(
    "alg, curve", (("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521"), ("ES256K", "P-256K"))
)
def test_ec_signatures_are_r_and_s_side_by_side(vault, alg, curve):
    public = public_key(vault.create("kek", kty="EC", crv=curve)["key"])
    digest_hash = HASHES[alg[2:5]]()
    digest = hashlib.new(digest_hash.name, b"message").digest()
    signature = result(do(vault, "sign", alg, value=digest))
    length = (public.key_size + 7) // 8
    assert len(signature) == 2 * length
    r, s = (int.from_bytes(part, "big") for part in (signature[:length], signature[length:]))
    der = utils.encode_dss_signature(r, s)
    public.verify(der, digest, ec.ECDSA(utils.Prehashed(digest_hash)))
    check_verify(vault, alg, digest, signature)
    other = "ES384" if alg != "ES384" else "ES256"
    assert do(vault, "sign", other, value=bytes(48 if other == "ES384" else 32)).status == 400
    assert do(vault, "wrapkey", "RSA-OAEP-256", value=bytes(32)).error[1] == "KeyOperationForbidden"


def check_verify(vault, alg, digest, signature):
    good = do(vault, "verify", alg, digest=digest, value=signature)
    assert good.json == {"value": True}
    wrong = bytes(len(signature))
    assert do(vault, "verify", alg, digest=digest, value=wrong).json == {"value": False}
    assert do(vault, "verify", alg, digest=digest[::-1], value=signature).json == {"value": False}
    assert do(vault, "sign", alg, value=digest[:-1]).status == 400
    assert do(vault, "verify", alg, digest=digest[:-1], value=signature).status == 400
    assert do(vault, "verify", alg, digest=digest).status == 400


def test_hmac_of_a_symmetric_key(hsm):
    secret = os.urandom(32)
    jwk = {"kty": "oct-HSM", "k": b64url(secret), "key_ops": ["sign", "verify"]}
    hsm.ok("PUT", "/keys/kek", {"key": jwk})
    digest = hashlib.sha256(b"message").digest()
    body = {"alg": "HS256", "value": b64url(digest)}
    assert hsm.post("/keys/kek/sign", body).status == 400
    mac = hsm.ok("POST", "/keys/kek/sign", body, api_version="7.6")["value"]
    assert unb64url(mac) == hmac.digest(secret, digest, "sha256")
    body = {"alg": "HS256", "digest": b64url(digest), "value": mac}
    assert hsm.ok("POST", "/keys/kek/verify", body, api_version="7.6") == {"value": True}


def test_random_octets_come_from_a_managed_hsm_only(vault, hsm):
    assert len(unb64url(hsm.ok("POST", "/rng", {"count": 128})["value"])) == 128
    for count in (0, 129, "8", None):
        assert hsm.post("/rng", {"count": count}).status == 400
    assert vault.post("/rng", {"count": 8}).status == 400
