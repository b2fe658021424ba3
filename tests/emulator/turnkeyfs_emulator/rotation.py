# SPDX-License-Identifier: Apache-2.0
"""
Rotation policies.

Source: Key Vault REST API, "Update Key Rotation Policy"; "Configure cryptographic key
auto-rotation in Azure Key Vault" and "... in Managed HSM".
"""

from . import errors
from .encoding import duration_days

DAY = 86400
NOTIFY = {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}


def _bad(what):
    return errors.bad_parameter(f"Invalid rotation policy: {what}")


def _days(text, minimum, what):
    try:
        days = duration_days(text)
    except ValueError as e:
        raise _bad(f"{what} is {e}") from None
    if days < minimum:
        raise _bad(f"{what} must be at least {minimum} days")
    return days


def check(body, is_hsm, add_notify):
    """The policy in a PUT's body, as it is kept: {"lifetimeActions", "expiryTime"}."""
    actions, attributes = body.get("lifetimeActions") or [], body.get("attributes") or {}
    if not isinstance(actions, list) or not isinstance(attributes, dict):
        raise _bad("lifetimeActions is a list, attributes an object")
    minimum = 28 if is_hsm else 7
    expiry = attributes.get("expiryTime")
    expiry_days = None if expiry is None else _days(expiry, 28, "expiryTime")
    kept = [_check_action(action, minimum, expiry_days) for action in actions]
    kinds = [action["action"]["type"] for action in kept]
    if len(set(kinds)) != len(kinds):
        raise _bad("at most one action of a type")
    if kinds == ["Rotate"] and add_notify:
        kept.append(NOTIFY)
    return {"lifetimeActions": kept, "expiryTime": expiry}


def _check_action(action, minimum, expiry_days):
    if not isinstance(action, dict):
        raise _bad("an action is an object")
    trigger, kind = action.get("trigger"), action.get("action")
    kind = kind.get("type") if isinstance(kind, dict) else None
    if not isinstance(kind, str) or kind.lower() not in ("rotate", "notify"):
        raise _bad("an action's type is Rotate or Notify")
    kind = kind.capitalize()
    set_times = {n: v for n, v in trigger.items() if v} if isinstance(trigger, dict) else {}
    if len(set_times) != 1 or not set_times.keys() <= {"timeAfterCreate", "timeBeforeExpiry"}:
        raise _bad("a trigger has timeAfterCreate or timeBeforeExpiry")
    ((name, text),) = set_times.items()
    days = _days(text, minimum, name)
    if kind == "Notify" and name == "timeAfterCreate":
        raise _bad("Notify takes timeBeforeExpiry")
    if kind == "Rotate" and name == "timeBeforeExpiry" and expiry_days is None:
        raise _bad("Rotate by timeBeforeExpiry needs expiryTime")
    if expiry_days is not None and days >= expiry_days:
        raise _bad(f"{name} must be below expiryTime")
    return {"trigger": {name: text}, "action": {"type": kind}}


def due(key, now):
    """Whether the policy wants a new version by now."""
    for action in (key.policy or {}).get("lifetimeActions", ()):
        if action["action"]["type"] != "Rotate":
            continue
        ((name, text),) = action["trigger"].items()
        span = duration_days(text) * DAY
        if name == "timeAfterCreate" and now >= key.newest.created + span:
            return True
        if name == "timeBeforeExpiry" and key.newest.exp and now >= key.newest.exp - span:
            return True
    return False


def expiry_of_new_version(key, now):
    expiry = (key.policy or {}).get("expiryTime")
    return now + duration_days(expiry) * DAY if expiry else None


def policy_json(key, call):
    policy = key.policy or {"lifetimeActions": [NOTIFY], "expiryTime": None}
    attributes = {n: policy[n] for n in ("created", "updated") if n in policy}
    if policy["expiryTime"]:
        attributes["expiryTime"] = policy["expiryTime"]
    return {
        "id": f"{call.base}/keys/{key.name}/rotationpolicy",
        "lifetimeActions": policy["lifetimeActions"],
        "attributes": attributes,
    }
