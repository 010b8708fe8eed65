"""JSON Schemas, one statement a line: "event.pid type null"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

WORDS = ("$schema", "$id", "title", "description", "$defs", "required", "properties")
"""What is said of the schema itself, and what is told otherwise."""

BELOW = {"items": "[]", "additionalProperties": ".*", "propertyNames": " keys"}
"""What speaks of parts that have no name of their own, and what stands for these."""


def events() -> Iterator[str]:
    """Of the events, docs/events.schema.json."""
    return lines(load(ROOT / "docs/events.schema.json"), "line")


def load(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def lines(schema: Mapping[str, Any], name: str) -> Iterator[str]:
    """All that a schema says. name: what to call its document; its definitions have names of their own."""
    yield from _of(schema, name)
    for definition, inner in schema.get("$defs", {}).items():
        yield from _of(inner, definition)


def _of(node: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, inner in node.get("properties", {}).items():
        yield f"{path}.{name} {'required' if name in node.get('required', ()) else 'optional'}"
        yield from _of(inner, f"{path}.{name}")
    for word, value in node.items():
        if word in WORDS:
            continue
        if word == "oneOf":
            for inner in value:
                yield from _of(inner, path)
        elif word == "$ref":
            yield f"{path} is {value.rpartition('/')[2]}"
        elif word in BELOW and isinstance(value, dict):
            yield from _of(value, path + BELOW[word])
        elif word == "prefixItems":
            for number, inner in enumerate(value):
                yield from _of(inner, f"{path}[{number}]")
        else:
            for each in value if isinstance(value, list) else [value]:
                yield f"{path} {word} {each if word == 'type' else json.dumps(each)}"
