"""Where the offsets for the running kernel come from: a file, the table that travels along, its BTF, a conclusion."""

from __future__ import annotations

import os

from sockpid import data
from sockpid.arch import Arch
from sockpid.errors import BtfError, OtherKernelError, SyscallError, TableError, UnknownKernelError
from sockpid.host.kernel import Identity
from sockpid.image.image import Image
from sockpid.table import table

from . import agreement
from .source import MPTCP, Offsets, function_ids, is_trusted, no_id, read, shard_name, unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import FrozenSet, List, Optional, Tuple

    from sockpid.btf.btf import Btf

LOCAL = "/etc/sockpid/offsets.d"
ABOVE = ("/etc/sockpid", "/etc")
"""Directory of table files that the administrator put there, one for each kernel or more; and those above it."""
OLDEST = (4, 9)
"""Of Linux, that the programs are made for. (RHEL 7 is called 3.10, and has BPF for tracing.)"""
SHOWN = 4
"""Builds that an error names."""


def find(image: Image, kernel: Identity, path: Optional[str], deny: FrozenSet[str] = frozenset()) -> Offsets:
    """The offsets for `kernel`.

    With `path`, that table file alone is asked. Else, in this order: the files in LOCAL, the table that travels along,
    what an earlier start read from the kernel's own BTF (kept.py), that BTF (unless "live-btf" is in `deny`), a file in
    LOCAL that was calibrated, and what an earlier start proved or calibrated. Raises OtherKernelError if the file has
    no entry for this kernel, UnknownKernelError if nothing has, ConflictError if the files and the table differ;
    TableError, SchemaError and BtfError for damaged data, and TableError for what denies a field that the kernel must
    have.
    """
    found = _find(image, kernel, deny) if path is None else _from_file(kernel, path, deny)
    if found.origin in ("table", "consensus"):
        agreement.demand_presence((found.source, found.layout), os.path.exists(MPTCP))
    return found


def _find(image: Image, kernel: Identity, deny: FrozenSet[str]) -> Offsets:
    local = _local(kernel, deny)
    measured = [found for found in local if not found.needs_proof]
    shard = shard_of(kernel)
    entry = None if shard is None else _entry(shard, kernel)
    if shard is not None and entry is not None:
        travelling = _of(shard, entry, deny)
        (local if travelling.needs_proof else measured).append(travelling)
    if measured:
        for other in measured[1:]:
            _agree(image, kernel.arch, measured[0], other)
        if "live-btf" in deny or not agreement.is_silent(image.wanted(kernel.arch), measured[0].layout):
            return measured[0]
    btf_reason = "live BTF denied by option"
    kept = None
    if not measured:
        from . import kept as earlier  # a kernel that the table knows has no need of it

        kept = earlier.find(image, kernel)
        if kept is not None and kept.origin == "btf" and "live-btf" not in deny:
            return kept
    if "live-btf" not in deny:
        try:
            live = from_btf(image, kernel.arch)
            if measured:
                _agree(image, kernel.arch, measured[0], live, silence=True)
            return live
        except SyscallError as error:
            btf_reason = str(error)
        except BtfError:
            if not measured:
                raise
    if measured or local:
        return (measured or local)[0]
    if kept is not None and kept.needs_proof:
        return kept
    raise _unknown(kernel, shard, btf_reason)


def shard_of(kernel: Identity) -> Optional[table.Shard]:
    """The part of the table that travels along that has a kernel's series. Raises TableError for damage."""
    name = shard_name(kernel)
    content = data.read(name)
    return None if content is None else table.parse_shard(content, name)


def _unknown(kernel: Identity, shard: Optional[table.Shard], btf_reason: str) -> UnknownKernelError:
    """Says what else can be done."""
    nearest = () if shard is None else tuple(sorted({e.release for e in shard.entries}))
    key = f"build-id {kernel.build_id or '(none)'}, release {kernel.release}"
    lines = [
        f"no offsets are known for this kernel: {key}",
        f"  table: {shard_name(kernel)} has " + (_others(kernel, nearest) if nearest else "not been made"),
        *_namesakes(kernel, shard),
        f"  BTF: {btf_reason}",
    ]
    if _version(kernel.release) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        lines.append(
            f"  Linux before {oldest} is not supported, and no table would help: in Linux 3.10, that of RHEL 7, "
            f"a task's start is a struct timespec, and other fields that the programs read came later, too"
        )
        return UnknownKernelError("\n".join(lines), nearest)
    lines += [
        "  to make an entry: `sockpid doctor --request > host.req`, then elsewhere `sockpid-gen fulfil host.req`",
        "  where that is not possible, `sockpid calibrate` looks for the offsets on this host",
    ]
    return UnknownKernelError("\n".join(lines), nearest)


