# SPDX-License-Identifier: Apache-2.0
"""A second reader of TurnkeyFS volumes, written from docs/format.md alone.

It shares no code with the filesystem: if both read the same bytes, the document
is right. It only reads. Damage is never passed over: each kind has an exception
of its own, whose text names the file and the place. A check or an extraction goes
on behind what can't be read, and says it all at the end.

As a program:

    turnkeyfs_reader.py --keystore K CIPHERDIR --extract DIR    decrypt the tree
    turnkeyfs_reader.py --keystore K CIPHERDIR --cat PATH       one file to stdout
    turnkeyfs_reader.py --keystore K CIPHERDIR --keys           all keys, in hexadecimal
    turnkeyfs_reader.py --keystore K CIPHERDIR                  check everything
    turnkeyfs_reader.py --escrow FILE                           list an escrow, without keys
"""

import argparse
import base64
import binascii
import errno
import hashlib
import hmac
import os
import stat
import sys
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

BLOCK = 4096
GROUP_BLOCKS = 124
GROUP_SIZE = GROUP_BLOCKS * BLOCK  # plaintext bytes of a group
GROUP_STRIDE = GROUP_SIZE + BLOCK  # the same in the backing file, with its tag page
CELL = 32
HEADER = 4 * CELL
RECORD_LEN = 64
RECORD_ATTR = "user.turnkey"
ATTR_PREFIX = "user.turnkey."
SHORT_NAME_MAX = 175  # bytes of a name whose ciphertext fits into a backing name
NAME_MAX = 255
HASHED_LEN = 44  # "@" and the hash of a longer one


class ReaderError(Exception):
    """The base of everything that is raised here on purpose."""


class NotSupported(ReaderError):
    """A format, provider or option that this reader does not know."""


class KeystoreDamaged(ReaderError):
    """The keystore does not parse, or its checksum is wrong."""


class WrongPassphrase(ReaderError):
    """The keystore needs a passphrase, and not this one."""


class VolumeDamaged(ReaderError):
    """The volume file does not parse, or its MAC is wrong."""


class WrongKeystore(ReaderError):
    """The keystore does not hold the root key of this volume."""


class RecordDamaged(ReaderError):
    """No key record of the file can be used."""


class EscrowDamaged(ReaderError):
    """The escrow does not parse, or its checksum is wrong."""


class NameDamaged(ReaderError):
    """A name does not authenticate, or its sibling is missing."""


class SealBroken(ReaderError):
    """The file is shorter than its seal, or the seal is gone."""


class BlockDamaged(ReaderError):
    """A block does not authenticate."""

    def __init__(self, path, index, why):
        super().__init__(f"{path}: block {index} (offset {index * BLOCK}): {why}")
        self.path = path
        self.index = index


class TargetDamaged(ReaderError):
    """A symlink's target does not authenticate."""


class AttributeDamaged(ReaderError):
    """The name or the value of an attribute does not authenticate."""

    def __init__(self, path, attribute):
        super().__init__(f"{path}: {attribute} does not authenticate")
        self.path = path
        self.attribute = attribute


# --- small tools ---------------------------------------------------------------------------------


def base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def unbase64url(text):
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as e:
        raise ValueError(f"not base64url: {e}") from e
    if base64url(raw) != text:
        raise ValueError("not the one base64url of its bytes")
    return raw


def expand(key, label, context=b"", length=32):
    return HKDFExpand(algorithm=hashes.SHA256(), length=length, info=label + context).derive(key)


def unseal(key, sealed, aad):
    """A sealed value: IV 12 | ciphertext | tag 16. InvalidTag if it is not authentic."""
    if len(sealed) < 28:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], aad)


