# SPDX-License-Identifier: Apache-2.0
"""The daemon killed at any instant under fio, SQLite and PostgreSQL: the volume verifies clean and
mounts, databases recover, and what they committed is there.

`TURNKEYFS_TEST_KILLS` says how often, for each of the four; a few times otherwise.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from mountpoint import run, sanitized
from test_crash_kill import kill_and_mount
from test_programs import Postgres, needs, postgres_programs

KILLS = int(os.environ.get("TURNKEYFS_TEST_KILLS", "1" if sanitized() else "2"))
FIO_SIZE = 24 << 20

pytestmark = [pytest.mark.slow, pytest.mark.deadline(1200 + 60 * KILLS)]


def reap(process, how=signal.SIGKILL):
    """A program whose mount has died under it comes to its end (how 0), or is brought to it."""
    if process.poll() is None and how:
        process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)


def killed_under(volume, program, seed):
    """Kill after kill, each at a random instant; @program begins, is reaped and checks."""
    for number in range(KILLS):
        rng = random.Random(f"{seed}.{number}")
        program.begin(rng)
        time.sleep(rng.uniform(0, 1.2))
        volume.kill()
        program.reap()
        kill_and_mount(volume)
        program.check()
    volume.umount()
    volume.assert_verifies_clean()
    print(f"{KILLS} kills: {program.say()}")


class Fio:
    """Every block that it writes says where it is, and carries a checksum."""

    def __init__(self, volume):
        self.path = volume.mnt / "fio"
        self.blocks = ("--bs=4k", "--rw=write", "--end_fsync=1")
        self.writer = None
        self.checked = 0
        run(*self.words("--do_verify=0", *self.blocks))

    def words(self, *words):
        file = ("--name=f", f"--filename={self.path}", f"--size={FIO_SIZE}", "--ioengine=psync")
        verify = ("--verify=crc32c", "--verify_interval=4k", "--verify_state_save=0")
        # In one process, which a signal ends whole.
        return ["fio", "--output-format=terse", "--thread", *verify, *file, *words]

    def begin(self, rng):
        ways = ("--rw=randwrite", "--norandommap", "--bssplit=4k/70:16k/20:128k/10", "--time_based")
        seed = f"--randseed={rng.randrange(1 << 30)}"
        how = rng.choice([("--fdatasync=8",), ("--fsync=4", "--direct=1"), ("--sync=1",), ()])
        self.writer = subprocess.Popen(
            self.words("--do_verify=0", "--runtime=60", *ways, seed, *how),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )

    def reap(self):
        reap(self.writer)

    def check(self):
        run(*self.words("--bs=64k", "--rw=read", "--verify_fatal=1"), cwd="/")
        self.checked += FIO_SIZE // 4096

    def say(self):
        return f"{self.checked} blocks checked"


@needs("fio")
def test_killed_under_fio(volume):
    killed_under(volume, Fio(volume), "fio")


WRITER = """
import random, sqlite3, sys
path, mode, seed, row = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = random.Random(seed)
db = sqlite3.connect(path, isolation_level=None)
db.execute(f'PRAGMA journal_mode = {mode}')
db.execute('PRAGMA synchronous = FULL')
while True:
    db.execute('BEGIN')
    for _ in range(rng.randrange(1, 20)):
        row += 1
        db.execute('INSERT INTO t VALUES (?, ?)', (row, rng.randbytes(rng.randrange(1, 3000))))
    db.execute('UPDATE t SET x = ? WHERE n = ?', (rng.randbytes(900), rng.randrange(max(1, row - 1000), row + 1)))
    db.execute('DELETE FROM t WHERE n <= ?', (row - 2000,))
    db.execute('DELETE FROM u')
    db.execute('INSERT INTO u VALUES (?)', (row,))
    db.execute('COMMIT')
    print(row, flush=True)
    if rng.randrange(40) == 0 and mode == 'WAL':
        db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
