"""Commands that a page has people type and no test can run: whether there is what they name."""

from __future__ import annotations

import re
import shlex
import shutil

from sockpid.cli import parser as cli_parser
from sockpid.manual.commands import Command, commands
from sockpid_gen.cli import man

from .page import ROOT, blocks

OURS = {"make", "sockpid-gen", "sockpid"}
OTHERS = {"cd", "git", "grep", "python3", "sha256sum", "ssh-keygen"}
"""Programs of others that pages have people type."""


def typed(page: str) -> list[list[str]]:
    """Every simple command of a page's text, without what is set in its environment."""
    found = []
    for block in blocks(page):
        for command in block.commands():
            words: list[str] = []
            lexer = shlex.shlex(command.text, posix=True, punctuation_chars="|&;")
            lexer.whitespace_split = True
            for word in (*lexer, ";"):
                if set(word) <= set("|&;"):
                    found.append(words)
                    words = []
                elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
                    words.append(word)
    return [
        ["sockpid", *words[2:]] if words[0] == "python3" and words[1].endswith(".pyz") else words for words in found
    ]


def wrong(words: list[str]) -> list[str]:
    """What in a command is not there: a program, a target of the Makefile, a command or an option of ours."""
    if words[0] == "make":
        there = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return [word for word in words[1:] if "=" not in word and word not in there]
    if words[0] == "sockpid-gen":
        return _unknown(words, man.commands())
    if words[0] == "sockpid":
        return _unknown(words, commands(cli_parser.parser()))
    return [] if words[0] in OTHERS and (words[0] == "cd" or shutil.which(words[0])) else [words[0]]


def _unknown(words: list[str], known: list[Command]) -> list[str]:
    by_name = {command.name: command for command in known}
    named = not words[1].startswith("-")
    if named and words[1] not in by_name:
        return [words[1]]
    options = by_name[words[1] if named else ""].options
    flags = {flag for option in options for flag in option.flags} | {"--help", "--version"}
    return [word for word in words[1:] if word.startswith("-") and word.partition("=")[0] not in flags]
