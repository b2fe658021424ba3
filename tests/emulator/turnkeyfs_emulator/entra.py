# SPDX-License-Identifier: Apache-2.0
"""
The Entra ID authority: OpenID configuration, JWKS, and the token endpoints v1 and v2 with
client_credentials: secret, certificate (RS256, PS256; x5t, x5t#S256) and federated token.

Source: Microsoft identity platform, "OAuth 2.0 client credentials flow", "Certificate
credentials", "Workload identity federation", "Authentication and authorization error codes".
"""

import datetime
import hashlib
import json
import secrets
import time
import urllib.parse
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from . import jwt
from .certificates import client_certificate, key_pem, load_key, pem_of
from .encoding import b64url, parse_object
from .reply import Reply

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FEDERATION_AUDIENCE = "api://AzureADTokenExchange"
FEDERATION_ISSUER = "https://kubernetes.invalid/emulated"
FEDERATION_SUBJECT = "system:serviceaccount:default:turnkeyfs"
SKEW = 300


class TokenError(Exception):
    """An answer of the token endpoint that isn't a token."""

    def __init__(self, status, error, number, text):
        super().__init__(text)
        self.status, self.error, self.number, self.text = status, error, number, text

    def reply(self):
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        return Reply(
            self.status,
            {
                "error": self.error,
                "error_description": f"AADSTS{self.number}: {self.text} Trace ID: {trace} "
                f"Correlation ID: {correlation} Timestamp: {now}",
                "error_codes": [self.number],
                "timestamp": now,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": f"https://login.invalid/error?code={self.number}",
            },
        )


def _new_directory():
    """Two tenants; one application with every kind of credential; managed identities."""
    federation = rsa.generate_private_key(65537, 2048)
    return {
        "tenant": str(uuid.uuid4()),
        "other_tenant": str(uuid.uuid4()),
        "apps": [_new_application(True)],
        "federation_key": key_pem(federation).decode(),
        "identities": [_new_identity(name) for name in ("system", "user-assigned")],
    }


def _new_application(with_certificate):
    """With every kind of credential; making a certificate's key takes a while."""
    key, certificate = client_certificate("turnkeyfs-client") if with_certificate else (None, None)
    return {
        "appid": str(uuid.uuid4()),
        "oid": str(uuid.uuid4()),
        "secret": secrets.token_urlsafe(30),
        "secret_expired": False,
        "disabled": False,
        "deleted": False,
        "certificate": pem_of(certificate).decode() if certificate else "",
        "certificate_key": key_pem(key).decode() if key else "",
    }


def _new_identity(name):
    return {
        "appid": str(uuid.uuid4()),
        "oid": str(uuid.uuid4()),
        "resource_id": "/subscriptions/emulated/resourcegroups/emulated/providers/"
        f"Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
        "system": name == "system",
    }


