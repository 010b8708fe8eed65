"""The published schema, the documentation and what the runtime tells say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sockpid.event import event
from sockpid.outputs.base import gap
from sockpid.owner import labels
from tests.streams import document, unknown

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "events.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_schema_names_every_key() -> None:
    assert set(SCHEMA["$defs"]["event"]["properties"]) == set(document())
    wanted = labels.Wanted(labels.KINDS, ("RANK",))
    assert set(SCHEMA["$defs"]["labels"]["properties"]) == set(labels.empty(wanted, None))
    assert set(SCHEMA["$defs"]["gap"]["properties"]) == set(gap("node-1", 5).document)


def test_schema_and_documentation_name_every_value() -> None:
    values = SCHEMA["$defs"]["event"]["properties"]
    assert set(values["how"]["enum"]) == {*event.HOW.values(), "holder"}
    page = (DOCS / "events.md").read_text()
    for key in ("kind", "how", "reason", "doubt", "found"):
        for value in values[key]["enum"]:
            assert value is None or f"`{value}`" in page, (key, value)


def test_documentation_explains_every_key() -> None:
    explained = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", (DOCS / "events.md").read_text(), re.M)))
    )
    assert explained >= set(document()) | set(SCHEMA["$defs"]["labels"]["properties"])


@pytest.mark.parametrize(
    "good",
    [
        document(),
        unknown(),
        document(how="kernel", pid=None),
        document(how="holder", certain=False, doubt="not-held", ifindex=7, kind="simple"),
        {key: value for key, value in document().items() if key not in ("certain", "doubt", "ifindex")},
        document(labels=labels.empty(labels.Wanted(labels.KINDS, ("RANK",)), "exited")),
        document(labels={"env": {"RANK": "1", "B": None}, "reason": None}),
        document(sharers=[{"pid": 1, "comm": "init"}]),
        document(key_of_a_later_release=1),
        gap("node-1", 5).document,
        {"schema": 1, "ts_ns": 1, "dropped": 5},
    ],
)
def test_schema_accepts(good: dict[str, Any]) -> None:
    VALIDATOR.validate(good)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        document(schema=2),
        document(pid="4711"),
        document(kind="retransmit"),
        document(sport=70000),
        document(reason="no idea"),
        document(doubt="no idea"),
        document(certain="yes"),
        document(kind="retransmit", ifindex=-1),
        {key: value for key, value in document().items() if key != "host"},
        gap("node-1", 0).document,
        {"schema": 1, "ts_ns": 1, "dropped": 5, "host": None},
    ],
)
def test_schema_refuses(bad: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(bad)
