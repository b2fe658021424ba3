# SPDX-License-Identifier: Apache-2.0
"""The manual pages, docs/cli.md and docs/configuration.md: they name what the program has, all of it and nothing else,
and the pages are clean. The pages take their text from these documents, see docs/man/page.py."""

import importlib.util
import re
import subprocess

import pytest
from mountpoint import TOP, run, turnkeyfs

MAN = TOP / "docs" / "man"
PAGES = sorted(path.name.removesuffix(".scd") for path in MAN.glob("*.scd"))

spec = importlib.util.spec_from_file_location("page", MAN / "page.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)


def program(*arguments):
    return run(turnkeyfs(), *arguments).stdout


class Command:
    """What the program says of one command, or of one verb of a command."""

    def __init__(self, *words):
        text = program("help", *words)
        self.name = " ".join(words)
        self.usage = re.match(r"usage: (.*)", text)[1].strip()
        self.options = {"--help", *re.findall(r"^ {2,6}(?:-\w, )?(--[a-z-]+)", text, re.M),
                        *re.findall(r"--[a-z-]+", self.usage)}


def commands():
    """All of them; those that have verbs are their verbs."""
    for name in re.findall(r"^  turnkeyfs (\S+)", program("help"), re.M):
        verbs = re.findall(rf"^  turnkeyfs {name} (\S+)", program("help", name), re.M)
        yield from (Command(name, verb) for verb in verbs) if verbs else [Command(name)]


def document(name):
    return page.Markdown(f"docs/{name}")


def option_table():
    """Option -> the commands that the first table of docs/cli.md says it is of."""
    rows = page.rows_of(document("cli.md").preamble()[0])
    return {re.search(r"--[a-z-]+", option)[0]: [name.strip() for name in of.split(",")] for option, _, of in rows[1:]}


def of_command(names, command):
    return "all" in names or command.name in names or command.name.split()[0] in names


def text_of_command(command):
    """The section of the command in docs/cli.md, if it has one."""
    lines = document("cli.md")
    title = command.name.split()[0]
    return "\n".join(lines.section(title)) if title in [head[2] for head in lines.headings()] else ""


def test_the_synopsis_of_the_command_line_is_what_the_program_says():
    wrong = "docs/cli.md, first block: make it the usage lines of the program, in the order of `turnkeyfs help`"
    assert document("cli.md").preamble()[1] == [command.usage for command in commands()], wrong


def test_every_option_of_the_program_is_in_the_document_of_the_command_line():
    table = option_table()
    missing = []
    for command in commands():
        written = set(re.findall(r"--[a-z-]+", text_of_command(command)))
        missing += [f"{option} of `turnkeyfs {command.name}`" for option in sorted(command.options)
                    if option not in written and not of_command(table.get(option, []), command)]
    assert not missing, ("docs/cli.md does not name these: say in the section of the command, or in the table before "
                         "the sections, what they do (the manual page takes it from there)", missing)


def test_the_document_of_the_command_line_names_no_option_that_is_not_there():
    every = list(commands())
    odd = [f"{option}, in the table, of {name}" for option, names in option_table().items() for name in names
           if not any(of_command([name], command) and option in command.options for command in every)]
    known = {option for command in every for option in command.options}
    for code in re.findall(r"`([^`\n]+)`", "\n".join(document("cli.md").lines)):
        odd += [f"{option}, in `{code}`" for option in re.findall(r"(?<![\w-])--[a-z-]+", code) if option not in known]
    assert not odd, ("docs/cli.md names options that the program does not have", odd)


def test_every_mount_option_that_the_help_names_is_in_the_document():
    text = program("help", "mount")
    listed = re.search(r"comma-separated:\n(.*?)\n\n", text, re.S)[1]
    words = set(re.findall(r"\b[a-z_]+\b", "\n".join(line[:22] if line[8] != " " and "  " in line[8:] else line
                                                      for line in listed.splitlines())))
    words -= {"passed", "on", "to", "the", "kernel"}
    table = " ".join(row[0] for row in page.rows_of(document("cli.md").section("mount"), "mount option")[1:])
    missing = sorted(words - set(re.findall(r"[a-z_]+", table)))
    assert {"config", "threads", "dirsync"} <= words
    assert not missing, ("the table of mount options in docs/cli.md lacks these", missing)


def test_the_options_of_the_configuration_are_those_of_the_program():
    there, section = [], None
    for line in program("help", "config").splitlines():
        section = (re.match(r"\[(\w+)\]", line) or [None, section])[1]
        key = re.match(r"(\w+) = ", line)
        there += [(section, key[1])] if key else []
    written = [(row[0], row[1]) for row in page.rows_of(document("configuration.md").lines, "section")[1:]]
    assert ("volume", "fingerprint") in there
    assert written == there, "docs/configuration.md, the table: the rows of `turnkeyfs help config`, in its order"


def test_every_exit_code_is_in_the_document():
    codes = re.findall(r"^\s*TK_FAULT_\w+ = (\d+)", (TOP / "base" / "fault.h").read_text(), re.M)
    written = [row[0] for row in page.rows_of(document("cli.md").section("Exit codes"))[1:]]
    assert len(codes) > 15
    assert written == sorted(codes, key=int), "docs/cli.md, \"Exit codes\": those of base/fault.h"


# --- the pages -----------------------------------------------------------------------------------


def rendered(name, folder):
    made = folder / name
    made.write_text(page.made(MAN / f"{name}.scd", "scdoc"))
    return made


def as_text(made):
    """What man(1) shows, in lines that are not broken."""
    formatted = run("man", "-l", str(made), env={"LC_ALL": "C.UTF-8", "MANWIDTH": "4000", "PATH": "/usr/bin:/bin",
                                                 "MAN_KEEP_FORMATTING": ""}).stdout
    return re.sub(r".\x08|\x1b\[[0-9;]*m", "", formatted).replace("‐", "-").replace("−", "-")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_clean(name, tmp_path):
    made = rendered(name, tmp_path)
    # scdoc itself makes these, before tables, literal text and headings, and of a page's date.
    own = re.compile(r"skipping paragraph macro: PP (empty|after SH|after SS)|STYLE:|cannot parse date")
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(made)], capture_output=True, text=True)
    assert not [line for line in found.stdout.splitlines() if not own.search(line)]
    # No preprocessors but those that the page names itself.
    shown = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(made)], capture_output=True,
                           text=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MANROFFSEQ": ""})
    assert shown.returncode == 0 and not shown.stderr
    assert not re.search(r"^%|\]\(|\*\*|`", as_text(made), re.M), "markup is left over"
    assert made.read_text().startswith("'\\\" t\n"), "man(7): tables want this for a first line"


