# SPDX-License-Identifier: Apache-2.0
"""The emulator's authentication: challenge, tokens, Entra ID, managed identity, permissions."""

import base64
import hashlib
import json
import pathlib
import re
import ssl
import time
import urllib.parse
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from emulator_client import wait_until
from turnkeyfs_emulator import jwt
from turnkeyfs_emulator.encoding import b64url

pytest_plugins = ["emulator_fixture"]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


# --- challenge and token -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, path, body",
    (
        ("GET", "/keys/kek?api-version=7.4", b""),
        ("POST", "/keys/kek/wrapkey?api-version=7.4", b"{broken"),
        ("GET", "/nothing/like/that", b""),
        ("PUT", "/keys/%00", b"x" * 5000),
    ),
)
def test_without_a_token_there_is_a_challenge_before_anything_else(vault, method, path, body):
    nobody = vault.with_token("")
    for _ in range(2):  # the connection stays usable
        answer = nobody.request(method, path, raw=body, api_version=None)
        assert answer.status == 401 and answer.error == ("Unauthorized", None)
        assert "AKV10000" in answer.json["error"]["message"]
        emulator = vault.emulator
        assert answer.headers["WWW-Authenticate"] == (
            f'Bearer authorization="{emulator.authority}/{emulator.tenant}", '
            'resource="https://vault.localhost"'
        )
    nobody.close()


def test_a_managed_hsm_has_an_audience_of_its_own(emulator, hsm):
    assert 'resource="https://managedhsm.localhost"' in (
        hsm.with_token("").get("/keys").headers["WWW-Authenticate"]
    )
    answer = hsm.with_token(emulator.vault().token).get("/keys")
    assert answer.status == 401 and "AKV10022" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "style, expected",
    (("scope", 'scope="https://vault.localhost/.default"'), ("authorization_uri", "authorization_uri=")),
)
def test_other_spellings_of_the_challenge(emulator, vault, style, expected):
    emulator.settings(challenge_style=style)
    assert expected in vault.with_token("").get("/keys").headers["WWW-Authenticate"]


def test_a_lying_challenge(emulator, vault):
    evil = "https://evil.invalid"
    emulator.settings(challenge_resource=evil, challenge_authorization=f"{evil}/x")
    challenge = vault.with_token("").get("/keys").headers["WWW-Authenticate"]
    assert challenge == f'Bearer authorization="{evil}/x", resource="{evil}"'


def refused(vault, token, message):
    answer = vault.with_token(token).get("/keys")
    assert answer.status == 401 and message in answer.json["error"]["message"], answer.raw
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


def test_tokens_that_are_refused(emulator, vault):
    make = emulator.control
    assert vault.with_token(make("token")["token"]).get("/keys").status == 200
    refused(vault, make("token", resource="https://graph.microsoft.com")["token"], "AKV10022")
    refused(vault, make("token", tenant="other")["token"], "AKV10032")
    refused(vault, make("token", lifetime=-10)["token"], "TokenExpired")
    refused(vault, "AAAA", "not a JWT")
    refused(vault, "a.b.c", "not a JWT")
    head, claims, signature = vault.token.split(".")
    refused(vault, f"{head}.{claims}.{signature[:-8]}AAAAAAAA", "bad signature")
    none = b64url(b'{"alg":"none"}')
    refused(vault, f"{none}.{claims}.", "bad signature")
    refused(vault, f"{b64url(b'{')}.{claims}.{signature}", "not a JWT")


def test_another_scheme_is_no_token(vault):
    answer = vault.with_token("").get("/keys", headers={"Authorization": "Basic AAAA"})
    assert answer.status == 401


def test_a_token_expires_by_the_clock_of_tokens(emulator, vault):
    token = emulator.control("token", lifetime=3600)["token"]
    assert vault.with_token(token).get("/keys").status == 200
    emulator.control("clock", shift=3700, scopes=["tokens"])
    refused(vault, token, "TokenExpired")
    emulator.control("clock", shift=-3600, scopes=["tokens"])
    refused(vault, token, "not yet valid")


