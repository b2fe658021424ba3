# SPDX-License-Identifier: Apache-2.0
"""The emulator's refusals by state, its hooks, its counters, and that nothing breaks it."""

import email.utils
import http.client
import json
import random
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
from emulator_client import EMULATOR
from turnkeyfs_emulator.encoding import b64url, unb64url
from turnkeyfs_emulator.faults import HOSTILE

pytest_plugins = ["emulator_fixture"]

WRAP = {"alg": "RSA-OAEP-256", "value": b64url(bytes(32))}
HOUR = 3600


@pytest.fixture
def kek(vault):
    """A vault with a key `kek`; its wrapped value is `vault.wrapped`."""
    vault.create("kek")
    vault.wrapped = WRAP | {"value": vault.ok("POST", "/keys/kek/wrapkey", WRAP)["value"]}
    return vault


def crypto_answers(vault):
    """{operation: Answer} with the vault's key and the value wrapped by it."""
    digest = b64url(bytes(32))
    sign = {"alg": "RS256", "value": digest}
    verify = {"alg": "RS256", "digest": digest, "value": b64url(bytes(256))}
    bodies = {"wrapkey": WRAP, "encrypt": WRAP, "sign": sign, "unwrapkey": vault.wrapped,
              "decrypt": vault.wrapped, "verify": verify}  # fmt: skip
    return {name: vault.post(f"/keys/kek/{name}", body) for name, body in bodies.items()}


# --- states of a key -----------------------------------------------------------------------------


def test_a_disabled_version_refuses_everything_and_comes_back(kek):
    kek.set_enabled("kek", False)
    for operation, answer in crypto_answers(kek).items():
        assert (answer.status, answer.error) == (403, ("Forbidden", "KeyDisabled")), operation
    kek.set_enabled("kek", True)
    assert {answer.status for answer in crypto_answers(kek).values()} == {200}


def test_other_versions_of_a_disabled_one_go_on(kek):
    old = kek.ok("GET", "/keys/kek")["key"]["kid"].rsplit("/", 1)[1]
    kek.create("kek")
    kek.set_enabled("kek", False)
    assert kek.post(f"/keys/kek/{old}/unwrapkey", kek.wrapped).status == 200
    assert kek.post("/keys/kek/unwrapkey", kek.wrapped).error[1] == "KeyDisabled"


def test_public_operations_on_a_disabled_version_are_a_switch(emulator, kek):
    emulator.settings(public_key_disabled=200)
    kek.set_enabled("kek", False)
    statuses = {name: answer.status for name, answer in crypto_answers(kek).items()}
    assert statuses == {"wrapkey": 200, "encrypt": 200, "verify": 200, "sign": 403,
                        "unwrapkey": 403, "decrypt": 403}  # fmt: skip


@pytest.mark.parametrize("when", ("expired", "not yet valid"))
def test_outside_its_time_a_key_unwraps_but_does_not_wrap(emulator, kek, when):
    now = int(time.time())
    times = {"exp": now - HOUR} if when == "expired" else {"nbf": now + HOUR}
    kek.ok("PATCH", "/keys/kek", {"attributes": times})
    answers = crypto_answers(kek)
    for operation in ("wrapkey", "encrypt", "sign"):
        inner = "KeyExpired" if when == "expired" else "KeyNotYetValid"
        assert answers[operation].error == ("Forbidden", inner)
        assert answers[operation].status == 403
    for operation in ("unwrapkey", "decrypt", "verify"):
        assert answers[operation].status == 200
    emulator.settings(expired_inner=None, not_yet_valid_inner=None)
    assert crypto_answers(kek)["wrapkey"].error == ("Forbidden", None)
    emulator.control("clock", shift=-2 * HOUR if when == "expired" else 2 * HOUR, scopes=["keys"])
    assert crypto_answers(kek)["wrapkey"].status == 200


def test_a_few_minutes_are_forgiven(emulator, kek):
    kek.ok("PATCH", "/keys/kek", {"attributes": {"exp": int(time.time()) - 60}})
    assert kek.post("/keys/kek/wrapkey", WRAP).status == 200
    emulator.settings(leeway=0)
    assert kek.post("/keys/kek/wrapkey", WRAP).status == 403


def test_key_ops_are_enforced(kek):
    kek.ok("PATCH", "/keys/kek", {"key_ops": ["wrapKey"]})
    assert kek.post("/keys/kek/wrapkey", WRAP).status == 200
    answer = kek.post("/keys/kek/unwrapkey", kek.wrapped)
    assert (answer.status, answer.error) == (403, ("Forbidden", "KeyOperationForbidden"))
    assert "unwrapKey is not permitted" in answer.json["error"]["message"]


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ("7.0", "7.6", "2025-07-01", "2026-07-01-preview"))
def test_api_versions_that_are_known(vault, version):
    assert vault.get("/keys", api_version=version).status == 200


