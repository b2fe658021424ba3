# SPDX-License-Identifier: Apache-2.0
"""
The Key Vault emulator for tests: start and stop it, steer it, and talk to it by raw HTTPS.

The fixtures are in emulator_fixture.py.
"""

import ctypes
import dataclasses
import http.client
import json
import os
import pathlib
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

EMULATOR = pathlib.Path(__file__).resolve().parent.parent / "emulator"
sys.path.insert(0, str(EMULATOR))

START_TIMEOUT = 60
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
API_VERSION = "7.4"


@dataclasses.dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self):
        return json.loads(self.raw)

    @property
    def error(self):
        """(code, inner code) of an error of Key Vault."""
        error = self.json["error"]
        return error["code"], error.get("innererror", {}).get("code")


class LoopbackConnection(http.client.HTTPSConnection):
    """To 127.0.0.1, whatever the host: names below .localhost aren't resolved everywhere."""

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


class Vault:
    """A vault or HSM of the emulator, as a client with a token sees it."""

    def __init__(self, emulator, name, url, audience, token=None):
        self.emulator = emulator
        self.name = name
        self.url = url
        self.audience = audience
        self._token = token
        self.connection = None

    @property
    def token(self):
        if self._token is None:
            self._token = self.emulator.access_token(self.audience)
        return self._token

    def with_token(self, token):
        """The same vault for somebody else; "" is nobody."""
        return Vault(self.emulator, self.name, self.url, self.audience, token)

    def request(self, method, path, body=None, api_version=API_VERSION, headers=None, raw=None):
        """@path: below the vault. @body: JSON to be; or @raw, as it is."""
        if api_version is not None:
            path += f"{'&' if '?' in path else '?'}api-version={api_version}"
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        if self.connection is None:
            self.connection = self.emulator.connect(self.url)
        try:
            self.connection.request(method, path, data, sent | (headers or {}))
            answer = self.connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except BaseException:
            self.close()
            raise

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body if body is not None else {}, **more)

    def ok(self, method, path, body=None, **more):
        """The JSON of a request that must succeed."""
        answer = self.request(method, path, body, **more)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.raw[:500]}"
        return answer.json

    def create(self, name, **body):
        """The bundle of a new key, RSA-2048 (HSM: RSA-HSM) unless told otherwise."""
        kty = "RSA-HSM" if "managedhsm" in self.url else "RSA"
        return self.ok("POST", f"/keys/{name}/create", {"kty": kty} | body)

    def set_enabled(self, name, enabled, version=""):
        path = f"/keys/{name}/{version}"
        return self.ok("PATCH", path, {"attributes": {"enabled": enabled}})

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def end_with_parent():
    """In a child before it runs: a test run that is killed leaves no emulator behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Emulator:
    """A process of its own; its state outlives `stop`, so that it can be started again."""

    def __init__(self, directory, *arguments, known_keys=True):
        self.directory = pathlib.Path(directory)
        self.arguments = list(arguments) + (["--known-keys"] if known_keys else [])
        self.process = None
        self.ready = None

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        log = open(self.directory / "log", "ab")
        command = [
            "/usr/bin/python3", "-m", "turnkeyfs_emulator",
            "--state", self.directory, *self.arguments,
        ]  # fmt: skip
        with log:
            self.process = subprocess.Popen(
                command,
                cwd=EMULATOR,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=end_with_parent,
            )
        try:
            readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
            said = self.process.stdout.readline() if readable else b""
            assert said.startswith(b"ready"), "no emulator: " + self.log()[-3000:]
            self.read_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def read_ready(self):
        self.ready = json.loads((self.directory / "ready.json").read_text())

    def __getattr__(self, name):
        """What ready.json says: ca, authority, tenant, client_id, client_secret, ..."""
        ready = self.__dict__.get("ready") or {}
        if name in ready:
            return ready[name]
        raise AttributeError(name)

    def log(self):
        return (self.directory / "log").read_text(errors="replace")

    def stop(self):
        """As an administrator does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(10)
        finally:
            self.kill()
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def restart(self, killed=False):
        """On the same ports; killed: without a chance to write anything."""
        self.kill() if killed else self.stop()
        ports = {
            "--port": self.ready["port"],
            "--authority-port": urllib.parse.urlsplit(self.authority).port,
            "--identity-port": urllib.parse.urlsplit(self.identity).port,
            "--control-port": urllib.parse.urlsplit(self.ready["control"]).port,
        }
        for option, port in ports.items():
            if option not in self.arguments:
                self.arguments += [option, str(port)]
        return self.start()

    # --- steering --------------------------------------------------------------------------------

    def control(self, op, **members):
        """A control operation; AssertionError if the emulator doesn't know it."""
        data = json.dumps({"op": op} | members).encode()
        try:
            with urllib.request.urlopen(self.ready["control"], data, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as e:
            raise AssertionError(f"control {op}: {e.read().decode()}") from None

    def settings(self, **values):
        return self.control("settings", **values)

    def counters(self):
        return self.control("counters")

    def count(self, operation):
        return self.counters()["by_operation"].get(operation, 0)

    def requests(self, count=100):
        return self.control("requests", count=count)["requests"]

    def vault(self, name=None, hsm=False, token=None, **options):
        """A vault of its own for a test, unless it names one."""
        made = self.control("vault", name=name, hsm=hsm, **options)
        audience = f"https://{self.hsm_suffix if hsm else self.vault_suffix}"
        return Vault(self, made["name"], made["url"], audience, token)

    # --- talking ---------------------------------------------------------------------------------

    def tls(self):
        return ssl.create_default_context(cafile=self.ca)

    def connect(self, url, timeout=60):
        parts = urllib.parse.urlsplit(url)
        return LoopbackConnection(parts.hostname, parts.port, timeout=timeout, context=self.tls())

    def token_request(self, form=None, tenant=None, path="oauth2/v2.0/token", **members):
        """The token endpoint's Answer. @form: all of it; or @members, over the right ones."""
        if form is None:
            form = {
                "client_id": self.client_id,
                "scope": f"https://{self.vault_suffix}/.default",
                "grant_type": "client_credentials",
                "client_secret": self.client_secret,
            } | members
        connection = self.connect(self.authority)
        body = urllib.parse.urlencode({k: v for k, v in form.items() if v is not None})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/{tenant or self.tenant}/{path}", body, kind)
        answer = connection.getresponse()
        answer = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return answer

    def access_token(self, audience, **members):
        answer = self.token_request(scope=f"{audience}/.default", **members)
        assert answer.status == 200, answer.raw
        return answer.json["access_token"]

    def identity_request(self, path, headers=None):
        """To the plain-http port of IMDS, App Service and Arc."""
        parts = urllib.parse.urlsplit(self.identity)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        answer = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return answer

    def environment(self):
        """For clients that take the variables of the Azure SDKs."""
        return os.environ | {
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "AZURE_AUTHORITY_HOST": self.authority,
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": self.identity,
        }


def wait_until(condition, seconds=10, pause=0.05):
    """Its first true value; AssertionError after @seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError("waited in vain")
