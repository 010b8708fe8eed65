"""Every command of the documentation is run, and prints what the page says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid.cli import parser
from sockpid.manual.commands import commands
from tests.kernel.conftest import REQUIRED, cannot_load_bpf

from . import reference
from .page import PAGES, ROOT, blocks, matches
from .shell import Shell
from .stage import STAGES

READY = "sockpid: offsets from"

NOT_RUN = {
    "tests/docs/test_examples.py does it in a copy of the tree": 1,
    "tests/kernel/test_pin.py does it where there is a compiler": 1,
    "it is what makes a release": 6,
    "it is what runs the tests": 2,
    "PyInstaller takes half a minute": 1,
}
"""Why commands are not run, and how many blocks of them there are. Both may change with a page, but not unseen."""

PROGRAMS = ("sockpid", "sockpid-gen", "make", "python", "python3", "apt-get", "pip", "git")


@pytest.fixture(name="shell")
def _shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    try:
        yield made
    finally:
        made.close()


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


RUN = [page for page in PAGES if any(b.language == "console" and not b.not_run for b in blocks(page.read_text()))]


@pytest.mark.kernel
@pytest.mark.parametrize("page", RUN, ids=name)
def test_commands(page: Path, shell: Shell) -> None:
    if not REQUIRED and (reason := cannot_load_bpf()):
        pytest.skip(reason)
    staged: set[str] = set()
    wrong = []
    for block in blocks(page.read_text()):
        if block.language != "console" or block.not_run:
            continue
        for stage in block.stages:
            if stage not in staged:
                STAGES[stage](shell)
                staged.add(stage)
        for command in block.commands():
            expected = command.expected

            def seen(lines: list[str], expected: tuple[str, ...] | None = expected) -> bool:
                return matches(expected, lines) if expected else any(READY in line for line in lines)

            ran = shell.run(command.text, seen if command.interrupted else None)
            where = f"{name(page)}:{command.line}: $ {command.text}"
            if ran.status != 0:
                wrong.append(f"{where}\nexit status {ran.status}: " + "\n".join(ran.lines))
            elif expected and not command.interrupted and not matches(expected, ran.lines):
                wrong.append(f"{where}\nprints\n" + "\n".join(ran.lines[:40]) + "\nand not\n" + "\n".join(expected))
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=name)
def test_python(page: Path, shell: Shell) -> None:
    """All Python of a page is one program; a block may depend on those before it."""
    found = [block for block in blocks(page.read_text()) if block.language == "python"]
    for block in found:
        for stage in block.stages:
            STAGES[stage](shell)
    (shell.here / "page.py").write_text("\n".join(block.text for block in found))
    ran = shell.run("python page.py")
    assert ran.status == 0, "\n".join(ran.lines)


def test_what_is_not_run_says_why() -> None:
    found: dict[str, int] = {}
    for page in PAGES:
        for block in blocks(page.read_text()):
            if block.not_run:
                found[block.not_run] = found.get(block.not_run, 0) + 1
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_hides_elsewhere(page: Path) -> None:
    """A line that looks like a command stands in a block that is run."""
    text = page.read_text()
    for block in blocks(text):
        assert block.language, f"line {block.line}: a fence without a language"
        if block.language == "console":
            list(block.commands())
    outside = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    hidden = [line for line in outside.splitlines() if re.match(rf"(    |\t)\$? *({'|'.join(PROGRAMS)}) \S", line)]
    assert not hidden


def test_the_reference_is_what_help_says() -> None:
    assert reference.PAGE.read_text() == reference.text(), "`make docs-cli` makes it anew"


def test_examples_of_help_are_understood() -> None:
    """Every example of `sockpid COMMAND --help` is a command line that the parser takes."""
    found = 0
    for command in commands(parser.parser()):
        for line in re.findall(r"^  (sockpid .*)$", command.examples, re.MULTILINE):
            words = shlex.split(re.split(r"  +| (?:[|>]|[|][|]|&&) |; ", line)[0], comments=True)
            parser.parser().parse_args(words[1:])
            found += 1
    assert found > 20


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name(page)}: {target}"


def test_every_page_can_be_found() -> None:
    """From docs/README.md, in one step."""
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index)}
    found_otherwise = {"docs/README.md", "README.md"}
    assert set(PAGES) - linked == {ROOT / page for page in found_otherwise}


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (("a", "b"), ["a", "b"], True),
        (("a",), ["a", "b"], False),
        (("a  b",), ["a b"], True),
        (("a...z",), ["abcz"], True),
        (("a...z",), ["abc"], False),
        (("a", "...", "z"), ["a", "z"], True),
        (("a", "...", "z"), ["a", "b", "c", "z"], True),
        (("...", "z"), ["a", "y"], False),
        (("a.c",), ["abc"], False),
    ],
)
def test_wildcards(expected: tuple[str, ...], printed: list[str], same: bool) -> None:
    assert matches(expected, printed) is same


def test_comments_and_commands_of_a_page() -> None:
    (block,) = blocks("text\n\n<!-- with: events, table -->\n<!-- ended with Ctrl-C -->\n```console\n$ a \\\n"
                      "  b\nout\n$ c\n^C\n```\n")  # fmt: skip
    assert (block.stages, block.not_run, block.interrupted) == (("events", "table"), "", True)
    first, second = block.commands()
    assert (first.line, first.text, first.expected) == (6, "a b", ("out",))
    assert (second.line, second.expected, second.interrupted) == (9, None, True)
    with pytest.raises(ValueError, match="unknown comment"):
        blocks("<!-- notrun: x -->\n```console\n```\n")