def test_a_new_signing_key_ends_old_tokens_unless_kept(emulator, vault):
    old = vault.token
    emulator.control("signing_key", keep_old=True)
    assert vault.with_token(old).get("/keys").status == 200
    new = emulator.access_token(vault.audience)
    emulator.control("signing_key")
    for token in (old, new):
        refused(vault, token, "Unknown key")
    assert emulator.vault(vault.name).get("/keys").status == 200


def test_a_claims_challenge_wants_a_token_that_answers_it(emulator, vault):
    assert vault.get("/keys").status == 200
    emulator.control("cae", vault=vault.name)
    answer = vault.get("/keys")
    assert answer.status == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert 'error="insufficient_claims"' in challenge
    claims = base64.b64decode(re.search('claims="([^"]+)"', challenge)[1]).decode()
    plain = emulator.access_token(vault.audience)
    assert vault.with_token(plain).get("/keys").status == 401
    merged = json.loads(claims)
    merged["access_token"]["xms_cc"] = {"values": ["cp1"]}
    fresh = emulator.access_token(vault.audience, claims=json.dumps(merged))
    assert vault.with_token(fresh).get("/keys").status == 200
    assert emulator.vault().get("/keys").status == 200  # another vault has no part in it


# --- Entra ID ------------------------------------------------------------------------------------


def test_openid_configuration_and_keys(emulator):
    connection = emulator.connect(emulator.authority)
    connection.request("GET", f"/{emulator.tenant}/v2.0/.well-known/openid-configuration")
    found = json.load(connection.getresponse())
    assert found["issuer"] == f"{emulator.authority}/{emulator.tenant}/v2.0"
    assert found["token_endpoint"] == f"{emulator.authority}/{emulator.tenant}/oauth2/v2.0/token"
    connection.request("GET", urllib.parse.urlsplit(found["jwks_uri"]).path)
    keys = {key["kid"]: key for key in json.load(connection.getresponse())["keys"]}
    header, claims, _, _ = jwt.parse(emulator.access_token("https://vault.localhost"))
    assert header["alg"] == "RS256" and header["kid"] in keys
    assert claims["iss"] == f"https://sts.windows.net/{emulator.tenant}/"
    assert claims["aud"] == "https://vault.localhost"
    assert (claims["tid"], claims["appid"]) == (emulator.tenant, emulator.client_id)
    connection.request("GET", f"/{uuid.uuid4()}/v2.0/.well-known/openid-configuration")
    assert json.load(connection.getresponse())["error_codes"] == [90002]
    connection.close()


def test_a_token_answer(emulator):
    answer = emulator.token_request()
    assert answer.status == 200
    token = answer.json
    assert token["token_type"] == "Bearer" and token["expires_in"] == 3599
    assert "refresh_token" not in token
    emulator.settings(token_lifetime=60)
    assert emulator.token_request().json["expires_in"] == 60


def test_the_v1_endpoint_takes_a_resource_and_gives_strings(emulator):
    answer = emulator.token_request(
        path="oauth2/token", scope=None, resource="https://vault.localhost"
    ).json
    assert answer["expires_in"] == "3599" and int(answer["expires_on"]) > time.time()
    assert answer["resource"] == "https://vault.localhost"


def token_error(answer, status, number, error):
    assert answer.status == status, answer.raw
    body = answer.json
    assert body["error"] == error and body["error_codes"] == [number]
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert body["correlation_id"] and body["trace_id"] and body["timestamp"]


