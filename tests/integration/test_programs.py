# SPDX-License-Identifier: Apache-2.0
"""Real programs, on the mount as they would be anywhere; seconds in CI, more when asked."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess

import pytest
import turnkeyfs_reader as reader
from helpers import assert_same_tree, noise, read_file, write_file
from mountpoint import TOP, run, scaled, wait_for

pytestmark = pytest.mark.slow


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"no {program}")


# --- git -----------------------------------------------------------------------------------------

GIT = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",  # nothing goes on in the background
    "GIT_CONFIG_KEY_0": "gc.auto",
    "GIT_CONFIG_VALUE_0": "0",
    "HOME": "/nonexistent",
}


def git(directory, *words):
    return run("git", "-C", directory, *words, env=dict(os.environ, **GIT), timeout=600).stdout


@pytest.fixture
def repository(work):
    """Some thousand loose objects, outside the mount."""
    source = work / "source"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    commits, files = scaled(10, 40), scaled(120, 500)
    for commit in range(commits):
        for i in range(files):
            path = source / f"d{i % 30}/f{i}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"file {i}, commit {commit}\n" * (1 + (i * 7 + commit) % 40))
        git(source, "add", "-A")
        git(source, "commit", "-q", "-m", f"commit {commit}")
    return source


@needs("git")
@pytest.mark.deadline(300)
def test_git_clone_fsck_gc_and_commit(volume, repository):
    clone = volume.mnt / "clone"
    run("git", "clone", "-q", "--no-local", repository, clone, env=dict(os.environ, **GIT))
    git(clone, "fsck", "--full", "--strict")
    assert git(clone, "status", "--porcelain") == ""
    # As loose objects of mode 0444, one by one.
    loose = volume.mnt / "loose"
    run("git", "clone", "-q", repository, loose, "--no-hardlinks", env=dict(os.environ, **GIT))
    assert len(git(loose, "count-objects", "-v")) > 0
    git(loose, "fsck", "--full")
    write_file(loose / "new", noise(100_000))
    git(loose, "add", "new")
    git(loose, "commit", "-q", "-m", "new")
    git(loose, "gc", "-q", "--aggressive", "--prune=now")
    volume.remount()
    for each in (clone, loose):
        git(each, "fsck", "--full", "--strict")
        assert git(each, "status", "--porcelain") == ""
    assert git(clone, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")


# --- tar, rsync, cmake ---------------------------------------------------------------------------


@pytest.fixture
def sources(work):
    """This project's sources, and something of everything beside them."""
    tree = work / "sources"
    ignored = shutil.ignore_patterns("build*", ".git", "__pycache__", ".pytest_cache")
    shutil.copytree(TOP, tree, symlinks=True, ignore=ignored)
    os.symlink("README.md", tree / "link")
    os.symlink("nowhere", tree / "dangling")
    os.link(tree / "README.md", tree / "hard")
    write_file(tree / "sparse", b"")
    os.truncate(tree / "sparse", 3_000_000)
    write_file(tree / "read-only", b"x", mode=0o444)
    os.mkfifo(tree / "fifo")
    os.setxattr(tree / "README.md", "user.note", b"kept")
    run("setfacl", "-m", "u:1000:r", tree / "README.md")
    for i, name in enumerate(sorted(os.listdir(tree))):
        os.utime(tree / name, ns=(10**18, 10**18 + i * 1001), follow_symlinks=False)
    return tree


def test_an_untarred_tree_is_the_same_after_a_remount(volume, sources, work):
    run("tar", "-C", sources, "--format=posix", "--xattrs", "--acls", "-cf", work / "t.tar", ".")
    target = volume.mnt / "untarred"
    target.mkdir()
    run("tar", "-C", target, "--xattrs", "--acls", "-xf", work / "t.tar")
    volume.remount()
    assert_same_tree(sources, target, with_times=True)
    run("tar", "-C", target, "--compare", "-f", work / "t.tar")
    run("tar", "-C", target, "--format=posix", "-cf", volume.mnt / "again.tar", ".")
    run("tar", "-C", sources, "--compare", "-f", volume.mnt / "again.tar")


def changes(source, target):
    """What rsync would still have to do, contents compared byte by byte."""
    words = ("rsync", "-aHAX", "--checksum", "--delete", "--dry-run", "--itemize-changes")
    return run(*words, f"{source}/", f"{target}/").stdout


