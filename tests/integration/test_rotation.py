# SPDX-License-Identifier: Apache-2.0
"""New root key versions taken up by themselves, under load, through crashes and failures.

The command `rotate` has its own tests: test_rotate.py.
"""

import collections
import errno
import os
import pathlib
import random
import shutil
import subprocess
import threading
import time

import pytest
from azure_volume import kek_states, record_versions, rotation, turnkeyfs
from helpers import new_seed, noise, raises, read_file, write_file
from key_states import LocalKey, allowed, state, wait_served, wait_state, windows
from mountpoint import run, scaled, wait_for

WINDOW = 3  # seconds, for rotation
CONF = windows(rotation=WINDOW)
SLOW = 250  # files per second, where something has to happen during a pass


@pytest.fixture
def volume(request, make_volume):
    marker = request.node.get_closest_marker("conf")
    volume = make_volume(conf=marker.args[0] if marker else CONF)
    volume.key = LocalKey(volume)
    return volume


def fill(volume, count, start=0):
    for i in range(start, start + count):
        directory = volume.mnt / f"d{i % 10}"
        directory.mkdir(exist_ok=True)
        write_file(directory / f"f{i}", noise(100 + i % 5000, i))


def check(volume, count):
    for i in range(count):
        content = read_file(volume.mnt / f"d{i % 10}" / f"f{i}")
        assert content == noise(100 + i % 5000, i), i


def all_under(volume, newest):
    states = kek_states(volume)
    return states.get(newest) == "active" and list(states.values()).count("active") == 1


def wait_done(volume, newest, seconds=60):
    began = time.monotonic()
    wait_for(lambda: all_under(volume, newest), seconds, f"the rotation to version {newest}")
    return time.monotonic() - began


def not_needed(volume):
    return [root["version"] for root in volume.status(volume.cipher)["no_longer_needed"]]


def disable_old(volume):
    """All versions of the root key but the one that is needed. Returns those that were needed once."""
    old = not_needed(volume)
    (needed,) = (
        kek["protectors"][0]["version"]
        for kek in volume.status(volume.cipher)["kek_versions"]
        if kek["state"] == "active"
    )
    assert needed not in old
    for version in volume.key.enabled():
        if version != needed:
            volume.key.set_enabled(False, version)
    assert volume.key.enabled() == [needed]
    time.sleep(3)  # a revocation window and more
    assert state(volume) == "active", "they are not asked for"
    return old


def check_below(volume, newest):
    """The independent reader, unmounted: all records of both places under the newest version."""
    found = volume.reader()
    assert set(found.keks) == {newest}
    for relative, st in found.walk():
        if os.path.isfile(found.root + "/" + relative) and st.st_size:
            with found.open(relative) as f:
                versions = {int.from_bytes(r[2:4], "big") for r in f.records.values()}
                assert versions == {newest}, (relative, versions)
    assert record_versions(volume) <= {newest}


# --- taken up ------------------------------------------------------------------------------------


def test_a_new_version_is_taken_up_within_the_window(volume):
    fill(volume, 200)
    for newest in (2, 3):
        volume.key.rotate()
        took = wait_done(volume, newest)
        print(f"picked up and 200 files rewrapped after {took:.2f} s of {WINDOW} s")
        assert took <= allowed(WINDOW)
    lease = volume.status()["daemon"]["lease"]
    assert lease["version_checked_ago_s"] <= WINDOW
    volume.key.disable("1")
    volume.key.disable("2")
    time.sleep(1)
    assert state(volume) == "active", "retired versions are not asked for"
    check(volume, 200)
    volume.remount()
    check(volume, 200)
    volume.umount()
    check_below(volume, 3)


@pytest.mark.conf(windows(rotation=0))
def test_without_a_window_nothing_happens_by_itself(volume):
    volume.key.rotate()
    time.sleep(1.5)
    assert kek_states(volume) == {1: "active"}


@pytest.mark.conf({"kms": {"rotation_window": 1}, "local": {"rotate_every": 3}})
def test_local_makes_new_versions_by_itself(volume):
    fill(volume, 50)
    wait_done(volume, 2, 20)
    began = time.monotonic()
    wait_done(volume, 3, 20)
    took = time.monotonic() - began
    assert took >= 1.5, took  # 3 s after version 2 was made, which took a while itself
    assert "back that up" in volume.log()
    check(volume, 50)
    volume.umount()
    versions = volume.keystore.read_text().count("[version ")
    time.sleep(3.2)
    assert volume.keystore.read_text().count("[version ") == versions, "only while mounted"
    check_below(volume, max(kek_states(volume)))


@pytest.mark.conf(windows(rotation=1))
def test_local_makes_none_unless_it_is_told_to(volume):
    time.sleep(2)
    assert kek_states(volume) == {1: "active"}


