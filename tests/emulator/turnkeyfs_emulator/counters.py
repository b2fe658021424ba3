# SPDX-License-Identifier: Apache-2.0
"""What happened: calls by operation, key and version, the last requests, tokens by host."""

import collections
import threading
import urllib.parse

LAST = 2000


class Counters:
    def __init__(self):
        self.lock = threading.Lock()
        self.in_flight = 0
        self.internal_errors = []  # never reset: a fault of the emulator itself
        self.reset()

    def reset(self):
        with self.lock:
            self.calls = collections.Counter()  # (target, vault, operation, key, version, status)
            self.requests = collections.deque(maxlen=LAST)
            self.tokens = {}  # host:port -> the last Authorization header seen there
            self.assertions = collections.deque(maxlen=LAST)  # that clients showed the authority
            self.connections = set()
            self.opened = collections.Counter()  # connections by target
            self.handshakes_failed = 0
            self.most_in_flight = 0

    def connection_opened(self, target):
        with self.lock:
            self.opened[target] += 1

    def handshake_failed(self):
        with self.lock:
            self.handshakes_failed += 1

    def began(self, target):
        if target == "control":
            return
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def ended(self, target, request, reply, record):
        """@record: vault, operation, key, version, and whatever else the front end knows."""
        if target == "control":
            return
        kid = ""
        if isinstance(reply.body, dict):
            bundle = reply.body.get("key")
            kid = reply.body.get("kid") or (bundle.get("kid") if isinstance(bundle, dict) else "")
        used = str(kid).rsplit("/", 1)[-1] if "/keys/" in str(kid) else ""
        version = record.get("version") or used
        with self.lock:
            self.in_flight -= 1
            self.connections.add(request.connection)
            authorization = request.headers.get("Authorization")
            if authorization:
                self.tokens[request.host] = authorization
            if target == "authority" and b"client_assertion=" in request.body:
                form = urllib.parse.parse_qs(request.body.decode("ascii", "replace"))
                self.assertions += form["client_assertion"]
            self.calls[
                target,
                record.get("vault", ""),
                record.get("operation", ""),
                record.get("key", ""),
                version,
                reply.status,
            ] += 1
            self.requests.append(
                {
                    "target": target,
                    "method": request.method,
                    "path": request.target,
                    "host": request.host,
                    "status": reply.status,
                    "connection": request.connection,
                    "server_name": request.server_name,
                    "authenticated": bool(authorization),
                    "body_length": len(request.body),
                    "user_agent": request.headers.get("User-Agent"),
                    "request_id": reply.headers.get("x-ms-request-id"),
                    "client_request_id": request.headers.get("x-ms-client-request-id"),
                }
                | record
                | {"version": version}
            )

    def failed(self, text):
        with self.lock:
            self.internal_errors.append(text)

    def snapshot(self):
        with self.lock:
            answer = {
                "total": 0,
                "by_operation": {},
                "by_key": {},
                "by_version": {},
                "by_status": {},
                "authority": {},
                "identity": {},
                "opened_connections": dict(self.opened),
                "used_connections": len(self.connections),
                "handshakes_failed": self.handshakes_failed,
                "most_in_flight": self.most_in_flight,
                "internal_errors": list(self.internal_errors),
            }
            for (target, vault, operation, key, version, status), n in self.calls.items():
                if target != "vault":
                    _add(answer[target], str(status), n)
                    continue
                answer["total"] += n
                _add(answer["by_status"], str(status), n)
                if status == 401:
                    continue  # a challenge, not a call
                _add(answer["by_operation"], operation, n)
                _add(answer["by_key"], f"{vault}/{key}/{operation}", n)
                _add(answer["by_version"], f"{vault}/{key}/{version}/{operation}", n)
            return answer

    def last_requests(self, count):
        with self.lock:
            return list(self.requests)[-count:]


def _add(counts, name, n):
    counts[name] = counts.get(name, 0) + n