@pytest.mark.parametrize("version", (None, "", "7.7", "6.0", "2025-07", "latest", "7.4x"))
def test_api_versions_that_are_not(vault, version):
    assert vault.get("/keys", api_version=version).error[0] == "BadParameter"


@pytest.mark.parametrize(
    "method, path",
    (
        ("GET", "/"),
        ("GET", "/secrets/x"),
        ("POST", "/keys/kek/explode"),
        ("DELETE", "/keys/kek/0123"),
        ("PUT", "/keys"),
        ("OPTIONS", "/keys"),
        ("POST", "/keys"),
    ),
)
def test_unknown_routes_are_bad_parameters(vault, method, path):
    answer = vault.request(method, path)
    assert (answer.status, answer.error) == (400, ("BadParameter", None))


@pytest.mark.parametrize(
    "body",
    (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000, b"NaN",
     b'{"alg":NaN}', b"{}x"),
)  # fmt: skip
def test_broken_json_is_a_bad_parameter(kek, body):
    answer = kek.request("POST", "/keys/kek/wrapkey", raw=body)
    assert (answer.status, answer.error) == (400, ("BadParameter", None))


def test_release_and_attestation_are_refused(kek):
    assert kek.post("/keys/kek/release", {}).status == 403
    assert kek.get("/keys/kek/0123/attestation").status == 403


def test_headers_of_an_answer(kek):
    given = "01234567-89ab-cdef-0123-456789abcdef"
    answer = kek.get("/keys/kek", headers={"x-ms-client-request-id": given})
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["x-ms-client-request-id"] == given
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "addr=127.0.0.1" in answer.headers["x-ms-keyvault-network-info"]


