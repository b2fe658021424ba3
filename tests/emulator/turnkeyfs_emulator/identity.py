# SPDX-License-Identifier: Apache-2.0
"""
Managed identity on plain http: the VM's instance metadata service (IMDS), App Service, Arc.

Source: "How to use managed identities for Azure resources on an Azure VM to acquire an access
token"; "How to use managed identities for App Service", "REST endpoint reference"; "Authenticate
against Azure resources with Azure Arc-enabled servers".
"""

import secrets
import threading

from .reply import Reply

METADATA_PATH = ["metadata", "identity", "oauth2", "token"]
SELECTORS = {
    "client_id": "appid",
    "object_id": "oid",
    "principal_id": "oid",
    "msi_res_id": "resource_id",
    "mi_res_id": "resource_id",
}


def _refuse(status, description, error="invalid_request"):
    return Reply(status, {"error": error, "error_description": description})


class Identity:
    def __init__(self, app, arc_directory):
        self.app = app
        self.arc_directory = arc_directory
        self.lock = threading.Lock()
        self.header = secrets.token_hex(16)  # IDENTITY_HEADER of App Service
        self.arc_secrets = set()
        self.cache = {}  # (identity, resource) -> (expiry, token)

    def reset(self):
        self.cache.clear()

    def handle(self, request):
        parts = request.segments
        if parts == ["arc"] + METADATA_PATH:
            return self._arc(request)
        if parts == ["msi", "token"]:
            return self._app_service(request)
        if parts == METADATA_PATH:
            return self._imds(request)
        return _refuse(404, "no such endpoint", "not_found")

    def _imds(self, request):
        if request.headers.get("X-Forwarded-For"):
            return _refuse(400, "Requests with X-Forwarded-For are refused")
        if request.headers.get("Metadata", "").lower() != "true":
            return Reply(
                400,
                {"error": "invalid_request",
                 "error_description": "Required metadata header not specified"},
                {"x-ms-error": "bad_request_102"},
            )
        if request.method != "GET":
            return _refuse(405, "GET only", "method_not_allowed")
        if not request.query.get("api-version"):
            return _refuse(400, "Required query variable 'api-version' is missing")
        return self._token(request)

    def _app_service(self, request):
        if request.headers.get("X-IDENTITY-HEADER") != self.header:
            return Reply(401, {"statusCode": 401, "message": "Bad X-IDENTITY-HEADER"})
        if request.query.get("api-version") != "2019-08-01":
            return Reply(400, {"statusCode": 400, "message": "Unsupported api-version"})
        return self._token(request)

    def _arc(self, request):
        if request.headers.get("Metadata", "").lower() != "true":
            return _refuse(400, "Required metadata header not specified")
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        with self.lock:
            known = scheme == "Basic" and secret in self.arc_secrets
            self.arc_secrets.discard(secret)
        if known:
            return self._token(request)
        secret = secrets.token_hex(24)
        path = self.arc_directory / f"{secrets.token_hex(16)}.key"
        self.arc_directory.mkdir(parents=True, exist_ok=True)
        path.write_text(secret)
        path.chmod(0o640)
        with self.lock:
            self.arc_secrets.add(secret)
        return Reply(
            401, {"error": "unauthorized"}, {"WWW-Authenticate": f"Basic realm={path}"}
        )

    def _choose(self, query):
        """The identity that the request means, or None."""
        if not self.app.settings["identity_assigned"]:
            return None
        given = [(name, query[name]) for name in SELECTORS if query.get(name)]
        for identity in self.app.authority.directory["identities"]:
            if not given and identity["system"]:
                return identity
            if given and all(identity[SELECTORS[name]].lower() == v.lower() for name, v in given):
                return identity
        return None

    def _token(self, request):
        resource = request.query.get("resource", "").rstrip("/")
        if not resource:
            return _refuse(400, "Required query variable 'resource' is missing")
        identity = self._choose(request.query)
        if identity is None:
            return _refuse(400, "Identity not found")
        if resource not in (self.app.audience(False), self.app.audience(True)):
            return _refuse(
                400,
                f"AADSTS500011: The resource principal named {resource} was not found in the tenant.",
                "invalid_resource",
            )
        now = self.app.clock.seconds("tokens")
        with self.lock:
            expiry, token = self.cache.get((identity["oid"], resource), (0, None))
            if expiry < now + 300:
                lifetime = int(self.app.settings["identity_token_lifetime"])
                expiry = now + lifetime
                token = self.app.tokens.issue(
                    self.app.authority.tenant, identity | {"appidacr": "2"}, resource, lifetime
                )
                self.cache[(identity["oid"], resource)] = (expiry, token)
        return Reply(
            200,
            {
                "access_token": token,
                "client_id": identity["appid"],
                "expires_in": str(expiry - now),
                "expires_on": str(expiry),
                "ext_expires_in": str(expiry - now),
                "not_before": str(now - 300),
                "resource": resource,
                "token_type": "Bearer",
            },
        )
