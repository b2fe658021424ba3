# SPDX-License-Identifier: Apache-2.0
"""
What Key Vault answers when it refuses: status, code, inner code, message.

Source: Key Vault REST API, "Authentication, requests and responses", "Common error codes", and
recorded answers. Where the inner code isn't known, settings.py can change it.
"""


class ServiceError(Exception):
    """A refusal, on its way to the client."""

    def __init__(self, status, code, message, inner=None, headers=None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.headers = headers or {}

    def body(self):
        error = {"code": self.code, "message": self.message}
        if self.inner:
            error["innererror"] = {"code": self.inner}
        return {"error": error}


def unauthorized(message, challenge):
    return ServiceError(401, "Unauthorized", message, headers={"WWW-Authenticate": challenge})


def bad_parameter(message):
    return ServiceError(400, "BadParameter", message)


def key_not_found(name, version=None):
    what = f"{name}/{version}" if version else name
    return ServiceError(
        404,
        "KeyNotFound",
        f"A key with (name/id) {what} was not found in this key vault. If you recently deleted "
        "this key you may be able to recover it using the correct recovery command. For help "
        "resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182",
    )


def deleted_key_not_found(name):
    return ServiceError(404, "KeyNotFound", f"Deleted Key not found: {name}")


def key_disabled(operation):
    return ServiceError(
        403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled"
    )


def operation_not_permitted(operation):
    return ServiceError(
        403,
        "Forbidden",
        f"Operation {operation} is not permitted on this key.",
        "KeyOperationForbidden",
    )


def outside_validity(operation, inner):
    what = "an expired key" if inner == "KeyExpired" else "a key that is not yet valid"
    return ServiceError(403, "Forbidden", f"Operation {operation} is not allowed on {what}.", inner)


def forbidden_by_policy(caller, permission, vault):
    return ServiceError(
        403,
        "Forbidden",
        f"The user, group or application 'appid={caller['appid']};oid={caller['oid']};"
        f"iss={caller['iss']}' does not have keys {permission} permission on key vault "
        f"'{vault};location=emulated'. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125287",
        "ForbiddenByPolicy",
    )


def forbidden_by_rbac(caller, action, resource, vault):
    return ServiceError(
        403,
        "Forbidden",
        "Caller is not authorized to perform action on resource.\r\n"
        "If role assignments, deny assignments or role definitions were changed recently, please "
        "observe propagation time.\r\n"
        f"Caller: appid={caller['appid']};oid={caller['oid']};iss={caller['iss']}\r\n"
        f"Action: '{action}'\r\nResource: '{resource}'\r\nAssignment: (not found)\r\n"
        f"DecisionReason: 'DeniedWithNoValidRBAC'\r\nVault: {vault};location=emulated\r\n",
        "ForbiddenByRbac",
    )


def forbidden_by_firewall(address, caller):
    return ServiceError(
        403,
        "Forbidden",
        "Client address is not authorized and caller is not a trusted service.\r\n"
        f"Client address: {address}\r\nCaller: appid={caller['appid']};oid={caller['oid']}",
        "ForbiddenByFirewall",
    )


def forbidden_by_connection():
    return ServiceError(
        403,
        "Forbidden",
        "Public network access is disabled and request is not from a trusted service nor via an "
        "approved private link.",
        "ForbiddenByConnection",
    )


def purge_protected(vault):
    return ServiceError(
        403,
        "Forbidden",
        'Operation "purge" is not allowed because purge protection is enabled for this vault. '
        "Key Vault service will automatically purge it after the retention period has passed.\r\n"
        f"Vault: {vault};location=emulated",
    )


def deleted_but_recoverable(name):
    return ServiceError(
        409,
        "Conflict",
        f"Key {name} is currently in a deleted but recoverable state, and its name cannot be "
        "reused; in this state, the key can only be recovered or purged.",
        "ObjectIsDeletedButRecoverable",
    )


def being_deleted(name):
    return ServiceError(
        409, "Conflict", f"Key {name} is currently being deleted.", "ObjectIsBeingDeleted"
    )


def being_recovered(name):
    return ServiceError(
        409, "Conflict", f"Key {name} is currently being recovered.", "ObjectIsBeingRecovered"
    )


def already_exists(name):
    return ServiceError(409, "Conflict", f"Key {name} already exists.")


def throttled(retry_after=None):
    return ServiceError(
        429,
        "Throttled",
        "Request was not processed because too many requests were received. "
        "Reason: VaultRequestTypeLimitReached",
        headers={} if retry_after is None else {"Retry-After": str(retry_after)},
    )
