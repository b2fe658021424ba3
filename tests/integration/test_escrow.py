# SPDX-License-Identifier: Apache-2.0
"""The escrow: what it holds, how it is kept up to date, and what it brings back."""

import json
import os
import shutil
import stat
import subprocess
import threading
import time

import pytest
from damage import cell_at, clear_copy, flip, page_at, peek, poke, record_attribute
from helpers import BLOCK, noise, read_file, write_file
from mountpoint import KEY_RECORD, reader, run, turnkeyfs

DAMAGED, WRONG_KEY, IN_USE, PERMISSION, USAGE, ESCROW, VOLUME_DAMAGED = 14, 10, 6, 16, 2, 20, 5
LONG = "n" * 255
SETTLED = 2.1  # seconds after which a ctime is relied on


def export(volume, path, check=True, cipher=None):
    done = run(
        turnkeyfs(), "escrow", "export", "--json", cipher or volume.cipher, path, check=check
    )
    return json.loads(done.stdout)["totals"] if done.returncode == 0 else done


def restore(volume, path, *options, cipher=None):
    """(exit code, totals, findings by kind, stderr)"""
    words = [turnkeyfs(), "escrow", "restore", "-c", volume.conf, "--json", *options]
    done = run(*words, cipher or volume.cipher, path, check=False)
    document = json.loads(done.stdout) if done.stdout else {"totals": {}, "findings": []}
    kinds = {}
    for finding in document["findings"]:
        kinds.setdefault(finding["kind"], set()).add(finding["path"])
    return done.returncode, document["totals"], kinds, done.stderr


def entries(path):
    return {os.fsdecode(entry.path): entry for entry in reader.Escrow(path).entries}


def fill(volume):
    for number in range(20):
        os.makedirs(volume.mnt / f"d{number % 3}/e{number % 5}", exist_ok=True)
        write_file(volume.mnt / f"d{number % 3}/e{number % 5}/f{number}", noise(5000, number))
    write_file(volume.mnt / "d0.x", b"sorts after what is in d0")
    write_file(volume.mnt / "empty", b"")
    os.mkdir(volume.mnt / "d1/bare")
    os.mkdir(volume.mnt / LONG)
    write_file(volume.mnt / LONG / LONG, b"long names have siblings")
    os.symlink("d0.x", volume.mnt / "link")


def snapshot(top):
    """{path: content} of a tree; for a directory, the names in it."""
    found = {}
    for directory, _, names in os.walk(top):
        found[os.path.relpath(directory, top)] = sorted(os.listdir(directory))
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                found[os.path.relpath(path, top)] = os.readlink(path)
            else:
                with open(path, "rb") as f:
                    found[os.path.relpath(path, top)] = f.read()
    return found


def backing(volume, relative):
    """The backing path of a file of the mount, relative to root."""
    return os.path.relpath(volume.below(relative), volume.cipher / "root")


def records_below(volume, cipher=None):
    """{backing path: record} of everything that has one."""
    root = (cipher or volume.cipher) / "root"
    found = {}
    for directory, _, names in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            try:
                record = os.getxattr(path, KEY_RECORD, follow_symlinks=False)
            except OSError:
                continue
            relative = os.path.relpath(path, root)
            found["" if relative == "." else relative] = record
    return found


def strip(path):
    """Take the record away from a file, in both places, or from a directory."""
    os.removexattr(path, KEY_RECORD)
    if os.path.isfile(path) and os.path.getsize(path):
        clear_copy(path)


@pytest.fixture
def filled(volume):
    fill(volume)
    os.sync()
    return volume


# --- what it holds -------------------------------------------------------------------------------


def test_it_holds_every_record_and_the_volume_file_and_no_secret(filled, work):
    export(filled, work / "escrow")
    held = entries(work / "escrow")
    assert {path: entry.record for path, entry in held.items()} == records_below(filled)
    assert all(e.directory == (filled.cipher / "root" / p).is_dir() for p, e in held.items())
    escrow = reader.Escrow(work / "escrow")
    assert escrow.volume_file == (filled.cipher / "turnkeyfs.volume").read_bytes()
    raw = (work / "escrow").read_bytes()
    assert b"no secret in the clear" in raw
    assert stat.S_IMODE((work / "escrow").stat().st_mode) == 0o600
    keys = list(reader.keys(filled.reader().keystore, filled.reader()))
    assert len(keys) > 20
    for name, key in keys:
        assert key not in raw, name
    filled.umount()


