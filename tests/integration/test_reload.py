# SPDX-License-Identifier: Apache-2.0
"""reload: what may change under a mount changes, what may not is named, an error changes nothing."""

import re
import socket
import threading

from mountpoint import run, turnkeyfs

CONFIG, MOUNT, UNSUPPORTED = 3, 15, 18


def reload(volume, check=True):
    return run(turnkeyfs(), "reload", volume.mnt, check=check)


def test_what_may_change_does(make_volume):
    volume = make_volume(conf={"log": {"level": "error"}, "kms": {"outage_grace": 60}})
    assert reload(volume).stdout == "nothing has changed\n"
    before = volume.status()["daemon"]
    conf = {"log": {"level": "info", "names": "yes"}, "mount": {"threads": 3},
            "kms": {"outage_grace": 7200, "rotation_window": 4711, "rewrap_rate": 17, "revocation_window": 30}}  # fmt: skip
    volume.write_conf(conf)
    changed, waiting = reload(volume).stdout.splitlines()
    assert changed == ("in force from now on: [kms] rotation_window, [kms] rewrap_rate, [kms] outage_grace, "
                       "[log] level, [log] names")  # fmt: skip
    assert waiting == "from the next mount on only: [kms] revocation_window, [mount] threads"
    now = volume.status()["daemon"]
    assert (now["rotation"]["window_s"], now["rotation"]["rewrap_rate"]) == (4711, 17)
    assert now["threads"] == before["threads"] and now["pid"] == before["pid"]
    # At the new level, by which the log says so.
    for line in (r"reloaded: \[log\] level is in force", r"reloaded: \[mount\] threads has to wait"):
        assert re.search(line, volume.log())
    # What waits is said each time; what is in force is not.
    assert reload(volume).stdout == waiting + "\n"
    assert volume.remount().status()["daemon"]["threads"] == 3


def test_an_error_changes_nothing(volume):
    volume.expect_log("not reloaded")
    before = volume.status()["daemon"]["rotation"]["rewrap_rate"]
    volume.conf.write_text(f"[local]\nkeystore = {volume.keystore}\n[kms]\nrewrap_rate = 17\nrewrap = 1\n")
    done = reload(volume, check=False)
    assert done.returncode == CONFIG and f"{volume.conf}:5" in done.stderr, done
    assert volume.status()["daemon"]["rotation"]["rewrap_rate"] == before
    volume.conf.unlink()
    assert reload(volume, check=False).returncode == CONFIG


def test_options_of_the_command_line_go_before(make_volume):
    volume = make_volume(mount=False)
    volume.mount("-o", "threads=5")
    assert reload(volume).stdout == "nothing has changed\n"


def test_a_link_on_the_way_to_the_configuration_is_followed_anew(make_volume):
    volume = make_volume(mount=False)
    for version, rate in (("v1", 5000), ("v2", 17)):
        (volume.directory / version).mkdir()
        conf = volume.conf.read_text() + f"[kms]\nrewrap_rate = {rate}\n"
        (volume.directory / version / "volume.conf").write_text(conf)
    current = volume.directory / "current"
    current.symlink_to("v1")
    volume.conf = current / "volume.conf"
    volume.mount()
    assert reload(volume).stdout == "nothing has changed\n"
    current.unlink()
    current.symlink_to("v2")
    assert reload(volume).stdout == "in force from now on: [kms] rewrap_rate\n"


def test_a_mount_that_gives_no_answer_may_be_older(make_volume, monkeypatch):
    """As one that does not know the request: it closes the connection."""
    volume = make_volume(mount=False)
    monkeypatch.chdir(volume.cipher)  # for a short address
    with socket.socket(socket.AF_UNIX) as older:
        older.bind("turnkeyfs.sock")
        older.listen()

        def close_without_a_word():
            client = older.accept()[0]
            assert client.recv(64) == b"reload\n"
            client.close()

        thread = threading.Thread(target=close_without_a_word, daemon=True)
        thread.start()
        done = run(turnkeyfs(), "reload", volume.cipher, check=False)
        thread.join()
    assert done.returncode == UNSUPPORTED and "older version" in done.stderr, done
    assert "unmount it and mount it again" in done.stderr and "owner" not in done.stderr


def test_there_must_be_a_mount(make_volume):
    volume = make_volume(mount=False)
    done = run(turnkeyfs(), "reload", volume.cipher, check=False)
    assert done.returncode == MOUNT and "not mounted" in done.stderr, done
