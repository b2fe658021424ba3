# SPDX-License-Identifier: Apache-2.0
"""
Access tokens: issued by the authority and the managed-identity endpoints, checked by the vaults.

Source: Microsoft identity platform, "Access tokens" (v1.0: issuer https://sts.windows.net/TENANT/);
the refusals are answers recorded from Key Vault.
"""

import base64
import json
import threading
import uuid

from cryptography.hazmat.primitives.asymmetric import rsa

from . import errors, jwt
from .certificates import key_pem, load_key
from .encoding import b64url, int_bytes

SKEW = 300  # how far a token's nbf may lie ahead

# What a good token is taken for when a test wants it refused: see Tokens.check.
TOKEN_REFUSALS = ("missing", "signature", "expired", "not_yet_valid", "tenant", "audience")


def issuer_of(tenant):
    return f"https://sts.windows.net/{tenant}/"


class Tokens:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()
        stored = app.state.read_json("token-keys.json") or {}
        self.keys = {kid: load_key(pem.encode()) for kid, pem in stored.items()}  # oldest first
        if not self.keys:
            self._add_key()

    def _add_key(self):
        self.keys[uuid.uuid4().hex] = rsa.generate_private_key(65537, 2048)
        self.app.state.write_json(
            "token-keys.json", {kid: key_pem(key).decode() for kid, key in self.keys.items()}
        )

    def rotate_key(self, keep_old):
        """New tokens are signed by a new key; those of the old ones are refused unless kept."""
        with self.lock:
            if not keep_old:
                self.keys.clear()
            self._add_key()

    def jwks(self):
        with self.lock:
            found = []
            for kid, key in self.keys.items():
                numbers = key.public_key().public_numbers()
                found.append(
                    {"kty": "RSA", "use": "sig", "kid": kid, "x5t": kid, "alg": "RS256",
                     "n": b64url(int_bytes(numbers.n)), "e": b64url(int_bytes(numbers.e))}
                )
            return {"keys": found}

    def issue(self, tenant, principal, resource, lifetime, claims_request=None):
        """A token for @principal ({"appid", "oid"}). @claims_request: the `claims` of the request."""
        now = self.app.clock.seconds("tokens")
        with self.lock:
            kid, key = list(self.keys.items())[-1]
        claims = {
            "aud": resource,
            "iss": issuer_of(tenant),
            "iat": now,
            "nbf": now,
            "exp": now + int(lifetime),
            "appid": principal["appid"],
            "appidacr": principal.get("appidacr", "1"),
            "idp": issuer_of(tenant),
            "oid": principal["oid"],
            "sub": principal["oid"],
            "tid": tenant,
            "uti": uuid.uuid4().hex,
            "ver": "1.0",
        }
        wanted = (claims_request or {}).get("access_token")
        if isinstance(wanted, dict):
            if "cp1" in str(wanted.get("xms_cc")):
                claims["xms_cc"] = ["cp1"]
            if isinstance(wanted.get("nbf"), dict):
                claims["emulator_answers"] = str(wanted["nbf"].get("value"))
        return jwt.sign({"typ": "JWT", "alg": "RS256", "kid": kid, "x5t": kid}, claims, key)

    def check(self, authorization, audience, tenant, challenge, pretend=None):
        """
        The claims of a request's token, or a 401 with @challenge.

        @pretend: of TOKEN_REFUSALS: check a good token in a world where it is that.
        """
        if pretend == "missing":
            authorization = ""
        if pretend == "audience":
            audience = "https://elsewhere.invalid"
        if pretend == "tenant":
            tenant = self.app.authority.directory["other_tenant"]
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise errors.unauthorized(
                "AKV10000: Request is missing a Bearer or PoP token.", challenge
            )
        try:
            header, claims, _, _ = jwt.parse(token.strip())
            key = self.keys.get(header.get("kid"))
            good = key is not None and jwt.verify(token.strip(), key.public_key())
            good = good and pretend != "signature"
        except (ValueError, TypeError):
            raise errors.unauthorized("AKV10001: Error validating token: not a JWT.", challenge)
        if not good:
            raise errors.unauthorized(
                "[TokenInvalid] Error validating token: 'S2S12005'. Unknown key or bad signature.",
                challenge,
            )
        now = self.app.clock.now("tokens")
        if pretend == "expired":
            now = claims["exp"]
        if pretend == "not_yet_valid":
            now = claims["nbf"] - SKEW - 1
        if now >= claims["exp"]:
            raise errors.unauthorized(
                "[TokenExpired] Error validating token: 'S2S12086'.", challenge
            )
        if claims["nbf"] > now + SKEW:
            raise errors.unauthorized("Token not yet valid", challenge)
        if claims["iss"] != issuer_of(tenant) or claims["tid"] != tenant:
            raise errors.unauthorized(
                f"AKV10032: Invalid issuer. Expected one of {issuer_of(tenant)}, "
                f"found {claims['iss']}.",
                challenge,
            )
        if claims["aud"].rstrip("/") != audience:
            raise errors.unauthorized(
                f"AKV10022: Invalid audience. Expected {audience}, found: {claims['aud']}.",
                challenge,
            )
        return claims


class ClaimsChallenges:
    """Continuous access evaluation: a vault that wants a token which answers its challenge."""

    def __init__(self):
        self.wanted = {}  # vault name or None (all) -> value

    def demand(self, vault, value):
        self.wanted[vault] = value

    def check(self, vault, claims, authority):
        for value in (self.wanted.get(vault), self.wanted.get(None)):
            if value is not None and claims.get("emulator_answers") != value:
                request = {"access_token": {"nbf": {"essential": True, "value": value}}}
                text = base64.b64encode(json.dumps(request).encode()).decode()
                raise errors.unauthorized(
                    "AKV10094: Continuous access evaluation wants a new token.",
                    f'Bearer realm="", authorization_uri="{authority}/oauth2/authorize", '
                    f'error="insufficient_claims", claims="{text}"',
                )
