# SPDX-License-Identifier: Apache-2.0
"""The emulator's keys: their life from creation to purge, and how answers look."""

import json
import re
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from emulator_client import wait_until
from turnkeyfs_emulator import byok
from turnkeyfs_emulator.encoding import b64url, int_bytes, unb64url

pytest_plugins = ["emulator_fixture"]

DAY = 86400
RSA_OPS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]


def version_of(bundle):
    return bundle["key"]["kid"].rsplit("/", 1)[1]


def rsa_jwk(key):
    n = key.private_numbers()
    names = {"n": n.public_numbers.n, "e": n.public_numbers.e, "d": n.d, "p": n.p, "q": n.q,
             "dp": n.dmp1, "dq": n.dmq1, "qi": n.iqmp}  # fmt: skip
    return {"kty": "RSA"} | {name: b64url(int_bytes(value)) for name, value in names.items()}


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


# --- create --------------------------------------------------------------------------------------


def test_a_new_rsa_key_looks_as_the_service_shows_it(vault):
    before = int(time.time())
    bundle = vault.create("kek", tags={"purpose": "fs"})
    key, attributes = bundle["key"], bundle["attributes"]
    assert re.fullmatch(re.escape(vault.url) + r"/keys/kek/[0-9a-f]{32}", key["kid"])
    assert set(key) == {"kid", "kty", "key_ops", "n", "e"}
    assert key["key_ops"] == RSA_OPS and key["e"] == "AQAB"
    modulus = unb64url(key["n"])
    assert len(modulus) == 256 and modulus[0] != 0
    assert attributes["enabled"] is True and "exp" not in attributes and "nbf" not in attributes
    assert before <= attributes["created"] <= before + 5
    assert attributes["recoveryLevel"] == "Recoverable+Purgeable"
    assert attributes["recoverableDays"] == 90
    assert "hsmPlatform" not in attributes
    assert bundle["tags"] == {"purpose": "fs"}


@pytest.mark.parametrize("bits", (2048, 3072, 4096))
def test_rsa_sizes(vault, bits):
    assert len(unb64url(vault.create("kek", key_size=bits)["key"]["n"])) == bits // 8


@pytest.mark.parametrize(
    "curve, length", (("P-256", 32), ("P-384", 48), ("P-521", 66), ("P-256K", 32))
)
def test_ec_coordinates_have_the_length_of_the_curve(vault, curve, length):
    key = vault.create("ec", kty="EC", crv=curve)["key"]
    assert key["crv"] == curve and key["key_ops"] == ["sign", "verify"]
    assert {len(unb64url(key[name])) for name in "xy"} == {length}


@pytest.mark.parametrize(
    "body",
    (
        {"kty": "RSA", "key_size": 1024},
        {"kty": "RSA", "key_size": "2048"},
        {"kty": "RSA", "key_size": 2049},
        {"kty": "rsa"},
        {"kty": "oct"},
        {"kty": 7},
        {},
        {"kty": "EC", "crv": "P-255"},
        {"kty": "EC", "key_ops": ["wrapKey"]},
        {"kty": "RSA", "key_ops": ["wrapKey", "wrapKey"]},
        {"kty": "RSA", "key_ops": [["wrapKey"]]},
        {"kty": "RSA", "key_ops": "wrapKey"},
        {"kty": "RSA", "key_ops": ["import"]},
        {"kty": "RSA", "attributes": {"exp": "tomorrow"}},
        {"kty": "RSA", "attributes": {"nbf": 200, "exp": 100}},
        {"kty": "RSA", "attributes": {"enabled": "yes"}},
        {"kty": "RSA", "attributes": []},
        {"kty": "RSA", "tags": {str(i): "" for i in range(16)}},
        {"kty": "RSA", "tags": {"a": 1}},
        {"kty": "RSA", "public_exponent": 4},
    ),
)
def test_a_create_request_that_the_service_refuses(vault, body):
    answer = vault.post("/keys/kek/create", body)
    assert answer.status == 400 and answer.error[0] == "BadParameter"


