# SPDX-License-Identifier: Apache-2.0
"""What the daemon of a mount has given up, as the kernel tells it and as a debugger finds it. That
everything works nevertheless is what all other files show: hardening is on unless it is switched off.
unit/test_harden.c has the single calls."""

import ctypes
import errno
import os
import pathlib
import re
import signal
import time

import pytest
from helpers import NOBODY, as_user, read_file, write_file
from mountpoint import is_mounted, run, sanitized, turnkeyfs, wait_for

# linux/capability.h: chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid,
# ipc_lock, sys_admin, mknod, setfcap; and sys_ptrace for sanitizers.
KEPT = sum(1 << n for n in (0, 1, 2, 3, 4, 6, 7, 14, 21, 27, 31)) | (sanitized() << 19)
PTRACE_ATTACH = 16
WHOLE = {"capabilities": True, "no_new_privileges": True, "system_calls": True}

needs_calls = pytest.mark.skipif(sanitized(), reason="sanitizers use some of the calls")


@pytest.fixture
def volume(make_volume):
    return make_volume()


def facts(pid):
    """[{field: text}] of /proc/PID/task/*/status."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/status")
    return [dict(re.findall(r"(\w+):\s*(.*)", task.read_text())) for task in tasks]


def landlock():
    """The kernel's version of it."""
    return max(0, ctypes.CDLL(None).syscall(444, None, 0, 1))


def test_every_thread_has_given_up_what_it_does_not_need(volume):
    write_file(volume.mnt / "f", b"x")  # a worker is at work
    threads = facts(volume.pid)
    assert len(threads) > 4
    for thread in threads:
        assert (thread["Seccomp"], thread["NoNewPrivs"]) == ("2", "1"), thread
        assert int(thread["CapInh"], 16) == int(thread["CapAmb"], 16) == 0
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(thread[name], 16) & ~KEPT == 0, (name, thread)
    limits = pathlib.Path(f"/proc/{volume.pid}/limits").read_text()
    assert re.search(r"Max core file size +1 +1 ", limits), limits


def test_the_guardian_has_no_more_capabilities_than_the_daemon(volume):
    (guardian,) = facts(volume.guardian)
    assert int(guardian["CapPrm"], 16) & ~KEPT == int(guardian["CapBnd"], 16) & ~KEPT == 0


def test_status_says_what_is_in_force(volume):
    wanted = "sockets" if landlock() >= 4 else "none"
    assert volume.status()["daemon"]["hardening"] == {**WHOLE, "landlock": wanted}
    said = run(turnkeyfs(), "status", volume.mnt).stdout
    assert "given up        capabilities, new privileges, system calls" in said


def test_it_can_be_switched_off(make_volume):
    volume = make_volume(conf={"mount": {"hardening": "no"}})
    write_file(volume.mnt / "f", b"x")
    assert {thread["Seccomp"] for thread in facts(volume.pid)} == {"0"}
    assert volume.status()["daemon"]["hardening"] == {
        **dict.fromkeys(WHOLE, False),
        "landlock": "none",
    }
    assert "given up        nothing" in run(turnkeyfs(), "status", volume.mnt).stdout
    volume.remount()
    assert read_file(volume.mnt / "f") == b"x"


def test_doctor_says_what_the_machine_has(volume):
    said = volume.command("doctor", check=False).stdout
    assert re.search(rf"hardening: .*Landlock version {landlock()}", said), said


# --- a daemon that somebody else commands ------------------------------------------------------------


def commanded(pid, function, *calls):
    """[(result, errno)] of a libc function that a debugger of root's makes the daemon call."""
    words = []
    for arguments in calls:
        # gdb has no types without debugging symbols.
        words += ["-ex", f"print ((int (*)(long, ...)){function})({arguments})"]
        words += ["-ex", "print *((int *(*)(void))__errno_location)()"]
    done = run("gdb", "-nx", "-batch", "-p", pid, *words)
    values = [int(value) for value in re.findall(r"^\$\d+ = (-?\d+)", done.stdout, re.M)]
    assert len(values) == 2 * len(calls), done.stdout + done.stderr
    return list(zip(values[::2], values[1::2]))


