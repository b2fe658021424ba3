# SPDX-License-Identifier: Apache-2.0
"""base64url, JSON from strangers, ISO 8601 durations."""

import base64
import json
import re


def b64url(data):
    """Without padding, as Key Vault and JWT write it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text, allow_padding=False):
    """The bytes of @text; ValueError if it isn't base64url."""
    if allow_padding:
        text = text.rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def int_bytes(number, length=None):
    """Big-endian; without a length: no leading zero octet."""
    return number.to_bytes(length or max(1, (number.bit_length() + 7) // 8), "big")


def int_from_b64url(text):
    return int.from_bytes(unb64url(text), "big")


def parse_object(data):
    """The JSON object in @data; ValueError for anything else, however it is broken."""

    def no_constant(name):
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


# Days, for comparisons: a month counts 30, a year 365.
_DAYS = {"Y": 365, "M": 30, "W": 7, "D": 1}


def duration_days(text):
    """Days in an ISO 8601 duration of the kinds that rotation policies use (P90D, P3M, P2Y)."""
    found = isinstance(text, str) and re.fullmatch(r"P((?:\d{1,5}[YMWD])+)", text)
    if not found:
        raise ValueError("not a duration in years, months, weeks or days")
    return sum(int(n) * _DAYS[unit] for n, unit in re.findall(r"(\d+)([YMWD])", found[1]))
