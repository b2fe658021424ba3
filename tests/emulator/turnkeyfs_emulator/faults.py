# SPDX-License-Identifier: Apache-2.0
"""
Trouble on request: throttling, server errors, cut connections, slow and hostile answers.

A fault waits for requests that fit it, and is used up after `count` of them (null: never). The
front ends ask before they work (`begin`) and before they answer (`finish`).
"""

import copy
import dataclasses
import json
import threading
import time

from . import errors
from .encoding import parse_object
from .reply import Reply
from .tokens import TOKEN_REFUSALS

# Before the work: the operation isn't carried out.
BEFORE = ("throttle", "status", "redirect")
# A vault refuses the request's token, as if something were wrong with it.
TOKEN = ("token",)
# Carried out, then the answer is spoilt.
AFTER = ("content_type", "body", "json", "patch", "half", "trickle", "chunked")
KINDS = BEFORE + TOKEN + AFTER + ("drop", "reset", "slow")
TARGETS = ("vault", "authority", "identity")


@dataclasses.dataclass
class Fault:
    kind: str
    count: int = 1
    skip: int = 0  # requests that fit and are let pass before
    target: str = "vault"
    vault: str = None
    operation: str = None
    key: str = None
    version: str = None
    value: str = None  # of a request to wrap or unwrap: base64url
    app: str = None  # who asks the authority or the identity service: a client id
    unauthenticated: bool = False  # also requests that bring no token
    # What the kind needs:
    status: int = 500
    code: str = "InternalServerError"
    message: str = "An unexpected error occurred."
    retry_after: object = None
    headers: dict = None
    when: str = "before"  # drop, reset: before or after the work
    ms: int = 0
    content_type: str = "text/html"
    body: str = None
    hostile: str = "deep"
    size: int = 100_000
    set: dict = None
    location: str = None
    reason: str = "expired"

    def fits(self, asked):
        return (
            self.target == asked.target
            and (asked.authenticated or self.unauthenticated or asked.target != "vault")
            and (self.value is None or self.value == asked.value())
            and all(
                wanted is None or wanted.lower() == (found or "").lower()
                for wanted, found in (
                    (self.vault, asked.vault),
                    (self.operation, asked.operation),
                    (self.key, asked.key),
                    (self.version, asked.version),
                    (self.app, asked.app),
                )
            )
        )


@dataclasses.dataclass
class Asked:
    """What faults look at in a request."""

    target: str
    body: bytes = b""
    vault: str = ""
    operation: str = ""
    key: str = ""
    version: str = ""
    app: str = ""
    authenticated: bool = True

    def value(self):
        try:
            return parse_object(self.body).get("value")
        except ValueError:
            return None


class Faults:
    def __init__(self, settings):
        self.settings = settings
        self.lock = threading.Lock()
        self.waiting = []

    def add(self, **fields):
        """ValueError, TypeError if there is no such kind or field."""
        fault = Fault(**fields)
        if fault.kind not in KINDS or fault.target not in TARGETS:
            raise ValueError(f"kind: one of {', '.join(KINDS)}; target: {', '.join(TARGETS)}")
        if fault.kind == "token" and fault.reason not in TOKEN_REFUSALS:
            raise ValueError(f"reason: one of {', '.join(TOKEN_REFUSALS)}")
        if fault.kind == "json" and fault.hostile not in HOSTILE:
            raise ValueError(f"hostile: one of {', '.join(HOSTILE)}")
        with self.lock:
            self.waiting.append(fault)

    def clear(self, **where):
        """Those with these values, or all. ValueError if there is no such field."""
        unknown = set(where) - set(Fault.__dataclass_fields__)
        if unknown:
            raise ValueError(f"no such field: {', '.join(unknown)}")
        with self.lock:
            self.waiting = [
                fault
                for fault in self.waiting
                if any(getattr(fault, name) != value for name, value in where.items())
            ]

    def take(self, asked):
        """The faults for this request: at most one of each kind."""
        taken = {}
        with self.lock:
            for fault in list(self.waiting):
                if fault.kind in taken or not fault.fits(asked):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                taken[fault.kind] = fault
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        self.waiting.remove(fault)
        return taken

    def begin(self, taken):
        """Wait, if told to; the answer that takes the operation's place, or None."""
        if "slow" in taken:
            time.sleep(taken["slow"].ms / 1000)
        for kind in ("drop", "reset"):
            if kind in taken and taken[kind].when == "before":
                return Reply(0, transport="cut" if kind == "drop" else "reset")
        if "throttle" in taken:
            fault = taken["throttle"]
            wait = self.settings["retry_after"] if fault.retry_after is None else fault.retry_after
            refusal = errors.throttled(wait)
            return Reply(429, refusal.body(), refusal.headers | (fault.headers or {}))
        if "status" in taken:
            return _status_reply(taken["status"])
        if "redirect" in taken:
            fault = taken["redirect"]
            status = fault.status if 300 <= fault.status < 400 else 307
            return Reply(status, None, {"Location": fault.location or "https://127.0.0.1:1/"})
        return None

    def finish(self, taken, reply):
        """@reply, spoilt."""
        reply = copy.copy(reply)
        if "patch" in taken and isinstance(reply.body, dict):
            reply.body = reply.body | (taken["patch"].set or {})
        if "json" in taken:
            fault = taken["json"]
            reply.raw = HOSTILE[fault.hostile](reply.body, fault.size)
        if "body" in taken:
            reply.raw = (taken["body"].body or "").encode("utf-8", "surrogateescape")
        if "content_type" in taken:
            reply.content_type = taken["content_type"].content_type
        for kind in ("half", "trickle", "chunked"):
            if kind in taken:
                reply.transport, reply.trickle_ms = kind, taken[kind].ms
        for kind in ("drop", "reset"):
            if kind in taken and taken[kind].when == "after":
                reply.transport = "cut" if kind == "drop" else "reset"
        return reply