# --- what status says ----------------------------------------------------------------------------


@pytest.mark.backing("ext4")
@pytest.mark.conf({"kms": {"rotation_window": 1, "rewrap_rate": 100}})
def test_status_knows_how_far_it_is_and_how_long_it_will_take(volume):
    count = 150
    fill(volume, count)
    os.sync()
    count += len(list(volume.mnt.glob("**/"))) if volume.names_encrypted() else 0
    volume.remount()
    files = rotation(volume)["files_by_version"]
    assert files["estimated"] and files["total"] >= count and files["older"] == 0
    assert files["versions"] == [{"version": 1, "files": files["total"]}]
    volume.key.rotate()
    wait_for(lambda: rotation(volume)["state"] == "running", 20, "the beginning")
    seen = []
    while (now := rotation(volume))["state"] == "running":
        seen.append(now)
        time.sleep(0.05)
    assert now["state"] == "done"
    assert all(s["left_s"] is not None for s in seen), seen
    assert max(s["left_s"] for s in seen) >= 1
    first = [s for s in seen if s["passes"] == 1 and 0 < s["files"] < count]
    assert first, "a pass over 150 files takes 1.5 s"
    for s in first:
        files = s["files_by_version"]
        assert files["estimated"] and files["unseen"] > 0 and files["older"] == files["unseen"]
        assert files["versions"] == [{"version": 2, "files": s["files"]}]
    second = [s for s in seen if s["passes"] == 2]
    assert all(s["files_by_version"]["older"] == 0 for s in second)
    assert now["files_by_version"] == {
        "current": count, "older": 0, "unseen": 0, "total": count, "estimated": False,
        "versions": [{"version": 2, "files": count}],
    }  # fmt: skip
    took = now["ended"] - now["started"]
    assert took >= 2, "it kept to its rate"
    text = turnkeyfs("status", volume.mnt).stdout
    assert f"{count} files under KEK version 2" in text, text


# --- under load ----------------------------------------------------------------------------------


class Programs:
    """fio with verification, git and SQLite, each over and over in a thread of its own."""

    def __init__(self, mnt):
        self.mnt = mnt
        self.stop = threading.Event()
        self.rounds = {"fio": 0, "git": 0, "sqlite": 0}
        self.failures = []  # (began, ended, text)
        self.row = 0
        self.commits = 0
        for name in ("fio", "git"):
            (mnt / name).mkdir()
        self.git("init", "-q", ".")
        for name, value in (("user.name", "n"), ("user.email", "e"), ("core.fsync", "all"),
                            ("gc.auto", "0")):  # fmt: skip
            self.git("config", name, value)
        self.sql("create table t (n integer primary key, text)")
        self.threads = [
            threading.Thread(target=self.loop, args=(name, getattr(self, f"one_{name}")))
            for name in self.rounds
            if shutil.which({"sqlite": "sqlite3"}.get(name, name))
        ]

    def git(self, *words):
        return run("git", "-C", self.mnt / "git", *words)

    def sql(self, statement):
        return run("sqlite3", "-bail", self.mnt / "db", statement).stdout

    def one_fio(self):
        run("fio", "--name=v", f"--directory={self.mnt}/fio", "--size=4M", "--bsrange=512-64k",
            "--rw=randwrite", "--verify=crc32c", "--fallocate=none", "--fsync=20",
            "--thread", "--verify_state_save=0")  # fmt: skip

    def one_git(self):
        for lock in (self.mnt / "git/.git").rglob("*.lock"):  # of one that failed
            lock.unlink(missing_ok=True)
        write_file(self.mnt / "git" / f"f{self.commits % 20}", noise(20_000, self.rounds["git"]))
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", "m")
        self.commits += 1

    def one_sqlite(self):
        self.sql(f"insert or ignore into t values ({self.row}, hex(randomblob(2000)))")
        self.row += 1

    def loop(self, name, one):
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                one()
                self.rounds[name] += 1
            except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
                self.failures.append((began, time.monotonic(), f"{name}: {e}"))
                time.sleep(0.05)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        """All is whole, and what was acknowledged is there."""
        assert self.sql("pragma integrity_check").strip() == "ok"
        assert int(self.sql("select count(*) from t")) >= self.row
        self.git("fsck", "--full", "--strict")
        assert int(self.git("rev-list", "--count", "HEAD").stdout) >= self.commits
        run("fio", "--name=v", f"--directory={self.mnt}/fio", "--size=4M", "--rw=randwrite",
            "--bsrange=512-64k", "--verify=crc32c", "--fallocate=none", "--thread", "--verify_state_save=0")  # fmt: skip


