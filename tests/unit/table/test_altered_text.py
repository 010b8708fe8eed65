"""The text of a table or an image with one thing altered and its digests left: refused by name, or it says the same."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sockpid.errors import ImageError, TableError
from sockpid.image.image import parse_image
from sockpid.table import table

ROOT = Path(__file__).parents[3]
SHARDS = ("x86_64/6.1", "x86_64/6.12", "aarch64/6.12", "s390x/6.1", "arm/6.12")
EACH = 60
"""So often is each alteration made, at places drawn by chance, of an entry drawn by chance."""

Lines = list[bytes]
Alter = Callable[[random.Random, Lines, int, list[int]], None]
"""Alters a shard's lines. The number is that of the entry's line; the list has those of all lines that speak of the
kernel: the first, its entry, its layout, its structs."""


def character(allowed: bytes) -> Alter:
    """Puts one character for another of the same sort."""

    def alter(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
        at = draw.choice(own)
        places = [n for n, byte in enumerate(lines[at]) if byte in allowed]
        place = draw.choice(places)
        other = draw.choice([byte for byte in allowed if byte != lines[at][place]])
        lines[at] = lines[at][:place] + bytes([other]) + lines[at][place + 1 :]

    return alter


def null(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    """Says null for a value, or a value for null."""
    at = draw.choice(own)
    values = list(re.finditer(rb'(?<=": )(null|"[^"]*"|[0-9]+|\{"offset[^}]*\})', lines[at]))
    found = draw.choice(values)
    other = b"null" if found.group() != b"null" else draw.choice((b"1", b'"a"', b'{"offset": 8, "size": 8}'))
    lines[at] = lines[at][: found.start()] + other + lines[at][found.end() :]


def key(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    """Calls something by the name of something else in the same line, or by one that there is not."""
    at = draw.choice(own)
    keys = list(re.finditer(rb'"([^"]+)"(?=: )', lines[at]))
    found = draw.choice(keys)
    other = draw.choice([one.group(1) for one in keys if one.group(1) != found.group(1)] + [b"other"])
    lines[at] = lines[at][: found.start(1)] + other + lines[at][found.end(1) :]


def value_of_another(name: bytes) -> Alter:
    """Gives the entry what another entry says."""

    def alter(draw: random.Random, lines: Lines, entry: int, _own: list[int]) -> None:
        form = re.compile(rb'"%s": (\[[^]]*\]|"[^"]*"|\{[^}]*\}|null)' % name)
        mine = form.search(lines[entry])
        theirs = {found.group() for line in lines if line[:11] == b'{"banner": ' and (found := form.search(line))}
        assert mine is not None
        others = sorted(theirs - {mine.group()}) or [mine.group().replace(b'"btf"', b'"dwarf"')]
        lines[entry] = lines[entry].replace(mine.group(), draw.choice(others))

    return alter


def kind(draw: random.Random, lines: Lines, entry: int, _own: list[int]) -> None:
    """Another kind, or a note."""
    before = re.search(rb'\{"kind": "[a-z]+"', lines[entry])
    assert before is not None
    kinds = [b'"kind": "' + one + b'"' for one in (b"btf", b"dwarf", b"calibrated", b"guess")]
    others = [b"{" + one for one in kinds if one not in before.group()] + [before.group() + b', "note": "concluded"']
    lines[entry] = lines[entry].replace(before.group(), draw.choice(others))


def row(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    """The content of one row under the id of another."""
    at = draw.choice(own[2:])
    others = [n for n, line in enumerate(lines) if line[17:20] == b'": ' and n != at]
    other = draw.choice(others)
    lines[at] = lines[at][:20] + lines[other][20:]


def lost(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    del lines[draw.choice(own)]


def doubled(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    at = draw.choice(own)
    lines.insert(draw.choice((at, draw.randrange(len(lines)))), lines[at])


def exchanged(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    at, other = draw.choice(own), draw.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def cut(draw: random.Random, lines: Lines, _entry: int, own: list[int]) -> None:
    at = draw.choice(own)
    start = draw.randrange(len(lines[at]))
    lines[at] = lines[at][:start] + lines[at][start + draw.randrange(1, 40) :]


ALTERATIONS: dict[str, Alter] = {
    "digit": character(b"0123456789"),
    "letter": character(b"abcdefghijklmnopqrstuvwxyz_"),
    "sign": character(b'{}[]",:.- '),
    "null": null,
    "key": key,
    "layout": value_of_another(b"layout"),
    "ids": value_of_another(b"btf_ids"),
    "build-id": value_of_another(b"build_id"),
    "banner": value_of_another(b"banner"),
    "release": value_of_another(b"release"),
    "digest": value_of_another(b"digest"),
    "kind": kind,
    "row": row,
    "line lost": lost,
    "line doubled": doubled,
    "lines exchanged": exchanged,
    "cut": cut,
}


def says(content: bytes, name: str, wanted: table.Entry, with_build_id: bool) -> object:
    """All that a shard says of a kernel as far as events could differ by it; None if it does not know it."""
    shard = table.parse_shard(content, name)
    build_id = wanted.build_id if with_build_id else None
    found = shard.find(build_id, wanted.release, wanted.banner or "")
    if found is None:
        return None
    return shard.layout(found), found.btf_ids, table.is_measured(found.provenance), found.provenance["kind"]


def own_lines(lines: Lines, wanted: table.Entry) -> tuple[int, list[int]]:
    entry = next(n for n, line in enumerate(lines) if f'"build_id": "{wanted.build_id}"'.encode() in line)
    layout = next(n for n, line in enumerate(lines) if line.startswith(f'"{wanted.layout}": '.encode()))
    ids = set(re.findall(rb'"([0-9a-f]{16})"', lines[layout]))
    return entry, [0, entry, layout, *(n for n, line in enumerate(lines) if n != layout and line[1:17] in ids)]


@pytest.mark.parametrize("what", ALTERATIONS)
def test_an_altered_table_is_refused_or_says_the_same(what: str) -> None:
    draw, outcome = random.Random(what), Counter[str]()
    while sum(outcome.values()) < EACH:
        name = draw.choice(SHARDS)
        content = (ROOT / f"offsets/{name}.json").read_bytes()
        wanted = draw.choice([e for e in table.parse_shard(content, name).entries if e.build_id and e.banner])
        lines = content.split(b"\n")
        ALTERATIONS[what](draw, lines, *own_lines(lines, wanted))
        altered = b"\n".join(lines)
        if altered == content:
            continue
        for with_build_id in (True, False):
            try:
                said = says(altered, name, wanted, with_build_id)
            except TableError as error:
                outcome["refused" if str(error).startswith(f"{name}: ") else "not by name"] += with_build_id
                continue
            assert said is None or said == says(content, name, wanted, with_build_id), (name, wanted.release)
            outcome["not found" if said is None else "the same"] += with_build_id
    assert outcome["refused"] > 0, outcome
    assert outcome["not by name"] == 0


def test_that_makes_a_thousand() -> None:
    """Beside those that take a kernel: tests/kernel/test_mutations.py, test_forged.py; tests/vm/test_proof.py."""
    assert len(ALTERATIONS) * EACH >= 1000


# Images: one digest is over all of it.

IMAGE_EACH = 40


def image_part(draw: random.Random, content: bytes, what: str) -> bytes:
    """An image with one thing altered."""
    forms = {
        "instruction": rb'"([0-9a-f]{16})+"',
        "relocated instruction": rb'"insn": [0-9]+',
        "kind": rb'"kind": "[a-z_0-9]+"',
        "old value": rb'"old": -?[0-9]+',
        "path": rb'"path": "[^"]*"',
        "size": rb'"size": [0-9]+',
        "type": rb'"type": "[^"]+"',
        "digest": rb'"(content|digest)": "[0-9a-f]{64}"',
        "map": rb'"(max_entries|key_size|value_size)": [0-9]+',
        "relocation lost": rb'\{[^{}]*"kind"[^{}]*\},\n?',
        "helper": rb'"bpf_[a-z_0-9]+"',
    }
    places = list(re.finditer(forms[what], content))
    found = draw.choice(places)
    if what == "relocation lost":
        other = b""
    elif what in ("instruction", "digest"):
        place = draw.randrange(len(found.group()) - 18, len(found.group()) - 1)
        digit = draw.choice([byte for byte in b"0123456789abcdef" if byte != found.group()[place]])
        other = found.group()[:place] + bytes([digit]) + found.group()[place + 1 :]
    else:
        other = draw.choice(sorted({one.group() for one in places} - {found.group()}))
    return content[: found.start()] + other + content[found.end() :]


@pytest.mark.parametrize("order", ["el", "eb"])
@pytest.mark.parametrize(
    "what",
    ["instruction", "relocated instruction", "kind", "old value", "path", "size", "type", "digest", "map",
     "relocation lost", "helper"],
)  # fmt: skip
def test_an_altered_image_is_refused(what: str, order: str) -> None:
    name = f"sockpid.bpf{order}.json"
    content = (ROOT / "bpf_bytecode" / name).read_bytes()
    draw = random.Random(what + order)
    for _ in range(IMAGE_EACH // 2):
        altered = image_part(draw, content, what)
        assert altered != content
        with pytest.raises(ImageError, match=rf"^{re.escape(name)}: "):
            parse_image(altered, name)
