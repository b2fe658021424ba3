# SPDX-License-Identifier: Apache-2.0
"""A request as the front ends see it, and what they answer."""

import dataclasses
import json
import urllib.parse

from . import errors
from .encoding import parse_object


@dataclasses.dataclass
class Request:
    method: str
    target: str  # as in the request line
    headers: object  # of http.client: get() without regard to case
    body: bytes
    address: str
    connection: int  # a number for each TCP connection
    host: str  # the Host header, with the port
    server_name: str = None  # TLS: SNI

    def __post_init__(self):
        path, _, query = self.target.partition("?")
        # Empty segments are dropped: clients send /keys/n/ and /keys/n//wrapkey.
        self.segments = [urllib.parse.unquote(s, errors="replace") for s in path.split("/") if s]
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    @property
    def host_name(self):
        """Without the port, lower case."""
        return urllib.parse.urlsplit(f"//{self.host}").hostname or ""


@dataclasses.dataclass
class Call:
    """One operation on a vault."""

    request: Request
    operation: str
    base: str  # https://HOST:PORT
    name: str = ""
    version: str = ""
    api_version: str = ""
    claims: dict = None
    wrong_token: str = None  # a reason of tokens.TOKEN_REFUSALS to refuse it

    def json(self):
        """The body; BadParameter if it isn't a JSON object."""
        try:
            return parse_object(self.request.body)
        except ValueError as e:
            raise errors.bad_parameter(f"The request body is not valid JSON: {e}") from None


@dataclasses.dataclass
class Reply:
    """@body: JSON to be, or None for an empty answer. @raw: sent in place of it."""

    status: int
    body: object = None
    headers: dict = dataclasses.field(default_factory=dict)
    raw: bytes = None
    content_type: str = "application/json; charset=utf-8"
    # How the bytes travel: "", cut (no answer), reset, half, trickle, chunked.
    transport: str = ""
    trickle_ms: int = 0

    def encoded(self):
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()