def test_it_is_the_same_from_the_mountpoint_and_unmounted(filled, work):
    done = run(turnkeyfs(), "escrow", "export", filled.mnt, work / "mounted")
    assert f"{sum(not e.directory for e in entries(work / 'mounted').values())} files" in done.stdout
    filled.umount()
    export(filled, work / "unmounted")
    assert entries(work / "mounted").keys() == entries(work / "unmounted").keys()


# --- how old it is -------------------------------------------------------------------------------


def doctor_says(volume):
    done = volume.command("doctor", volume.cipher)
    (line,) = [line for line in done.stdout.splitlines() if " escrow: " in line]
    return line


def age_of_escrow(volume):
    return volume.status(volume.cipher)["escrow"]


def test_status_and_doctor_know_how_old_the_last_one_is(filled, work):
    note = filled.cipher / "turnkeyfs.exported"
    assert age_of_escrow(filled) is None
    assert "none was exported" in run(turnkeyfs(), "status", filled.mnt).stdout
    assert doctor_says(filled).startswith("warn") and "escrow export" in doctor_says(filled)
    before = int(time.time())
    export(filled, work / "escrow")
    found = age_of_escrow(filled)
    assert not found["outdated"] and before <= found["exported"] <= time.time()
    assert found["exported"] == reader.Escrow(work / "escrow").created
    assert doctor_says(filled).startswith("ok")
    note.write_text(f"[escrow]\nexported = {before - 31 * 24 * 3600}\nkek = 1\n")
    assert doctor_says(filled).startswith("warn") and "31 days" in doctor_says(filled)
    export(filled, work / "escrow")
    filled.umount()
    run(turnkeyfs(), "rotate", "-c", filled.conf, filled.cipher)
    assert age_of_escrow(filled)["outdated"]
    assert "of no use" in run(turnkeyfs(), "status", filled.cipher).stdout
    assert doctor_says(filled).startswith("warn") and "rotation" in doctor_says(filled)
    export(filled, work / "escrow")
    assert not age_of_escrow(filled)["outdated"]


@pytest.mark.parametrize("what", ["text", "huge", "fifo", "symlink", "directory"])
def test_whatever_lies_in_the_place_of_the_note_does_no_harm(filled, work, what):
    note = filled.cipher / "turnkeyfs.exported"
    if what == "text":
        note.write_text("[escrow]\nexported = -1\nkek = 1\nmore = 2\n")
    elif what == "huge":
        note.write_text("[escrow]\n" + "exported = 1\n" * 10000)
    elif what == "fifo":
        os.mkfifo(note)
    elif what == "symlink":
        note.symlink_to("/dev/zero")
    else:
        note.mkdir()
    assert age_of_escrow(filled) is None
    assert doctor_says(filled).startswith("warn")
    words = (turnkeyfs(), "escrow", "export", filled.cipher, work / "escrow")
    done = run(*words)
    assert ("cannot note" in done.stderr) == (what == "directory")
    assert (age_of_escrow(filled) is None) == (what == "directory")


def test_without_root_the_note_is_the_owners(mine):
    export(mine, mine.directory / "escrow")
    note = mine.cipher / "turnkeyfs.exported"
    assert note.stat().st_uid == mine.cipher.stat().st_uid != 0
    assert stat.S_IMODE(note.stat().st_mode) == 0o600


# --- kept up to date -----------------------------------------------------------------------------


def test_only_what_changed_is_read_again(filled, work):
    time.sleep(SETTLED)
    first = export(filled, work / "escrow")
    assert first["unchanged"] == 0
    count = first["files"] + first["directories"]
    second = export(filled, work / "escrow")
    assert (second["unchanged"], second["gone"]) == (count, 0)

    d2 = backing(filled, "d2")
    os.unlink(filled.mnt / "d0.x")
    shutil.rmtree(filled.mnt / "d2")
    write_file(filled.mnt / "new", b"new")
    os.sync()
    gone = len([path for path in entries(work / "escrow") if path.startswith(d2)]) + 1
    third = export(filled, work / "escrow")
    assert third["gone"] == gone
    assert {path: e.record for path, e in entries(work / "escrow").items()} == records_below(filled)