@pytest.mark.parametrize("name", ("a_b", "a.b", "x" * 128, "%C3%A4"))
def test_a_name_that_the_service_refuses(vault, name):
    assert vault.post(f"/keys/{name}/create", {"kty": "RSA"}).status == 400


def test_a_managed_hsm_has_hsm_types_only(hsm):
    for kty in ("RSA", "EC"):
        assert hsm.post("/keys/kek/create", {"kty": kty}).status == 400
    assert hsm.create("aes", kty="oct-HSM")["key"]["kty"] == "oct-HSM"
    assert hsm.create("ec", kty="EC-HSM")["key"]["kty"] == "EC-HSM"


def test_a_standard_vault_has_no_hsm_keys(emulator):
    vault = emulator.vault(premium=False)
    assert vault.post("/keys/kek/create", {"kty": "RSA-HSM"}).status == 400
    assert emulator.vault().create("kek", kty="RSA-HSM")["key"]["kty"] == "RSA-HSM"


def test_newer_attributes_come_with_newer_versions_of_the_api(vault):
    vault.create("kek", kty="RSA-HSM")
    vault.create("soft")
    assert vault.ok("GET", "/keys/kek", api_version="7.6")["attributes"]["hsmPlatform"] == "2"
    assert vault.ok("GET", "/keys/soft", api_version="7.6")["attributes"]["hsmPlatform"] == "0"
    assert "recoverableDays" not in vault.ok("GET", "/keys/kek", api_version="7.0")["attributes"]


# --- versions, lists -----------------------------------------------------------------------------


def test_the_newest_version_is_current_and_old_ones_stay(vault):
    old, new = vault.create("kek"), vault.create("kek")
    assert version_of(old) != version_of(new)
    assert vault.ok("GET", "/keys/kek")["key"] == new["key"]
    assert vault.ok("GET", f"/keys/kek/{version_of(old)}")["key"] == old["key"]
    assert vault.get("/keys/kek/" + "0" * 32).error[0] == "KeyNotFound"


def test_names_compare_without_regard_to_case(vault):
    bundle = vault.create("Kek")
    assert vault.ok("GET", f"/KEYS/kEK/{version_of(bundle).upper()}")["key"] == bundle["key"]
    assert len(vault.ok("GET", "/keys")["value"]) == 1


def test_paths_as_other_clients_write_them(vault):
    vault.create("kek")
    assert vault.get("/keys/kek/").status == 200
    body = {"alg": "RSA-OAEP-256", "value": b64url(bytes(32))}
    for path in ("/keys/kek//wrapkey", "/keys/kek/wrapKey", "/keys/kek/wrapkey"):
        assert vault.post(path, body).status == 200, path
    answer = vault.request("GET", "/keys/kek/?api%2Dversion=7.4", api_version=None)
    assert answer.status == 200


def test_lists_are_paged_by_links(vault):
    for i in range(7):
        vault.create(f"key-{i}", kty="EC")
    found, path = [], "/keys?maxresults=3&api-version=7.4"
    pages = 0
    while path:
        page = vault.ok("GET", path, api_version=None)
        assert len(page["value"]) <= 3
        found += [item["kid"] for item in page["value"]]
        assert not page.get("nextLink") or page["nextLink"].startswith(vault.url)
        path = page.get("nextLink", "").removeprefix(vault.url)
        pages += 1
    assert pages == 3
    assert found == [f"{vault.url}/keys/key-{i}" for i in range(7)]


def test_a_list_of_versions_is_sorted_by_version_not_by_age(vault):
    made = [version_of(vault.create("kek", kty="EC")) for _ in range(6)]
    vault.set_enabled("kek", False)
    listed = vault.ok("GET", "/keys/kek/versions")["value"]
    assert [item["kid"].rsplit("/", 1)[1] for item in listed] == sorted(made)
    assert [item["attributes"]["enabled"] for item in listed].count(False) == 1
    assert not any("key" in item for item in listed)


