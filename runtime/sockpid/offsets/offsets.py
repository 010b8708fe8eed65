"""Where the offsets for the running kernel come from: a file, the table that travels along, its BTF, a conclusion."""

from __future__ import annotations

import errno
import os
import stat

from sockpid import data
from sockpid.arch import Arch
from sockpid.errors import BtfError, ConsensusError, OtherKernelError, SyscallError, TableError, UnknownKernelError
from sockpid.host.kernel import Identity
from sockpid.image import hooks
from sockpid.image.image import Image
from sockpid.namedtuple import NamedTuple
from sockpid.table import table
from sockpid.table.layout import Layout

from . import agreement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, FrozenSet, List, Mapping, Optional, Tuple

    from sockpid.btf.btf import Btf

MPTCP = "/proc/sys/net/mptcp"
"""There in kernels with MPTCP."""
LOCAL = "/etc/sockpid/offsets.d"
ABOVE = ("/etc/sockpid", "/etc")
"""Directory of table files that the administrator put there, one for each kernel or more; and those above it."""


class Offsets(NamedTuple):
    """The offsets in use. source: the file, for people.

    origin, as events say it: "table" (read from that kernel's own debug information), "btf" (the running kernel's),
    "consensus" (what all builds of the series agree on) or "calibrated" (found by trying).
    btf_id: gives the BTF id of a function, 0 for one that is not known; asked only where a program needs it. It may be
    wrong: see prog.function_of().
    """

    layout: Layout
    origin: str
    source: str
    btf_id: Callable[[str], int]

    @property
    def needs_proof(self) -> bool:
        """Nobody has seen this very kernel's debug information: the self-check must not be without a result."""
        return self.origin in ("consensus", "calibrated")


def no_id(_function: str) -> int:
    """Of a source that knows no BTF ids."""
    return 0


def find(
    image: Image, kernel: Identity, path: Optional[str], deny: FrozenSet[str] = frozenset(), consensus: bool = False
) -> Offsets:
    """The offsets for `kernel`.

    With `path`, that table file alone is asked. Else, in this order: the files in LOCAL, the table that travels along,
    the kernel's own BTF (unless "live-btf" is in `deny`), a file in LOCAL that was calibrated, and with `consensus` the
    builds of the same series. Raises OtherKernelError if the file has no entry for this kernel, UnknownKernelError if
    nothing has, ConflictError if the files and the table differ, ConsensusError if the builds disagree; TableError,
    SchemaError and BtfError for damaged data, and TableError for what denies a field that the kernel must have.
    """
    found = _find(image, kernel, deny, consensus) if path is None else _from_file(kernel, path, deny)
    if found.origin in ("table", "consensus"):
        agreement.demand_presence((found.source, found.layout), os.path.exists(MPTCP))
    return found


def _find(image: Image, kernel: Identity, deny: FrozenSet[str], consensus: bool) -> Offsets:
    local = _local(kernel, deny)
    measured = [found for found in local if not found.needs_proof]
    name = f"offsets/{kernel.arch.name}/{table.series_of(kernel.release)}.json"
    content = data.read(name)
    shard = None if content is None else table.parse_shard(content, name)
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
    return _by_consensus(image, kernel, shard, name, btf_reason, consensus)