def test_unchanged_records_are_not_read(filled, work):
    if not shutil.which("strace"):
        pytest.skip("no strace")
    time.sleep(SETTLED)
    export(filled, work / "escrow")
    trace = work / "trace"
    words = ["strace", "-f", "-e", "trace=getxattr,lgetxattr,fgetxattr", "-o", trace]
    run(*words, turnkeyfs(), "escrow", "export", filled.cipher, work / "escrow")
    read = [line for line in trace.read_text().splitlines() if KEY_RECORD in line]
    assert all("ENODATA" in line for line in read), read


def test_a_rotation_is_noticed(filled, work):
    time.sleep(SETTLED)
    export(filled, work / "escrow")
    run(turnkeyfs(), "rotate", "--wait", filled.mnt)
    totals = export(filled, work / "escrow")
    assert totals["retired"] == 0
    versions = {e.record[2:4] for e in entries(work / "escrow").values() if not e.directory}
    assert versions == {b"\0\2"}


def test_a_tree_that_lost_its_records_does_not_take_them_from_the_escrow(filled, work):
    export(filled, work / "escrow")
    before = entries(work / "escrow")
    filled.umount()
    for path in before:
        os.removexattr(filled.cipher / "root" / path, KEY_RECORD)
    totals = export(filled, work / "escrow")
    assert totals["carried"] == len(before)
    after = entries(work / "escrow")
    assert {p: e.record for p, e in after.items()} == {p: e.record for p, e in before.items()}


def test_what_cannot_be_read_stays_in_the_escrow(mine):
    script = "mkdir d1 d2; for f in d1/a d1/b d2/c e; do echo $f >$f; done; sync"
    run(*mine.prefix, "sh", "-ec", f"cd {mine.mnt}; {script}")
    path = mine.directory / "escrow"
    run(*mine.prefix, turnkeyfs(), "escrow", "export", mine.cipher, path)
    before = entries(path)
    os.chmod(mine.below("d1"), 0)
    done = run(*mine.prefix, turnkeyfs(), "escrow", "export", mine.cipher, path, check=False)
    assert done.returncode == PERMISSION
    assert entries(path).keys() == before.keys()
    os.chmod(mine.below("d1"), 0o755)


def test_export_while_files_come_and_go_and_are_rotated(filled, work):
    stop = threading.Event()

    def churn():
        number = 0
        while not stop.is_set():
            directory = filled.mnt / f"churn{number % 7}"
            os.makedirs(directory, exist_ok=True)
            write_file(directory / str(number), b"x")
            if number % 3 == 2:
                shutil.rmtree(filled.mnt / f"churn{(number - 2) % 7}")
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            run(turnkeyfs(), "rotate", "--wait", filled.mnt)
            for _ in range(4):
                export(filled, work / "escrow")
                reader.Escrow(work / "escrow")
    finally:
        stop.set()
        thread.join()
    os.sync()
    assert export(filled, work / "escrow")["retired"] == 0
    assert {path: e.record for path, e in entries(work / "escrow").items()} == records_below(filled)


@pytest.mark.parametrize("where", ["root/e", "root/d0/e", "journal/e"])
def test_it_is_not_written_into_the_tree(filled, where):
    done = export(filled, filled.cipher / where, check=False)
    assert done.returncode == USAGE
    assert not (filled.cipher / where).exists()


def test_it_is_not_written_into_the_mount(filled):
    assert export(filled, filled.mnt / "e", check=False).returncode == USAGE


def test_files_of_others_are_left_alone(filled, work, make_volume):
    (work / "letter").write_text("Dear Sir or Madam,")
    done = export(filled, work / "letter", check=False)
    assert (done.returncode, (work / "letter").read_text()) == (ESCROW, "Dear Sir or Madam,")
    other = make_volume("other", mount=False)
    export(other, work / "escrow")
    before = (work / "escrow").read_bytes()
    assert export(filled, work / "escrow", check=False).returncode == WRONG_KEY
    assert (work / "escrow").read_bytes() == before


def test_a_killed_export_leaves_the_escrow_of_before(filled, work):
    export(filled, work / "escrow")
    before = (work / "escrow").read_bytes()
    for delay in range(10):
        words = [turnkeyfs(), "escrow", "export", filled.cipher, work / "escrow"]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(delay / 1000)
        child.kill()
        child.wait()
        assert reader.Escrow(work / "escrow").entries
    assert len(before) > 0
    export(filled, work / "escrow")


# --- what it brings back -------------------------------------------------------------------------

