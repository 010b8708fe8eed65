"""The screen of `top` as lines, for a size. Pure: everything that changes is an argument."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from sockpid.graph.model import KINDS
from sockpid.words import end, owner, printable

from .model import LEVELS, Model, Row
from .state import FAST, RTO, SORTS, TLP, State

Span = Tuple[str, str]
"""Text and its style: one of STYLES, or ""."""

Line = List[Span]

STYLES = {
    "bar": "7",
    "title": "1",
    "dim": "2",
    "red": "31",
    "yellow": "33",
    "cyan": "36",
    "chosen": "7",
    "alarm": "1;31",
}
BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = 10
LONG_KEYS = " Enter open  Esc back  Tab view  / filter  s c t b n l i a sort  r reverse  p pause  ? help  q quit"
SHORT_KEYS = " Enter Esc Tab  / filter  s c t sort  p pause  ? help  q quit"


class Now(NamedTuple):
    """What is neither counted nor chosen. clock: as text; ns: the time that rates refer to; interval: of the
    events, in seconds; source: "live" or a name;
    notes: of the source, such as "3 lost"."""

    clock: str
    ns: int
    interval: float
    source: str
    host: str
    notes: Tuple[str, ...] = ()
    over: bool = False


Value = Callable[[Row, Now], str]


class Column:
    """width: cells, at least; grows: gets what is left over. drop: the order in which columns are left out; 0: never.
    sort: by which name of SORTS it is sorted."""

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


def rtt(srtt_us: int) -> str:
    return f"{number(srtt_us / 1000)} ms" if srtt_us else "-"


def _kinds(*wanted: int) -> Callable[[Row, Now], str]:
    return lambda row, _now: number(sum(row.kinds[kind] for kind in wanted)) if row.kinds else "-"


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
_LAST = Column("LAST", 5, lambda row, now: ago((now.ns - row.last_ns) / 1e9), True, 6, "last")
_COUNTS = (
    Column("SOCKETS", 8, lambda row, _: number(row.sockets), True, 5, "sockets"),
    Column("PEERS", 5, lambda row, _: number(row.peers), True, 2),
)
_OWNER = (
    Column("OWNER", 18, lambda row, _: row.title, sort="name"),
    Column("PID", 8, lambda row, _: "-" if row.pid is None else str(row.pid), True, sort="pid"),
)
_OF_OWNER = tuple(Column(c.title, c.width, c.value, c.right, drop, c.sort) for c, drop in zip(_OWNER, (10, 9)))
COLUMNS: Dict[str, Tuple[Column, ...]] = {
    "owners": (*_OWNER, *_NUMBERS, *_COUNTS, _LAST, Column("", 0, lambda row, _: row.labels, grows=True, drop=8)),
    "sockets": (
        Column("LOCAL", 21, lambda row, _: end(row.event["saddr"], row.event["sport"]), grows=True, drop=11),
        Column("REMOTE", 21, lambda row, _: end(row.event["daddr"], row.event["dport"]), grows=True),
        *_NUMBERS,
        Column("STATE", 11, lambda row, _: row.event["state"], drop=2),
        _LAST,
        *_OF_OWNER,
    ),
    "peers": (Column("PEER", 24, lambda row, _: row.title, sort="name"), *_NUMBERS, *_COUNTS[:1], _LAST),
}


def fit(columns: Sequence[Column], width: int) -> List[Tuple[Column, int]]:
    """The columns that have room, with their widths."""
    kept = list(columns)
    for turn in range(1, 1 + max(column.drop for column in columns)):
        if sum(column.width + 1 for column in kept) - 1 <= width:
            break
        kept = [column for column in kept if column.drop != turn]
    spare = width - sum(column.width + 1 for column in kept) + 1
    growing = sum(column.grows for column in kept)
    return [(column, column.width + (max(0, spare) // growing if column.grows else 0)) for column in kept]


def cut(text: str, width: int) -> str:
    """Text of at most `width` cells; "~" is where something is missing."""
    if len(text) <= width:
        return text
    return text[: width // 2] + "~" + text[len(text) - (width - width // 2 - 1) :] if width > 3 else text[:width]


def cells(row: Optional[Row], columns: Sequence[Tuple[Column, int]], now: Now, sort: str = "", mark: str = "") -> str:
    """A row, or the titles."""
    shown: List[str] = []
    for column, width in columns:
        text = column.value(row, now) if row else column.title + (mark if sort and column.sort == sort else "")
        text = cut(text, width)
        shown.append(text.rjust(width) if column.right else text.ljust(width))
    return " ".join(shown).rstrip()


def sparkline(history: Sequence[int], width: int) -> str:
    shown = list(history)[-width:] if width > 0 else []
    most = max([*shown, 1])
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // most)] for count in shown)


def screen(model: Model, state: State, rows: List[Row], now: Now, width: int, height: int) -> List[Line]:
    """Exactly `height` lines of at most `width` cells. rows: as state.arrange() gave them."""
    if state.help:
        body, keys = _help(), " any key: back"
    elif state.place.socket is not None:
        body = _details(next((row for row in rows if row.key == state.place.socket), None), now)
        keys = " Esc back   p pause   ? help   q quit"
    else:
        body = _table(state, rows, now, width, max(1, height - 6))
        keys = LONG_KEYS if width >= len(LONG_KEYS) else SHORT_KEYS
    lines = [*_head(model, state, rows, now, width), *body]
    lines = lines[: height - 1] + [[] for _ in range(height - 1 - len(lines))]
    if state.editing is not None:
        lines.append([(cut(f" filter: {state.editing}_   (Enter: apply, Esc: leave as it was)", width), "title")])
    else:
        lines.append([(cut(keys, width).ljust(width), "bar")])
    return [clip(line, width) for line in lines[:height]]


def _head(model: Model, state: State, rows: List[Row], now: Now, width: int) -> List[Line]:
    how = "PAUSED" if state.paused else "THE END" if now.over else "LIVE" if now.source == "live" else "REPLAY"
    hosts = now.host if len(model.hosts) < 2 else f"{len(model.hosts)} hosts"
    left = f" sockpid top   {hosts}   {now.clock}"
    bar = cut(left.ljust(max(len(left) + 1, width - len(how) - 1)) + how, width).ljust(width)
    rate = model.history[-2] / now.interval if len(model.history) > 1 else 0.0
    told: Line = [
        (f" {number(model.events)} TCP segments sent again", "title"),
        (f"   {number(round(rate, 2))} a second{'' if now.over else ' now'}", "red" if rate else ""),
    ]
    notes = list(now.notes)
    if model.unknown:
        notes.append(f"{number(model.unknown)} of unknown owner")
    if model.missing:
        notes.append(f"{number(model.missing)} missing")
    told += [(f"   {note}", "yellow") for note in notes]
    peak = max(model.history[:-1] or [0]) / now.interval
    label, behind = f" the last {(len(model.history) - 1) * now.interval:g} s: ", f"  peak {number(round(peak, 2))}/s"
    graph = sparkline(model.history[:-1], min(60, width - len(label) - len(behind)))
    return [[(bar, "bar")], told, [(label, "dim"), (graph, "red"), (behind, "dim")], _where(state, rows, width), []]


def _where(state: State, rows: List[Row], width: int) -> Line:
    place = state.place
    within = len(state.places) > 1
    levels: Sequence[str] = LEVELS
    if within:
        levels = ("sockets", "peers") if place.peer is None and place.owner is not None else ("sockets",)
    line: Line = [(" ", "")]
    if within:
        line.append((f"{cut(place.title, max(10, width // 2))}: ", "title"))
    for level in levels:
        line += [(f" {level.capitalize()} ", "chosen" if level == place.level else "dim"), (" ", "")]
    said = f"{len(rows)} sorted by {SORTS[state.sort].title}" + (" (reversed)" if state.reverse else "")
    line.append((f"  {said}", "dim"))
    if state.filter and state.editing is None:
        line.append((f"   filter: {state.filter}", "cyan"))
    return line


def _table(state: State, rows: List[Row], now: Now, width: int, room: int) -> List[Line]:
    bars = width >= 100
    wanted = [column for column in COLUMNS[state.place.level] if state.place.owner is None or column not in _OF_OWNER]
    columns = fit(wanted, width - 1 - (BAR + 1 if bars else 0))
    sort = SORTS[state.sort]
    mark = "▲" if sort.up != state.reverse else "▼"
    lines: List[Line] = [[((BAR + 2 if bars else 1) * " " + cells(None, columns, now, state.sort, mark), "title")]]
    first = max(0, min(state.cursor - room // 2, len(rows) - room + 1))
    most = max([row.per_second for row in rows] or [0.0])
    for index, row in enumerate(rows[first : first + room - 1], first):
        text = cells(row, columns, now)
        style = "" if row.per_second >= 0.005 else "dim"
        if row.event["pid"] is None and state.place.level != "peers":
            style = "yellow"
        line: Line = []
        if bars:
            cell = round(BAR * row.per_second / most) if most >= 0.005 else 0
            line.append((" " + ("█" * cell).rjust(BAR), "red"))
        line.append((" ", ""))
        if index == state.cursor:
            text, style = text.ljust(width - sum(len(part) for part, _ in line)), "chosen"
        line.append((text, style))
        lines.append(line)
    if not rows:
        lines.append([])
        lines.append([("   no retransmit so far" if not state.filter else "   nothing meets the filter", "dim")])
    return lines


def _details(row: Optional[Row], now: Now) -> List[Line]:
    if row is None:
        return [[("   the socket is not remembered any more", "dim")]]
    seen = row.event
    first = f"{printable(seen.get('opener_comm') or '?')}[{seen.get('opener_pid')}], by {seen.get('opener_how')}"
    told: List[Tuple[str, str]] = [
        ("connection", f"{end(seen['saddr'], seen['sport'])} -> {end(seen['daddr'], seen['dport'])}"),
        ("state", f"{seen['state']}, network namespace {seen['netns']}"),
        ("owner", owner(seen) + (f", learnt by {seen['how']}" if seen["pid"] is not None else "")),
        ("first user", first if seen.get("opener_pid") else "-"),
        ("users", str(seen.get("ambiguous") or "-")),
        ("labels", row.labels or "-"),
        ("control group", str(seen.get("cgroup") or "-")),
        (
            "retransmits",
            f"{row.events} seen, {seen.get('total_retrans', '?')} in the socket's life, says the kernel",
        ),
        ("of kind", ", ".join(f"{count} {kind}" for kind, count in zip(KINDS, row.kinds) if count)),
        ("lately", f"{number(row.per_second)} a second, last {ago((now.ns - row.last_ns) / 1e9)}"),
        ("sent again", size(row.octets)),
        ("round trip", rtt(row.srtt_us)),
        ("window", f"{seen.get('snd_cwnd', '?')} segments; {seen.get('retransmits', '?')} timeouts in a row"),
        ("interrupted", f"pid {seen.get('interrupted_pid')} ran when the kernel sent again; it has no part in this"),
    ]
    return [[(f"   {name:<14}", "title"), (text, "")] for name, text in told]


HELP = """\
A TCP segment that is not acknowledged is sent again: a retransmit. It belongs
to a socket, and that to a process, its owner: who sends again, and how often?

 RETR/S  a second, lately               RTT    smoothed round trip time
 TOTAL   since this screen began        BYTES  sent again
 RTO     a timer ran out: the worst     LAST   time since the latest
 FAST    acknowledgements told of it    OTHER  SYN, SYN-ACK, failed attempts
 TLP     the last segment was probed for

 up down PgUp PgDn  choose a row        /      filter by name, pid, address,
 Enter, Esc         open it, and back          port, label, host
 Tab                the next view       p      pause; counting goes on
 r                  reverse             q      quit

 sort by  s retr/s  c total  t rtt  b bytes  n sockets  l last  i pid  a name"""


def _help() -> List[Line]:
    return [[(f" {line}", "")] for line in HELP.splitlines()]


def plain(model: Model, state: State, rows: List[Row], now: Now, most: int) -> List[str]:
    """A snapshot as lines for a log: a line of sums, titles, the first rows."""
    columns = [(column, column.width) for column in COLUMNS[state.place.level]]
    rate = model.history[-2] / now.interval if len(model.history) > 1 else 0.0
    sums = [
        f"{model.events} retransmits",
        f"{number(round(rate, 2))}/s",
        f"{len(rows)} {state.place.level}",
        *now.notes,
    ]
    if model.unknown:
        sums.append(f"{model.unknown} of unknown owner")
    lines = [f"{now.clock} {now.host}: {', '.join(sums)}"]
    if rows:
        lines.append(cells(None, columns, now))
    # The last column may be as long as it is.
    last: Any = columns[-1][0]
    for row in rows[:most]:
        line = cells(row, columns[:-1] if last.grows else columns, now)
        lines.append(f"{line} {last.value(row, now)}".rstrip() if last.grows else line)
    return lines


def clip(line: Line, width: int) -> Line:
    kept: Line = []
    for text, style in line:
        kept.append((text[: max(0, width)], style))
        width -= len(text)
    return kept


def ansi(line: Line, colour: bool) -> str:
    """A line for a terminal. Without colour bold and reversed text still is."""
    shown: List[str] = []
    for text, style in line:
        code = STYLES.get(style, "") if colour or style in ("bar", "chosen", "title") else ""
        shown.append(f"\x1b[{code}m{text}\x1b[0m" if code and text else text)
    return "".join(shown)