@pytest.mark.parametrize("limit", ("0", "26", "-1", "many", "", "1" * 30))
def test_page_sizes_out_of_range(vault, limit):
    assert vault.get(f"/keys?maxresults={limit}").status == 400


def test_pages_may_be_short_and_end_in_three_ways(emulator, vault):
    vault.create("a", kty="EC")
    vault.create("b", kty="EC")
    for end, last in (("null", None), ("empty", ""), ("absent", "no")):
        emulator.settings(short_pages=True, next_link_end=end)
        page = vault.ok("GET", "/keys")
        assert page["value"] == [] and page["nextLink"]
        while page.get("nextLink"):
            page = vault.ok("GET", page["nextLink"].removeprefix(vault.url), api_version=None)
        assert len(page["value"]) == 1 and page.get("nextLink", "no") == last


def test_versions_of_an_unknown_key(emulator, vault):
    assert vault.ok("GET", "/keys/none/versions") == {"value": []}
    emulator.settings(unknown_versions=404)
    assert vault.get("/keys/none/versions").error == ("KeyNotFound", None)


# --- update --------------------------------------------------------------------------------------


def test_update_changes_what_it_names_and_makes_no_version(vault):
    old = vault.create("kek", tags={"a": "1"}, attributes={"exp": 4102444800})
    path = f"/keys/kek/{version_of(old)}"
    new = vault.ok("PATCH", path, {"key_ops": ["wrapKey"], "attributes": {"enabled": False}})
    assert new["key"]["key_ops"] == ["wrapKey"] and new["key"]["kid"] == old["key"]["kid"]
    assert new["attributes"]["enabled"] is False and new["attributes"]["exp"] == 4102444800
    assert new["tags"] == {"a": "1"}
    assert vault.ok("PATCH", "/keys/kek/", {"tags": {"b": "2"}})["tags"] == {"b": "2"}
    assert vault.request("PATCH", path, {"attributes": {"nbf": 4102444801}}).status == 400


def test_a_disabled_version_is_shown_unless_the_switch_says_otherwise(emulator, vault):
    vault.create("kek")
    vault.set_enabled("kek", False)
    assert vault.ok("GET", "/keys/kek")["attributes"]["enabled"] is False
    emulator.settings(get_disabled=403)
    assert vault.get("/keys/kek").error == ("Forbidden", "KeyDisabled")


# --- rotation ------------------------------------------------------------------------------------


def test_rotate_makes_fresh_material_of_the_same_kind(vault):
    old = vault.create("kek", key_size=3072, key_ops=["wrapKey", "unwrapKey"], tags={"a": "1"})
    vault.ok("PUT", "/keys/kek/rotationpolicy", {"attributes": {"expiryTime": "P90D"}})
    new = vault.ok("POST", "/keys/kek/rotate")
    assert version_of(new) != version_of(old) and new["key"]["n"] != old["key"]["n"]
    assert len(unb64url(new["key"]["n"])) == 384
    assert new["key"]["key_ops"] == old["key"]["key_ops"] and new["tags"] == {"a": "1"}
    assert new["attributes"]["exp"] == new["attributes"]["created"] + 90 * DAY


def test_the_rotation_policy_is_the_default_until_set(vault):
    vault.create("kek")
    policy = vault.ok("GET", "/keys/kek/rotationpolicy")
    notify = {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}
    assert policy["lifetimeActions"] == [notify]
    rotate = {"trigger": {"timeAfterCreate": "P60D"}, "action": {"type": "rotate"}}
    policy = vault.ok("PUT", "/keys/kek/rotationpolicy", {"lifetimeActions": [rotate]})
    assert policy["id"] == f"{vault.url}/keys/kek/rotationpolicy"
    assert policy["lifetimeActions"][0]["action"]["type"] == "Rotate"
    assert policy["lifetimeActions"][1] == notify
    assert vault.ok("GET", "/keys/kek/rotationpolicy") == policy
    empty = {"lifetimeActions": [], "attributes": {}}
    assert vault.ok("PUT", "/keys/kek/rotationpolicy", empty)["lifetimeActions"] == []