def test_random_requests_get_an_answer_below_500(kek):
    """What a client gets wrong is never a fault of the emulator."""
    rng = random.Random(7)
    words = ["keys", "kek", "deletedkeys", "restore", "rng", "create", "wrapkey", "rotate", "",
             "rotationpolicy", "recover", "backup", "versions", "sign", "verify", "%00", "é", ".."]
    values = [None, True, 0, -1, 1e300, "", "AAAA", "RSA", "oct-HSM", "EC", [], {}, ["wrapKey"],
              {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"},
              {"kty": "RSA-HSM", "key_hsm": "AAAA"}, {"exp": 2**70}, {"a": "b"}, "A256KW", "RS256",
              [{"trigger": {}, "action": {}}]]
    names = ["kty", "key", "alg", "value", "digest", "attributes", "tags", "key_ops", "crv",
             "key_size", "Hsm", "count", "lifetimeActions", "iv", "tag", "aad"]
    for _ in range(600):
        path = "/" + "/".join(rng.choice(words) for _ in range(rng.randint(1, 4)))
        body = {rng.choice(names): rng.choice(values) for _ in range(rng.randint(0, 4))}
        method = rng.choice(("GET", "POST", "PUT", "PATCH", "DELETE"))
        answer = kek.request(method, urllib.parse.quote(path, safe="/%"), body)
        assert answer.status < 500, (method, path, body, answer.raw)
        if answer.status >= 400:
            assert answer.error[0]


@pytest.mark.parametrize(
    "text",
    (
        b"GARBAGE\r\n\r\n",
        b"GET /keys HTTP/9.9\r\n\r\n",
        b"GET /keys HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /keys HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /keys HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ),
)
def test_what_is_not_http_gets_json(emulator, vault, text):
    connection = emulator.connect(vault.url)
    connection.connect()
    connection.sock.sendall(text)
    answer = http.client.HTTPResponse(connection.sock)
    answer.begin()
    assert 400 <= answer.status < 510
    assert json.load(answer)["error"]["code"] == "BadParameter"
    connection.close()


def test_a_client_stuck_in_its_handshake_blocks_nobody(emulator, vault):
    stuck = [socket.create_connection(("127.0.0.1", emulator.port)) for _ in range(5)]
    began = time.monotonic()
    assert vault.get("/keys").status == 200
    assert time.monotonic() - began < 5
    for connection in stuck:
        connection.close()


def test_many_requests_at_once_on_kept_connections(emulator, kek):
    emulator.control("counters", reset=True)
    failures = []

    def work():
        client = kek.with_token(kek.token)
        try:
            for _ in range(10):
                answer = client.post("/keys/kek/unwrapkey", kek.wrapped)
                if unb64url(answer.json["value"]) != bytes(32):
                    failures.append(answer)
        except Exception as e:
            failures.append(e)
        finally:
            client.close()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    counters = emulator.counters()
    assert counters["by_operation"]["unwrapKey"] == 200
    assert counters["opened_connections"]["vault"] == 20
    assert counters["most_in_flight"] >= 2


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", (None, 7))
def test_throttling_with_and_without_retry_after(emulator, vault, wait):
    emulator.control("throttle", count=2, retryAfter=wait)
    assert vault.with_token("").get("/keys").status == 401  # a challenge isn't throttled
    for _ in range(2):
        answer = vault.get("/keys")
        assert (answer.status, answer.error) == (429, ("Throttled", None))
        assert answer.headers["Retry-After"] == (None if wait is None else "7")
    assert vault.get("/keys").status == 200


def test_a_fault_waits_for_what_it_is_meant_for(emulator, kek):
    emulator.control("throttle", operation="unwrapKey", key="kek", vault=kek.name)
    assert kek.post("/keys/kek/wrapkey", WRAP).status == 200
    assert emulator.vault().get("/keys").status == 200
    assert kek.post("/keys/kek/unwrapkey", kek.wrapped).status == 429
    assert kek.post("/keys/kek/unwrapkey", kek.wrapped).status == 200


def test_a_fault_for_one_ciphertext(emulator, kek):
    other = WRAP | {"value": kek.ok("POST", "/keys/kek/wrapkey", WRAP)["value"]}
    emulator.control("fail", status=400, count=None, value=other["value"])
    assert kek.post("/keys/kek/unwrapkey", other).status == 400
    assert kek.post("/keys/kek/unwrapkey", kek.wrapped).status == 200


def test_some_faults_are_cleared(emulator, kek):
    other = emulator.vault()
    for vault in (kek, other):
        emulator.control("fail", status=500, count=None, vault=vault.name)
    emulator.control("clear_faults", vault=kek.name)
    assert kek.get("/keys").status == 200
    assert other.get("/keys").status == 500
    with pytest.raises(AssertionError):
        emulator.control("clear_faults", nonsense=1)


@pytest.mark.parametrize(
    "reason, says",
    (
        ("missing", "AKV10000"),
        ("signature", "S2S12005"),
        ("expired", "TokenExpired"),
        ("not_yet_valid", "not yet valid"),
        ("tenant", "AKV10032"),
        ("audience", "AKV10022"),
    ),
)
def test_a_good_token_that_is_refused(emulator, vault, reason, says):
    emulator.control("fault", kind="token", reason=reason)
    answer = vault.get("/keys")
    assert answer.status == 401 and answer.error[0] == "Unauthorized"
    assert says in answer.json["error"]["message"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization=")
    assert vault.get("/keys").status == 200


def test_applications_are_refused_one_by_one(emulator):
    made = [emulator.control("application") for _ in range(2)]

    def asks(application):
        return emulator.token_request(
            client_id=application["appid"], client_secret=application["secret"]
        ).status

    emulator.control("client", appid=made[0]["appid"], disabled=True)
    emulator.control("fail", status=503, target="authority", app=made[1]["appid"])
    assert [asks(one) for one in made] == [400, 503]
    assert emulator.token_request().status == 200
    assert asks(made[1]) == 200
    emulator.control("reset")
    assert [asks(one) for one in made] == [400, 400]


@pytest.mark.parametrize("status", (408, 500, 502, 503, 504))
def test_server_errors(emulator, vault, status):
    emulator.control("fail", status=status, count=None)
    for _ in range(3):
        assert vault.get("/keys").status == status
    emulator.control("clear_faults")
    assert vault.get("/keys").status == 200


def test_an_error_made_to_measure(emulator, vault):
    emulator.control("fail", status=403, code="Forbidden", message="no", headers={"X-A": "b"})
    answer = vault.get("/keys")
    assert answer.error == ("Forbidden", None) and answer.headers["X-A"] == "b"
    emulator.control("fail", status=403, body="<html>", content_type="text/html")
    answer = vault.get("/keys")
    assert answer.raw == b"<html>" and answer.headers["Content-Type"] == "text/html"


@pytest.mark.parametrize("kind", ("drop", "reset"))
@pytest.mark.parametrize("when, made", (("before", 0), ("after", 1)))
def test_a_connection_cut_before_or_after_the_work(emulator, vault, kind, when, made):
    emulator.control("fault", kind=kind, when=when, operation="create")
    with pytest.raises((OSError, http.client.HTTPException)):
        vault.post("/keys/kek/create", {"kty": "EC"})
    assert len(vault.ok("GET", "/keys/kek/versions")["value"]) == made


def test_half_an_answer(emulator, vault):
    emulator.control("fault", kind="half")
    with pytest.raises((OSError, http.client.HTTPException)):
        vault.get("/keys")
    assert vault.get("/keys").status == 200


def test_slow_and_trickling_answers(emulator, vault):
    vault.get("/keys")
    emulator.control("fault", kind="slow", ms=400)
    began = time.monotonic()
    assert vault.get("/keys").status == 200
    assert time.monotonic() - began >= 0.4
    emulator.control("fault", kind="trickle", ms=1)
    began = time.monotonic()
    assert vault.ok("GET", "/keys") == {"value": []}
    assert time.monotonic() - began >= 0.2


def test_chunked_answers(emulator, kek):
    emulator.control("fault", kind="chunked")
    answer = kek.get("/keys/kek")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.json["key"]["kty"] == "RSA"


def test_a_redirect(emulator, vault):
    emulator.control("fault", kind="redirect", location="https://evil.invalid/", status=302)
    answer = vault.get("/keys")
    assert answer.status == 302 and answer.headers["Location"] == "https://evil.invalid/"


def test_a_wrong_content_type_and_a_wrong_body(emulator, vault):
    emulator.control("fault", kind="content_type", content_type="text/plain")
    answer = vault.get("/keys")
    assert answer.headers["Content-Type"] == "text/plain" and answer.json == {"value": []}
    emulator.control("fault", kind="body", body="hello")
    assert vault.get("/keys").raw == b"hello"


def test_a_patched_answer(emulator, kek):
    emulator.control("fault", kind="patch", set={"kid": "https://evil.invalid/keys/a/b"})
    answer = kek.ok("POST", "/keys/kek/unwrapkey", kek.wrapped)
    assert answer == {"kid": "https://evil.invalid/keys/a/b", "value": WRAP["value"]}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_json(emulator, kek, name):
    emulator.control("fault", kind="json", hostile=name, size=20_000)
    answer = kek.post("/keys/kek/unwrapkey", kek.wrapped)
    good = kek.ok("POST", "/keys/kek/unwrapkey", kek.wrapped)
    assert answer.status == 200
    try:
        assert answer.json != good or name == "duplicates"
    except (ValueError, RecursionError):
        assert name in ("deep", "deep_objects", "empty", "truncated", "trailing", "html",
                        "bad_utf8", "binary")  # fmt: skip
    if name == "duplicates":
        assert answer.raw.count(b'"value"') == 3
    if name == "wrong_types":
        assert isinstance(answer.json["value"], int)
    if name.startswith("huge"):
        assert len(answer.raw) > 20_000


def test_hostile_tokens(emulator):
    emulator.control("fault", kind="json", hostile="nulls", target="authority")
    assert emulator.token_request().json["access_token"] is None
    emulator.control("fault", kind="patch", target="authority", set={"expires_in": "soon"})
    assert emulator.token_request().json["expires_in"] == "soon"
    emulator.control("throttle", target="authority", retryAfter=3)
    answer = emulator.token_request()
    assert answer.status == 429 and answer.headers["Retry-After"] == "3"


def test_unknown_hooks_and_members_are_refused(emulator):
    for op, members in (
        ("explode", {}),
        ("throttle", {"cuont": 2}),
        ("fault", {"kind": "explode"}),
        ("fault", {"kind": "json", "hostile": "friendly"}),
        ("grant", {"permissions": ["everything"]}),
        ("grant", {"role": "King"}),
        ("settings", {"get_disbaled": 403}),
        ("settings", {"leeway": "long"}),
        ("clock", {}),
        ("clock", {"shift": 1, "scopes": ["sun"]}),
        ("vault", {"retention_days": 91}),
        ("vault", {"name": "a--b"}),
        ("vault", {"colour": "red"}),
        ("client", {"colour": "red"}),
        ("certificate", {"kind": "nice"}),
        ("_rule", {}),
    ):
        with pytest.raises(AssertionError, match="control"):
            emulator.control(op, **members)


# --- what the counters tell ----------------------------------------------------------------------


def test_counters_tell_calls_by_operation_key_and_version(emulator, kek):
    version = kek.ok("GET", "/keys/kek")["key"]["kid"].rsplit("/", 1)[1]
    emulator.control("counters", reset=True)
    for _ in range(3):
        kek.post(f"/keys/kek/{version}/unwrapkey", kek.wrapped)
    kek.post("/keys/kek/wrapkey", WRAP)  # the version that did it is in the answer
    kek.with_token("").get("/keys/kek")
    counters = emulator.counters()
    assert counters["by_operation"] == {"unwrapKey": 3, "wrapKey": 1}
    assert counters["by_key"][f"{kek.name}/kek/unwrapKey"] == 3
    assert counters["by_version"] == {
        f"{kek.name}/kek/{version}/unwrapKey": 3,
        f"{kek.name}/kek/{version}/wrapKey": 1,
    }
    assert counters["by_status"] == {"200": 4, "401": 1} and counters["total"] == 5
    emulator.token_request()
    emulator.token_request(client_secret="wrong")
    assert emulator.counters()["authority"] == {"200": 1, "401": 1}


def test_the_last_requests_and_tokens(emulator, kek):
    answer = kek.get("/keys/kek", headers={"x-ms-client-request-id": "abc", "User-Agent": "me/1"})
    last = emulator.requests()[-1]
    assert last["request_id"] == answer.headers["x-ms-request-id"]
    assert (last["client_request_id"], last["user_agent"]) == ("abc", "me/1")
    assert (last["operation"], last["key"], last["status"]) == ("get", "kek", 200)
    assert last["caller"] == emulator.client_id
    assert last["server_name"] == urllib.parse.urlsplit(kek.url).hostname
    kek.set_enabled("kek", False)
    kek.post("/keys/kek/wrapkey", WRAP)
    assert emulator.requests()[-1]["error"] == "KeyDisabled"
    seen = emulator.control("tokens_seen")["tokens"]
    assert seen[urllib.parse.urlsplit(kek.url).netloc] == f"Bearer {kek.token}"
    assert len(seen) == 1


def test_reset_takes_all_hooks_back_and_keeps_the_keys(emulator, kek):
    emulator.control("throttle", count=None)
    emulator.control("revoke")
    emulator.control("firewall")
    emulator.control("clock", shift=10 * HOUR)
    emulator.settings(get_disabled=403)
    emulator.control("reset")
    assert kek.get("/keys/kek").status == 200
    assert emulator.counters()["total"] == 1
    assert emulator.settings()["settings"] == emulator.settings()["defaults"]


def test_the_date_header_follows_its_clock(emulator, vault):
    emulator.control("clock", shift=-HOUR, scopes=["date"])
    date = email.utils.parsedate_to_datetime(vault.get("/keys").headers["Date"]).timestamp()
    assert abs(date - time.time() + HOUR) < 60


# --- command line --------------------------------------------------------------------------------


def run(*arguments):
    return subprocess.run(
        ["/usr/bin/python3", "-m", "turnkeyfs_emulator", *arguments],
        cwd=EMULATOR, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_command_line_explains_itself():
    text = run("--help").stdout
    for option in ("--state", "--vault", "--hsm", "--port", "--known-keys", "--set"):
        assert option in text
    assert run().returncode == 2
    assert run("--state", "x", "--set", "broken").returncode == 2


def test_a_port_that_is_taken_is_named_in_one_line(emulator, tmp_path):
    done = run("--state", str(tmp_path / "state"), "--port", str(emulator.port))
    assert done.returncode == 1 and "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_of_the_command_line_outlives_a_reset(make_emulator):
    emulator = make_emulator("--set", "get_disabled=403", "--vault", "mine", "--hsm", "ours")
    assert set(emulator.vaults) == {"mine"} and set(emulator.hsms) == {"ours"}
    vault = emulator.vault("mine")
    vault.create("kek")
    vault.set_enabled("kek", False)
    emulator.control("reset")
    assert vault.get("/keys/kek").status == 403
    env = (emulator.directory / "env.sh").read_text()
    assert f"AZURE_TENANT_ID={emulator.tenant}" in env and "AZURE_CLIENT_SECRET=" in env


def test_without_known_keys_it_makes_its_own(make_emulator):
    primes = json.loads((EMULATOR / "turnkeyfs_emulator" / "known_primes.json").read_text())
    known = [int(prime, 16) for prime in primes["2048"]]

    def is_known(emulator):
        vault = emulator.vault()
        modulus = int.from_bytes(unb64url(vault.create("kek")["key"]["n"]), "big")
        vault.close()
        return any(modulus % prime == 0 for prime in known)

    assert not is_known(make_emulator(name="fresh", known_keys=False))
    assert is_known(make_emulator(name="known"))