COPIES = {
    "cp -r": "cp -r {old} {new}",
    "rsync -a": "rsync -a {old}/ {new}",
    "tar": "mkdir {new} && tar -C {old} -cf - . | tar -C {new} -xf -",
}
WHOLE_COPIES = {
    "cp -a": "cp -a {old} {new}",
    "rsync -aX": "rsync -aX {old}/ {new}",
    "tar --xattrs": "mkdir {new} && tar -C {old} --xattrs --xattrs-include='user.*' -cf - . "
    "| tar -C {new} --xattrs --xattrs-include='user.*' -xf -",
}


def copy_tree(volume, command, target):
    if command.split()[0] == "rsync" and not shutil.which("rsync"):
        pytest.skip("no rsync")
    words = command.format(old=volume.cipher, new=target)
    subprocess.run(["sh", "-ec", words], check=True)


def mount_copy(volume, target):
    """The same volume from another place."""
    volume.cipher = target
    volume.mount()


@pytest.mark.parametrize("tool", COPIES)
def test_a_copy_without_attributes_comes_back(filled, work, tool):
    before = snapshot(filled.mnt)
    export(filled, work / "escrow")
    records = records_below(filled)
    filled.umount()
    copy_tree(filled, COPIES[tool], work / "copy")
    assert records_below(filled, work / "copy") == {}
    code, totals, _, said = restore(filled, work / "escrow", cipher=work / "copy")
    assert code == 0, said
    assert totals["restored"] + totals["from_copy"] == len(records)
    assert records_below(filled, work / "copy") == records
    mount_copy(filled, work / "copy")
    assert snapshot(filled.mnt) == before
    filled.umount()
    filled.assert_verifies_clean()


@pytest.mark.parametrize("tool", WHOLE_COPIES)
def test_a_copy_with_attributes_needs_no_escrow(filled, work, tool):
    before = snapshot(filled.mnt)
    filled.umount()
    copy_tree(filled, WHOLE_COPIES[tool], work / "copy")
    mount_copy(filled, work / "copy")
    assert snapshot(filled.mnt) == before
    filled.umount()
    filled.assert_verifies_clean()


def test_files_that_lost_both_records_come_back(filled, work):
    before = snapshot(filled.mnt)
    export(filled, work / "escrow")
    filled.umount()
    stripped = [
        path
        for path, entry in entries(work / "escrow").items()
        if not entry.directory and os.path.getsize(filled.cipher / "root" / path)
    ]
    for path in stripped:
        strip(filled.cipher / "root" / path)
    done = filled.command("verify", filled.cipher, check=False)
    assert done.returncode == DAMAGED and "escrow restore" in done.stderr
    code, totals, kinds, _ = restore(filled, work / "escrow")
    assert (code, totals["restored"], kinds) == (0, len(stripped), {})
    filled.assert_verifies_clean()
    assert restore(filled, work / "escrow")[1]["restored"] == 0
    filled.mount()
    assert snapshot(filled.mnt) == before


def test_keys_that_the_root_key_wraps_come_back(make_volume, work):
    volume = make_volume(conf={"volume": {"dek_wrap": "kms"}})
    fill(volume)
    before = snapshot(volume.mnt)
    export(volume, work / "escrow")
    records = records_below(volume)
    volume.umount()
    strip(volume.below("d0/e0/f0"))
    copy_tree(volume, COPIES["cp -r"], work / "copy")
    code, totals, _, said = restore(volume, work / "escrow", cipher=work / "copy")
    assert code == 0, said
    assert totals["restored"] + totals["from_copy"] == len(records)
    assert records_below(volume, work / "copy") == records
    mount_copy(volume, work / "copy")
    assert snapshot(volume.mnt) == before


def test_restore_leaves_times_and_good_records_alone(filled, work):
    export(filled, work / "escrow")
    filled.umount()
    # The same DEK under another wrapping: good, and not the escrow's.
    run(turnkeyfs(), "rotate", "-c", filled.conf, filled.cipher)
    stripped = filled.below("d0/e0/f0")
    os.removexattr(stripped, KEY_RECORD)
    before = records_below(filled)
    times = {path: (filled.cipher / "root" / path).stat().st_mtime_ns for path in before}
    code, totals, _, _ = restore(filled, work / "escrow")
    assert (code, totals["from_copy"], totals["restored"]) == (0, 1, 0)
    after = records_below(filled)
    after.pop(backing(filled, "d0/e0/f0"))
    assert after == before
    assert times == {p: (filled.cipher / "root" / p).stat().st_mtime_ns for p in before}


