# SPDX-License-Identifier: Apache-2.0
"""`turnkeyfs path`: from the mount to the encrypted directory and back, mounted, unmounted, in copies."""

import json
import os
import shutil
import subprocess

import pytest
from helpers import write_file
from mountpoint import KEY_RECORD, run, turnkeyfs

NOT_A_VOLUME, FAILED, USAGE, KEYSTORE_MISSING = 4, 1, 2, 7
LONG = "l" * 250
NAMES = ("file", "dir", "dir/sub", "dir/sub/file", LONG, f"{LONG}/{LONG}", "link", "a b\\c")


@pytest.fixture
def filled(volume):
    os.makedirs(volume.mnt / "dir/sub")
    os.mkdir(volume.mnt / LONG)
    for name in ("file", "dir/sub/file", f"{LONG}/{LONG}", "a b\\c"):
        write_file(volume.mnt / name, name.encode())
    os.symlink("nowhere", volume.mnt / "link")
    return volume


def ask(volume, *words, check=True):
    """The paths that come out, by -0."""
    done = run(turnkeyfs(), "path", "-c", volume.conf, "-0", *words, check=check)
    return done.stdout.split("\0")[:-1] if check else done


def inode(path):
    return os.lstat(path).st_ino


def test_there_and_back_while_mounted(filled):
    plain = [str(filled.mnt / name) for name in NAMES]
    backing = ask(filled, *plain)
    assert backing == [str(filled.below(name)) for name in NAMES]
    # The backing file is the file: the mount shows its inode number.
    assert [inode(path) for path in backing] == [inode(path) for path in plain]
    assert ask(filled, *backing) == plain


def test_there_and_back_unmounted(filled):
    backing = ask(filled, *(filled.mnt / name for name in NAMES))
    filled.umount()
    assert ask(filled, "--cipherdir", filled.cipher, *NAMES) == backing
    assert ask(filled, "--cipherdir", filled.cipher, *(f"/{name}" for name in NAMES)) == backing
    assert ask(filled, *backing) == list(NAMES)


def test_roots(filled):
    root = str(filled.cipher / "root")
    assert ask(filled, filled.mnt, f"{filled.mnt}/", root) == [root, root, str(filled.mnt)]
    filled.umount()
    assert ask(filled, root, f"{root}/.") == [".", "."]
    assert ask(filled, "--cipherdir", filled.cipher, "/", ".") == [root, root]


def test_a_copy_answers_for_itself(filled, work):
    backing = ask(filled, *(filled.mnt / name for name in NAMES))
    os.sync()
    subprocess.run(["cp", "-a", filled.cipher, work / "copy"], check=True)
    copied = [path.replace(str(filled.cipher), str(work / "copy")) for path in backing]
    # What is gone from the mount is still known in the copy.
    shutil.rmtree(filled.mnt / "dir")
    assert ask(filled, *copied) == list(NAMES)
    assert ask(filled, "--cipherdir", work / "copy", *NAMES) == copied
    if not filled.names_encrypted():
        return
    done = ask(filled, filled.mnt / "dir/sub/file", check=False)
    assert done.returncode == FAILED and "a directory on the way is not there" in done.stderr


def test_a_removed_file_has_a_path_all_the_same(filled):
    backing = ask(filled, filled.mnt / "dir/sub/file", filled.mnt / LONG / LONG)
    os.unlink(filled.mnt / "dir/sub/file")
    os.unlink(filled.mnt / LONG / LONG)
    assert ask(filled, filled.mnt / "dir/sub/file", filled.mnt / LONG / LONG) == backing
    assert ask(filled, backing[0]) == [str(filled.mnt / "dir/sub/file")]


def test_a_medium_that_cannot_be_written_to(filled, work):
    backing = ask(filled, filled.mnt / "dir/sub/file")
    filled.umount()
    (work / "medium").mkdir()
    run("mount", "--bind", filled.cipher, work / "medium")
    try:
        run("mount", "-o", "remount,bind,ro", work / "medium")
        found = ask(filled, "--cipherdir", work / "medium", "dir/sub/file")
        assert found == [path.replace(str(filled.cipher), str(work / "medium")) for path in backing]
        assert ask(filled, *found) == ["dir/sub/file"]
    finally:
        run("umount", work / "medium")


def test_asking_changes_nothing(filled):
    with open(filled.mnt / "file", "r+b", buffering=0) as f:
        f.write(b"in the journal")
        os.fsync(f.fileno())
    filled.kill()
    filled.close()

    def everything():
        found = {}
        for directory, _, names in os.walk(filled.cipher):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as f:
                        found[path] = (os.stat(path).st_mtime_ns, f.read())
        return found

    before = everything()
    assert ask(filled, "--cipherdir", filled.cipher, "file", "dir/sub/file")
    assert everything() == before


