# SPDX-License-Identifier: Apache-2.0
"""The official Azure SDK (@azure/keyvault-keys, @azure/identity), unchanged, against the emulator."""

import base64
import json

import kms_tool
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from turnkeyfs_emulator import byok
from turnkeyfs_emulator.encoding import b64url, int_bytes, unb64url

pytest_plugins = ["emulator_fixture", "sdk_fixture"]

OAEP_256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def b64(octets):
    return base64.b64encode(octets).decode()


def test_keys(sdk, vault):
    found = sdk("keys", vault.url)
    created, again, old, updated = (found[n] for n in ("created", "again", "old", "updated"))
    assert created["id"] == f"{vault.url}/keys/kek/{created['version']}"
    assert created["recoveryLevel"] == "Recoverable+Purgeable" and created["recoverableDays"] == 90
    assert created["tags"] == {"purpose": "fs"} and created["enabled"] is True
    assert len(base64.b64decode(created["n"])) == 384
    assert again["version"] != created["version"]
    assert again["expiresOn"] == "2037-01-01T00:00:00.000Z"
    assert old == created
    assert updated["enabled"] is False and updated["tags"] == {"purpose": "old"}
    assert found["samePolicy"] == found["policy"]
    assert found["policy"]["expiresIn"] == "P90D"
    assert [a["action"] for a in found["policy"]["lifetimeActions"]] == ["Rotate", "Notify"]
    assert found["rotated"] == found["latest"] and found["rotated"]["expiresOn"]
    versions = {created["version"], again["version"], found["rotated"]["version"]}
    assert set(found["versions"]) == versions
    assert found["ec"]["keyType"] == "EC"


def test_paging(sdk, vault):
    found = sdk("paging", vault.url, "27")
    assert found["pages"] == [10, 10, 7]
    assert found["names"] == [f"key-{i:03}" for i in range(27)]


def test_soft_delete(sdk, emulator, vault):
    emulator.settings(delete_delay=0.3, recover_delay=0.3)
    found = sdk("softDelete", vault.url)
    assert found["recoveryId"] == f"{vault.url}/deletedkeys/kek"
    assert found["retention"] == 90 * 86400 and found["listed"] == ["kek"]
    assert found["recovered"]["id"] == found["id"]
    assert found["afterPurge"]["status"] == 404 and found["afterPurge"]["code"] == "KeyNotFound"


def test_backup(sdk, emulator, vault):
    other = emulator.vault()
    found = sdk("backup", vault.url, other.url)
    assert found["restored"]["n"] == found["key"]["n"]
    assert found["restored"]["id"].startswith(other.url)


def test_import_and_byok(sdk, vault):
    key = rsa.generate_private_key(65537, 2048)
    n = key.private_numbers()
    members = {"n": n.public_numbers.n, "e": 65537, "d": n.d, "p": n.p, "q": n.q, "dp": n.dmp1,
               "dq": n.dmq1, "qi": n.iqmp}  # fmt: skip
    jwk = {"kty": "RSA"} | {name: b64url(int_bytes(value)) for name, value in members.items()}
    exchange = vault.create("exchange", kty="RSA-HSM", key_ops=["import"])["key"]
    modulus = int.from_bytes(unb64url(exchange["n"]), "big")
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = rsa.RSAPublicNumbers(65537, modulus).public_key()
    blob = byok.make_blob(exchange["kid"], public, der)
    found = sdk("importing", vault.url, json.dumps(jwk), b64(blob))
    for name, kty in (("imported", "RSA"), ("transferred", "RSA-HSM")):
        assert base64.b64decode(found[name]["n"]) == int_bytes(n.public_numbers.n)
        assert found[name]["keyType"] == kty
        assert found[name]["keyOperations"] == ["wrapKey", "unwrapKey"]


def test_cryptography(sdk, emulator, vault):
    found = sdk("crypto", vault.url)
    damaged = found.pop("damaged")
    assert (damaged["status"], damaged["code"]) == (400, "BadParameter")
    assert len(found) == 13 and set(found.values()) == {True}, found
    assert emulator.count("unwrapKey") == 4 and emulator.count("sign") == 10