def action(kind, **trigger):
    return {"trigger": trigger, "action": {"type": kind}}


@pytest.mark.parametrize(
    "policy",
    (
        {"lifetimeActions": [action("Rotate", timeAfterCreate="P6D")]},
        {"lifetimeActions": [action("Rotate", timeBeforeExpiry="P30D")]},
        {"lifetimeActions": [action("Rotate", timeAfterCreate="soon")]},
        {"lifetimeActions": [action("Explode", timeAfterCreate="P60D")]},
        {"lifetimeActions": [action("Notify", timeAfterCreate="P60D")]},
        {"lifetimeActions": [action("Rotate")]},
        {"lifetimeActions": [action("Rotate", timeAfterCreate="P60D")] * 2},
        {"lifetimeActions": [7]},
        {"lifetimeActions": "Rotate"},
        {"attributes": {"expiryTime": "P20D"}},
        {"lifetimeActions": [action("Rotate", timeAfterCreate="P90D")],
         "attributes": {"expiryTime": "P60D"}},
    ),
)  # fmt: skip
def test_a_rotation_policy_that_the_service_refuses(vault, policy):
    vault.create("kek", kty="EC")
    assert vault.request("PUT", "/keys/kek/rotationpolicy", policy).status == 400


def test_the_policy_rotates_when_the_clock_gets_there(emulator, vault):
    old = vault.create("kek")
    rotate = action("Rotate", timeAfterCreate="P60D")
    vault.ok("PUT", "/keys/kek/rotationpolicy", {"lifetimeActions": [rotate]})
    emulator.control("clock", advance=59 * DAY)
    vault = emulator.vault(vault.name)
    assert vault.ok("GET", "/keys/kek")["key"] == old["key"]
    emulator.control("clock", advance=2 * DAY)
    vault = emulator.vault(vault.name)
    assert vault.ok("GET", "/keys/kek")["key"] != old["key"]
    assert len(vault.ok("GET", "/keys/kek/versions")["value"]) == 2


def test_a_managed_hsm_rotates_only_with_a_policy_of_28_days(hsm):
    hsm.create("kek", kty="oct-HSM")
    assert hsm.post("/keys/kek/rotate").status == 400
    short = {"lifetimeActions": [action("Rotate", timeAfterCreate="P20D")]}
    assert hsm.request("PUT", "/keys/kek/rotationpolicy", short).status == 400
    policy = {"lifetimeActions": [action("Rotate", timeAfterCreate="P28D")]}
    hsm.ok("PUT", "/keys/kek/rotationpolicy", policy)
    assert hsm.post("/keys/kek/rotate").status == 200


def test_a_key_of_a_managed_hsm_has_at_most_100_versions(hsm):
    for _ in range(100):
        hsm.create("kek", kty="oct-HSM")
    assert hsm.post("/keys/kek/create", {"kty": "oct-HSM"}).status == 400


# --- soft delete ---------------------------------------------------------------------------------