def _by_consensus(
    image: Image, kernel: Identity, shard: Optional[table.Shard], name: str, btf_reason: str, wished: bool
) -> Offsets:
    """The last resort, if it is wished for; an error that says what else can be done, otherwise."""
    nearest = () if shard is None else tuple(sorted({e.release for e in shard.entries}))
    key = f"build-id {kernel.build_id or '(none)'}, release {kernel.release}"
    if shard is None:
        advice = "cannot help: no build of this series is known"
    else:
        from .consensus import agree

        try:
            layout, builds = agree(shard, image, kernel.arch, kernel.banner)
        except ConsensusError as error:
            if wished:
                raise
            advice = f"cannot help: {error}"
        else:
            if wished:
                return Offsets(layout, "consensus", f"{name}, {builds} builds that agree", no_id)
            advice = f"would use what {builds} builds of this series agree on, if the self-check passes"
    lines = [
        f"no offsets are known for this kernel: {key}",
        f"  table: {name} has " + (f"only {', '.join(nearest)}" if nearest else "not been made"),
        *_namesakes(kernel, shard),
        f"  BTF: {btf_reason}",
        f"  --consensus {advice}",
        "  to make an entry: `sockpid doctor --request > host.req`, then elsewhere `sockpid-gen fulfil host.req`",
        "  where that is not possible, `sockpid calibrate` looks for the offsets on this host",
    ]
    raise UnknownKernelError("\n".join(lines), nearest)


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
    if found.origin == "btf" or "live-btf" in deny:
        return None
    try:
        live = from_btf(image, arch)
    except (SyscallError, BtfError):
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
        status = os.stat(directory)
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            raise TableError(
                f"{directory}: others than root may put files there, so {LOCAL} is not to be trusted; "
                f"`chown root:root` and `chmod 755` it"
            )
    for name in names:
        path = os.path.join(LOCAL, name)
        shard = _read(path, trusted=True)
        entry = _entry(shard, kernel)
        if entry is not None:
            found.append(_of(shard, entry, deny))
    return found


def _from_file(kernel: Identity, path: str, deny: FrozenSet[str]) -> Offsets:
    shard = _read(path)
    entry = _entry(shard, kernel)
    if entry is None:
        has = ", ".join(sorted({e.release for e in shard.entries})) or "none"
        raise OtherKernelError(
            f"{path} is for other kernels ({shard.arch}: {has}); this one is {kernel.arch.name} {kernel.release}, "
            f"build-id {kernel.build_id or '(none)'}",
            tuple(e.release for e in shard.entries),
        )
    return _of(shard, entry, deny)


def _read(path: str, trusted: bool = False) -> table.Shard:
    """A table file. trusted: it is one of LOCAL, and must be a plain file of root or ourselves."""
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK | os.O_NOFOLLOW if trusted else 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if trusted and not stat.S_ISREG(status.st_mode):
                raise TableError(f"{path}: not a regular file")
            if trusted and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
                raise TableError(f"{path}: others than root may write it; `chown root:root` and `chmod 644` it")
            return table.parse_shard(file.read(), path)
    except OSError as error:
        if trusted and error.errno == errno.ELOOP:
            raise TableError(f"{path}: a symbolic link, where only plain files are taken") from None
        raise TableError(f"the table of offsets cannot be read, {path}: {error.strerror}") from None


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


def unused() -> List[str]:
    """Fields of calibrated tables that may be missing, because this host has no use for what they tell."""
    from .calibration import BESIDE, IPV6, ULP

    names: List[str] = [*BESIDE]
    if not os.path.exists(MPTCP):
        names += ULP
    if not os.path.exists("/proc/net/if_inet6"):
        names += IPV6
    return names


def from_btf(image: Image, arch: Arch) -> Offsets:
    """Resolves the image's relocations from the kernel's own BTF. Raises SyscallError where there is none, BtfError."""
    btf, source = _live()
    try:
        layout = btf.extract(image.wanted(arch), arch.pointer_size)
    except BtfError as error:
        raise BtfError(f"{source}: {error}") from None
    return Offsets(layout, "btf", source, function_ids({}, lambda: btf))


def function_ids(known: Mapping[str, int], live: Optional[Callable[[], Btf]]) -> Callable[[str], int]:
    """The ids in `known`, and of other functions those in the kernel's own BTF, which `live` gives, looked up once."""
    ids = dict(known)
    sources = [live] if live is not None else []

    def btf_id(function: str) -> int:
        if function not in ids and sources:
            try:
                ids.update({**sources.pop()().func_ids(hooks.functions()), **ids})
            except (BtfError, SyscallError):
                return 0
        return ids.get(function, 0)

    return btf_id


def _live() -> Tuple[Btf, str]:
    """Imported when it is wanted: a kernel that the table knows is not asked."""
    from sockpid.bpf import kernel_btf

    return kernel_btf.read()
