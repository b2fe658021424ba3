# SPDX-License-Identifier: Apache-2.0
"""Volumes for tests: make one, mount it as a child process, take it down whatever happens."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests" / "reader"))

import turnkeyfs_reader as reader  # noqa: E402  (found by the line above)

LONG = bool(os.environ.get("TURNKEYFS_TEST_LONG"))

# Lines of a daemon that no test accepts unless it says so.
ALARMING = re.compile(
    r"Sanitizer|runtime error|[Aa]ssert|error:|warning:|fuse:|corrupt|double free|stack smashing"
    r"|Segmentation|Aborted|backtrace|BUG"
)
# Where memory can't be locked that is worth a line, and no test's business.
HARMLESS = re.compile(r"warning: .*(lock|limit of open files)")

# How the volumes of tests store names, unless a test says so.
NAMES = os.environ.get("TURNKEYFS_TEST_NAMES", "encrypted")
# Whether their mounts are for all users, unless a test says so: yes or no.
ALLOW_OTHER = os.environ.get("TURNKEYFS_TEST_ALLOW_OTHER", "yes")
LIVE = []  # volumes that have a daemon: for the watchdog

WINDOW_MISSED = 19  # exit code of status: an alarm, and an answer all the same

KEY_RECORD = "user.turnkey"


def find_program(name, variable):
    """A built program: from the environment, else from the usual build directories."""
    if os.environ.get(variable):
        return os.environ[variable]
    for build in ("build-release", "build", "build-asan", "build-tsan"):
        if (TOP / build / name).exists():
            return str(TOP / build / name)
    return None


def turnkeyfs():
    return find_program("turnkeyfs", "TURNKEYFS")


def model_program():
    """tk_model, which is built beside the program under test."""
    program = turnkeyfs()
    beside = program and pathlib.Path(program).parent / "tests/model/tk_model"
    if beside and beside.exists():
        return str(beside)
    return find_program("tests/model/tk_model", "TURNKEYFS_MODEL")


@functools.cache
def sanitized():
    """Whether the program carries sanitizers: they cost time, memory and dumpable pages."""
    if os.environ.get("TURNKEYFS_TEST_SANITIZED"):
        return True
    if not turnkeyfs():
        return False
    with open(turnkeyfs(), "rb") as f:
        program = f.read()
    return b"__asan_init" in program or b"__tsan_init" in program


def scaled(ci, long=None):
    """How much of something: in CI, with TURNKEYFS_TEST_LONG, and less under sanitizers."""
    if LONG:
        return long if long is not None else ci
    return max(1, ci // 5) if sanitized() else ci


def run(*command, check=True, timeout=120, **kwargs):
    """A command to its end; its output is text. A failure shows what it said."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        **kwargs,
    )
    if check and done.returncode:
        words = shlex.join(done.args)
        raise AssertionError(
            f"{words} ended with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done


def mounts():
    """{mountpoint: (type, source)} without touching any mount, which may hang."""
    found = {}
    for line in open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape"):
        before, after = line.split(" - ")
        target = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), before.split()[4])
        found[target] = tuple(after.split()[:2])
    return found


def is_mounted(path):
    return str(path) in mounts()


