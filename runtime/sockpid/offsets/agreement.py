"""Two sources that speak of one kernel must say the same, as far as each says anything."""

from __future__ import annotations

from sockpid.errors import ConflictError, TableError
from sockpid.table.layout import Field, Layout, Struct, Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional, Tuple

    Source = Tuple[str, Layout]
    """What it is called, for people, and what it says."""

STARTS = ("start_boottime", "real_start_time")
"""When a task started has one of two names in every kernel."""
EVERYWHERE = (
    "struct sock.__sk_common.skc_bound_dev_if",
    "struct sock.sk_allocation",
    "struct sock.sk_lock.owned",
    "struct sock.sk_user_data",
    "struct tcp_sock.undo_marker",
)
"""Every kernel has these. Programs do without those that nobody looked for, and no self-check would miss them."""
OF_MPTCP = ("struct inet_connection_sock.icsk_ulp_data", "struct mptcp_subflow_context.conn")
"""The same of kernels with MPTCP."""
SHOWN = 8


def demand(wanted: Wanted, one: Source, other: Source, silence: bool = False) -> None:
    """Raises ConflictError, naming both, where they say different things of a field that is wanted.

    silence: not where `one` says that the kernel has no such field, which it may not have known, and not where it has
    the place right and not the size.
    """
    lines = [
        f"{name}: {place(first)} in {one[0]}, {place(second)} in {other[0]}"
        for name, first, second in _differing(wanted, one[1], other[1])
        if not (silence and _is_silence(first, second))
    ]
    if lines:
        shown = [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines
        raise ConflictError(
            f"two sources contradict one another about this kernel, {one[0]} and {other[0]}:\n  " + "\n  ".join(shown),
            lines,
        )


def demand_presence(one: Source, mptcp: bool) -> None:
    """Raises TableError where a source denies what the kernel must have, and nobody would notice.

    mptcp: it has MPTCP.
    """
    for name in (*EVERYWHERE, *(OF_MPTCP if mptcp else ())):
        kind, _, path = name.partition(".")
        if _speaks(one[1], kind, path) and _field(one[1], kind, path) is None:
            raise TableError(f"{one[0]} says that this kernel has no {name}; it has")


def _differing(wanted: Wanted, one: Layout, other: Layout) -> Iterator[Tuple[str, Optional[Field], Optional[Field]]]:
    for name, paths in sorted(wanted.items()):
        for path in sorted(paths):
            if _speaks(one, name, path) and _speaks(other, name, path):
                first, second = _field(one, name, path), _field(other, name, path)
                # Not every source tells whether a field is signed.
                if (first and first[:3]) != (second and second[:3]):
                    yield f"{name}.{path}", first, second


def _is_silence(one: Optional[Field], other: Optional[Field]) -> bool:
    return one is None or (other is not None and one.bit_offset == other.bit_offset)


def _speaks(layout: Layout, name: str, path: str) -> bool:
    row = layout.get(name)
    return name in layout and (row is None or path in getattr(row, "fields", ()))


def _field(layout: Layout, name: str, path: str) -> Optional[Field]:
    row = layout.get(name)
    return row.fields.get(path) if isinstance(row, Struct) else None


def place(field: Optional[Field]) -> str:
    """Where a field lies, for people."""
    if field is None:
        return "none"
    byte, bit = divmod(field.bit_offset, 8)
    return f"{field.bit_size} bits at {byte}" + (f" and {bit} bits" if bit else "")


def is_silent(wanted: Wanted, layout: Layout) -> bool:
    """Does a source say of a field that the kernel has none? Then the kernel is better asked itself."""
    absent = [path for name, paths in wanted.items() for path in paths if _field(layout, name, path) is None]
    return len(absent) > 1 or not set(absent) <= set(STARTS)
