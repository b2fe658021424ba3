# SPDX-License-Identifier: Apache-2.0
"""Root keys in tokens: other tools beside ours, tokens that go and come, PINs, dates, hanging modules."""

import datetime
import errno
import os
import subprocess
import time

import azure_volume
import pytest
import turnkeyfs_reader as reader
from azure_volume import fails, kek_states, turnkeyfs
from helpers import noise, read_file, write_file
from key_states import WINDOW, RootKey, refused, state, wait_refused, wait_served, wait_state, windows
from mountpoint import run, wait_for
from pkcs11_token import (
    CKA_END_DATE,
    CKA_START_DATE,
    EXPECTED_PKCS11,
    PIN,
    Module,
    TokenKeys,
    faulty_module,
    uri,
)

pytest_plugins = ["pkcs11_fixture"]

TODAY = datetime.datetime.now(datetime.timezone.utc).date()


def stamp(days=0):
    return (TODAY + datetime.timedelta(days)).strftime("%Y%m%d").encode()


def look(volume):
    assert read_file(volume.mnt / "f") == noise(5000)


@pytest.fixture
def volume(make_token_volume):
    volume = make_token_volume(windows(outage_grace=600))
    write_file(volume.mnt / "f", noise(5000))
    return volume


@pytest.fixture
def faulty(make_token_volume):
    """The module fails and hangs as token.set_rules says."""
    volume = make_token_volume(windows(outage_grace=600), module=faulty_module())
    write_file(volume.mnt / "f", noise(5000))
    return volume


# --- other tools ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [["--type", "AES"], ["--type", "RSA", "--bits", "2048"]], ids=["aes", "rsa"])
def test_other_tools_see_and_use_the_keys_that_we_made(token, make_token_volume, key):
    volume = make_token_volume(windows(), key=key)
    write_file(volume.mnt / "f", noise(5000))
    (version,) = volume.key.versions()
    listed = token.pkcs11_tool("--list-objects").stdout
    # OpenSC 0.27 writes colons between an ID's bytes.
    assert version["version"] in listed.replace(":", ""), listed
    assert "sensitive, always sensitive, never extract" in listed, listed
    listed = token.p11tool("--list-all", f"pkcs11:token={token.label}").stdout
    assert "CKA_NEVER_EXTRACTABLE; CKA_SENSITIVE" in listed, listed
    volume.umount()
    # The second way to the key opens every file.
    assert volume.read_below("f") == noise(5000)
    if "RSA" in key:
        keys = ToolKeys(token, volume.directory)
        with reader.Volume(volume.cipher, keys).open("f") as f:
            assert f.read() == noise(5000)


class ToolKeys(TokenKeys):
    """A token as the independent reader's keystore, by pkcs11-tool."""

    def __init__(self, token, directory):
        super().__init__(token)
        self.directory = directory

    def unwrap(self, wrap, blob=None):
        (self.directory / "blob").write_bytes(blob or reader.unbase64url(wrap["blob"]))
        assert wrap["algorithm"] == "RSA-OAEP"
        self.token.pkcs11_tool("--decrypt", "--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1",
                               "--id", wrap["version"], "-i", self.directory / "blob", "-o",
                               self.directory / "plain")  # fmt: skip
        return (self.directory / "plain").read_bytes()


def make_aes(token, label, identity):
    token.pkcs11_tool("--keygen", "--key-type", "AES:32", "--sensitive", "--label", label, "--id", identity)


def make_rsa(token, label, identity):
    token.p11tool("--generate-privkey", "rsa", "--bits", "2048", "--label", label, "--id", identity,
                  f"pkcs11:token={token.label}")  # fmt: skip


