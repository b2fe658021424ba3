# SPDX-License-Identifier: Apache-2.0
"""The time, which tests can shift: separately for what each of the parties goes by."""

import threading
import time

# keys: exp, nbf, deletion, rotation. tokens: issue and check of access tokens.
# assertions: the authority's check of a client's assertion. date: the Date header.
SCOPES = ("keys", "tokens", "assertions", "date")


class Clock:
    def __init__(self):
        self.lock = threading.Lock()
        self.shifts = dict.fromkeys(SCOPES, 0.0)

    def now(self, scope="keys"):
        """Unix seconds, with a fraction."""
        return time.time() + self.shifts[scope]

    def seconds(self, scope="keys"):
        return int(self.now(scope))

    def shift(self, seconds, scopes, relative=False):
        with self.lock:
            for scope in scopes:
                self.shifts[scope] = seconds + (self.shifts[scope] if relative else 0)
