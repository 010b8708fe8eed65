"""What other programs read in binary or as files: the pinned map, tables, images, bundles, requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sockpid.bundle.bundle import _ABOUT as MANIFEST_KEYS
from sockpid.bundle.bundle import MANIFEST
from sockpid.bundle.bundle import SCHEMA as MANIFEST_SCHEMA
from sockpid.image.image import PROBE_CTX, SETTING
from sockpid.image.image import SCHEMA as IMAGE_SCHEMA
from sockpid.pins.pin import DIRECTORY, path_of
from sockpid.request.request import _FORMS as REQUEST_KEYS
from sockpid.request.request import VERSION as REQUEST_VERSION
from sockpid.table.table import READ as TABLES_READ
from sockpid.table.table import SCHEMA as TABLE_SCHEMA
from sockpid_gen.image.core_relo import KINDS

from . import schema

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "bpf_bytecode/sockpid.h"
IMAGES = sorted((ROOT / "bpf_bytecode").glob("sockpid.*.json"))

PUBLIC = ("socket_tuple", "process", "socket_owner")
"""Structs of the pinned map: its key, what is in its value, its value."""

MEMBER = re.compile(r"^\t((?:struct )?\w+) (\w+)(\[\w+\])?;", re.MULTILINE)


def pinned_map() -> Iterator[str]:
    """The map socket_to_pid: where it is, and its layout as the compilers of both byte orders have it."""
    header = HEADER.read_text(encoding="utf-8")
    yield path_of("DIR", "socket_to_pid")
    yield f"DIR is {DIRECTORY} unless told otherwise"
    for name, value in re.findall(
        r"^#define (SOCKPID_ABI|TASK_COMM_LEN|SEAL_SEED|OWNER_\w+) (.+?)(?: */\*|$)", header, re.M
    ):
        yield f"{name} {value}"
    for name, number in re.findall(r"^\t(HOW_\w+) = (\d+),", header, re.M):
        yield f"enum how {number} {name}"
    (factor,) = re.findall(r"\* (0x[0-9a-f]+)ULL;", header)
    yield f"seal_word() multiplies by {factor}"
    for path in IMAGES:
        image = schema.load(path)
        made = image["maps"]["socket_to_pid"]
        yield f"socket_to_pid {made['type']}, key of {made['key_size']} bytes, value of {made['value_size']} bytes"
        for name in PUBLIC:
            yield from _struct(f"struct {name}", image["abi"][f"struct {name}"], header)


def _struct(name: str, layout: Mapping[str, Any], header: str) -> Iterator[str]:
    (body,) = re.findall(rf"^{name} {{\n(.*?)^}};", header, re.MULTILINE | re.DOTALL)
    types = {member: kind + array for kind, member, array in MEMBER.findall(body)}
    yield f"{name} of {layout['size']} bytes"
    for member, (offset, size) in layout["members"].items():
        yield f"{name} at {offset:02}: {types[member]} {member}, {size} bytes"


def table() -> Iterator[str]:
    """Offset tables: which are read and written, and all that their schemas say."""
    yield "written: schema {}.{}".format(*TABLE_SCHEMA)
    for major, minor in TABLES_READ.items():
        yield f"read: schema {major}.{minor}"
        for line in schema.lines(schema.load(ROOT / f"offsets/schema-{major}.json"), "shard"):
            yield f"{major}: {line}"


def image() -> Iterator[str]:
    """Bytecode images. Every key is required; what programs and maps there are is nobody else's matter."""
    yield "schema {}.{}".format(*IMAGE_SCHEMA)
    yield f"type {PROBE_CTX} is not the kernel's"
    yield f"type {SETTING} is not the kernel's"
    for kind in KINDS.values():
        yield f"relocation kind {kind}"
    for path in IMAGES:
        found = schema.load(path)
        yield from _keys("image", found)
        for name, parts in (("map", found["maps"]), ("program", found["programs"]), ("struct", found["abi"])):
            for part in parts.values():
                yield from _keys(name, part)
        for program in found["programs"].values():
            for relocation in program["relocations"]:
                yield from _keys("relocation", relocation)


def _keys(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    words = {str: "string", int: "integer", list: "array", dict: "object"}
    for key, value in found.items():
        yield f"{name}.{key} {words[type(value)]}"


def bundle() -> Iterator[str]:
    """The manifest of a bundle. Every key is required."""
    yield f"{MANIFEST} schema {MANIFEST_SCHEMA}"
    for key in MANIFEST_KEYS:
        yield f"{MANIFEST}: {key}"


def request() -> Iterator[str]:
    """What a host asks for offsets with. Every key is required."""
    yield f"sockpid-request {REQUEST_VERSION}"
    yield from (*REQUEST_KEYS, "check")