@needs("rsync")
def test_rsync_in_and_out(volume, sources, work):
    run("rsync", "-aHAX", f"{sources}/", f"{volume.mnt}/in/")
    volume.remount()
    assert changes(sources, volume.mnt / "in") == ""
    write_file(sources / "README.md", noise(50_000))
    os.unlink(sources / "LICENSE")
    run("rsync", "-aHAX", "--inplace", "--delete", f"{sources}/", f"{volume.mnt}/in/")
    run("rsync", "-aHAX", "--sparse", f"{volume.mnt}/in/", f"{work}/out/")
    assert changes(sources, work / "out") == ""
    assert_same_tree(sources, work / "out", with_times=True)


@needs("cmake")
@pytest.mark.deadline(400)
def test_this_project_builds_on_the_mount(volume, sources):
    target = volume.mnt / "sources"
    run("cp", "-a", sources, target)
    run("cmake", "-G", "Ninja", "-S", target, "-B", target / "build", "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", target / "build", "--target", "turnkeyfs", timeout=350)
    done = run("cmake", "--build", target / "build", "--target", "turnkeyfs")
    assert "no work to do" in done.stdout, "times are kept well enough for a second build"
    assert run(target / "build/turnkeyfs", "version").stdout


# --- SQLite --------------------------------------------------------------------------------------


def write_rows(path, journal, rows):
    """Many small transactions, updates, deletes and a rollback."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode={journal}")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        db.execute("CREATE INDEX i ON t (name)")
        for i in range(rows):
            db.execute("BEGIN")
            db.execute("INSERT INTO t VALUES (?, ?, ?)", (i, f"name {i * 7919 % 1000}", noise(i, i)))
            db.execute("UPDATE t SET name = ? WHERE id = ?", (f"changed {i}", i // 2))
            db.execute("ROLLBACK" if i % 10 == 9 else "COMMIT")
        db.execute("DELETE FROM t WHERE id % 3 = 0")
    return rows


@pytest.mark.parametrize("journal", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_sqlite_keeps_its_integrity(volume, journal):
    path = volume.mnt / "db.sqlite"
    rows = write_rows(path, journal, scaled(150, 2000))
    volume.remount()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        expected = [i for i in range(rows) if i % 3 and i % 10 != 9]
        assert [row[0] for row in db.execute("SELECT id FROM t ORDER BY id")] == expected
        for i, data in db.execute("SELECT id, data FROM t"):
            assert data == noise(i, i)
        db.execute("VACUUM")


def test_sqlite_readers_and_writers_share_a_database(volume):
    """WAL needs shared memory and locks between processes."""
    path = volume.mnt / "db.sqlite"
    run("sqlite3", path, "PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER);")
    insert = "PRAGMA busy_timeout=20000; " + "INSERT INTO t VALUES (1);" * scaled(100, 1000)
    writers = [
        subprocess.Popen(["sqlite3", str(path), insert], stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        assert run("sqlite3", path, "PRAGMA busy_timeout=20000; PRAGMA integrity_check;").stdout
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    count = run("sqlite3", path, "SELECT count(*) FROM t;").stdout.strip()
    assert int(count) == 3 * scaled(100, 1000)


# --- fio -----------------------------------------------------------------------------------------

FIO = {
    "buffered": ["--ioengine=psync", "--direct=0"],
    "direct": ["--ioengine=libaio", "--direct=1", "--iodepth=8"],
    "mmap": ["--ioengine=mmap"],
    "synchronous": ["--ioengine=psync", "--sync=1"],
}


@needs("fio")
@pytest.mark.deadline(300)
@pytest.mark.parametrize("way", FIO)
def test_fio_verifies_what_it_wrote_in_random_mixed_sizes(volume, way):
    size = scaled(32, 512) if way != "synchronous" else scaled(4, 64)
    words = [
        "fio",
        "--name=verify",
        f"--directory={volume.mnt}",
        f"--size={size}m",
        "--rw=randwrite",
        "--bsrange=512-256k" if way != "mmap" else "--bsrange=4k-256k",
        "--blockalign=512" if way != "mmap" else "--blockalign=4k",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--numjobs=2",
        "--randseed=4711",
        "--fallocate=none",
        *FIO[way],
    ]
    run(*words, timeout=280, cwd=volume.directory)
    volume.remount()
    run(*words, "--verify_only", timeout=280, cwd=volume.directory)


# --- PostgreSQL ----------------------------------------------------------------------------------


def postgres_programs():
    """The newest installed version's directory of programs."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    return os.path.dirname(max(found, key=lambda path: int(path.split("/")[4]))) if found else None