def test_a_managed_hsm(sdk, hsm):
    found = sdk("hsm", hsm.url)
    assert found["key"]["keyType"] == "oct-HSM"
    assert found["wrappedLength"] == 40 and found["random"] == 32
    assert found["unwrapped"] is True and found["opened"] is True


# --- cross: one side wraps, the other unwraps ----------------------------------------------------


@pytest.mark.parametrize("alg", ("RSA-OAEP", "RSA-OAEP-256"))
def test_wrapped_by_the_sdk_and_unwrapped_by_raw_requests(sdk, vault, alg):
    kid = vault.create("kek")["key"]["kid"]
    dek = bytes(range(32))
    wrapped = sdk("wrap", kid, alg, b64(dek))
    assert wrapped["keyId"] == kid
    body = {"alg": alg, "value": b64url(base64.b64decode(wrapped["value"]))}
    path = kid.removeprefix(vault.url)
    assert vault.ok("POST", f"{path}/unwrapkey", body)["value"] == b64url(dek)
    # And the other way round.
    value = vault.ok("POST", f"{path}/wrapkey", {"alg": alg, "value": b64url(dek)})["value"]
    assert sdk("unwrap", kid, alg, b64(unb64url(value)))["value"] == b64(dek)


def test_wrapped_locally_and_unwrapped_by_the_sdk(sdk, vault):
    key = vault.create("kek")["key"]
    modulus = int.from_bytes(unb64url(key["n"]), "big")
    dek = bytes(range(32))
    wrapped = rsa.RSAPublicNumbers(65537, modulus).public_key().encrypt(dek, OAEP_256)
    assert sdk("unwrap", key["kid"], "RSA-OAEP-256", b64(wrapped))["value"] == b64(dek)


# --- authentication ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credential", ("secret", "certificate", "workload", "managed", "managedByClientId", "default")
)
def test_credentials(sdk, emulator, vault, credential):
    kid = vault.create("kek")["key"]["kid"]
    environment = {}
    if credential.startswith("managed") or credential == "default":
        environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}
    assert sdk("get", vault.url, "kek", credential=credential, environment=environment)["id"] == kid
    caller = emulator.requests()[-1]["caller"]
    expected = {"managedByClientId": False, "managed": True, "default": True}
    if credential in expected:
        system = expected[credential]
        assert caller == next(i["appid"] for i in emulator.identities if i["system"] == system)
    else:
        assert caller == emulator.client_id


def test_the_default_credential_prefers_the_environment(sdk, emulator, vault):
    kid = vault.create("kek")["key"]["kid"]
    environment = {name: value for name, value in emulator.environment().items() if "AZURE" in name}
    found = sdk("get", vault.url, "kek", credential="default", environment=environment)
    assert found["id"] == kid
    assert emulator.requests()[-1]["caller"] == emulator.client_id


def test_app_service(sdk, emulator, vault):
    kid = vault.create("kek")["key"]["kid"]
    found = sdk("get", vault.url, "kek", credential="managed", environment=emulator.app_service)
    assert found["id"] == kid


def test_a_wrong_secret_is_refused_by_name(sdk, vault):
    found = sdk("get", vault.url, "kek", credential="wrongSecret")
    assert found["error"]["name"] == "AuthenticationRequiredError"
    assert "AADSTS7000215" in found["error"]["message"]


def test_the_first_request_carries_no_token_and_no_body(sdk, emulator, vault):
    kid = vault.create("kek")["key"]["kid"]
    emulator.control("counters", reset=True)
    sdk("wrap", kid, "RSA-OAEP-256", b64(bytes(32)))
    first = next(r for r in emulator.requests() if r["target"] == "vault")
    assert (first["status"], first["authenticated"], first["body_length"]) == (401, False, 0)


def test_by_address_the_check_of_the_resource_must_be_off(sdk, emulator):
    emulator.vault("demo").create("by-address")
    found = sdk("byAddress", "by-address")
    assert "does not match the requested domain" in found["strict"]["message"]
    assert found["lax"]["id"].startswith(emulator.vault_by_address)


# --- trouble -------------------------------------------------------------------------------------


