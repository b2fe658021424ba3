# SPDX-License-Identifier: Apache-2.0
"""
Who may do what: roles or access policies, the firewall, private endpoints; each with a delay, as
the service has one.

Source: "Azure RBAC for Key Vault data plane operations", "Assign a Key Vault access policy",
"Local RBAC built-in roles for Managed HSM".
"""

import dataclasses
import threading

from . import errors

# A permission and the end of its RBAC data action.
ACTIONS = {
    "get": "keys/read",
    "list": "keys/read",
    "create": "keys/create/action",
    "import": "keys/import/action",
    "update": "keys/update/action",
    "rotate": "keys/rotate/action",
    "getrotationpolicy": "keyrotationpolicies/read",
    "setrotationpolicy": "keyrotationpolicies/write",
    "delete": "keys/delete",
    "recover": "keys/recover/action",
    "purge": "keys/purge/action",
    "backup": "keys/backup/action",
    "restore": "keys/restore/action",
    "wrapKey": "keys/wrap/action",
    "unwrapKey": "keys/unwrap/action",
    "encrypt": "keys/encrypt/action",
    "decrypt": "keys/decrypt/action",
    "sign": "keys/sign/action",
    "verify": "keys/verify/action",
    "release": "keys/release/action",
    "random": "rng/action",
}
ROLES = {
    "Crypto Service Encryption User": ("get", "list", "wrapKey", "unwrapKey"),
    "Crypto User": ("get", "list", "update", "backup", "wrapKey", "unwrapKey", "encrypt", "decrypt",
                    "sign", "verify"),
    "Crypto Officer": tuple(ACTIONS),
}


@dataclasses.dataclass
class Rule:
    """A grant or a revocation. None: any vault, key, principal, permission."""

    allow: bool
    effective: float
    vault: str = None
    key: str = None
    principal: str = None  # appid or oid
    permissions: tuple = None

    def covers(self, vault, key, claims, permission):
        return (
            self.vault in (None, vault.name)
            and (self.key is None or self.key.lower() == key.lower())
            and self.principal in (None, claims["appid"], claims["oid"])
            and (self.permissions is None or self._has(permission, vault.options))
        )

    def _has(self, permission, options):
        if not (options.rbac or options.is_hsm):
            return permission in self.permissions
        return ACTIONS[permission] in {ACTIONS[p] for p in self.permissions}


class Access:
    """Rules of a running emulator; the latest that is in effect and covers a request decides."""

    def __init__(self, clock, settings):
        self.clock = clock
        self.settings = settings
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.rules = []
        self.networks = {}  # vault name or None -> (effective, kind or None)

    def add_rule(self, allow, delay, vault, key, principal, permissions, role):
        """ValueError for an unknown permission or role."""
        if role is not None:
            if role not in ROLES:
                raise ValueError(f"role: one of {', '.join(ROLES)}")
            permissions = ROLES[role]
        unknown = set(permissions or ()) - set(ACTIONS)
        if unknown:
            raise ValueError(f"no such permission: {', '.join(sorted(unknown))}")
        effective = self.clock.now() + delay
        permissions = None if permissions is None else tuple(permissions)
        with self.lock:
            self.rules.append(Rule(allow, effective, vault, key, principal, permissions))

    def set_network(self, vault, kind, delay):
        """@kind: firewall, connection, or None (open)."""
        with self.lock:
            self.networks.setdefault(vault, []).append((self.clock.now() + delay, kind))

    def check_network(self, vault, address, claims):
        now = self.clock.now()
        for name in (None, vault):
            effective = [kind for when, kind in self.networks.get(name, ()) if when <= now]
            if effective and effective[-1] == "firewall":
                raise errors.forbidden_by_firewall(address, claims)
            if effective and effective[-1] == "connection":
                raise errors.forbidden_by_connection()

    def check(self, vault, key, claims, permission):
        """A 403 unless the caller may do that."""
        now = self.clock.now()
        allowed = vault.options.open
        with self.lock:
            for rule in self.rules:
                if rule.effective <= now and rule.covers(vault, key or "", claims, permission):
                    allowed = rule.allow
        if allowed:
            return
        if not (vault.options.rbac or vault.options.is_hsm):
            refusal = errors.forbidden_by_policy(claims, permission, vault.name)
            refusal.inner = self.settings["policy_inner"]
            raise refusal
        kind = "managedHsm" if vault.options.is_hsm else "vaults"
        raise errors.forbidden_by_rbac(
            claims,
            f"Microsoft.KeyVault/{kind}/{ACTIONS[permission]}",
            f"/subscriptions/emulated/resourcegroups/emulated/providers/microsoft.keyvault/"
            f"{kind.lower()}/{vault.name}" + (f"/keys/{key}" if key else ""),
            vault.name,
        )
