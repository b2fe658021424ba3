# SPDX-License-Identifier: Apache-2.0
"""
From method and path to an operation.

Source: Key Vault REST API, "Keys". Collections and operations are compared without regard to
case; trailing and double slashes don't matter (clients send /keys/n/ and /keys/n//wrapkey).
"""

import dataclasses
import re

from .vault import Vault


@dataclasses.dataclass(frozen=True)
class Route:
    method: str
    path: str  # {n}: key name, {v}: version
    operation: str
    permission: str
    handler: object  # from (Vault, Call) to a JSON body, items of a list, or None
    is_list: bool = False

    def match(self, method, segments):
        """{"n": ..., "v": ...} or None."""
        parts = self.path.split("/")[1:]
        if method != self.method or len(parts) != len(segments):
            return None
        found = {}
        for part, segment in zip(parts, segments):
            variable = re.fullmatch(r"\{(.)\}", part)
            if variable:
                found[variable[1]] = segment
            elif part != segment.lower():
                return None
        return found


def _crypto(path, operation, handler):
    """With a version and without."""
    return [
        Route("POST", f"/keys/{{n}}{version}/{path}", operation, operation, handler)
        for version in ("/{v}", "")
    ]


# The first that fits is taken: fixed words before names and versions.
ROUTES = [
    Route("POST", "/rng", "random", "random", Vault.random),
    Route("POST", "/keys/restore", "restore", "restore", Vault.restore),
    Route("POST", "/keys/{n}/create", "create", "create", Vault.create),
    Route("PUT", "/keys/{n}", "import", "import", Vault.import_key),
    Route("GET", "/keys", "list", "list", Vault.list_keys, is_list=True),
    Route("GET", "/keys/{n}", "get", "get", Vault.get),
    Route("GET", "/keys/{n}/versions", "listVersions", "list", Vault.list_versions, is_list=True),
    Route("GET", "/keys/{n}/rotationpolicy", "getRotationPolicy", "getrotationpolicy",
          Vault.get_policy),
    Route("PUT", "/keys/{n}/rotationpolicy", "setRotationPolicy", "setrotationpolicy",
          Vault.set_policy),
    Route("GET", "/keys/{n}/{v}", "get", "get", Vault.get),
    Route("GET", "/keys/{n}/{v}/attestation", "attestation", "get", Vault.not_emulated),
    Route("PATCH", "/keys/{n}", "update", "update", Vault.update),
    Route("PATCH", "/keys/{n}/{v}", "update", "update", Vault.update),
    Route("POST", "/keys/{n}/rotate", "rotate", "rotate", Vault.rotate),
    Route("DELETE", "/keys/{n}", "delete", "delete", Vault.delete),
    Route("GET", "/deletedkeys", "listDeleted", "list", Vault.list_deleted, is_list=True),
    Route("GET", "/deletedkeys/{n}", "getDeleted", "get", Vault.get_deleted),
    Route("POST", "/deletedkeys/{n}/recover", "recover", "recover", Vault.recover),
    Route("DELETE", "/deletedkeys/{n}", "purge", "purge", Vault.purge),
    Route("POST", "/keys/{n}/backup", "backup", "backup", Vault.backup),
    *_crypto("wrapkey", "wrapKey", Vault.encrypt),
    *_crypto("unwrapkey", "unwrapKey", Vault.decrypt),
    *_crypto("encrypt", "encrypt", Vault.encrypt),
    *_crypto("decrypt", "decrypt", Vault.decrypt),
    *_crypto("sign", "sign", Vault.sign),
    *_crypto("verify", "verify", Vault.verify),
    *_crypto("release", "release", Vault.not_emulated),
]


def find(method, segments):
    """(Route, name, version), or (None, "", "")."""
    for route in ROUTES:
        found = route.match(method, segments)
        if found is not None:
            return route, found.get("n", ""), found.get("v", "")
    return None, "", ""


def is_api_version(text):
    """Source: Key Vault REST API, "Supported versions"."""
    return bool(re.fullmatch(r"7\.[0-6]|20\d\d-[01]\d-[0-3]\d(-preview)?", text))