@pytest.mark.parametrize(
    "changed, status, number, error",
    (
        ({"client_secret": "wrong"}, 401, 7000215, "invalid_client"),
        ({"client_secret": None}, 401, 7000218, "invalid_client"),
        ({"client_id": str(uuid.UUID(int=1))}, 400, 700016, "unauthorized_client"),
        ({"client_id": None}, 400, 900144, "invalid_request"),
        ({"grant_type": "password"}, 400, 70003, "unsupported_grant_type"),
        ({"scope": "https://vault.localhost"}, 400, 1002012, "invalid_scope"),
        ({"scope": "https://evil.invalid/.default"}, 400, 500011, "invalid_resource"),
        ({"tenant": str(uuid.UUID(int=2))}, 400, 90002, "invalid_request"),
        ({"claims": "{"}, 400, 50149, "invalid_request"),
        ({"client_secret": None, "client_assertion": "a.b.c"}, 400, 900144, "invalid_request"),
        ({"client_secret": None, "client_assertion": "a.b.c",
          "client_assertion_type": ASSERTION_TYPE}, 401, 50027, "invalid_client"),
    ),
)  # fmt: skip
def test_token_requests_that_are_refused(emulator, changed, status, number, error):
    token_error(emulator.token_request(**changed), status, number, error)


def test_states_of_the_application(emulator):
    for change, status, number, error in (
        ({"secret_expired": True}, 401, 7000222, "invalid_client"),
        ({"disabled": True}, 400, 7000112, "unauthorized_client"),
        ({"deleted": True}, 400, 700016, "unauthorized_client"),
    ):
        emulator.control("client", **change)
        token_error(emulator.token_request(), status, number, error)
        emulator.control("reset")
    old = emulator.client_secret
    emulator.control("client", secret="another secret")
    token_error(emulator.token_request(), 401, 7000215, "invalid_client")
    emulator.read_ready()
    assert emulator.token_request().status == 200
    emulator.control("client", secret=old)


class Certificate:
    """The client's certificate, and assertions made with it."""

    def __init__(self, emulator):
        pem = pathlib.Path(emulator.client_certificate).read_bytes()
        self.emulator = emulator
        self.key = serialization.load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :])
        self.der = certificate.public_bytes(serialization.Encoding.DER)

    def request(self, alg="PS256", prints=("x5t#S256",), key=None, header=None, **changes):
        emulator, now = self.emulator, int(time.time())
        known = {
            "x5t#S256": b64url(hashlib.sha256(self.der).digest()),
            "x5t": b64url(hashlib.sha1(self.der).digest()),
        }
        header = {"alg": alg, "typ": "JWT"} | {name: known[name] for name in prints} | (header or {})
        claims = {
            "aud": f"{emulator.authority}/{emulator.tenant}/oauth2/v2.0/token",
            "iss": emulator.client_id,
            "sub": emulator.client_id,
            "jti": str(uuid.uuid4()),
            "nbf": now,
            "iat": now,
            "exp": now + 600,
        } | changes
        assertion = jwt.sign(header, claims, key or self.key)
        return emulator.token_request(
            client_secret=None, client_assertion=assertion, client_assertion_type=ASSERTION_TYPE
        )


@pytest.mark.parametrize("alg", ("RS256", "PS256"))
@pytest.mark.parametrize("prints", (("x5t",), ("x5t#S256",), ("x5t", "x5t#S256")))
def test_a_client_certificate(emulator, alg, prints):
    assert Certificate(emulator).request(alg, prints).status == 200


def test_assertions_that_are_refused(emulator):
    certificate, now = Certificate(emulator), int(time.time())
    stranger = rsa.generate_private_key(65537, 2048)
    for changed, number in (
        ({"key": stranger}, 700027),
        ({"prints": ()}, 700027),
        ({"header": {"x5t#S256": b64url(bytes(32))}}, 700027),
        ({"nbf": now - 4000, "iat": now - 4000, "exp": now - 3400}, 700024),
        ({"nbf": now + 3600, "iat": now + 3600, "exp": now + 4200}, 700024),
        ({"aud": "https://elsewhere.invalid"}, 700023),
        ({"sub": "somebody"}, 700021),
        ({"jti": None}, 50027),
    ):
        token_error(certificate.request(**changed), 401, number, "invalid_client")
    emulator.control("clock", shift=7200, scopes=["assertions"])
    token_error(certificate.request(), 401, 700024, "invalid_client")


