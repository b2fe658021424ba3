# SPDX-License-Identifier: Apache-2.0
"""Volumes whose root key is in the emulator."""

import base64
import json
import os
import pathlib

import mountpoint
import turnkeyfs_reader as reader

# Nothing of the test machine's own may decide where tokens come from.
SCRUBBED = ("AZURE_", "IDENTITY_", "IMDS_", "MSI_")


def scrub_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(SCRUBBED):
            monkeypatch.delenv(name)


def sections(emulator, key, directory, kms=None, azure=None, **more):
    """A configuration for the key with that identifier; the client's secret lies in @directory."""
    secret = pathlib.Path(directory) / "client-secret"
    secret.write_text(emulator.client_secret)
    secret.chmod(0o600)
    return {
        "kms": {"provider": "azure"} | (kms or {}),
        "azure": {
            "key": key,
            "auth": "client-secret",
            "tenant_id": emulator.tenant,
            "client_id": emulator.client_id,
            "client_secret": f"file:{secret}",
            "authority": emulator.authority,
            "ca_file": emulator.ca,
        }
        | (azure or {}),
    } | more


def write(path, configuration):
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for section, values in configuration.items()
    )
    pathlib.Path(path).write_text(text)
    return path


def key_id(vault, name="kek"):
    return f"{vault.url}/keys/{name}"


def owned_vault(emulator, hsm=False, name="kek", **key):
    """A vault with purge protection, as the filesystem wants it, and a key in it."""
    vault = emulator.vault(hsm=hsm, purge_protection=True)
    vault.create(name, **key)
    return vault


def key_version(vault, name="kek"):
    """Of the newest one."""
    return vault.ok("GET", f"/keys/{name}")["key"]["kid"].rsplit("/", 1)[1]


def json_of(done):
    return json.loads(done.stdout)


def turnkeyfs(*words, check=True, **more):
    """The program to its end. Returns what it did."""
    return mountpoint.run(mountpoint.turnkeyfs(), *words, check=check, **more)


def fails(code, *words, **more):
    """It must end with this exit code; its message."""
    done = turnkeyfs(*words, check=False, **more)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("turnkeyfs: ") and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


class VaultKeys:
    """A vault as the independent reader's keystore."""

    provider = "azure"
    versions = {}  # root keys stay in the vault

    def __init__(self, vault):
        self.vault = vault

    def unwrap(self, wrap, blob=None):
        blob = blob or reader.unbase64url(wrap["blob"])
        path = f"/keys/{wrap['key'].rsplit('/', 1)[1]}/{wrap['version']}/unwrapkey"
        value = base64.urlsafe_b64encode(blob).rstrip(b"=").decode()
        answer = self.vault.ok("POST", path, {"alg": wrap["algorithm"], "value": value})
        return base64.urlsafe_b64decode(answer["value"] + "==")


def kek_states(volume):
    """{KEK version: state}, as the volume file has it."""
    document = volume.status(volume.cipher)
    return {kek["version"]: kek["state"] for kek in document["kek_versions"]}


def rotation(volume):
    return volume.status()["daemon"]["rotation"]


def record_versions(volume):
    """The KEK versions that records name: of all backing files, and of directories that have one."""
    found = set()
    for path, _, names in os.walk(volume.cipher / "root"):
        records = [
            os.getxattr(os.path.join(path, name), mountpoint.KEY_RECORD)
            for name in names
            if not os.path.islink(os.path.join(path, name))
        ]
        if mountpoint.KEY_RECORD in os.listxattr(path):
            records.append(os.getxattr(path, mountpoint.KEY_RECORD))
        found |= {int.from_bytes(record[2:4], "big") for record in records}
    return found