def test_the_life_of_a_deleted_key(emulator, vault):
    emulator.settings(delete_delay=0.5, recover_delay=0.5)
    bundle = vault.create("kek")
    deleted = vault.ok("DELETE", "/keys/kek")
    assert deleted["key"] == bundle["key"]
    assert deleted["recoveryId"] == f"{vault.url}/deletedkeys/kek"
    assert deleted["scheduledPurgeDate"] == deleted["deletedDate"] + 90 * DAY
    # Being deleted:
    assert vault.get("/deletedkeys/kek").error == ("KeyNotFound", None)
    assert vault.get("/keys/kek").error == ("KeyNotFound", None)
    conflict = ("Conflict", "ObjectIsBeingDeleted")
    assert vault.post("/keys/kek/create", {"kty": "EC"}).error == conflict
    assert vault.post("/deletedkeys/kek/recover").error == conflict
    assert vault.request("DELETE", "/deletedkeys/kek").error == conflict
    # Deleted:
    wait_until(lambda: vault.get("/deletedkeys/kek").status == 200)
    assert vault.ok("GET", "/deletedkeys/kek")["recoveryId"] == deleted["recoveryId"]
    assert [k["recoveryId"] for k in vault.ok("GET", "/deletedkeys")["value"]] == [
        deleted["recoveryId"]
    ]
    assert vault.ok("GET", "/keys")["value"] == []
    answer = vault.post("/keys/kek/create", {"kty": "EC"})
    assert answer.status == 409
    assert answer.error == ("Conflict", "ObjectIsDeletedButRecoverable")
    body = {"alg": "RSA-OAEP-256", "value": b64url(bytes(256))}
    version = version_of(bundle)
    assert vault.post(f"/keys/kek/{version}/unwrapkey", body).error == ("KeyNotFound", None)
    # Being recovered, and back:
    vault.ok("POST", "/deletedkeys/kek/recover")
    assert vault.get("/keys/kek").status == 404
    assert vault.post("/deletedkeys/kek/recover").error == ("Conflict", "ObjectIsBeingRecovered")
    wait_until(lambda: vault.get("/keys/kek").status == 200)
    assert vault.ok("GET", "/keys/kek")["key"] == bundle["key"]


def test_a_purged_key_is_gone(emulator, vault):
    emulator.settings(delete_delay=0)
    vault.create("kek", kty="EC")
    vault.ok("DELETE", "/keys/kek")
    answer = vault.request("DELETE", "/deletedkeys/kek")
    assert (answer.status, answer.raw) == (204, b"")
    assert "Content-Length" not in answer.headers
    assert vault.get("/deletedkeys/kek").error == ("KeyNotFound", None)
    assert vault.create("kek", kty="EC")


def test_purge_protection_forbids_the_purge_until_the_retention_ends(emulator):
    emulator.settings(delete_delay=0)
    vault = emulator.vault(purge_protection=True, retention_days=7)
    bundle = vault.create("kek", kty="EC")
    assert bundle["attributes"]["recoveryLevel"] == "CustomizedRecoverable"
    assert bundle["attributes"]["recoverableDays"] == 7
    deleted = vault.ok("DELETE", "/keys/kek")
    assert deleted["scheduledPurgeDate"] == deleted["deletedDate"] + 604800
    answer = vault.request("DELETE", "/deletedkeys/kek")
    assert answer.status == 403 and answer.error == ("Forbidden", None)
    assert "purge protection is enabled" in answer.json["error"]["message"]
    emulator.control("clock", advance=8 * DAY)
    assert emulator.vault(vault.name).get("/deletedkeys/kek").status == 404


@pytest.mark.parametrize(
    "options, level",
    (
        ({"retention_days": 90}, "Recoverable+Purgeable"),
        ({"retention_days": 30}, "CustomizedRecoverable+Purgeable"),
        ({"purge_protection": True}, "Recoverable"),
        ({"soft_delete": False}, "Purgeable"),
    ),
)
def test_recovery_levels(emulator, options, level):
    bundle = emulator.vault(**options).create("kek", kty="EC")
    assert bundle["attributes"]["recoveryLevel"] == level


def test_an_old_vault_without_soft_delete_deletes_at_once(emulator):
    vault = emulator.vault(soft_delete=False)
    vault.create("kek", kty="EC")
    assert "recoveryId" not in vault.ok("DELETE", "/keys/kek")
    assert vault.get("/keys/kek").status == 404
    assert vault.get("/deletedkeys/kek").status == 404
    vault.create("kek", kty="EC")


# --- backup --------------------------------------------------------------------------------------