def hpke_open(private, sealed, info, aad):
    """RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"

    def extract(part, salt, label, ikm=b""):
        return hmac.new(salt, b"HPKE-v1" + part + label + ikm, hashlib.sha256).digest()

    def derive(part, prk, label, context, length):
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + part + label
        return expand(prk, labeled, context, length)

    key = X25519PrivateKey.from_private_bytes(private)
    own = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = key.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
    prk = extract(kem, b"", b"eae_prk", shared)
    secret = derive(kem, prk, b"shared_secret", sealed[:32] + own, 32)
    context = bytes(1) + extract(suite, b"", b"psk_id_hash") + extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret, b"secret")
    aead = AESGCM(derive(suite, prk, b"key", context, 32))
    return aead.decrypt(derive(suite, prk, b"base_nonce", context, 12), sealed[32:], aad)


def parse_ini(text):
    """{section: {name: [lines of the value]}}; ValueError for anything but plain INI."""
    sections = {}
    section = name = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        if line[0] in " \t":
            if name is None:
                raise ValueError(f"line {number}: continues nothing")
            sections[section][name].append(line.strip())
        elif line[0] == "[" and line.rstrip()[-1] == "]":
            section, name = line.strip()[1:-1], None
            if section in sections:
                raise ValueError(f"line {number}: section [{section}] again")
            sections[section] = {}
        elif "=" in line and section is not None:
            name, value = (part.strip() for part in line.split("=", 1))
            if name in sections[section]:
                raise ValueError(f"line {number}: {name} again")
            sections[section][name] = [value]
        else:
            raise ValueError(f"line {number}: neither a section nor a value")
    return sections


def split_at(raw, marker):
    """The bytes before the line @marker."""
    at = raw.find(b"\n" + marker + b"\n")
    if at < 0:
        raise ValueError(f"no line {marker.decode()}")
    return raw[: at + 1]


# --- keystore ------------------------------------------------------------------------------------


class Keystore:
    """The root key versions of the `local` provider."""

    provider = "local"

    def __init__(self, key_id, versions):
        self.id = key_id
        self.versions = versions  # {number: 32 bytes}

    @classmethod
    def open(cls, path, passphrase=None):
        with open(path, "rb") as f:
            raw = f.read()
        try:
            return cls._parse(raw, passphrase)
        except (ValueError, KeyError, UnicodeDecodeError) as e:
            raise KeystoreDamaged(f"{path}: {e!r}") from e
        except WrongPassphrase as e:
            raise WrongPassphrase(f"{path}: {e}") from e

    @classmethod
    def _parse(cls, raw, passphrase):
        ini = parse_ini(raw.decode("ascii"))
        head = {name: "".join(lines) for name, lines in ini["keystore"].items()}
        if head["format"] != "1":
            raise NotSupported(f"keystore format {head['format']}")
        digest = hashlib.sha256(split_at(raw, b"[checksum]")).hexdigest()
        if digest != "".join(ini["checksum"]["sha256"]):
            raise ValueError("the checksum is wrong")
        key_id = bytes.fromhex(head["id"])
        protection = cls._protection_key(head, passphrase)
        versions = {}
        for section, values in ini.items():
            if section.startswith("version "):
                number = int(section.split()[1])
                versions[number] = cls._root_key(values, number, key_id, protection)
        return cls(key_id, versions)

    @staticmethod
    def _protection_key(head, passphrase):
        if head["protection"] == "none":
            return None
        if head["protection"] != "passphrase":
            raise NotSupported(f"keystore protection {head['protection']}")
        if passphrase is None:
            raise WrongPassphrase("the keystore needs a passphrase")
        kdf = Scrypt(
            salt=unbase64url(head["salt"]),
            length=32,
            n=int(head["scrypt_n"]),
            r=int(head["scrypt_r"]),
            p=int(head["scrypt_p"]),
        )
        return kdf.derive(passphrase)

    @staticmethod
    def _root_key(values, number, key_id, protection):
        key = unbase64url("".join(values["key"]))
        if protection is not None:
            aad = b"turnkeyfs keystore" + key_id + number.to_bytes(4, "big")
            try:
                key = unseal(protection, key, aad)
            except InvalidTag as e:
                raise WrongPassphrase("the passphrase is wrong") from e
        if len(key) != 32:
            raise ValueError(f"version {number}: {len(key)} bytes of key")
        return key

    def unwrap(self, wrap, blob=None):
        """The key inside one [wrap n.p] section, or inside @blob, wrapped alike."""
        if wrap["key"] != self.id.hex():
            raise WrongKeystore(f"the volume wants keystore {wrap['key']}, this is {self.id.hex()}")
        version = int(wrap["version"])
        if version not in self.versions:
            raise WrongKeystore(f"the keystore has no version {version}")
        if wrap["algorithm"] != "A256GCM":
            raise NotSupported(f"wrap algorithm {wrap['algorithm']}")
        aad = b"turnkeyfs local wrap" + self.id + version.to_bytes(4, "big")
        try:
            return unseal(self.versions[version], blob or unbase64url(wrap["blob"]), aad)
        except InvalidTag as e:
            raise WrongKeystore(f"version {version} does not unwrap the KEK") from e


# --- journal -------------------------------------------------------------------------------------

JOURNAL_MAGIC = b"TKJRNL01"
JOURNAL_HEAD = 128
JOURNAL_FILE = 64
JOURNAL_ENTRY = 48
JOURNAL_BLOCK, JOURNAL_HOLE, JOURNAL_SIZE, JOURNAL_MTIME, JOURNAL_SEAL = range(1, 6)
JOURNAL_GROW = 2


@dataclass
class Entry:
    """One entry of the journal, with its page if it is a block."""

    type: int
    flags: int
    file: int
    at: int
    cell: bytes
    page: bytes


@dataclass
class Batch:
    """One batch that holds."""

    chain: bytes
    sequence: int
    mount: int
    pages: int
    proofs: list
    entries: list


def parse_batch(area, at, mac_key):
    """The batch at byte @at of an area; None if there is none that holds."""
    head = area[at : at + JOURNAL_HEAD]
    if len(head) < JOURNAL_HEAD or head[:8] != JOURNAL_MAGIC:
        return None
    pages, length = int.from_bytes(head[24:28], "big"), int.from_bytes(head[28:32], "big")
    descriptor = area[at : at + length]
    if length % BLOCK or length < BLOCK or at + pages * BLOCK > len(area):
        return None
    signed = descriptor[:96] + bytes(32) + descriptor[128:]
    if not hmac.compare_digest(hmac.new(mac_key, signed, hashlib.sha256).digest(), head[96:128]):
        return None
    proofs, entries, offset, page = [], [], JOURNAL_HEAD, at + length
    for _ in range(int.from_bytes(head[34:36], "big")):
        proofs.append(descriptor[offset : offset + 16])
        offset += JOURNAL_FILE + int.from_bytes(descriptor[offset + 30 : offset + 32], "big")
    for _ in range(int.from_bytes(head[36:38], "big")):
        raw = descriptor[offset : offset + JOURNAL_ENTRY]
        offset += JOURNAL_ENTRY
        entry = Entry(
            raw[0],
            raw[1],
            int.from_bytes(raw[2:4], "big"),
            int.from_bytes(raw[8:16], "big"),
            raw[16:48],
            b"",
        )
        if entry.type == JOURNAL_BLOCK:
            covered = int.from_bytes(entry.cell[28:30], "big")
            entry.page = area[page : page + covered]
            page += BLOCK
            if binascii.crc32(entry.page) != int.from_bytes(raw[4:8], "big"):
                return None
        entries.append(entry)
    return Batch(
        head[8:16],
        int.from_bytes(head[16:24], "big"),
        int.from_bytes(head[32:34], "big"),
        pages,
        proofs,
        entries,
    )


def read_area(area, mac_key, counts):
    """The batches of an area that count, in order."""
    batches, at = [], 0
    while (batch := parse_batch(area, at, mac_key)) is not None:
        if not counts(batch):
            break
        if batches and (batch.chain, batch.sequence) != (
            batches[-1].chain,
            batches[-1].sequence + 1,
        ):
            break
        batches.append(batch)
        at += batch.pages * BLOCK
    return batches


def read_if_there(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return b""


def read_journal(directory, mac_key, counting, kept):
    """{proof of a file: [its entries]} of everything that a mount would replay, or has kept."""
    older = []
    if kept:
        older = read_area(
            read_if_there(os.path.join(directory, f"kept-{kept.hex()}")),
            mac_key,
            lambda batch: batch.chain == kept,
        )
    raw = read_if_there(os.path.join(directory, "journal"))
    half = len(raw) // 2 // BLOCK * BLOCK
    areas = [
        read_area(raw[start : start + half], mac_key, lambda batch: batch.mount in counting)
        for start in (0, half)
    ]
    areas.sort(key=lambda found: (found[0].sequence, found[-1].sequence) if found else (0, 0))
    found = {}
    for batch in older + areas[0] + areas[1]:
        for entry in batch.entries:
            found.setdefault(batch.proofs[entry.file], []).append(entry)
    return found


# --- volume --------------------------------------------------------------------------------------


class Volume:
    """An unlocked volume."""

    def __init__(self, path, keystore):
        self.path = os.fspath(path)
        self.root = os.path.join(self.path, "root")
        volume_file = os.path.join(self.path, "turnkeyfs.volume")
        with open(volume_file, "rb") as f:
            raw = f.read()
        try:
            self._parse(raw)
            self._unlock(raw, keystore)
        except (ValueError, KeyError, UnicodeDecodeError, InvalidTag) as e:
            raise VolumeDamaged(f"{volume_file}: {e!r}") from e

    def _parse(self, raw):
        ini = parse_ini(raw.decode("ascii"))
        head = {name: "".join(lines) for name, lines in ini["turnkeyfs"].items()}
        if head["format"] not in ("1", "2"):
            raise NotSupported(f"volume format {head['format']}")
        self.shared = head["format"] == "2"  # several protectors, each with an envelope
        self.committed = bytes.fromhex(head["fingerprint"]) if self.shared else b""
        self.id = bytes.fromhex(head["volume"])
        if len(self.id) != 16:
            raise ValueError("the volume id is not 16 bytes")
        self.options = {name: "".join(lines) for name, lines in ini["options"].items()}
        if self.options["dek_wrap"] not in ("kek", "kms"):
            raise NotSupported(f"options {self.options}")
        if self.options["names"] not in ("encrypted", "plain"):
            raise NotSupported(f"options {self.options}")
        self.names_encrypted = self.options["names"] == "encrypted"
        self.by_kms = self.options["dek_wrap"] == "kms"
        self.shift = BLOCK if self.by_kms else 0  # a page before group 0 holds the longer record
        self.mounts_last = int("".join(ini["mounts"]["last"]))
        self.mounts_replayed = int("".join(ini["mounts"]["replayed"]))
        self.mounts_unclean = [int(n) for n in " ".join(ini["mounts"]["unclean"]).split()]
        self.kept = bytes.fromhex("".join(ini["mounts"].get("kept", [])))
        self._keks = self._sections(ini, "kek ")
        self._wraps = self._sections(ini, "wrap ")
        self._mac = bytes.fromhex("".join(ini["mac"]["hmac_sha256"]))

    @staticmethod
    def _sections(ini, prefix):
        return {
            section[len(prefix) :]: {name: "".join(lines) for name, lines in values.items()}
            for section, values in ini.items()
            if section.startswith(prefix)
        }

    def _unlock(self, raw, keystore):
        self.keystore = keystore
        self.keks = {}
        for number, kek in self._keks.items():
            if kek["state"] == "active":
                self.keks[int(number)] = self._unwrap(number, keystore)
        if not self.keks:
            raise ValueError("no active KEK")
        if self.by_kms:
            keys = set(self.keks.values())  # the wraps hold the volume key itself
        else:
            keys = {self._unseal_volume_key(number) for number in self.keks}
        if len(keys) != 1:
            raise ValueError("the KEK versions hold different volume keys")
        self.key = keys.pop()
        self.mac_key = expand(self.key, b"turnkeyfs volume file")
        self.record_mac_key = expand(self.key, b"turnkeyfs record MAC")
        self.target_key = expand(self.key, b"turnkeyfs symlink target")
        self.fingerprint = expand(self.key, b"turnkeyfs fingerprint").hex()
        if self.shared and self.fingerprint != self.committed.hex():
            raise ValueError("the protectors are for another volume key")
        mac = hmac.new(self.mac_key, split_at(raw, b"[mac]"), hashlib.sha256).digest()
        if not hmac.compare_digest(mac, self._mac):
            raise ValueError("the MAC is wrong")
        self.journal = read_journal(
            os.path.join(self.path, "journal"),
            expand(self.key, b"turnkeyfs journal"),
            self._mounts_to_replay(),
            self.kept,
        )

    def _mounts_to_replay(self):
        """Numbers of the mounts whose journal counts; behind 65535 they begin again at 1."""

        def behind(number):
            return (number - self.mounts_replayed) % 65535

        newest = behind(self.mounts_last)
        return [n for n in self.mounts_unclean if 0 < behind(n) <= newest]

    def _unwrap(self, number, keystore, blob=None):
        """What a wrap of KEK version @number holds; @blob: another blob under the same root key."""
        failure = None
        for name, wrap in self._wraps.items():
            if name.split(".")[0] != number:
                continue
            if wrap["provider"] != keystore.provider:
                failure = NotSupported(f"provider {wrap['provider']}")
                continue
            try:
                key = keystore.unwrap(wrap, blob)
            except WrongKeystore as e:
                failure = e
                continue
            return self._open_envelope(name, wrap, key) if "sealed" in wrap else key
        raise failure or ValueError(f"KEK {number} has no wrap")

    def _open_envelope(self, name, wrap, secret):
        """The KEK of [wrap n.p], by the secret that the root key wrapped."""
        if not self.shared:
            raise ValueError(f"wrap {name}: an envelope in format 1")
        number, protector = (int(part).to_bytes(2, "big") for part in name.split("."))
        private = expand(secret, b"turnkeyfs protector", self.id + self.committed)
        own = X25519PrivateKey.from_private_bytes(private).public_key()
        if own.public_bytes(Encoding.Raw, PublicFormat.Raw) != unbase64url(wrap["public"]):
            raise ValueError(f"wrap {name}: the public half is another one")
        aad = self.id + number + protector
        return hpke_open(private, unbase64url(wrap["sealed"]), b"turnkeyfs sealed KEK", aad)

    def _unseal_volume_key(self, number):
        aad = b"turnkeyfs volume key" + self.id + number.to_bytes(2, "big")
        return unseal(self.keks[number], unbase64url(self._keks[str(number)]["volume_key"]), aad)

    def unwrap_record(self, record):
        """The DEK of a key record; RecordDamaged says why there is none."""
        if record is None:
            raise RecordDamaged("missing")
        if self.by_kms:
            return self._unwrap_long_record(record)
        if len(record) != RECORD_LEN:
            raise RecordDamaged(f"{len(record)} bytes")
        if record[0] != 1 or record[1] != 0:
            raise RecordDamaged(f"record version {record[0]}, flags {record[1]}")
        version = int.from_bytes(record[2:4], "big")
        if version not in self.keks:
            raise RecordDamaged(f"KEK version {version} is not live")
        aad = b"turnkeyfs key record" + self.id + record[:4]
        try:
            return unseal(self.keks[version], record[4:], aad)
        except InvalidTag:
            raise RecordDamaged("does not authenticate") from None

    def _unwrap_long_record(self, record):
        if len(record) < 6 or record[0] != 2 or record[1] != 0:
            raise RecordDamaged(f"{len(record)} bytes beginning {record[:2].hex()}")
        version = int.from_bytes(record[2:4], "big")
        end = 6 + int.from_bytes(record[4:6], "big")
        mac = hmac.new(self.record_mac_key, self.id + record[:end], hashlib.sha256).digest()
        if len(record) != end + 32 or not hmac.compare_digest(mac, record[end:]):
            raise RecordDamaged("does not authenticate")
        if version not in self.keks:
            raise RecordDamaged(f"KEK version {version} is not live")
        return self._unwrap(str(version), self.keystore, record[6:end])

    # --- names ---

    def directory(self, path):
        """The directory at the backing path @path, for its names."""
        return Directory(self, path)

    def backing_path(self, relative):
        """Where the plaintext path @relative lies; its last name need not exist."""
        path = self.root
        for name in filter(None, os.fsdecode(relative).split("/")):
            path = os.path.join(path, self.directory(path).encode(name))
        return path

    def open(self, relative):
        """The file at the plaintext path @relative."""
        return File(self, self.backing_path(relative))

    def walk_backing(self, failures=None):
        """(plaintext path, backing path, lstat) of everything, directories before their content.

        Names that can't be read are left out and added to @failures; without it, they are raised.
        """
        pending = [("", self.root)]
        while pending:
            relative, path = pending.pop()
            for name, backing in sorted(self.directory(path).entries(failures)):
                child = os.path.join(relative, name), os.path.join(path, backing)
                st = os.lstat(child[1])
                if stat.S_ISDIR(st.st_mode):
                    pending.append(child)
                yield *child, st

    def target(self, path):
        """Where the symlink at the backing path @path leads: bytes."""
        stored = os.readlink(os.fsencode(path))
        if not self.names_encrypted:
            return stored
        try:
            return unseal(self.target_key, unbase64url(stored.decode("ascii")), b"")
        except (InvalidTag, ValueError):
            raise TargetDamaged(f"{path}: the target does not authenticate") from None

    def attributes(self, path):
        """{name: value} of the user namespace, for the file or directory at the backing path."""
        names = [
            name
            for name in os.listxattr(path, follow_symlinks=False)
            if name.startswith("user.") and name != RECORD_ATTR
        ]
        if not self.names_encrypted:
            return {os.fsencode(name): os.getxattr(path, name) for name in names}
        names = [name for name in names if name.startswith(ATTR_PREFIX)]
        if not names:
            return {}
        dek = self._dek_of(path)
        name_key = AESSIV(expand(dek, b"turnkeyfs attribute name", length=64))
        value_key = expand(dek, b"turnkeyfs attribute value")
        return dict(self._attribute(path, name, name_key, value_key) for name in names)

    def _dek_of(self, path):
        if os.path.isdir(path):
            return self.unwrap_record(os.getxattr(path, RECORD_ATTR))
        with File(self, path) as f:
            return f.dek

    @staticmethod
    def _attribute(path, stored, name_key, value_key):
        """(name, value) of one encrypted attribute."""
        shown = stored
        try:
            own = name_key.decrypt(unbase64url(stored.removeprefix(ATTR_PREFIX)), None)
            shown = "user." + os.fsdecode(own)
            return b"user." + own, unseal(value_key, os.getxattr(path, stored), own)
        except (InvalidTag, ValueError):
            raise AttributeDamaged(path, shown) from None

    def walk(self):
        """(plaintext path, lstat) of everything, directories before their content."""
        for relative, _, st in self.walk_backing():
            yield relative, st


# --- directories ---------------------------------------------------------------------------------


def is_sibling(directory, backing):
    """Whether this is not an entry, but keeps a long one's name."""
    if not backing.startswith("@") or len(backing) != HASHED_LEN + 5:
        return False
    return backing.endswith(".name") and os.path.islink(os.path.join(directory, backing))