@pytest.mark.parametrize("make", [make_aes, make_rsa])
def test_we_use_the_keys_that_other_tools_made(token, make_volume, make):
    conf = token.conf("theirs", kms=windows(rotation=1)["kms"])
    make(token, "theirs", "01")
    volume = make_volume(mount=False, init=False)
    volume.conf = conf
    volume.key = RootKey(conf)
    volume.expect_log(EXPECTED_PKCS11)
    volume.init().mount()
    write_file(volume.mnt / "f", noise(5000))
    make_aes(token, "theirs", "02")
    wait_for(lambda: kek_states(volume) == {1: "retired", 2: "active"}, 20, "the rotation")
    look(volume)
    # One of ours is newer than theirs, and the other way round.
    volume.key.rotate()
    wait_for(lambda: kek_states(volume).get(3) == "active", 20, "the rotation")
    assert [v["version"] for v in volume.key.versions()][:2] == ["01", "02"]
    token.pkcs11_tool("--delete-object", "--type", "privkey" if make is make_rsa else "secrkey", "--id", "01")
    volume.remount()
    look(volume)
    # Moved away under our hands: as good as deleted.
    newest = volume.key.versions()[-1]["version"]
    token.pkcs11_tool("--type", "secrkey", "--id", newest, "--set-id", "77", "--label", "theirs")
    wait_state(volume, "revoked")
    assert refused(os.listdir, volume.mnt)
    token.pkcs11_tool("--type", "secrkey", "--id", "77", "--set-id", newest, "--label", "theirs")
    wait_state(volume, "active")
    look(volume)


def test_p11tool_can_disable_by_the_label(token, make_token_volume):
    volume = make_token_volume(windows())
    write_file(volume.mnt / "f", noise(5000))
    label = volume.key.conf.read_text().split("object=")[1].split("\n")[0]
    token.p11tool("--set-label", f"{label}.disabled", f"{uri(label)};type=secret-key")
    wait_state(volume, "revoked")
    assert [v["enabled"] for v in volume.key.versions()] == [False]
    volume.key.enable()
    wait_state(volume, "active")
    look(volume)


def test_doctor_says_what_the_token_would_give_out(token, make_volume):
    conf = token.conf("loose")
    token.pkcs11_tool("--keygen", "--key-type", "AES:32", "--extractable", "--label", "loose", "--id", "01")
    said = turnkeyfs("doctor", "-c", conf).stdout
    assert "warn  protection: version 01 is extractable" in said, said
    assert "ok    unwrap: a test key came back the same" in said
    assert PIN not in said
    RootKey(conf).rotate()
    said = turnkeyfs("doctor", "-c", conf).stdout
    assert said.count("it stays in the token") == 1, said


def test_keys_without_a_usable_id_are_said(token):
    conf = token.conf("nameless")
    token.pkcs11_tool("--keygen", "--key-type", "AES:32", "--label", "nameless")
    assert "CKA_ID" in fails(12, "init", "-c", conf, token.directory / "cipher")
    said = turnkeyfs("doctor", "-c", conf, check=False).stdout
    assert "1 keys of the label have no CKA_ID" in said, said


# --- a key that is gone or comes back ------------------------------------------------------------


def test_a_deleted_key_is_refused_until_it_is_recovered(volume):
    volume.key.command("delete", "--yes")
    wait_state(volume, "revoked")
    assert refused(os.listdir, volume.mnt)
    said = turnkeyfs("doctor", "-c", volume.conf, check=False)
    assert said.returncode == 12 and "is not in the token" in said.stdout, said.stdout
    volume.key.command("recover")
    wait_state(volume, "active")
    look(volume)


@pytest.mark.parametrize("expiry", ["warn", "revoke"])
def test_a_key_past_its_dates(token, make_volume, expiry):
    volume = make_volume(mount=False, init=False)
    volume.conf = token.conf("dated", kms=windows(key_expiry=expiry)["kms"])
    volume.expect_log(EXPECTED_PKCS11 + "|outside its dates")
    with Module(token) as module:
        module.generate("dated", "01")
    volume.init().mount()
    write_file(volume.mnt / "f", noise(5000))
    with Module(token) as module:
        module.set("01", CKA_END_DATE, stamp(-1))
    if expiry == "revoke":
        wait_state(volume, "expired")
        assert refused(os.listdir, volume.mnt, number=errno.EKEYEXPIRED)
        with Module(token) as module:
            module.set("01", CKA_END_DATE, stamp(1))
        wait_state(volume, "active")
    else:
        time.sleep(2.5)
        assert state(volume) == "active"
        fails(13, "init", "-c", volume.conf, volume.directory / "another")
    look(volume)