def test_backup_and_restore_bring_all_versions_back(emulator, vault):
    emulator.settings(delete_delay=0)
    vault.create("kek")
    newest = vault.create("kek")
    blob = vault.ok("POST", "/keys/kek/backup")
    unb64url(blob["value"])
    assert vault.post("/keys/restore", blob).status == 409
    other = emulator.vault()
    restored = other.ok("POST", "/keys/restore", blob)
    assert restored["key"]["n"] == newest["key"]["n"]
    assert restored["key"]["kid"] == newest["key"]["kid"].replace(vault.url, other.url)
    assert len(other.ok("GET", "/keys/kek/versions")["value"]) == 2
    other.ok("DELETE", "/keys/kek")
    assert other.post("/keys/restore", blob).error[1] == "ObjectIsDeletedButRecoverable"


@pytest.mark.parametrize("value", (None, "", "AAAA", "!!", 7, b64url(b"KeyBackup1" + bytes(64))))
def test_garbage_is_no_backup(vault, value):
    assert vault.post("/keys/restore", {"value": value}).status == 400


def test_a_backup_of_a_managed_hsm_belongs_to_its_security_domain(emulator, hsm):
    hsm.create("kek", kty="oct-HSM")
    blob = hsm.ok("POST", "/keys/kek/backup")
    assert emulator.vault(hsm=True).post("/keys/restore", blob).status == 400


# --- import, BYOK --------------------------------------------------------------------------------


def test_an_imported_key_is_the_one_given(vault, rsa_key):
    jwk = rsa_jwk(rsa_key) | {"key_ops": ["wrapKey", "unwrapKey"]}
    bundle = vault.ok("PUT", "/keys/kek", {"key": jwk, "tags": {"from": "outside"}})
    assert bundle["key"]["n"] == jwk["n"] and set(bundle["key"]).isdisjoint(set("dpq"))
    assert bundle["key"]["key_ops"] == ["wrapKey", "unwrapKey"]
    bundle = vault.ok("PUT", "/keys/kek", {"Hsm": True, "key": jwk})
    assert bundle["key"]["kty"] == "RSA-HSM"
    assert len(vault.ok("GET", "/keys/kek/versions")["value"]) == 2


def test_an_imported_ec_key(vault):
    key = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    public = key.public_numbers
    jwk = {"kty": "EC", "crv": "P-256"} | {
        name: b64url(int_bytes(value, 32))
        for name, value in (("x", public.x), ("y", public.y), ("d", key.private_value))
    }
    assert vault.ok("PUT", "/keys/ec", {"key": jwk})["key"]["x"] == jwk["x"]
    jwk["d"] = b64url(int_bytes(key.private_value ^ 1, 32))
    assert vault.request("PUT", "/keys/ec", {"key": jwk}).status == 400


@pytest.mark.parametrize("damage", ("no d", "other d", "even n", "small", "garbage", "no kty"))
def test_an_import_that_the_service_refuses(vault, rsa_key, damage):
    jwk = rsa_jwk(rsa_key)
    if damage == "no d":
        del jwk["d"]
    elif damage == "other d":
        jwk["d"] = b64url(b"\x05" * 256)
    elif damage == "even n":
        jwk["n"] = b64url(unb64url(jwk["n"])[:-1] + b"\0")
    elif damage == "small":
        jwk = rsa_jwk(rsa.generate_private_key(65537, 1024))
    elif damage == "garbage":
        jwk["p"] = "+/+/"
    elif damage == "no kty":
        del jwk["kty"]
    assert vault.request("PUT", "/keys/kek", {"key": jwk}).status == 400


def key_exchange_key(vault, **body):
    """(its id, its public key)"""
    body = {"kty": "RSA-HSM", "key_ops": ["import"]} | body
    jwk = vault.create("exchange", **body)["key"]
    numbers = rsa.RSAPublicNumbers(65537, int.from_bytes(unb64url(jwk["n"]), "big"))
    return jwk["kid"], numbers.public_key()


