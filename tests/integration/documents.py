# SPDX-License-Identifier: Apache-2.0
"""Documents as scripts: what they tell the reader to type, in order, with what a test has to do in between.

Every fenced block of a Markdown document that is marked `sh` is run, and so is every block in the EXAMPLES of a manual page, where `# `
begins a command. What readers don't see stands in HTML comments:

    <!-- test: run            commands, up to the end of the comment: set up, break something, check
    <!-- test: file PATH -->  the next block, of whatever kind, is written to PATH
    <!-- test: with A=B C=D -->   words of the next block that stand for something: A is replaced by B, which is shell text
    <!-- test: fails N -->    the last command of the next block fails with exit code N
    <!-- test: output -->     the next block shows what the block before it prints: see shape()
    <!-- test: skip REASON -->    the next block can't be run here: only where it truly can't
    <!-- test: fresh [NAME...] -->    what follows is another reader, at a machine of their own; once for each NAME, which is $NAME then

Blocks of one reader share a shell, so variables and the working directory stay. Each command has to succeed. Questions at the terminal
are answered by ANSWERS.
"""

import dataclasses
import fcntl
import os
import pathlib
import re
import select
import signal
import subprocess
import termios
import textwrap
import time

import pytest
from mountpoint import TOP, turnkeyfs

SANDBOX = TOP / "tests" / "documents" / "sandbox"
SCENE = TOP / "tests" / "documents" / "scene.sh"
ANSWERS = [(rb"([Pp]assphrase[^\n]*|Once more): ?$", b"correct horse battery\n"), (rb"PIN: ?$", b"4711-pin\n"),
           (rb"yes[^\n]*[:?] ?$", b"yes\n")]
MARK = "\x1e"  # between what blocks print

COMMENT = re.compile(r"<!-- test: (\w+)\s?(.*?)-->", re.S)
KINDS = {"run", "file", "with", "fails", "output", "skip", "fresh"}


class Mistake(Exception):
    """A document that does not keep to the convention."""


@dataclasses.dataclass
class Step:
    line: int
    shell: str
    fails: int = 0
    shown: str | None = None  # output as the document has it


@dataclasses.dataclass
class Reader:
    """One who starts at a machine of their own and does what a document, or a part of it, says."""

    document: str
    line: int
    name: str | None = None
    steps: list = dataclasses.field(default_factory=list)

    def __str__(self):
        return f"{self.document}:{self.line}" + (f":{self.name}" if self.name else "")


def blocks(text):
    """(line number, kind, argument, text): comments for tests, and fenced blocks as kind "block" with their language."""
    at, lines = 0, text.splitlines()
    while at < len(lines):
        start, line = at, lines[at].strip()
        at += 1
        if line.startswith("<!-- test:"):
            while "-->" not in lines[at - 1]:
                at += 1
            found = COMMENT.fullmatch("\n".join(lines[start:at]).strip())
            if not found or found[1] not in KINDS:
                raise Mistake(f"line {start + 1}: not a comment that tests know: {line}")
            yield start + 1, found[1], found[2].strip("\n").strip() if found[1] != "run" else found[2], None
        elif line.startswith("```"):
            while not lines[at].strip().startswith("```"):
                at += 1
            yield start + 2, "block", line[3:].strip(), textwrap.dedent("\n".join(lines[start + 1:at])) + "\n"
            at += 1


def here_document(path, text):
    return f"mkdir -p \"$(dirname {path})\"\ncat >{path} <<'END OF THE FILE'\n{text}END OF THE FILE\n"


def readers(document, text):
    """The readers of a document in Markdown."""
    here = [Reader(document, 1)]
    done, pending, last = [], {}, None
    for line, kind, argument, block in blocks(text):
        if kind == "fresh":
            done += here
            here = [Reader(document, line, name) for name in argument.split() or [None]]
        elif kind == "run":
            for reader in here:
                reader.steps.append(Step(line, argument))
        elif kind != "block":
            if kind == "skip" and not argument:
                raise Mistake(f"line {line}: a block is left out for a reason: say which")
            pending[kind] = argument
        elif "output" in pending:
            if not last:
                raise Mistake(f"line {line}: there is nothing before this that prints")
            for step in last:
                step.shown = block
            pending = {}
        elif "file" in pending or argument == "sh":
            for word in pending.get("with", "").split():
                name, value = word.split("=", 1)
                block, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", value.replace("\\", r"\\"), block)
                if not count:
                    raise Mistake(f"line {line}: the block has no {name}")
            last = None
            if "skip" not in pending:
                shell = here_document(pending["file"], block) if "file" in pending else block
                last = [Step(line, shell, int(pending.get("fails", 0))) for _ in here]
                for reader, step in zip(here, last):
                    reader.steps.append(step)
            pending = {}
        elif pending:
            raise Mistake(f"line {line}: {list(pending)} before a block that is not of commands")
    return [reader for reader in done + here if reader.steps]


