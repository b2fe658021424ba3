# SPDX-License-Identifier: Apache-2.0
"""Keys and plaintext are nowhere that they should not be: not in memory after the unmount, not in a
core dump, not in swap, not on disk, not in the log.

The independent reader tells which keys there are; they are searched for as bytes, in hexadecimal
and in base64url.
"""

import base64
import mmap
import os
import resource
import shutil
import stat
import subprocess
import time

import pytest
import turnkeyfs_reader as reader
from helpers import GROUP, direct_buffer, noise, read_file, write_file
from memory import StoppedAtExit, mappings, places, search, search_file
from mountpoint import run, sanitized, turnkeyfs

pytestmark = pytest.mark.skipif(
    sanitized(), reason="sanitizers keep freed memory and dumpable pages"
)


def key_needles(volume):
    """{what: bytes} of every key of the volume, in every form that a program might keep it in."""
    keystore = volume.reader_keys()
    needles = {}
    for what, key in reader.keys(keystore, volume.reader()):
        needles[what] = key
        needles[f"{what}, hexadecimal"] = key.hex().encode()
        needles[f"{what}, base64url"] = base64.urlsafe_b64encode(key).rstrip(b"=")
    if volume.passphrase:
        needles["the passphrase"] = volume.passphrase
    return needles