def wait_for(condition, seconds=30, what="the condition"):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comm(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def stop(pid):
    """Stop a process. The signal takes a while, in which a thread may still answer a request."""

    def stopped(task):
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"

    os.kill(pid, signal.SIGSTOP)
    tasks = pathlib.Path(f"/proc/{pid}/task")
    wait_for(lambda: all(map(stopped, tasks.iterdir())), 20, "the stop of every thread")


class Volume:
    """One CIPHERDIR with its keystore, and its mount while there is one."""

    def __init__(self, directory, backing=None, conf=None, prefix=()):
        self.directory = pathlib.Path(directory)
        self.cipher = pathlib.Path(backing or directory) / "cipher"
        self.mnt = self.directory / "mnt"
        self.keystore = self.directory / "keystore"
        self.conf = self.directory / "volume.conf"
        self.log_path = self.directory / "daemon.log"
        self.prefix = prefix  # words before the daemon's command line
        self.daemon = None
        self.expected_log = []
        self.passphrase = None
        self.last_options = ()
        self.mnt.mkdir(parents=True, exist_ok=True)
        self.log_path.touch()
        self.write_conf(conf or {})

    # --- set-up ---

    def write_conf(self, sections):
        """The configuration: the own keystore, and @sections ({section: {key: value}})."""
        sections = {section: dict(values) for section, values in sections.items()}
        sections.setdefault("local", {}).setdefault("keystore", self.keystore)
        sections.setdefault("volume", {}).setdefault("journal_size", 1)
        sections.setdefault("volume", {}).setdefault("names", NAMES)
        if ALLOW_OTHER == "no":
            sections.setdefault("mount", {}).setdefault("allow_other", "no")
        self.keystore = pathlib.Path(sections["local"]["keystore"])
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
            for section, values in sections.items()
        )
        self.conf.write_text(text)

    def command(self, verb, *args, check=True, **kwargs):
        """turnkeyfs VERB -c CONF ARGS, to its end."""
        return run(*self.prefix, turnkeyfs(), verb, "-c", self.conf, *args, check=check, **kwargs)

    def init(self):
        self.command("init", self.cipher)
        return self

    # --- mount ---

    def mount(self, *options):
        """Mount in the foreground, as a child; returns when the mount is there."""
        assert self.daemon is None, "mounted already"
        self.last_options = options
        words = [*self.prefix, turnkeyfs(), "mount", "-f", "-c", self.conf, *options]
        with open(self.log_path, "ab") as log:
            self.daemon = subprocess.Popen(
                [str(word) for word in (*words, self.cipher, self.mnt)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        LIVE.append(self)
        wait_for(self._mounted_or_dead, 60, f"the mount of {self.cipher}")
        if self.daemon.poll() is not None:
            code = self.forget_daemon()
            raise AssertionError(f"mount ended with {code}\n{self.log()}")
        return self

    def _mounted_or_dead(self):
        return is_mounted(self.mnt) or self.daemon.poll() is not None

    def forget_daemon(self):
        code = self.daemon.returncode
        self.daemon = None
        LIVE.remove(self)
        return code

    @property
    def pid(self):
        """The daemon's own pid, also behind a prefix that forks."""
        pid = self.daemon.pid
        while self.prefix and not os.path.samefile(f"/proc/{pid}/exe", turnkeyfs()):
            pid = children(pid)[0]
        return pid

    @contextlib.contextmanager
    def stopped(self):
        """Its daemon answers nothing meanwhile, as if it hung or the machine slept."""
        pid = self.pid
        try:
            stop(pid)
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @property
    def guardian(self):
        """The pid of the process that ends the mount should the daemon be killed."""
        return next(p for p in children(self.pid) if comm(p) == "tkfs-guardian")

    def umount(self, timeout=60):
        """Unmount as a user would; the daemon must end well."""
        timeout *= 4 if sanitized() else 1
        try:
            run(*self.prefix, turnkeyfs(), "umount", self.mnt, timeout=timeout)
            code = self.daemon.wait(timeout)
        except subprocess.TimeoutExpired:
            print(self.stacks(), file=sys.stderr)
            raise
        self.forget_daemon()
        assert code == 0, f"the daemon ended with {code}\n{self.log()}"
        assert not is_mounted(self.mnt)
        return self

    def remount(self):
        return self.umount().mount(*self.last_options)

    def stacks(self):
        """Where each thread of a daemon that does not get on waits, if that can be told."""
        try:
            command = ["gdb", "--batch", "-p", self.pid, "-ex", "thread apply all backtrace 16"]
            return run(*command, check=False, timeout=60).stdout
        except (OSError, subprocess.SubprocessError, IndexError) as e:
            return str(e)

    def kill(self):
        """End the daemon as a crash would; the mount stays behind, dead."""
        self.expect_log("the daemon was killed")
        if self.daemon:
            os.kill(self.pid, signal.SIGKILL)

    def close(self):
        """Whatever state it is in: no mount and no daemon afterwards. Returns what went wrong."""
        problems = []
        if self.daemon is not None:
            try:
                self.umount(timeout=30)
            except (AssertionError, subprocess.TimeoutExpired) as e:
                problems.append(f"unmount: {e}")
        while is_mounted(self.mnt):
            if run("umount", "-l", self.mnt, check=False).returncode:
                break
        if self.daemon is not None:
            try:
                self.daemon.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                self.daemon.wait(10)
            self.forget_daemon()
        return problems

    # --- what it says ---

    def log(self):
        return self.log_path.read_text(errors="replace")

    def expect_log(self, pattern):
        """From now on lines that match are no alarm."""
        self.expected_log.append(re.compile(pattern))

    def alarms(self):
        """Lines of the log that no test should cause without saying so."""
        return [
            line
            for line in self.log().splitlines()
            if ALARMING.search(line)
            and not HARMLESS.search(line)
            and not any(pattern.search(line) for pattern in self.expected_log)
        ]

    def status(self, path=None):
        done = run(turnkeyfs(), "status", "--json", path or self.mnt, check=False)
        assert done.returncode in (0, WINDOW_MISSED), (done.returncode, done.stderr)
        return json.loads(done.stdout)

    def counter(self, name):
        """A counter of `status --json`, wherever in the document it stands."""
        return find_key(self.status(), name)

    def verify(self, *options):
        """(exit code, parsed JSON); a mount does it beside its work."""
        done = self.command("verify", "--json", *options, self.cipher, check=False, timeout=600)
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"verify: {done.returncode} {done.stdout} {done.stderr}") from None

    def assert_verifies_clean(self):
        code, document = self.verify()
        assert code == 0, document
        return document

    # --- below ---

    def below(self, relative):
        """The backing file of a path relative to the mount; its last name need not exist."""
        if self.names_encrypted():
            return pathlib.Path(self.reader().backing_path(relative))
        return self.cipher / "root" / relative

    def names_encrypted(self):
        return "\nnames = encrypted\n" in (self.cipher / "turnkeyfs.volume").read_text()

    def reader_keys(self):
        """The root key, as the independent reader takes it. Fixtures with another provider replace it."""
        return reader.Keystore.open(self.keystore, self.passphrase)

    def reader(self):
        """The independent reader, on this volume."""
        return reader.Volume(self.cipher, self.reader_keys())

    def read_below(self, relative):
        """A file's plaintext as the independent reader sees it."""
        with self.reader().open(relative) as f:
            return f.read()


def find_key(document, name):
    """The value of the one key @name anywhere in a JSON document."""
    if isinstance(document, dict):
        if name in document:
            return document[name]
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            value = find_key(part, name)
            if value is not None:
                return value
    return None


class RemountService:
    """Lets a program that is running ask for a remount: a command to give it, a thread to answer."""

    def __init__(self, volume):
        self.volume = volume
        self.requests = volume.directory / "remount.request"
        self.answers = volume.directory / "remount.answer"
        for fifo in (self.requests, self.answers):
            os.mkfifo(fifo)
            fifo.chmod(0o666)  # the program may be another user's
        self.command = f'echo go >"{self.requests}" && read -r a <"{self.answers}" && [ "$a" = ok ]'
        self.error = None
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        # Both ends are open read-write for a moment, so that nobody waits for a peer.
        fd = os.open(self.requests, os.O_RDWR)
        os.write(fd, b"stop\n")
        self.thread.join(60)
        os.close(fd)
        if self.error:
            raise self.error

    def _serve(self):
        while True:
            with open(self.requests, encoding="ascii") as requests:
                words = requests.readline().split()
            if "stop" in words:
                return
            answer = "ok"
            try:
                self.volume.remount()
            except BaseException as e:  # the test must hear of it
                self.error, answer = e, "failed"
            with open(self.answers, "w", encoding="ascii") as answers:
                answers.write(answer + "\n")


class Filesystem:
    """A filesystem of a given kind in a loop image, for CIPHERDIRs."""

    MAKE = {
        # The smallest inodes that ext4 makes by default: what a key record has to fit in.
        "ext4": ["mkfs.ext4", "-q", "-F", "-I", "256", "-b", "4096"],
        "xfs": ["mkfs.xfs", "-q", "-f"],
        "btrfs": ["mkfs.btrfs", "-q", "-f"],
    }

    def __init__(self, kind, directory, size=1 << 30):
        self.kind = kind
        self.path = pathlib.Path(directory) / f"fs-{kind}"
        self.image = pathlib.Path(directory) / f"{kind}.img"
        self.size = size

    def mount(self):
        """Returns a reason if this machine can't."""
        self.path.mkdir()
        if self.kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path]
        else:
            with open(self.image, "wb") as f:
                f.truncate(self.size)
            made = run(*self.MAKE[self.kind], self.image, check=False)
            if made.returncode:
                return f"{self.MAKE[self.kind][0]}: {made.stderr.strip()}"
            command = ["mount", "-o", "loop", self.image, self.path]
        done = run(*command, check=False)
        if done.returncode:
            return f"mount of {self.kind}: {done.stderr.strip()}"
        try:
            os.setxattr(self.path, KEY_RECORD, b"x")
            os.removexattr(self.path, KEY_RECORD)
        except OSError as e:
            return f"no user.* attributes on {self.kind} here: {e}"
        return None

    def umount(self):
        if is_mounted(self.path):
            wait_for(
                lambda: not run("umount", self.path, check=False).returncode,
                20,
                f"the unmount of {self.path}",
            )
        if self.image.exists():
            self.image.unlink()
