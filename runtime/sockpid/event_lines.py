"""Events as JSON lines, as json.dumps() writes their documents, but most of them without making a document.

In a storm the same sockets retransmit again and again, and little of what is told of them changes: times, sequence
numbers, a few counts. So a line that was made the long way is kept as a template for the next events of that socket,
for as long as what /proc said of its owner is believed. What may not be told again is not kept: an owner that is
unknown is unknown for a reason, and that can change with every event.
"""

from __future__ import annotations

import json
import struct
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from .event import EVENT_SIZE, Event

Document = Dict[str, Any]

# struct event (bpf_bytecode/sockpid.h): ts_ns, sk, interrupted; who and where, from latest to inode; err, seq, end_seq,
# srtt_us, snd_cwnd, total_retrans; from type to ulp.
PARTS = struct.Struct("=QQQ168siIIIII24s")
assert PARTS.size == EVENT_SIZE
WHEN_NS = 16  # of latest, from its start

CHANGING = (
    "ts_ns", "age_ns", "interrupted_pid", "err", "seq", "end_seq", "srtt_us", "snd_cwnd", "total_retrans",
)  # fmt: skip
"""What differs from one event of a socket to the next, in the order of the document. All are integers."""

HOLE = "\0"
"""Stands in a template's document where an integer goes. No name has it: the kernel ends names with it."""

KEPT = 65536
"""Templates; then all are forgotten."""

Key = Tuple[bytes, bytes, bool]


class Template(NamedTuple):
    """A line with places for CHANGING. when_ns: since when the owner uses the socket. until: by time.monotonic()."""

    text: str
    when_ns: int
    until: float


class EventLines:
    """Makes the lines of events."""

    def __init__(
        self, document: Callable[[Event], Document], until: Callable[[Optional[int], Optional[int]], float]
    ) -> None:
        """document: makes an event's, the long way. until: how long it may be believed of a process, see Describer."""
        self._document = document
        self._until = until
        self._templates: Dict[Key, Template] = {}
        self._offset = 0
        self.last_ns = 0
        """ts_ns of the last line."""
        self.unknown = 0
        """Lines so far whose owner is unknown."""

    def lines(self, events: Sequence[Event]) -> Sequence[bytes]:
        """Each with its line feed."""
        now, get, unpack, made = time.monotonic(), self._templates.get, PARTS.unpack, []
        for seen in events:
            if seen.record is None:
                made.append(self._long(seen, None))
                continue
            ts_ns, _, interrupted, who, err, seq, end_seq, srtt, cwnd, total, rest = unpack(seen.record)
            key = who, rest, not err
            known = get(key)
            if known is None or known.until < now:
                made.append(self._long(seen, key))
                continue
            text, when_ns, _ = known
            changing = (
                ts_ns + self._offset, max(0, ts_ns - when_ns), interrupted >> 32, err, seq, end_seq, srtt >> 3, cwnd,
                total,
            )  # fmt: skip
            made.append((text % changing).encode())
            self.last_ns = changing[0]
        return made

    def _long(self, seen: Event, key: Optional[Key]) -> bytes:
        document = self._document(seen)
        self.last_ns = document["ts_ns"]
        self.unknown += seen.owner is None
        if key is not None and document["age_ns"] is not None:
            self._keep(key, seen, document)
        return json.dumps(document).encode() + b"\n"

    def _keep(self, key: Key, seen: Event, document: Document) -> None:
        offset = document["ts_ns"] - seen.ts_ns
        if offset != self._offset or len(self._templates) >= KEPT:  # the clock was set, or drifted
            self._offset = offset
            self._templates.clear()
        holes = {**document, **dict.fromkeys(CHANGING, HOLE)}
        text = json.dumps(holes).replace("%", "%%").replace(json.dumps(HOLE), "%d") + "\n"
        (when_ns,) = struct.unpack_from("=Q", key[0], WHEN_NS)
        self._templates[key] = Template(text, when_ns, self._until(document["pid"], document["start_ns"]))
