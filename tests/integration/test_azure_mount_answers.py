# SPDX-License-Identifier: Apache-2.0
"""
Every answer that Key Vault and Entra ID are known to give, to a mount in use: what applications
get, what `status` and the log say, and that the mount comes back by itself, with everything in it,
once the answer is another one. The same answer to `mount`: its exit code and message.

The rows are played at the same time, each with a vault of its own in one emulator.
"""

import concurrent.futures
import email.utils
import errno
import os
import time

import azure_scene
import azure_volume
import mountpoint
import pytest
from azure_scene import (
    DAMAGED,
    IDENTITY_LOST,
    OUTAGE,
    REVOKED,
    SERVED,
    UNREACHABLE,
    Row,
    Scene,
    answer,
    authority_error,
    claims_challenge,
)
from azure_volume import key_version, turnkeyfs
from emulator_client import Emulator
from helpers import read_file, write_file
from mountpoint import wait_for
from relay import Impostor
from turnkeyfs_emulator.certificates import Certificates
from turnkeyfs_emulator.encoding import b64url
from turnkeyfs_emulator.state import State

# Rows; sanitized daemons have little time to spare.
AT_ONCE = 8 if mountpoint.sanitized() else 32
# What "too early" means must not end before a slow machine's program has asked.
SLOWLY = 4
HOUR = 3600
BOTH = ("kek", "kms")
KMS = ("kms",)


def fault(kind, **more):
    return lambda scene: scene.fault(kind, **more)


def token(reason):
    return lambda scene: scene.fault("token", reason=reason)


def refusal(*words, **more):
    return lambda scene: scene.refusal(*words, **more)


def application(**changes):
    return lambda scene: scene.change_application(**changes)


def authority(*words):
    return lambda scene: scene.no_more_tokens(**authority_error(*words))


def identity_service(**more):
    return lambda scene: scene.no_more_tokens(**{"kind": "status", "target": "identity"} | more)


def control(op, **members):
    return lambda scene: scene.emulator.control(op, vault=scene.vault.name, **members)


def patch(**body):
    return lambda scene: scene.patch(**body)


def enabled(value):
    return lambda scene: scene.vault.set_enabled("kek", value)


# --- 401: tokens ---------------------------------------------------------------------------------


def clock_off(scene):
    now = time.time() - 2 * HOUR
    headers = {
        "Date": email.utils.formatdate(now, usegmt=True),
        "WWW-Authenticate": 'Bearer authorization="x", resource="x"',
    }
    scene.refusal(401, "Unauthorized", message="Token not yet valid", headers=headers)


def unsatisfied_claims(scene):
    headers = claims_challenge(f"{scene.emulator.authority}/{scene.emulator.tenant}")
    scene.refusal(401, "Unauthorized", headers=headers)


def another_tenant(scene):
    scene.emulator.control("vault", name=scene.vault.name, tenant=scene.emulator.other_tenant)


def own_tenant(scene):
    scene.emulator.control("vault", name=scene.vault.name, tenant=scene.emulator.tenant)


TENANT = ("tenant_id", "az keyvault show")
TOKENS = [
    Row("no token", token("missing"), IDENTITY_LOST, ("HTTP 401", "AKV10000", *TENANT), modes=BOTH),
    Row("wrong audience", token("audience"), IDENTITY_LOST, ("HTTP 401", "AKV10022", *TENANT)),
    Row("token of another tenant", token("tenant"), IDENTITY_LOST, ("HTTP 401", "AKV10032", *TENANT)),
    Row("expired token", token("expired"), IDENTITY_LOST, ("HTTP 401", "S2S12086", *TENANT)),
    Row("token not yet valid", token("not_yet_valid"), IDENTITY_LOST, ("HTTP 401", "not yet valid")),
    Row("clock skew", clock_off, IDENTITY_LOST, ("HTTP 401", "clock is 72", "NTP")),
    Row("a claims challenge", control("cae"), SERVED, modes=BOTH),
    Row("a claims challenge that no token satisfies", unsatisfied_claims, IDENTITY_LOST, ("HTTP 401",)),
    Row("a token refused once", fault("token", count=1, reason="signature"), SERVED, modes=BOTH),
    Row("the vault moved to another tenant", another_tenant, IDENTITY_LOST, ("HTTP 401", "AKV10032", *TENANT),
        take_back=own_tenant),
]  # fmt: skip

