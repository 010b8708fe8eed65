"""Tables for this very kernel whose ids and digests are right and whose content is not, as a forger or a generator with
a bug would write them; and what reads them, and what the self-check says then."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sockpid.arch import Arch
from sockpid.errors import SockpidError
from sockpid.host import kernel
from sockpid.image.image import Image
from sockpid.image.relocate import Resolved, resolve
from sockpid.offsets import offsets
from sockpid.offsets.source import Offsets
from sockpid.table import table, writer
from sockpid.table.layout import Field, Layout, Struct

ROOT = Path(__file__).parents[2]
SAME = "the same instructions"


class Forgery(NamedTuple):
    """what: the type or field that it is about. how: what was done to it."""

    what: str
    how: str


def entry(identity: kernel.Identity, layout: Layout, **changes: object) -> bytes:
    """A shard with this kernel alone, as `sockpid-gen add` would write it. changes: what else its entry says."""
    document = writer.empty(identity.arch.name, table.series_of(identity.release), "sockpid-gen 0")
    entry = {
        "build_id": identity.build_id,
        "release": identity.release,
        "banner": identity.banner,
        "distribution": None,
        "btf_ids": None,
        "provenance": {"kind": "btf"},
        **changes,
    }
    writer.add(document, entry, layout)
    return writer.encode(document)


def all_of(arch: Arch, layout: Layout) -> dict[Forgery, Layout]:
    """Every forgery, each layout once; but for fields that are moved or resized, which tests.kernel.mutations makes."""
    seen = [layout]
    found: dict[Forgery, Layout] = {}
    for forgery, forged in _all(arch, layout):
        if forged not in seen:
            seen.append(forged)
            found[forgery] = forged
    return found


def _all(arch: Arch, layout: Layout) -> Iterator[tuple[Forgery, Layout]]:
    for name, row in sorted(layout.items()):
        yield Forgery(name, "is none"), {**layout, name: None}
        yield Forgery(name, "was not looked for"), {key: other for key, other in layout.items() if key != name}
        if isinstance(row, Struct):
            for how, path, fields in _of_fields(row):
                yield Forgery(f"{name}.{path}", how), {**layout, name: row._replace(fields=fields)}
    for file in sorted((ROOT / "offsets" / arch.name).glob("*.json")):
        shard = table.parse_shard(file.read_bytes(), file.stem)
        for one in {one.layout: one for one in shard.entries}.values():
            other = shard.layout(one)
            yield Forgery("everything", f"of {one.release}"), {**other}
            for name in sorted(layout.keys() & other.keys()):
                yield Forgery(name, f"of {one.release}"), {**layout, name: other[name]}


def _of_fields(row: Struct) -> Iterator[tuple[str, str, dict[str, Field | None]]]:
    for path, field in sorted(row.fields.items()):
        yield "was not looked for", path, {key: other for key, other in row.fields.items() if key != path}
        if field is not None:
            yield "is none", path, {**row.fields, path: None}
            yield "is signed", path, {**row.fields, path: field._replace(signed=not field.signed)}
            yield "is a bit field", path, {**row.fields, path: field._replace(bitfield=not field.bitfield)}
    for one, other in itertools.combinations(sorted(row.fields), 2):
        if row.fields[one] != row.fields[other]:
            exchanged = {one: row.fields[other], other: row.fields[one]}
            yield f"exchanged with {other}", one, {**row.fields, **exchanged}


def instructions(identity: kernel.Identity, image: Image, layout: Layout) -> dict[str, Resolved]:
    """What would be loaded, but for where it is attached. Raises RelocationError."""
    arch = identity.arch
    return {
        name: resolve(program, arch.byte_order, layout, arch.pointer_size) for name, program in image.programs.items()
    }


def read(identity: kernel.Identity, image: Image, right: Layout, path: Path, forged: Layout) -> str | Offsets:
    """What refuses a forged table before anything is loaded; SAME if nothing that is loaded depends on what was forged;
    else the offsets, which the self-check has to judge."""
    path.write_bytes(entry(identity, forged))
    try:
        found = offsets.find(image, identity, str(path), frozenset(["live-btf"]))
        before, after = (instructions(identity, image, one) for one in (right, found.layout))
    except SockpidError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        path.unlink()
    if before == after and right.get("struct pt_regs") == found.layout.get("struct pt_regs"):
        return SAME
    return found
