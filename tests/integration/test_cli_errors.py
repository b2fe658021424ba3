# SPDX-License-Identifier: Apache-2.0
"""Every error that the command line can tell of: its exit code, and what its one line says."""

import os
import pty
import shutil
import stat
import subprocess

import pytest
from helpers import as_user, noise, read_file, write_file
from mountpoint import Filesystem, run, turnkeyfs

USAGE, CONFIG, NOT_A_VOLUME, DAMAGED, IN_USE = 2, 3, 4, 5, 6
KEYSTORE_MISSING, KEYSTORE_DAMAGED, PASSPHRASE, WRONG_KEY = 7, 8, 9, 10
REVOKED, DATA_DAMAGED, MOUNT, PERMISSION, NOT_MOUNTED, UNSUPPORTED = 12, 14, 15, 16, 17, 18


def fails(code, part, *words, **kwargs):
    """The command ends with @code and says one line that contains @part, and why, and what next."""
    done = run(turnkeyfs(), *words, check=False, **kwargs)
    assert done.returncode == code, f"exit code {done.returncode}, not {code}: {done.stderr}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"one line is enough: {done.stderr}"
    assert lines[0].startswith("turnkeyfs: ")
    assert part in lines[0], lines[0]
    return lines[0]


@pytest.fixture
def unmounted(make_volume):
    """A volume that nobody uses."""
    return make_volume(mount=False)


def conf_of(work, text):
    write_file(work / "test.conf", text.encode())
    return work / "test.conf"


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, part",
    [
        ([], "no command"),
        (["frobnicate"], "unknown command 'frobnicate'"),
        (["help", "frobnicate"], "unknown command 'frobnicate'"),
        (["init"], "a word is missing"),
        (["mount", "/x"], "a word is missing"),
        (["status"], "a word is missing"),
        (["verify"], "a word is missing"),
        (["umount"], "a word is missing"),
        (["init", "/x", "/y"], "one word too many: /y"),
        (["mount", "/x", "/y", "/z"], "one word too many: /z"),
        (["version", "x"], "one word too many: x"),
        (["init", "--frobnicate", "/x"], "unknown option --frobnicate"),
        (["status", "-f", "/x"], "unknown option -f"),
        (["init", "-c"], "a value is missing after -c"),
        (["init", ""], "a path is empty"),
        (["mount", "-o", "frobnicate", "/x", "/y"], "unknown mount option 'frobnicate'"),
        (["mount", "-o", "threads=0", "/x", "/y"], "a number from 1 to 64"),
        (["mount", "-o", "threads=many", "/x", "/y"], "a number from 1 to 64"),
        (["mount", "-o", "config=", "/x", "/y"], "give one path to a configuration"),
        (["mount", "-c", "/a", "-o", "config=/b", "/x", "/y"], "there are two configurations"),
    ],
)
def test_a_wrong_command_line_is_told(words, part):
    line = fails(USAGE, part, *words)
    assert "help" in line or "give " in line, "it says where to go on"


@pytest.mark.parametrize("words", [["help"], ["--help"], ["-h"], ["help", "config"], ["version"]])
def test_help_and_version_are_no_errors(words):
    assert run(turnkeyfs(), *words).stdout


@pytest.mark.parametrize(
    "command", ["init", "mount", "umount", "status", "verify", "doctor", "help", "version"]
)
def test_each_command_has_its_help(command):
    assert f"turnkeyfs {command}" in run(turnkeyfs(), "help", command).stdout
    assert f"turnkeyfs {command}" in run(turnkeyfs(), command, "--help").stdout


