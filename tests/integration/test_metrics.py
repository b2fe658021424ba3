# SPDX-License-Identifier: Apache-2.0
"""Metrics: what a scrape finds, by curl, under load, revoked, and beside clients that misbehave."""

import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import threading

import pytest

from mountpoint import TOP, run, turnkeyfs, wait_for

MONITORING = TOP / "packaging" / "monitoring"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})\{{(.*)\}} (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


class Scrape:
    """A page, parsed as strictly as the format's description is."""

    def __init__(self, text):
        self.types = {}
        self.samples = {}
        assert text.endswith("\n")
        family, done = None, set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                done.add(family)
                family = line.split()[2]
                assert family not in done, f"{family} stands in two places"
            elif line.startswith("# TYPE "):
                assert line.split()[2] == family and family not in self.types
                self.types[family] = line.split()[3]
            else:
                self.take(line, family)

    def take(self, line, family):
        name, labels, value = SAMPLE.fullmatch(line).groups()
        base = re.sub("_(bucket|sum|count)$", "", name)
        assert family in (name, base if self.types[family] == "histogram" else name), line
        found, end = [], 0
        while end < len(labels):
            label = LABEL.match(labels, end)
            assert label, line
            found.append((label[1], label[2]))
            end = label.end()
        key = (name, frozenset(found))
        assert len(dict(found)) == len(found) and key not in self.samples, line
        assert {"volume", "mountpoint"} <= set(dict(found)), line
        assert (self.types[family] == "counter") == name.endswith("_total") or base != name, line
        self.samples[key] = float(value)

    def names(self):
        return {name for name, _ in self.samples}

    def value(self, name, **labels):
        wanted = set(labels.items())
        found = [v for (n, l), v in self.samples.items() if n == name and wanted <= l]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def labels(self, name):
        return next(dict(l) for n, l in self.samples if n == name)

    def assert_histogram_holds(self):
        name = "turnkeyfs_kms_request_duration_seconds"
        for (n, labels), count in self.samples.items():
            if n != name + "_count":
                continue
            buckets = sorted(
                (float(dict(l)["le"]), v)
                for (m, l), v in self.samples.items()
                if m == name + "_bucket" and labels <= l
            )
            counts = [v for _, v in buckets]
            assert counts == sorted(counts) and buckets[-1] == (float("inf"), count)


def conf(work, **more):
    return {"metrics": {"socket": work / "metrics.sock", **more}}


def curl(path, *options, check=True):
    return run("curl", "-sS", "--unix-socket", path, *options, "http://localhost/metrics",
               check=check, timeout=30)


def scrape(path):
    return Scrape(curl(path).stdout)


@pytest.fixture
def watched(work, make_volume):
    volume = make_volume(conf=conf(work, textfile=work / "x.prom", interval=1))
    volume.socket = work / "metrics.sock"
    return volume


def answer_to(path, request, timeout=20):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(str(path))
        client.sendall(request)
        got = b""
        while part := client.recv(65536):
            got += part
    return got


def test_a_scrape_says_what_happened(watched):
    for i in range(3):
        (watched.mnt / f"f{i}").write_bytes(b"x" * 10000)
    fd = os.open(watched.mnt / "f0", os.O_RDWR)
    os.fsync(fd)
    page = scrape(watched.socket)
    os.close(fd)
    page.assert_histogram_holds()
    assert page.value("turnkeyfs_state", state="active") == 1
    assert page.value("turnkeyfs_state", state="revoked") == 0
    assert page.value("turnkeyfs_transferred_bytes_total", operation="write") >= 10000
    assert page.value("turnkeyfs_requests_total", operation="fsync") >= 1
    assert page.value("turnkeyfs_known_inodes") >= 4
    assert page.value("turnkeyfs_open_files") >= 1
    assert page.value("turnkeyfs_kms_requests_total", operation="unwrap", outcome="ok") >= 1
    assert page.value("turnkeyfs_lease_left_seconds") > 0
    assert 0 <= page.value("turnkeyfs_kek_age_seconds") < 600
    assert page.value("turnkeyfs_integrity_errors_total", kind="block") == 0
    info = page.labels("turnkeyfs_key_info")
    assert (info["provider"], info["kek_version"], info["key_version"]) == ("local", "1", "1")
    assert info["mountpoint"] == str(watched.mnt)
    assert info["volume"] == watched.status()["volume_id"]


def test_damage_and_errors_are_counted(watched):
    (watched.mnt / "secret-name").write_bytes(b"x" * 20000)
    watched.umount()
    below = watched.below("secret-name")
    with open(below, "r+b") as f:
        f.seek(8192)
        f.write(b"damage")
    watched.mount()
    watched.expect_log("does not authenticate")
    with pytest.raises(OSError):
        (watched.mnt / "secret-name").read_bytes()
    page = scrape(watched.socket)
    assert page.value("turnkeyfs_integrity_errors_total", kind="block") >= 1
    assert page.value("turnkeyfs_errors_total", kind="integrity") >= 1
    assert page.value("turnkeyfs_errors_total", kind="space") == 0


def test_the_socket_is_its_owners_or_a_groups(work, make_volume):
    make_volume("one", conf=conf(work))
    assert stat.S_IMODE(os.stat(work / "metrics.sock").st_mode) == 0o600
    path = work / "two.sock"
    make_volume("two", conf={"metrics": {"socket": path, "socket_group": "daemon"}})
    found = os.stat(path)
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, 1)
    as_group = ("setpriv", "--reuid=65534", "--regid=1", "--clear-groups")
    others = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    command = ("curl", "-sS", "--unix-socket", path, "http://localhost/metrics")
    assert run(*as_group, *command).stdout.startswith("# HELP")
    assert run(*others, *command, check=False).returncode != 0