@pytest.mark.slow
@pytest.mark.deadline(240)
@pytest.mark.conf(windows(rotation=1))
def test_many_rotations_while_programs_work_and_then_the_old_versions_are_disabled(volume):
    count = scaled(6, 50)
    fill(volume, 300)
    with Programs(volume.mnt) as programs:
        for newest in range(2, count + 2):
            volume.key.rotate()
            wait_done(volume, newest)
    assert not programs.failures, programs.failures[0]
    assert all(programs.rounds.values()), programs.rounds
    assert len(disable_old(volume)) == newest - 1
    programs.check()
    volume.remount()
    programs.check()
    check(volume, 300)
    print(f"{newest - 1} rotations; {programs.rounds}")
    volume.umount()
    check_below(volume, newest)
    volume.assert_verifies_clean()


def unexplained(failures, away):
    """Those that began after the key's return, but for the write errors that the kernel kept: of
    a file that nobody synced while it was away, the next fsync or close hears of it, once."""
    kept = collections.Counter()
    wrong = []
    for began, ended, text in failures:
        if any(began <= end and ended >= start for start, end in away):
            continue
        returns = sum(end <= began for _, end in away)
        program = text.split(":")[0]
        kept[program, returns] += 1
        said = "Key has been revoked" in text or "I/O error" in text or "output error" in text
        if not said or kept[program, returns] > 2:  # SQLite has two files
            wrong.append((began, ended, text))
    return wrong


@pytest.mark.slow
@pytest.mark.deadline(240)
@pytest.mark.conf(windows(revocation=1))
def test_many_revocations_while_programs_work(volume):
    away = []
    fill(volume, 50)
    with Programs(volume.mnt) as programs:
        for _ in range(scaled(6, 50)):
            time.sleep(0.3)
            began = time.monotonic()
            volume.key.disable()
            wait_state(volume, "revoked")
            volume.key.enable()
            wait_served(os.listdir, volume.mnt)
            wait_state(volume, "active")
            away.append((began, time.monotonic()))
    wrong = unexplained(programs.failures, away)
    assert not wrong, wrong[0]
    programs.check()
    check(volume, 50)
    volume.remount()
    programs.check()
    print(f"{len(away)} revocations; {programs.rounds}, {len(programs.failures)} refused")
    volume.umount()
    volume.assert_verifies_clean()