# --- the token endpoint --------------------------------------------------------------------------


def other_certificate(scene):
    """The application's certificate is another one now."""
    other = scene.emulator.control("application", certificate=True)["pem"]
    scene.kept = scene.application["pem"]
    scene.change_application(certificate=other[other.index("-----BEGIN CERTIFICATE") :])


def own_certificate(scene):
    pem = scene.kept[scene.kept.index("-----BEGIN CERTIFICATE") :]
    scene.change_application(certificate=pem)


def lost(what, give, *says, **more):
    return Row(f"Entra ID: {what}", give, IDENTITY_LOST, says, "application", **more)


def own_secret(scene):
    scene.emulator.control("client", appid=scene.application["appid"], secret=scene.application["secret"])


IDENTITIES = [
    lost("wrong secret", application(secret="another"), "AADSTS7000215", "az ad app credential reset",
         take_back=own_secret, modes=BOTH),
    lost("secret expired", application(secret_expired=True), "AADSTS7000222", "az ad app credential reset",
         take_back=application(secret_expired=False)),
    lost("application deleted", application(deleted=True), "AADSTS700016", "client_id",
         take_back=application(deleted=False)),
    lost("application disabled", application(disabled=True), "AADSTS7000112", "accountEnabled=true",
         take_back=application(disabled=False)),
    lost("application disabled, 7000114", authority(400, "unauthorized_client", 7000114), "accountEnabled=true"),
    lost("certificate unknown", other_certificate, "AADSTS700027", "--cert @", take_back=own_certificate,
         auth="client-certificate"),
    lost("assertion outside its time", authority(401, "invalid_client", 700024), "AADSTS700024", "clock",
         auth="client-certificate"),
    lost("tenant not found", authority(400, "invalid_request", 90002), "AADSTS90002", "tenant_id"),
    lost("conditional access", authority(400, "access_denied", 53003), "AADSTS53003", "conditional access"),
    lost("an unknown error", authority(400, "invalid_grant", 123456), "AADSTS123456", "administrator"),
    lost("no identity on this machine", identity_service(status=400, code="invalid_request", message="Identity not found"),
         "az vm identity assign", auth="managed-identity"),
    Row("Entra ID: throttled, 50196", authority(400, "invalid_request", 50196), UNREACHABLE, ("HTTP 400",),
        "authority"),
    Row("Entra ID: HTTP 429", authority(429, "temporarily_unavailable", 90055), UNREACHABLE, ("HTTP 429",), "authority"),
    Row("Entra ID: HTTP 503", authority(503, "temporarily_unavailable", 90033), UNREACHABLE, ("HTTP 503",), "authority",
        modes=BOTH),
    Row("identity service: HTTP 410", identity_service(status=410, code="gone"), UNREACHABLE, ("410",), "nothing",
        auth="managed-identity"),
    Row("identity service: HTTP 429", identity_service(status=429, code="x"), UNREACHABLE, ("429",), "nothing",
        auth="managed-identity"),
    Row("identity service: HTTP 500", identity_service(status=500, code="x"), UNREACHABLE, ("500",), "nothing",
        auth="managed-identity"),
]  # fmt: skip

# --- 403 and 404: the owner's decisions ----------------------------------------------------------


def delete(scene):
    scene.vault.ok("DELETE", "/keys/kek")


def recover(scene):
    start_recovery(scene)
    wait_for(lambda: scene.vault.get("/keys/kek").status == 200, 20, "the key")


def start_recovery(scene):
    wait_for(lambda: scene.vault.post("/deletedkeys/kek/recover").status == 200, 20, "the recovery")


