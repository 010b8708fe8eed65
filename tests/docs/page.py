"""What a page of the documentation has people type, and what it says they will see.

    ```console
    $ sockpid doctor --json | head -c 30
    {"arch": ...
    ```

A line that begins with "$ " is a command; lines up to the next one are what it prints. "..." stands for anything in a
line, and alone on a line for any lines. A command without such lines need only succeed. "^C" at the end: it is ended
with Ctrl-C once all before that has been seen.

HTML comments before a block say what readers need not see:
    <!-- not run: why -->             the only way not to be run
    <!-- with: events, traffic -->    names of stage.STAGES, which are there from now on
    <!-- ended with Ctrl-C -->        commands that never end, without their output
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md")
PAGES = (*(ROOT / name for name in AT_THE_TOP), *sorted((ROOT / "docs").rglob("*.md")))

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--\s*((?:(?!-->).)*?)\s*-->\s*\Z", re.DOTALL)


class Command(NamedTuple):
    """line: of the page, from 1. expected: None if the page does not say what it prints."""

    line: int
    text: str
    expected: tuple[str, ...] | None
    interrupted: bool


class Block(NamedTuple):
    """language: of the fence. not_run: why it is not, or "". stages: what it needs. interrupted: see above."""

    line: int
    language: str
    text: str
    not_run: str
    stages: tuple[str, ...]
    interrupted: bool

    def commands(self) -> Iterator[Command]:
        lines = self.text.splitlines()
        at = 0
        while at < len(lines):
            start = at
            assert lines[at].startswith("$ "), f"line {self.line + at + 1}: {lines[at]!r} belongs to no command"
            text = lines[at][2:]
            while text.endswith("\\"):
                at += 1
                text = text[:-1] + lines[at].lstrip()
            at += 1
            shown = []
            while at < len(lines) and not lines[at].startswith("$ "):
                shown.append(lines[at])
                at += 1
            interrupted = bool(shown) and shown[-1] == "^C"
            expected = tuple(shown[:-1] if interrupted else shown)
            yield Command(self.line + start + 1, text, expected or None, interrupted or self.interrupted)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text."""
    found = []
    for fence in FENCE.finditer(page):
        not_run, stages, interrupted = "", [], False
        before = page[: fence.start()]
        while comment := COMMENT.search(before):
            before = before[: comment.start()]
            words = comment[1]
            if words.startswith("not run: "):
                not_run = " ".join(words[9:].split())
            elif words.startswith("with: "):
                stages += [name.strip() for name in words[6:].split(",")]
            elif words == "ended with Ctrl-C":
                interrupted = True
            else:
                raise ValueError(f"unknown comment: {words}")
        line = page.count("\n", 0, fence.start()) + 1
        text = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        found.append(Block(line, fence[2], text, not_run, tuple(stages), interrupted))
    return found


def matches(expected: tuple[str, ...], printed: list[str]) -> bool:
    """Whether a page's lines describe all that was printed. Blanks in a row count as one."""
    parts: list[str] = []
    for line in expected:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            words = " ".join(line.split())
            parts.append(".*?".join(re.escape(part) for part in words.split("...")) + r"\n")
    return re.fullmatch("".join(parts), "".join(" ".join(line.split()) + "\n" for line in printed)) is not None
