# SPDX-License-Identifier: Apache-2.0
"""
A vault or Managed HSM: its keys, their life, and the operations on them.

A key's life: active -> being deleted -> deleted -> (purged | being recovered -> active). What is
due by the clock (automatic purge, rotation by policy) is done when somebody next asks.
Source: Key Vault REST API, "Keys"; "Azure Key Vault soft-delete overview".
"""

import base64
import copy
import dataclasses
import os
import threading

from . import backup, byok, crypto, errors, keys, material, rotation
from .encoding import b64url, unb64url
from .keys import Key, Version, member

DAY = 86400
MAX_HSM_VERSIONS = 100
PAGE_LIMIT = 25


@dataclasses.dataclass
class Options:
    """What an owner chooses for a vault."""

    tenant: str
    is_hsm: bool = False
    retention_days: int = 90
    soft_delete: bool = True
    purge_protection: bool = False
    premium: bool = True  # a standard vault has no HSM keys
    rbac: bool = True  # otherwise access policies
    open: bool = True  # everybody in the tenant may do everything, until revoked


class Vault:
    """Thread-safe; long computations run outside the lock."""

    def __init__(self, name, options, app, stored=None):
        self.name = name
        self.options = options
        self.app = app  # clock, settings, pool, state
        self.lock = threading.RLock()
        self.keys = {}  # lower-case name -> Key; deleted ones, too
        self.backup_secret = base64.b64decode(stored["backup"]) if stored else os.urandom(32)
        for item in stored["keys"] if stored else ():
            key = Key.from_json(item)
            self.keys[key.name.lower()] = key
            for version in key.versions:
                self._mark_used(version.material)
        self.save()

    def _mark_used(self, key_material):
        if key_material.family == "RSA":
            self.app.pool.mark_used(key_material.key.public_key().public_numbers().n)

    @property
    def file_name(self):
        return f"{'hsms' if self.options.is_hsm else 'vaults'}/{self.name}.json"

    def save(self):
        with self.lock:
            self.app.state.write_json(
                self.file_name,
                {
                    "options": dataclasses.asdict(self.options),
                    "backup": base64.b64encode(self.backup_secret).decode(),
                    "keys": [key.to_json() for key in self.keys.values()],
                },
            )

    @property
    def recovery_level(self):
        if not self.options.soft_delete:
            return "Purgeable"
        customized = "" if self.options.retention_days == 90 else "Customized"
        return f"{customized}Recoverable" + ("" if self.options.purge_protection else "+Purgeable")

    @property
    def recoverable_days(self):
        return self.options.retention_days if self.options.soft_delete else 0

    # --- states ----------------------------------------------------------------------------------

    def _settle(self):
        """Do what is due."""
        now = self.app.clock.now()
        changed = False
        for lower, key in list(self.keys.items()):
            if key.deleted_date is not None and now >= key.purge_date:
                del self.keys[lower]
                changed = True
            elif key.deleted_date is None and rotation.due(key, now):
                self._rotate(key)
                changed = True
        if changed:
            self.save()

    def _lookup(self, name):
        keys.check_name(name)
        self._settle()
        return self.keys.get(name.lower())

    def _active(self, name):
        """The key; KeyNotFound if there is none, or it is deleted, or not back yet."""
        key = self._lookup(name)
        now = self.app.clock.now()
        if key is None or key.deleted_date is not None or (key.recovered_at or 0) > now:
            raise errors.key_not_found(name)
        return key

    def _usable_name(self, name):
        """For create, import, restore: the key to add a version to, or None; or Conflict."""
        key = self._lookup(name)
        now = self.app.clock.now()
        if key is None:
            return None
        if key.deleted_date is not None:
            if key.deleted_at > now:
                raise errors.being_deleted(name)
            raise errors.deleted_but_recoverable(name)
        if (key.recovered_at or 0) > now:
            raise errors.being_recovered(name)
        return key

    def _deleted(self, name, conflict):
        """The deleted key. While it is being deleted: 409 if @conflict, else 404."""
        key = self._lookup(name)
        now = self.app.clock.now()
        if key is not None and (key.recovered_at or 0) > now and conflict:
            raise errors.being_recovered(name)
        if key is None or key.deleted_date is None:
            raise errors.deleted_key_not_found(name)
        if key.deleted_at > now:
            raise errors.being_deleted(name) if conflict else errors.deleted_key_not_found(name)
        return key

    # --- new versions ----------------------------------------------------------------------------

    def _check_type(self, kty):
        if kty not in keys.KEY_TYPES:
            raise errors.bad_parameter("Property kty has invalid value")
        hsm_type = kty.endswith("-HSM")
        if self.options.is_hsm and not hsm_type:
            raise errors.bad_parameter(f"Property kty has invalid value: {kty} is no HSM key type")
        if hsm_type and not self.options.is_hsm and not self.options.premium:
            raise errors.bad_parameter("The HSM key types need a Premium vault")

    def _prepare(self, kty, ops, body):
        """A Version of that type without material, as a create or import request wants it."""
        now = self.app.clock.seconds()
        version = Version(keys.new_version_name(), kty, None, keys.check_ops(ops, kty), now, now)
        version.tags = keys.check_tags(member(body, "tags", dict))
        keys.apply_attributes(version, member(body, "attributes", dict, {}))
        if body.get("release_policy") is not None:
            raise errors.bad_parameter("Property release_policy: release is not emulated")
        return version

    def _append(self, name, version):
        with self.lock:
            key = self._usable_name(name)
            if key is None:
                key = self.keys[name.lower()] = Key(name, [])
            self._check_room(key)
            key.versions.append(version)
            self.save()
            return key

    def _check_room(self, key):
        if self.options.is_hsm and len(key.versions) >= MAX_HSM_VERSIONS:
            raise errors.bad_parameter(f"A key has at most {MAX_HSM_VERSIONS} versions")

    def create(self, call):
        body = call.json()
        kty = member(body, "kty", str, "")
        self._check_type(kty)
        version = self._prepare(kty, member(body, "key_ops", list), body)
        with self.lock:
            self._usable_name(call.name)
        version.material = material.generate(kty, body, self.app.pool)
        return keys.bundle_json(self._append(call.name, version), version, self, call)

    def import_key(self, call):
        body = call.json()
        jwk = member(body, "key", dict, {})
        kty = member(jwk, "kty", str, "")
        if member(body, "Hsm", bool, member(body, "hsm", bool, False)) and not kty.endswith("-HSM"):
            kty += "-HSM"
        self._check_type(kty)
        version = self._prepare(kty, member(jwk, "key_ops", list), body)
        with self.lock:
            self._usable_name(call.name)
        blob = member(jwk, "key_hsm", str)
        if blob is not None:
            if not kty.endswith("-HSM"):
                raise errors.bad_parameter("Property key_hsm needs an HSM key type")
            version.material = byok.open_blob(blob, kty, self._find_kek)
        else:
            version.material = material.from_jwk(jwk | {"kty": kty})
        return keys.bundle_json(self._append(call.name, version), version, self, call)

    def _find_kek(self, name, version):
        with self.lock:
            found = self._active(name).find(version)
        if not found.enabled:
            raise errors.key_disabled("import")
        return found

    def _rotate(self, key):
        self._check_room(key)
        old, now = key.newest, self.app.clock.seconds()
        new = copy.copy(old)
        new.version, new.created, new.updated = keys.new_version_name(), now, now
        new.enabled, new.nbf, new.exp = True, None, rotation.expiry_of_new_version(key, now)
        new.material = material.like(old.material, self.app.pool)
        key.versions.append(new)

    def rotate(self, call):
        with self.lock:
            key = self._active(call.name)
            if self.options.is_hsm and key.policy is None:
                raise errors.bad_parameter("The key has no rotation policy")
            self._rotate(key)
            self.save()
            return keys.bundle_json(key, key.newest, self, call)

    # --- reading and updating --------------------------------------------------------------------

    def get(self, call):
        with self.lock:
            key = self._active(call.name)
            version = key.find(call.version)
            if not version.enabled and self.app.settings["get_disabled"] == 403:
                raise errors.key_disabled("get")
            return keys.bundle_json(key, version, self, call)

    def update(self, call):
        body = call.json()
        with self.lock:
            key = self._active(call.name)
            version = key.find(call.version)
            changed = copy.copy(version)
            ops = member(body, "key_ops", list)
            if ops is not None:
                changed.ops = keys.check_ops(ops, version.kty)
            if member(body, "tags", dict) is not None:
                changed.tags = keys.check_tags(body["tags"])
            keys.apply_attributes(changed, member(body, "attributes", dict, {}))
            changed.updated = self.app.clock.seconds()
            key.versions[key.versions.index(version)] = changed
            self.save()
            return keys.bundle_json(key, changed, self, call)

    def list_keys(self, call):
        with self.lock:
            self._settle()
            now = self.app.clock.now()
            found = [
                (key.name, keys.item_json(key, key.newest, self, call, versioned=False))
                for key in self.keys.values()
                if key.deleted_date is None and (key.recovered_at or 0) <= now
            ]
        return found

    def list_versions(self, call):
        with self.lock:
            try:
                key = self._active(call.name)
            except errors.ServiceError as e:
                if e.status == 404 and self.app.settings["unknown_versions"] == 200:
                    return []
                raise
            return [
                (version.version, keys.item_json(key, version, self, call, versioned=True))
                for version in key.versions
            ]

    def get_policy(self, call):
        with self.lock:
            return rotation.policy_json(self._active(call.name), call)

    def set_policy(self, call):
        policy = rotation.check(call.json(), self.options.is_hsm, self.app.settings["add_notify"])
        now = self.app.clock.seconds()
        with self.lock:
            key = self._active(call.name)
            created = (key.policy or {}).get("created", now)
            key.policy = policy | {"created": created, "updated": now}
            self.save()
            return rotation.policy_json(key, call)

    # --- deleting and coming back ----------------------------------------------------------------

    def delete(self, call):
        with self.lock:
            key = self._active(call.name)
            answer = keys.bundle_json(key, key.newest, self, call)
            if not self.options.soft_delete:
                del self.keys[key.name.lower()]
                self.save()
                return answer
            now = self.app.clock.now()
            key.deleted_at = now + self.app.settings["delete_delay"]
            key.deleted_date = int(now)
            key.purge_date = int(now) + self.recoverable_days * DAY
            self.save()
            return answer | keys.deleted_json(key, call)

    def get_deleted(self, call):
        with self.lock:
            key = self._deleted(call.name, conflict=False)
            return keys.bundle_json(key, key.newest, self, call) | keys.deleted_json(key, call)

    def list_deleted(self, call):
        with self.lock:
            self._settle()
            now = self.app.clock.now()
            return [
                (
                    key.name,
                    keys.item_json(key, key.newest, self, call, versioned=False)
                    | keys.deleted_json(key, call),
                )
                for key in self.keys.values()
                if key.deleted_date is not None and key.deleted_at <= now
            ]

    def recover(self, call):
        with self.lock:
            key = self._deleted(call.name, conflict=True)
            key.deleted_at = key.deleted_date = key.purge_date = None
            key.recovered_at = self.app.clock.now() + self.app.settings["recover_delay"]
            self.save()
            return keys.bundle_json(key, key.newest, self, call)

    def purge(self, call):
        with self.lock:
            key = self._deleted(call.name, conflict=True)
            if self.options.purge_protection:
                raise errors.purge_protected(self.name)
            del self.keys[key.name.lower()]
            self.save()

    def backup(self, call):
        with self.lock:
            key = self._active(call.name)
            return {"value": backup.seal(key, self._backup_key())}

    def restore(self, call):
        key = backup.open_blob(member(call.json(), "value", str, ""), self._backup_key())
        with self.lock:
            if self._usable_name(key.name) is not None:
                raise errors.already_exists(key.name)
            self.keys[key.name.lower()] = key
            self.save()
            return keys.bundle_json(key, key.newest, self, call)

    def _backup_key(self):
        return self.backup_secret if self.options.is_hsm else self.app.backup_secret

    # --- cryptography ----------------------------------------------------------------------------

    def _version_for(self, call, operation):
        """The version to work with, if its state and key_ops allow @operation."""
        settings, now = self.app.settings, self.app.clock.now()
        public = operation in ("wrapKey", "encrypt", "verify")
        with self.lock:
            key = self._active(call.name)
            version = key.find(call.version)
        if not version.enabled and not (public and settings["public_key_disabled"] == 200):
            raise errors.key_disabled(operation)
        if operation not in version.ops:
            raise errors.operation_not_permitted(operation)
        if operation in ("wrapKey", "encrypt", "sign"):
            leeway = settings["leeway"]
            if version.exp is not None and now > version.exp + leeway:
                raise errors.outside_validity(operation, settings["expired_inner"])
            if version.nbf is not None and now < version.nbf - leeway:
                raise errors.outside_validity(operation, settings["not_yet_valid_inner"])
        return f"{call.base}/keys/{key.name}/{version.version}", version.material

    def _fields(self, call, *names):
        """(alg, {name: octets}) of a request; those after the first may be absent."""
        body = call.json()
        alg = member(body, "alg", str, "")
        if alg in crypto.SINCE_7_6 and not keys.since(call.api_version, "7.6"):
            raise errors.bad_parameter(f"Property alg has invalid value: {alg}")
        fields = {}
        for name in names:
            text = member(body, name, str)
            try:
                if text is not None:
                    fields[name] = unb64url(text, self.app.settings["accept_padding"])
            except ValueError as e:
                raise errors.bad_parameter(f"Property {name} has invalid value: {e}") from None
        if not fields.get(names[0]):
            raise errors.bad_parameter(f"Property {names[0]} is missing or empty")
        return alg, fields

    def encrypt(self, call):
        """encrypt and wrapKey"""
        kid, key_material = self._version_for(call, call.operation)
        alg, fields = self._fields(call, "value", "iv", "aad")
        answer = crypto.encrypt(key_material, alg, fields, call.operation == "wrapKey")
        return {"kid": kid} | {name: b64url(octets) for name, octets in answer.items()}

    def decrypt(self, call):
        """decrypt and unwrapKey"""
        kid, key_material = self._version_for(call, call.operation)
        alg, fields = self._fields(call, "value", "iv", "aad", "tag")
        value = crypto.decrypt(key_material, alg, fields, call.operation == "unwrapKey")
        return {"kid": kid, "value": b64url(value)}

    def sign(self, call):
        kid, key_material = self._version_for(call, "sign")
        alg, fields = self._fields(call, "value")
        return {"kid": kid, "value": b64url(crypto.sign(key_material, alg, fields["value"]))}

    def verify(self, call):
        _, key_material = self._version_for(call, "verify")
        alg, fields = self._fields(call, "digest", "value")
        if "value" not in fields:
            raise errors.bad_parameter("Property value is missing")
        return {"value": crypto.verify(key_material, alg, fields["digest"], fields["value"])}

    def random(self, call):
        if not self.options.is_hsm:
            raise errors.bad_parameter("Only a Managed HSM gives random octets")
        count = member(call.json(), "count", int, 0)
        if not 1 <= count <= 128:
            raise errors.bad_parameter("Property count has invalid value")
        return {"value": b64url(os.urandom(count))}

    def not_emulated(self, call):
        raise errors.operation_not_permitted(call.operation)
