# SPDX-License-Identifier: Apache-2.0
"""
What stands before the vaults: challenge, token, network, api-version, permission; then the
operation; and the answer with its headers.

Source: Key Vault REST API, "Authentication, requests and responses". The order matters: without
a token nothing of the request is looked at.
"""

import base64
import json
import urllib.parse
import uuid

from . import errors, routes
from .faults import Asked
from .reply import Call, Reply
from .vault import PAGE_LIMIT


class VaultFrontend:
    target = "vault"

    def __init__(self, app):
        self.app = app

    def handle(self, request, record):
        """The Reply; fills @record for the counters."""
        vault_name, is_hsm = self.app.vault_of_host(request.host_name)
        route, key, version = routes.find(request.method, request.segments)
        authenticated = bool(request.headers.get("Authorization"))
        record |= {
            "vault": vault_name,
            "operation": route.operation if route else "unknown",
            "key": key,
            "version": version,
        }
        taken = self.app.faults.take(
            Asked("vault", request.body, vault_name, record["operation"], key, version,
                  authenticated=authenticated)
        )  # fmt: skip
        reply = self.app.faults.begin(taken)
        if reply is None:
            wrong = taken["token"].reason if "token" in taken else None
            reply = self._serve(request, record, vault_name, is_hsm, route, wrong)
        self._add_headers(reply, request)
        return self.app.faults.finish(taken, reply)

    def _serve(self, request, record, vault_name, is_hsm, route, wrong_token):
        try:
            base = f"https://{request.host}"
            call = Call(request, record["operation"], base, record["key"], record["version"])
            call.wrong_token = wrong_token
            body = self._admit_and_run(call, record, vault_name, is_hsm, route)
            return Reply(204 if body is None else 200, body)
        except errors.ServiceError as e:
            record["error"] = e.inner or e.code
            return Reply(e.status, e.body(), dict(e.headers))

    def _admit_and_run(self, call, record, vault_name, is_hsm, route):
        vault = self.app.vaults.get((vault_name, is_hsm))
        tenant = vault.options.tenant if vault else self.app.authority.tenant
        claims = self._authenticate(call, vault_name, is_hsm, tenant)
        record["caller"] = claims["appid"]
        call.claims = claims
        if vault is None:
            raise errors.ServiceError(404, "VaultNotFound", f"There is no vault {vault_name}.")
        self.app.access.check_network(vault_name, call.request.address, claims)
        call.api_version = call.request.query.get("api-version", "")
        if not routes.is_api_version(call.api_version):
            raise errors.bad_parameter(
                f"The specified api-version '{call.api_version}' is missing or not supported."
            )
        if route is None:
            raise errors.bad_parameter(
                f"Method {call.request.method} does not allow operation "
                f"'{'/'.join(call.request.segments)}'"
            )
        self.app.access.check(vault, call.name, claims, route.permission)
        if route.is_list:
            return self._page(route.handler(vault, call), call)
        return route.handler(vault, call)

    # --- authentication --------------------------------------------------------------------------

    def _authenticate(self, call, vault_name, is_hsm, tenant):
        authority = self.app.authority_url(call.request.host_name) + f"/{tenant}"
        challenge = self._challenge(authority, is_hsm)
        claims = self.app.tokens.check(
            call.request.headers.get("Authorization", ""),
            self.app.audience(is_hsm),
            tenant,
            challenge,
            call.wrong_token,
        )
        self.app.claims_challenges.check(vault_name, claims, authority)
        return claims

    def _challenge(self, authority, is_hsm):
        settings = self.app.settings
        authority = settings["challenge_authorization"] or authority
        resource = settings["challenge_resource"] or self.app.audience(is_hsm)
        if settings["challenge_style"] == "scope":
            return f'Bearer authorization="{authority}", scope="{resource}/.default"'
        if settings["challenge_style"] == "authorization_uri":
            return f'Bearer authorization_uri="{authority}", resource="{resource}"'
        return f'Bearer authorization="{authority}", resource="{resource}"'

    # --- lists -----------------------------------------------------------------------------------

    def _page(self, items, call):
        """A page of (id, item), in the order of the ids, as Key Vault sorts them."""
        query, settings = call.request.query, self.app.settings
        limit = _page_limit(query.get("maxresults"))
        after = _skip_token(query.get("$skiptoken"))
        rest = sorted(item for item in items if after is None or item[0] > after)
        shown = rest[:limit]
        if settings["short_pages"]:
            shown = [] if after is None else rest[:1]
        answer = {"value": [item for _, item in shown]}
        if len(shown) < len(rest):
            last = shown[-1][0] if shown else ""
            token = base64.urlsafe_b64encode(json.dumps({"after": last}).encode()).decode()
            path = "/".join(call.request.segments)
            answer["nextLink"] = (
                f"{call.base}/{path}?api-version={call.api_version}"
                f"&$skiptoken={token}&maxresults={limit}"
            )
        elif settings["next_link_end"] != "absent":
            answer["nextLink"] = None if settings["next_link_end"] == "null" else ""
        return answer

    # --- the answer ------------------------------------------------------------------------------

    def _add_headers(self, reply, request):
        client_id = request.headers.get("x-ms-client-request-id")
        reply.headers = {
            "Cache-Control": "no-cache",
            "Pragma": "no-cache",
            "Expires": "-1",
            "x-ms-keyvault-region": "emulated",
            "x-ms-keyvault-service-version": "1.9.0.0",
            "x-ms-keyvault-network-info": f"conn_type=Ipv4;addr={request.address};"
            "act_addr_fam=InterNetwork;",
            "x-ms-request-id": str(uuid.uuid4()),
            "Strict-Transport-Security": "max-age=31536000;includeSubDomains",
            "X-Content-Type-Options": "nosniff",
        } | reply.headers
        if client_id and client_id.isprintable():
            reply.headers["x-ms-client-request-id"] = client_id


def _page_limit(text):
    if text is None:
        return PAGE_LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_LIMIT):
        raise errors.bad_parameter(f"maxresults must be between 1 and {PAGE_LIMIT}")
    return int(text)


def _skip_token(text):
    """The id that the last page ended with; None on the first page."""
    if text is None:
        return None
    try:
        return str(json.loads(base64.urlsafe_b64decode(text))["after"])
    except (ValueError, KeyError, TypeError):
        raise errors.bad_parameter("$skiptoken is not one of ours") from None


def client_id_of(request):
    """Who asks the authority, by the form; or an identity service, by the query."""
    form = urllib.parse.parse_qs(request.body.decode("utf-8", "replace"))
    return form.get("client_id", [""])[0] or request.query.get("client_id", "")


class PlainFrontend:
    """Before the authority and the managed-identity endpoints: faults only."""

    def __init__(self, app, target, service):
        self.app = app
        self.target = target
        self.service = service

    def handle(self, request, record):
        record["operation"] = request.target.partition("?")[0]
        taken = self.app.faults.take(
            Asked(self.target, operation=record["operation"], app=client_id_of(request))
        )
        reply = self.app.faults.begin(taken) or self.service.handle(request)
        if isinstance(reply.body, dict) and "error_codes" in reply.body:
            record["error"] = f"AADSTS{reply.body['error_codes'][0]}"
        reply.headers = {"x-ms-request-id": str(uuid.uuid4())} | reply.headers
        return self.app.faults.finish(taken, reply)
