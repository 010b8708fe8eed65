"""Layouts that a kernel may have which no table knows and which has no BTF: those of the known builds of its series.

Distributions rebuild a kernel many times without moving a field, so most such kernels have one of these few layouts.
That is no proof: each is a candidate, and is used if every field of it was proved on the running kernel.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

from sockpid.arch import Arch
from sockpid.image.image import Image
from sockpid.table.layout import Field, Layout, Struct, Wanted
from sockpid.table.table import Entry, Shard, is_measured


class Candidate(NamedTuple):
    """A layout, the release of the build nearest to the running kernel that has it, and how many builds have it."""

    layout: Layout
    release: str
    builds: int


def candidates(shard: Shard, image: Image, arch: Arch, release: str, banner: str) -> List[Candidate]:
    """The different layouts of a shard's builds that a kernel may have, likeliest first.

    Builds with and without PREEMPT_RT have different layouts by their configuration, and the kernel's banner says which
    it is: only those of the same kind are candidates. Those of the same flavour (what letters there are in the release)
    come before others, and the nearest release before those further away. What was itself found by trying, or
    concluded, is none; nor is what does not speak of every field that the image reads. Raises TableError for damaged
    rows.
    """
    wanted = image.wanted(arch)
    rt = is_rt("", banner)
    alike = [e for e in shard.entries if is_rt(e.release, e.banner) == rt and is_measured(e.provenance)]
    layouts: Dict[str, Layout] = {}
    found: Dict[Tuple[object, ...], List[Entry]] = {}
    keys: Dict[str, Optional[Tuple[object, ...]]] = {}
    for entry in sorted(alike, key=lambda e: distance(release, e.release)):
        if entry.layout not in keys:
            layout = layouts[entry.layout] = shard.layout(entry)
            complete = not image.missing(arch, layout)
            keys[entry.layout] = _key(layout, wanted) if complete else None
        key = keys[entry.layout]
        if key is not None:
            found.setdefault(key, []).append(entry)
    return [Candidate(layouts[same[0].layout], same[0].release, count_builds(same)) for same in found.values()]


def _key(layout: Layout, wanted: Wanted) -> Tuple[object, ...]:
    """Equal for layouts in which every wanted field lies at the same place. Not every source tells what is signed."""
    return tuple(
        (name, value[:3] if isinstance(value, Field) else value)
        for name, value in sorted(values(layout, wanted).items())
    )


def distance(release: str, other: str) -> Tuple[bool, List[int]]:
    """What is smaller is likelier to have the same layout."""
    here, there = ([int(digits) for digits in re.findall("[0-9]{1,9}", text)] for text in (release, other))
    apart = [abs(one - two) for one, two in zip(here, there)]
    return re.findall("[a-z]+", release.lower()) != re.findall("[a-z]+", other.lower()), apart


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


def values(layout: Layout, wanted: Wanted) -> Dict[str, Union[Field, int, None]]:
    """Every wanted field and enumerator by its full name; None: the kernel has none."""
    found: Dict[str, Union[Field, int, None]] = {}
    for name, paths in wanted.items():
        row = layout.get(name)
        found[name] = int(row is not None)
        for path in paths:
            known: Mapping[str, Union[Field, int, None]] = {}
            if row is not None:
                known = row.fields if isinstance(row, Struct) else row.values
            found[f"{name}.{path}"] = known.get(path)
    return found
