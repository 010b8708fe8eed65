"""One kernel as the offset table knows it: who it is, where its fields lie, and how that was learnt."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Dict, Generator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from sockpid.errors import ConflictError
from sockpid.table.layout import Layout, Wanted
from sockpid.table.table import is_measured
from sockpid_gen.files.stream import Tick
from sockpid_gen.kernel import source

from . import extraction
from .difference import compare, words
from .wanted import wanted_fields


class KernelEntry(NamedTuple):
    """One kernel. arch is as `uname -m` says it; layout holds the fields, the rest is as in docs/offsets-format.md."""

    arch: str
    build_id: Optional[str]
    release: str
    banner: Optional[str]
    distribution: Optional[str]
    btf_ids: Optional[Mapping[str, int]]
    provenance: Mapping[str, Any]
    layout: Layout

    @property
    def identity(self) -> str:
        """For messages: "6.1.0-56-cloud-amd64 (x86_64, build-id 3b43fad5034874490492495d552c0af6a5fab235)"."""
        return f"{self.release} ({self.arch}, {f'build-id {self.build_id}' if self.build_id else 'no build-id'})"

    @property
    def cited(self) -> str:
        """For messages, where the offsets were read: "BTF of linux.deb (sha256 e7d0...)"."""
        p = self.provenance
        return f"{str(p.get('kind')).upper()} of {p.get('source')} (sha256 {p.get('sha256')})"

    @property
    def measured(self) -> bool:
        """Whether it was read from that very kernel's debug information; only then it may speak for others."""
        return is_measured(self.provenance)

    def agree(self, other: KernelEntry, where: str) -> None:
        """Raises ConflictError, citing both sources, if another entry for this kernel says something else of it: of
        who it is, where a field lies, or what number a function has."""
        conflict = self._conflict(other)
        if conflict is None:
            return
        what, value, other_value = conflict
        message = (
            f"{where}: kernel {self.identity} is there with {what}: "
            f"{value} from {self.cited}; {other_value} from {other.cited}"
        )
        raise ConflictError(message, [message])

    def _conflict(self, other: KernelEntry) -> Optional[Tuple[str, str, str]]:
        """What the two differ in, and what each says."""
        if self.release != other.release:
            return "another release", repr(self.release), repr(other.release)
        if self.banner != other.banner:
            return "another banner", repr(self.banner), repr(other.banner)
        if None not in (self.distribution, other.distribution) and self.distribution != other.distribution:
            return "another distribution", repr(self.distribution), repr(other.distribution)
        differences = compare(self.layout, other.layout)
        if differences:
            field, one, another = differences[0]
            return f"other offsets; first difference in {field}", words(one), words(another)
        mine, theirs = self.btf_ids or {}, other.btf_ids or {}
        common = sorted(mine.keys() & theirs.keys())
        for name in common:
            if mine[name] != theirs[name]:
                return f"another BTF id of {name}", str(mine[name]), str(theirs[name])
        if mine and theirs and not common:
            return "BTF ids of other functions alone", ", ".join(sorted(mine)), ", ".join(sorted(theirs))
        return None

    @property
    def key(self) -> Tuple[str, ...]:
        """What no two entries of a shard share: the build-id; where the kernel has none, release and banner."""
        return (self.release, self.banner or "") if self.build_id is None else (self.build_id,)

    def is_same_kernel(self, other: KernelEntry) -> bool:
        """Whether both are the same build: equal build-ids; where one has none, equal release and banner."""
        if self.build_id is not None and other.build_id is not None:
            return self.build_id == other.build_id
        # A release alone says nothing: distributions use it for several builds.
        mine, its = (self.arch, self.release, self.banner), (other.arch, other.release, other.banner)
        return self.banner is not None and mine == its


def extract(
    path: Union[str, os.PathLike[str]],
    given: source.Given = source.NOTHING_GIVEN,
    *,
    wanted: Optional[Wanted] = None,
    tick: Tick = lambda _: None,
    finders: Sequence[str] = (),
) -> KernelEntry:
    """Reads one kernel: a package, vmlinux, vmlinuz, BTF file or /sys/kernel/btf/vmlinux; of an archive the first.

    given: what the source does not say of itself (bare BTF has no identity). wanted: the fields to look for; by
    default all that the bytecode images read. `tick` is called with numbers of bytes read, to show progress.
    finders: where to look for the DWARF of a kernel that has no description of its own (debuginfo.FINDERS).

    Everything that the source has, BTF and DWARF, is read, by two readers where there are two, and must agree. Raises
    SourceError if the source cannot be read or contradicts itself, BtfError, UsageError if `given` is incomplete or
    contradicts the kernel, UnsupportedArchError.
    """
    with contextlib.closing(extract_all(path, given, wanted=wanted, tick=tick, finders=finders)) as entries:
        return next(entries)


def extract_all(
    path: Union[str, os.PathLike[str]],
    given: source.Given = source.NOTHING_GIVEN,
    *,
    wanted: Optional[Wanted] = None,
    tick: Tick = lambda _: None,
    finders: Sequence[str] = (),
) -> Generator[KernelEntry, None, None]:
    """As extract(), for every kernel in a directory or archive."""
    for kernel in source.each_source(Path(path), given, tick, finders):
        yield entry_of(kernel, extraction.extract(kernel, wanted or wanted_fields(kernel.arch)))


def entry_of(kernel: source.KernelSource, found: extraction.Extraction) -> KernelEntry:
    """The entry of an opened kernel, of what was read from it."""
    provenance: Dict[str, Any] = {
        "kind": found.kind,
        "source": kernel.file,
        "sha256": kernel.sha256,
        "tools": found.tools,
    }
    if kernel.debug:
        provenance["debug"] = kernel.debug
    return KernelEntry(
        kernel.arch.name,
        kernel.build_id,
        kernel.release,
        kernel.banner,
        kernel.distribution,
        found.btf_ids,
        provenance,
        found.layout,
    )
