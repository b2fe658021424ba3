# SPDX-License-Identifier: Apache-2.0
"""`turnkeyfs key`: what it does to keystores and vaults, and when it asks."""

import base64
import concurrent.futures
import os
import pty
import select

import azure_volume
import pytest
from azure_volume import fails, json_of, key_id, turnkeyfs
from helpers import read_file, write_file
from mountpoint import run

pytest_plugins = ["emulator_fixture"]


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch):
    azure_volume.scrub_environment(monkeypatch)


def versions(conf):
    return json_of(turnkeyfs("key", "list", "--json", "-c", conf))["versions"]


def states(conf):
    return [(v["version"], v["enabled"], v["current"]) for v in versions(conf)]


@pytest.fixture
def keystore_conf(tmp_path):
    """A configuration with a new keystore."""
    conf = azure_volume.write(tmp_path / "c.conf", {"local": {"keystore": tmp_path / "keystore"}})
    turnkeyfs("key", "create", "-c", conf)
    return conf


# --- local ---------------------------------------------------------------------------------------


def test_create_makes_a_keystore_once(keystore_conf, tmp_path):
    before = (tmp_path / "keystore").read_bytes()
    assert states(keystore_conf) == [("1", True, True)]
    assert "exists already" in fails(2, "key", "create", "-c", keystore_conf)
    assert (tmp_path / "keystore").read_bytes() == before
    assert "AES" in fails(2, "key", "create", "-c", keystore_conf, "--bits", "2048")


def test_versions_are_made_disabled_and_enabled(keystore_conf):
    assert json_of(turnkeyfs("key", "rotate", "-c", keystore_conf, "--json"))["version"] == "2"
    assert states(keystore_conf) == [("1", True, False), ("2", True, True)]
    turnkeyfs("key", "disable", "--yes", "-c", keystore_conf, "2")
    assert states(keystore_conf) == [("1", True, True), ("2", False, False)]
    turnkeyfs("key", "enable", "-c", keystore_conf, "2")
    assert states(keystore_conf) == [("1", True, False), ("2", True, True)]
    text = turnkeyfs("key", "list", "-c", keystore_conf).stdout.splitlines()
    assert text[1].startswith("2  AES 256  enabled, current, made 20")


@pytest.mark.parametrize("version", ["3", "0", "-1", "x", "01", "4294967297"])
def test_a_version_that_is_not_there(keystore_conf, tmp_path, version):
    before = (tmp_path / "keystore").read_bytes()
    said = fails(2, "key", "disable", "--yes", "-c", keystore_conf, "--", version)
    assert f"no version '{version}'" in said
    assert (tmp_path / "keystore").read_bytes() == before


def test_programs_at_the_same_time_lose_no_version(keystore_conf):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: turnkeyfs("key", "rotate", "-c", keystore_conf), range(16)))
    assert [v["version"] for v in versions(keystore_conf)] == [str(i) for i in range(1, 18)]


def test_a_keystore_with_a_passphrase(tmp_path):
    secret = tmp_path / "passphrase"
    secret.touch(0o600)
    secret.write_text("a passphrase")
    local = {"keystore": tmp_path / "keystore", "passphrase": f"file:{secret}"}
    conf = azure_volume.write(tmp_path / "c.conf", {"local": local})
    turnkeyfs("key", "create", "-c", conf)
    turnkeyfs("key", "rotate", "-c", conf)
    assert states(conf) == [("1", True, False), ("2", True, True)]
    secret.write_text("another")
    fails(9, "key", "rotate", "-c", conf)
    secret.write_text("a passphrase")
    assert len(versions(conf)) == 2


