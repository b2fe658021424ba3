# SPDX-License-Identifier: Apache-2.0
"""
A key, its versions, and how they look in an answer.

Source: Key Vault REST API, KeyBundle, KeyAttributes, KeyItem, DeletedKeyBundle.
"""

import dataclasses
import re
import uuid

from . import errors, material

MAX_TAGS = 15
MAX_TAG_LENGTH = 256
KEY_TYPES = ("RSA", "RSA-HSM", "EC", "EC-HSM", "oct-HSM")


@dataclasses.dataclass
class Version:
    version: str
    kty: str
    material: material.Material
    ops: list
    created: int
    updated: int
    enabled: bool = True
    nbf: int = None
    exp: int = None
    tags: dict = None
    exportable: bool = False

    @property
    def is_hsm(self):
        return self.kty.endswith("-HSM")

    def to_json(self):
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {"material": self.material.store()}

    @classmethod
    def from_json(cls, stored):
        family = material.family_of(stored["kty"])
        return cls(**stored | {"material": material.load(family, stored["material"])})


@dataclasses.dataclass
class Key:
    name: str
    versions: list  # oldest first
    policy: dict = None
    deleted_at: float = None
    deleted_date: int = None
    purge_date: int = None
    recovered_at: float = None  # until then the recovered key isn't back

    @property
    def newest(self):
        return self.versions[-1]

    def find(self, version):
        """The newest if @version is empty; KeyNotFound if there is none of that name."""
        if not version:
            return self.newest
        for candidate in self.versions:
            if candidate.version == version.lower():
                return candidate
        raise errors.key_not_found(self.name, version)

    def to_json(self):
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {"versions": [v.to_json() for v in self.versions]}

    @classmethod
    def from_json(cls, stored):
        versions = [Version.from_json(v) for v in stored["versions"]]
        return cls(**stored | {"versions": versions})


def new_version_name():
    return uuid.uuid4().hex


# --- what requests may say -----------------------------------------------------------------------


def check_name(name):
    if not re.fullmatch(r"[0-9a-zA-Z-]{1,127}", name):
        raise errors.bad_parameter(
            "The request URI contains an invalid name: it must match ^[0-9a-zA-Z-]{1,127}$"
        )


def member(body, name, kind, default=None):
    """body[name], of that type, or the default if it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or kind is int and isinstance(value, bool):
        raise errors.bad_parameter(f"Property {name} has invalid value")
    return value


def check_ops(ops, kty):
    """The operations in a request's key_ops, or the default."""
    family = material.family_of(kty)
    if ops is None:
        return list(material.DEFAULT_OPS[family])
    if ops == ["import"] and kty == "RSA-HSM":
        return ops
    allowed = material.ALLOWED_OPS[family]
    # The JSON from a client: anything may be in that list.
    if any(not isinstance(op, str) or op not in allowed for op in ops) or len(set(ops)) != len(ops):
        raise errors.bad_parameter("Property key_ops has invalid value")
    return ops


def check_tags(tags):
    if not tags:
        return None
    if len(tags) > MAX_TAGS or any(
        not isinstance(value, str) or max(len(name), len(value)) > MAX_TAG_LENGTH
        for name, value in tags.items()
    ):
        raise errors.bad_parameter("Property tags has invalid value")
    return tags


def apply_attributes(version, attributes):
    """enabled, nbf, exp of a request, where present. Nothing changes if one is wrong."""
    enabled = member(attributes, "enabled", bool, version.enabled)
    nbf = member(attributes, "nbf", int, version.nbf)
    exp = member(attributes, "exp", int, version.exp)
    for name, value in (("nbf", nbf), ("exp", exp)):
        if value is not None and not 0 <= value < 2**53:
            raise errors.bad_parameter(f"Property {name} has invalid value")
    if nbf is not None and exp is not None and nbf >= exp:
        raise errors.bad_parameter("Property exp has invalid value: it must be after nbf")
    if member(attributes, "exportable", bool, False):
        raise errors.bad_parameter("Property exportable has invalid value: release is not emulated")
    version.enabled, version.nbf, version.exp = enabled, nbf, exp


# --- what answers look like ----------------------------------------------------------------------


def attributes_json(version, vault, api_version):
    shown = {"enabled": version.enabled}
    for name in ("nbf", "exp", "created", "updated"):
        if getattr(version, name) is not None:
            shown[name] = getattr(version, name)
    shown["recoveryLevel"] = vault.recovery_level
    if since(api_version, "7.1"):
        shown["recoverableDays"] = vault.recoverable_days
    if since(api_version, "7.3"):
        shown["exportable"] = version.exportable
    if since(api_version, "7.6"):
        shown["hsmPlatform"] = "2" if version.is_hsm else "0"
    return shown


def bundle_json(key, version, vault, call):
    jwk = {
        "kid": f"{call.base}/keys/{key.name}/{version.version}",
        "kty": version.kty,
        "key_ops": version.ops,
    } | version.material.public_members()
    return {"key": jwk, "attributes": attributes_json(version, vault, call.api_version)} | (
        {"tags": version.tags} if version.tags else {}
    )


def item_json(key, version, vault, call, versioned):
    kid = f"{call.base}/keys/{key.name}" + (f"/{version.version}" if versioned else "")
    return {"kid": kid, "attributes": attributes_json(version, vault, call.api_version)} | (
        {"tags": version.tags} if version.tags else {}
    )


def deleted_json(key, call):
    return {
        "recoveryId": f"{call.base}/deletedkeys/{key.name}",
        "deletedDate": key.deleted_date,
        "scheduledPurgeDate": key.purge_date,
    }


def since(api_version, first):
    """Whether @api_version is @first or newer; the dated ones are newer than all 7.x."""
    return not api_version.startswith("7.") or api_version >= first
