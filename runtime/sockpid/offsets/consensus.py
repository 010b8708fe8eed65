"""Offsets for a build that no table has, where all builds that a shard does have agree on every field in use.

Distributions rebuild a kernel many times without moving a field. That is no proof for the next build, so what comes out
here may only be used when it was asked for (--consensus), and the self-check on the running kernel decides.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Optional, Set, Tuple, Union

from sockpid.arch import Arch
from sockpid.errors import ConsensusError
from sockpid.image.image import Image
from sockpid.table.layout import Field, Layout, Struct, Wanted
from sockpid.table.table import Entry, Shard, is_measured

MINIMUM = 2
"""Builds that must agree: one alone says nothing about what changes from build to build."""


def agree(shard: Shard, image: Image, arch: Arch, banner: str) -> Tuple[Layout, int]:
    """The layout on which the builds in `shard` agree, and how many different ones they are.

    Builds with and without PREEMPT_RT have different layouts by their configuration, and a kernel's banner says which
    it is: only builds of the kind of `banner` are asked. All of these must agree, whoever built them and however they
    are configured otherwise, on every field that `image` names. Raises ConsensusError naming the field and two kernels
    that differ, or what is missing; TableError for damaged rows.
    """
    rt = is_rt("", banner)
    alike = [e for e in shard.entries if is_rt(e.release, e.banner) == rt and is_measured(e.provenance)]
    builds = count_builds(alike)
    if builds < MINIMUM:
        raise ConsensusError(
            f"{shard.name} has {builds} build{'' if builds == 1 else 's'} of {shard.series} "
            f"{'with' if rt else 'without'} PREEMPT_RT; a consensus takes at least {MINIMUM}",
            None,
        )
    wanted = image.wanted(arch)
    first = alike[0]
    layout = shard.layout(first)
    reference = _values(layout, wanted)
    for entry in {e.layout: e for e in reversed(alike)}.values():
        other = shard.layout(entry)
        missing = image.missing(arch, other)
        if missing:
            raise ConsensusError(f"no consensus: {_name(entry)} does not speak of {missing[0]}", missing[0])
        for field, value in _values(other, wanted).items():
            if value != reference[field]:
                raise ConsensusError(
                    f"no consensus on {field}: {_place(reference[field])} in {_name(first)}, {_place(value)} in "
                    f"{_name(entry)}",
                    field,
                )
    return layout, builds


def is_rt(release: str, banner: Optional[str]) -> bool:
    """Whether a kernel was built with PREEMPT_RT, as its version banner says ("PREEMPT RT" in older patches).

    Of an entry without a banner the release has to tell: Debian's are called 6.1.0-56-rt-amd64.
    """
    if banner is None:
        return re.search(r"[-.]rt[0-9]*([-.]|\Z)", release) is not None
    return "PREEMPT_RT" in banner or "PREEMPT RT" in banner


def count_builds(entries: List[Entry]) -> int:
    """How many different builds these entries surely are of.

    One build may be there twice, with its build-id and without. What is known by its release alone may be any build of
    that release.
    """
    builds = 0
    seen: Set[Tuple[Optional[str], ...]] = set()
    # Those with a build-id first, those with a release alone last.
    for entry in sorted(entries, key=lambda e: (e.build_id is None, e.banner is None)):
        names: List[Tuple[Optional[str], ...]] = [(entry.build_id,)] if entry.build_id is not None else []
        if entry.banner is not None:
            names.append((entry.release, entry.banner))
        new = seen.isdisjoint(names or [(entry.release, None)])
        builds += new
        seen.update(names, [(entry.release, None)])
    return builds


def _values(layout: Layout, wanted: Wanted) -> Dict[str, Union[Field, int, None]]:
    """Every wanted field and enumerator by its full name; None: the kernel has none."""
    values: Dict[str, Union[Field, int, None]] = {}
    for name, paths in wanted.items():
        row = layout.get(name)
        values[name] = int(row is not None)
        for path in paths:
            known: Mapping[str, Union[Field, int, None]] = {}
            if row is not None:
                known = row.fields if isinstance(row, Struct) else row.values
            values[f"{name}.{path}"] = known.get(path)
    return values


def _place(value: Union[Field, int, None]) -> str:
    if isinstance(value, Field):
        return (
            f"bit {value.bit_offset}, {value.bit_size} bits"
            if value.bitfield
            else f"{value.offset}, {value.size} bytes"
        )
    return "absent" if value is None else str(value)


def _name(entry: Entry) -> str:
    return f"{entry.release} ({(entry.build_id or 'no build-id')[:12]})"