def revoked(what, give, *says, **more):
    return Row(what, give, REVOKED, ("HTTP 40", *says), **more)


OWNER = "an owner of the vault has to look into it"
DECISIONS = [
    revoked("version disabled", enabled(False), "KeyDisabled", "is disabled", "--enabled true",
            take_back=enabled(True), modes=BOTH),
    revoked("key deleted", delete, "KeyNotFound", "az keyvault key recover", take_back=recover, modes=BOTH),
    revoked("unwrapKey not in key_ops", patch(key_ops=["wrapKey"]), "KeyOperationForbidden", "--ops wrapKey unwrapKey",
            take_back=patch(key_ops=["wrapKey", "unwrapKey"])),
    revoked("access policy", control("revoke", permissions=["unwrapKey"]), "ForbiddenByPolicy", "az keyvault set-policy",
            take_back=control("grant", permissions=["unwrapKey"]), vault={"rbac": False}),
    revoked("access policy, AccessDenied", refusal(403, "Forbidden", "AccessDenied"), "az keyvault set-policy"),
    revoked("role", control("revoke", permissions=["unwrapKey"]), "ForbiddenByRbac",
            '"Key Vault Crypto Service Encryption User"', "ten minutes",
            take_back=control("grant", permissions=["unwrapKey"]), modes=BOTH),
    revoked("role in a Managed HSM", control("revoke", permissions=["unwrapKey"]), "ForbiddenByRbac",
            '"Managed HSM Crypto Service Encryption User"', "--scope /keys/kek", vault={"hsm": True},
            take_back=control("grant", permissions=["unwrapKey"])),
    revoked("firewall", control("firewall"), "ForbiddenByFirewall", "network-rule add", "15 minutes",
            take_back=control("firewall", on=False)),
    revoked("private link only", control("connection"), "ForbiddenByConnection", "privatelink",
            take_back=control("connection", on=False)),
    revoked("403, unknown inner code", refusal(403, "Forbidden", "SomethingNew"), "SomethingNew", OWNER, modes=BOTH),
    revoked("403, no inner code", refusal(403, "Forbidden"), OWNER),
    revoked("403, no body", fault("status", status=403, body=""), OWNER),
    revoked("403, a page", fault("status", status=403, body="<html>"), OWNER),
    Row("firewall = unreachable", control("firewall"), UNREACHABLE, ("ForbiddenByFirewall", "network-rule add"),
        take_back=control("firewall", on=False), azure={"firewall": "unreachable"}, modes=BOTH),
    Row("private link only, firewall = unreachable", control("connection"), UNREACHABLE, ("ForbiddenByConnection",),
        take_back=control("connection", on=False), azure={"firewall": "unreachable"}),
]  # fmt: skip

# --- the end of a key ----------------------------------------------------------------------------


def fails_meanwhile(scene, code, *words):
    """`turnkeyfs key ...` must end so; its message names the key."""
    said = azure_volume.fails(code, "key", words[0], "-c", scene.volume.conf, *words[1:])
    assert scene.vault.key in said, said
    return said


def purging_is_refused(scene):
    wait_for(lambda: scene.vault.get("/deletedkeys/kek").status == 200, 10, "the deletion")
    refused = scene.vault.request("DELETE", "/deletedkeys/kek")
    assert refused.status == 403 and "purge protection" in refused.json["error"]["message"]
    said = fails_meanwhile(scene, 2, "create")
    assert "ObjectIsDeletedButRecoverable" in said and "recover" in said, said
    assert scene.state() == "revoked"


def recover_by_us(scene):
    """Right after the deletion, so that the vault first says that it is too early."""
    turnkeyfs("key", "recover", "-c", scene.volume.conf)


def create_too_early(scene):
    assert "ObjectIsBeingDeleted" in fails_meanwhile(scene, 2, "create")


def delete_slowly(scene):
    delete(scene)
    create_too_early(scene)


