# SPDX-License-Identifier: Apache-2.0
"""
The package in a clean Debian tree, and a systemd booted there with its vault down.

Needs what CI has no time for, so that it is skipped there: a tree made by `debootstrap --variant=minbase
--include=systemd,systemd-sysv,dbus bookworm TREE`, in which apt-get reaches an archive, and the
package: TURNKEYFS_TEST_TREE=TREE TURNKEYFS_TEST_DEB=turnkeyfs_*.deb. The tree is changed.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from mountpoint import run, wait_for

TREE = pathlib.Path(os.environ.get("TURNKEYFS_TEST_TREE", "/nonexistent"))
DEB = pathlib.Path(os.environ.get("TURNKEYFS_TEST_DEB", "/nonexistent"))
SOURCE = pathlib.Path(__file__).parents[2]
EMULATOR = SOURCE / "tests" / "emulator"
BUSES = ("/dev", "/proc", "/sys")

pytestmark = [
    pytest.mark.skipif(not TREE.is_dir() or not DEB.is_file(), reason="TURNKEYFS_TEST_TREE, TURNKEYFS_TEST_DEB"),
    pytest.mark.deadline(900),
]


def chroot(script, **more):
    """In the tree, with /dev and /proc, in a mount namespace of its own that ends with it."""
    binds = "".join(f"mount --rbind {bus} {TREE}{bus}; " for bus in BUSES)
    inside = f"set -e; mount --make-rprivate /; {binds} exec chroot {TREE} sh -ec '{script}'"
    return run("unshare", "-m", "sh", "-c", inside, timeout=600, **more)


def files():
    """All paths of the tree but for what apt and dpkg write about themselves."""
    own = ("var/lib/dpkg", "var/lib/apt", "var/cache", "var/log", "tmp", "run", "proc", "sys", "dev")
    found = set()
    for path, directories, names in os.walk(TREE):
        relative = os.path.relpath(path, TREE)
        directories[:] = [d for d in directories if os.path.normpath(f"{relative}/{d}") not in own]
        found |= {os.path.normpath(f"{relative}/{name}") for name in directories + names}
    return found


def install():
    shutil.copy(DEB, TREE / "tmp" / "turnkeyfs.deb")
    chroot("DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall --no-install-recommends /tmp/turnkeyfs.deb")


QUICK_START = """
mkdir -p /srv/plain
turnkeyfs init /srv/encrypted
turnkeyfs mount /srv/encrypted /srv/plain
echo "kept secret" > /srv/plain/file
turnkeyfs status /srv/plain
turnkeyfs umount /srv/plain
test ! -e /srv/plain/file
if grep -r "kept secret" /srv/encrypted; then exit 1; fi
turnkeyfs verify /srv/encrypted
mount -t fuse.turnkeyfs /srv/encrypted /srv/plain
cat /srv/plain/file
turnkeyfs umount /srv/plain
rm -r /srv/encrypted /srv/plain
"""


def test_install_quick_start_purge():
    # The packages that it depends on stay: so they are there before.
    depends = run("dpkg-deb", "-f", DEB, "Depends").stdout
    names = " ".join(word.split("|")[0].split()[0] for word in depends.split(","))
    chroot(f"apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {names}")
    before = files()
    install()
    assert files() - before, "something was installed"
    assert "kept secret" in chroot(QUICK_START).stdout
    for name in ("mount", "commands"):  # what autopkgtest runs
        shutil.copy(SOURCE / "debian" / "tests" / name, TREE / "tmp" / name)
        chroot(f"/tmp/{name}")
    kept = list((TREE / "var/lib/turnkeyfs").glob("*.keystore"))
    assert kept, "a keystore"
    said = chroot("apt-get purge -y turnkeyfs 2>&1").stdout
    assert "/var/lib/turnkeyfs is kept" in said, said
    assert kept[0].exists(), "what makes data readable is never removed"
    install()
    for keystore in (TREE / "var/lib/turnkeyfs").iterdir():
        keystore.unlink()
    chroot("apt-get purge -y turnkeyfs")
    after = files()
    assert after == before, (after - before, before - after)


# --- booted ---


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Vault:
    """The emulator on this side, at ports that stay the same."""

    def __init__(self, state):
        self.state = state
        self.ports = free_ports(4)
        self.process = None

    def start(self):
        (self.state / "ready.json").unlink(missing_ok=True)
        options = zip(("--port", "--authority-port", "--identity-port", "--control-port"), map(str, self.ports))
        words = [word for pair in options for word in pair]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "turnkeyfs_emulator", "--state", self.state, "--known-keys", *words],
            cwd=EMULATOR,
            stdout=open(self.state / "log", "ab"),
            stderr=subprocess.STDOUT,
        )
        wait_for((self.state / "ready.json").exists, 300, "the emulator")
        self.ready = json.loads((self.state / "ready.json").read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Machine:
    """The tree, booted by systemd-nspawn, in this machine's network."""

    def __init__(self, log):
        self.log = log
        autofs = "--bind=/dev/autofs" if os.path.exists("/dev/autofs") else ""
        words = (
            f"mount --make-rprivate /; exec systemd-nspawn -q -b -D {TREE} --register=no --keep-unit "
            f"--machine=turnkeyfs-test --bind=/dev/fuse {autofs} --capability=all --resolv-conf=off --link-journal=no "
            "--property=DeviceAllow='/dev/fuse rw' --console=pipe systemd.log_target=console"
        )
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", words],
            stdin=subprocess.DEVNULL,
            stdout=open(log, "wb"),
            stderr=subprocess.STDOUT,
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        self.init = None
        wait_for(self.find_init, 300, "systemd in the tree")

    def find_init(self):
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text() == "systemd\n" and os.path.samefile(comm.parent / "root", TREE):
                    self.init = comm.parent.name
            except OSError:
                continue
        return self.init

    def run(self, *words, check=False):
        return run("nsenter", "-t", self.init, "-m", "-u", "-i", "-p", "-r", "-w", *words, check=check, timeout=300)

    def shell(self, script, check=True):
        return self.run("sh", "-c", script, check=check)

    def state(self, unit):
        return self.run("systemctl", "is-active", unit).stdout.strip()

    def property(self, unit, name):
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def power_off(self):
        os.kill(int(self.init), signal.SIGRTMIN + 4)
        try:
            self.process.wait(300)
        finally:
            self.process.kill()


