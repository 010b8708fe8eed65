"""Events as JSON lines, as json.dumps() writes their documents, but most of them without making a document.

In a storm the same processes' sockets retransmit again and again, and little of what is told of them changes: which
of the sockets, times, sequence numbers, a few counts. So a line that was made the long way is kept as a template for
other events of that process, for as long as what /proc said of it is believed. What may not be told again is not kept:
an owner that is unknown is unknown for a reason, and that can change with every event.
"""

from __future__ import annotations

import struct
import time

from sockpid.namedtuple import NamedTuple

from . import socket_tuple
from .event import EVENT_SIZE, HOW, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Sequence, Tuple

    Document = Dict[str, Any]

    Key = Tuple[Any, ...]


# struct event (bpf_bytecode/sockpid.h): ts_ns, sk, interrupted; of latest: who, when_ns, what else; users and flags;
# the opener; tuple; inode, err, seq, end_seq, srtt_us, snd_cwnd, total_retrans, undo_marker; from type to ulp.
PARTS = struct.Struct("=QQQ16sQ32s16x8s8x32s104x48sQiIIIIII4x24s")
assert PARTS.size == EVENT_SIZE

CHANGING = (
    "ts_ns", "age_ns", "interrupted_pid", "inode", "err", "seq", "end_seq", "srtt_us", "snd_cwnd", "total_retrans",
)  # fmt: skip
"""What differs from one event of a process to the next, in the order of the document. All are integers."""

NAME = ("family", "saddr", "sport", "daddr", "dport", "netns", "ifindex")
"""And these, of the socket, between the first and the second of those."""

HOLE, SOCKET = "\0", "\0\0"
"""Stand in a template's document where an integer goes, and the socket's name. No process is called so: the kernel ends
names with it."""

KEPT = 65536
"""Templates, and names of sockets; then all are forgotten."""

LEARNT = frozenset(HOW.values()) - {None, "seed"}
"""Ways that the probe itself learns an owner by."""


class Template(NamedTuple):
    """A line with places for CHANGING and the socket's name. until: by time.monotonic(). who: the owner's process id
    and start; None if it is the kernel."""

    text: str
    until: float
    who: Optional[Tuple[int, int]]


class EventLines:
    """Makes the lines of events."""

    def __init__(
        self,
        document: Callable[[Event], Document],
        until: Callable[[Optional[int], Optional[int]], float],
        glance: Callable[[int, int, int, int], bool],
    ) -> None:
        """document: makes an event's, the long way. until: how long it may be believed of a process, see Describer.
        glance: is the owner of a socket certain again, see Certainty."""
        self._glance = glance
        self._document = document
        self._until = until
        self._templates: Dict[Key, Template] = {}
        self._names: Dict[bytes, str] = {}
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
            (
                ts_ns, _, interrupted, who, when_ns, what, users, first, socket, inode, err, seq, end_seq, srtt, cwnd,
                total, undo, rest,
            ) = unpack(seen.record)  # fmt: skip
            key: Key = (who, what, first, users, rest, not err, not undo)
            known = get(key)
            if known is None or known.until < now or (known.who and not self._glance(*known.who, when_ns, inode)):
                made.append(self._long(seen, key))
                continue
            self.last_ns = ts_ns + self._offset
            changing = (
                self.last_ns, self._names.get(socket) or self._name(socket), max(0, ts_ns - when_ns), interrupted >> 32,
                inode, err, seq, end_seq, srtt >> 3, cwnd, total,
            )  # fmt: skip
            made.append((known.text % changing).encode())
        return made

    def _name(self, socket: bytes) -> str:
        """The members of the document that NAME says."""
        if len(self._names) >= KEPT:
            self._names.clear()
        t = socket_tuple.unpack(socket)
        near = f'"family": "{t.family}", "saddr": "{t.saddr}", "sport": {t.sport}, '
        text = f'{near}"daddr": "{t.daddr}", "dport": {t.dport}, "netns": {t.netns}, "ifindex": {t.ifindex}'
        self._names[socket] = text
        return text

    def _long(self, seen: Event, key: Optional[Key]) -> bytes:
        document = self._document(seen)
        self.last_ns = document["ts_ns"]
        self.unknown += document["how"] is None
        # What a connection request is told of depends on who else listens; a holder has been looked for.
        can_be_told_again = document["kind"] != "synack" and not seen.lent and document["how"] in LEARNT
        if key is not None and document["certain"] and can_be_told_again:
            self._keep(key, seen, document)
        import json  # late: a run that writes no JSON does without

        return json.dumps(document).encode() + b"\n"

    def _keep(self, key: Key, seen: Event, document: Document) -> None:
        offset = document["ts_ns"] - seen.ts_ns
        if offset != self._offset or len(self._templates) >= KEPT:  # the clock was set, or drifted
            self._offset = offset
            self._templates.clear()
        holes = {**document, **dict.fromkeys(CHANGING, HOLE), NAME[0]: SOCKET}
        for member in NAME[1:]:
            del holes[member]
        import json

        text = json.dumps(holes).replace("%", "%%").replace(f'"{NAME[0]}": {json.dumps(SOCKET)}', "%s")
        text = text.replace(json.dumps(HOLE), "%d") + "\n"
        pid, start_ns = document["pid"], document["start_ns"]
        who = (pid, start_ns) if pid is not None else None
        self._templates[key] = Template(text, self._until(pid, start_ns), who)