def test_the_newest_by_its_start_date_is_current(token):
    key = RootKey(token.conf("dated"))

    def current():
        (version,) = [v["version"] for v in key.versions() if v["current"]]
        return version

    with Module(token) as module:
        for version in ("01", "02", "03"):
            module.generate("dated", version)
    assert current() == "03"
    with Module(token) as module:
        module.set("01", CKA_START_DATE, stamp(-2))
        module.set("02", CKA_START_DATE, stamp(-3))
    assert current() == "01"
    assert [v["version"] for v in key.versions()] == ["03", "02", "01"]
    with Module(token) as module:
        module.set("02", CKA_START_DATE, stamp(1))  # not yet valid
    assert current() == "01"
    with Module(token) as module:
        module.set("02", CKA_START_DATE, stamp())
    assert current() == "02"


def test_dates_that_softhsm_can_t_read_back_are_said(token):
    key = RootKey(token.conf("root")).create()
    with Module(token) as module:
        module.set(key.name(1), CKA_END_DATE, stamp(1))
    assert "CKR_GENERAL_ERROR" in fails(11, "key", "list", "-c", key.conf)


def test_a_pinned_version_stays(token, make_token_volume):
    volume = make_token_volume(windows(rotation=1), mount=False)
    pinned = volume.key.name(1)
    path = "".join(f"%{pinned[i : i + 2]}" for i in range(0, len(pinned), 2))
    conf = volume.conf.read_text()
    volume.conf.write_text(conf.replace("object=", f"id={path};object="))
    volume.mount()
    azure_volume.write(token.directory / "free.conf", token.sections("root1"))
    RootKey(token.directory / "free.conf").rotate()
    time.sleep(2.5)
    assert kek_states(volume) == {1: "active"}
    fails(3, "key", "rotate", "-c", volume.conf)


# --- tokens that go and come ---------------------------------------------------------------------


def test_a_token_that_is_pulled_out_is_served_without_until_the_grace_ends(token, make_token_volume):
    volume = make_token_volume(windows(outage_grace=6))
    write_file(volume.mnt / "f", noise(5000))
    fd = os.open(volume.mnt / "f", os.O_RDONLY)
    token.unplug()
    wait_state(volume, "degraded")
    look(volume)
    wait_refused(os.pread, fd, 1, 0, number=errno.ENOKEY)
    assert state(volume) == "outage"
    fails(11, "key", "list", "-c", volume.conf)
    token.plug_in()
    wait_served(os.pread, fd, 1, 0, number=errno.ENOKEY)
    assert os.pread(fd, 5000, 0) == noise(5000)
    os.close(fd)


def test_a_token_that_two_root_keys_were_in_may_go_and_come(token, volume):
    """The root key was moved within the token: the provider of the old one is there still."""
    to = token.conf("moved", kms=windows(outage_grace=600)["kms"])
    RootKey(to).create()
    turnkeyfs("rotate", "--wait", "--to", to, volume.mnt)
    volume.conf = to
    for _ in range(2):
        token.unplug()
        wait_state(volume, "degraded")
        token.plug_in()
        wait_state(volume, "active")
        look(volume)


def test_a_mount_waits_for_its_token(token, make_token_volume):
    volume = make_token_volume(windows(mount_timeout=60), mount=False)
    token.unplug()
    with open(volume.log_path, "ab") as log:
        volume.expect_log("trying again for")
        mount = subprocess.Popen(
            [azure_volume.mountpoint.turnkeyfs(), "mount", "-c", volume.conf, volume.cipher, volume.mnt],
            stdout=log, stderr=log,
        )  # fmt: skip
    wait_for(lambda: "trying again for" in volume.log(), 20, "the first attempt")
    token.plug_in()
    assert mount.wait(60) == 0
    assert state(volume) == "active"
    run(azure_volume.mountpoint.turnkeyfs(), "umount", volume.mnt)