NAMES = ("line", "auto", "unit")


@pytest.fixture
def scene(tmp_path):
    """Three volumes with their key in the vault: an fstab line, an automount, an instance of the unit."""
    install()
    vault = Vault(tmp_path)
    vault.start()
    etc = TREE / "etc/turnkeyfs"
    ready = vault.ready
    run(
        sys.executable, "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], sys.argv[2].encode())",
        ready["control"], json.dumps({"op": "vault", "name": "demo", "purge_protection": True}),
    )  # fmt: skip
    shutil.copy(ready["ca"], etc / "ca.pem")
    (etc / "secret").write_text(ready["client_secret"])
    (etc / "secret").chmod(0o600)
    fstab = ""
    for name in NAMES:
        (etc / f"{name}.conf").write_text(
            "[kms]\nprovider = azure\n" + ("mount_timeout = 10\n" if name == "auto" else "") + "[azure]\n"
            f"key = {ready['vaults']['demo']}/keys/kek\nauth = client-secret\ntenant_id = {ready['tenant']}\n"
            f"client_id = {ready['client_id']}\nauthority = {ready['authority']}\nca_file = /etc/turnkeyfs/ca.pem\n"
            "connect_timeout = 60\nrequest_timeout = 60\n"
            f"client_secret = {'credential:secret' if name == 'unit' else 'file:/etc/turnkeyfs/secret'}\n"
        )
        (etc / f"{name}.env").write_text(f"CIPHERDIR=/srv/{name}.enc\nMOUNTPOINT=/srv/{name}\n")
        for directory in (TREE / f"srv/{name}", TREE / f"srv/{name}.enc"):
            shutil.rmtree(directory, ignore_errors=True)
        (TREE / f"srv/{name}").mkdir()
        if name != "unit":
            more = ",x-systemd.automount" if name == "auto" else ""
            fstab += f"/srv/{name}.enc /srv/{name} fuse.turnkeyfs config=/etc/turnkeyfs/{name}.conf,_netdev,nofail{more} 0 0\n"
    chroot("turnkeyfs key create -c /etc/turnkeyfs/line.conf")
    credential = "CREDENTIALS_DIRECTORY=/etc/turnkeyfs"
    for name in NAMES:
        chroot(f"{credential} turnkeyfs init -c /etc/turnkeyfs/{name}.conf /srv/{name}.enc")
    (TREE / "etc/fstab").write_text(fstab)
    drop_in = TREE / "etc/systemd/system/turnkeyfs@unit.service.d"
    drop_in.mkdir(parents=True, exist_ok=True)
    encrypted = "/etc/credstore.encrypted/secret"
    (drop_in / "credential.conf").write_text(f"[Service]\nLoadCredentialEncrypted=secret:{encrypted}\n")
    chroot(
        "install -d -m 700 /etc/credstore.encrypted; "
        f"systemd-creds encrypt --with-key=host --name=secret /etc/turnkeyfs/secret {encrypted}"
    )
    assert ready["client_secret"].encode() not in (TREE / encrypted[1:]).read_bytes()
    chroot("systemctl enable turnkeyfs@unit.service")
    vault.stop()
    yield vault
    if vault.process.poll() is None:
        vault.stop()
    chroot(
        "dpkg -P turnkeyfs; : > /etc/fstab; rm -rf /etc/turnkeyfs /var/lib/turnkeyfs /srv/* /root/newer.deb "
        "/etc/credstore.encrypted /etc/systemd/system/turnkeyfs@* /etc/systemd/system/*/turnkeyfs@*"
    )


