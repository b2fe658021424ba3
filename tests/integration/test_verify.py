# SPDX-License-Identifier: Apache-2.0
"""`verify`: beside a live mount, what `--repair` restores, and what `--salvage` saves."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest
from damage import page_at, poke
from helpers import BLOCK, noise, read_file, write_file
from mountpoint import KEY_RECORD, run, scaled, turnkeyfs, wait_for

EXIT_IN_USE = 6
EXIT_DAMAGED_DATA = 14
BLOCKS = 300


def verify_json(volume, *options, path=None):
    done = run(turnkeyfs(), "verify", "--json", *options, str(path or volume.mnt), check=False)
    assert done.returncode in (0, EXIT_DAMAGED_DATA), done.stderr
    found = json.loads(done.stdout)
    assert found["clean"] == (done.returncode == 0)
    return found


def kinds(found):
    return sorted((finding["kind"], finding["path"]) for finding in found["findings"])


@pytest.fixture
def damaged(volume):
    """A live mount; one block of one file, and the attribute of another, are damaged below it."""
    volume.expect_log("error: .*|warning: .*record")
    os.mkdir(volume.mnt / "dir")
    for name in ("whole", "dir/block", "record"):
        write_file(volume.mnt / name, noise(BLOCKS * BLOCK, name))
    volume.remount()
    poke(volume.below("dir/block"), page_at(200), b"damage")
    os.removexattr(volume.below("record"), KEY_RECORD)
    return volume


@pytest.mark.parametrize("what", ["mnt", "cipher"])
def test_a_live_mount_is_verified_by_its_daemon(damaged, what):
    found = verify_json(damaged, path=getattr(damaged, what))
    assert kinds(found) == [("block", "dir/block"), ("record_lost", "record")]
    block = found["findings"][0] if found["findings"][0]["kind"] == "block" else found["findings"][1]
    assert (block["offset"], block["length"]) == (200 * BLOCK, BLOCK)
    assert found["totals"]["files"] == 3
    # The mount has opened the file, and so restored its record.
    assert kinds(verify_json(damaged)) == [("block", "dir/block")]
    assert os.getxattr(damaged.below("record"), KEY_RECORD)
    assert read_file(damaged.mnt / "whole") == noise(BLOCKS * BLOCK, "whole")


def test_a_mount_at_work_is_clean(volume):
    """Writers, renames, removals, truncations, long names and a database: no false alarm."""
    end = threading.Event()

    def work(number):
        turn = 0
        while not end.is_set():
            turn += 1
            name = volume.mnt / (f"{number}-{turn % 7}" + "n" * (200 if turn % 3 == 0 else 0))
            write_file(name, noise(turn % 40 * 1000 + 1, turn))
            os.rename(name, volume.mnt / f"{number}-moved-{turn % 5}")
            with open(volume.mnt / f"{number}-moved-{turn % 5}", "r+b") as f:
                f.truncate(turn % 9000)
                os.pwrite(f.fileno(), b"x" * 5000, turn % 20000)
                os.fsync(f.fileno())
            if turn % 4 == 0:
                os.unlink(volume.mnt / f"{number}-moved-{turn % 5}")
            os.makedirs(volume.mnt / f"{number}-dir" / str(turn % 11), exist_ok=True)
            if turn % 11 == 0:
                shutil.rmtree(volume.mnt / f"{number}-dir")

    def transactions():
        database = sqlite3.connect(volume.mnt / "db", isolation_level=None)
        database.execute("CREATE TABLE t (v)")
        while not end.is_set():
            database.execute("INSERT INTO t VALUES (randomblob(3000))")
        database.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    threads.append(threading.Thread(target=transactions))
    for thread in threads:
        thread.start()
    try:
        for _ in range(scaled(8, 200)):
            found = verify_json(volume)
            assert found["clean"], found["findings"]
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert volume.counter("block_failures") == 0
    volume.umount()
    volume.assert_verifies_clean()


def test_a_rotation_beside_it_is_no_damage(volume):
    for i in range(300):
        write_file(volume.mnt / f"f{i}", noise(5000, i))
    for _ in range(3):
        run(turnkeyfs(), "rotate", str(volume.mnt))
        found = verify_json(volume)
        assert found["clean"], found["findings"]
        wait_for(lambda: volume.status()["daemon"]["rotation"]["state"] != "running",
                 what="the end of the rotation")


def test_the_walk_ends_with_its_client_and_with_the_mount(volume):
    for i in range(40):
        write_file(volume.mnt / f"f{i}", noise(1 << 20, i))
    os.truncate(volume.mnt / "f0", 40 << 30)  # holes take a while, too
    for _ in range(3):
        client = subprocess.Popen([turnkeyfs(), "verify", str(volume.mnt)], stdout=subprocess.DEVNULL)
        time.sleep(0.05)
        client.terminate()
        client.wait()

    def is_free():
        done = run(turnkeyfs(), "verify", "--json", str(volume.mnt), check=False)
        return done.returncode == 0

    wait_for(is_free, what="the daemon to see that its client is gone")
    client = subprocess.Popen([turnkeyfs(), "verify", str(volume.mnt)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    time.sleep(0.02)
    volume.umount()
    _, said = client.communicate(timeout=30)
    # A client as slow as a sanitized one may find the empty directory below.
    ends = ("unmounted meanwhile", "was unmounted", "it has no turnkeyfs.volume")
    assert client.returncode == 0 or any(end in said for end in ends), said


def test_repair_restores_a_lost_record_without_a_mount(damaged):
    damaged.umount()
    found = verify_json(damaged, "-c", str(damaged.conf), "--repair", path=damaged.cipher)
    record = next(finding for finding in found["findings"] if finding["kind"] == "record_lost")
    assert record["restored"] and found["totals"]["restored"] == 1
    assert os.getxattr(damaged.below("record"), KEY_RECORD)
    again = verify_json(damaged, "-c", str(damaged.conf), path=damaged.cipher)
    assert kinds(again) == [("block", "dir/block")]


def test_salvage_saves_all_but_what_is_damaged(damaged, tmp_path):
    """A file with a damaged block, and one that was cut, which a mount does not open at all."""
    content = noise(BLOCKS * BLOCK, "dir/block")
    damaged.umount()
    os.truncate(damaged.below("whole"), page_at(100))
    saved = tmp_path / "saved"
    refused = run(turnkeyfs(), "verify", "-c", str(damaged.conf), "--salvage", str(tmp_path),
                  str(damaged.cipher), check=False)
    assert refused.returncode == 2 and "not empty" in refused.stderr
    found = verify_json(damaged, "-c", str(damaged.conf), "--salvage", str(saved), path=damaged.cipher)
    assert ("seal", "whole") in kinds(found)
    assert found["totals"]["salvaged"] == 2
    hole = content[:200 * BLOCK] + bytes(BLOCK) + content[201 * BLOCK:]
    assert (saved / "dir" / "block").read_bytes() == hole
    cut = (saved / "whole").read_bytes()
    assert cut[:100 * BLOCK] == noise(BLOCKS * BLOCK, "whole")[:100 * BLOCK]
    assert not (saved / "record").exists()
    assert (saved / "whole").stat().st_mode & 0o777 == 0o600
    # The damaged files themselves are as they were.
    again = verify_json(damaged, "-c", str(damaged.conf), path=damaged.cipher)
    assert kinds(again) == kinds(found)


def test_salvage_wants_the_volume_unmounted(volume, tmp_path):
    done = run(turnkeyfs(), "verify", "-c", str(volume.conf), "--salvage", str(tmp_path / "new"),
               str(volume.cipher), check=False)
    assert done.returncode == EXIT_IN_USE and "mounted" in done.stderr
