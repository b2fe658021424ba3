# SPDX-License-Identifier: Apache-2.0
"""Every command in every document is run, as its reader would, in a copy of this machine: see documents.py, and
"documents" in tests/README.md."""

import functools
import os
import pathlib
import re

import documents
import pytest
from mountpoint import TOP
from test_manual import commands, page

all_commands = functools.cache(lambda: list(commands()))

MARKDOWN = sorted(path.relative_to(TOP).as_posix() for folder in (".", "docs", "tests", "tests/crash")
                  for path in (TOP / folder).glob("*.md"))
MANUAL = sorted(path.relative_to(TOP).as_posix() for path in (TOP / "docs" / "man").glob("*.scd"))


def all_readers():
    for name in MARKDOWN:
        try:
            yield from documents.readers(name, (TOP / name).read_text(encoding="utf-8"))
        except documents.Mistake as mistake:
            raise AssertionError(f"{name}, {mistake}: see tests/integration/documents.py") from None
    for name in MANUAL:
        text = (TOP / name).read_text(encoding="utf-8")
        if "\n# EXAMPLES\n" in text:
            yield from documents.manual_readers(name, text)


@pytest.mark.slow
@pytest.mark.deadline(200)
@pytest.mark.parametrize("reader", all_readers(), ids=str)
def test_what_a_document_says_works(reader, tmp_path):
    wrong, printed = documents.perform(reader, tmp_path / "machine", 120)
    assert not wrong, wrong
    for number, step in enumerate(reader.steps):
        if step.shown:
            missing = documents.missing_lines(step.shown, printed[str(number)])
            assert not missing, (f"{reader.document}:{step.line}: the output that is shown behind this block has lines "
                                 "that are not printed", missing, printed[str(number)])


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_document_keeps_to_the_convention(name):
    """Commands stand in blocks marked `sh`: others would not be run."""
    text = (TOP / name).read_text(encoding="utf-8")
    for line, kind, language, block in documents.blocks(text):
        if kind == "block" and language != "sh":
            lines = block.splitlines()
            synopsis = name == "docs/cli.md" and lines[0].startswith("turnkeyfs init")
            typed = [text for text in lines if re.match(r"(\$ |# )?(sudo )?(turnkeyfs|mount|umount|systemctl|apt(-get)?) ", text)]
            assert synopsis or not typed, f"{name}:{line}: commands in a block that is not marked sh"


@pytest.mark.parametrize("name", MARKDOWN)
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(name):
    """What is beyond, after a bar that should have been \\|, is not shown."""
    text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), (TOP / name).read_text(encoding="utf-8"), flags=re.S)
    wide = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("|"):
            wide = 0
            continue
        count = len(page.cells(line))
        wide = wide or count
        assert count == wide, f"{name}:{number}: {count} cells, not {wide}: {line}"


@pytest.mark.parametrize("name", MARKDOWN)
def test_commands_within_sentences_are_right(name):
    """`turnkeyfs VERB ...` names a command that there is, with options that it has."""
    known = {command.name: command.options for command in all_commands()}
    labels = set(re.findall(r"`(turnkeyfs [^`]+)`", (TOP / "docs" / "format.md").read_text())) | {"turnkeyfs root wrap 1"}
    text = re.sub(r"```.*?```", "", (TOP / name).read_text(encoding="utf-8"), flags=re.S)
    for code in re.findall(r"`(turnkeyfs [^`]+)`", text):
        words = [word.strip("[]") for word in code.split()[1:]]
        if code in labels or words[0].startswith("-") or not words[0].islower():
            continue
        command = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        options = set().union(*(has for word, has in known.items() if word == command or word.split()[0] == command))
        assert options, f"{name}: `{code}`: there is no such command"
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= options, f"{name}: `{code}`: the command has no {used - options}"


# --- the runner itself ---------------------------------------------------------------------------


def perform(tmp_path, text, seconds=60):
    reader, = documents.readers("x.md", text)
    return documents.perform(reader, tmp_path / "machine", seconds)


def test_a_command_that_fails_is_found_with_its_line(tmp_path):
    wrong, _ = perform(tmp_path, "text\n\n```sh\ntrue\n```\n\n```sh\nfalse\n```\n\n```sh\ntrue\n```\n")
    assert wrong.startswith("x.md:8: a command of this block failed")


def test_a_command_that_should_fail_and_does_not_is_found(tmp_path):
    wrong, _ = perform(tmp_path, "<!-- test: fails 3 -->\n```sh\ntrue\n```\n")
    assert "exit code 0 instead of 3" in wrong


def test_nothing_that_a_document_does_stays(tmp_path):
    text = "```sh\necho x >/etc/turnkeyfs-was-here\ntouch was-here /srv/was-here\nsleep 4711 &\n```\n"
    wrong, _ = perform(tmp_path, text)
    assert not wrong
    assert not any((place / "was-here").exists() for place in (TOP, TOP.parent)) and not os.path.exists("/etc/turnkeyfs-was-here")
    assert "sleep\0" "4711\0" not in list(command_lines())


def command_lines():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            pass


def test_a_question_is_answered_at_the_terminal(tmp_path):
    text = "```sh\nread -rp 'New passphrase: ' x </dev/tty\n[ \"$x\" = 'correct horse battery' ]\n```\n"
    assert perform(tmp_path, text)[0] is None


def test_output_is_compared_by_its_shape():
    assert documents.missing_lines("version 12   active\nid 0123456789abcdef\n", "x\nversion 1 active\nid ffff456789abcdee\n") == []
    assert documents.missing_lines("version 1 active\n", "version 1 retired\n") == ["version 1 active"]
    assert documents.missing_lines("b\na\n", "a\nb\n") == ["a"]
    assert documents.missing_lines("at ...: fine\n", "at /srv/x: fine\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- test: skip -->\n```sh\nx\n```\n",
        "<!-- test: flee -->\n",
        "<!-- test: output -->\n```\nx\n```\n",
        "<!-- test: with NAME=x -->\n```sh\ny\n```\n",
        "<!-- test: fails 1 -->\n```json\n{}\n```\n",
    ],
)
def test_a_mistake_in_the_markup_is_named(text):
    with pytest.raises(documents.Mistake, match="line"):
        documents.readers("x.md", text)