def _version(release: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in table.series_of(release).split("."))


def _others(kernel: Identity, releases: Tuple[str, ...]) -> str:
    """Which builds a table has instead, as far as a line has room for them."""
    from .consensus import distance

    shown = sorted(releases, key=lambda release: distance(kernel.release, release))[:SHOWN]
    more = f" and {len(releases) - len(shown)} more" if len(releases) > len(shown) else ""
    return f"only {', '.join(shown)}{more}"


def _namesakes(kernel: Identity, shard: Optional[table.Shard]) -> List[str]:
    """A line for an entry that has this kernel's build-id and is another kernel's all the same."""
    return [
        f"    of these, {e.release} has this build-id, but says {e.banner}; this kernel says {kernel.banner}"
        for e in (() if shard is None else shard.entries)
        if kernel.build_id is not None and e.build_id == kernel.build_id
    ]


def against_btf(image: Image, arch: Arch, found: Offsets, deny: FrozenSet[str]) -> Optional[str]:
    """Where else offsets were read from that agree with these: the kernel's own BTF; None where it has none. Raises
    ConflictError where it says something else."""
    if "live-btf" in deny:
        return None
    try:
        live = from_btf(image, arch)
    except (SyscallError, BtfError):
        return None
    if live.source == found.source:
        return None
    _agree(image, arch, found, live, silence=found.origin == "calibrated")
    return live.source


def _agree(image: Image, arch: Arch, one: Offsets, other: Offsets, silence: bool = False) -> None:
    agreement.demand(image.wanted(arch), (one.source, one.layout), (other.source, other.layout), silence)


def _local(kernel: Identity, deny: FrozenSet[str]) -> List[Offsets]:
    """What the administrator's files say of this kernel, in the order of their names.

    Raises TableError for a file that is damaged, or that others than root and ourselves may have written.
    """
    try:
        names = sorted(name for name in os.listdir(LOCAL) if name.endswith(".json"))
    except OSError:
        return []
    found: List[Offsets] = []
    for directory in (LOCAL, *ABOVE) if names else ():
        if not is_trusted(directory):
            raise TableError(
                f"{directory}: others than root may put files there, so {LOCAL} is not to be trusted; "
                f"`chown root:root` and `chmod 755` it"
            )
    for name in names:
        path = os.path.join(LOCAL, name)
        shard = read(path, trusted=True)
        entry = _entry(shard, kernel)
        if entry is not None:
            found.append(_of(shard, entry, deny))
    return found


def _from_file(kernel: Identity, path: str, deny: FrozenSet[str]) -> Offsets:
    shard = read(path)
    entry = _entry(shard, kernel)
    if entry is None:
        has = ", ".join(sorted({e.release for e in shard.entries})) or "none"
        raise OtherKernelError(
            f"{path} is for other kernels ({shard.arch}: {has}); this one is {kernel.arch.name} {kernel.release}, "
            f"build-id {kernel.build_id or '(none)'}",
            tuple(e.release for e in shard.entries),
        )
    return _of(shard, entry, deny)


def _entry(shard: table.Shard, kernel: Identity) -> Optional[table.Entry]:
    if shard.arch != kernel.arch.name:
        return None
    return shard.find(kernel.build_id, kernel.release, kernel.banner)


def _of(shard: table.Shard, entry: table.Entry, deny: FrozenSet[str]) -> Offsets:
    layout = shard.layout(entry)
    if entry.provenance.get("kind") == "calibrated":
        from .calibration import complete

        return Offsets(complete(layout, unused()), "calibrated", shard.name, no_id)
    if not table.is_measured(entry.provenance):
        return Offsets(layout, "consensus", shard.name, no_id)  # concluded from other builds
    live = None if "live-btf" in deny else lambda: _live()[0]
    return Offsets(layout, "table", shard.name, function_ids(entry.btf_ids or {}, live))


def from_btf(image: Image, arch: Arch) -> Offsets:
    """Resolves the image's relocations from the kernel's own BTF. Raises SyscallError where there is none, BtfError."""
    btf, source = _live()
    try:
        layout = btf.extract(image.wanted(arch), arch.pointer_size)
    except BtfError as error:
        raise BtfError(f"{source}: {error}") from None
    return Offsets(layout, "btf", source, function_ids({}, lambda: btf), True)


def _live() -> Tuple[Btf, str]:
    """Imported when it is wanted: a kernel that the table knows is not asked."""
    from sockpid.bpf import kernel_btf

    return kernel_btf.read()