def busy_work(mnt):
    """Files of all kinds, so that every path of the code has had keys in its hands."""
    for i in range(20):
        write_file(mnt / f"f{i}", noise(i * 3000, i))
        read_file(mnt / f"f{i}")
    write_file(mnt / "big", noise(2 * GROUP + 5))
    os.truncate(mnt / "big", GROUP + 100)
    with open(mnt / "big", "r+b") as f:
        memory = mmap.mmap(f.fileno(), 0)
        memory[0:5] = b"hello"
        memory.close()
    fd = os.open(mnt / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.write(fd, direct_buffer(noise(1 << 20)))
    os.close(fd)
    os.rename(mnt / "f1", mnt / "g1")
    os.unlink(mnt / "f2")
    os.sync()


def forget():
    """Let the kernel drop what it caches of the mount, so that it forgets the inodes."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2\n")


@pytest.fixture
def guarded(make_volume):
    """A volume whose keystore has a passphrase."""
    volume = make_volume(mount=False, init=False)
    volume.passphrase = b"correct horse battery staple 4711"
    write_file(volume.directory / "passphrase", volume.passphrase, mode=0o600)
    volume.write_conf({"local": {"passphrase": f"file:{volume.directory}/passphrase"}})
    return volume.init().mount()


# --- memory --------------------------------------------------------------------------------------


def test_the_search_finds_what_is_there(volume):
    """Without this the tests below could pass for want of looking."""
    write_file(volume.mnt / "f", b"x" * 5000)
    with open(volume.mnt / "f", "rb") as f:
        f.read(1)
        found = {what for what, _ in search(volume.pid, key_needles(volume))}
    assert "DEK of f" in found
    assert "KEK 1" in found


def check_all_is_wiped_at_exit(volume):
    busy_work(volume.mnt)
    needles = key_needles(volume)
    held = StoppedAtExit(volume.pid, volume.directory)
    try:
        umount = subprocess.Popen([turnkeyfs(), "umount", volume.mnt])
        held.wait()
        found = search(volume.pid, needles)
        run("gcore", "-a", "-o", volume.directory / "core", volume.pid, check=False)
        held.release()
        assert umount.wait(30) == 0
    finally:
        held.close()
    assert volume.daemon.wait(30) == 0
    volume.forget_daemon()
    assert not found, places(found)


@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb")
def test_no_key_is_in_memory_when_the_daemon_ends(volume):
    check_all_is_wiped_at_exit(volume)


@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb")
def test_no_key_and_no_passphrase_is_in_memory_when_the_daemon_ends(guarded):
    check_all_is_wiped_at_exit(guarded)


def test_keys_of_closed_files_are_wiped(volume):
    busy_work(volume.mnt)
    needles = key_needles(volume)
    forget()
    directories = {"/"} | {d for d, st in volume.reader().walk() if stat.S_ISDIR(st.st_mode)}
    files = {w: n for w, n in needles.items() if w.startswith(("DEK", "content key"))}
    files = {w: n for w, n in files.items() if w.removeprefix("DEK of ") not in directories}
    assert len(files) > 60
    # The journal holds a file until what it overwrote is on the disk: some seconds.
    deadline = time.monotonic() + 60
    while (found := search(volume.pid, files)) and time.monotonic() < deadline:
        time.sleep(1)
    assert not found, places(found)


def test_the_passphrase_is_wiped_once_the_keystore_is_open(guarded):
    busy_work(guarded.mnt)
    found = search(guarded.pid, {"the passphrase": guarded.passphrase})
    assert not found, places(found)


def test_keys_in_use_lie_in_locked_memory_that_no_core_dump_takes(volume):
    busy_work(volume.mnt)
    needles = key_needles(volume)
    with open(volume.mnt / "big", "r+b") as f:
        f.read(100)
        f.write(b"changed")
        f.flush()
        found = search(volume.pid, needles)
        assert found
        exposed = [(w, m) for w, m in found if "dd" not in m.flags or "lo" not in m.flags]
        assert not exposed, places(exposed)


def test_all_memory_is_locked_as_root(volume):
    busy_work(volume.mnt)
    assert volume.counter("memory_locked") == "all"
    # "dp": droppable, never written anywhere; the C library's random numbers, since glibc 2.41.
    unlocked = [m for m in mappings(volume.pid) if not {"lo", "dp"} & set(m.flags) and m.name != "[vdso]"]
    assert not unlocked, [(m.name, m.flags) for m in unlocked]


@pytest.mark.skipif(not shutil.which("gcore"), reason="no gdb")
def test_a_forced_core_holds_no_key(volume, work):
    """gdb's gcore, by root, which respects what is marked as not to be dumped."""
    busy_work(volume.mnt)
    needles = key_needles(volume)
    with open(volume.mnt / "big", "rb") as f:
        f.read(100)
        run("gcore", "-o", work / "core", volume.pid)
    found = search_file(work / f"core.{volume.pid}", needles)
    assert not found


def test_the_kernel_writes_no_core(volume):
    assert resource.prlimit(volume.pid, resource.RLIMIT_CORE)[0] <= 1
    # Not dumpable: /proc/PID belongs to root for everybody, also where the daemon is a user's.
    status = read_file(f"/proc/{volume.pid}/status").decode()
    assert "TracerPid:\t0" in status


def test_nothing_of_a_key_is_in_the_log_the_command_line_or_the_environment(volume):
    busy_work(volume.mnt)
    needles = key_needles(volume)
    for path in (f"/proc/{volume.pid}/cmdline", f"/proc/{volume.pid}/environ", volume.log_path):
        assert not search_file(path, needles)
    assert not search_file(volume.cipher / "turnkeyfs.volume", needles)
    output = run(turnkeyfs(), "status", "--json", volume.mnt).stdout
    assert not [what for what, needle in needles.items() if needle in output.encode()]


# --- disk ----------------------------------------------------------------------------------------

MARKER = b"PLAINTEXT-MARKER-0123456789-abcdefghijklmnop"


def write_markers(mnt):
    """Recognisable content by every way that content gets in."""
    write_file(mnt / "small", MARKER)
    write_file(mnt / "large", MARKER * 40_000)
    write_file(mnt / "synced", MARKER * 100, os.O_SYNC)
    fd = os.open(mnt / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.write(fd, direct_buffer((MARKER * 1000)[:40960]))
    os.close(fd)
    write_file(mnt / "mapped", bytes(10_000))
    with open(mnt / "mapped", "r+b") as f:
        memory = mmap.mmap(f.fileno(), 0)
        memory[5000 : 5000 + len(MARKER)] = MARKER
        memory.close()
    write_file(mnt / "removed", MARKER * 1000)
    os.unlink(mnt / "removed")
    write_file(mnt / "cut", MARKER * 1000)
    os.truncate(mnt / "cut", 10)
    for i in range(50):
        with open(mnt / "log", "ab") as f:
            f.write(MARKER + b"\n")
    shutil.copy(mnt / "large", mnt / "copied")
    os.sync()


def test_no_plaintext_is_in_the_encrypted_directory(volume):
    write_markers(volume.mnt)
    needles = {"marker": MARKER[:20]}
    for _ in range(2):
        for directory, _, names in os.walk(volume.cipher):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    assert not search_file(path, needles), path
        volume.remount()


@pytest.mark.backing("ext4")
def test_no_plaintext_was_ever_on_the_disk_below(volume, backing, work):
    """The whole image, with what was removed, cut and overwritten."""
    write_markers(volume.mnt)
    volume.umount()
    os.sync()
    assert not search_file(work / "ext4.img", {"marker": MARKER[:20]})
    # The search would find it.
    write_file(backing / "plain", MARKER, os.O_SYNC)
    assert search_file(work / "ext4.img", {"marker": MARKER[:20]})


def test_no_key_is_in_the_encrypted_directory(volume):
    busy_work(volume.mnt)
    needles = key_needles(volume)
    volume.umount()
    for directory, _, names in os.walk(volume.cipher):
        for name in names:
            assert not search_file(os.path.join(directory, name), needles), name