@pytest.fixture
def machine(scene, tmp_path):
    machine = Machine(tmp_path / "console")
    yield machine
    if machine.process.poll() is None:
        print(machine.shell("journalctl -b --no-pager -o short-monotonic | tail -n 150", check=False).stdout)
        machine.power_off()


def write_to(machine, name):
    machine.shell(f"echo of {name} > /srv/{name}/file; sync /srv/{name}/file")
    assert machine.shell(f"findmnt -no FSTYPE -t fuse.turnkeyfs /srv/{name}").stdout.strip() == "fuse.turnkeyfs"


def newer(directory):
    """The package, with a higher version."""
    run("dpkg-deb", "-R", DEB, directory / "deb")
    control = directory / "deb/DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.M))
    run("dpkg-deb", "--root-owner-group", "-b", directory / "deb", TREE / "root/newer.deb")


def serving(machine):
    return machine.shell("cat /proc/[0-9]*/comm | grep -c ^turnkeyfs$; systemctl show -P MainPID turnkeyfs@unit").stdout


def upgrade_and_remove(machine, directory):
    """Mounts in use outlive both; without the program, too, they end tidily."""
    newer(directory)
    before = serving(machine)
    machine.shell("dpkg -i /root/newer.deb; turnkeyfs version")
    assert "+next" in machine.shell("dpkg-query -W turnkeyfs").stdout
    assert serving(machine) == before
    said = machine.shell("dpkg -r turnkeyfs 2>&1").stdout
    for name in NAMES:
        assert f"/srv/{name}\n" in said, said
        machine.shell(f"cat /srv/{name}/file; echo later of {name} > /srv/{name}/later")
    assert serving(machine) == before
    machine.shell("umount /srv/line; systemctl stop srv-auto.mount turnkeyfs@unit")
    wait_for(lambda: serving(machine).startswith("0\n"), 100, "the end of all daemons")
    machine.shell("dpkg -i /root/newer.deb; systemctl start srv-line.mount srv-auto.mount turnkeyfs@unit")
    for name in NAMES:
        assert machine.shell(f"cat /srv/{name}/later").stdout == f"later of {name}\n"