class Authority:
    def __init__(self, app):
        self.app = app
        self.directory = app.state.read_json("entra.json")
        if self.directory is None:
            self.directory = _new_directory()
            self.save()
        self.federation_key = load_key(self.directory["federation_key"].encode())
        self.write_credentials()

    def save(self):
        self.app.state.write_json("entra.json", self.directory)

    @property
    def tenant(self):
        return self.directory["tenant"]

    @property
    def client(self):
        return self.directory["apps"][0]

    def new_application(self, with_certificate):
        """One more, for clients that are to be refused one by one; gone with a reset."""
        self.directory["apps"].append(_new_application(with_certificate))
        return self.directory["apps"][-1]

    def new_identity(self):
        """One more user-assigned managed identity."""
        self.directory["identities"].append(_new_identity(str(uuid.uuid4())))
        return self.directory["identities"][-1]

    def find_application(self, appid):
        """The first one for None. ValueError if there is no such application."""
        for application in self.directory["apps"]:
            if appid in (None, application["appid"]):
                return application
        raise ValueError(f"no application {appid}")

    def reset(self):
        del self.directory["apps"][1:], self.directory["identities"][2:]
        self.client.update(secret_expired=False, disabled=False, deleted=False)

    def write_credentials(self):
        """What a client authenticates with, as files."""
        client = self.client
        pem = client["certificate_key"] + client["certificate"]
        self.app.state.write("client.pem", pem.encode())
        self.app.state.write("federated-token", self.federated_token().encode())

    def federated_token(self, lifetime=3600, **claims):
        """What Kubernetes would put into AZURE_FEDERATED_TOKEN_FILE."""
        now = int(time.time())
        standard = {
            "iss": FEDERATION_ISSUER,
            "sub": FEDERATION_SUBJECT,
            "aud": [FEDERATION_AUDIENCE],
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": "federation"}
        return jwt.sign(header, standard | claims, self.federation_key)

    # --- requests --------------------------------------------------------------------------------

    def handle(self, request):
        base = f"https://{request.host}"
        parts = request.segments
        if request.method == "GET" and parts[1:] == ["discovery", "instance"]:
            return self._instance_discovery(request, base)
        if len(parts) >= 2 and parts[-2:] == ["discovery", "keys"] or parts[-1:] == ["keys"]:
            return Reply(200, self.app.tokens.jwks())
        if request.method == "GET" and parts[1:] == ["v2.0", ".well-known", "openid-configuration"]:
            return self._configuration(parts[0], base)
        if parts[1:] in (["oauth2", "v2.0", "token"], ["oauth2", "token"]):
            if request.method != "POST":
                return TokenError(400, "invalid_request", 900561, "POST only.").reply()
            return self._token_reply(request, base, v2="v2.0" in parts)
        return Reply(404, {"error": "not_found", "error_description": "no such endpoint"})

    def _instance_discovery(self, request, base):
        host = request.host
        asked = urllib.parse.urlsplit(request.query.get("authorization_endpoint", "")).path
        tenant = (asked.split("/") + ["", "common"])[1] or "common"
        return Reply(
            200,
            {
                "tenant_discovery_endpoint": f"{base}/{tenant}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [
                    {"preferred_network": host, "preferred_cache": host, "aliases": [host]}
                ],
            },
        )

    def _known_tenant(self, tenant):
        if tenant not in (self.tenant, self.directory["other_tenant"]):
            raise TokenError(
                400, "invalid_request", 90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.",
            )

    def _configuration(self, tenant, base):
        try:
            self._known_tenant(tenant)
        except TokenError as e:
            return e.reply()
        return Reply(
            200,
            {
                "token_endpoint": f"{base}/{tenant}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post", "private_key_jwt", "client_secret_basic"],
                "jwks_uri": f"{base}/{tenant}/discovery/v2.0/keys",
                "response_types_supported": ["code", "id_token", "token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid"],
                "issuer": f"{base}/{tenant}/v2.0",
                "authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/devicecode",
                "end_session_endpoint": f"{base}/{tenant}/oauth2/v2.0/logout",
                "tenant_region_scope": None,
            },
        )

    def _token_reply(self, request, base, v2):
        try:
            return self._token(request, base, v2)
        except TokenError as e:
            return e.reply()

    def _token(self, request, base, v2):
        tenant = request.segments[0]
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        form = {}
        if kind == "application/x-www-form-urlencoded":
            text = request.body.decode("utf-8", "replace")
            form = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        for name in ("grant_type", "client_id", "scope" if v2 else "resource"):
            if not form.get(name):
                raise TokenError(
                    400, "invalid_request", 900144,
                    f"The request body must contain the following parameter: '{name}'.",
                )
        self._known_tenant(tenant)
        if form["grant_type"] != "client_credentials":
            raise TokenError(
                400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."
            )
        client = self._find_client(form["client_id"], tenant)
        endpoints = {f"{base}/{tenant}/{rest}" for rest in ("oauth2/v2.0/token", "oauth2/token", "v2.0")}
        self._check_credential(client, form, endpoints)
        resource = self._resource(form, v2)
        claims = self._claims(form)
        lifetime = self.app.settings["token_lifetime"]
        token = self.app.tokens.issue(tenant, client, resource, lifetime, claims)
        answer = {
            "token_type": "Bearer",
            "expires_in": int(lifetime),
            "ext_expires_in": int(lifetime),
            "access_token": token,
        }
        if not v2:
            now = self.app.clock.seconds("tokens")
            answer |= {"expires_in": str(int(lifetime)), "ext_expires_in": str(int(lifetime)),
                       "expires_on": str(now + int(lifetime)), "not_before": str(now),
                       "resource": resource}
        return Reply(200, answer, {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"})

    def _find_client(self, appid, tenant):
        for client in self.directory["apps"]:
            if client["appid"].lower() == appid.lower() and not client["deleted"]:
                if client["disabled"]:
                    raise TokenError(
                        400, "unauthorized_client", 7000112, f"Application '{appid}' is disabled."
                    )
                return client
        raise TokenError(
            400, "unauthorized_client", 700016,
            f"Application with identifier '{appid}' was not found in the directory '{tenant}'.",
        )

    def _resource(self, form, v2):
        known = {self.app.audience(is_hsm) for is_hsm in (False, True)}
        known |= {"https://vault.azure.net", "https://managedhsm.azure.net", "https://graph.microsoft.com"}
        resource = form.get("resource", "")
        if v2:
            scope = form["scope"]
            if not scope.endswith("/.default"):
                raise TokenError(
                    400, "invalid_scope", 1002012,
                    f"The provided value for scope {scope} is not valid. Client credential flows "
                    "must have a scope value with /.default suffixed to the resource identifier.",
                )
            resource = scope.removesuffix("/.default")
        if resource.rstrip("/") not in known:
            raise TokenError(
                400, "invalid_resource", 500011,
                f"The resource principal named {resource} was not found in the tenant.",
            )
        return resource.rstrip("/")

    def _claims(self, form):
        try:
            return parse_object(form["claims"].encode()) if form.get("claims") else {}
        except ValueError:
            raise TokenError(400, "invalid_request", 50149, "claims is not JSON.") from None

    # --- credentials -----------------------------------------------------------------------------

    def _check_credential(self, client, form, endpoints):
        if form.get("client_assertion"):
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                raise TokenError(
                    400, "invalid_request", 900144,
                    "The request body must contain the following parameter: 'client_assertion_type'.",
                )
            self._check_assertion(client, form["client_assertion"], endpoints)
        elif form.get("client_secret"):
            if client["secret_expired"]:
                raise TokenError(
                    401, "invalid_client", 7000222,
                    f"The provided client secret keys for app '{client['appid']}' are expired.",
                )
            if not secrets.compare_digest(form["client_secret"].encode(), client["secret"].encode()):
                raise TokenError(
                    401, "invalid_client", 7000215,
                    "Invalid client secret provided. Ensure the secret being sent in the request "
                    "is the client secret value, not the client secret ID.",
                )
        else:
            raise TokenError(
                401, "invalid_client", 7000218,
                "The request body must contain the following parameter: 'client_assertion' or "
                "'client_secret'.",
            )

    def _check_assertion(self, client, assertion, endpoints):
        try:
            header, claims, _, _ = jwt.parse(assertion)
            if claims.get("iss") == FEDERATION_ISSUER:
                self._check_federated(assertion, claims)
            else:
                self._check_certificate(client, assertion, header, claims, endpoints)
            self._check_times(claims)
        except (ValueError, TypeError, KeyError) as e:
            raise TokenError(
                401, "invalid_client", 50027, f"JWT token is invalid or malformed: {e}."
            ) from None

    def _check_certificate(self, client, assertion, header, claims, endpoints):
        certificate = x509.load_pem_x509_certificate(client["certificate"].encode())
        der = certificate.public_bytes(serialization.Encoding.DER)
        prints = {
            "x5t#S256": b64url(hashlib.sha256(der).digest()),
            "x5t": b64url(hashlib.sha1(der).digest()),
        }
        given = {name: header[name] for name in prints if name in header}
        if not given or any(prints[name] != value for name, value in given.items()):
            raise TokenError(
                401, "invalid_client", 700027,
                "The certificate with identifier used to sign the client assertion is not "
                f"registered on application. [Reason - The key was not found., Found {given}]",
            )
        if not jwt.verify(assertion, certificate.public_key()):
            raise TokenError(
                401, "invalid_client", 700027, "Client assertion failed signature validation."
            )
        if claims.get("iss") != client["appid"] or claims.get("sub") != client["appid"]:
            raise TokenError(
                401, "invalid_client", 700021,
                "Client assertion application identifier doesn't match 'client_id' parameter.",
            )
        if claims.get("aud") not in endpoints:
            raise TokenError(
                401, "invalid_client", 700023,
                f"Client assertion audience claim does not match. Review {sorted(endpoints)}.",
            )
        if not claims.get("jti"):
            raise TokenError(401, "invalid_client", 50027, "JWT token is malformed: no jti.")

    def _check_federated(self, assertion, claims):
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not jwt.verify(assertion, self.federation_key.public_key()):
            raise TokenError(
                401, "invalid_client", 5002727, "The assertion's signature could not be validated."
            )
        if FEDERATION_AUDIENCE not in audiences:
            raise TokenError(
                401, "invalid_client", 700212,
                f"No matching federated identity record found for presented assertion audience "
                f"'{audience}'.",
            )
        if claims.get("sub") != FEDERATION_SUBJECT:
            raise TokenError(
                401, "invalid_client", 700213,
                "No matching federated identity record found for presented assertion subject "
                f"'{claims.get('sub')}'.",
            )

    def _check_times(self, claims):
        now = self.app.clock.now("assertions")
        begin, end = claims.get("nbf", claims.get("iat", 0)), claims["exp"]
        if not begin - SKEW <= now < end + SKEW:
            raise TokenError(
                401, "invalid_client", 700024,
                "Client assertion is not within its valid time range. Current time: "
                f"{int(now)}, assertion valid from {json.dumps(begin)}, expiry {json.dumps(end)}.",
            )
