# SPDX-License-Identifier: Apache-2.0
"""
The control port: POST / with {"op": NAME, ...}, GET / for what there is. Plain http, loopback.

See OPERATIONS at the end for the names, and tests/README.md for examples. An unknown name or
member is a 400: a test that misspells something must not pass.
"""

import inspect
import time
import uuid

from .encoding import parse_object
from .clock import SCOPES
from .reply import Reply
from .settings import DEFAULTS
from .vault import Options


class Control:
    target = "control"

    def __init__(self, app):
        self.app = app

    def handle(self, request, record):
        record["operation"] = "control"
        if request.method == "GET":
            return Reply(200, self.app.ready())
        try:
            body = parse_object(request.body)
            name = body.pop("op", None)
            if name not in OPERATIONS:
                raise ValueError(f"op: one of {', '.join(sorted(OPERATIONS))}")
            operation = OPERATIONS[name]
            inspect.signature(operation).bind(self, **body)
            return Reply(200, operation(self, **body) or {})
        except (ValueError, TypeError, KeyError) as e:
            return Reply(400, {"error": f"{type(e).__name__}: {e}"})

    # --- faults ----------------------------------------------------------------------------------

    def throttle(self, count=1, retryAfter=None, **where):
        self.app.faults.add(kind="throttle", count=count, retry_after=retryAfter, **where)

    def fail(self, status=500, count=1, retryAfter=None, **where):
        self.app.faults.add(
            kind="status", status=status, count=count, retry_after=retryAfter, **where
        )

    def fault(self, **fields):
        self.app.faults.add(**fields)

    def clear_faults(self, **where):
        self.app.faults.clear(**where)

    # --- access ----------------------------------------------------------------------------------

    def _rule(self, allow, delay, vault, key, app, permissions, role):
        self.app.access.add_rule(allow, delay, vault, key, app, permissions, role)

    def grant(self, vault=None, key=None, app=None, permissions=None, role=None, delay=0):
        self._rule(True, delay, vault, key, app, permissions, role)

    def revoke(self, vault=None, key=None, app=None, permissions=None, role=None, delay=0):
        self._rule(False, delay, vault, key, app, permissions, role)

    def firewall(self, on=True, vault=None, delay=0):
        self.app.access.set_network(vault, "firewall" if on else None, delay)

    def connection(self, on=True, vault=None, delay=0):
        self.app.access.set_network(vault, "connection" if on else None, delay)

    # --- tokens and identities -------------------------------------------------------------------

    def cae(self, vault=None):
        """Refuse tokens until one answers a claims challenge."""
        self.app.claims_challenges.demand(vault, f"{time.time_ns()}")

    def signing_key(self, keep_old=False):
        """New tokens by a new key; the old tokens are refused at once unless kept."""
        self.app.tokens.rotate_key(keep_old)
        if not keep_old:
            self.app.identity.reset()

    def application(self, certificate=False):
        """One more application, until a reset: its ids and credentials."""
        made = self.app.authority.new_application(certificate)
        return {name: made[name] for name in ("appid", "oid", "secret")} | {
            "pem": made["certificate_key"] + made["certificate"]
        }

    def managed_identity(self):
        """One more user-assigned identity, until a reset."""
        return self.app.authority.new_identity()

    def client(self, appid=None, **changes):
        """
        Of an application, by default the first: secret_expired, disabled, deleted: true or false;
        secret, certificate: new ones.
        """
        client = self.app.authority.find_application(appid)
        unknown = set(changes) - {"secret_expired", "disabled", "deleted", "secret", "certificate"}
        if unknown:
            raise ValueError(f"no such member: {', '.join(unknown)}")
        client.update(changes)
        self.app.authority.save()
        self.app.write_ready()

    def federated_token(self, lifetime=3600, **claims):
        """Replace the federated token's file; the token, too."""
        token = self.app.authority.federated_token(lifetime, **claims)
        self.app.state.write("federated-token", token.encode())
        return {"token": token}

    def token(self, resource=None, tenant=None, lifetime=3600, app=None):
        """A token made to measure; @tenant: main, other, or an id."""
        authority = self.app.authority
        tenants = {None: authority.tenant, "other": authority.directory["other_tenant"]}
        principal = authority.client | ({"appid": app} if app else {})
        resource = resource or self.app.audience(False)
        issued = self.app.tokens.issue(tenants.get(tenant, tenant), principal, resource, lifetime)
        return {"token": issued}

    # --- vaults, time, behaviour -----------------------------------------------------------------

    def vault(self, name=None, hsm=False, **options):
        """Make a vault, or change its options; its URL."""
        name = name or f"v{uuid.uuid4().hex[:12]}"
        unknown = set(options) - set(Options.__dataclass_fields__)
        if unknown:
            raise ValueError(f"no such option: {', '.join(unknown)}")
        vault = self.app.make_vault(name, hsm, options)
        return {"name": name, "url": self.app.vault_url(vault)}

    def clock(self, shift=None, advance=None, scopes=("keys", "tokens")):
        """@shift: seconds from the real time; @advance: from the present shift."""
        unknown = set(scopes) - set(SCOPES)
        if unknown or (shift is None) == (advance is None):
            raise ValueError(f"shift or advance; scopes: of {', '.join(SCOPES)}")
        relative = shift is None
        self.app.clock.shift(advance if relative else shift, scopes, relative)
        return {"shifts": self.app.clock.shifts}

    def settings(self, **values):
        self.app.settings.update(values)
        return {"settings": self.app.settings.values, "defaults": DEFAULTS}

    def certificate(self, kind="good"):
        """What new TLS connections are shown: good, expired, wrong_name, ..."""
        self.app.certificates.use(kind)

    # --- what happened ---------------------------------------------------------------------------

    def counters(self, reset=False):
        snapshot = self.app.counters.snapshot()
        if reset:
            self.app.counters.reset()
        return snapshot

    def requests(self, count=100):
        return {"requests": self.app.counters.last_requests(count)}

    def tokens_seen(self):
        """{host:port: the last Authorization header seen there}; the last client assertions."""
        counters = self.app.counters
        return {"tokens": dict(counters.tokens), "assertions": list(counters.assertions)}

    def reset(self):
        """All hooks, rules, shifts, settings and counters; keys stay."""
        self.app.reset()


OPERATIONS = {
    name: function
    for name, function in vars(Control).items()
    if inspect.isfunction(function) and not name.startswith("_") and name != "handle"
}