def test_output_that_can_t_be_written_is_an_error():
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [turnkeyfs(), "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and "cannot write the output" in done.stderr


# --- the configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, part",
    [
        ("[local]\nkeystor = /x\n", "test.conf:2: unknown key 'keystor' in [local]"),
        ("[loca]\nkeystore = /x\n", "test.conf:2: unknown section [loca]"),
        ("keystore = /x\n", "test.conf:1: 'keystore' stands before the first [section]"),
        ("[local]\n\nkeystore = x\n", "test.conf:3: bad value 'x' for 'keystore'"),
        ("[local]\nkeystore = /x\nkeystore = /y\n", "test.conf:3: 'keystore' in [local] is given"),
        ("[mount]\nallow_other = perhaps\n", "test.conf:2: bad value 'perhaps'"),
        ("[mount]\nthreads = 65\n", "test.conf:2: bad value '65'"),
        ("[kms]\nprovider = magic\n", "test.conf:2: bad value 'magic'"),
        ("[volume]\nfingerprint = 1234\n", "test.conf:2: bad value '1234'"),
        ("[memory]\nlock = maybe\n", "test.conf:2: bad value 'maybe'"),
        ("[log]\nlevel = loud\n", "test.conf:2: bad value 'loud'"),
        ("[local]\nno equals sign\n", "test.conf:2: neither a [section] nor 'key = value'"),
        ("[local]\nkeystore = /" + "x" * 300 + "\n", "test.conf:2: the line is longer"),
        ("[local]\npassphrase = fd:x\n", "test.conf:2: bad value '...' for 'passphrase'"),
        ("[local]\n#\0\n", "this is no text"),
        ("#\n" * 40_000, "is this the right file?"),
    ],
)
def test_a_mistake_in_the_configuration_is_told_with_file_and_line(work, text, part):
    fails(CONFIG, part, "init", "-c", conf_of(work, text), work / "cipher")
    assert not (work / "cipher").exists()


def test_a_secret_in_the_wrong_place_is_not_repeated(work):
    conf = conf_of(work, "[local]\npassphrase = hunter2\n")
    assert "hunter2" not in fails(CONFIG, "passphrase", "init", "-c", conf, work / "cipher")


@pytest.mark.parametrize("verb", ["init", "verify"])
def test_a_configuration_that_is_not_there(work, verb):
    fails(CONFIG, "cannot read the configuration /nowhere.conf", verb, "-c", "/nowhere.conf", work)


# --- init ----------------------------------------------------------------------------------------


def test_init_twice(unmounted):
    words = ("init", "-c", unmounted.conf, unmounted.cipher)
    fails(NOT_A_VOLUME, "is an encrypted directory already", *words)
    unmounted.assert_verifies_clean()


def test_init_in_a_directory_that_is_not_empty(make_volume):
    volume = make_volume(mount=False, init=False)
    volume.cipher.mkdir()
    write_file(volume.cipher / "something", b"precious")
    words = ("init", "-c", volume.conf, volume.cipher)
    fails(NOT_A_VOLUME, "is not empty (it holds 'something')", *words)
    assert read_file(volume.cipher / "something") == b"precious"
    assert not volume.keystore.exists(), "no keystore without a volume"


def test_init_where_a_file_is(make_volume):
    volume = make_volume(mount=False, init=False)
    write_file(volume.cipher, b"")
    fails(NOT_A_VOLUME, "not a directory", "init", "-c", volume.conf, volume.cipher)


def test_init_below_a_directory_that_is_not_there(make_volume):
    volume = make_volume(mount=False, init=False)
    done = volume.command("init", volume.cipher / "x/y", check=False)
    assert done.returncode in (NOT_A_VOLUME, PERMISSION) and str(volume.cipher) in done.stderr


def test_init_without_permission(make_volume):
    volume = make_volume(mount=False, init=False)
    volume.directory.chmod(0o755)
    volume.conf.chmod(0o644)

    def init():
        done = run(turnkeyfs(), "init", "-c", volume.conf, volume.cipher, check=False)
        assert done.returncode == PERMISSION, done.stderr
        assert "Permission denied" in done.stderr

    as_user(1000, 1000, [], init)


def test_a_keystore_inside_the_encrypted_directory_is_refused(make_volume):
    volume = make_volume(mount=False, init=False)
    volume.write_conf({"local": {"keystore": volume.cipher / "keystore"}})
    words = ("init", "-c", volume.conf, volume.cipher)
    fails(CONFIG, "lies inside the encrypted directory", *words)
    assert not volume.cipher.exists()