@pytest.mark.parametrize("rv", [0x32, 0xB3, 0x101, 0x80000001], ids=hex)
def test_a_token_in_trouble_is_degraded_and_left_by_itself(token, faulty, rv):
    """CKR_DEVICE_REMOVED, SESSION_HANDLE_INVALID, USER_NOT_LOGGED_IN, a vendor's own."""
    for function in ("C_Decrypt", "C_FindObjects", "*"):
        token.set_rules(f"{function} rv {rv:#x}\n")
        wait_state(faulty, "degraded")
        look(faulty)
        token.set_rules()
        wait_state(faulty, "active")
    look(faulty)
    assert "revoked" not in faulty.log()


def test_one_failing_call_now_and_then_is_got_over(token, faulty):
    for n in range(1, 30, 2):
        token.set_rules(f"* rv 0x30 {n} {n}\n")
        time.sleep(0.1)
        # Two rules may fall into one look at the key and its repetition.
        wait_state(faulty, "active")
    look(faulty)
    assert "revoked" not in faulty.log()


def test_a_module_that_hangs_is_an_outage(token, faulty):
    token.set_rules("C_Decrypt hang\n")
    wait_state(faulty, "degraded")
    look(faulty)
    time.sleep(5)  # more probes than may hang at a time
    assert "did not answer within" in faulty.status()["daemon"]["lease"]["trouble"]
    token.set_rules()
    wait_state(faulty, "active")
    look(faulty)


def test_status_does_not_wait_for_a_module_that_hangs(token, make_token_volume):
    """Not even behind a request that does: a change of the protectors asks for the key first."""
    volume = make_token_volume(windows(revocation=60), module=faulty_module())
    volume.expect_log("was added: it opens the volume as protector")
    keystore = volume.directory / "recovery.keystore"
    recovery = azure_volume.write(volume.directory / "recovery.conf", {"local": {"keystore": keystore}})
    token.set_rules("C_Decrypt hang\n")
    with subprocess.Popen(
        [azure_volume.mountpoint.turnkeyfs(), "protector", "add", volume.mnt, recovery],
        stdin=subprocess.DEVNULL,
    ) as adding:
        try:
            wait_for(keystore.exists, 20, "the new keystore")
            for _ in range(10):
                assert volume.status(volume.cipher)["daemon"]["state"] == "active"
            assert adding.poll() is None, "it waits for the token"
        finally:
            token.set_rules()
        assert adding.wait(60) == 0


def test_a_mount_whose_module_hangs_ends_when_it_is_told_to(token, faulty):
    token.set_rules("* hang\n")
    wait_state(faulty, "degraded")
    faulty.umount()
    token.set_rules()
    faulty.mount()
    look(faulty)


# --- the PIN ---------------------------------------------------------------------------------------


def test_a_wrong_pin_is_tried_once_whoever_starts_it_how_often(token, make_token_volume):
    volume = make_token_volume(windows(), mount=False)
    token.write_pin("0000-wrong")
    said = fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "CKR_PIN_INCORRECT" in said and "0000-wrong" not in said
    for _ in range(4):
        said = fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
        assert "a wrong PIN was given to it lately" in said, said
    # The right one is not tried either, until somebody has shown that it is right.
    token.write_pin(PIN)
    fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    token.pkcs11_tool("--list-objects")
    volume.mount()


def mount_with(volume, token, rules):
    """Mounts with these rules, and unmounts."""
    token.set_rules(rules)
    volume.mount()
    assert os.listdir(volume.mnt) == []
    token.set_rules()
    volume.umount()