def get_twice(sdk, emulator, vault, **hook):
    vault.create("kek")
    return sdk("getTwice", vault.url, "kek", emulator.ready["control"], json.dumps(hook))


def test_a_claims_challenge_is_answered(sdk, emulator, vault):
    found = get_twice(sdk, emulator, vault, op="cae")
    assert found["first"] == found["second"]
    statuses = [r["status"] for r in emulator.requests() if r["target"] == "vault"]
    assert statuses[-3:] == [200, 401, 200]


def test_a_new_signing_key_ends_the_token_that_the_sdk_has(sdk, emulator, vault):
    # A 401 without claims makes the SDK ask its credential, which still has the old one.
    found = get_twice(sdk, emulator, vault, op="signing_key")
    assert found["error"]["status"] == 401


def test_throttling_with_retry_after_is_waited_for(sdk, emulator, vault):
    found = get_twice(sdk, emulator, vault, op="throttle", count=1, retryAfter=1)
    assert found["first"] == found["second"]


def test_throttling_without_retry_after_is_not_repeated(sdk, emulator, vault):
    found = get_twice(sdk, emulator, vault, op="throttle", count=1)
    assert (found["error"]["status"], found["error"]["code"]) == (429, "Throttled")


def test_server_errors_are_repeated(sdk, emulator, vault):
    found = get_twice(sdk, emulator, vault, op="fail", status=503, count=2)
    assert found["first"] == found["second"]


@pytest.mark.parametrize(
    "hook, inner",
    (
        ({"op": "revoke"}, "ForbiddenByRbac"),
        ({"op": "firewall"}, "ForbiddenByFirewall"),
    ),
)
def test_refusals_come_through_with_their_inner_code(sdk, emulator, vault, hook, inner):
    error = get_twice(sdk, emulator, vault, **hook)["error"]
    assert (error["status"], error["code"], error["inner"]) == (403, "Forbidden", inner)


# --- our client and the SDK ------------------------------------------------------------------------


@pytest.fixture
def tool(emulator, tmp_path):
    """A function that starts our client for a key."""
    secret = tmp_path / "secret"
    secret.write_text(emulator.client_secret)
    started = []

    def run(vault, name, **options):
        options = {
            "key": f"{vault.url}/keys/{name}", "ca_file": emulator.ca,
            "authority": emulator.authority, "audience": vault.audience,
            "auth": "client-secret", "client_id": emulator.client_id, "secret_file": secret,
        } | options  # fmt: skip
        started.append(kms_tool.KmsTool(options))
        return started[-1]

    yield run
    for one in started:
        one.close()
        one.kill()


@pytest.mark.skipif(not kms_tool.program(), reason="no tk_kms_tool: build with TK_TESTS")
@pytest.mark.parametrize("place", ("local", "service"))
@pytest.mark.parametrize(
    "where, body, algorithm",
    (
        ("vault", {"kty": "RSA", "key_size": 2048}, "RSA-OAEP-256"),
        ("vault", {"kty": "RSA", "key_size": 3072}, "RSA-OAEP-256"),
        ("vault", {"kty": "RSA", "key_size": 4096}, "RSA-OAEP-256"),
        ("hsm", {"kty": "RSA-HSM", "key_size": 3072}, "RSA-OAEP-256"),
        ("hsm", {"kty": "oct-HSM", "key_size": 256}, "A256KW"),
    ),
)
def test_each_unwraps_what_the_other_wrapped(sdk, tool, emulator, where, body, algorithm, place):
    store = emulator.vault(hsm=where == "hsm", purge_protection=True)
    key = store.create("kek", **body)["key"]["kid"]
    client = tool(store, "kek", wrap=place)
    dek = bytes(range(100, 132))

    ours = client.wrap(dek)
    assert ours.algorithm == algorithm
    assert base64.b64decode(sdk("unwrap", key, algorithm, b64(bytes.fromhex(ours.blob)))["value"]) == dek

    theirs = base64.b64decode(sdk("wrap", key, algorithm, b64(dek))["value"])
    ours.blob = theirs.hex()
    assert client.unwrap(ours) == dek