def test_a_keystore_inside_by_a_symbolic_link_is_refused(make_volume):
    volume = make_volume(mount=False, init=False)
    volume.cipher.mkdir()
    os.symlink(volume.cipher, volume.directory / "link")
    volume.write_conf({"local": {"keystore": volume.directory / "link/keystore"}})
    words = ("init", "-c", volume.conf, volume.cipher)
    fails(CONFIG, "lies inside the encrypted directory", *words)


# --- no volume, or a damaged one -----------------------------------------------------------------


@pytest.mark.parametrize("verb", ["verify", "status", "doctor"])
def test_a_path_that_is_no_volume(work, verb):
    done = run(turnkeyfs(), verb, work, check=False)
    assert done.returncode == NOT_A_VOLUME, done.stderr
    assert "is not an encrypted directory" in done.stderr + done.stdout


@pytest.mark.parametrize("verb", ["verify", "status", "doctor"])
def test_a_path_that_is_not_there(work, verb):
    done = run(turnkeyfs(), verb, work / "nowhere", check=False)
    assert done.returncode == NOT_A_VOLUME, done.stderr
    assert "nowhere" in done.stderr + done.stdout


def test_mount_of_what_is_no_volume(work):
    (work / "mnt").mkdir()
    fails(NOT_A_VOLUME, "is not an encrypted directory", "mount", work, work.parent / work.name)
    fails(NOT_A_VOLUME, "nowhere", "mount", work / "nowhere", work / "mnt")


def test_a_damaged_volume_file(unmounted):
    path = unmounted.cipher / "turnkeyfs.volume"
    write_file(path, b"this is no volume file\n")
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
    fails(DAMAGED, "turnkeyfs.volume:1: the volume file is damaged", *words)


def test_a_volume_file_with_a_wrong_mac(unmounted):
    path = unmounted.cipher / "turnkeyfs.volume"
    write_file(path, read_file(path).replace(b"last = 0", b"last = 5"))
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
    fails(DAMAGED, "its MAC does not hold", *words)


def test_a_volume_of_a_newer_release(unmounted):
    path = unmounted.cipher / "turnkeyfs.volume"
    write_file(path, read_file(path).replace(b"format = 1", b"format = 3"))
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
    fails(UNSUPPORTED, "use a newer turnkeyfs", *words)


def test_a_volume_without_its_tree(unmounted):
    os.rmdir(unmounted.cipher / "root")
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
    fails(DAMAGED, "root", *words)


def test_verify_tells_of_damage(volume):
    write_file(volume.mnt / "f", noise(10_000))
    volume.umount()
    with open(volume.below("f"), "r+b") as f:
        f.seek(5000)
        f.write(b"damage")
    done = volume.command("verify", volume.cipher, check=False)
    assert done.returncode == DATA_DAMAGED
    assert "f: bytes 0 to 4095" in done.stdout and "1 findings" in done.stderr + done.stdout


# --- in use --------------------------------------------------------------------------------------


def test_a_second_mount_names_the_first(volume, work):
    (work / "elsewhere").mkdir()
    words = ("mount", "-c", volume.conf, volume.cipher, work / "elsewhere")
    line = fails(IN_USE, f"mounted at {volume.mnt}", *words)
    assert str(volume.pid) in line


def test_umount_of_a_busy_mount(volume):
    with open(volume.mnt / "f", "w", encoding="ascii"):
        fails(IN_USE, "is busy", "umount", volume.mnt)


# --- the keystore --------------------------------------------------------------------------------


def keystore_fails(volume, code, part):
    for verb in ("verify", "mount"):
        words = [verb, "-c", volume.conf, volume.cipher]
        fails(code, part, *words, *([volume.mnt] if verb == "mount" else []))


def test_a_missing_keystore(unmounted):
    unmounted.keystore.unlink()
    keystore_fails(unmounted, KEYSTORE_MISSING, f"the keystore {unmounted.keystore} does not exist")


