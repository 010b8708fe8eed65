"""The tables of `top`: which columns there are, which of them have room, and what their cells say. Pure."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

from sockpid.event.text import end
from sockpid.graph.model import KINDS

from .model import Row
from .state import FAST, RTO, TLP

LONGEST = 24
"""Cells that a column without a width of its own may demand."""

Value = Callable[[Row, int], str]
"""What a cell says of a row, at a time (ns)."""


class Column:
    """width: cells, at least; 0: as its longest value, to a limit, and left out where all are empty. grows: gets what
    is left over. drop: the order in which columns are left out; 0: never. sort: by which name of SORTS it is sorted.
    """

    def __init__(
        self,
        title: str,
        width: int,
        value: Value,
        right: bool = False,
        drop: int = 0,
        sort: str = "",
        grows: bool = False,
    ) -> None:
        self.title, self.width, self.value, self.right = title, width, value, right
        self.drop, self.sort, self.grows = drop, sort, grows


def number(value: float) -> str:
    """At most five characters: 0.42, 17.3, 4711, 12.3k, 1.2M."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or (unit == "" and value == int(value) and value < 10000):
            places = 0 if value == int(value) or value >= 100 else 1 if value >= 10 else 2
            return f"{value:.{places}f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def size(octets: int) -> str:
    """Bytes: 512 B, 1.5 KiB."""
    value, units = float(octets), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.0f} {units[0]}" if value >= 10 or value == int(value) else f"{value:.1f} {units[0]}"


def ago(seconds: float) -> str:
    if seconds < 1:
        return "now"
    return (
        f"{seconds:.0f}s" if seconds < 100 else f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.0f}h"
    )


def pid(row: Row) -> str:
    """A "?" behind it: in the latest event this owner was uncertain."""
    if row.pid is None:
        return "-"
    return f"{row.pid}?" if row.event.get("certain") is False else str(row.pid)


def rtt(srtt_us: int) -> str:
    return f"{number(srtt_us / 1000)} ms" if srtt_us else "-"


def _kinds(*wanted: int) -> Value:
    return lambda row, _: number(sum(row.kinds[kind] for kind in wanted)) if row.kinds else "-"


_REST = [number_ for number_, kind in enumerate(KINDS) if kind not in ("rto", "fast", "tlp")]
_NUMBERS = (
    Column("RETR/S", 7, lambda row, _: number(row.per_second) if row.per_second >= 0.005 else "0", True, 0, "rate"),
    Column("TOTAL", 6, lambda row, _: number(row.events), True, 0, "count"),
    Column("RTO", 5, _kinds(RTO), True, 4),
    Column("FAST", 5, _kinds(FAST), True, 4),
    Column("TLP", 5, _kinds(TLP), True, 4),
    Column("OTHER", 5, _kinds(*_REST), True, 1),
    Column("RTT", 8, lambda row, _: rtt(row.srtt_us), True, 7, "rtt"),
    Column("BYTES", 8, lambda row, _: size(row.octets), True, 3, "bytes"),
)
_LAST = Column("LAST", 5, lambda row, now_ns: ago((now_ns - row.last_ns) / 1e9), True, 6, "last")
_COUNTS = (
    Column("SOCKETS", 8, lambda row, _: number(row.sockets), True, 5, "sockets"),
    Column("PEERS", 5, lambda row, _: number(row.peers), True, 2),
)
_OWNER = (
    Column("OWNER", 18, lambda row, _: row.title, sort="name"),
    Column("PID", 8, lambda row, _: pid(row), True, sort="pid"),
)
OF_OWNER = tuple(Column(c.title, c.width, c.value, c.right, drop, c.sort) for c, drop in zip(_OWNER, (10, 9)))
COLUMNS: Dict[str, Tuple[Column, ...]] = {
    "owners": (*_OWNER, *_NUMBERS, *_COUNTS, _LAST, Column("LABELS", 0, lambda row, _: row.labels, grows=True, drop=8)),
    "sockets": (
        Column("LOCAL", 21, lambda row, _: end(row.event["saddr"], row.event["sport"]), grows=True, drop=11),
        Column("REMOTE", 21, lambda row, _: end(row.event["daddr"], row.event["dport"]), grows=True),
        *_NUMBERS,
        Column("STATE", 11, lambda row, _: row.event["state"], drop=2),
        _LAST,
        *OF_OWNER,
    ),
    "peers": (Column("PEER", 24, lambda row, _: row.title, sort="name"), *_NUMBERS, *_COUNTS[:1], _LAST),
}


def fit(columns: Sequence[Column], width: int, rows: Sequence[Row]) -> List[Tuple[Column, int]]:
    """The columns that have room, with their widths."""
    least = {
        column: column.width or min(LONGEST, max([len(column.value(row, 0)) for row in rows] or [0]))
        for column in columns
    }
    kept = [column for column in columns if least[column]]
    for turn in range(1, 1 + max(column.drop for column in columns)):
        if sum(least[column] + 1 for column in kept) - 1 <= width:
            break
        kept = [column for column in kept if column.drop != turn]
    spare = width - sum(least[column] + 1 for column in kept) + 1
    growing = sum(column.grows for column in kept)
    return [(column, least[column] + (max(0, spare) // growing if column.grows else 0)) for column in kept]


def cut(text: str, width: int) -> str:
    """Text of at most `width` cells; "~" is where something is missing."""
    if len(text) <= width:
        return text
    return text[: width // 2] + "~" + text[len(text) - (width - width // 2 - 1) :] if width > 3 else text[:width]


def cells(
    row: Optional[Row], columns: Sequence[Tuple[Column, int]], now_ns: int, sort: str = "", mark: str = ""
) -> str:
    """A row, or the titles."""
    shown: List[str] = []
    for column, width in columns:
        text = column.value(row, now_ns) if row else column.title + (mark if sort and column.sort == sort else "")
        text = cut(text, width)
        shown.append(text.rjust(width) if column.right else text.ljust(width))
    return " ".join(shown).rstrip()