def create_too_early_after_recovery(scene):
    start_recovery(scene)
    assert "ObjectIsBeingRecovered" in fails_meanwhile(scene, 2, "create")


def back_up_and_purge(scene):
    scene.backup = scene.vault.ok("POST", "/keys/kek/backup", {})
    delete(scene)
    wait_for(lambda: scene.vault.get("/deletedkeys/kek").status == 200, 10, "the deletion")
    assert scene.vault.request("DELETE", "/deletedkeys/kek").status == 204


def restore(scene):
    scene.vault.ok("POST", "/keys/restore", scene.backup)


def nothing_to_recover(scene):
    said = fails_meanwhile(scene, 12, "recover")
    assert "has no deleted key" in said, said


def restore_over_it(scene):
    backup = scene.vault.ok("POST", "/keys/kek/backup", {})
    refused = scene.vault.post("/keys/restore", backup)
    assert (refused.status, refused.error[0]) == (409, "Conflict")


UNPROTECTED = {"azure": {"require_purge_protection": "no"}, "vault": {"purge_protection": False}}
ENDS = [
    revoked("purge under purge protection; the name is a deleted key's", delete, "KeyNotFound", take_back=recover_by_us,
            check=purging_is_refused),
    revoked("too early after a deletion", delete_slowly, "KeyNotFound", take_back=recover_by_us),
    revoked("too early after a recovery", delete, "KeyNotFound", take_back=create_too_early_after_recovery,
            at_mount=False),
    revoked("purged, and no such deleted key", back_up_and_purge, "KeyNotFound", take_back=restore,
            check=nothing_to_recover, **UNPROTECTED),
    Row("restore over an existing key", restore_over_it, SERVED),
]  # fmt: skip

# --- 403 to a wrap, and dates --------------------------------------------------------------------


def dates(**attributes):
    """Seconds from now."""
    def change(scene):
        scene.patch(attributes={name: int(time.time()) + s for name, s in attributes.items()})
    return change


def in_date(scene):
    dates(exp=2 * HOUR, nbf=-2 * HOUR)(scene)


def known(give):
    """Only after the client knows the version, so that it has to hear it from the vault."""
    def wait_and_give(scene):
        if scene.volume.daemon:
            write_file(scene.volume.mnt / "earlier", b"x")
        give(scene)
    return wait_and_give


def creating_gives(number, *says):
    def check(scene):
        mark = len(scene.volume.log())
        found = answer(lambda: os.close(os.open(scene.volume.mnt / "made", os.O_CREAT | os.O_WRONLY)))
        assert found == number, found
        assert not (scene.volume.mnt / "made").exists()
        scene.check_message(scene.volume.log()[mark:])
        for piece in says:
            assert piece in scene.volume.log()[mark:]
        assert scene.state() == "active"
    return check


def wraps_nothing(what, give, number, *says, **more):
    """Files are read; none is made."""
    return Row(what, give, SERVED, check=creating_gives(number, *says), modes=KMS, azure={"wrap": "service"}, **more)


EXPIRED = azure_scene.Outcome(
    (azure_scene.Phase("expired", errno.EKEYEXPIRED, errno.EKEYEXPIRED, errno.EKEYEXPIRED),),
    13,
    "error: {}: locked, the key is expired: ",
)
DATES = [
    wraps_nothing("wrap with an expired key", known(dates(exp=-HOUR)), errno.EKEYEXPIRED, "KeyExpired", "az keyvault key rotate",
                  take_back=in_date),
    wraps_nothing("wrap with a key that is not yet valid", known(dates(nbf=HOUR)), errno.EKEYEXPIRED,
                  "KeyNotYetValid", take_back=in_date),
    wraps_nothing("wrapKey not in key_ops", patch(key_ops=["unwrapKey"]), errno.EKEYREVOKED, "KeyOperationForbidden",
                  "--ops wrapKey unwrapKey", take_back=patch(key_ops=["wrapKey", "unwrapKey"])),
    Row("expired", dates(exp=-HOUR), SERVED, take_back=in_date, modes=BOTH),
    Row("not yet valid", dates(nbf=HOUR), SERVED, take_back=in_date),
    Row("expired, key_expiry = revoke", dates(exp=-HOUR), EXPIRED, ("has expired", "az keyvault key rotate"),
        take_back=in_date, kms={"key_expiry": "revoke"}, modes=BOTH),
    Row("not yet valid, key_expiry = revoke", dates(nbf=HOUR), EXPIRED, ("not valid yet",),
        take_back=in_date, kms={"key_expiry": "revoke"}),
]  # fmt: skip