def _status_reply(fault):
    headers = dict(fault.headers or {})
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.body is not None:
        return Reply(fault.status, None, headers, raw=fault.body.encode(),
                     content_type=fault.content_type)
    if fault.target == "vault":
        return Reply(fault.status, {"error": {"code": fault.code, "message": fault.message}}, headers)
    body = {"error": fault.code, "error_description": fault.message}
    return Reply(fault.status, body, headers)


# --- answers of a hostile server ------------------------------------------------------------------


def _other_type(value):
    if isinstance(value, dict):
        return [_other_type(v) for v in value.values()]
    if isinstance(value, list):
        return {str(i): _other_type(v) for i, v in enumerate(value)}
    if isinstance(value, str):
        return len(value)
    return str(value)


def _wrong_types(body, _):
    if not isinstance(body, dict):
        return b"[]"
    return json.dumps({name: _other_type(value) for name, value in body.items()}).encode()


def _nulls(body, _):
    return json.dumps(dict.fromkeys(body or {"value": 0})).encode()


def _duplicates(body, _):
    """Each member twice: first a wrong value, then the right one, then the wrong one once more."""
    members = []
    for name, value in (body or {"value": "AAAA"}).items():
        wrong = "AAAA" if isinstance(value, str) else {}
        members += [f"{json.dumps(name)}:{json.dumps(v)}" for v in (wrong, value, wrong)]
    return ("{" + ",".join(members) + "}").encode()


def _deep(_, size):
    return b'{"value":' + b"[" * size + b"]" * size + b"}"


def _deep_objects(_, size):
    return b'{"a":' * size + b"1" + b"}" * size


def _huge(body, size):
    return json.dumps((body or {}) | {"padding": "A" * size}).encode()


def _huge_value(body, size):
    return json.dumps((body or {}) | {"value": "A" * size}).encode()


def _many(body, size):
    return json.dumps((body or {}) | {f"member{i}": i for i in range(size)}).encode()


HOSTILE = {
    "deep": _deep,
    "deep_objects": _deep_objects,
    "huge": _huge,
    "huge_value": _huge_value,
    "many": _many,
    "duplicates": _duplicates,
    "wrong_types": _wrong_types,
    "nulls": _nulls,
    "array": lambda body, _: json.dumps([body]).encode(),
    "string": lambda body, _: b'"just a string"',
    "number": lambda body, _: b"1e999",
    "object": lambda body, _: b"{}",
    "empty": lambda body, _: b"",
    "truncated": lambda body, _: json.dumps(body or {"value": "AAAA"}).encode()[:-7],
    "trailing": lambda body, _: json.dumps(body).encode() + b" and more",
    "html": lambda body, _: b"<html><body>Sign in to the hotel network</body></html>",
    "bad_utf8": lambda body, _: b'{"value":"\xff\xfe\xc0\x80"}',
    "nul": lambda body, _: b'{"value":"\\u0000AAAA","kid":"\\u0000"}',
    "binary": lambda body, size: bytes(range(256)) * (min(size, 65536) // 256),
    "big_numbers": lambda body, _: json.dumps(
        (body or {}) | {"expires_in": 10**40, "attributes": {"exp": 10**40, "enabled": True}}
    ).encode(),
}
