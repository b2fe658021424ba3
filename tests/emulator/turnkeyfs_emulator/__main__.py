# SPDX-License-Identifier: Apache-2.0
"""Command line: python3 -m turnkeyfs_emulator --help"""

import argparse
import json
import signal
import sys

from .app import App


def setting(text):
    """NAME=VALUE, the value in JSON."""
    name, separator, value = text.partition("=")
    try:
        if not separator:
            raise ValueError
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: NAME=VALUE, the value in JSON") from None


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python3 -m turnkeyfs_emulator",
        description="Emulates Azure Key Vault (keys), Managed HSM, Entra ID and managed identity "
        "on loopback ports, for tests. It protects nothing.",
        epilog="When it is ready, STATE/ready.json says all URLs and credentials, and STATE/env.sh "
        "has them as variables of the Azure SDKs; a line `ready: ...` goes to the standard output. "
        "It ends on SIGTERM or SIGINT.",
    )
    add = parser.add_argument
    add("--state", metavar="DIR", required=True, help="keys, CA and credentials; made if missing")
    add("--vault", metavar="NAME", action="append", help="a vault that is there (default: demo)")
    add("--hsm", metavar="NAME", action="append", help="a Managed HSM that is there (default: demo)")
    add("--port", type=int, default=0, help="of the vaults and HSMs (default: any free one)")
    add("--authority-port", type=int, default=0, help="of the Entra ID authority")
    add("--identity-port", type=int, default=0, help="of IMDS, App Service and Arc (plain http)")
    add("--control-port", type=int, default=0, help="of the control endpoint (plain http)")
    add("--vault-suffix", default="vault.localhost", help="host names are NAME.SUFFIX")
    add("--hsm-suffix", default="managedhsm.localhost")
    add("--arc-tokens", metavar="DIR", help="where Arc's key files go (default: in STATE)")
    add("--known-keys", action="store_true", help="RSA keys from published primes, without waiting")
    add("--set", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="a setting (settings.py has them all), such as get_disabled=403")
    options = parser.parse_args(arguments)
    options.vault = ["demo"] if options.vault is None else options.vault
    options.hsm = ["demo"] if options.hsm is None else options.hsm
    options.set = dict(options.set)
    return options


def main():
    options = parse(sys.argv[1:])
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # inherited by all threads
    try:
        app = App(options)
    except (ValueError, OSError) as e:
        sys.exit(f"turnkeyfs_emulator: {e}")
    app.start()
    print(f"ready: {app.state.path('ready.json')}", flush=True)
    signal.sigwait(signals)
    app.stop()


if __name__ == "__main__":
    main()