def test_it_is_refused_while_mounted(filled, work):
    export(filled, work / "escrow")
    code, _, _, said = restore(filled, work / "escrow")
    assert code == IN_USE and str(filled.mnt) in said


def test_records_of_a_retired_version_are_refused_with_advice(filled, work):
    export(filled, work / "escrow")
    filled.umount()
    run(turnkeyfs(), "rotate", "-c", filled.conf, filled.cipher)
    name = backing(filled, "d0/e0/f0")
    strip(filled.cipher / "root" / name)
    code, totals, kinds, said = restore(filled, work / "escrow")
    assert (code, totals["retired"], kinds) == (DAMAGED, 1, {"retired": {name}})
    assert "KEK version 1" in said and "exported after" in said


def test_a_record_of_another_file_is_not_put_back(filled, work):
    export(filled, work / "escrow")
    filled.umount()
    names = [backing(filled, name) for name in ("d0/e0/f0", "d1/e1/f1")]
    first, second = (filled.cipher / "root" / name for name in names)
    strip(first)
    strip(second)
    os.rename(first, work / "swap")
    os.rename(second, first)
    os.rename(work / "swap", second)
    code, _, kinds, _ = restore(filled, work / "escrow")
    assert (code, kinds) == (DAMAGED, {"misfit": set(names)})
    assert KEY_RECORD not in os.listxattr(first)
    code, _, kinds, _ = restore(filled, work / "escrow", "--force")
    assert (code, kinds["misfit"]) == (DAMAGED, set(names))


def test_what_is_not_matched_is_said(filled, work):
    export(filled, work / "escrow")
    write_file(filled.mnt / "new", b"not in the escrow")
    gone = backing(filled, "d0.x")
    os.unlink(filled.mnt / "d0.x")
    filled.umount()
    new = backing(filled, "new")
    strip(filled.cipher / "root" / new)
    code, totals, kinds, _ = restore(filled, work / "escrow")
    assert (code, kinds) == (DAMAGED, {"missing": {new}, "unmatched": {gone}})
    assert totals["missing"] == totals["unmatched"] == 1


# --- directories ---------------------------------------------------------------------------------


@pytest.fixture
def encrypted(filled):
    if not filled.names_encrypted():
        pytest.skip("directories have records for their names only")
    return filled


def directories_of(path):
    return [path for path, entry in entries(path).items() if entry.directory]


def test_directories_come_back(encrypted, work):
    before = snapshot(encrypted.mnt)
    export(encrypted, work / "escrow")
    encrypted.umount()
    lost = directories_of(work / "escrow")
    for path in lost:
        os.removexattr(encrypted.cipher / "root" / path, KEY_RECORD)
    done = encrypted.command("verify", encrypted.cipher, check=False)
    assert done.returncode == DAMAGED and "escrow restore" in done.stderr
    code, totals, kinds, _ = restore(encrypted, work / "escrow")
    assert (code, totals["restored"], kinds) == (0, len(lost), {})
    encrypted.assert_verifies_clean()
    encrypted.mount()
    assert snapshot(encrypted.mnt) == before


def test_swapped_directory_records_are_put_right(encrypted, work):
    before = records_below(encrypted)
    export(encrypted, work / "escrow")
    encrypted.umount()
    first, second = encrypted.below("d0/e0"), encrypted.below("d1/e1")
    a, b = record_attribute(first), record_attribute(second)
    os.setxattr(first, KEY_RECORD, b)
    os.setxattr(second, KEY_RECORD, a)
    code, totals, _, _ = restore(encrypted, work / "escrow")
    assert (code, totals["restored"]) == (0, 2)
    assert records_below(encrypted) == before


def test_moved_directories_are_found_by_their_names(encrypted, work):
    export(encrypted, work / "escrow")
    os.rename(encrypted.mnt / "d0", encrypted.mnt / "d1/moved")
    os.rename(encrypted.mnt / "d1", encrypted.mnt / "e1")
    os.rename(encrypted.mnt / LONG, encrypted.mnt / "d2" / LONG)
    before = snapshot(encrypted.mnt)
    encrypted.umount()
    copy_tree(encrypted, COPIES["cp -r"], work / "copy")
    code, totals, kinds, said = restore(encrypted, work / "escrow", cipher=work / "copy")
    assert (code, set(kinds)) == (0, {"unmatched"}), said
    assert totals["restored"] > 8
    mount_copy(encrypted, work / "copy")
    assert snapshot(encrypted.mnt) == before


