"""RELEASE.md names nothing that is not there, and the version is told alike everywhere."""

from __future__ import annotations

import re

import pytest

from sockpid import __version__

from .page import ROOT
from .typed import OURS, typed, wrong


def test_every_command_of_a_release_is_there() -> None:
    found = typed((ROOT / "RELEASE.md").read_text())
    assert len(found) > 20
    assert {words[0] for words in found} > OURS
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
    (words,) = typed(f"```console\n$ {command}\n```\n")
    assert wrong(words) == bad


def test_the_version_is_that_of_the_newest_section() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert re.fullmatch(re.escape(__version__) + r" - 20\d\d-\d\d-\d\d", sections[1])


def test_pages_show_this_version() -> None:
    shown = re.compile(r"\b(sockpid(?:-gen)? |\"sockpid-gen\": \")(\d+\.\d+\.\d+)\b")
    for page in ("docs/offsets-format.md", "docs/how-to/minimal-hosts.md"):
        assert {version for _, version in shown.findall((ROOT / page).read_text())} == {__version__}, page
