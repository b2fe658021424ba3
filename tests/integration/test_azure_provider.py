# SPDX-License-Identifier: Apache-2.0
"""
The azure provider against the emulator: every credential, every answer of Key Vault and what it
is taken for, and that no trouble of the network or of a hostile server makes it hang, crash or
send a token elsewhere.
"""

import concurrent.futures
import datetime
import os
import pathlib
import socket
import socketserver
import stat
import threading

import kms_tool
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from emulator_client import wait_until
from turnkeyfs_emulator.encoding import b64url, unb64url
from turnkeyfs_emulator.faults import HOSTILE

pytest_plugins = ["emulator_fixture"]

DEK = bytes(range(32))
HOUR = 3600
DEADLINE_MS = 3000
IN_TIME = 8  # seconds, for a deadline of three and a machine that is busy

needs_program = pytest.mark.skipif(not kms_tool.program(), reason="no tk_kms_tool: build with TK_TESTS")
pytestmark = needs_program


def options_for(emulator, vault, name="kek", **more):
    return {
        "key": f"{vault.url}/keys/{name}",
        "ca_file": emulator.ca,
        "authority": emulator.authority,
        "audience": vault.audience,
        "deadline_ms": DEADLINE_MS,
    } | more


@pytest.fixture
def secret_file(emulator, tmp_path):
    path = tmp_path / "secret"
    path.write_text(emulator.client_secret)
    return path


@pytest.fixture
def start(emulator, vault, secret_file):
    """A function that starts the program, by the client's secret unless told otherwise."""
    started = []

    def run(vault=vault, env=None, prefix=(), **options):
        options = options_for(emulator, vault) | {"auth": "client-secret"} | options
        if options["auth"] == "client-secret":
            options = {"client_id": emulator.client_id, "secret_file": secret_file} | options
        tool = kms_tool.KmsTool({k: v for k, v in options.items() if v is not None}, env, prefix)
        started.append(tool)
        return tool

    yield run
    try:
        for tool in started:
            tool.close()
    finally:
        for tool in started:
            tool.kill()


@pytest.fixture
def kek(emulator, vault):
    """The vault, protected against purging, with a key `kek`."""
    emulator.vault(vault.name, purge_protection=True)
    vault.create("kek")
    return vault


@pytest.fixture
def tool(kek, start):
    return start()