@needs_calls
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of another machine")
def test_the_running_daemon_cannot_make_forbidden_calls(volume):
    wanted = {
        "ptrace": (101, errno.EPERM),
        "mount": (165, errno.EPERM),
        "umount2": (166, errno.EPERM),
        "init_module": (175, errno.EPERM),
        "kexec_load": (246, errno.EPERM),
        "execve": (59, errno.EPERM),
        "process_vm_readv": (310, errno.EPERM),
        "bpf": (321, errno.EPERM),
        "perf_event_open": (298, errno.EPERM),
        "keyctl": (250, errno.EPERM),
        "setns": (308, errno.EPERM),
        "capset": (126, errno.EPERM),
        "clone3": (435, errno.ENOSYS),
        "uselib, which is on no list": (134, errno.ENOSYS),
        "getpid": (39, None),
    }
    calls = [f"{number}, 0L, 0L, 0L, 0L, 0L" for number, _ in wanted.values()]
    found = commanded(volume.pid, "syscall", *calls)
    for (what, (_, error)), (result, set_error) in zip(wanted.items(), found):
        if error:
            assert (result, set_error) == (-1, error), what
        else:
            assert result == volume.pid, what
    write_file(volume.mnt / "f", b"still there")
    assert read_file(volume.remount().mnt / "f") == b"still there"


@needs_calls
def test_the_daemon_of_a_user_writes_nowhere_else(mine):
    if landlock() < 3:
        pytest.skip("no Landlock here")
    assert mine.status()["daemon"]["hardening"] == {**WHOLE, "landlock": "writes"}
    outside = pathlib.Path("/var/tmp") / f"outside-{os.getpid()}"
    outside.mkdir()
    try:
        outside.chmod(0o777)
        before = outside / "before"
        before.write_bytes(b"x")
        before.chmod(0o666)
        flags = os.O_WRONLY | os.O_CREAT
        inside = mine.cipher / "new"
        new, old, reading, fd = commanded(
            mine.pid,
            "open",
            f'(long)"{outside}/new", {flags}L, {0o600}L',
            f'(long)"{before}", {flags}L, 0L',
            f'(long)"{before}", 0L, 0L',
            f'(long)"{inside}", {flags}L, {0o600}L',
        )
        assert new == old == (-1, errno.EACCES)
        assert reading[0] >= 0
        assert fd[0] >= 0 and inside.exists()
        inside.unlink()
    finally:
        for file in outside.iterdir():
            file.unlink()
        outside.rmdir()


def test_its_own_user_cannot_attach_to_it(mine):
    libc = ctypes.CDLL(None, use_errno=True)
    pid = mine.pid

    def attach():
        assert libc.ptrace(PTRACE_ATTACH, pid, None, None) == -1
        assert ctypes.get_errno() == errno.EPERM
        with pytest.raises(PermissionError):
            open(f"/proc/{pid}/mem", "rb")

    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], attach)


# --- the end, which somebody else has to bring about -------------------------------------------------


def assert_ends(volume):
    os.kill(volume.pid, signal.SIGTERM)
    assert volume.daemon.wait(30) == 0
    volume.forget_daemon()
    assert not is_mounted(volume.mnt)
    volume.mount()
    assert read_file(volume.mnt / "f") == b"content"


def test_a_signal_unmounts_and_nothing_is_lost(volume):
    write_file(volume.mnt / "f", b"content")
    assert_ends(volume)


def test_a_signal_unmounts_for_a_user(mine):
    as_user(NOBODY.pw_uid, NOBODY.pw_gid, [], write_file, mine.mnt / "f", b"content")
    os.kill(mine.pid, signal.SIGTERM)
    assert mine.daemon.wait(30) == 0
    mine.forget_daemon()
    assert not is_mounted(mine.mnt)
    mine.mount()


def test_a_signal_without_the_guardian_says_what_to_do(volume):
    write_file(volume.mnt / "f", b"content")
    os.kill(volume.guardian, signal.SIGKILL)
    time.sleep(0.1)
    volume.expect_log("error: cannot unmount .* run 'turnkeyfs umount")
    os.kill(volume.pid, signal.SIGTERM)
    wait_for(lambda: "run 'turnkeyfs umount" in volume.log(), 20, "the advice")
    assert read_file(volume.mnt / "f") == b"content"
    volume.remount()
    assert read_file(volume.mnt / "f") == b"content"


def test_a_mount_that_is_refused_says_why_and_leaves_nothing(volume):
    volume.umount()
    volume.mnt.rmdir()
    volume.mnt.write_bytes(b"no directory")
    said = volume.command("mount", "-f", volume.cipher, volume.mnt, check=False, timeout=30)
    assert said.returncode != 0 and "not a directory" in said.stderr
    volume.mnt.unlink()
    volume.mnt.mkdir()
    volume.mount()
