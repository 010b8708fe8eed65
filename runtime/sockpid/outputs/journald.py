"""Events to journald in its native protocol, one field per key: `journalctl SOCKPID_PID=4711`."""

from __future__ import annotations

import functools
import struct
from typing import Any, Deque, Dict, List, Tuple

from sockpid.event.text import Shape, flat, sentence, shape

from .arguments import Arguments
from .base import Output, Record
from .datagram import Datagrams

INFORMATIONAL = 6


class Journald(Output):
    def __init__(self, path: str) -> None:
        super().__init__(f"journald:{path}")
        self._datagrams = Datagrams(path)
        self.stop = self._datagrams.stop  # type: ignore[method-assign] # it is what stops

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Journald:
        path = arguments.place("/run/systemd/journal/socket")
        arguments.done()
        return cls(path)

    def write(self, pending: Deque[Record]) -> None:
        while pending:
            if not pending[0].is_gap:
                self._datagrams.send(message(pending[0].document))
            pending.popleft()

    def close(self) -> None:
        self._datagrams.close()


def message(document: Dict[str, Any]) -> bytes:
    """One entry. Names are SOCKPID_ and the key in capitals; a value with a line feed is preceded by its length.

    See "Native Journal Protocol" of systemd's documentation.
    """
    fields = flat(document)
    found = shape(fields)
    strings, integers, flags = found.values(fields)
    values = (sentence(document), *strings, *integers, *flags)
    names, template = _template(found)
    entry = template % values
    if entry.count("\n") == len(names):
        return _HEAD + entry.encode()
    return _HEAD + b"".join([_field(name, str(value)) for name, value in zip(names, values)])


_HEAD = f"PRIORITY={INFORMATIONAL}\nSYSLOG_IDENTIFIER=sockpid\n".encode()


@functools.lru_cache(maxsize=256)
def _template(of: Shape) -> Tuple[List[str], str]:
    names = ["MESSAGE"]
    for name in of.names:
        capitals = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.upper())
        names.append("SOCKPID_" + capitals[:56])
    return names, "".join(f"{name}=%s\n" for name in names)


def _field(name: str, value: str) -> bytes:
    data = value.encode()
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