def pkcs8(key):
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_byok_unwraps_the_transfer_blob_with_the_key_exchange_key(vault, rsa_key):
    kid, public = key_exchange_key(vault)
    blob = byok.make_blob(kid, public, pkcs8(rsa_key))
    jwk = {"kty": "RSA-HSM", "key_hsm": b64url(blob), "key_ops": ["wrapKey", "unwrapKey"]}
    bundle = vault.ok("PUT", "/keys/kek", {"key": jwk})
    assert bundle["key"]["n"] == rsa_jwk(rsa_key)["n"]
    damaged = json.loads(blob)
    damaged["ciphertext"] = b64url(bytes(256)) + damaged["ciphertext"][342:]
    for wrong in (b"{}", json.dumps(damaged).encode(), blob.replace(b"dir", b"xyz"), b"[" * 5000):
        answer = vault.request("PUT", "/keys/kek", {"key": jwk | {"key_hsm": b64url(wrong)}})
        assert answer.status == 400, wrong[:40]
    other = byok.make_blob(kid.replace("exchange", "absent"), public, pkcs8(rsa_key))
    answer = vault.request("PUT", "/keys/kek", {"key": jwk | {"key_hsm": b64url(other)}})
    assert answer.error[0] == "KeyNotFound"
    assert vault.request("PUT", "/keys/kek", {"key": jwk | {"kty": "RSA"}}).status == 400


@pytest.mark.parametrize(
    "body", ({"kty": "RSA-HSM", "key_ops": ["unwrapKey"]}, {"kty": "RSA", "key_ops": None})
)
def test_byok_wants_an_hsm_key_for_import_only(vault, rsa_key, body):
    kid, public = key_exchange_key(vault, **body)
    blob = byok.make_blob(kid, public, pkcs8(rsa_key))
    jwk = {"kty": "RSA-HSM", "key_hsm": b64url(blob)}
    answer = vault.request("PUT", "/keys/kek", {"key": jwk})
    assert answer.status == 400 and "key exchange key" in answer.json["error"]["message"]


def test_byok_of_an_aes_key_into_a_managed_hsm(hsm):
    kid, public = key_exchange_key(hsm)
    blob = byok.make_blob(kid, public, bytes(range(32)))
    hsm.ok("PUT", "/keys/aes", {"key": {"kty": "oct-HSM", "key_hsm": b64url(blob)}})
    wrap = {"alg": "A256KW", "value": b64url(bytes(32))}
    plain = {"kty": "oct-HSM", "k": b64url(bytes(range(32)))}
    hsm.ok("PUT", "/keys/same", {"key": plain})
    wrapped = [hsm.ok("POST", f"/keys/{name}/wrapkey", wrap)["value"] for name in ("aes", "same")]
    assert wrapped[0] == wrapped[1]


# --- restart -------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", (False, True))
def test_a_restart_keeps_keys_states_and_tokens(make_emulator, killed):
    emulator = make_emulator()
    vault = emulator.vault("kept", purge_protection=True, retention_days=7)
    bundle = vault.create("kek")
    vault.create("gone", kty="EC")
    vault.ok("DELETE", "/keys/gone")
    body = {"alg": "RSA-OAEP-256", "value": b64url(bytes(32))}
    wrapped = vault.ok("POST", "/keys/kek/wrapkey", body)
    emulator.read_ready()
    before = emulator.ready
    vault.close()
    emulator.restart(killed)
    same = ("ca", "tenant", "port", "client_id", "client_secret", "control", "authority")
    assert {name: emulator.ready[name] for name in same} == {name: before[name] for name in same}
    assert vault.ok("GET", "/keys/kek") == bundle
    body["value"] = wrapped["value"]
    assert vault.ok("POST", "/keys/kek/unwrapkey", body)["value"] == b64url(bytes(32))
    wait_until(lambda: vault.get("/deletedkeys/gone").status == 200)
    assert vault.request("DELETE", "/deletedkeys/gone").status == 403
    vault.close()