class Postgres:
    """A server of its own on the mount, run by its user, reached by a socket."""

    def __init__(self, data, sockets):
        self.bin = postgres_programs()
        self.user = pwd.getpwnam("postgres")
        self.data = data
        self.sockets = sockets
        self.server = None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        for path in (data, sockets):
            os.mkdir(path, 0o700)
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def words(self, program, *words):
        ids = ("--reuid", self.user.pw_uid, "--regid", self.user.pw_gid, "--clear-groups", "--")
        return [str(w) for w in ("setpriv", *ids, f"{self.bin}/{program}", *words)]

    def client(self, program, *words):
        connection = ("-h", self.sockets, "-p", self.port, "-U", "postgres")
        return run(*self.words(program, *connection, *words), timeout=600, cwd=self.sockets).stdout

    def init(self):
        words = ("-D", self.data, "-U", "postgres", "--auth=trust", "--data-checksums")
        run(*self.words("initdb", *words), timeout=300, cwd=self.sockets)

    def start(self):
        settings = ("listen_addresses=", f"unix_socket_directories={self.sockets}")
        options = [word for setting in settings for word in ("-c", setting)]
        self.server = subprocess.Popen(
            self.words("postgres", "-D", self.data, "-p", self.port, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(self.sockets / "log", "ab"),
            cwd=self.sockets,
        )
        self.client_until_ready()

    def client_until_ready(self):
        """After a kill it first flushes each of its thousand files: minutes on a busy machine."""
        ready = self.words("pg_isready", "-q", "-h", self.sockets, "-p", self.port)

        def is_ready():
            assert self.server.poll() is None, (self.sockets / "log").read_text()[-2000:]
            return not run(*ready, check=False, cwd=self.sockets).returncode

        wait_for(is_ready, 900, "PostgreSQL")

    def stop(self, how=signal.SIGINT):
        """SIGINT ends it in order, SIGQUIT leaves the write-ahead log to the next start."""
        if self.server:
            self.server.send_signal(how)
            self.server.wait(120)
            self.server = None


@pytest.fixture
def postgres(volume, work):
    if not postgres_programs():
        pytest.skip("no PostgreSQL")
    os.chmod(volume.mnt, 0o755)
    server = Postgres(volume.mnt / "data", work / "run")
    yield server
    server.stop(signal.SIGQUIT)


@pytest.mark.deadline(1200)
def test_postgresql_runs_restarts_and_passes_amcheck(volume, postgres):
    postgres.init()
    postgres.start()
    postgres.client("psql", "-qc", "CREATE EXTENSION amcheck")
    postgres.client("pgbench", "-q", "-i", "-s", scaled(2, 20), "postgres")
    postgres.client("pgbench", "-n", "-c", 4, "-j", 2, "-t", scaled(100, 5000), "postgres")
    total = "SELECT sum(abalance) = (SELECT sum(delta) FROM pgbench_history) FROM pgbench_accounts"
    assert postgres.client("psql", "-Atc", total).strip() == "t"
    postgres.stop(signal.SIGQUIT)
    postgres.start()
    assert postgres.client("psql", "-Atc", total).strip() == "t"
    postgres.stop()
    volume.remount()
    postgres.start()
    assert postgres.client("psql", "-Atc", total).strip() == "t"
    postgres.client("pg_amcheck", "--heapallindexed", "--jobs=2", "postgres")
    postgres.stop()
    checksums = run(*postgres.words("pg_checksums", "--check", "-D", postgres.data), cwd="/")
    assert "Bad checksums:  0" in checksums.stdout
    volume.umount()
    volume.assert_verifies_clean()


def test_a_real_tree_reads_the_same_through_the_second_reader(volume, sources, work):
    """All files of a real tree, decrypted by the independent reader."""
    run("cp", "-a", sources, volume.mnt / "tree")
    volume.umount()
    assert not reader.extract(volume.reader(), work / "extracted")
    for path, _, names in os.walk(sources):
        for name in names:
            full = os.path.join(path, name)
            if os.path.isfile(full) and not os.path.islink(full):
                relative = os.path.relpath(full, sources)
                assert read_file(full) == read_file(work / "extracted/tree" / relative), relative