def test_a_damaged_keystore(unmounted):
    text = read_file(unmounted.keystore)
    for changed in (text[:-10], b"", b"garbage\n", text.replace(b"enabled", b"disable"), text + text):
        write_file(unmounted.keystore, changed)
        keystore_fails(unmounted, KEYSTORE_DAMAGED, str(unmounted.keystore))


def test_a_keystore_open_to_others(unmounted):
    unmounted.keystore.chmod(0o644)
    keystore_fails(unmounted, PERMISSION, "is open to other users (mode 0644)")


def test_a_keystore_of_somebody_else(unmounted):
    os.chown(unmounted.keystore, 1000, 1000)
    keystore_fails(unmounted, PERMISSION, "belongs to user 1000")


def test_a_keystore_that_is_a_directory(unmounted):
    unmounted.keystore.unlink()
    unmounted.keystore.mkdir()
    keystore_fails(unmounted, KEYSTORE_DAMAGED, "is not a regular file")


def test_the_keystore_of_another_volume(unmounted, make_volume):
    other = make_volume("other", mount=False)
    shutil.copy(other.keystore, unmounted.keystore)
    keystore_fails(unmounted, WRONG_KEY, "is not the one of this volume")


def test_a_pinned_fingerprint_that_does_not_match(unmounted):
    unmounted.write_conf({"volume": {"fingerprint": "ab" * 32}})
    keystore_fails(unmounted, WRONG_KEY, "is not the volume that the configuration names")


# --- the passphrase ------------------------------------------------------------------------------


@pytest.fixture
def guarded(make_volume):
    """A volume whose keystore has a passphrase, from a file."""
    volume = make_volume(mount=False, init=False)
    write_file(volume.directory / "passphrase", b"correct horse\n", mode=0o600)
    use_passphrase(volume, f"file:{volume.directory}/passphrase")
    volume.init()
    volume.passphrase = b"correct horse"
    return volume


def use_passphrase(volume, source):
    volume.write_conf({"local": {"passphrase": source}})


def test_a_passphrase_protects_the_keystore(guarded):
    guarded.assert_verifies_clean()
    assert guarded.reader().fingerprint
    assert b"protection = passphrase" in read_file(guarded.keystore)


def test_a_wrong_passphrase(guarded):
    write_file(guarded.directory / "passphrase", b"wrong")
    keystore_fails(guarded, PASSPHRASE, "does not open the keystore")


def test_a_missing_passphrase(guarded):
    guarded.write_conf({})
    keystore_fails(guarded, PASSPHRASE, "is protected by a passphrase")


def test_an_empty_passphrase(guarded):
    write_file(guarded.directory / "passphrase", b"\n")
    keystore_fails(guarded, PASSPHRASE, "is empty")


def test_a_passphrase_that_is_too_long(guarded):
    write_file(guarded.directory / "passphrase", b"x" * 1025)
    keystore_fails(guarded, PASSPHRASE, "longer than 1024 bytes")


def test_a_passphrase_file_that_is_not_there(guarded):
    (guarded.directory / "passphrase").unlink()
    keystore_fails(guarded, PASSPHRASE, f"cannot read the passphrase from {guarded.directory}")


def test_a_passphrase_from_a_descriptor(guarded):
    use_passphrase(guarded, "fd:7")
    words = (turnkeyfs(), "verify", "-c", guarded.conf, guarded.cipher)
    run("sh", "-c", 'exec "$@" 7<"$0"', guarded.directory / "passphrase", *words)
    done = run("sh", "-c", 'exec "$@" 7<&-', "sh", *words, check=False)
    assert done.returncode == PASSPHRASE and "from descriptor 7" in done.stderr


def test_a_passphrase_from_a_credential(guarded):
    use_passphrase(guarded, "credential:passphrase")
    environment = dict(os.environ, CREDENTIALS_DIRECTORY=str(guarded.directory))
    guarded.command("verify", guarded.cipher, env=environment)
    keystore_fails(guarded, PASSPHRASE, "$CREDENTIALS_DIRECTORY is not set")