"""


class Sqlite:
    """The newest rows, with consecutive numbers; a second table has the newest one's."""

    def __init__(self, volume, work, mode):
        self.path = volume.mnt / "db"
        self.mode = mode
        self.out = work / "committed"
        self.writer = None
        self.rows = 0
        db = sqlite3.connect(self.path)
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x)")
        db.execute("CREATE TABLE u (n)")
        db.commit()
        db.close()

    def begin(self, rng):
        with open(self.out, "wb") as out:
            # In a process of its own: a mapped file of a dead mount raises SIGBUS.
            self.writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, self.path, self.mode, str(rng.random()), str(self.rows)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )

    def reap(self):
        reap(self.writer)

    def check(self):
        committed = [int(line) for line in self.out.read_text().split("\n")[:-1]]
        db = sqlite3.connect(self.path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, lowest, highest = db.execute("SELECT count(*), coalesce(min(n), 1), coalesce(max(n), 0) FROM t").fetchone()
        newest = db.execute("SELECT n FROM u").fetchone()
        db.close()
        assert highest == (newest[0] if newest else 0)
        assert count == highest - lowest + 1
        assert highest >= max([self.rows, *committed]), (highest, committed[-1:])
        self.rows = highest

    def say(self):
        return f"{self.rows} rows"


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_killed_under_sqlite(volume, work, mode):
    killed_under(volume, Sqlite(volume, work, mode), mode)


class Bench:
    """A server under pgbench, which logs what was committed."""

    AMCHECK_EVERY = 10  # kills; pages' checksums are checked as often

    def __init__(self, volume, work):
        os.chmod(volume.mnt, 0o755)
        self.server = Postgres(volume.mnt / "data", work / "run")
        self.logs = work / "run" / "logs"
        self.bench = None
        self.history = 0
        self.committed = 0
        self.checks = 0
        self.server.init()
        self.server.start()
        self.server.client("psql", "-qc", "CREATE EXTENSION amcheck")
        self.server.client("pgbench", "-q", "-i", "-s", 1, "postgres")
        self.server.stop()

    def begin(self, rng):
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()
        os.chown(self.logs, self.server.user.pw_uid, self.server.user.pw_gid)
        self.server.start()
        connection = ("-h", self.server.sockets, "-p", self.server.port, "-U", "postgres")
        job = ("-n", "-c", 4, "-j", 2, "-T", 600, "-l", "--log-prefix", self.logs / "log")
        self.bench = subprocess.Popen(
            self.server.words("pgbench", *connection, *job, "--random-seed", rng.randrange(1 << 30), "postgres"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.logs,
        )

    def reap(self):
        reap(self.server.server, signal.SIGQUIT)
        self.server.server = None
        reap(self.bench, 0)  # it writes its log at its end

    def check(self):
        # A line for each transaction; the last one of a log may be cut.
        done = sum(log.read_bytes().count(b"\n") for log in self.logs.iterdir())
        self.server.start()
        question = (
            "SELECT count(*), coalesce(sum(delta), 0) = (SELECT sum(abalance) FROM pgbench_accounts),"
            " coalesce(sum(delta), 0) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_history"
        )
        count, accounts, branches = self.server.client("psql", "-AtF,", "-c", question).strip().split(",")
        assert (accounts, branches) == ("t", "t")
        assert int(count) >= self.history + done, (count, self.history, done)
        self.history = int(count)
        self.committed += done
        self.checks += 1
        if self.checks % self.AMCHECK_EVERY == 0 or self.checks == KILLS:
            self.server.client("pg_amcheck", "--heapallindexed", "postgres")
            self.server.stop()
            words = self.server.words("pg_checksums", "--check", "-D", self.server.data)
            assert "Bad checksums:  0" in run(*words, cwd="/").stdout
        else:
            self.server.stop(signal.SIGQUIT if self.checks % 2 else signal.SIGINT)

    def say(self):
        return f"{self.committed} logged transactions, {self.history} found"


def test_killed_under_postgresql(volume, work):
    if not postgres_programs():
        pytest.skip("no PostgreSQL")
    bench = Bench(volume, work)
    try:
        killed_under(volume, bench, "postgresql")
    finally:
        bench.server.stop(signal.SIGQUIT)