def test_a_directory_newer_than_the_escrow_is_said(encrypted, work):
    export(encrypted, work / "escrow")
    os.mkdir(encrypted.mnt / "new")
    write_file(encrypted.mnt / "new/file", b"x")
    encrypted.umount()
    new = backing(encrypted, "new")
    os.removexattr(encrypted.cipher / "root" / new, KEY_RECORD)
    code, totals, kinds, _ = restore(encrypted, work / "escrow")
    assert (code, kinds, totals["missing"]) == (DAMAGED, {"missing": {new}}, 1)


def test_a_directory_without_entries_needs_no_record(encrypted, work):
    export(encrypted, work / "escrow")
    os.mkdir(encrypted.mnt / "new")
    encrypted.umount()
    new = encrypted.below("new")
    os.removexattr(new, KEY_RECORD)
    assert restore(encrypted, work / "escrow")[0] == 0
    encrypted.mount()
    write_file(encrypted.mnt / "new/file", b"x")


# --- good records and --force ----------------------------------------------------------------------


def test_force_replaces_a_good_record(filled, work):
    export(filled, work / "escrow")
    filled.umount()
    name = filled.below("d0/e0/f0")
    escrowed = record_attribute(name)
    filled.mount()
    run(turnkeyfs(), "rotate", "--wait", filled.mnt)
    export(filled, work / "later")
    later = record_attribute(name)
    filled.umount()
    assert escrowed != later
    # Another good record of the same file: the one of the present version, wrapped anew.
    code, totals, _, _ = restore(filled, work / "later", "--force")
    assert (code, totals["restored"]) == (0, len(entries(work / "later")))
    filled.assert_verifies_clean()


def test_what_is_in_the_journal_finds_its_file_afterwards(volume, work):
    old, new = noise(10 * BLOCK, 1), noise(BLOCK, 2)
    write_file(volume.mnt / "f", old)
    volume.remount()
    export(volume, work / "escrow")
    below = volume.below("f")
    cell, page = peek(below, cell_at(3), 32), peek(below, page_at(3), BLOCK)
    with open(volume.mnt / "f", "r+b", buffering=0) as f:
        f.seek(3 * BLOCK)
        f.write(new)
        os.fsync(f.fileno())
    volume.kill()
    volume.close()
    # As if only the journal had reached the disk, and the records were lost as well.
    poke(below, cell_at(3), cell)
    poke(below, page_at(3), page)
    strip(below)
    code, totals, _, said = restore(volume, work / "escrow")
    assert (code, totals["restored"]) == (0, 1), said
    volume.mount()
    assert read_file(volume.mnt / "f") == old[: 3 * BLOCK] + new + old[4 * BLOCK :]


def test_without_root_closed_files_come_back_too(mine):
    script = "echo x >a; chmod 444 a; echo y >b; chmod 0 b; mkdir d; echo z >d/c; chmod 555 d; sync"
    run(*mine.prefix, "sh", "-ec", f"cd {mine.mnt}; {script}")
    path = mine.directory / "escrow"
    export = [*mine.prefix, turnkeyfs(), "escrow", "export", mine.cipher, path]
    assert run(*export, check=False).returncode == PERMISSION  # b can't be read
    run(turnkeyfs(), "escrow", "export", mine.cipher, path)
    os.chown(path, mine.cipher.stat().st_uid, -1)
    mine.umount()
    before = records_below(mine)
    modes = {name: (mine.cipher / "root" / name).stat().st_mode for name in before}
    for name in before:
        strip(mine.cipher / "root" / name)
    restore = [turnkeyfs(), "escrow", "restore", "-c", mine.conf, mine.cipher, path]
    run(*mine.prefix, *restore)
    assert records_below(mine) == before
    assert modes == {name: (mine.cipher / "root" / name).stat().st_mode for name in before}


