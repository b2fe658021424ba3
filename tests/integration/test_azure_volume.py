# SPDX-License-Identifier: Apache-2.0
"""Volumes whose root key is in Key Vault or Managed HSM: made, mounted, counted, refused."""

import concurrent.futures
import os
import pathlib

import azure_volume
import pytest
from azure_volume import fails, key_id, owned_vault, turnkeyfs
from helpers import noise, read_file, write_file
from mountpoint import run, scaled

pytest_plugins = ["emulator_fixture"]

KEYS = [
    ("RSA", {"key_size": 2048}, False),
    ("RSA", {"key_size": 3072}, False),
    ("RSA", {"key_size": 4096}, False),
    ("RSA-HSM", {"key_size": 3072}, True),
    ("oct-HSM", {"key_size": 256}, True),
]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


@pytest.fixture
def make_azure(emulator, make_volume, work):
    """make(vault, ...) -> a volume under that vault's key `kek`."""

    def make(vault, name="volume", mount=True, init=True, dek_wrap="kek", **options):
        volume = make_volume(name, mount=False, init=False)
        directory = volume.directory
        configuration = azure_volume.sections(emulator, key_id(vault), directory, **options)
        configuration["volume"] = {"dek_wrap": dek_wrap}
        azure_volume.write(volume.conf, configuration)
        if init:
            volume.init()
        return volume.mount() if mount else volume

    return make


@pytest.mark.parametrize("dek_wrap", ["kek", "kms"])
@pytest.mark.parametrize("kty,key,hsm", KEYS)
def test_files_are_read_back_after_a_remount(emulator, make_azure, kty, key, hsm, dek_wrap):
    vault = owned_vault(emulator, hsm=hsm, kty=kty, **key)
    volume = make_azure(vault, dek_wrap=dek_wrap)
    for i in range(5):
        write_file(volume.mnt / f"f{i}", noise(10_000 * i, i))
    volume.remount()
    for i in range(5):
        assert read_file(volume.mnt / f"f{i}") == noise(10_000 * i, i)
    volume.umount()
    volume.assert_verifies_clean()


@pytest.mark.parametrize("wrap", ["local", "service"])
def test_keys_are_wrapped_where_the_configuration_says(emulator, make_azure, wrap):
    vault = owned_vault(emulator)
    before = emulator.count("wrapKey")
    make_azure(vault, azure={"wrap": wrap})
    assert emulator.count("wrapKey") - before == (1 if wrap == "service" else 0)


