#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""page.py PAGE [SCDOC]: a manual page, made by the program SCDOC, or its source for that, on the standard output.

PAGE is a file of this folder: scdoc, and lines that take text from the Markdown documents, so that every fact
stands in one place:

    %include FILE               all of it without its title; its highest headings become scdoc's highest
    %sections FILE FIRST LAST   the sections from one title to another; their headings become scdoc's second level
    %preamble FILE              what stands before its first section, without the first block
    %synopsis FILE              that first block
    %options FILE               the table of options of docs/configuration.md
    %table FILE TITLE [HEAD]    the first table of a section, or the one whose first column is called HEAD

The Markdown is what these documents use: headings, paragraphs, lists, tables, fenced blocks, `code`, **bold**,
*italic* and links. HTML comments are dropped.
"""

import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = {"cli.md": "turnkeyfs(1)", "configuration.md": "turnkeyfs.conf(5)", "format.md": "turnkeyfs-format(7)",
         "threat-model.md": "turnkeyfs-threat-model(7)"}
TABLE_WIDTH = 76  # columns; a wider table becomes a list of terms
LABEL_WIDTH = 40  # columns; longer text speaks for itself, without the heading of its column

INLINE = re.compile(r"(?P<fence>`+)(?P<code>.+?)(?P=fence)|\*\*(?P<bold>.+?)\*\*"
                    r"|\*(?P<italic>[^*\s]|[^*\s][^*]*[^*\s])\*"
                    r"|\[(?P<text>[^]]*)\]\((?P<link>[^)]*)\)|(?P<escape>\\[\\`*_|<>])")


def escaped(text):
    return re.sub(r"([\\*_])", r"\\\1", text)


def linked(text, link):
    """What stands for a link: its text, and the page that it leads to unless that is in this one."""
    document = link.split("#")[0].rsplit("/", 1)[-1]
    if not document:
        return text
    target = PAGES.get(document, link if "://" in link else f"docs/{document}")
    return target if text in (document, link) else f"{text} ({target})"


def plain(text):
    """@text without its markup."""
    def replaced(found):
        if found["link"] is not None:
            return linked(plain(found["text"]), found["link"])
        return found["code"] or plain(found["bold"] or found["italic"] or "") or (found["escape"] or "")[1:]

    return INLINE.sub(replaced, text)


def inline(text):
    """@text in scdoc: code and bold are bold, italic is underlined."""
    out, at = [], 0
    for found in INLINE.finditer(text):
        out.append(escaped(text[at:found.start()]))
        at = found.end()
        if found["link"] is not None:
            out.append(escaped(linked(plain(found["text"]), found["link"])))
        elif found["escape"]:
            out.append(escaped(found["escape"][1:]))
        elif found["italic"]:
            out.append(f"_{escaped(plain(found['italic']))}_")
        else:
            out.append(f"*{escaped(found['code'] or plain(found['bold']))}*")
    out.append(escaped(text[at:]))
    return "".join(out)


def paragraph(text, indent=""):
    """Lines of one paragraph, none of which scdoc takes for anything else."""
    lines = textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)
    return [indent + (inline_start(line) if line[0] in "#-.|[];:+`" else line) for line in lines]


def inline_start(line):
    return "\\" + line


def cells(row):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip()[1:-1])]


def table(rows):
    """A table of @rows, the first of which has the headings."""
    head, body = rows[0], rows[1:]
    widths = [max(len(plain(row[i])) for row in rows) for i in range(len(head))]
    if len(head) > 2 and sum(widths) + 3 * len(widths) <= TABLE_WIDTH:
        shown = rows if any(head) else body
        out = []
        for n, row in enumerate(shown):
            marks = ("[[", ":[") if n == 0 else ("| ", ": ")
            for i, cell in enumerate(row):
                text = f"*{escaped(plain(cell))}*" if shown is rows and n == 0 and cell else inline(cell)
                out.append(f"{marks[i > 0]} {text}")
        return out + [""]
    out = []
    for row in body:
        term = plain(row[0]) or "..."
        out += paragraph(f"*{escaped(term)}*")
        label = [f"{escaped(plain(name))}: " if len(head) > 2 and name else "" for name in head]
        if widths[-1] > LABEL_WIDTH:
            label[-1] = ""
        said = [label[i] + inline(row[i]) for i in range(1, len(row)) if row[i]]
        for n, text in enumerate(said):
            lines = paragraph(text, "\t")
            if n > 0:  # what follows a line break counts as one line with it: no indent of its own
                out[-1] += "++"
                lines[0] = lines[0].strip()
            out += lines
        out.append("")
    return out


def options(rows):
    """The table of options of docs/configuration.md."""
    out, section = [], None
    for name, key, value, default, meaning in rows[1:]:
        if name != section:
            section = name
            out += [f"## [{escaped(name)}]", ""]
        out += paragraph(f"*{escaped(plain(key))}* = _{escaped(plain(value))}_")
        out += paragraph(inline(meaning), "\t")
        out[-1] += "++"
        out += paragraph(f"Default: {inline(default)}") + [""]
    return out


class Markdown:
    """A document, block by block."""

    def __init__(self, path):
        text = re.sub(r"<!--.*?-->\n?", "", (SOURCE / path).read_text(encoding="utf-8"), flags=re.S)
        self.lines = text.splitlines()
        self.path = path

    def heading(self, line):
        found = re.match(r"(#+) (.*)", line)
        return (len(found[1]), found[2]) if found else (0, None)

    def headings(self):
        """(line number, level, title), but not of what is in fenced blocks."""
        fenced = False
        for number, line in enumerate(self.lines):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            level, title = (0, None) if fenced else self.heading(line)
            if level:
                yield number, level, title

    def section(self, first, last=None):
        """The lines of the sections from @first to @last."""
        heads = list(self.headings())
        start = next((h for h in heads if h[2] == first), None)
        end = next((h for h in heads if h[2] == (last or first)), None)
        if not start or not end:
            sys.exit(f"page.py: {self.path} has no section \"{last if start else first}\"")
        stop = next((n for n, level, _ in heads if n > end[0] and level <= end[1]), len(self.lines))
        return self.lines[start[0]:stop]

    def body(self):
        return self.lines[next(self.headings())[0] + 1:]

    def preamble(self):
        """What stands before the first section, but for the first fenced block; and that block."""
        heads = list(self.headings())
        lines = self.lines[heads[0][0] + 1:heads[1][0]]
        first, last = [n for n, line in enumerate(lines) if line.startswith("```")][:2]
        return lines[:first] + lines[last + 1:], lines[first + 1:last]


def rows_of(lines, head=None):
    """The first table among @lines, or the one with the heading @head."""
    rows = []
    for line in lines + [""]:
        if line.lstrip().startswith("|"):
            rows.append(cells(line))
        elif rows and head in (None, rows[0][0]):
            return rows[:1] + rows[2:]
        else:
            rows = []
    sys.exit(f"page.py: there is no table {head or ''}")


def converted(lines, top):
    """scdoc of Markdown @lines; their highest heading becomes level @top."""
    levels = [len(line) - len(line.lstrip("#")) for line in lines if re.match(r"#+ ", line)]
    lift = min(levels, default=top) - top
    out, at = [], 0
    while at < len(lines):
        line = lines[at]
        block = [line]
        at += 1
        if not line.strip():
            continue
        if line.lstrip().startswith("```"):
            while not lines[at].lstrip().startswith("```"):
                block.append(lines[at])
                at += 1
            at += 1
            out += ["```"] + textwrap.dedent("\n".join(block[1:])).splitlines() + ["```", ""]
        elif re.match(r"#+ ", line):
            level = min(2, len(line) - len(line.lstrip("#")) - lift)
            title = plain(line.lstrip("# "))
            out += [f"{'#' * level} {escaped(title.upper() if level == 1 else title)}", ""]
        elif line.lstrip().startswith("|"):
            while at < len(lines) and lines[at].lstrip().startswith("|"):
                block.append(lines[at])
                at += 1
            out += table(rows_of(block))
        else:
            item = re.match(r"(- |\d+\. )", line)
            mark = item[1] if item else ""
            while at < len(lines) and lines[at].strip() and \
                    not re.match(r"(\s*```|#+ |\s*\||- |\d+\. )", lines[at]):
                block.append(lines[at])
                at += 1
            text = inline(" ".join(part.strip() for part in block)[len(mark):])
            if not mark:
                out += paragraph(text) + [""]
                continue
            wrapped = paragraph(text)
            out += [("- " if mark == "- " else ". ") + wrapped[0]] + ["  " + more for more in wrapped[1:]]
            if at == len(lines) or not re.match(r"- |\d+\. ", lines[at]):
                out.append("")
    return out


def synopsis(line):
    """A line of usage: what is in capitals stands for something."""
    words = [f"_{word}_" if re.fullmatch(r"[A-Z-]*[A-Z]", word) else f"*{word}*" if word == "turnkeyfs" else escaped(word)
             for word in re.split(r"([A-Z][A-Z-]*[A-Z]|turnkeyfs)", re.sub(r"  +", " ", line)) if word]
    return "".join(words)


def directive(line):
    name, path, *rest = shlex.split(line)
    document = Markdown(path)
    if name == "%include":
        return converted(document.lines[next(document.headings())[0] + 1:], 1)
    if name == "%sections":
        return converted(document.section(*rest), 2)
    if name == "%preamble":
        return converted(document.preamble()[0], 1)
    if name == "%synopsis":
        return "++\n".join(synopsis(text) for text in document.preamble()[1]).splitlines()
    if name == "%options":
        return options(rows_of(document.lines, "section"))
    if name == "%table":
        return table(rows_of(document.section(rest[0]), *rest[1:]))
    return sys.exit(f"page.py: unknown line: {line}")


def page(path):
    out = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            out += directive(line)
        else:
            out.append(line)
    # scdoc wants one empty line between blocks, and none at the end.
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")
    return text + "\n"


def made(path, scdoc):
    done = subprocess.run([scdoc], input=page(path), stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return "'\\\" t\n" + done.stdout  # has man(1) call tbl, which scdoc does not


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source, scdoc = pathlib.Path(sys.argv[1]), sys.argv[2:]
    sys.stdout.write(made(source, *scdoc) if scdoc else page(source))
