# SPDX-License-Identifier: Apache-2.0
"""`turnkeyfs bench`: its table, and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import time

import pytest
from helpers import NOBODY
from mountpoint import mounts, run, turnkeyfs, wait_for

ROWS = [
    "sequential_write", "sequential_read", "sequential_reread", "random_read", "random_write",
    "synced_write", "create", "stat", "read_small", "remove",
]  # fmt: skip


@pytest.fixture
def folders(work):
    """A directory to measure and one for temporary files; both must be empty at the end."""
    for name in ("disk", "temporary"):
        (work / name).mkdir()
        os.chown(work / name, NOBODY.pw_uid, NOBODY.pw_gid)
    yield work
    for name in ("disk", "temporary"):
        assert os.listdir(work / name) == []
    assert not [mount for mount in mounts() if str(work / "temporary") in mount]


def environment(folders):
    return {**os.environ, "TMPDIR": str(folders / "temporary")}


def test_the_table_has_every_row_for_both_sides(folders):
    done = run(turnkeyfs(), "bench", "--quick", "--json", folders / "disk", env=environment(folders))
    found = json.loads(done.stdout)
    assert found["schema"] == 1 and found["directory"] == str(folders / "disk")
    assert [row["name"] for row in found["rows"]] == ROWS
    for row in found["rows"]:
        assert row["plain"] > 0 and row["encrypted"] > 0
        assert row["ratio"] == pytest.approx(row["encrypted"] / row["plain"])


def test_no_root_is_needed_and_the_working_directory_is_the_default(folders):
    ids = ("--reuid", str(NOBODY.pw_uid), "--regid", str(NOBODY.pw_gid), "--clear-groups")
    done = run(
        "setpriv", *ids, "--", turnkeyfs(), "bench", "--quick",
        env=environment(folders), cwd=folders / "disk",
    )  # fmt: skip
    table, _ = done.stdout.split("\n\n")
    assert len(table.splitlines()) == 1 + len(ROWS)
    assert "plain" in table and "encrypted" in table and "ratio" in table


@pytest.mark.parametrize(
    "how, when",
    [
        (signal.SIGINT, "folders"),
        (signal.SIGINT, "mounted"),
        (signal.SIGINT, "later"),
        (signal.SIGTERM, "mounted"),
        (signal.SIGHUP, "mounted"),
    ],
)
def test_a_signal_ends_it_and_nothing_is_left(folders, how, when):
    # A process group of its own, which gets the signal as a whole: as by a terminal.
    bench = subprocess.Popen(
        [turnkeyfs(), "bench", folders / "disk"],
        env=environment(folders), stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    )  # fmt: skip
    if when == "folders":
        wait_for(lambda: os.listdir(folders / "disk"), what="the folders")
    else:
        wait_for(lambda: any("/temporary/" in mount for mount in mounts()), what="the mount")
        time.sleep(0.5 if when == "later" else 0)
    os.killpg(bench.pid, how)
    out, err = bench.communicate(timeout=60)
    assert bench.returncode == -how
    assert out == b"" and err == b""


def test_a_directory_that_is_not_there_is_a_mistake(folders):
    done = run(turnkeyfs(), "bench", folders / "none", check=False, env=environment(folders))
    assert done.returncode == 2
    assert "none" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_full_disk_is_told_before_anything_is_made(folders):
    run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folders / "disk")
    try:
        done = run(turnkeyfs(), "bench", folders / "disk", check=False, env=environment(folders))
    finally:
        run("umount", folders / "disk")
    assert done.returncode == 16
    assert "free" in done.stderr


def test_an_error_in_the_middle_leaves_nothing_either(folders):
    """The disk fills up meanwhile."""
    run("mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", folders / "disk")
    try:
        run("fallocate", "-l", "84M", folders / "disk/filler")
        done = run(
            turnkeyfs(), "bench", "--quick", folders / "disk", check=False, env=environment(folders)
        )
        left = os.listdir(folders / "disk")
    finally:
        run("umount", folders / "disk")
    assert done.returncode != 0
    assert left == ["filler"]