# --- 400 -----------------------------------------------------------------------------------------


def file_wrap(scene, name):
    """The wrapped DEK in a file's record (docs/format.md), as it is sent to the vault."""
    below = turnkeyfs("path", scene.volume.mnt / name).stdout.rstrip("\n")
    record = os.getxattr(below, mountpoint.KEY_RECORD)
    return b64url(record[6 : 6 + int.from_bytes(record[4:6], "big")])


def one_file_is_bad(scene):
    # Given twice: the second time to a mount that begins, where no path can be asked for.
    if os.path.ismount(scene.volume.mnt):
        scene.bad = file_wrap(scene, "spare")
    scene.fault("status", status=400, code="BadParameter", message="Property value has invalid value",
                operation="unwrapKey", value=scene.bad)  # fmt: skip


def only_that_file_fails(scene):
    mark = len(scene.volume.log())
    for _ in range(2):
        assert answer(read_file, scene.volume.mnt / "spare") == errno.EIO
    scene.check_message(scene.volume.log()[mark:])
    time.sleep(1.5)  # two probes
    assert scene.state() == "active"
    scene.check_content()
    write_file(scene.volume.mnt / "made", b"made")
    assert answer(read_file, scene.volume.mnt / "spare") == errno.EIO


def that_file_is_back(scene):
    scene.emulator.control("clear_faults", vault=scene.vault.name)
    if scene.volume.daemon:
        assert read_file(scene.volume.mnt / "spare") == azure_scene.CONTENT


BAD = ("HTTP 400 BadParameter", "does not open a wrapped key", "restore it from a backup")
REQUESTS = [
    Row("400 to one file's key", one_file_is_bad, SERVED, BAD, modes=KMS, check=only_that_file_fails,
        take_back=that_file_is_back),
    Row("400 to everything", refusal(400, "BadParameter", operation="unwrapKey"), DAMAGED, BAD, modes=BOTH),
]  # fmt: skip

# --- no answer -----------------------------------------------------------------------------------


def trouble(what, give, *says, **more):
    return Row(what, give, more.pop("outcome", UNREACHABLE), says, **more)


def throttle(**more):
    return lambda scene: scene.fault("throttle", **more)


def connection_refused(scene):
    scene.relay.refuse()


def connection_back(scene):
    scene.relay.listen()


def stall(scene):
    scene.relay.stalled = True


def go_on(scene):
    scene.relay.stalled = False
    scene.relay.hang_up()


def wrong_certificate(kind):
    def lead_astray(scene):
        scene.relay.target = scene.emulator.impostors[kind].port
        scene.relay.hang_up()
    return lead_astray


def right_certificate(scene):
    scene.relay.target = scene.emulator.ready["port"]
    scene.relay.hang_up()


