"""Events as an aligned table on standard output, and the sums of `--count`."""

from __future__ import annotations

import os
import time

from sockpid.event.text import end, printable
from sockpid.namedtuple import NamedTuple

from .arguments import Arguments
from .base import Output, Record
from .jsonlines import STDOUT, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

    from sockpid.event.count import Count

    Widths = Tuple[int, ...]
    """Cells per column; 0: it is left out."""

COUNT_COLUMNS = "{:>8} {:>8} {:<16} {:<26} {:<26}"
COUNT_HEADER = COUNT_COLUMNS.format("COUNT", "PID", "COMM", "LOCAL", "REMOTE")

RED, YELLOW, CYAN, MAGENTA, DIM = "31", "33", "36", "35", "2"
KIND_COLOURS = {"rto": RED, "failed": RED, "fast": YELLOW, "tlp": CYAN, "syn": MAGENTA, "synack": MAGENTA}


class Column(NamedTuple):
    """width: cells, unless the terminal is too narrow (least) or has room (most). drop: the order in which columns are
    left out; 0: never."""

    title: str
    width: int
    least: int
    most: int
    right: bool = False
    drop: int = 0


COLUMNS = (
    Column("TIME", 12, 12, 12, drop=5),
    Column("KIND", 6, 6, 6),
    Column("PID", 8, 8, 8, right=True),
    Column("COMM", 16, 10, 24),
    Column("LOCAL", 26, 15, 47, drop=4),
    Column("REMOTE", 26, 15, 47),
    Column("STATE", 11, 11, 11, drop=3),
    Column("HOW", 8, 7, 8, drop=2),
    Column("INTERRUPTED", 11, 11, 11, right=True, drop=1),
)


class Table(Output):
    stdout = True
    tells_gaps = True

    def __init__(self, colour: bool) -> None:
        super().__init__("table")
        self._colour = colour
        self._columns: Optional[int] = None
        self._widths: Widths = ()
        self.every = 1.0
        """The header is there at once, and again when the window changes."""

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Table:
        arguments.no_place()
        colour = arguments.text("colour", "auto")
        if colour not in ("auto", "always", "never"):
            raise arguments.wrong("colour is one of auto, always, never")
        arguments.done()
        wanted = os.isatty(STDOUT) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(wanted if colour == "auto" else colour == "always")

    def write(self, pending: Deque[Record]) -> None:
        lines = self._fit()
        for record in pending:
            if record.is_gap:
                lines.append(f"... {record.document['dropped']} events are missing here: the terminal was too slow")
            else:
                lines.append(row(record.document, self._widths, self._colour, self._columns is not None))
        write_all("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
        pending.clear()

    def tick(self) -> None:
        lines = self._fit()
        if lines:
            write_all("".join(line + "\n" for line in lines).encode())

    def _fit(self) -> List[str]:
        """The header, if the window is not as wide as it was."""
        columns = terminal_width()
        if self._widths and columns == self._columns:
            return []
        self._columns, self._widths = columns, fit(columns)
        return [header(self._widths)]


def terminal_width() -> Optional[int]:
    """Columns of the terminal on standard output, None if it is none."""
    try:
        return os.get_terminal_size(STDOUT).columns or None
    except OSError:
        return None


def fit(columns: Optional[int]) -> Widths:
    """Widths for a terminal of so many columns; None: the usual ones."""
    widths = [column.width for column in COLUMNS]
    if columns is None:
        return tuple(widths)
    for number in range(1, 1 + max(column.drop for column in COLUMNS)):
        if _total([column.least if width else 0 for column, width in zip(COLUMNS, widths)]) <= columns:
            break
        widths = [0 if column.drop == number else width for column, width in zip(COLUMNS, widths)]
    for number, column in enumerate(COLUMNS):
        if widths[number]:
            spare = columns - _total(widths)
            wider = spare // 2 if column.title == "LOCAL" and spare > 0 else spare
            widths[number] = max(column.least, min(column.most, widths[number] + wider))
    return tuple(widths)


def _total(widths: Sequence[int]) -> int:
    return sum(width + 1 for width in widths if width) - 1


def header(widths: Widths) -> str:
    return _line([column.title for column in COLUMNS], widths, {}, shorten=True)


def row(document: Dict[str, Any], widths: Widths, colour: bool = False, shorten: bool = False) -> str:
    """One event's line. A "+" behind the name: more than one process has used the socket; "(exited)": it is gone. A "?"
    behind the process id: it is uncertain, see docs/events.md.

    shorten: what is longer than its column, since a terminal would fold the line.
    """
    moment = document["ts_ns"]
    clock = time.strftime("%H:%M:%S", time.localtime(moment // 10**9)) + f".{moment // 10**6 % 1000:03d}"
    known = document["pid"] is not None
    if known:
        owner = f"{document['pid']}{'?' if document['certain'] is False else ''}"
        name = printable(document["comm"])
        if document["ambiguous"] > 1:
            name += f" +{document['ambiguous'] - 1}"
        if document.get("exited"):
            name += " (exited)"
    else:
        owner, name = ("-", "(kernel)") if document["how"] == "kernel" else ("?", f"({document['reason']})")
    cells = [
        clock,
        document["kind"],
        owner,
        name,
        end(document["saddr"], document["sport"]),
        end(document["daddr"], document["dport"]),
        document["state"],
        document["how"] or "-",
        str(document["interrupted_pid"]),
    ]
    colours = {0: DIM, 1: KIND_COLOURS.get(document["kind"], ""), 8: DIM, **({} if known else {2: DIM, 3: DIM})}
    if document["certain"] is False:
        colours[2] = YELLOW
    line = _line(cells, widths, colours if colour else {}, shorten)
    labels = label_words(document)
    if labels:
        line += "  " + labels
    if document.get("sharers"):
        line += "  shared by " + ", ".join(f"{s['pid']} {printable(s['comm'])}" for s in document["sharers"])
    return line


def label_words(document: Dict[str, Any]) -> str:
    """The labels that tell owners apart: chosen environment variables, unit or container."""
    labels = document.get("labels") or {}
    words = [f"{name}={printable(value)}" for name, value in (labels.get("env") or {}).items() if value is not None]
    if labels.get("container_id"):
        words.append("container=" + labels["container_id"][:12])
    elif labels.get("unit"):
        words.append("unit=" + printable(labels["unit"]))
    return " ".join(words)


def _line(cells: Sequence[str], widths: Widths, colours: Dict[int, str], shorten: bool) -> str:
    shown: List[str] = []
    for number, (cell, width, column) in enumerate(zip(cells, widths, COLUMNS)):
        if not width:
            continue
        if len(cell) > width and shorten:
            cell = cell[: width // 2] + "~" + cell[len(cell) - (width - width // 2 - 1) :]  # noqa: PLW2901 # shortened
        padded = cell.rjust(width) if column.right else cell.ljust(width)
        code = colours.get(number)
        shown.append(f"\x1b[{code}m{padded}\x1b[0m" if code else padded)
    return " ".join(shown)


def count_row(count: Count) -> str:
    owner, name = (str(count.pid), printable(count.comm)) if count.pid else ("?", "(unknown)")
    if count.holders > 1:
        name += f" +{count.holders - 1}"
    t = count.tuple
    return COUNT_COLUMNS.format(count.events, owner, name, end(t.saddr, t.sport), end(t.daddr, t.dport))
