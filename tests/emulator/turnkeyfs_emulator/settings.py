# SPDX-License-Identifier: Apache-2.0
"""
Behaviours that the documentation leaves open, or that a test may want otherwise.

Each is a switch: control operation `settings`, or `--set NAME=VALUE` (the value in JSON).
"""

DEFAULTS = {
    # Doubtful behaviours of the service.
    "get_disabled": 200,  # GET of a disabled version: 200 or 403
    "public_key_disabled": 403,  # wrap, encrypt, verify with a disabled version: 403 or 200
    "expired_inner": "KeyExpired",  # inner code of a wrap with an expired key, or null
    "not_yet_valid_inner": "KeyNotYetValid",
    "unknown_versions": 200,  # versions of an unknown key: 200 (empty) or 404
    "retry_after": None,  # seconds in a 429 whose hook doesn't say; null: no header
    "add_notify": True,  # PUT of a policy with only Rotate adds Notify P30D
    "accept_padding": False,  # base64url with `=` in requests
    "next_link_end": "absent",  # the last page's nextLink: absent, null or empty
    "short_pages": False,  # pages may hold fewer items than asked for, even none
    "policy_inner": "ForbiddenByPolicy",  # AccessDenied was seen, too
    # Times, in seconds.
    "delete_delay": 1,  # from DELETE until the key is under /deletedkeys
    "recover_delay": 1,  # from recover until the key is back
    "leeway": 300,  # nbf, exp: how much clock skew is forgiven
    "token_lifetime": 3599,
    "identity_token_lifetime": 86399,
    "identity_assigned": True,  # whether the machine has a managed identity at all
    # The challenge; null: the right values.
    "challenge_style": "resource",  # resource, scope, or authorization_uri with resource
    "challenge_resource": None,
    "challenge_authorization": None,
}


class Settings:
    def __init__(self):
        self.values = dict(DEFAULTS)

    def __getitem__(self, name):
        return self.values[name]

    def update(self, values):
        """ValueError if one is unknown or of another type."""
        for name, value in values.items():
            if name not in DEFAULTS:
                raise ValueError(f"no such setting: {name}")
            default = DEFAULTS[name]
            number = isinstance(default, (int, float)) and not isinstance(default, bool)
            allowed = (int, float) if number else type(default)
            if default is not None and value is not None and not isinstance(value, allowed):
                raise ValueError(f"setting {name}: {value!r} is not of the right type")
        self.values.update(values)

    def reset(self):
        self.values = dict(DEFAULTS)