def manual_readers(document, text):
    """The reader of the EXAMPLES of a manual page."""
    first = text.index("\n# EXAMPLES\n")
    lead = text[:first].count("\n")
    reader = Reader(document, lead + 2)
    for line, kind, _, block in blocks(text[first:text.index("\n# SEE ALSO\n")]):
        if kind == "block":
            reader.steps.append(Step(lead + line, re.sub(r"^# ", "", block, flags=re.M)))
    return [reader]


# --- running -------------------------------------------------------------------------------------


def script(reader):
    """One shell script of all steps, which says where it is."""
    out = [". \"$TOP/tests/documents/scene.sh\"", "sudo() { \"$@\"; }", f"NAME={reader.name or ''}", "set -eEuo pipefail"]
    for number, step in enumerate(reader.steps):
        out.append(f"printf '{MARK}%d{MARK}\\n' {number}")
        if step.fails:
            out += ["set +e", step.shell.rstrip("\n"), f"status=$?; set -e; [ $status = {step.fails} ] || "
                    f"{{ echo \"exit code $status instead of {step.fails}\"; exit 99; }}"]
        else:
            out.append(step.shell.rstrip("\n"))
    return "\n".join([*out, f"printf '{MARK}end{MARK}\\n'", ""])


class Terminal:
    """A program at a terminal, on which questions are answered."""

    def __init__(self, command):
        self.master, slave = os.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.ONLCR
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x32\0\xff\0\0\0\0\0")
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def run(self, seconds):
        """All that it prints; the text ends where it was ended for the time it took."""
        text, answered, end = b"", 0, time.monotonic() + seconds
        while True:
            if not select.select([self.master], [], [], 0.2)[0]:
                for question, answer in ANSWERS:
                    if re.search(question, text[answered:]):
                        os.write(self.master, answer)
                        answered = len(text)
                if self.process.poll() is not None:
                    break
                if time.monotonic() > end:
                    self.process.send_signal(signal.SIGKILL)
                    text += b"\n(ended by the test: it took too long)"
                    break
                continue
            try:
                part = os.read(self.master, 65536)
            except OSError:
                break
            if not part:
                break
            text += part
        self.process.wait()
        os.close(self.master)
        return text.decode(errors="replace").replace("\r", "")


def perform(reader, scratch, seconds):
    """Do all steps. Returns None, or what went wrong; and the output of each step."""
    scratch.mkdir(parents=True, exist_ok=True)
    steps = scratch / "steps"
    steps.mkdir()
    (steps / "script").write_text(script(reader))
    text = Terminal(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", str(SANDBOX),
                     str(scratch), str(pathlib.Path(turnkeyfs()).resolve()), str(steps / "script")]).run(seconds)
    parts = re.split(rf"{MARK}(\w+){MARK}\n", text)
    printed = dict(zip(parts[1::2], parts[2::2]))
    if "skip" in printed:
        pytest.skip(printed["skip"].strip())
    if "end" in printed:
        return None, printed
    if not printed:
        return f"the sandbox does not work:\n{text}", printed
    number = int(list(printed)[-1])
    step = reader.steps[number]
    return (f"{reader.document}:{step.line}: a command of this block failed"
            f"{f', or did not fail with {step.fails}' if step.fails else ''}:\n{textwrap.indent(step.shell, '    ')}"
            f"--- printed:\n{printed[str(number)]}"), printed


def shape(line):
    """What a line that a document shows may really look like: other numbers, ids and dates; `...` for anything."""
    pattern = re.escape(" ".join(line.split()))
    pattern = pattern.replace(r"\.\.\.", ".*")
    return re.sub(r"(?<![0-9a-z])[0-9a-f]{16,}(?![0-9a-z])|\d+",
                  lambda found: "[0-9a-f]+" if len(found[0]) >= 16 else r"\d+", pattern)


def missing_lines(shown, printed):
    """Lines of @shown that @printed does not have, in their order."""
    rest = [" ".join(line.split()) for line in printed.splitlines()]
    missing = []
    for line in filter(str.strip, shown.splitlines()):
        at = next((n for n, candidate in enumerate(rest) if re.fullmatch(shape(line), candidate)), None)
        if at is None:
            missing.append(line)
        else:
            rest = rest[at + 1:]
    return missing