@pytest.mark.parametrize("timeout", [0, 30])
@pytest.mark.parametrize("rv", [0x5, 0x6], ids=hex)
def test_a_token_that_is_ill_at_the_first_login_is_waited_for(token, make_token_volume, rv, timeout):
    """CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED: once, and then no more."""
    volume = make_token_volume(windows(mount_timeout=timeout), module=faulty_module(), mount=False)
    volume.expect_log("trying again for")
    mount_with(volume, token, f"C_Login rv {rv:#x} 1 1\n")


def test_a_token_that_is_ill_for_long_ends_a_mount_that_may_be_started_again(token, make_token_volume):
    volume = make_token_volume(windows(), module=faulty_module(), mount=False)
    token.set_rules("C_Login rv 0x6\nC_GenerateRandom rv 0x30\n")
    for _ in range(4):
        fails(11, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    mount_with(volume, token, "")


def test_a_pin_that_gets_no_clear_answer_is_given_up(token, make_token_volume):
    volume = make_token_volume(windows(mount_timeout=60), module=faulty_module(), mount=False)
    token.set_rules("C_Login rv 0x5\n")
    done = turnkeyfs("mount", "-c", volume.conf, volume.cipher, volume.mnt, check=False)
    assert done.returncode == 9 and "CKR_GENERAL_ERROR, twice" in done.stderr, done.stderr
    # A wrong one that the token counts is known by that.
    token.write_pin("0000-wrong")
    token.set_rules("C_Login masks 0x5\n")
    said = fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "trying again" not in said and "counted" in said, said
    said = fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    assert "a wrong PIN was given to it lately" in said, said


@pytest.mark.parametrize("function", ["C_DecryptInit", "C_FindObjectsInit"])
def test_a_mount_survives_unclear_answers_to_its_login(token, faulty, function):
    for rv in (0x5, 0x6):
        token.set_rules(f"{function} rv 0xb3\nC_Login rv {rv:#x}\n")
        wait_state(faulty, "degraded")
        time.sleep(2 * WINDOW)
        assert state(faulty) == "degraded"
        look(faulty)
        token.set_rules()
        wait_state(faulty, "active")
    assert "revoked" not in faulty.log()


def test_a_mount_survives_unclear_answers_to_a_changed_pin(token, faulty):
    """It is tried twice and given up, which says nothing of the key: an outage."""
    token.write_pin("4712-new")
    token.set_rules("C_DecryptInit rv 0xb3\nC_Login rv 0x5\n")
    wait_for(lambda: "twice" in faulty.status()["daemon"]["lease"]["trouble"], 60, "the second answer")
    time.sleep(2 * WINDOW)
    assert state(faulty) == "degraded"
    look(faulty)
    token.set_rules()
    token.write_pin(PIN)
    wait_state(faulty, "active")
    assert "revoked" not in faulty.log()


def test_without_a_pin_it_says_where_to_put_it(token, make_token_volume):
    volume = make_token_volume(windows(), mount=False)
    volume.conf.write_text(volume.conf.read_text().replace(f"pin = file:{token.pin_file}", ""))
    assert "[pkcs11] pin" in fails(9, "mount", "-c", volume.conf, volume.cipher, volume.mnt)


def test_a_pin_that_is_changed_is_followed(token, volume):
    token.pkcs11_tool("--change-pin", "--new-pin", "4712-new")
    token.pin = "4712-new"
    token.write_pin("4712-new")
    token.unplug()
    wait_state(volume, "degraded")
    token.plug_in()
    wait_state(volume, "active")
    look(volume)


def test_a_pin_from_a_credential_or_a_descriptor(token, make_token_volume, monkeypatch):
    volume = make_token_volume(windows(), mount=False)
    conf = volume.conf.read_text()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(token.directory))
    volume.conf.write_text(conf.replace(f"file:{token.pin_file}", "credential:pin"))
    volume.mount().umount()
    with open(token.pin_file, "rb") as pin:
        volume.conf.write_text(conf.replace(f"file:{token.pin_file}", f"fd:{pin.fileno()}"))
        turnkeyfs("key", "list", "-c", volume.conf, pass_fds=[pin.fileno()])


