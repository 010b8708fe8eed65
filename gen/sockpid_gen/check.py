"""Checks a directory of offset tables: schema, canonical form, content ids, and whether the images find all they
read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Iterator, List, NamedTuple

from sockpid import table
from sockpid.arch import of_machine
from sockpid.errors import SockpidError, TableError

from . import shard
from .wanted import image_for


class Checked(NamedTuple):
    """One file: how many kernels it has, and what is wrong with it, one line each."""

    path: Path
    kernels: int
    problems: List[str]


def check(directory: Path) -> Iterator[Checked]:
    """Checks every shard below `directory`. Raises TableError if there is none."""
    paths = sorted(path for path in directory.glob("*/*.json"))
    if not paths:
        raise TableError(f"{directory} has no offset tables (<arch>/<series>.json)")
    for path in paths:
        try:
            yield _check(path)
        except SockpidError as error:
            yield Checked(path, 0, [str(error).replace(f"{path}: ", "")])


def _check(path: Path) -> Checked:
    content = path.read_bytes()
    parsed = table.parse_shard(content, str(path))
    shard.validate(json.loads(content), str(path))
    problems: List[str] = []
    if shard.canonical(shard.decode(parsed)) != content:
        problems.append("not in canonical form")
    if (parsed.arch, f"{parsed.series}.json") != (path.parent.name, path.name):
        problems.append(f"it is for {parsed.arch} {parsed.series}, which its path does not say")
    for what, rows in (("struct row", parsed.structs), ("layout", parsed.layouts)):
        problems.extend(f"{what} {key} was altered" for key, row in rows.items() if table.row_id(row) != key)
    problems.extend(f"struct row {key} is not in use" for key in _unused_structs(parsed))
    problems.extend(f"layout {key} is not in use" for key in parsed.layouts.keys() - {e.layout for e in parsed.entries})
    identities = Counter(e.build_id or (e.release, e.banner) for e in parsed.entries)
    problems.extend(f"{identity} is there {count} times" for identity, count in identities.items() if count > 1)
    arch = of_machine(parsed.arch)
    image = image_for(arch)
    for entry in parsed.entries:
        name = f"kernel {entry.release} ({entry.build_id or 'no build-id'})"
        if table.series_of(entry.release) != parsed.series:
            problems.append(f"{name} does not belong to series {parsed.series}")
        missing = image.missing(arch, parsed.layout(entry))
        if missing:
            problems.append(f"{name} does not speak of {', '.join(missing)}; add it again from its source")
    return Checked(path, len(parsed.entries), problems)


def _unused_structs(parsed: table.Shard) -> List[str]:
    used = {row for layout in parsed.layouts.values() for row in layout.values()}
    return sorted(parsed.structs.keys() - used)