def test_status_names_provider_and_key(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(vault)
    daemon = volume.status()["daemon"]
    assert daemon["provider"] == "azure"
    assert daemon["key"] == key_id(vault)
    assert "keystore" not in daemon
    protector = volume.status()["kek_versions"][0]["protectors"][0]
    assert protector["provider"] == "azure"
    assert protector["key"] == key_id(vault)
    assert protector["version"] == azure_volume.key_version(vault)
    assert protector["algorithm"] == "RSA-OAEP-256"
    assert key_id(vault) in run("cat", volume.cipher / "turnkeyfs.volume").stdout
    text = turnkeyfs("status", volume.mnt).stdout
    assert f"key             {key_id(vault)}" in text


def test_init_makes_nothing_in_the_vault(emulator, make_azure):
    vault = emulator.vault(purge_protection=True)
    volume = make_azure(vault, mount=False, init=False)
    said = fails(12, "init", "-c", volume.conf, volume.cipher)
    assert f"turnkeyfs key create -c {volume.conf}" in said
    assert not volume.cipher.exists()
    assert vault.ok("GET", "/keys")["value"] == []
    assert emulator.count("createKey") == 0


def test_key_create_is_what_that_message_promises(emulator, make_azure):
    vault = emulator.vault(purge_protection=True)
    volume = make_azure(vault, mount=False, init=False)
    turnkeyfs("key", "create", "-c", volume.conf)
    volume.init().mount()
    write_file(volume.mnt / "f", b"x")


def test_a_vault_without_purge_protection_is_refused_unless_accepted(emulator, make_azure):
    vault = emulator.vault(purge_protection=False)
    vault.create("kek")
    volume = make_azure(vault, mount=False, init=False)
    said = fails(3, "init", "-c", volume.conf, volume.cipher)
    assert "--enable-purge-protection true" in said
    assert not volume.cipher.exists()
    make_azure(vault, name="accepted", azure={"require_purge_protection": "no"})


def test_a_pinned_version_is_used_although_there_is_a_newer_one(emulator, make_azure, make_volume):
    vault = owned_vault(emulator)
    old = azure_volume.key_version(vault)
    vault.create("kek")
    volume = make_azure(vault, azure={"key": f"{key_id(vault)}/{old}"})
    assert volume.status()["kek_versions"][0]["protectors"][0]["version"] == old


def test_a_disabled_key_refuses_the_mount_until_it_is_enabled(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(vault)
    write_file(volume.mnt / "f", b"kept")
    volume.umount()
    vault.set_enabled("kek", False)
    said = fails(12, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "is disabled" in said and "az keyvault key set-attributes" in said
    vault.set_enabled("kek", True)
    volume.mount()
    assert read_file(volume.mnt / "f") == b"kept"


def test_an_identity_without_rights_is_told_which_role_it_needs(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    emulator.control("revoke", vault=vault.name, permissions=["unwrapKey"])
    said = fails(12, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "Key Vault Crypto Service Encryption User" in said


def test_a_wrong_client_secret_is_an_error_of_the_identity(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    (volume.directory / "client-secret").write_text("hunter2")
    said = fails(12, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "client_secret" in said and "hunter2" not in said


def test_a_missing_client_secret_is_named(emulator, make_azure):
    volume = make_azure(owned_vault(emulator), mount=False)
    (volume.directory / "client-secret").unlink()
    said = fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "client secret" in said and str(volume.directory / "client-secret") in said


@pytest.mark.deadline(200)
def test_a_vault_that_is_not_there_is_unreachable(emulator, make_azure):
    volume = make_azure(owned_vault(emulator), mount=False)
    configuration = azure_volume.sections(
        emulator, "https://127.0.0.1:1/keys/kek", volume.directory,
        azure={"connect_timeout": 1, "request_timeout": 1},
    )  # fmt: skip
    azure_volume.write(volume.conf, configuration)
    fails(11, "doctor", "-c", volume.conf)


def test_another_key_of_the_vault_is_refused_without_asking_it(emulator, make_azure):
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    vault.create("other")
    configuration = azure_volume.sections(emulator, key_id(vault, "other"), volume.directory)
    azure_volume.write(volume.conf, configuration)
    before = emulator.count("unwrapKey")
    said = fails(10, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert key_id(vault) in said and key_id(vault, "other") in said
    assert emulator.count("unwrapKey") == before


@pytest.mark.deadline(400)
def test_with_dek_wrap_kek_a_mount_asks_once_whatever_is_opened(emulator, make_azure):
    count = scaled(10_000)
    vault = owned_vault(emulator)
    volume = make_azure(vault, kms={"revocation_window": 86400})
    for i in range(count):
        write_file(volume.mnt / f"f{i}", b"%d" % i)
    volume.umount()
    before = emulator.count("unwrapKey")
    volume.mount()
    for i in range(count):
        assert read_file(volume.mnt / f"f{i}") == b"%d" % i
    assert emulator.count("unwrapKey") - before == 1


@pytest.mark.deadline(200)
def test_with_dek_wrap_kms_each_key_is_asked_for_once_by_50_openers(emulator, make_azure):
    files = 30
    vault = owned_vault(emulator)
    volume = make_azure(vault, dek_wrap="kms", kms={"revocation_window": 86400})
    for i in range(files):
        write_file(volume.mnt / f"f{i}", b"%d" % i)
    volume.remount()
    before = emulator.count("unwrapKey")

    def open_all(_):
        return [read_file(volume.mnt / f"f{i}") for i in range(files)]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        for found in pool.map(open_all, range(50)):
            assert found == [b"%d" % i for i in range(files)]
    keys = files + volume.names_encrypted()  # the directory has one, too, for its names
    assert emulator.count("unwrapKey") - before == keys


@pytest.mark.parametrize("dek_wrap", ["kek", "kms"])
def test_no_secret_is_in_log_command_line_environment_or_status(emulator, make_azure, dek_wrap):
    vault = owned_vault(emulator)
    volume = make_azure(vault, dek_wrap=dek_wrap, log={"level": "debug"})
    write_file(volume.mnt / "f", noise(5000))
    volume.remount()
    read_file(volume.mnt / "f")
    process = pathlib.Path(f"/proc/{volume.pid}")
    seen = [
        volume.log(),
        (process / "cmdline").read_text(),
        (process / "environ").read_text(),
        turnkeyfs("status", volume.mnt).stdout,
        turnkeyfs("doctor", "-c", volume.conf).stdout,
        volume.conf.read_text(),
    ]
    tokens = list(emulator.control("tokens_seen")["tokens"].values())
    assert tokens, "the emulator has seen a token"
    secrets = [emulator.client_secret] + [token.removeprefix("Bearer ") for token in tokens]
    for secret in secrets:
        for text in seen:
            assert secret not in text


@pytest.mark.parametrize(
    "options,code,said",
    [
        ({"local": {"keystore": "/k"}}, 3, "[local]"),
        ({"azure": {"auth": "password"}}, 3, "auth"),
        ({"azure": {"client_secret": "hunter2"}}, 3, "'...'"),
        ({"azure": {"key": "https://vault/secrets/x"}}, 3, "no key identifier"),
        ({"azure": {"audience": "https://elsewhere.example"}}, 3, "audience"),
        ({"azure": {"ca_file": "/nonexistent"}}, 3, "ca_file"),
    ],
)
def test_wrong_configurations_are_named(emulator, make_azure, options, code, said):
    volume = make_azure(emulator.vault(), mount=False, init=False, **options)
    message = fails(code, "init", "-c", volume.conf, volume.cipher)
    assert said in message and "hunter2" not in message
    assert not volume.cipher.exists()


# --- doctor --------------------------------------------------------------------------------------


def doctor(volume, *paths, code=0):
    """{check: (level, text)}"""
    done = turnkeyfs("doctor", "-c", volume.conf, *paths, check=False)
    assert done.returncode == code, done.stdout
    found = {}
    for line in done.stdout.splitlines()[:-1]:
        level, rest = line.split(None, 1)
        check, text = rest.split(": ", 1)
        found[check] = (level, text)
    return found


def test_doctor_walks_the_way_to_the_key(emulator, make_azure):
    volume = make_azure(owned_vault(emulator), mount=False)
    found = doctor(volume, volume.cipher)
    steps = ("vault", "clock", "challenge", "identity", "get", "versions", "dates",
             "recovery level", "wrap", "unwrap", "keys")  # fmt: skip
    assert [found[step][0] for step in steps] == ["ok"] * len(steps), found


def refuse_role(emulator, vault):
    emulator.control("revoke", vault=vault.name, permissions=["unwrapKey"])


def refuse_network(emulator, vault):
    emulator.control("firewall", vault=vault.name)


def disable(emulator, vault):
    vault.set_enabled("kek", False)


def delete(emulator, vault):
    vault.ok("DELETE", "/keys/kek")


def expire_secret(emulator, vault):
    emulator.control("client", secret_expired=True)



@pytest.mark.parametrize(
    "spoil,step,code,todo",
    [
        (refuse_role, "unwrap", 12, "az role assignment create"),
        (refuse_network, "get", 12, "az keyvault network-rule add"),
        (disable, "state", 12, "az keyvault key set-attributes"),
        (delete, "get", 12, "az keyvault key recover"),
        (expire_secret, "identity", 12, "az ad app credential reset"),
    ],
)
def test_doctor_says_who_must_do_what(emulator, make_azure, spoil, step, code, todo):
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    spoil(emulator, vault)
    try:
        found = doctor(volume, code=code)
    finally:
        emulator.control("client", secret_expired=False)
    assert found[step][0] == "FAIL", found
    assert todo in found[step][1]


def test_doctor_tells_tls_from_dns(emulator, make_azure):
    vault = owned_vault(emulator)
    system = {"ca_file": "/etc/ssl/certs/ca-certificates.crt"}
    volume = make_azure(vault, mount=False, init=False, azure=system)
    assert doctor(volume, code=11)["TLS"][0] == "FAIL"
    configuration = azure_volume.sections(
        emulator, "https://nosuch.invalid/keys/kek", volume.directory
    )
    azure_volume.write(volume.conf, configuration)
    assert doctor(volume, code=11)["DNS"][0] == "FAIL"


@pytest.mark.parametrize(
    "shift, level, says",
    [
        (30, "ok", "agrees"),
        (600, "warn", "behind the vault's"),
        (-600, "warn", "ahead of the vault's"),
    ],
)
def test_doctor_compares_the_clocks(emulator, make_azure, shift, level, says):
    """By the Date header of the vault's answer."""
    volume = make_azure(owned_vault(emulator), mount=False, init=False)
    emulator.control("clock", shift=shift, scopes=["date"])
    found_level, text = doctor(volume)["clock"]
    assert (found_level, says in text) == (level, True), text
    if level == "warn":
        seconds = int(text.split(" seconds")[0].rsplit(" ", 1)[1])
        assert abs(seconds - abs(shift)) <= 5 and "NTP" in text


def test_doctor_asks_for_no_secret(emulator, make_azure):
    prompt = {"client_secret": "prompt"}
    volume = make_azure(owned_vault(emulator), mount=False, init=False, azure=prompt)
    level, text = doctor(volume)["key"]
    assert level == "ok" and "was not asked for" in text


def test_a_certificate_that_others_may_read_is_warned_of(emulator, make_azure):
    """It holds the private key, unless that has a password."""
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    certificate = volume.directory / "client.pem"
    certificate.write_bytes(pathlib.Path(emulator.client_certificate).read_bytes())
    password = volume.directory / "client-secret"  # there, and for its owner alone

    def found(**more):
        options = {"certificate": certificate} | more
        azure_volume.write(
            volume.conf, azure_volume.sections(emulator, key_id(vault), volume.directory, azure=options)
        )
        return doctor(volume).get("secrets")

    certificate.chmod(0o644)
    level, text = found()
    assert level == "warn" and f"{certificate}, which [azure] certificate names" in text
    assert found(certificate_password=f"file:{password}") is None
    certificate.chmod(0o600)
    assert found() is None


def test_two_secrets_come_from_descriptors(emulator, make_azure):
    """Both stay open in the background, although all other descriptors are closed."""
    vault = owned_vault(emulator)
    volume = make_azure(vault, mount=False)
    secrets = {"client_secret": "fd:5", "certificate_password": "fd:7"}
    configuration = azure_volume.sections(
        emulator, key_id(vault), volume.directory, azure=secrets
    )
    azure_volume.write(volume.conf, configuration)
    secret = volume.directory / "client-secret"
    script = f'exec "$@" 5<{secret} 6</dev/null 7<{secret} 8</dev/null'
    run("sh", "-c", script, "sh", azure_volume.mountpoint.turnkeyfs(),
        "mount", "-c", volume.conf, volume.cipher, volume.mnt)  # fmt: skip
    try:
        assert os.path.ismount(volume.mnt)
        pid = volume.status()["daemon"]["pid"]
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert str(secret) not in links, "closed once they were read"
    finally:
        turnkeyfs("umount", volume.mnt)
