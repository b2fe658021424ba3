# SPDX-License-Identifier: Apache-2.0
"""The state directory: JSON and PEM files, each replaced as a whole, readable by the owner only."""

import json
import os
import pathlib
import tempfile


class State:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        return self.directory / name

    def read(self, name):
        """The file's bytes, or None."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name, data, mode=0o600):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(data)
            os.chmod(new, mode)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise

    def read_json(self, name):
        data = self.read(name)
        return None if data is None else json.loads(data)

    def write_json(self, name, value):
        self.write(name, json.dumps(value, indent=1).encode())

    def remove(self, name):
        self.path(name).unlink(missing_ok=True)

    def names(self, pattern):
        return sorted(str(p.relative_to(self.directory)) for p in self.directory.glob(pattern))
