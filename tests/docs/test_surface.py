"""The public surface is what docs/surface.txt says, and nobody changes it without saying so."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sockpid_gen
from sockpid.graph import TransportGraph
from sockpid.table.table import READ, SCHEMA
from sockpid.top.model import Model
from tests.streams import document
from tests.surface import cli, library, page, schema

from .page import ROOT

PROMISES = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")


def test_no_change_is_undeclared() -> None:
    committed, now = page.PAGE.read_text(encoding="ascii"), page.text()
    changed = page.difference(committed, now)
    assert not changed, (
        f"the public surface is another:\n{changed}\nMay it be (docs/compatibility.md)? Then `make surface` writes "
        "docs/surface.txt anew, and CHANGELOG.md tells users of it."
    )
    assert committed == now, "`make surface` writes docs/surface.txt anew"


def test_what_went_and_what_came() -> None:
    old = "head\n\n[one]\na\nb\n\n[two]\na\n"
    assert page.difference(old, old) == ""
    assert page.difference(old, "another head\n\n[two]\na\n\n[one]\nb\na\n") == ""
    assert page.difference(old, "head\n\n[one]\nb\nc\n\n[two]\nd\n") == "[one]\n- a\n+ c\n[two]\n- a\n+ d"


def test_no_module_is_named_that_is_not_public() -> None:
    text = page.text()
    assert set(re.findall(r"\bsockpid\.(\w+)", text)) == {"graph", "errors"}
    assert set(re.findall(r"\bsockpid_gen\.(\w+)", text)) == set(sockpid_gen.__all__)
    assert "0x7" not in re.sub(r"0x[0-9a-f]{16}", "", text), "an address of this run"


def test_every_statement_of_a_schema_is_a_line() -> None:
    made: dict[str, Any] = {
        "title": "not told",
        "required": ["a"],
        "properties": {"a": {"enum": ["x", None]}, "b": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/part"}]}},
        "$defs": {"part": {"type": ["array", "null"], "items": {"minimum": 1}, "additionalProperties": False}},
    }
    lines = {
        "whole.a required", 'whole.a enum "x"', "whole.a enum null", "whole.b optional", "whole.b type null",
        "whole.b is part", "part type array", "part type null", "part[] minimum 1", "part additionalProperties false",
    }  # fmt: skip
    assert set(schema.lines(made, "whole")) == lines
    made["required"], made["properties"]["a"]["enum"] = [], ["x"]
    assert lines ^ set(schema.lines(made, "whole")) == {"whole.a required", "whole.a optional", "whole.a enum null"}


def function(where: Sequence[Path], /, tick: Any = lambda _: None, *more: argparse.Action, far: bool = True) -> None:
    """Does it. Raises nothing."""


class Fields(NamedTuple):
    """Two."""

    path: Path
    sizes: Sequence[int] = ()


class Made:
    """Is made.

    And more.
    """

    LIMIT = 8
    _HIDDEN = 9

    def __init__(self, where: Path, *, wide: bool = False) -> None:
        self.here: Path = where
        self.one = self.other = wide
        self._hidden = 1

    def __len__(self) -> int:
        return self.LIMIT

    @classmethod
    def of(cls, where: str | None = None) -> Made:
        """Of a place: this."""
        return cls(Path(where or ""))

    @property
    def size(self) -> int:
        return 1

    def _private(self) -> None: ...


class Failed(Exception):
    pass


def test_python_is_told_as_it_is_used() -> None:
    assert list(library.lines("f", function)) == [
        "f(where: Sequence[Path], tick: Any = ..., *more: Action, far: bool = True) -> None  # Does it."
    ]
    assert list(library.lines("Fields", Fields)) == [
        "Fields(path: Path, sizes: Sequence[int] = ())  # Two.",
        "Fields.path: Path",
        "Fields.sizes: Sequence[int]",
    ]
    assert list(library.lines("Failed", Failed)) == ["Failed(*args)"]


def test_public_members_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Made, "__module__", "sockpid.somewhere")  # others' base classes are not ours to promise
    assert list(library.lines("Made", Made)) == [
        "Made(where: Path, *, wide: bool = False)  # Is made.",
        "Made.LIMIT = 8",
        "Made.__len__() -> int",
        "Made.here: Path",
        "Made.of(where: str | None = None) -> Made [class]  # Of a place: this.",
        "Made.one",
        "Made.other",
        "Made.size: int",
    ]


def test_options_are_told_with_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def parser() -> argparse.ArgumentParser:
        whole = argparse.ArgumentParser(add_help=False)
        one = whole.add_subparsers().add_parser("one", add_help=False)
        one.add_argument("-n", "--number", type=int, default=3, metavar="N")
        one.add_argument("--kind", choices=("x", "y"), action="append", required=True)
        one.add_argument("--flag", action="store_true")
        one.add_argument("places", nargs="*", metavar="PLACE")
        return whole

    monkeypatch.setattr(cli, "parser", parser)
    assert [line for line in cli.sockpid() if "sockpid run" not in line] == [
        "sockpid command",
        "sockpid one command",
        "sockpid one -n, --number N, default 3",
        "sockpid one --kind CHOICE, required, repeatable",
        "sockpid one --kind x",
        "sockpid one --kind y",
        "sockpid one --flag",
        "sockpid one argument 1: PLACE, optional, repeatable",
    ]


@pytest.mark.parametrize(
    ("row", "section", "line"),
    [
        (r"Events \| schema (\d+)", "events", "event.schema const {}"),
        (r"The pinned map \| version (\d+)", "pinned map", "SOCKPID_ABI {}"),
        (r"Offset tables \| schema ([\d.]+)", "offset table", "written: schema {}"),
        (r"Bytecode images \| schema ([\d.]+)", "bytecode image", "schema {}"),
        (r"Bundles \| manifest ([\d.]+)", "bundle", "MANIFEST.json schema {}"),
        (r"Requests \| version (\d+)", "request", "sockpid-request {}"),
    ],
)
def test_promises_are_about_what_there_is(row: str, section: str, line: str) -> None:
    (number,) = re.findall(row, PROMISES)
    assert (section, line.format(number)) in page.things(page.text())


def test_promises_name_the_tables_that_are_read() -> None:
    older = [f"{major}.{minor}" for major, minor in sorted(READ.items()) if (major, minor) != SCHEMA]
    assert re.findall(r"`sockpid` also reads ([\d., ]+\d)", PROMISES) == [", ".join(older)]


def test_events_of_the_first_release_are_read() -> None:
    """With the required keys alone."""
    required = schema.load(ROOT / "docs/events.schema.json")["$defs"]["event"]["required"]
    whole = document()
    old = {key: whole[key] for key in required}
    assert len(old) < len(whole)
    graph = TransportGraph()
    graph.handle_transport_event(old)
    top = Model()
    top.add(old)
    assert (graph.events, top.events) == (1, 1)