def test_names_that_move_during_passes_are_not_missed(volume):
    """Files and directories are renamed from what was not visited into what was, and linked."""
    fill(volume, scaled(600))
    stop = threading.Event()
    failures = []

    def storm(seed):
        generator = random.Random(seed)
        mnt = volume.mnt
        step = 0
        while not stop.is_set():
            step += 1
            a, b = (mnt / f"s{seed}-{generator.randrange(4)}" for _ in "ab")
            try:
                a.mkdir(exist_ok=True)
                write_file(a / f"n{step % 7}", noise(300, step))
                if not b.exists():
                    a.rename(b)
                other = mnt / f"d{generator.randrange(10)}" / f"l{seed}-{step % 50}"
                other.unlink(missing_ok=True)
                os.link(mnt / "d0/f0", other)
                os.rename(other, mnt / f"d{generator.randrange(10)}" / f"m{seed}-{step % 50}")
            except FileNotFoundError:
                continue
            except OSError as e:
                failures.append(str(e))

    threads = [threading.Thread(target=storm, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for newest in range(2, 6):
            volume.key.rotate()
            time.sleep(0.2)
            wait_done(volume, newest)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    check(volume, scaled(600))
    volume.umount()
    check_below(volume, 5)
    volume.assert_verifies_clean()


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.deadline(400)
@pytest.mark.conf(windows(rotation=WINDOW, mount_timeout=60))
def test_killed_at_random_points_nothing_is_lost_and_it_finishes(volume):
    count, points = scaled(1000, 20_000), int(os.environ.get("TURNKEYFS_TEST_KILLS") or scaled(20, 200))
    # A busy machine may be late with a call; a mount tries again then.
    volume.expect_log("the key record's (copy|attribute)|trying again for")
    fill(volume, count)
    os.sync()
    generator = random.Random(new_seed())
    killed_in = 0
    for _ in range(points):
        if list(kek_states(volume).values()).count("active") == 1:
            volume.key.rotate_now()
        time.sleep(generator.uniform(0, 0.1 + count / 3500))
        volume.kill()
        volume.daemon.wait(10)
        volume.forget_daemon()
        run("umount", "-l", volume.mnt)
        killed_in += list(kek_states(volume).values()).count("active") > 1
        volume.mount()
    newest = max(kek_states(volume))
    wait_done(volume, newest, 300)
    print(f"{killed_in} of {points} within a rotation; {newest} versions")
    assert killed_in >= points // 4
    disable_old(volume)
    check(volume, count)
    volume.remount()
    check(volume, count)
    volume.umount()
    check_below(volume, newest)
    volume.assert_verifies_clean()


# --- refused and failing -------------------------------------------------------------------------


@pytest.mark.conf(windows(revocation=1, rotation=4, rewrap_rate=SLOW))
def test_a_revocation_in_the_middle_ends_it_and_it_goes_on_afterwards(volume):
    """The old version is disabled although files are under it: that locks all of the mount."""
    fill(volume, 500)
    volume.key.rotate_now()
    wait_for(lambda: rotation(volume)["rewrapped"] > 50, 30, "the beginning")
    volume.key.disable("1")
    wait_state(volume, "revoked")
    assert kek_states(volume) == {1: "active", 2: "active"}
    wait_for(lambda: rotation(volume)["state"] == "failed", 10, "the end of the job")
    raises(errno.EKEYREVOKED, os.listdir, volume.mnt)
    volume.key.enable("1")
    wait_state(volume, "active")
    wait_done(volume, 2)
    volume.key.disable("1")
    check(volume, 50)
    volume.umount()
    check_below(volume, 2)


@pytest.mark.conf(windows(revocation=6, rotation=1))
def test_a_version_that_is_refused_is_not_left_for_an_older_one(volume):
    """local takes the newest enabled version for the current one: here, for a moment, version 1."""
    volume.expect_log("rotation|is disabled")
    write_file(volume.mnt / "f", b"content")
    volume.key.rotate()
    wait_done(volume, 2)
    volume.key.disable("2")
    wait_state(volume, "revoked")
    assert kek_states(volume) == {1: "retired", 2: "active"}
    volume.key.enable("2")
    wait_state(volume, "active")
    assert read_file(volume.mnt / "f") == b"content"


def lock_directory(path, locked):
    return run("chattr", "+i" if locked else "-i", path, check=False).returncode == 0


@pytest.mark.backing("ext4")
def test_a_volume_file_that_can_t_be_written_delays_it_only(volume):
    volume.expect_log("cannot write .*turnkeyfs.volume")
    fill(volume, 500)
    assert lock_directory(volume.cipher, True)
    try:
        volume.key.rotate()
        wait_for(lambda: rotation(volume)["state"] == "failed", 20, "the failure")
        assert "cannot write" in rotation(volume)["error"]
        assert kek_states(volume) == {1: "active"}
        write_file(volume.mnt / "meanwhile", b"served")
        check(volume, 500)
    finally:
        lock_directory(volume.cipher, False)
    wait_done(volume, 2)
    check(volume, 500)
    volume.umount()
    check_below(volume, 2)


@pytest.mark.backing("ext4")
@pytest.mark.conf(windows(rotation=WINDOW, rewrap_rate=SLOW))
def test_retiring_fails_and_is_made_up_for(volume):
    volume.expect_log("cannot write .*turnkeyfs.volume")
    count = 400
    fill(volume, count)
    turnkeyfs("rotate", volume.mnt)
    wait_for(lambda: rotation(volume)["rewrapped"] > 20, 20, "the beginning")
    assert lock_directory(volume.cipher, True)
    try:
        wait_for(lambda: rotation(volume)["state"] == "failed", 20, "the failure")
        assert kek_states(volume) == {1: "active", 2: "active"}
        check(volume, 100)
    finally:
        lock_directory(volume.cipher, False)
    wait_done(volume, 2)
    check(volume, 100)


@pytest.mark.backing("ext4")
def test_a_full_disk_delays_it_at_most(volume, backing):
    volume.expect_log("cannot write .*turnkeyfs.volume|No space left")
    fill(volume, 500)
    os.sync()
    filler = pathlib.Path(backing) / "filler"
    free = os.statvfs(backing)
    run("fallocate", "-l", (free.f_bavail - 100) * free.f_frsize, filler, check=False)
    run("sh", "-c", f"cat /dev/zero >>{filler}", check=False)
    volume.key.rotate()
    time.sleep(WINDOW)
    assert rotation(volume)["state"] in ("done", "failed"), rotation(volume)
    check(volume, 500)
    filler.unlink()
    wait_done(volume, 2)
    check(volume, 500)
    volume.umount()
    check_below(volume, 2)
    volume.assert_verifies_clean()


def test_an_open_file_without_a_name_survives_rotation_and_revocation(volume):
    content = noise(9000, 1)
    fd = os.open(volume.mnt / "gone", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, content, 0)
    os.fsync(fd)
    os.unlink(volume.mnt / "gone")
    volume.key.rotate()
    wait_done(volume, 2)
    volume.key.disable("2")
    wait_state(volume, "revoked")
    volume.key.enable("2")
    wait_served(os.pread, fd, 1, 0)
    assert os.pread(fd, 10_000, 0) == content
    os.close(fd)