# --- the volume file -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "empty", "bit"])
def test_the_volume_file_comes_back(filled, work, kind):
    before = snapshot(filled.mnt)
    filled.umount()
    export(filled, work / "escrow")
    path = filled.cipher / "turnkeyfs.volume"
    original = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        at = original.index(b"created")
        path.write_bytes(original[:at] + b"created = 1\n" + original[original.index(b"\n", at) + 1 :])
        assert filled.command("verify", filled.cipher, check=False).returncode == VOLUME_DAMAGED
    code, _, _, said = restore(filled, work / "escrow")
    assert code == 0, said
    assert path.read_bytes().split(b"[mounts]")[0] == original.split(b"[mounts]")[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if kind != "missing":
        assert (filled.cipher / "turnkeyfs.volume.damaged").exists()
    filled.mount()
    assert snapshot(filled.mnt) == before


def test_a_volume_file_that_is_put_back_counts_on_crashes_since(volume, work):
    """It can't name the mounts after the export: any of them may have crashed."""
    write_file(volume.mnt / "f", noise(10 * BLOCK))
    volume.umount()
    export(volume, work / "escrow")
    volume.mount()
    volume.remount()
    with open(volume.mnt / "new", "wb", buffering=0) as f:
        f.write(noise(3 * BLOCK, 1))
        os.fsync(f.fileno())
    below = volume.below("f")
    cell, page = peek(below, cell_at(3), 32), peek(below, page_at(3), BLOCK)
    with open(volume.mnt / "f", "r+b", buffering=0) as f:
        f.seek(3 * BLOCK)
        f.write(noise(BLOCK, 2))
        os.fsync(f.fileno())
    volume.kill()
    volume.close()
    poke(below, cell_at(3), cell)
    poke(below, page_at(3), page)
    (volume.cipher / "turnkeyfs.volume").unlink()
    code, _, _, said = restore(volume, work / "escrow")
    assert code == 0, said
    volume.mount()
    assert read_file(volume.mnt / "new") == noise(3 * BLOCK, 1)
    assert read_file(volume.mnt / "f")[3 * BLOCK : 4 * BLOCK] == noise(BLOCK, 2)
    volume.umount()
    volume.assert_verifies_clean()


def test_a_tree_newer_than_the_volume_file_keeps_its_records(filled, work):
    filled.umount()
    export(filled, work / "escrow")
    run(turnkeyfs(), "rotate", "-c", filled.conf, filled.cipher)
    before = records_below(filled)
    (filled.cipher / "turnkeyfs.volume").unlink()
    code, totals, kinds, said = restore(filled, work / "escrow")
    assert code == DAMAGED and "older than the tree" in said
    assert totals["newer"] == len(kinds["newer"]) > 20
    assert records_below(filled) == before


def test_the_escrow_of_another_volume_is_refused(filled, work, make_volume):
    other = make_volume("other", mount=False)
    export(other, work / "escrow")
    filled.umount()
    before = records_below(filled)
    assert restore(filled, work / "escrow")[0] == WRONG_KEY
    assert records_below(filled) == before


def test_no_directory_becomes_a_volume(filled, work):
    export(filled, work / "escrow")
    (work / "plain").mkdir()
    assert restore(filled, work / "escrow", cipher=work / "plain")[0] != 0
    assert os.listdir(work / "plain") in ([], ["turnkeyfs.lock"])


# --- damage --------------------------------------------------------------------------------------


def test_damage_of_the_escrow_is_found_before_anything_is_done(filled, work):
    export(filled, work / "escrow")
    filled.umount()
    for path in entries(work / "escrow"):
        os.removexattr(filled.cipher / "root" / path, KEY_RECORD)
    length = (work / "escrow").stat().st_size
    damaged = work / "damaged"
    for at in [*range(0, 200), *range(200, length, 61), length - 1]:
        shutil.copyfile(work / "escrow", damaged)
        flip(damaged, at, at % 8)
        with pytest.raises(reader.EscrowDamaged):
            reader.Escrow(damaged)
        if at % 10 == 0 or at > length - 100:
            assert restore(filled, damaged)[0] in (ESCROW, 18), at
    for short in (0, 1, 40, length // 2, length - 33, length - 32, length - 1):
        poke(damaged, 0, peek(work / "escrow", 0, length))
        os.truncate(damaged, short)
        assert restore(filled, damaged)[0] == ESCROW, short
    with open(damaged, "wb") as f:
        f.write((work / "escrow").read_bytes() + b"\0")
    assert restore(filled, damaged)[0] == ESCROW
    assert records_below(filled) == {}
    assert export(filled, damaged, check=False).returncode == ESCROW
    assert restore(filled, work / "absent")[0] == ESCROW