def test_a_boot_with_the_vault_down(scene, machine, tmp_path):
    began = time.monotonic()
    # It is down until further notice: a boot that waited for it would never get there.
    wait_for(lambda: machine.state("multi-user.target") == "active", 300, "multi-user.target")
    print(f"multi-user.target after {time.monotonic() - began:.1f} s")
    wait_for(lambda: machine.state("srv-line.mount") == "failed", 100, "the line's failure")
    wait_for(lambda: int(machine.property("turnkeyfs@unit", "NRestarts")) > 0, 300, "another attempt of the unit")
    if (automounts := os.path.exists("/dev/autofs")):
        assert machine.state("srv-auto.automount") == "active"
        assert machine.shell("ls /srv/auto", check=False).returncode != 0, "nobody can have opened it"
        assert machine.state("srv-auto.automount") == "active", "it is not switched off by a failure"

    scene.start()
    wait_for(lambda: machine.state("turnkeyfs@unit") == "active", 300, "the unit, which nobody starts")
    print(f"the unit's mount after {time.monotonic() - began:.1f} s")
    said = machine.property("turnkeyfs@unit", "StatusText")
    assert "mounted" in said or "key is" in said, said
    write_to(machine, "unit")
    harden = json.loads(machine.shell("turnkeyfs status --json /srv/unit").stdout)["daemon"]["hardening"]
    assert harden["system_calls"], f"the unit's own filter leaves room for the daemon's: {harden}"
    if automounts:
        write_to(machine, "auto")  # nobody starts it either
    machine.shell("systemctl start srv-line.mount srv-auto.mount")
    write_to(machine, "line")
    write_to(machine, "auto")

    # Killed: cleaned up and started again, with a program's file still open.
    pid = machine.property("turnkeyfs@unit", "MainPID")
    machine.shell(f"sleep 300 < /srv/unit/file > /dev/null 2>&1 & kill -9 {pid}")
    wait_for(
        lambda: machine.state("turnkeyfs@unit") == "active"
        and machine.property("turnkeyfs@unit", "MainPID") != pid,
        300,
        "the restart",
    )
    assert machine.shell("cat /srv/unit/file").stdout == "of unit\n"

    # A namespace for mounts, as PrivateTmp= makes one, hides the mount: why the unit has none.
    drop_in = "/run/systemd/system/turnkeyfs@unit.service.d"
    machine.shell(
        f"systemctl stop turnkeyfs@unit; mkdir -p {drop_in}; printf '[Service]\\nPrivateTmp=yes\\n' > {drop_in}/hide.conf; "
        "systemctl daemon-reload; systemctl start turnkeyfs@unit"
    )
    assert machine.shell("ls /srv/unit").stdout == ""
    machine.shell(f"systemctl stop turnkeyfs@unit; rm -r {drop_in}; systemctl daemon-reload; systemctl start turnkeyfs@unit")
    assert machine.shell("cat /srv/unit/file").stdout == "of unit\n"

    # Stopped: everything is written.
    machine.shell("dd if=/dev/zero of=/srv/unit/big bs=1M count=20 status=none; systemctl stop turnkeyfs@unit")
    assert machine.property("turnkeyfs@unit", "Result") == "success"
    machine.shell("systemctl start turnkeyfs@unit")
    assert machine.shell("stat -c %s /srv/unit/big").stdout.strip() == str(20 << 20)

    upgrade_and_remove(machine, tmp_path)

    machine.power_off()
    for name in NAMES:
        said = json.loads(chroot(f"turnkeyfs status --json /srv/{name}.enc").stdout)
        # The unit's daemon was killed once: that mount ended uncleanly.
        assert said["unclean_mounts"] <= (1 if name == "unit" else 0), said