def test_a_federated_token(emulator):
    def request(token):
        return emulator.token_request(
            client_secret=None, client_assertion=token, client_assertion_type=ASSERTION_TYPE
        )

    def fresh(**changes):
        return emulator.control("federated_token", **changes)["token"]

    token = fresh()
    assert pathlib.Path(emulator.federated_token_file).read_text() == token
    assert request(token).status == 200
    for changed, number in (
        ({"sub": "system:serviceaccount:other"}, 700213),
        ({"aud": ["somewhere"]}, 700212),
        ({"lifetime": -4000}, 700024),
    ):
        token_error(request(fresh(**changed)), 401, number, "invalid_client")
    head, claims, signature = token.split(".")
    damaged = f"{head}.{claims}.{signature[:-8]}AAAAAAAA"
    token_error(request(damaged), 401, 5002727, "invalid_client")
    fresh()


# --- managed identity ----------------------------------------------------------------------------

IMDS = "/metadata/identity/oauth2/token"
IMDS_QUERY = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.localhost"
METADATA = {"Metadata": "true"}


@pytest.mark.parametrize("slash", ("", "/"))
def test_imds_gives_a_token_with_strings_for_numbers(emulator, vault, slash):
    answer = emulator.identity_request(IMDS + slash + IMDS_QUERY, METADATA).json
    assert answer["token_type"] == "Bearer" and answer["resource"] == "https://vault.localhost"
    for name in ("expires_in", "expires_on", "ext_expires_in", "not_before"):
        assert isinstance(answer[name], str) and int(answer[name]) > 0
    assert abs(int(answer["expires_on"]) - time.time() - 86399) < 60
    assert vault.with_token(answer["access_token"]).get("/keys").status == 200
    again = emulator.identity_request(IMDS + IMDS_QUERY, METADATA).json
    assert again["access_token"] == answer["access_token"]


def test_a_user_assigned_identity_is_named_in_three_ways(emulator):
    identity = next(i for i in emulator.identities if not i["system"])
    for name, value in (
        ("client_id", identity["appid"]),
        ("object_id", identity["oid"]),
        ("msi_res_id", identity["resource_id"]),
    ):
        query = f"{IMDS_QUERY}&{name}={urllib.parse.quote(value, safe='')}"
        answer = emulator.identity_request(IMDS + query, METADATA).json
        assert answer["client_id"] == identity["appid"]
        _, claims, _, _ = jwt.parse(answer["access_token"])
        assert claims["oid"] == identity["oid"]


def test_imds_requests_that_are_refused(emulator):
    def status(path, headers=METADATA):
        answer = emulator.identity_request(path, headers)
        assert answer.json["error"]
        return answer.status, answer.json["error_description"]

    assert status(IMDS + IMDS_QUERY, {}) == (400, "Required metadata header not specified")
    assert status(IMDS + IMDS_QUERY, METADATA | {"X-Forwarded-For": "1.2.3.4"})[0] == 400
    assert status(IMDS + "?resource=https://vault.localhost")[0] == 400
    assert status(IMDS + "?api-version=2018-02-01")[0] == 400
    assert status(IMDS + "?api-version=2018-02-01&resource=https://evil.invalid")[0] == 400
    assert status(IMDS + IMDS_QUERY + "&client_id=unknown") == (400, "Identity not found")
    assert status("/elsewhere")[0] == 404
    emulator.settings(identity_assigned=False)
    assert status(IMDS + IMDS_QUERY) == (400, "Identity not found")


def test_imds_in_trouble(emulator):
    for status in (404, 410, 429, 500):
        emulator.control("fail", target="identity", status=status)
        assert emulator.identity_request(IMDS + IMDS_QUERY, METADATA).status == status
    assert emulator.identity_request(IMDS + IMDS_QUERY, METADATA).status == 200