RIGHT = {"take_back": right_certificate, "relayed": True}
SAYS_CERTIFICATE = ("no answer from the key vault", "certificate", "ca_file")
PASSES = "usually passes by itself"
ABSENCE = [
    trouble("429", throttle(), "HTTP 429 Throttled", "asked too often", outcome=OUTAGE, modes=BOTH),
    trouble("429, Retry-After 1", throttle(retry_after=1), "HTTP 429 Throttled", "asked too often"),
    trouble("429, Retry-After beyond any deadline", throttle(retry_after=4), "HTTP 429", "asked too often"),
    *(trouble(f"{status}", refusal(status, "InternalServerError"), f"HTTP {status}", PASSES)
      for status in (408, 500, 502, 503, 504)),
    trouble("503, to the end of the grace", refusal(503, "ServiceUnavailable"), "HTTP 503", PASSES, outcome=OUTAGE,
            modes=BOTH),
    trouble("an answer that no vault gives", fault("status", status=418, body="teapot"), "HTTP 418", "proxy"),
    trouble("a redirect", fault("redirect", status=302), "HTTP 302", "proxy"),
    trouble("a page instead of JSON", fault("body", body="<html>"), "can't be right"),
    trouble("deep JSON", fault("json", hostile="deep"), "can't be right"),
    trouble("half an answer", fault("half"), "no answer from the key vault"),
    trouble("connection cut", fault("drop", unauthenticated=True), "no answer from the key vault"),
    trouble("connection reset", fault("reset", unauthenticated=True), "no answer from the key vault"),
    trouble("connection refused", connection_refused, "no answer from the key vault", "route, proxy and firewall",
            relayed=True, take_back=connection_back, outcome=OUTAGE, modes=BOTH),
    trouble("timeout", stall, "no answer from the key vault", "too slow", relayed=True, take_back=go_on, modes=BOTH,
            azure={"request_timeout": 1}, outcome=OUTAGE),
    trouble("TLS, another authority", wrong_certificate("other_ca"), *SAYS_CERTIFICATE, **RIGHT, modes=BOTH),
    trouble("TLS, another name", wrong_certificate("wrong_name"), *SAYS_CERTIFICATE, **RIGHT),
    trouble("TLS, expired", wrong_certificate("expired"), *SAYS_CERTIFICATE, **RIGHT),
]  # fmt: skip

# --- 200, and new versions -----------------------------------------------------------------------


def nothing(scene):
    scene.before = probes(scene)


def probes(scene):
    counted = scene.emulator.counters()["by_version"]
    found = {}
    for name, count in counted.items():
        vault, _, version, operation = name.split("/")
        if vault == scene.vault.name and operation == "unwrapKey":
            found[version] = count
    return found


def every_version_is_confirmed(scene):
    """By an unwrap of each version in use, several times per window."""
    old = key_version(scene.vault)
    scene.vault.ok("POST", "/keys/kek/rotate", {})
    new = key_version(scene.vault)
    before = probes(scene)
    began = time.monotonic()
    for _ in range(6):
        time.sleep(1)
        daemon = scene.daemon()
        assert daemon["state"] == "active", daemon
        assert daemon["lease"]["confirmed_ago_s"] <= azure_scene.SECTION["revocation_window"], daemon
        assert daemon["lease"]["trouble"] == ""
    after = probes(scene)
    assert new not in after, "no rotation was asked for"
    assert 6 <= after[old] - before.get(old, 0) <= 3.5 * (time.monotonic() - began)


def unusable_version(**attributes):
    def make(scene):
        scene.old = key_version(scene.vault)
        scene.vault.create("kek", attributes=attributes)
    return make


def not_yet_valid_version(scene):
    unusable_version(nbf=int(time.time()) + HOUR)(scene)


def goes_on_with_the_last_good_one(*says):
    def check(scene):
        wait_for(lambda: all(piece in scene.said() for piece in says), 10, "the log line")
        daemon = scene.daemon()
        assert daemon["state"] == "active"
        for piece in says:
            assert piece in daemon["lease"]["version_trouble"], daemon
            assert piece in turnkeyfs("status", scene.volume.mnt).stdout
        write_file(scene.volume.mnt / "made", b"made")
        assert azure_volume.kek_states(scene.volume) == {1: "active"}
    return check


def use_it(scene):
    """The owner makes the new version usable: it is taken up."""
    scene.patch(attributes={"enabled": True, "nbf": int(time.time()) - HOUR})
    wanted = {1: "retired", 2: "active"}
    wait_for(lambda: azure_volume.kek_states(scene.volume) == wanted, 20, "the rotation")
    assert scene.daemon()["lease"]["version_trouble"] == ""