def test_a_prompt_without_a_terminal(guarded):
    use_passphrase(guarded, "prompt")
    words = ("setsid", turnkeyfs(), "verify", "-c", guarded.conf, guarded.cipher)
    done = run(*words, check=False)
    assert done.returncode == PASSPHRASE and "there is no terminal" in done.stderr


def typed(command, *answers):
    """Run @command on a terminal of its own and type the answers; (exit code, what it showed)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], [str(word) for word in command])
    shown = b""
    for answer in answers:
        shown += read_until(terminal, b": ")
        os.write(terminal, answer + b"\n")
    shown += read_until(terminal, None)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def read_until(terminal, end):
    shown = b""
    while end is None or not shown.endswith(end):
        try:
            part = os.read(terminal, 1000)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    return shown


@pytest.mark.deadline(30)
def test_a_prompt_on_the_terminal(guarded):
    use_passphrase(guarded, "prompt")
    command = (turnkeyfs(), "verify", "-c", guarded.conf, guarded.cipher)
    code, shown = typed(command, b"correct horse")
    assert code == 0 and "Passphrase" in shown
    assert "correct horse" not in shown, "it must not be echoed"
    code, shown = typed(command, b"wrong")
    assert code == PASSPHRASE and "does not open" in shown


@pytest.mark.deadline(30)
def test_a_new_passphrase_is_asked_for_twice(make_volume):
    volume = make_volume(mount=False, init=False)
    use_passphrase(volume, "prompt")
    command = (turnkeyfs(), "init", "-c", volume.conf, volume.cipher)
    code, shown = typed(command, b"one", b"another")
    assert code == PASSPHRASE and "the two passphrases differ" in shown
    assert not volume.keystore.exists() and not volume.cipher.exists()
    code, shown = typed(command, b"same", b"same")
    assert code == 0 and volume.keystore.exists()


# --- mount and umount ----------------------------------------------------------------------------


def test_a_mountpoint_that_is_not_there(unmounted):
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, "/nowhere/at/all")
    fails(MOUNT, "cannot use the mountpoint /nowhere/at/all", *words)


def test_a_mountpoint_that_is_a_file(unmounted, work):
    write_file(work / "file", b"")
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, work / "file")
    fails(MOUNT, "it is not a directory", *words)


def test_a_mountpoint_that_is_not_empty(unmounted):
    write_file(unmounted.mnt / "hidden", b"x")
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
    fails(MOUNT, "is not empty (it holds 'hidden')", *words)
    unmounted.mount("-o", "nonempty")
    assert os.listdir(unmounted.mnt) == []
    unmounted.umount()
    assert os.listdir(unmounted.mnt) == ["hidden"]
    os.unlink(unmounted.mnt / "hidden")


def test_a_mountpoint_inside_the_encrypted_directory(unmounted):
    inside = unmounted.cipher / "root/inside"
    inside.mkdir()
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, inside)
    fails(MOUNT, "lies inside the encrypted directory", *words)


def test_a_mountpoint_around_the_encrypted_directory(unmounted):
    words = ("mount", "-c", unmounted.conf, unmounted.cipher, unmounted.directory)
    fails(MOUNT, "would hide the encrypted directory", *words)


def test_umount_of_what_is_not_mounted(work):
    fails(NOT_MOUNTED, "nothing of turnkeyfs is mounted at", "umount", work)
    fails(NOT_MOUNTED, "nothing of turnkeyfs is mounted at", "umount", "/proc")


def test_umount_of_the_encrypted_directory_names_the_mountpoint(volume):
    fails(NOT_MOUNTED, f"mounted at {volume.mnt}", "umount", volume.cipher)


def test_status_of_a_mount_of_another_kind():
    fails(NOT_A_VOLUME, "/proc", "status", "/proc")


def test_a_dead_mount_is_told_and_removed(volume):
    volume.kill()
    volume.daemon.wait(10)
    volume.forget_daemon()
    done = run(turnkeyfs(), "status", volume.cipher)
    assert "dead mount" in done.stdout
    words = ("mount", "-c", volume.conf, volume.cipher, volume.mnt)
    fails(MOUNT, "a dead mount is left at", *words)
    run(turnkeyfs(), "umount", volume.mnt)
    volume.mount()


def test_another_user_may_not_unmount(volume):
    def umount():
        done = run(turnkeyfs(), "umount", volume.mnt, check=False)
        assert done.returncode in (PERMISSION, MOUNT), done.stderr

    as_user(1000, 1000, [], umount)
    assert volume.daemon.poll() is None


def test_allow_other_is_not_for_everybody(unmounted):
    if "user_allow_other\n" in open("/etc/fuse.conf", encoding="ascii").read().replace("#user", ""):
        pytest.skip("/etc/fuse.conf allows it")
    unmounted.write_conf({"mount": {"allow_other": "yes"}})
    unmounted.conf.chmod(0o644)

    def mount():
        words = (turnkeyfs(), "mount", "-c", unmounted.conf, unmounted.cipher, unmounted.mnt)
        done = run(*words, check=False)
        assert done.returncode == CONFIG, done.stderr
        assert "user_allow_other" in done.stderr

    as_user(1000, 1000, [], mount)


# --- the machine ---------------------------------------------------------------------------------


def test_memory_that_can_t_be_locked_is_an_error_if_it_has_to_be(unmounted):
    unmounted.write_conf({"memory": {"lock": "require"}})
    limited = ("setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock")
    words = ("prlimit", "--memlock=65536:65536", *limited, "--", turnkeyfs(), "mount", "-c")
    done = run(*words, unmounted.conf, unmounted.cipher, unmounted.mnt, check=False)
    assert done.returncode == PERMISSION, done.stderr
    assert "memory can't be locked" in done.stderr


def test_a_filesystem_without_space(work, make_volume):
    (work / "small").mkdir()
    small = Filesystem("ext4", work / "small", size=4 << 20)
    reason = small.mount()
    if reason:
        pytest.skip(reason)
    try:
        with pytest.raises(OSError), open(small.path / "filler", "wb") as f:
            while True:
                f.write(bytes(1 << 16))
                f.flush()
        volume = make_volume(mount=False, init=False)
        words = ("init", "-c", volume.conf, small.path / "cipher")
        done = run(turnkeyfs(), *words, check=False)
        assert done.returncode in (1, PERMISSION), done.stderr
        assert "No space left on device" in done.stderr
        assert not (small.path / "cipher/turnkeyfs.volume").exists()
    finally:
        small.umount()


def test_doctor_finds_nothing_wrong_with_a_good_volume(unmounted):
    done = unmounted.command("doctor", unmounted.cipher)
    assert "FAIL" not in done.stdout and "0 failed" in done.stdout


def test_doctor_ends_with_the_code_of_the_first_failure(unmounted):
    unmounted.keystore.unlink()
    done = unmounted.command("doctor", unmounted.cipher, check=False)
    assert done.returncode == KEYSTORE_MISSING
    assert "FAIL" in done.stdout and str(unmounted.keystore) in done.stdout


# --- nothing was left behind ---------------------------------------------------------------------


def test_a_failed_command_changes_nothing(unmounted):
    before = sorted(os.listdir(unmounted.cipher)), read_file(unmounted.cipher / "turnkeyfs.volume")
    unmounted.keystore.rename(unmounted.directory / "away")
    keystore_fails(unmounted, KEYSTORE_MISSING, "does not exist")
    assert not unmounted.keystore.exists(), "no new keystore in place of a missing one"
    after = sorted(os.listdir(unmounted.cipher)), read_file(unmounted.cipher / "turnkeyfs.volume")
    assert [n for n in after[0] if n != "turnkeyfs.lock"] == [
        n for n in before[0] if n != "turnkeyfs.lock"
    ]
    assert after[1] == before[1]
    assert stat.S_IMODE(unmounted.cipher.stat().st_mode) == 0o700