def test_a_deleted_keystore_comes_back(volume):
    write_file(volume.mnt / "f", b"kept")
    volume.umount()
    turnkeyfs("key", "delete", "--yes", "-c", volume.conf)
    assert not volume.keystore.exists()
    assert os.path.exists(f"{volume.keystore}.deleted")
    fails(7, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    fails(7, "key", "list", "-c", volume.conf)
    turnkeyfs("key", "recover", "-c", volume.conf)
    assert "no deleted keystore" in fails(7, "key", "recover", "-c", volume.conf)
    volume.mount()
    assert read_file(volume.mnt / "f") == b"kept"


def test_an_earlier_deleted_keystore_is_not_overwritten(keystore_conf, tmp_path):
    turnkeyfs("key", "delete", "--yes", "-c", keystore_conf)
    first = (tmp_path / "keystore.deleted").read_bytes()
    turnkeyfs("key", "create", "-c", keystore_conf)
    assert "in the way" in fails(2, "key", "delete", "--yes", "-c", keystore_conf)
    assert "is there" in fails(2, "key", "recover", "-c", keystore_conf)
    assert (tmp_path / "keystore.deleted").read_bytes() == first


def test_the_default_keystore_is_found_by_the_encrypted_directory(tmp_path, monkeypatch):
    """As a user without a configuration, whose keystore is named after the volume."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    tmp_path.chmod(0o711)
    os.chown(home, 65534, 65534)
    program = azure_volume.mountpoint.turnkeyfs()
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"HOME={home}"]
    run(*words, program, "init", home / "cipher", cwd=home)
    listed = run(*words, program, "key", "list", "--json", home / "cipher", cwd=home)
    assert [v["version"] for v in json_of(listed)["versions"]] == ["1"]
    run(*words, program, "key", "rotate", home / "cipher", cwd=home)
    done = run(*words, program, "key", "rotate", check=False, cwd=home)
    assert done.returncode == 2 and "which keystore" in done.stderr


def test_a_mount_sees_that_its_version_was_disabled(make_volume):
    """With dek_wrap = kms, where the root key is asked for each file."""
    volume = make_volume(conf={"volume": {"dek_wrap": "kms"}})
    write_file(volume.mnt / "f", b"x")
    volume.remount()
    turnkeyfs("key", "disable", "--yes", "-c", volume.conf, "1")
    volume.expect_log(".")
    with pytest.raises(OSError):
        read_file(volume.mnt / "f")
    turnkeyfs("key", "enable", "-c", volume.conf, "1")
    azure_volume.mountpoint.wait_for(lambda: can_read(volume.mnt / "f"), 90, "the file")


def can_read(path):
    try:
        return read_file(path) == b"x"
    except OSError:
        return False


def test_what_local_can_t_do(keystore_conf, tmp_path):
    pem = tmp_path / "key.pem"
    run("openssl", "genrsa", "-out", pem, "2048")
    assert "can't import" in fails(18, "key", "import", "-c", keystore_conf, pem)
    assert "policy" in fails(18, "key", "policy", "-c", keystore_conf)


# --- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["delete"], ["disable", "1"]])
def test_without_a_terminal_and_without_yes_nothing_is_done(keystore_conf, verb):
    said = fails(2, "key", verb[0], "-c", keystore_conf, *verb[1:], start_new_session=True)
    assert "--yes" in said
    assert states(keystore_conf) == [("1", True, True)]


def answer_on_a_terminal(answer, *words, typed_before=""):
    """(exit code, what the terminal showed)"""
    pid, master = pty.fork()
    if pid == 0:
        os.read(0, 1)  # until all that is typed ahead is there
        os.execv(azure_volume.mountpoint.turnkeyfs(), ["turnkeyfs", *(str(w) for w in words)])
    os.write(master, f"\n{typed_before}".encode())
    shown = b""
    answered = False
    while select.select([master], [], [], 20)[0]:
        try:
            more = os.read(master, 4096)
        except OSError:
            break
        if not more:
            break
        shown += more
        if not answered and b"[yes/no]" in shown:
            os.write(master, answer.encode() + b"\n")
            answered = True
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.parametrize("answer,done", [("yes", True), ("no", False), ("y", False), ("", False)])
def test_on_a_terminal_it_asks(keystore_conf, tmp_path, answer, done):
    code, shown = answer_on_a_terminal(answer, "key", "disable", "-c", keystore_conf, "1")
    assert f"Disable version 1 of the keystore {tmp_path / 'keystore'}?" in shown
    assert code == (0 if done else 2)
    assert states(keystore_conf) == [("1", not done, not done)]


@pytest.mark.parametrize("verb", [["delete"], ["disable", "1"]])
def test_what_was_typed_before_the_question_is_no_answer(keystore_conf, verb):
    words = ["key", verb[0], "-c", keystore_conf, *verb[1:]]
    code, shown = answer_on_a_terminal("no", *words, typed_before="yes\n" * 3)
    assert code == 2 and "nothing was done" in shown, shown
    assert states(keystore_conf) == [("1", True, True)]
    code, shown = answer_on_a_terminal("yes", *words, typed_before="no\n")
    assert code == 0, shown


def test_an_overlong_answer_is_none_and_is_not_left_behind(keystore_conf):
    """What follows on the same terminal, a shell, must not take the rest for a command."""
    program = azure_volume.mountpoint.turnkeyfs()
    script = '"$@"; echo "ended with $?"; IFS= read -r -t 1 rest; echo "left: <$rest>"'
    words = ["bash", "-c", script, "bash", program, "key", "delete", "-c", keystore_conf]
    pid, master = pty.fork()
    if pid == 0:
        os.execvp("bash", [str(word) for word in words])
    shown = b""
    while b"[yes/no]" not in shown:
        shown += os.read(master, 4096)
    os.write(master, b"yes, and much more than was asked for\n")
    while b"left: <" not in shown.partition(b"ended with")[2]:
        shown += os.read(master, 4096)
    os.waitpid(pid, 0)
    os.close(master)
    assert b"ended with 2" in shown and b"left: <>" in shown, shown
    assert states(keystore_conf) == [("1", True, True)]


@pytest.mark.parametrize(
    "words,said",
    [
        (["key"], "a word is missing"),
        (["key", "frobnicate"], "unknown word 'frobnicate'"),
        (["key", "disable"], "a word is missing"),
        (["key", "list", "--yes"], "unknown option --yes"),
        (["key", "list", "-Y"], "unknown option -Y"),
        (["key", "policy", "--expiry", "soon"], "--expiry wants a number"),
        (["key", "create", "--bits", "99999"], "--bits wants a number"),
        (["rotate"], "a word is missing"),
        (["help", "key", "frobnicate"], "has no 'frobnicate'"),
    ],
)
def test_wrong_command_lines(words, said):
    assert said in fails(2, *words)


def test_help_lists_the_verbs():
    for words in (["help", "key"], ["key", "--help"], ["key", "-h"]):
        text = turnkeyfs(*words).stdout
        for verb in "create import list rotate disable enable delete recover policy".split():
            assert f"turnkeyfs key {verb}" in text
    assert "--rotate-after DAYS" in turnkeyfs("help", "key", "policy").stdout
    assert turnkeyfs("key", "list", "--help").stdout == turnkeyfs("help", "key", "list").stdout


# --- azure ---------------------------------------------------------------------------------------


@pytest.fixture
def vault_conf(emulator, vault, tmp_path):
    """A configuration for a key of a vault, which is not there yet."""
    configuration = azure_volume.sections(emulator, key_id(vault), tmp_path)
    return azure_volume.write(tmp_path / "c.conf", configuration)


def test_a_key_in_a_vault_from_its_making_to_its_end(vault, vault_conf):
    turnkeyfs("key", "create", "-c", vault_conf, "--bits", "4096")
    assert "is there already" in fails(2, "key", "create", "-c", vault_conf)
    first = versions(vault_conf)[0]
    assert first["type"] == "RSA 4096" and first["enabled"] and first["current"]
    second = json_of(turnkeyfs("key", "rotate", "-c", vault_conf, "--json"))["version"]
    assert second == azure_volume.key_version(vault)
    assert states(vault_conf) == [(first["version"], True, False), (second, True, True)]
    turnkeyfs("key", "disable", "--yes", "-c", vault_conf, first["version"])
    assert states(vault_conf)[0] == (first["version"], False, False)
    turnkeyfs("key", "enable", "-c", vault_conf, first["version"])
    turnkeyfs("key", "delete", "--yes", "-c", vault_conf)
    fails(12, "key", "list", "-c", vault_conf)
    turnkeyfs("key", "recover", "-c", vault_conf)
    assert [v["version"] for v in versions(vault_conf)] == [first["version"], second]


def test_a_policy_is_shown_and_set(vault_conf):
    turnkeyfs("key", "create", "-c", vault_conf)
    turnkeyfs("key", "policy", "-c", vault_conf, "--rotate-after", "60", "--expiry", "90")
    policy = json_of(turnkeyfs("key", "policy", "--json", "-c", vault_conf))
    assert policy["rotate_after_days"] == 60 and policy["expiry_days"] == 90
    assert policy["rotate_before_days"] == 0
    assert "60 days" in turnkeyfs("key", "policy", "-c", vault_conf).stdout


def test_a_key_of_one_s_own_is_brought(vault, vault_conf, tmp_path):
    pem = tmp_path / "key.pem"
    run("openssl", "genrsa", "-out", pem, "2048")
    turnkeyfs("key", "import", "-c", vault_conf, pem)
    public = run("openssl", "rsa", "-in", pem, "-noout", "-modulus").stdout
    bundle = vault.ok("GET", "/keys/kek")["key"]
    modulus = base64.urlsafe_b64decode(bundle["n"] + "==").hex().upper()
    assert public.strip() == f"Modulus={modulus}"
    assert bundle["kty"] == "RSA"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"x" * 100_000])
def test_what_is_no_key_is_not_imported(vault, vault_conf, tmp_path, content):
    pem = tmp_path / "key.pem"
    pem.write_bytes(content)
    done = turnkeyfs("key", "import", "-c", vault_conf, pem, check=False)
    assert done.returncode in (2, 3) and done.stderr.startswith("turnkeyfs: ")
    assert vault.ok("GET", "/keys")["value"] == []


def test_somebody_without_the_right_is_told_which(emulator, vault, vault_conf):
    emulator.control("revoke", vault=vault.name, permissions=["create"])
    assert "Key Vault Crypto Officer" in fails(12, "key", "create", "-c", vault_conf)