def rotate_elsewhere(scene):
    scene.old = key_version(scene.vault)
    scene.vault.ok("POST", "/keys/kek/rotate", {})


def is_taken_up(scene):
    """Wrapped, unwrapped, then used; and the old one is not needed any more."""
    wanted = {1: "retired", 2: "active"}
    wait_for(lambda: azure_volume.kek_states(scene.volume) == wanted, 20, "the rotation")
    unneeded = scene.volume.status(scene.volume.cipher)["no_longer_needed"]
    assert [root["version"] for root in unneeded] == [scene.old]
    scene.vault.set_enabled("kek", False, scene.old)
    time.sleep(1.5)
    assert scene.state() == "active"
    scene.check_content()


QUICK = {"rotation_window": 2}
VERSIONS = [
    Row("200", nothing, SERVED, check=every_version_is_confirmed, at_mount=False, modes=BOTH),
    Row("a new version", rotate_elsewhere, SERVED, check=is_taken_up, kms=QUICK, at_mount=False, modes=BOTH),
    Row("a new version that is disabled", unusable_version(enabled=False), SERVED,
        check=goes_on_with_the_last_good_one("is disabled", "--enabled true"), take_back=use_it, kms=QUICK,
        at_mount=False, modes=BOTH),
    Row("a new version that is not yet valid, key_expiry = revoke", not_yet_valid_version, SERVED,
        check=goes_on_with_the_last_good_one("not valid yet"), take_back=use_it, kms=QUICK | {"key_expiry": "revoke"},
        at_mount=False),
    Row("a new version that is not yet valid", not_yet_valid_version, SERVED,
        check=goes_on_with_the_last_good_one("not valid yet"), take_back=use_it, kms=QUICK, at_mount=False),
]  # fmt: skip

# --- the play ------------------------------------------------------------------------------------

ROWS = [*TOKENS, *IDENTITIES, *DECISIONS, *ENDS, *DATES, *REQUESTS, *ABSENCE, *VERSIONS]
PLAYS = [
    pytest.param(row, mode, id=f"{row.what}-{mode}") for row in ROWS for mode in row.modes
]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    """One for all rows; beside it somebody with each of the wrong certificates."""
    found = Emulator(tmp_path_factory.mktemp("emulator"), "--set", f"delete_delay={SLOWLY}",
                     "--set", f"recover_delay={SLOWLY}").start()
    audiences = [f"https://{suffix}" for suffix in (found.vault_suffix, found.hsm_suffix)]
    found.tokens = {audience: found.access_token(audience) for audience in audiences}
    certificates = Certificates(State(found.directory), ("*.vault.localhost",))
    found.impostors = {}
    for kind in ("other_ca", "wrong_name", "expired"):
        certificates.use(kind)
        found.impostors[kind] = Impostor(certificates.context())
    yield found
    for impostor in found.impostors.values():
        impostor.close()
    broken = found.counters()["internal_errors"]
    assert found.stop() == 0
    assert not broken, broken[0]


def play(*words):
    return Scene(*words).play()


@pytest.fixture(scope="module")
def plays(request, emulator, tmp_path_factory):
    """{(what, mode): the play, begun} of every row that was asked for."""
    patch = pytest.MonkeyPatch()
    azure_volume.scrub_environment(patch)
    patch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", emulator.identity)
    directory = tmp_path_factory.mktemp("scenes")
    wanted = [
        (item.callspec.params["row"], item.callspec.params["mode"])
        for item in request.session.items
        if item.module is request.module and "row" in getattr(item, "callspec", item).params
    ]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (row.what, mode): pool.submit(play, emulator, directory / f"{number}-{mode}", row, mode)
            for number, (row, mode) in enumerate(wanted)
        }
        pool.shutdown(cancel_futures=True)
    patch.undo()


@pytest.mark.parametrize("row, mode", PLAYS)
def test_an_answer_and_what_it_does(plays, row, mode):
    print({what: round(s, 2) for what, s in plays[row.what, mode].result().items()})
