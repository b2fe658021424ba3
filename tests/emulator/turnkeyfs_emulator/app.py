# SPDX-License-Identifier: Apache-2.0
"""The emulator as a whole: the parts, the vaults, and the ports they are reached by."""

import ipaddress
import os
import pathlib
import re
import shlex
import threading

from . import keypool
from .access import Access
from .certificates import Certificates
from .clock import Clock
from .control import Control
from .counters import Counters
from .entra import Authority
from .faults import Faults
from .frontend import PlainFrontend, VaultFrontend
from .identity import Identity
from .server import Server
from .settings import Settings
from .state import State
from .tokens import ClaimsChallenges, Tokens
from .vault import Options, Vault

AUTHORITY_HOST = "login.localhost"


class App:
    """@options: as __main__.py parses them."""

    def __init__(self, options):
        self.options = options
        self.state = State(options.state)
        self.clock = Clock()
        self.settings = Settings()
        self.counters = Counters()
        self.pool = keypool.KnownKeys() if options.known_keys else keypool.FreshKeys()
        self.faults = Faults(self.settings)
        self.access = Access(self.clock, self.settings)
        self.tokens = Tokens(self)
        self.claims_challenges = ClaimsChallenges()
        self.authority = Authority(self)
        arc = pathlib.Path(options.arc_tokens or self.state.path("arc-tokens"))
        self.identity = Identity(self, arc)
        self.backup_secret = self._backup_secret()
        self.suffixes = {False: options.vault_suffix, True: options.hsm_suffix}
        self.certificates = Certificates(
            self.state,
            [f"*.{suffix}" for suffix in self.suffixes.values()]
            + [AUTHORITY_HOST, "localhost", "127.0.0.1", "::1"],
        )
        self.lock = threading.Lock()
        self.vaults = {}  # (name, is_hsm) -> Vault
        self._load_vaults()
        for is_hsm, names in ((False, options.vault), (True, options.hsm)):
            for name in names:
                if (name, is_hsm) not in self.vaults:
                    self.make_vault(name, is_hsm, {})
        self.settings.update(options.set)
        self._open_ports()

    def _backup_secret(self):
        stored = self.state.read("backup-key")
        if stored is None:
            stored = os.urandom(32)
            self.state.write("backup-key", stored)
        return stored

    def _load_vaults(self):
        for folder, is_hsm in (("vaults", False), ("hsms", True)):
            for file in self.state.names(f"{folder}/[!.]*.json"):
                stored = self.state.read_json(file)
                name = pathlib.Path(file).stem
                self.vaults[name, is_hsm] = Vault(name, Options(**stored["options"]), self, stored)

    def _open_ports(self):
        o = self.options
        self.vault_server = Server(self, VaultFrontend(self), o.port, self.certificates)
        self.authority_server = Server(
            self, PlainFrontend(self, "authority", self.authority), o.authority_port, self.certificates
        )
        self.identity_server = Server(
            self, PlainFrontend(self, "identity", self.identity), o.identity_port
        )
        self.control_server = Server(self, Control(self), o.control_port)
        self.servers = (
            self.vault_server, self.authority_server, self.identity_server, self.control_server)

    def start(self):
        for server in self.servers:
            server.serve_in_thread()
        self.pool.start()
        self.write_ready()

    def stop(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # --- vaults ----------------------------------------------------------------------------------

    def make_vault(self, name, is_hsm, changes):
        """Make it, or change its options. ValueError if the options can't be."""
        if not re.fullmatch(r"(?!.*--)[a-zA-Z][a-zA-Z0-9-]{2,23}", name):
            raise ValueError("a vault's name has 3 to 24 letters, digits and single hyphens")
        name = name.lower()
        with self.lock:
            vault = self.vaults.get((name, is_hsm))
            if vault is None:
                options = Options(**{"tenant": self.authority.tenant, "is_hsm": is_hsm} | changes)
                _check_options(options)
                vault = self.vaults[name, is_hsm] = Vault(name, options, self)
            else:
                options = Options(**vars(vault.options) | changes)
                _check_options(options)
                vault.options = options
                vault.save()
        return vault

    def vault_of_host(self, host):
        """(name, is_hsm) that a host name stands for; an address is the first --vault."""
        for is_hsm, suffix in self.suffixes.items():
            if host.endswith(f".{suffix}"):
                return host.removesuffix(f".{suffix}"), is_hsm
        if self.options.vault and (host == "localhost" or _is_address(host)):
            return self.options.vault[0].lower(), False
        return host, False

    def audience(self, is_hsm):
        """What a token for the vaults, or the HSMs, is made out to."""
        return f"https://{self.suffixes[is_hsm]}"

    def vault_url(self, vault):
        return f"https://{vault.name}.{self.suffixes[vault.options.is_hsm]}:{self.vault_server.port}"

    def authority_url(self, asked_host):
        """For clients that reach the vault by an address, the authority's address."""
        host = asked_host if _is_address(asked_host) else AUTHORITY_HOST
        return f"https://{host}:{self.authority_server.port}"

    # --- hooks -----------------------------------------------------------------------------------

    def reset(self):
        self.faults.clear()
        self.access.reset()
        self.claims_challenges.wanted.clear()
        self.identity.reset()
        self.clock.shift(0, self.clock.shifts)
        self.settings.reset()
        self.settings.update(self.options.set)
        self.certificates.use("good")
        self.counters.reset()
        self.authority.reset()

    def ready(self):
        """All that a client needs to know."""
        identity = f"http://127.0.0.1:{self.identity_server.port}"
        client = self.authority.client
        return {
            "pid": os.getpid(),
            "state": str(self.state.directory),
            "ca": str(self.certificates.ca_path),
            "vaults": {v.name: self.vault_url(v) for v in self._all(False)},
            "hsms": {v.name: self.vault_url(v) for v in self._all(True)},
            "vault_suffix": self.suffixes[False],
            "hsm_suffix": self.suffixes[True],
            "port": self.vault_server.port,
            "vault_by_address": f"https://127.0.0.1:{self.vault_server.port}",
            "authority": self.authority_url(AUTHORITY_HOST),
            "authority_by_address": self.authority_url("127.0.0.1"),
            "control": f"http://127.0.0.1:{self.control_server.port}",
            "identity": identity,
            "app_service": {
                "IDENTITY_ENDPOINT": f"{identity}/msi/token",
                "IDENTITY_HEADER": self.identity.header,
            },
            "arc": {
                "IDENTITY_ENDPOINT": f"{identity}/arc/metadata/identity/oauth2/token",
                "IMDS_ENDPOINT": identity,
            },
            "tenant": self.authority.tenant,
            "other_tenant": self.authority.directory["other_tenant"],
            "client_id": client["appid"],
            "client_secret": client["secret"],
            "client_certificate": str(self.state.path("client.pem")),
            "federated_token_file": str(self.state.path("federated-token")),
            "identities": [
                {name: i[name] for name in ("appid", "oid", "resource_id", "system")}
                for i in self.authority.directory["identities"]
            ],
        }

    def _all(self, is_hsm):
        return [vault for (_, kind), vault in sorted(self.vaults.items()) if kind == is_hsm]

    def write_ready(self):
        """ready.json, and env.sh with the variables of the Azure SDKs."""
        ready = self.ready()
        variables = {
            "AZURE_TENANT_ID": ready["tenant"],
            "AZURE_CLIENT_ID": ready["client_id"],
            "AZURE_CLIENT_SECRET": ready["client_secret"],
            "AZURE_AUTHORITY_HOST": ready["authority"],
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": ready["identity"],
            "EMULATOR_CA": ready["ca"],
            "EMULATOR_CONTROL": ready["control"],
        }
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        self.state.write("env.sh", "".join(lines).encode())
        self.state.write_json("ready.json", ready)


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_options(options):
    days = options.retention_days
    if not isinstance(days, int) or not 7 <= days <= 90:
        raise ValueError("retention_days: 7 to 90")
    if options.purge_protection and not options.soft_delete:
        raise ValueError("purge protection needs soft delete")