def test_app_service(emulator, vault):
    path = urllib.parse.urlsplit(emulator.app_service["IDENTITY_ENDPOINT"]).path
    query = "?api-version=2019-08-01&resource=https%3A%2F%2Fvault.localhost"
    header = {"X-IDENTITY-HEADER": emulator.app_service["IDENTITY_HEADER"]}
    answer = emulator.identity_request(path + query, header).json
    assert int(answer["expires_on"]) > time.time()
    assert vault.with_token(answer["access_token"]).get("/keys").status == 200
    assert emulator.identity_request(path + query, {"X-IDENTITY-HEADER": "x"}).status == 401
    assert emulator.identity_request(path + query.replace("2019", "2017"), header).status == 400


def test_arc_wants_what_lies_in_a_file(emulator, vault):
    path = urllib.parse.urlsplit(emulator.arc["IDENTITY_ENDPOINT"]).path
    path += "?api-version=2020-06-01&resource=https%3A%2F%2Fvault.localhost"
    challenge = emulator.identity_request(path, METADATA)
    assert challenge.status == 401
    file = challenge.headers["WWW-Authenticate"].removeprefix("Basic realm=")
    assert file.endswith(".key")
    secret = pathlib.Path(file).read_text()
    answer = emulator.identity_request(path, METADATA | {"Authorization": f"Basic {secret}"})
    assert vault.with_token(answer.json["access_token"]).get("/keys").status == 200
    again = emulator.identity_request(path, METADATA | {"Authorization": f"Basic {secret}"})
    assert again.status == 401  # each secret serves once
    assert emulator.identity_request(path).status == 400


# --- permissions, networks -----------------------------------------------------------------------

WRAP = {"alg": "RSA-OAEP-256", "value": "AAAA"}


def test_rbac_refuses_by_data_action(emulator, vault):
    vault.create("kek")
    emulator.control("revoke", vault=vault.name, permissions=["wrapKey"])
    answer = vault.post("/keys/kek/wrapkey", WRAP)
    assert (answer.status, answer.error) == (403, ("Forbidden", "ForbiddenByRbac"))
    message = answer.json["error"]["message"]
    assert "Action: 'Microsoft.KeyVault/vaults/keys/wrap/action'" in message
    assert f"appid={emulator.client_id}" in message and "Assignment: (not found)" in message
    assert vault.get("/keys/kek").status == 200
    assert emulator.vault().create("kek")  # another vault is open
    emulator.control("revoke", permissions=["get"])
    assert vault.get("/keys").status == 403  # reading is one data action
    emulator.control("grant")
    assert vault.post("/keys/kek/wrapkey", WRAP).status == 200


def test_access_policies_refuse_by_permission(emulator):
    vault = emulator.vault(rbac=False)
    vault.create("kek")
    emulator.control("revoke", vault=vault.name, permissions=["get"])
    answer = vault.get("/keys/kek")
    assert (answer.status, answer.error) == (403, ("Forbidden", "ForbiddenByPolicy"))
    assert "does not have keys get permission on key vault" in answer.json["error"]["message"]
    assert vault.get("/keys").status == 200
    emulator.settings(policy_inner="AccessDenied")
    assert vault.get("/keys/kek").error == ("Forbidden", "AccessDenied")


def test_a_role_allows_what_the_file_system_needs(emulator):
    vault = emulator.vault(open=False)
    assert vault.get("/keys").status == 403
    emulator.control("grant", vault=vault.name, role="Crypto Officer")
    vault.create("kek")
    vault = emulator.vault(open=False)
    emulator.control("grant", vault=vault.name, role="Crypto Service Encryption User")
    assert vault.get("/keys/kek").status == 404
    for path in ("wrapkey", "unwrapkey"):
        assert vault.post(f"/keys/kek/{path}", WRAP).status == 404
    for answer in (
        vault.post("/keys/kek/create", {"kty": "RSA"}),
        vault.request("DELETE", "/keys/kek"),
        vault.post("/keys/kek/rotate"),
        vault.post("/keys/kek/sign", WRAP),
        vault.request("PATCH", "/keys/kek", {}),
    ):
        assert answer.error == ("Forbidden", "ForbiddenByRbac")


