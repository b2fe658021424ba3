# SPDX-License-Identifier: Apache-2.0
"""tk_kms_tool, the azure provider without a filesystem, as an object."""

import dataclasses
import json
import os
import pathlib
import select
import subprocess
import time

import mountpoint

# Nothing of the test machine's own may decide where tokens come from.
SCRUBBED = ("AZURE_", "IDENTITY_", "IMDS_", "MSI_")


def program():
    """Beside the program under test, where the build puts it."""
    turnkeyfs = mountpoint.turnkeyfs()
    beside = turnkeyfs and pathlib.Path(turnkeyfs).parent / "tests/tools/tk_kms_tool"
    if beside and beside.exists():
        return str(beside)
    return mountpoint.find_program("tests/tools/tk_kms_tool", "TURNKEYFS_KMS_TOOL")


@dataclasses.dataclass
class Wrapped:
    key: str
    version: str
    algorithm: str
    blob: str

    def words(self):
        return self.key, self.version, self.algorithm, self.blob


class KmsTool:
    """@options: of the program, see its source. @env: variables that it gets besides."""

    def __init__(self, options, env=None, prefix=()):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(SCRUBBED)}
        self.process = subprocess.Popen(
            [*prefix, program(), *(f"{name}={value}" for name, value in options.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=kept | (env or {}),
        )
        self.log = None
        self.opened = self.answer(20)

    def answer(self, timeout):
        readable, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert readable, "no answer in time"
        line = self.process.stdout.readline()
        assert line, f"the program ended: {self.process.communicate()}"
        return json.loads(line)

    def do(self, *words, timeout=60):
        """The answer, with the seconds that it took."""
        started = time.monotonic()
        self.process.stdin.write((" ".join(words) + "\n").encode())
        self.process.stdin.flush()
        answer = self.answer(timeout)
        answer["seconds"] = time.monotonic() - started
        return answer

    def ok(self, *words, **more):
        answer = self.do(*words, **more)
        assert answer["r"] == 0, answer
        return answer

    def fails(self, errno_name, *words, **more):
        """The fault's text of a command that must fail so."""
        answer = self.do(*words, **more)
        assert answer["errno"] == errno_name, answer
        assert answer["kind"] != 0 and answer["text"], answer
        return answer["text"]

    def wrap(self, secret=bytes(range(32)), version=None):
        version = version or self.ok("current")["version"]
        a = self.ok("wrap", version, secret.hex())
        return Wrapped(a["key"], a["version"], a["algorithm"], a["blob"])

    def unwrap(self, wrapped, **more):
        return bytes.fromhex(self.ok("unwrap", *wrapped.words(), **more)["key"])

    def close(self):
        """End it. What it wrote to its standard error: no secret was lost, no sanitizer complained."""
        if self.log is None:
            _, log = self.process.communicate(timeout=30)
            self.log = log.decode()
        assert self.process.returncode == 0, (self.process.returncode, self.log)
        assert "Sanitizer" not in self.log, self.log
        return self.log

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