# --- wrapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local", "service"])
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_what_is_wrapped_unwraps_here_and_there(emulator, kek, start, bits, place):
    kek.create("sized", key_size=bits)
    tool = start(key=f"{kek.url}/keys/sized", wrap=place)
    wrapped = tool.wrap(DEK)
    assert (wrapped.algorithm, len(wrapped.blob)) == ("RSA-OAEP-256", bits // 4)
    assert wrapped.key == f"{kek.url}/keys/sized"
    assert emulator.count("wrapKey") == (place == "service")
    assert tool.unwrap(wrapped) == DEK
    body = {"alg": wrapped.algorithm, "value": b64url(bytes.fromhex(wrapped.blob))}
    answer = kek.ok("POST", f"/keys/sized/{wrapped.version}/unwrapkey", body)
    assert unb64url(answer["value"]) == DEK
    body = {"alg": "RSA-OAEP-256", "value": b64url(DEK)}
    foreign = kek.ok("POST", f"/keys/sized/{wrapped.version}/wrapkey", body)
    wrapped.blob = unb64url(foreign["value"]).hex()
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("kty, algorithm, length", [("RSA-HSM", "RSA-OAEP-256", 256), ("oct-HSM", "A256KW", 40)])
def test_a_managed_hsm_wraps(emulator, start, kty, algorithm, length):
    hsm = emulator.vault(hsm=True, purge_protection=True)
    hsm.create("kek", kty=kty)
    tool = start(vault=hsm)
    wrapped = tool.wrap(DEK)
    assert (wrapped.algorithm, len(wrapped.blob)) == (algorithm, 2 * length)
    assert tool.unwrap(wrapped) == DEK


def test_an_elliptic_key_is_refused(kek, start):
    kek.create("ec", kty="EC", crv="P-256")
    assert "can't wrap" in start(key=f"{kek.url}/keys/ec").fails("EOPNOTSUPP", "current")


def test_a_new_version_is_current_and_the_old_one_still_unwraps(kek, tool):
    old = tool.wrap(DEK)
    kek.ok("POST", "/keys/kek/rotate")
    new = tool.wrap(DEK)
    assert new.version != old.version
    assert tool.unwrap(old) == tool.unwrap(new) == DEK


def test_a_pinned_version_stays(kek, start):
    old = kek.ok("GET", "/keys/kek")["key"]["kid"]
    kek.ok("POST", "/keys/kek/rotate")
    assert start(key=old).ok("current")["version"] == old.rsplit("/", 1)[1]


def test_one_token_and_one_connection_serve_many_calls(emulator, tool):
    emulator.control("counters", reset=True)
    wrapped = tool.wrap(DEK)
    for _ in range(20):
        tool.unwrap(wrapped)
    counters = emulator.counters()
    assert sum(counters["authority"].values()) == 1
    assert counters["opened_connections"]["vault"] == 1
    assert emulator.count("unwrapKey") == 20


def test_many_threads_share_a_token(emulator, kek, start):
    wrapped = start().wrap(DEK)
    emulator.control("counters", reset=True)
    # 50 handshakes at once are much for an emulator that has a busy machine's CPU to share.
    patient = start(connect_ms=30000, request_ms=50000, deadline_ms=55000)
    answer = patient.do("parallel", "50", "unwrap", *wrapped.words())
    assert answer["results"] == [0] * 50
    assert sum(emulator.counters()["authority"].values()) == 1


def test_nothing_is_sent_for_the_key_of_another_vault(emulator, kek, start):
    other = emulator.vault(purge_protection=True)
    other.create("kek")
    foreign = start(vault=other).wrap(DEK)
    tool = start()
    tool.wrap(DEK)
    emulator.control("counters", reset=True)
    assert "configured root key" in tool.fails("ENOENT", "unwrap", *foreign.words())
    foreign.key = f"{kek.url}/keys/other"
    tool.fails("ENOENT", "unwrap", *foreign.words())
    assert emulator.counters()["total"] == 0


# --- identities ----------------------------------------------------------------------------------


def works(tool):
    assert tool.opened["r"] == 0, tool.opened
    assert tool.unwrap(tool.wrap(DEK)) == DEK


def test_the_client_secret(tool):
    works(tool)


def test_the_client_certificate(emulator, kek, start):
    works(start(auth="client-certificate", client_id=emulator.client_id, certificate=emulator.client_certificate))


def test_an_encrypted_client_certificate(emulator, kek, start, tmp_path):
    pem = pathlib.Path(emulator.client_certificate).read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    certificate = x509.load_pem_x509_certificate(pem)
    sealed = tmp_path / "sealed.pem"
    sealed.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    password = tmp_path / "password"
    password.write_text("open sesame")
    by = {"auth": "client-certificate", "client_id": emulator.client_id, "certificate": sealed}
    works(start(certificate_password_file=password, **by))
    assert "password" in start(**by).fails("EACCES", "current")


def test_a_certificate_that_the_application_does_not_have(emulator, kek, start, tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    tool = start(auth="client-certificate", client_id=emulator.client_id, certificate=stranger)
    assert "--cert @" in tool.fails("EACCES", "current")


def test_the_federated_token_is_read_anew(emulator, kek, start, tmp_path):
    path = tmp_path / "federated"
    path.write_text(emulator.control("federated_token")["token"])
    tool = start(auth="workload-identity", client_id=emulator.client_id, token_file=path)
    works(tool)
    path.write_text("not a token")
    emulator.control("signing_key")  # the access token is worth nothing now
    tool.fails("EACCES", "current")
    path.write_text(emulator.control("federated_token")["token"] + "\n")
    works(tool)


def test_the_metadata_service(emulator, kek, start):
    works(start(auth="managed-identity", env={"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}))


def test_a_user_assigned_identity(emulator, kek, start):
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}
    appid = next(i["appid"] for i in emulator.identities if not i["system"])
    works(start(auth="managed-identity", client_id=appid, env=env))
    unknown = start(auth="managed-identity", client_id="00000000-0000-0000-0000-000000000000", env=env)
    assert "az vm identity assign" in unknown.fails("EACCES", "current")


def test_app_service(emulator, kek, start):
    works(start(auth="managed-identity", env=emulator.app_service))


@pytest.fixture
def arc_tokens():
    """The agent's directory, which is a fixed path."""
    directory = pathlib.Path("/var/opt/azcmagent/tokens")
    if directory.parent.exists():
        pytest.skip("an agent of Azure Arc is installed here")
    directory.mkdir(parents=True)
    yield directory
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.parent.rmdir()


def test_azure_arc(make_emulator, start, arc_tokens):
    emulator = make_emulator("--arc-tokens", str(arc_tokens))
    vault = emulator.vault(purge_protection=True)
    vault.create("kek")
    by = {"vault": vault, "ca_file": emulator.ca, "authority": emulator.authority}
    works(start(auth="managed-identity", env=emulator.arc, **by))
    assert emulator.counters()["identity"] == {"401": 1, "200": 1}


def test_an_arc_agent_that_names_another_file(emulator, kek, start):
    """The emulator's own directory is not the agent's."""
    tool = start(auth="managed-identity", env=emulator.arc)
    assert "azcmagent" in tool.fails("ENOKEY", "current")


def az_program(directory, script):
    directory.mkdir()
    program = directory / "az"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def test_the_azure_cli_gets_no_secret_and_no_shell(emulator, kek, start, tmp_path):
    token = emulator.access_token(kek.audience)
    env = az_program(
        tmp_path / "bin",
        f"""#!/bin/sh
env >{tmp_path}/env
printf '%s\\n' "$@" >{tmp_path}/arguments
ls -l /proc/self/fd >{tmp_path}/fds
printf '{{"accessToken":"%s","expires_on":%s,"tokenType":"Bearer"}}' {token} $(($(date +%s) + 3000))
""",
    )
    env["SOME_SECRET"] = "hunter2"
    env["AZURE_CLIENT_SECRET"] = "hunter3"
    works(start(auth="azure-cli", tenant_id=emulator.tenant, env=env))
    assert "hunter" not in (tmp_path / "env").read_text()
    assert (tmp_path / "arguments").read_text().split("\n")[:-1] == [
        "account", "get-access-token", "--output", "json", "--resource", kek.audience,
        "--tenant", emulator.tenant,
    ]  # fmt: skip
    assert "socket" not in (tmp_path / "fds").read_text()


@pytest.mark.parametrize(
    "script, errno_name, says",
    [
        ("#!/bin/sh\necho 'Please run az login' >&2\nexit 1\n", "EACCES", "az login"),
        ("#!/bin/sh\necho '{'\n", "ENOKEY", "something else than a token"),
        ("#!/bin/sh\nexec sleep 60\n", "ENOKEY", "too long"),
        ("#!/bin/sh\nexec yes\n", "ENOKEY", "can't run"),
    ],
)
def test_a_broken_azure_cli(kek, start, tmp_path, script, errno_name, says):
    tool = start(auth="azure-cli", env=az_program(tmp_path / "bin", script))
    answer = tool.do("current")
    assert (answer["errno"], says in answer["text"]) == (errno_name, True), answer
    assert answer["seconds"] < IN_TIME


def test_no_azure_cli_at_all(kek, start, tmp_path):
    tool = start(auth="azure-cli", env={"PATH": str(tmp_path)})
    assert "not installed" in tool.fails("EACCES", "current")


def test_the_default_takes_the_first_that_is_there(emulator, kek, start, tmp_path):
    imds = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}
    secret = {"AZURE_CLIENT_ID": emulator.client_id, "AZURE_CLIENT_SECRET": emulator.client_secret}
    nothing = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1", "PATH": str(tmp_path)}
    for env, taken in (
        (imds, "managed-identity"),
        (imds | secret, "client-secret"),
        (imds | {"AZURE_TOKEN_CREDENTIALS": "prod"}, "managed-identity"),
    ):
        tool = start(auth="default", env=env)
        works(tool)
        assert f"took {taken}" in tool.close()
    only = imds | secret | {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}
    assert "az vm identity" in start(auth="default", env=only).fails("EACCES", "current")
    text = start(auth="default", env=nothing).fails("EACCES", "current")
    assert "managed-identity: not there" in text and "azure-cli" in text


@pytest.mark.parametrize(
    "change, says",
    [
        ({"secret": "another"}, "az ad app credential reset"),
        ({"secret_expired": True}, "has expired"),
        ({"disabled": True}, "accountEnabled=true"),
        ({"deleted": True}, "no such application"),
    ],
)
def test_an_identity_that_is_lost(emulator, kek, start, change, says):
    tool = start()
    wrapped = tool.wrap(DEK)
    old_secret = emulator.client_secret
    emulator.control("client", **change)
    try:
        assert tool.unwrap(wrapped) == DEK  # the token lives on
        emulator.control("signing_key")
        answer = tool.do("unwrap", *wrapped.words())
        assert (answer["errno"], answer["kind"]) == ("EACCES", 12), answer
        assert says in answer["text"], answer
        assert answer["seconds"] < IN_TIME
    finally:
        emulator.control("client", secret_expired=False, disabled=False, deleted=False, secret=old_secret)
    assert tool.unwrap(wrapped) == DEK


def test_a_machine_without_identity(emulator, kek, start):
    emulator.settings(identity_assigned=False)
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}
    assert "az vm identity assign" in start(auth="managed-identity", env=env).fails("EACCES", "current")


def test_an_unknown_tenant(kek, start):
    tool = start(tenant_id="00000000-0000-0000-0000-000000000001")
    assert "no such tenant" in tool.fails("EACCES", "current")


def test_a_token_of_the_wrong_tenant(emulator, kek, start):
    text = start(tenant_id=emulator.other_tenant).do("current")
    assert text["errno"] == "EACCES", text


def test_a_metadata_service_in_trouble(emulator, kek, start):
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}
    emulator.control("fail", status=503, count=2, target="identity")
    works(start(auth="managed-identity", env=env, deadline_ms=20000))


# --- tokens --------------------------------------------------------------------------------------


def test_a_refused_token_is_renewed_once(emulator, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("signing_key")
    emulator.control("counters", reset=True)
    assert tool.unwrap(wrapped) == DEK
    counters = emulator.counters()
    assert sum(counters["authority"].values()) == 1
    assert counters["by_status"] == {"401": 1, "200": 1}


def test_tokens_that_are_refused_again_and_again(emulator, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("counters", reset=True)
    emulator.control("fail", status=401, count=None, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert (answer["errno"], answer["kind"]) == ("EACCES", 12), answer
    assert emulator.counters()["by_status"] == {"401": 2}
    assert sum(emulator.counters()["authority"].values()) == 1


def test_a_claims_challenge(emulator, kek, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("cae", vault=kek.name)
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("style", ["resource", "scope", "authorization_uri"])
def test_tenant_and_audience_are_learnt_from_the_challenge(emulator, kek, start, style):
    emulator.settings(challenge_style=style)
    works(start(audience=None))


@pytest.mark.parametrize("resource", ["https://evil.example", "https://localhost", "http://vault.localhost", "x"])
def test_a_challenge_for_elsewhere_gets_no_token(emulator, kek, start, resource):
    emulator.settings(challenge_resource=resource)
    tool = start(audience=None)
    emulator.control("counters", reset=True)
    answer = tool.do("current")
    assert answer["errno"] in ("EACCES", "ENOKEY"), answer
    assert not emulator.control("tokens_seen")["tokens"]
    assert not emulator.counters()["authority"]


def test_the_authority_of_a_challenge_is_not_asked(emulator, kek, start):
    with Listener() as listener:
        emulator.settings(challenge_authorization=f"https://127.0.0.1:{listener.port}/{emulator.tenant}")
        works(start(audience=None))
    assert listener.accepted == 0


class Listener(socketserver.ThreadingTCPServer):
    """Counts who comes, and says nothing."""

    daemon_threads = True

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.server.accepted += 1
            self.request.settimeout(2)
            try:
                self.server.heard += self.request.recv(65536)
            except OSError:
                pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.accepted = 0
        self.heard = b""
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["vault", "authority", "identity"])
def test_no_redirect_is_followed(emulator, kek, start, target, status):
    with Listener() as listener:
        location = f"https://127.0.0.1:{listener.port}/"
        emulator.control("fault", kind="redirect", status=status, count=9, target=target, location=location)
        by = {"auth": "client-secret"}
        if target == "identity":
            by = {"auth": "managed-identity", "env": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}}
        answer = start(**by).do("current")
    assert answer["errno"] == "ENOKEY", answer
    assert (listener.accepted, listener.heard) == (0, b"")


def test_the_metadata_service_is_never_asked_through_a_proxy(emulator, kek, start):
    with Listener() as proxy:
        env = {
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity,
            "http_proxy": f"http://127.0.0.1:{proxy.port}",
            "all_proxy": f"http://127.0.0.1:{proxy.port}",
            "no_proxy": ".localhost",
        }
        works(start(auth="managed-identity", env=env))
    assert proxy.accepted == 0


def test_a_foreign_metadata_service_is_refused(kek, start):
    tool = start(auth="managed-identity", env={"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://192.0.2.1"})
    answer = tool.do("current")
    assert answer["errno"] == "ENOKEY" and answer["seconds"] < 2, answer


# --- what the answers mean -----------------------------------------------------------------------


def revoked(tool, wrapped, *says):
    answer = tool.do("probe", *wrapped.words())
    assert (answer["errno"], answer["kind"]) == ("EKEYREVOKED", 12), answer
    assert "x-ms-request-id" in answer["text"]
    for piece in says:
        assert piece in answer["text"], answer["text"]


def test_a_disabled_version(kek, tool):
    wrapped = tool.wrap(DEK)
    kek.ok("POST", "/keys/kek/rotate")
    other = tool.wrap(DEK)
    kek.set_enabled("kek", False, wrapped.version)
    revoked(tool, wrapped, "is disabled", f"--id {wrapped.key}/{wrapped.version} --enabled true")
    assert tool.unwrap(other) == DEK
    kek.set_enabled("kek", True, wrapped.version)
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("get_disabled", [200, 403])
def test_a_disabled_newest_version_is_not_current(emulator, kek, tool, get_disabled):
    emulator.settings(get_disabled=get_disabled)
    kek.set_enabled("kek", False)
    assert "--enabled true" in tool.fails("EKEYREVOKED", "current")


@pytest.mark.parametrize("place", ["local", "service"])
def test_nothing_is_wrapped_by_a_disabled_version(emulator, kek, start, place):
    emulator.settings(public_key_disabled=200)
    version = kek.ok("GET", "/keys/kek")["key"]["kid"].rsplit("/", 1)[1]
    kek.set_enabled("kek", False)
    start(wrap=place).fails("EKEYREVOKED", "wrap", version, DEK.hex())


def test_a_deleted_key_and_its_recovery(kek, tool):
    wrapped = tool.wrap(DEK)
    tool.ok("delete")
    revoked(tool, wrapped, "is not in the vault", "az keyvault key recover", "--name kek")
    tool.fails("EKEYREVOKED", "current")
    tool.ok("recover")
    assert tool.unwrap(wrapped) == DEK


def test_an_unknown_key(kek, start):
    tool = start(key=f"{kek.url}/keys/nobody")
    assert "never there" in tool.fails("EKEYREVOKED", "current")


def test_an_identity_without_a_role(emulator, kek, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("revoke", vault=kek.name, permissions=["unwrapKey"])
    revoked(tool, wrapped, '"Key Vault Crypto Service Encryption User"', f"--name {kek.name}")
    emulator.control("grant", vault=kek.name, permissions=["unwrapKey"])
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("inner", ["ForbiddenByPolicy", "AccessDenied"])
def test_an_identity_outside_the_access_policy(emulator, kek, tool, inner):
    emulator.settings(policy_inner=inner)
    emulator.vault(kek.name, rbac=False)
    wrapped = tool.wrap(DEK)
    emulator.control("revoke", vault=kek.name, permissions=["unwrapKey"])
    revoked(tool, wrapped, "az keyvault set-policy", "unwrapKey")


def test_an_identity_without_a_role_in_a_managed_hsm(emulator, start):
    hsm = emulator.vault(hsm=True, purge_protection=True)
    hsm.create("kek")
    tool = start(vault=hsm)
    wrapped = tool.wrap(DEK)
    emulator.control("revoke", vault=hsm.name)
    revoked(tool, wrapped, "Managed HSM Crypto Service Encryption User", "--scope /keys/kek")


def test_the_role_that_is_asked_for_is_enough(emulator, kek, start):
    emulator.control("revoke", vault=kek.name)
    emulator.control("grant", vault=kek.name, role="Crypto Service Encryption User")
    for place in ("local", "service"):
        works(start(wrap=place))


def test_a_key_that_may_not_unwrap(kek, tool):
    wrapped = tool.wrap(DEK)
    kek.ok("PATCH", f"/keys/kek/{wrapped.version}", {"key_ops": ["wrapKey"]})
    revoked(tool, wrapped, "--ops wrapKey unwrapKey")


@pytest.mark.parametrize("kind, says", [("firewall", "network-rule add"), ("connection", "privatelink")])
def test_the_owners_network_rules(emulator, kek, start, kind, says):
    tool, lenient = start(), start(firewall_is_outage="yes")
    wrapped = tool.wrap(DEK)
    emulator.control(kind, vault=kek.name)
    revoked(tool, wrapped, says)
    assert says in lenient.fails("ENOKEY", "probe", *wrapped.words())
    emulator.control(kind, on=False, vault=kek.name)
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("body", ['{"error":{"code":"Forbidden","innererror":{"code":"New"}}}', "", "<html>"])
def test_an_unknown_refusal_fails_closed(emulator, tool, body):
    wrapped = tool.wrap(DEK)
    emulator.control("fail", status=403, body=body, operation="unwrapKey")
    emulator.control("fault", kind="status", status=403, body=body, operation="unwrapKey")
    revoked(tool, wrapped)


@pytest.mark.parametrize("where", [(0, 1), (100, 1), (511, 1)])
def test_a_damaged_wrap_is_no_revocation(emulator, tool, where):
    wrapped = tool.wrap(DEK)
    at = where[0] % len(wrapped.blob)
    wrapped.blob = wrapped.blob[:at] + f"{int(wrapped.blob[at], 16) ^ where[1]:x}" + wrapped.blob[at + 1 :]
    answer = tool.do("unwrap", *wrapped.words())
    assert (answer["errno"], answer["kind"]) == ("EBADMSG", 5), answer


def test_a_wrap_by_another_version_is_no_revocation(kek, tool):
    wrapped = tool.wrap(DEK)
    kek.ok("POST", "/keys/kek/rotate")
    wrapped.version = tool.ok("current")["version"]
    tool.fails("EBADMSG", "unwrap", *wrapped.words())


@pytest.mark.parametrize("attribute, offset", [("exp", -2 * HOUR), ("nbf", 2 * HOUR)])
@pytest.mark.parametrize("place", ["local", "service"])
def test_outside_its_dates_a_key_unwraps_but_wraps_nothing(kek, start, attribute, offset, place):
    tool = start(wrap=place)
    wrapped = tool.wrap(DEK)
    date = int(datetime.datetime.now().timestamp()) + offset
    kek.ok("PATCH", f"/keys/kek/{wrapped.version}", {"attributes": {attribute: date}})
    assert tool.unwrap(wrapped) == DEK
    answer = tool.do("current")
    assert (answer["errno"], answer["kind"]) == ("EKEYEXPIRED", 13), answer
    tool = start(wrap=place)
    tool.fails("EKEYEXPIRED", "wrap", wrapped.version, DEK.hex())


@pytest.mark.parametrize("inner", ["KeyExpired", None])
def test_an_expired_key_that_only_the_service_knows_of(emulator, kek, start, inner):
    emulator.settings(expired_inner=inner)
    tool = start(wrap="service")
    version = tool.wrap(DEK).version  # the description is fresh for a minute from now on
    date = int(datetime.datetime.now().timestamp()) - 2 * HOUR
    kek.ok("PATCH", f"/keys/kek/{version}", {"attributes": {"exp": date}})
    tool.fails("EKEYEXPIRED" if inner else "EKEYREVOKED", "wrap", version, DEK.hex())


def test_purge_protection_is_demanded(emulator, start):
    vault = emulator.vault()
    vault.create("kek")
    assert "--enable-purge-protection true" in start(vault=vault).fails("EPERM", "current")
    works(start(vault=vault, allow_purge="yes"))


# --- trouble -------------------------------------------------------------------------------------


def test_throttling_is_waited_for(emulator, kek, start):
    tool = start(deadline_ms=20000)
    wrapped = tool.wrap(DEK)
    emulator.control("counters", reset=True)
    emulator.control("throttle", count=2, retryAfter=1, operation="unwrapKey")
    assert 2 <= tool.ok("unwrap", *wrapped.words())["seconds"] < 6
    assert emulator.counters()["by_status"] == {"429": 2, "200": 1}
    emulator.control("throttle", count=2, operation="unwrapKey")
    tool.unwrap(wrapped)


def test_one_throttled_thread_slows_all(emulator, kek, start):
    tool = start(deadline_ms=20000)
    wrapped = tool.wrap(DEK)
    emulator.control("counters", reset=True)
    emulator.control("throttle", count=3, retryAfter=2, operation="unwrapKey")
    answer = tool.do("parallel", "10", "unwrap", *wrapped.words())
    assert answer["results"] == [0] * 10
    assert emulator.counters()["by_status"]["429"] == 3


def test_throttling_beyond_the_deadline(emulator, kek, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("throttle", count=1, retryAfter=600, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert (answer["errno"], answer["kind"]) == ("ENOKEY", 11), answer
    assert answer["seconds"] < IN_TIME


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_that_passes(emulator, tool, status):
    wrapped = tool.wrap(DEK)
    emulator.control("fail", status=status, count=1, operation="unwrapKey")
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("status", [408, 429, 500, 501, 503, 418, 451])
def test_trouble_that_stays(emulator, tool, status):
    wrapped = tool.wrap(DEK)
    emulator.control("fail", status=status, count=None, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert (answer["errno"], answer["kind"]) == ("ENOKEY", 11), answer
    assert answer["seconds"] < IN_TIME


@pytest.mark.parametrize("kind", ["drop", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_connections(emulator, tool, kind, when):
    wrapped = tool.wrap(DEK)
    emulator.control("fault", kind=kind, when=when, count=2, operation="unwrapKey")
    assert tool.unwrap(wrapped) == DEK
    emulator.control("fault", kind=kind, when=when, count=None, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert answer["errno"] == "ENOKEY" and answer["seconds"] < IN_TIME, answer


@pytest.mark.parametrize("status", [200, 403, 404])
def test_half_an_answer_is_none(emulator, kek, tool, status):
    """Above all no refusal: somebody who can cut connections must not look like the owner."""
    wrapped = tool.wrap(DEK)
    if status == 403:
        kek.set_enabled("kek", False)
    if status == 404:
        wrapped.version = "0" * 32
    emulator.control("fault", kind="half", count=None, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert answer["errno"] == "ENOKEY" and answer["seconds"] < IN_TIME, answer


@pytest.mark.parametrize("target", ["vault", "authority", "identity"])
def test_slow_servers(emulator, kek, start, target):
    emulator.control("fault", kind="slow", ms=6000, count=1, target=target)
    by = {"request_ms": 1000, "deadline_ms": 2500}
    if target == "identity":
        by |= {"auth": "managed-identity", "env": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}}
    answer = start(**by).do("current")
    assert answer["seconds"] < 4, answer


@pytest.mark.parametrize(
    "target, status", [("vault", 503), ("vault", 429), ("authority", 503), ("identity", 503)]
)
def test_the_last_answer_is_said_if_the_time_runs_out_behind_it(emulator, kek, start, target, status):
    emulator.control("fail", status=status, target=target)
    emulator.control("fault", kind="slow", ms=9000, skip=1, count=None, target=target)
    by = {"deadline_ms": 8000}
    if target == "identity":
        by |= {"auth": "managed-identity", "env": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}}
    says = start(**by).fails("ENOKEY", "current")
    assert f"HTTP {status} " in says and "asked again" in says, says


def test_a_server_that_dribbles(emulator, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("fault", kind="trickle", ms=300, count=None, operation="unwrapKey")
    answer = tool.do("unwrap", *wrapped.words())
    assert answer["errno"] == "ENOKEY" and answer["seconds"] < IN_TIME, answer


def test_chunked_answers_and_wrong_content_types(emulator, tool):
    wrapped = tool.wrap(DEK)
    emulator.control("fault", kind="chunked", operation="unwrapKey")
    assert tool.unwrap(wrapped) == DEK
    emulator.control("fault", kind="content_type", operation="unwrapKey")
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("hostile", sorted(HOSTILE))
@pytest.mark.parametrize("operation", ["unwrapKey", "get"])
def test_hostile_json_from_the_vault(emulator, kek, tool, hostile, operation):
    wrapped = tool.wrap(DEK)
    emulator.control("fault", kind="json", hostile=hostile, count=None, operation=operation, size=200_000)
    answer = tool.do("unwrap", *wrapped.words()) if operation == "unwrapKey" else tool.do("current")
    assert answer["errno"] in ("ENOKEY", ""), answer
    if answer["r"] == 0:
        assert hostile in ("many", "huge", "big_numbers", "huge_value"), answer
        if operation == "unwrapKey":
            assert bytes.fromhex(answer["key"]) == DEK
    assert answer["seconds"] < IN_TIME
    emulator.control("clear_faults")
    assert tool.unwrap(wrapped) == DEK


@pytest.mark.parametrize("hostile", sorted(HOSTILE))
@pytest.mark.parametrize("target", ["authority", "identity"])
def test_hostile_json_from_token_services(emulator, kek, start, hostile, target):
    emulator.control("fault", kind="json", hostile=hostile, count=None, target=target, size=200_000)
    by = {}
    if target == "identity":
        by = {"auth": "managed-identity", "env": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": emulator.identity}}
    tool = start(**by)
    answer = tool.do("current")
    assert answer["errno"] in ("ENOKEY", ""), answer
    assert answer["seconds"] < IN_TIME
    emulator.control("clear_faults")
    works(tool)


@pytest.mark.parametrize("wrong", [{"kid": "https://evil.example/keys/kek/" + "0" * 32}, {"kid": "x"}, {"value": "AA=="}])
def test_an_answer_of_another_key(emulator, tool, wrong):
    wrapped = tool.wrap(DEK)
    emulator.control("fault", kind="patch", set=wrong, operation="unwrapKey")
    assert "can't be right" in tool.fails("ENOKEY", "unwrap", *wrapped.words())


@pytest.mark.parametrize("kind", ["expired", "not_yet_valid", "wrong_name", "other_ca"])
def test_wrong_certificates(emulator, kek, start, kind):
    emulator.control("certificate", kind=kind)
    emulator.control("counters", reset=True)
    answer = start(tenant_id=emulator.tenant).do("current")
    emulator.control("certificate", kind="good")
    assert (answer["errno"], answer["kind"]) == ("ENOKEY", 11), answer
    assert "certificate" in answer["text"]
    assert answer["seconds"] < IN_TIME
    assert emulator.counters()["total"] == 0 and not emulator.control("tokens_seen")["tokens"]


def test_the_systems_authorities_do_not_vouch_for_the_emulator(kek, start):
    assert "ca_file" in start(ca_file=None).fails("ENOKEY", "current")


def test_nobody_there(emulator, start):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"https://gone.{emulator.vault_suffix}:{s.getsockname()[1]}/keys/kek"
        answer = start(key=url).do("current")
    assert (answer["errno"], answer["kind"]) == ("ENOKEY", 11), answer
    assert answer["seconds"] < IN_TIME


def test_a_name_that_does_not_resolve(start):
    tool = start(key="https://gone.vault.invalid/keys/kek", audience="https://vault.invalid")
    answer = tool.do("current")
    assert answer["errno"] == "ENOKEY" and answer["seconds"] < IN_TIME, answer


# --- secrets -------------------------------------------------------------------------------------


def test_no_secret_in_the_log_or_the_memory_of_others(emulator, kek, start, secret_file):
    tool = start(log="debug")
    wrapped = tool.wrap(DEK)
    assert tool.unwrap(wrapped) == DEK
    emulator.control("revoke", vault=kek.name)
    refusal = tool.fails("EKEYREVOKED", "unwrap", *wrapped.words())
    emulator.control("client", secret="another")
    emulator.control("signing_key")
    refusal += tool.fails("EACCES", "unwrap", *wrapped.words())
    token = list(emulator.control("tokens_seen")["tokens"].values())[0].split()[1]
    command = pathlib.Path(f"/proc/{tool.process.pid}/cmdline").read_bytes().decode()
    environment = pathlib.Path(f"/proc/{tool.process.pid}/environ").read_bytes().decode()
    said = tool.close() + refusal + command + environment
    emulator.control("client", secret=secret_file.read_text())
    assert "HTTP 200" in said and "x-ms-request-id" in said
    for secret in (token, secret_file.read_text(), DEK.hex(), b64url(DEK), "Bearer", "eyJ"):
        assert secret not in said, secret


def test_no_keys_of_tls_connections_in_a_file(kek, start, tmp_path):
    works(start(env={"SSLKEYLOGFILE": str(tmp_path / "keys")}))
    assert not (tmp_path / "keys").exists()


# --- administration ------------------------------------------------------------------------------


@pytest.mark.parametrize("hsm", [False, True])
def test_the_life_of_a_key(emulator, start, hsm):
    vault = emulator.vault(hsm=hsm, purge_protection=True)
    tool = start(vault=vault, deadline_ms=20000)
    tool.ok("create", "-", "2048")
    assert "is there already" in tool.fails("EEXIST", "create", "-", "2048")
    first = tool.wrap(DEK)
    tool.ok("policy", "90", "0", "0", "30")
    assert tool.ok("policy")["policy"] == [90, 0, 0, 30]
    second = tool.ok("rotate")["version"]
    versions = tool.ok("list")["versions"]
    assert [v["version"] for v in versions if v["current"]] == [second]
    assert {v["version"] for v in versions} == {first.version, second}
    assert {v["type"] for v in versions} == {"RSA-HSM 2048" if hsm else "RSA 2048"}
    tool.ok("disable", first.version)
    revoked(tool, first)
    tool.ok("enable", first.version)
    assert tool.unwrap(first) == DEK
    tool.ok("delete")
    assert "lies deleted" in tool.fails("EEXIST", "create", "-", "2048")
    tool.ok("recover")
    assert tool.unwrap(first) == DEK
    tool.ok("recover")


def test_a_repeat_does_not_make_a_second_version(emulator, kek, tool):
    """An answer that was lost is an error: sent again it would rotate twice."""
    emulator.control("fault", kind="drop", when="after", count=None, operation="rotate")
    tool.fails("ENOKEY", "rotate")
    emulator.control("clear_faults")
    wait_until(lambda: emulator.count("rotate") == 1)
    assert len(tool.ok("list")["versions"]) == 2


def test_an_imported_key_unwraps_what_its_owner_wrapped(kek, start, tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    pem = tmp_path / "key.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    tool = start(key=f"{kek.url}/keys/mine")
    tool.ok("import", str(pem), "pem")
    wrapped = tool.wrap(DEK)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert key.decrypt(bytes.fromhex(wrapped.blob), oaep) == DEK
    wrapped.blob = key.public_key().encrypt(DEK, oaep).hex()
    assert tool.unwrap(wrapped) == DEK


def test_a_transfer_blob_is_passed_on_as_it_is(emulator, kek, start, tmp_path):
    blob = tmp_path / "key.byok"
    blob.write_bytes(b'{"schema_version":"1.0.0","header":{"kid":"none"},"ciphertext":"AAAA"}')
    tool = start(key=f"{kek.url}/keys/mine")
    answer = tool.do("import", str(blob), "blob")
    assert (answer["errno"], answer["kind"]) == ("EINVAL", 2), answer  # the vault looked into it
    assert "HTTP 400" in answer["text"]


def test_what_is_no_key_is_not_imported(emulator, kek, start, tmp_path):
    text = tmp_path / "text"
    text.write_text("hello")
    start(key=f"{kek.url}/keys/mine").fails("EINVAL", "import", str(text), "pem")
    assert emulator.count("import") == 0


def test_long_lists_in_short_pages(emulator, kek, tool):
    made = {kek.ok("GET", "/keys/kek")["key"]["kid"].rsplit("/", 1)[1]}
    for _ in range(30):
        made.add(kek.ok("POST", "/keys/kek/rotate")["key"]["kid"].rsplit("/", 1)[1])
    for settings in ({}, {"short_pages": True, "next_link_end": "null"}, {"next_link_end": "empty"}):
        emulator.settings(**settings)
        versions = tool.ok("list")["versions"]
        assert {v["version"] for v in versions} == made
        assert [v["created"] for v in versions] == sorted(v["created"] for v in versions)
        assert versions[-1]["current"]


@pytest.mark.parametrize("link", ["https://127.0.0.1:{port}/keys", "http://{host}/keys", "https://{host}.evil.example/", "x"])
def test_a_link_to_elsewhere_is_not_followed(emulator, kek, tool, link):
    with Listener() as listener:
        host = kek.url.removeprefix("https://")
        link = link.format(port=listener.port, host=host)
        emulator.control("fault", kind="patch", set={"nextLink": link}, operation="listVersions")
        answer = tool.do("list")
    assert listener.accepted == 0
    assert answer["errno"] == "ENOKEY", answer


def test_many_programs_at_once(emulator, kek, start):
    tools = [start() for _ in range(6)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        wrapped = list(pool.map(lambda tool: tool.wrap(DEK), tools))
    assert all(tools[0].unwrap(w) == DEK for w in wrapped)