def test_the_socket_of_a_live_mount_stays_and_a_dead_ones_goes(work, make_volume):
    path = work / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first = make_volume("one", conf=conf(work))
    before = scrape(path).labels("turnkeyfs_build_info")
    second = make_volume("two", mount=False, conf=conf(work))
    second.expect_log("Address already in use; the mount goes on without metrics")
    second.mount().umount()
    assert scrape(path).labels("turnkeyfs_build_info") == before
    first.umount()
    assert not path.exists()
    path.write_text("not a socket")
    first.expect_log("File exists; the mount goes on without metrics")
    first.mount().umount()
    assert path.read_text() == "not a socket"


def test_http(watched):
    def status(request):
        return answer_to(watched.socket, request).split(b"\r\n", 1)[0]

    assert status(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") == b"HTTP/1.1 200 OK"
    assert status(b"GET /metrics?a=b HTTP/1.0\n\n") == b"HTTP/1.1 200 OK"
    assert status(b"GET / HTTP/1.1\r\n\r\n").split()[1] == b"404"
    assert status(b"POST /metrics HTTP/1.1\r\n\r\nbody").split()[1] == b"405"
    assert status(b"GET /metrics HTTP/2.0\r\n\r\n").split()[1] == b"505"
    assert status(b"\0\xff garbage \x80\n").split()[1] == b"400"
    assert status(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 2000).split()[1] == b"431"
    head = answer_to(watched.socket, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert head.endswith(b"\r\n\r\n") and b"Content-Length: " in head
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head


def test_clients_that_misbehave_hold_up_nobody_for_long(watched):
    """More silent and never reading clients than there are places."""
    idle = []
    for i in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(str(watched.socket))
        if i % 2:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        idle.append(client)
    assert scrape(watched.socket).value("turnkeyfs_state", state="active") == 1
    # The threads that serve requests may still be starting, so what is asked is only that no client has one.
    assert len(os.listdir(f"/proc/{watched.pid}/task")) < len(idle) / 2
    (watched.mnt / "still").write_text("served")
    for client in idle:
        client.close()
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(watched.socket))
            client.send(os.urandom(100))
    scrape(watched.socket)


def test_scrapes_during_load(watched):
    failures = []

    def work():
        try:
            for i in range(300):
                (watched.mnt / f"{threading.get_ident()}-{i % 20}").write_bytes(os.urandom(5000))
        except OSError as e:
            failures.append(e)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    last = 0
    while any(worker.is_alive() for worker in workers):
        page = scrape(watched.socket)
        page.assert_histogram_holds()
        now = page.value("turnkeyfs_transferred_bytes_total", operation="write")
        assert now >= last
        last = now
    for worker in workers:
        worker.join()
    assert not failures
    run("sync", "-f", watched.mnt)
    status = watched.status()["daemon"]["counters"]
    assert status["written_bytes"] >= last


def test_a_scrape_of_a_revoked_mount(work, make_volume):
    volume = make_volume(conf=conf(work) | {"kms": {"revocation_window": 2}})
    volume.expect_log("locked|refuses|is revoked|disabled")
    path = work / "metrics.sock"
    (volume.mnt / "x").write_text("x")
    run(turnkeyfs(), "key", "disable", "--yes", "-c", volume.conf, "1")
    wait_for(lambda: scrape(path).value("turnkeyfs_state", state="revoked") == 1)
    with pytest.raises(OSError):
        (volume.mnt / "x").read_text()
    page = scrape(path)
    assert page.value("turnkeyfs_lease_left_seconds") == 0
    assert page.value("turnkeyfs_errors_total", kind="revoked") >= 1
    assert page.value("turnkeyfs_kms_requests_total", operation="probe", outcome="refused") >= 1
    run(turnkeyfs(), "key", "enable", "-c", volume.conf, "1")
    wait_for(lambda: scrape(path).value("turnkeyfs_state", state="active") == 1)


def test_the_textfile(watched, work):
    path = work / "x.prom"
    wait_for(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    before = Scrape(path.read_text())
    (watched.mnt / "f").write_bytes(b"x" * 5000)
    run("sync", "-f", watched.mnt)

    def is_newer():
        """Never half of one, whenever it is read."""
        page = Scrape(path.read_text())
        return page.value("turnkeyfs_transferred_bytes_total", operation="write") >= 5000

    wait_for(is_newer)
    after = Scrape(path.read_text())
    assert before.names() <= after.names(), before.names() - after.names()
    assert [p.name for p in work.glob("x.prom*")] in (["x.prom"], ["x.prom", "x.prom.new"])
    text = path.read_text()
    for word in ("secret-name", str(watched.keystore), watched.status()["daemon"]["fingerprint"]):
        assert word not in text
    watched.umount()
    assert not path.exists(), "what is not written any more must not be taken for news"


def test_a_textfile_that_cannot_be_written(work, make_volume):
    directory = work / "gone"
    directory.mkdir()
    volume = make_volume(conf={"metrics": {"textfile": directory / "x.prom", "interval": 1}})
    volume.expect_log("can't be written")
    wait_for((directory / "x.prom").exists)
    shutil.rmtree(directory)
    wait_for(lambda: "can't be written" in volume.log())
    (volume.mnt / "still").write_text("served")


@pytest.mark.parametrize("line,said", [
    ("socket = relative", "socket"), ("socket = /run/x/", "socket"), ("interval = 0", "interval"),
    ("interval = 3601", "interval"), ("textfile = /run/x.txt", "textfile"),
    ("textfile = /run/.prom", "textfile"), ("colour = red", "colour"),
])
def test_values_that_are_refused(work, line, said):
    (work / "x.conf").write_text(f"[metrics]\n{line}\n")
    done = run(turnkeyfs(), "init", "-c", work / "x.conf", work / "cipher", check=False)
    assert done.returncode == 3 and said in done.stderr and "x.conf:2" in done.stderr


def test_promtool_accepts_page_and_rules(watched):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool (package prometheus)")
    text = curl(watched.socket).stdout
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    run(promtool, "check", "rules", MONITORING / "turnkeyfs.rules.yml")


def test_dashboard_and_rules_use_only_what_a_scrape_has(watched):
    run(turnkeyfs(), "escrow", "export", watched.cipher, watched.directory / "escrow")
    wait_for(lambda: watched.status()["daemon"]["uptime_s"] >= 0)
    names = scrape(watched.socket).names()
    # Only there once the version was asked for: at most a quarter of the window later.
    names.add("turnkeyfs_kms_version_checked_timestamp_seconds")
    used = set()
    for path in MONITORING.iterdir():
        text = pathlib.Path(path).read_text()
        if path.suffix == ".json":
            text = "\n".join(t["expr"] for p in json.loads(text)["panels"] for t in p["targets"])
        used |= set(re.findall(r"\bturnkeyfs_[a-z_]+", text))
    assert len(used) > 20
    assert used <= names, used - names
    documented = set(re.findall(r"\bturnkeyfs_[a-z_]+", (TOP / "docs/monitoring.md").read_text()))
    families = {re.sub("_(bucket|sum|count)$", "", n) for n in names}
    assert families <= documented, families - documented


def test_a_mountpoint_with_odd_characters(work, make_volume):
    volume = make_volume(mount=False, conf=conf(work))
    odd = work / 'with "quotes", \\ and\nnewline'
    odd.mkdir()
    volume.mnt = odd
    volume.mount()
    assert "quotes" in scrape(work / "metrics.sock").labels("turnkeyfs_state")["mountpoint"]