def is_hashed(backing):
    return backing.startswith("@") and len(backing) == HASHED_LEN


class Directory:
    """A directory below, and the key of its names."""

    def __init__(self, volume, path):
        self.volume = volume
        self.path = path
        self.dek = None

    def name_key(self):
        """The key of its names; RecordDamaged if it can't be had."""
        if self.dek is None:
            try:
                record = os.getxattr(self.path, RECORD_ATTR, follow_symlinks=False)
            except OSError as e:
                if e.errno != errno.ENODATA:
                    raise
                record = None
            try:
                self.dek = self.volume.unwrap_record(record)
            except RecordDamaged as e:
                raise RecordDamaged(f"{self.path}: key record: {e}") from None
        return expand(self.dek, b"turnkeyfs names", length=64)

    def encode(self, name):
        """The backing name of the plaintext name @name."""
        if not self.volume.names_encrypted:
            return name
        raw = os.fsencode(name)
        cipher = AESSIV(self.name_key()).encrypt(raw, None)
        if len(raw) <= SHORT_NAME_MAX:
            return base64url(cipher)
        return "@" + base64url(hashlib.sha256(cipher).digest())

    def decode(self, backing):
        """The plaintext name of the entry @backing."""
        if not self.volume.names_encrypted:
            return backing
        where = os.path.join(self.path, backing)
        try:
            text = os.readlink(where + ".name") if is_hashed(backing) else backing
            raw = AESSIV(self.name_key()).decrypt(unbase64url(text), None)
        except FileNotFoundError:
            raise NameDamaged(f"{where}: its sibling is missing") from None
        except OSError as e:
            raise NameDamaged(f"{where}: its sibling is none ({e.strerror})") from None
        except (InvalidTag, ValueError) as e:
            raise NameDamaged(f"{where}: the name does not authenticate ({e!r})") from None
        name = os.fsdecode(raw)
        # A name has one place only: anything else was put there by somebody.
        if raw in (b"", b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > NAME_MAX:
            raise NameDamaged(f"{where}: what it says is no name")
        if self.encode(name) != backing:
            raise NameDamaged(f"{where}: not the backing name of what it says")
        return name

    def entries(self, failures=None):
        """(plaintext name, backing name) of every entry, in no order; @failures as for walk_backing."""
        for backing in os.listdir(self.path):
            if self.volume.names_encrypted and is_sibling(self.path, backing):
                continue
            try:
                name = self.decode(backing)
            except (NameDamaged, RecordDamaged) as e:
                if failures is None:
                    raise
                failures.append(e)
                if isinstance(e, RecordDamaged):
                    return  # none of them can be read
                continue
            yield name, backing


# --- files ---------------------------------------------------------------------------------------


def plain_size(backing, shift=0):
    groups, rest = divmod(max(backing - shift, 0), GROUP_STRIDE)
    return groups * GROUP_SIZE + max(rest - BLOCK, 0)


def backing_size(plain, shift=0):
    return plain + BLOCK * -(-plain // GROUP_SIZE) + (shift if plain else 0)


@dataclass
class Cell:
    """One block's cell."""

    iv: bytes
    tag: bytes
    length: int
    mount: int

    @classmethod
    def parse(cls, raw):
        return cls(
            raw[:12],
            raw[12:28],
            int.from_bytes(raw[28:30], "big"),
            int.from_bytes(raw[30:32], "big"),
        )


class File:
    """A regular file, opened: its DEK is known, its blocks are read on demand."""

    def __init__(self, volume, path):
        self.volume = volume
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._group_keys = {}
        self._tag_page = (None, b"")
        try:
            self.backing_size = os.fstat(self.fd).st_size
            self.size = plain_size(self.backing_size, volume.shift)
            self.sealed = 0
            self._patches = {}  # {block: (cell, page)} of the journal
            self._cut = None  # the first block that a cut in the journal took away below
            self.records = self._read_records()
            self._slots = self._read_slots()
            self.dek = self._choose_dek()
            self._replay()
            self.sealed = self._check_seal()
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read_records(self):
        """{"attribute": bytes or None, "copy": bytes or None}"""
        try:
            attribute = os.getxattr(self.fd, RECORD_ATTR)
        except OSError as e:
            if e.errno != errno.ENODATA:
                raise
            attribute = None
        copy = os.pread(self.fd, RECORD_LEN, 0)
        if self.volume.by_kms and copy:
            page = os.pread(self.fd, BLOCK, 0)
            copy = page[: 6 + int.from_bytes(page[4:6], "big") + 32]
        return {"attribute": attribute, "copy": copy if copy.strip(b"\0") else None}

    def _group_at(self, group):
        return self.volume.shift + group * GROUP_STRIDE

    def deks(self):
        """Every DEK that a record of the file holds, the attribute's first."""
        found = []
        for record in self.records.values():
            try:
                dek = self.volume.unwrap_record(record)
            except RecordDamaged:
                continue
            if dek not in found:
                found.append(dek)
        return found

    def _choose_dek(self):
        deks = self.deks()
        if len(deks) > 1:
            sealed = [dek for dek in deks if any(self._seals(dek))]
            deks = sealed or [dek for dek in deks if self._opens_a_block(dek)] or deks
        if deks:
            return deks[0]
        if self.size == 0:
            return None
        raise RecordDamaged(f"{self.path}: neither the attribute nor the copy can be used")

    def _read_slots(self):
        raw = os.pread(self.fd, 64, self._group_at(0) + 64)
        return [raw[:32], raw[32:]]

    def _seals(self, dek):
        """(sequence, length, mount, is a close) of each slot that authenticates under @dek."""
        key = expand(dek, b"turnkeyfs seal")
        for raw in self._slots:
            mac = hmac.new(key, raw[:16], hashlib.sha256).digest()[:16]
            if len(raw) == 32 and hmac.compare_digest(mac, raw[16:]):
                yield (
                    int.from_bytes(raw[12:14], "big"),
                    int.from_bytes(raw[:8], "big"),
                    int.from_bytes(raw[8:12], "big"),
                    raw[14:16] == b"\0\1",
                )

    def _check_seal(self):
        """Bytes that the seal covers."""
        if self.size == 0 or self.dek is None:
            return 0
        unclean = self.volume.mounts_unclean
        seals = list(self._seals(self.dek))
        if not seals:
            for index in range(GROUP_BLOCKS):
                cell = self._cell(index)
                if cell.strip(b"\0") and Cell.parse(cell).mount not in unclean:
                    raise SealBroken(f"{self.path}: the seal is gone")
        binding = None
        for seal in seals:
            if seal[3] and seal[2] in unclean:
                continue
            if binding is None or 0 < (seal[0] - binding[0]) % 65536 < 32768:
                binding = seal
        if binding is None:
            return 0
        if binding[1] > self.size:
            raise SealBroken(f"{self.path}: sealed to {binding[1]} bytes, has {self.size}")
        return binding[1]

    def _replay(self):
        """Lay the journal's entries over the file, in memory."""
        proof = self.dek and expand(self.dek, b"turnkeyfs journal file", length=16)
        for entry in self.volume.journal.get(proof, []):
            if entry.type in (JOURNAL_BLOCK, JOURNAL_HOLE):
                self._patches[entry.at] = (entry.cell, entry.page)
            if entry.type == JOURNAL_SEAL:
                self._slots[entry.at] = entry.cell
            if entry.type == JOURNAL_BLOCK:
                self.size = max(self.size, entry.at * BLOCK + len(entry.page))
            elif entry.type == JOURNAL_SIZE and entry.flags & JOURNAL_GROW:
                self.size = max(self.size, entry.at)
            elif entry.type == JOURNAL_SIZE:
                self.size = entry.at
                end = -(-self.size // BLOCK)
                self._cut = end if self._cut is None else min(self._cut, end)
                self._patches = {b: patch for b, patch in self._patches.items() if b < end}

    def _opens_a_block(self, dek):
        """Whether @dek authenticates the first block that has a cell."""
        for index in range(-(-self.size // BLOCK)):
            if self._cell(index).strip(b"\0"):
                try:
                    self._decrypt(dek, index, {})
                except BlockDamaged:
                    continue
                return True
        return False

    def _group_tags(self, group):
        if self._tag_page[0] != group:
            self._tag_page = (group, os.pread(self.fd, BLOCK, self._group_at(group)))
        return self._tag_page[1]

    def _cell(self, index):
        if index in self._patches:
            return self._patches[index][0]
        if self._cut is not None and index >= self._cut:
            return b""
        group, k = divmod(index, GROUP_BLOCKS)
        at = HEADER + k * CELL
        return self._group_tags(group)[at : at + CELL]

    def is_absent(self, group):
        if group * GROUP_SIZE < self.sealed:
            return False
        blocks = range(group * GROUP_BLOCKS, (group + 1) * GROUP_BLOCKS)
        if any(index in self._patches for index in blocks):
            return False
        return not self._group_tags(group).strip(b"\0")

    def _decrypt(self, dek, index, group_keys):
        group, k = divmod(index, GROUP_BLOCKS)
        raw = self._cell(index)
        if not raw.strip(b"\0"):
            if index * BLOCK < self.sealed:
                raise BlockDamaged(self.path, index, "missing below the seal")
            return b""
        cell = Cell.parse(raw)
        if cell.length > BLOCK:
            raise BlockDamaged(self.path, index, f"length {cell.length}")
        if group not in group_keys:
            group_keys[group] = AESGCM(expand(dek, b"turnkeyfs content", group.to_bytes(8, "big")))
        if index in self._patches:
            page = self._patches[index][1]
        else:
            page = os.pread(self.fd, cell.length, self._group_at(group) + BLOCK + k * BLOCK)
        aad = index.to_bytes(8, "big") + raw[28:32]
        try:
            return group_keys[group].decrypt(cell.iv, page + cell.tag, aad)
        except InvalidTag:
            raise BlockDamaged(self.path, index, "does not authenticate") from None

    def read_block(self, index):
        """The plaintext of one block, at its full length in the file."""
        length = min(BLOCK, self.size - index * BLOCK)
        try:
            content = self._decrypt(self.dek, index, self._group_keys)
        except BlockDamaged:
            if index * BLOCK < self.sealed or not self._is_of_unclean(index):
                raise
            content = b""  # never acknowledged
        return content.ljust(length, b"\0")[:length]

    def _is_of_unclean(self, index):
        return Cell.parse(self._cell(index)).mount in self.volume.mounts_unclean

    def blocks(self):
        """(index, plaintext) of every block but those of absent groups, which are zeros."""
        for index in range(-(-self.size // BLOCK)):
            if not self.is_absent(index // GROUP_BLOCKS):
                yield index, self.read_block(index)

    def read(self):
        """The whole content."""
        content = bytearray(self.size)
        for index, block in self.blocks():
            content[index * BLOCK : index * BLOCK + len(block)] = block
        return bytes(content)

    def copy_to(self, path):
        """Decrypt into a new file; holes stay holes."""
        with open(path, "xb") as out:
            for index, block in self.blocks():
                if block.strip(b"\0"):
                    out.seek(index * BLOCK)
                    out.write(block)
            out.truncate(self.size)

    def group_keys(self):
        groups = range(-(-self.size // GROUP_SIZE))
        return [expand(self.dek, b"turnkeyfs content", g.to_bytes(8, "big")) for g in groups]


# --- escrow --------------------------------------------------------------------------------------

ESCROW_START = (
    b"turnkeyfs escrow 1\nKey records, each still wrapped: no secret in the clear.\n"
)


@dataclass
class EscrowEntry:
    """One key record in an escrow."""

    path: bytes  # relative to CIPHERDIR/root
    directory: bool
    inode: int
    ctime_ns: int  # 0: not to be relied on
    record: bytes


class Escrow:
    """An escrow, read whole and checked."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self._raw = f.read()
        self._at = 0
        try:
            self._parse()
        except ValueError as e:
            raise EscrowDamaged(f"{path}: {e}") from e

    def _take(self, length):
        piece = self._raw[self._at : self._at + length]
        if len(piece) != length:
            raise ValueError("ends early")
        self._at += length
        return piece

    def _number(self, length):
        return int.from_bytes(self._take(length), "big")

    def _parse(self):
        if self._take(len(ESCROW_START)) != ESCROW_START:
            raise ValueError("no escrow of version 1")
        self.volume_id = self._take(16)
        self.created = self._number(8)
        self.entries = []
        while kind := self._number(1):
            if kind > 2:
                raise ValueError(f"an entry of kind {kind}")
            self.entries.append(self._entry(kind == 2))
        files, directories = self._number(8), self._number(8)
        if directories != sum(entry.directory for entry in self.entries):
            raise ValueError("the number of directories is wrong")
        if files + directories != len(self.entries):
            raise ValueError("the number of files is wrong")
        self.volume_file = self._take(self._number(4))
        digest = hashlib.sha256(self._raw[: self._at]).digest()
        if self._take(32) != digest or self._at != len(self._raw):
            raise ValueError("the checksum is wrong")

    def _entry(self, directory):
        kept, more = self._number(4), self._number(4)
        inode, seconds, nanoseconds = self._number(8), self._number(8), self._number(4)
        record_len = self._number(2)
        before = self.entries[-1].path if self.entries else b""
        if kept > len(before):
            raise ValueError("a path keeps more than there is")
        path = before[:kept] + self._take(more)
        # Depth first, siblings by the bytes of their names.
        if self.entries and before.split(b"/") >= path.split(b"/"):
            raise ValueError("paths out of order")
        ctime = seconds * 10**9 + nanoseconds
        return EscrowEntry(path, directory, inode, ctime, self._take(record_len))


# --- the program ---------------------------------------------------------------------------------


def extract(volume, target):
    """Decrypt the tree into the new directory @target: files, directories and symlinks.

    Returns a list of the failures: what could not be read is missing, or ends early.
    """
    failures = []
    os.mkdir(target)
    for relative, backing, st in volume.walk_backing(failures):
        try:
            extract_one(volume, backing, st, os.path.join(target, relative))
        except ReaderError as e:
            failures.append(e)
    return failures


def extract_one(volume, backing, st, out):
    if stat.S_ISDIR(st.st_mode):
        os.mkdir(out)
    elif stat.S_ISLNK(st.st_mode):
        os.symlink(volume.target(backing), os.fsencode(out))
    elif stat.S_ISREG(st.st_mode):
        with File(volume, backing) as f:
            f.copy_to(out)
    if stat.S_ISDIR(st.st_mode) or stat.S_ISREG(st.st_mode):
        for name, value in volume.attributes(backing).items():
            os.setxattr(out, name, value)


def check(volume):
    """Read everything; a list of the failures."""
    failures = []
    for _, backing, st in volume.walk_backing(failures):
        try:
            check_one(volume, backing, st)
        except ReaderError as e:
            failures.append(e)
    return failures


def check_one(volume, backing, st):
    """Read all of one file, directory or symlink; its first failure is raised."""
    if stat.S_ISLNK(st.st_mode):
        volume.target(backing)
    if stat.S_ISREG(st.st_mode):
        with File(volume, backing) as f:
            for _ in f.blocks():
                pass
    if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
        volume.attributes(backing)


def directory_keys(volume, relative, backing):
    directory = volume.directory(backing)
    try:
        names = directory.name_key()
    except RecordDamaged:
        return  # none was needed yet
    yield f"DEK of {relative}", directory.dek
    yield f"key of the names in {relative}", names


def keys(keystore, volume):
    """(what it is, bytes) of every key that the volume uses."""
    for number, key in keystore.versions.items():
        yield f"root key version {number}", key
    for number, kek in volume.keks.items():
        if not volume.by_kms:
            yield f"KEK {number}", kek
    yield "volume key", volume.key
    yield "volume file MAC key", volume.mac_key
    if volume.by_kms:
        yield "record MAC key", volume.record_mac_key
    if volume.names_encrypted:
        yield "symlink target key", volume.target_key
        yield from directory_keys(volume, "/", volume.root)
    for relative, backing, st in volume.walk_backing():
        if stat.S_ISDIR(st.st_mode) and volume.names_encrypted:
            yield from directory_keys(volume, relative, backing)
        if not stat.S_ISREG(st.st_mode):
            continue
        with File(volume, backing) as f:
            for dek in f.deks():
                yield f"DEK of {relative}", dek
            for group, key in enumerate(f.group_keys() if f.dek else []):
                yield f"content key of {relative}, group {group}", key


def main():
    parser = argparse.ArgumentParser(description="read a TurnkeyFS volume without TurnkeyFS")
    parser.add_argument("--keystore")
    parser.add_argument("--passphrase-file")
    parser.add_argument("cipherdir", nargs="?")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--extract", metavar="DIR", help="decrypt the tree into this new directory")
    what.add_argument("--cat", metavar="PATH", help="write one file to stdout")
    what.add_argument("--keys", action="store_true", help="print every key in hexadecimal")
    what.add_argument("--escrow", metavar="FILE", help="list the key records in an escrow")
    args = parser.parse_args()
    if not args.escrow and not (args.keystore and args.cipherdir):
        parser.error("--keystore and CIPHERDIR are needed")
    passphrase = None
    if args.passphrase_file:
        with open(args.passphrase_file, "rb") as f:
            passphrase = f.read().removesuffix(b"\n")
    try:
        if args.escrow:
            return list_escrow(Escrow(args.escrow))
        return run(args, Keystore.open(args.keystore, passphrase))
    except (ReaderError, OSError) as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 1


def list_escrow(escrow):
    for entry in escrow.entries:
        print(entry.record.hex(), os.fsdecode(entry.path) + "/" * entry.directory)
    return 0


def run(args, keystore):
    volume = Volume(args.cipherdir, keystore)
    failures = []
    if args.extract:
        failures = extract(volume, args.extract)
    elif args.cat:
        with volume.open(args.cat) as f:
            sys.stdout.buffer.write(f.read())
    elif args.keys:
        for name, key in keys(keystore, volume):
            print(key.hex(), name)
    else:
        failures = check(volume)
    for failure in failures:
        print(f"{type(failure).__name__}: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
