"""What the user of `top` has chosen, and what a key changes in it. Pure."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional

from sockpid.graph.model import KINDS

from .model import LEVELS, Row

RTO, FAST, TLP = (KINDS.index(kind) for kind in ("rto", "fast", "tlp"))


class Sort:
    """A column to sort by: its key on the keyboard, title, and value; greatest first unless `up`."""

    def __init__(self, key: str, title: str, value: Callable[[Row], Any], up: bool = False) -> None:
        self.key, self.title, self.value, self.up = key, title, value, up


SORTS = {
    "rate": Sort("s", "RETR/S", lambda row: row.per_second),
    "count": Sort("c", "TOTAL", lambda row: row.events),
    "rtt": Sort("t", "RTT", lambda row: row.srtt_us),
    "bytes": Sort("b", "BYTES", lambda row: row.octets),
    "sockets": Sort("n", "SOCKETS", lambda row: row.sockets),
    "last": Sort("l", "LAST", lambda row: row.last_ns),
    "pid": Sort("i", "PID", lambda row: row.pid or 0, up=True),
    "name": Sort("a", "NAME", lambda row: row.title.lower(), up=True),
}
BY_KEY = {sort.key: name for name, sort in SORTS.items()}


class Place(NamedTuple):
    """Where the user is: a level, within an owner or a peer; `title` names that. socket: its details."""

    level: str = "owners"
    owner: Any = None
    peer: Optional[str] = None
    socket: Any = None
    title: str = ""


class State:
    """Changed by keys alone."""

    def __init__(self, sort: str = "rate", filter: str = "", level: str = "owners") -> None:
        self.sort, self.filter = sort, filter
        self.reverse = self.paused = self.help = self.done = False
        self.editing: Optional[str] = None
        """The filter while it is typed."""
        self.places: List[Place] = [Place(level)]
        self.cursor = 0
        self.chosen: Any = None
        """Key of the row under the cursor, which stays on it wherever it moves to."""

    @property
    def place(self) -> Place:
        return self.places[-1]

    def arrange(self, rows: List[Row]) -> List[Row]:
        """Rows that meet the filter, in order; the cursor follows its row."""
        words = (self.filter if self.editing is None else self.editing).lower().split()
        shown = [row for row in rows if all(word in row.text() for word in words)] if words else list(rows)
        sort = SORTS[self.sort]
        shown.sort(key=lambda row: (row.last_ns, str(row.key)), reverse=True)
        shown.sort(key=sort.value, reverse=sort.up == self.reverse)
        keys = [row.key for row in shown]
        if self.chosen in keys:
            self.cursor = keys.index(self.chosen)
        self.cursor = max(0, min(self.cursor, len(shown) - 1))
        return shown

    def press(self, key: str, shown: List[Row], page: int) -> None:
        """Takes a key: a character, or "up", "down", "enter" and the like. shown: the rows there are; page: rows that
        fit."""
        if self.editing is not None:
            self._type(key)
        elif self.help:
            self.help = False
            self.done = key == "q"
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        elif key in BY_KEY:
            self.sort, self.reverse = BY_KEY[key], self.sort == BY_KEY[key] and not self.reverse
        elif key in ("enter", "right"):
            self._enter(shown)
        else:
            self._move(key, shown, page)

    def _type(self, key: str) -> None:
        assert self.editing is not None
        if key == "enter":
            self.filter, self.editing = self.editing.strip(), None
        elif key == "escape":
            self.editing = None
        elif key == "backspace":
            self.editing = self.editing[:-1]
        elif len(key) == 1 and key.isprintable():
            self.editing += key

    def _move(self, key: str, shown: List[Row], page: int) -> None:
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page, "home": -(10**9)}
        steps["end"] = 10**9
        if key in steps and shown:
            self.cursor = max(0, min(len(shown) - 1, self.cursor + steps[key]))
            self.chosen = shown[self.cursor].key

    def _enter(self, shown: List[Row]) -> None:
        if self.place.socket is not None or not shown:
            return
        row, place = shown[self.cursor], self.place
        if place.level == "owners":
            named = row.title if row.pid is None else f"{row.title} [{row.pid}]"
            self._go(Place("sockets", owner=row.key, title=named))
        elif place.level == "peers":
            told = f"{place.title} with {row.title}" if place.title else f"peer {row.title}"
            self._go(place._replace(level="sockets", peer=row.key, title=told))
        else:
            self._go(place._replace(socket=row.key))

    def _go(self, place: Place) -> None:
        self.places.append(place)
        self.cursor, self.chosen = 0, None

    def _back(self) -> None:
        if len(self.places) > 1:
            left = self.places.pop()
            self.cursor = 0
            self.chosen = left.socket or (left.peer if self.place.level == "peers" else left.owner)
        elif self.filter:
            self.filter = ""

    def _tab(self) -> None:
        """The next level; within an owner its sockets or its peers."""
        place = self.place
        if place.socket is not None:
            return
        levels = ("sockets", "peers") if place.owner is not None and place.peer is None else LEVELS
        if place.peer is not None:
            return
        self.places[-1] = place._replace(level=levels[(levels.index(place.level) + 1) % len(levels)])
        self.cursor, self.chosen = 0, None

    def _toggle(self, name: str) -> None:
        setattr(self, name, not getattr(self, name))

    def _edit(self) -> None:
        self.editing = self.filter

    def _quit(self) -> None:
        self.done = True


_ACTIONS: Dict[str, Callable[[State], None]] = {
    "q": State._quit,
    "p": lambda state: state._toggle("paused"),
    " ": lambda state: state._toggle("paused"),
    "r": lambda state: state._toggle("reverse"),
    "?": lambda state: state._toggle("help"),
    "h": lambda state: state._toggle("help"),
    "/": State._edit,
    "tab": State._tab,
    "escape": State._back,
    "backspace": State._back,
    "left": State._back,
}
