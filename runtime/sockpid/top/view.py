"""The screen of `top` as lines, for a size. Pure: everything that changes is an argument."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from sockpid.event.text import end, owner, printable
from sockpid.graph.model import KINDS

from .columns import COLUMNS, OF_OWNER, ago, cells, cut, fit, number, rtt, size
from .model import LEVELS, Model, Row
from .state import SORTS, State

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
        (f" {number(model.events)} retransmits", "title"),
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
    wanted = [column for column in COLUMNS[state.place.level] if state.place.owner is None or column not in OF_OWNER]
    columns = fit(wanted, width - 1 - (BAR + 1 if bars else 0), rows)
    sort = SORTS[state.sort]
    mark = "▲" if sort.up != state.reverse else "▼"
    lines: List[Line] = [[((BAR + 2 if bars else 1) * " " + cells(None, columns, now.ns, state.sort, mark), "title")]]
    first = max(0, min(state.cursor - room // 2, len(rows) - room + 1))
    most = max([row.per_second for row in rows] or [0.0])
    for index, row in enumerate(rows[first : first + room - 1], first):
        text = cells(row, columns, now.ns)
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
 PID?    an uncertain owner: its socket's details say why

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
        lines.append(cells(None, columns, now.ns))
    # The last column may be as long as it is.
    last: Any = columns[-1][0]
    for row in rows[:most]:
        line = cells(row, columns[:-1] if last.grows else columns, now.ns)
        lines.append(f"{line} {last.value(row, now.ns)}".rstrip() if last.grows else line)
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