def test_a_rule_for_one_key_or_one_caller(emulator, vault):
    vault.create("a", kty="EC")
    vault.create("b", kty="EC")
    emulator.control("revoke", vault=vault.name, key="a")
    assert vault.get("/keys/a").status == 403
    assert vault.get("/keys/b").status == 200
    emulator.control("revoke", app=emulator.client_id)
    assert vault.get("/keys/b").status == 403
    token = emulator.identity_request(IMDS + IMDS_QUERY, METADATA).json["access_token"]
    assert vault.with_token(token).get("/keys/b").status == 200


def test_rules_take_effect_after_their_propagation(emulator, vault):
    emulator.control("revoke", vault=vault.name, delay=0.4)
    assert vault.get("/keys").status == 200
    wait_until(lambda: vault.get("/keys").status == 403, 3)
    emulator.control("grant", vault=vault.name, delay=0.4)
    assert vault.get("/keys").status == 403
    wait_until(lambda: vault.get("/keys").status == 200, 3)


@pytest.mark.parametrize(
    "op, inner", (("firewall", "ForbiddenByFirewall"), ("connection", "ForbiddenByConnection"))
)
def test_networks_that_are_closed(emulator, vault, op, inner):
    emulator.control(op, vault=vault.name)
    answer = vault.get("/keys")
    assert (answer.status, answer.error) == (403, ("Forbidden", inner))
    assert emulator.vault().get("/keys").status == 200
    assert vault.with_token("").get("/keys").status == 401
    emulator.control(op, vault=vault.name, on=False)
    assert vault.get("/keys").status == 200


# --- hosts and TLS -------------------------------------------------------------------------------


def test_the_address_stands_for_the_first_vault(emulator):
    demo = emulator.vault("demo")
    by_address = demo.with_token(demo.token)
    by_address.url = emulator.vault_by_address
    bundle = by_address.create("kek", kty="EC")
    assert bundle["key"]["kid"].startswith(emulator.vault_by_address)
    assert demo.ok("GET", "/keys/kek")["key"]["kid"].startswith(demo.url)
    by_address._token = ""
    challenge = by_address.get("/keys").headers["WWW-Authenticate"]
    assert f'authorization="{emulator.authority_by_address}/' in challenge
    by_address.close()


def test_a_vault_that_does_not_exist(emulator, vault):
    other = vault.with_token(vault.token)
    other.url = vault.url.replace(vault.name, "absent")
    assert other.get("/keys").error[0] == "VaultNotFound"
    other.close()


def test_a_vault_and_an_hsm_of_one_name_are_two(emulator):
    emulator.vault("same").create("kek", kty="EC")
    assert emulator.vault("same", hsm=True).get("/keys/kek").status == 404


def test_other_suffixes(make_emulator):
    emulator = make_emulator("--vault-suffix", "kv.example.test", "--hsm-suffix", "hsm.example.test")
    vault, hsm = emulator.vault(), emulator.vault(hsm=True)
    assert vault.url.startswith(f"https://{vault.name}.kv.example.test:")
    assert vault.create("kek", kty="EC") and hsm.create("kek", kty="oct-HSM")


@pytest.mark.parametrize("kind", ("expired", "not_yet_valid", "wrong_name", "other_ca"))
def test_certificates_that_a_client_must_refuse(emulator, vault, kind):
    emulator.control("certificate", kind=kind)
    with pytest.raises(ssl.SSLCertVerificationError):
        vault.with_token("x").get("/keys")
    emulator.control("certificate", kind="good")
    assert vault.with_token("x").get("/keys").status == 401


def test_without_the_ca_nothing_is_trusted(emulator, vault):
    connection = emulator.connect(vault.url)
    connection._context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/keys")