def test_the_pages_name_every_command_and_option(tmp_path):
    text = as_text(rendered("turnkeyfs.1", tmp_path))
    words = re.sub(r"\s+", " ", text)
    for command in commands():
        assert command.usage in words
        for option in command.options:
            assert re.search(rf"(?<![\w-]){option}\b", text), (command.name, option)
    assert re.findall(r"^ {5,7}(\d+)$", text[text.index("\nEXIT STATUS"):], re.M)[:3] == ["0", "1", "2"]
    conf = as_text(rendered("turnkeyfs.conf.5", tmp_path))
    written = re.findall(r"^ {5,7}([a-z_0-9]+) = ", conf[conf.index("\nOPTIONS"):conf.index("\nNOTES")], re.M)
    assert written == re.findall(r"^(\w+) = ", program("help", "config"), re.M)


def test_the_build_makes_and_installs_the_pages(tmp_path):
    """The list in man.cmake is the list of sources."""
    names = re.search(r"foreach\(name ([^)]*)\)", (MAN / "man.cmake").read_text())[1].split()
    assert sorted(names) == PAGES


# --- the drawings --------------------------------------------------------------------------------

DRAWINGS = sorted((TOP / "docs" / "drawings").glob("*.dot"))


def parts(svg):
    """Titles and texts of a drawing, without where they stand, which depends on the fonts."""
    return sorted(re.findall(r"<(?:title|text)[^>]*>([^<]*)<", svg))


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_is_what_its_text_says(drawing):
    made = run("dot", "-Tsvg", str(drawing)).stdout
    assert len(parts(made)) > 10
    assert parts(made) == parts(drawing.with_suffix(".svg").read_text()), "run docs/drawings/render"


# --- the converter -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "markdown, scdoc",
    [
        ("a `code_x` and **bold `b`** and *it* here", "a *code\\_x* and *bold b* and _it_ here"),
        ("see [cli.md](cli.md#key) and [the rest](protectors.md)", "see turnkeyfs(1) and the rest (docs/protectors.md)"),
        ("[here](#names)", "here"),
        ("*g* * 512000; block *k* of it", "_g_ \\* 512000; block _k_ of it"),
        ("under_score * star \\ back", "under\\_score \\* star \\\\ back"),
    ],
)
def test_inline_markup(markdown, scdoc):
    assert page.inline(markdown) == scdoc


def test_blocks():
    lines = """## One

- item one
  goes on
- item two

```sh
  # not a heading
```
<!-- test -->
| a | b | c |
|---|---|---|
| 1 | 2 | `x` |

| key | |
|---|---|
| `-f` | what | 

#### Deep
1. first""".splitlines()
    assert page.converted([line for line in lines if "<!--" not in line], 1) == [
        "# ONE", "", "- item one goes on", "- item two", "", "```", "# not a heading", "```", "",
        "[[ *a*", ":[ *b*", ":[ *c*", "|  1", ":  2", ":  *x*", "", "*-f*", "\twhat", "", "## Deep", "", ". first", "",
    ]


def test_a_section_that_is_not_there_ends_the_build():
    with pytest.raises(SystemExit, match="no section \"Nothing\""):
        page.Markdown("docs/cli.md").section("Nothing")


def test_a_line_never_begins_as_something_else():
    assert page.paragraph("- dash") == ["\\- dash"]
    assert page.paragraph("[x] y", "\t") == ["\t\\[x] y"]
