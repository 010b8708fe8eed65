"""RELEASE.md names nothing that is not there, and the version is told alike everywhere."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest

from sockpid import __version__, cli_parser
from sockpid.commands import Command, commands
from sockpid_gen import man

from .page import ROOT, blocks

PAGE = ROOT / "RELEASE.md"
OTHERS = {"git", "sha256sum", "ssh-keygen", "cd"}
"""Programs of others that the page has people type."""

OURS = {"make", "sockpid-gen", "sockpid"}


def typed() -> list[list[str]]:
    """Every simple command of the page, without what is set in its environment."""
    found = []
    for block in blocks(PAGE.read_text()):
        for command in block.commands():
            for simple in re.split(r" (?:&&|[|;]) ", command.text):
                words = shlex.split(simple)
                while re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words[0] == "python3" and words[1].endswith("sockpid.pyz"):
                    words[:2] = ["sockpid"]
                found.append(words)
    return found


def targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))


def unknown(words: list[str], known: list[Command]) -> list[str]:
    """What a program's parser would not know: its command, and options that this does not have."""
    by_name = {command.name: command for command in known}
    name = next((word for word in words[1:] if word in by_name), "")
    rest = words[1:] if not name else words[2:]
    if name and words[1] != name:
        return [words[1]]
    flags = {flag for option in by_name[name].options for flag in option.flags} | {"--help", "--version"}
    wrong = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in flags]
    return wrong if name or rest[0].startswith("-") else [rest[0]]


def wrong(words: list[str]) -> list[str]:
    if words[0] == "make":
        there = targets((ROOT / "Makefile").read_text())
        return [word for word in words[1:] if "=" not in word and word not in there]
    if words[0] == "sockpid-gen":
        return unknown(words, man.commands())
    if words[0] == "sockpid":
        return unknown(words, commands(cli_parser.parser()))
    return [] if words[0] in OTHERS and (words[0] == "cd" or shutil.which(words[0])) else [words[0]]


def test_every_command_of_a_release_is_there() -> None:
    found = typed()
    assert len(found) > 20
    assert {words[0] for words in found} == OURS | OTHERS
    assert not [(words, bad) for words in found if (bad := wrong(words))]


@pytest.mark.parametrize(
    ("command", "bad"),
    [
        ("make test distribution", ["distribution"]),
        ("sockpid-gen crawl --suites sid", ["--suites"]),
        ("sockpid-gen refreshed", ["refreshed"]),
        ("sockpid selftest --jsn", ["--jsn"]),
        ("sockpid --version", []),
        ("twine upload", ["twine"]),
    ],
)
def test_what_is_not_there_is_noticed(command: str, bad: list[str]) -> None:
    assert wrong(command.split()) == bad


def test_the_version_is_that_of_the_newest_section() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert re.fullmatch(re.escape(__version__) + r" - 20\d\d-\d\d-\d\d", sections[1])


def test_pages_show_this_version() -> None:
    shown = re.compile(r"\b(sockpid(?:-gen)? |\"sockpid-gen\": \")(\d+\.\d+\.\d+)\b")
    for page in ("docs/offsets-format.md", "docs/how-to/minimal-hosts.md"):
        assert {version for _, version in shown.findall((ROOT / page).read_text())} == {__version__}, page