def test_a_pin_that_others_may_read_is_warned_of(token, make_token_volume):
    volume = make_token_volume(windows(), mount=False)
    said = f"the mode of {token.pin_file}, which [pkcs11] pin names, lets others read it"
    for mode in (0o640, 0o604):
        token.pin_file.chmod(mode)
        doctor = turnkeyfs("doctor", "-c", volume.conf, volume.cipher)
        assert f"warn  secrets: {said}" in doctor.stdout and doctor.stderr == "", doctor
    # By mounts and doctor, once each; not by every command.
    assert turnkeyfs("key", "list", "-c", volume.conf).stderr == ""
    volume.expect_log("lets others read it")
    volume.mount()
    assert volume.log().count(f"warning: {said}") == 1
    volume.umount()
    token.pin_file.chmod(0o600)
    assert "others read" not in turnkeyfs("doctor", "-c", volume.conf).stdout


# --- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change,said",
    [
        (("uri = pkcs11:", "uri = http:"), "bad value '...' for 'uri'"),
        (("object=", "colour=red;object="), "it holds something unknown"),
        (("object=root1", "object=root1?pin-value=7777"), "it holds a PIN"),
        (("module = /", "module = "), "an absolute path"),
        (("token=unit-token", ""), "it names no token"),
    ],
    ids=lambda change: change if isinstance(change, str) else "",
)
def test_a_wrong_configuration_is_said(token, make_token_volume, change, said):
    volume = make_token_volume(windows(), mount=False)
    volume.conf.write_text(volume.conf.read_text().replace(*change))
    message = fails(3, "key", "list", "-c", volume.conf)
    assert said in message and "7777" not in message, message


def test_a_module_that_is_none(token, make_token_volume):
    volume = make_token_volume(windows(), mount=False)
    volume.conf.write_text(volume.conf.read_text().replace(token.module, "/etc/passwd"))
    assert "/etc/passwd" in fails(11, "mount", "-c", volume.conf, volume.cipher, volume.mnt)


# --- two providers in one volume -----------------------------------------------------------------


def test_from_a_keystore_to_a_token_and_back(token, make_volume):
    volume = make_volume(conf=windows())
    write_file(volume.mnt / "f", noise(5000))
    conf = token.conf("moved", kms=windows()["kms"])
    key = RootKey(conf).create()
    turnkeyfs("rotate", "--wait", "--to", conf, volume.mnt)
    first, volume.conf = volume.conf, conf
    volume.expect_log(EXPECTED_PKCS11)
    volume.remount()
    look(volume)
    key.disable()
    wait_state(volume, "revoked")
    key.enable()
    wait_state(volume, "active")
    turnkeyfs("rotate", "--wait", "--to", first, volume.mnt)
    volume.conf = first
    volume.remount()
    key.command("delete", "--yes")
    volume.remount()
    look(volume)


def test_two_protectors_one_of_them_revoked(token, make_token_volume):
    volume = make_token_volume(windows())
    write_file(volume.mnt / "f", noise(5000))
    volume.expect_log("was added: it opens the volume as protector")
    recovery = azure_volume.write(volume.directory / "recovery.conf", {
        "kms": windows()["kms"], "local": {"keystore": volume.directory / "recovery.keystore"},
    })  # fmt: skip
    turnkeyfs("protector", "add", volume.mnt, recovery)
    volume.key.disable()
    wait_state(volume, "revoked")
    assert refused(os.listdir, volume.mnt)
    volume.umount()
    fails(12, "mount", "-c", volume.conf, volume.cipher, volume.mnt)
    by_token, volume.conf = volume.conf, recovery
    volume.mount()
    look(volume)
    volume.umount()
    volume.conf = by_token
    volume.key.enable()
    volume.mount()
    look(volume)