def test_siblings_are_their_entries(filled):
    if not filled.names_encrypted():
        pytest.skip("only encrypted names have siblings")
    entry = ask(filled, filled.mnt / LONG)[0]
    assert os.path.islink(entry + ".name")
    assert ask(filled, entry + ".name", entry) == [str(filled.mnt / LONG)] * 2


def test_all_bytes_in_names(filled):
    names = [bytes(range(1, 47)), bytes(range(48, 256)), "ä".encode() * 127, b"\n", b"-0"]
    for name in names:
        write_file(os.path.join(os.fsencode(filled.mnt), name), b"x")
    plain = [os.fsdecode(os.path.join(os.fsencode(filled.mnt), name)) for name in names]
    words = [turnkeyfs(), "path", "-0", "--", *plain]
    out = subprocess.run(words, capture_output=True, check=True).stdout.split(b"\0")[:-1]
    assert [inode(path) for path in out] == [inode(path) for path in plain]
    back = subprocess.run(
        [turnkeyfs(), "path", "-0", "--", *out], capture_output=True, check=True
    ).stdout.split(b"\0")[:-1]
    assert back == [os.fsencode(path) for path in plain]
    out = [os.fsdecode(path) for path in out]
    lines = run(turnkeyfs(), "path", "--", *out).stdout.splitlines()
    assert len(lines) == len(names) and lines[3] == f"{filled.mnt}/\\x0a"
    found = json.loads(run(turnkeyfs(), "path", "--json", "--", *out).stdout)["paths"]
    assert bytes.fromhex(found[1]["plain_hex"]) == os.fsencode(plain[1])
    assert found[2]["plain"] == plain[2]


def test_one_failure_does_not_keep_the_others(filled, work):
    done = ask(filled, "/etc/passwd", filled.mnt / "file", work / "x/y", check=False)
    assert done.returncode == NOT_A_VOLUME
    assert done.stdout == str(filled.below("file")) + "\0"
    assert "/etc/passwd" in done.stderr and "x/y" in done.stderr and "2 of 3" in done.stderr
    done = run(
        turnkeyfs(), "path", "--json", "/etc/passwd", filled.mnt / "file", work / "no/no", check=False
    )
    found = json.loads(done.stdout)["paths"]
    assert done.returncode == NOT_A_VOLUME
    assert [one.get("code") for one in found] == [NOT_A_VOLUME, None, NOT_A_VOLUME]
    assert found[1]["backing"] == str(filled.below("file"))


def test_wrong_names_below(filled):
    if not filled.names_encrypted():
        pytest.skip("any name is one")
    root = filled.cipher / "root"
    wrong = [root / "not-a-name", root / ("@" + "A" * 43), root / "x/y"]
    for path in wrong:
        assert ask(filled, path, check=False).returncode == FAILED, path
    done = ask(filled, filled.cipher / "turnkeyfs.volume", check=False)
    assert done.returncode == NOT_A_VOLUME


def test_a_lost_directory_record_is_named(filled):
    if not filled.names_encrypted():
        pytest.skip("plain names need no record")
    filled.umount()
    directory = filled.below("dir")
    os.removexattr(directory, KEY_RECORD)
    done = ask(filled, "--cipherdir", filled.cipher, "dir/sub", check=False)
    assert done.returncode == FAILED and "escrow restore" in done.stderr


def test_plain_names_need_no_key(make_volume):
    volume = make_volume(conf={"volume": {"names": "plain"}}, mount=False)
    os.rename(volume.keystore, volume.directory / "elsewhere")
    assert ask(volume, "--cipherdir", volume.cipher, "a/b") == [str(volume.cipher / "root/a/b")]
    assert ask(volume, volume.cipher / "root/a/b") == ["a/b"]


def test_encrypted_names_need_the_key(filled):
    if not filled.names_encrypted():
        pytest.skip("plain names need none")
    filled.umount()
    os.rename(filled.keystore, filled.directory / "elsewhere")
    done = ask(filled, "--cipherdir", filled.cipher, "file", check=False)
    assert done.returncode == KEYSTORE_MISSING
    os.rename(filled.directory / "elsewhere", filled.keystore)


def test_only_the_owner_may_ask_the_mount(filled):
    if not filled.names_encrypted():
        pytest.skip("plain names are told to anybody")
    # The way there is open to all, the mount's socket is not.
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    path = str(filled.below("file"))
    done = run(*words, turnkeyfs(), "path", path, check=False)
    assert done.returncode != 0 and not done.stdout


def test_usage(filled):
    assert run(turnkeyfs(), "path", check=False).returncode == USAGE
    assert ask(filled, "--cipherdir", filled.cipher, "../x", check=False).returncode == FAILED
