"""Checks a directory of offset tables: every line as the runtime reads it, schema, canonical form, and whether the
images find all they read."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple

from sockpid.arch import of_machine
from sockpid.errors import SockpidError, TableError
from sockpid.table import table
from sockpid_gen.extraction.wanted import image_for

from . import shard


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
    problems: List[str] = []

    def note(of: Callable[[], object]) -> bool:
        """Whether this finds nothing wrong; what it finds is a problem."""
        try:
            of()
        except SockpidError as error:
            problems.append(str(error).replace(f"{path}: ", ""))
        return not problems

    # First what the runtime looks at, by its own reader; of every line.
    note(lambda: parsed.entries)
    note(lambda: list(parsed.layouts.values()) + list(parsed.structs.values()))
    note(lambda: shard.validate(json.loads(content), str(path)))
    for entry in () if problems else parsed.entries:
        note(functools.partial(parsed.layout, entry))
    note(lambda: shard.read_sources(path))
    if (parsed.arch, f"{parsed.series}.json") != (path.parent.name, path.name):
        problems.append(f"it is for {parsed.arch} {parsed.series}, which its path does not say")
    if problems:
        return Checked(path, len(parsed), sorted(set(problems), key=problems.index))
    if shard.canonical(shard.decode(parsed)) != content:
        problems.append("not in canonical form")
    problems.extend(f"struct row {key} is not in use" for key in _unused_structs(parsed))
    problems.extend(f"layout {key} is not in use" for key in parsed.layouts.keys() - {e.layout for e in parsed.entries})
    identities = Counter(e.build_id or (e.release, e.banner) for e in parsed.entries)
    problems.extend(f"{identity} is there {count} times" for identity, count in identities.items() if count > 1)
    strangers = shard.read_sources(path).keys() - set(map(shard.source_key, (e._asdict() for e in parsed.entries)))
    problems.extend(f"{path.stem}.sources has {key}, which the shard does not have" for key in sorted(strangers))
    arch = of_machine(parsed.arch)
    image = image_for(arch)
    for entry in parsed.entries:
        missing = image.missing(arch, parsed.layout(entry))
        if missing:
            name = f"kernel {entry.release} ({entry.build_id or 'no build-id'})"
            problems.append(f"{name} does not speak of {', '.join(missing)}; add it again from its source")
    return Checked(path, len(parsed.entries), problems)


def _unused_structs(parsed: table.Shard) -> List[str]:
    used = {row for layout in parsed.layouts.values() for row in layout.values()}
    return sorted(parsed.structs.keys() - used)
