"""What one process did, and when: records in a file that is mapped into memory, so that they outlive SIGKILL.

A record is written when its operation begins and completed when it has ended: one without an end was under way when its
process died. Times are CLOCK_MONOTONIC in nanoseconds, as events have them before they are told. Numbers are in little
endian everywhere: another machine reads them.
"""

from __future__ import annotations

import mmap
import os
import struct
from time import monotonic_ns
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple

HEAD = struct.Struct("<QQQIBBH")  # begin, end, inode, argument, operation, flags, bytes that follow
_END, _FLAGS = struct.Struct("<Q"), struct.Struct("<B")
SEGMENT = 1 << 19

FAILED = 1
"""Flag: the operation reported an error. It may have counted, or not."""

BORN, INHERIT, FORK, EXEC, RENAME, EXIT, KILL, REAPED = 1, 2, 3, 4, 5, 6, 7, 8
TAKE, CLOSE, LEND = 20, 21, 22
CONNECT, ACCEPT, LISTEN, DISCONNECT = 30, 31, 32, 33
SEND, SENDFILE, SPLICE, ZEROCOPY, URING, TLS, MPTCP, SOCKMAP = 40, 41, 42, 43, 44, 45, 46, 47
RECEIVE, RECEIVE_MPTCP, RECEIVE_TLS = 50, 51, 52
SHUTDOWN, SPLICE_OUT, OPTION = 60, 61, 62

NAMES = {value: name.lower() for name, value in list(globals().items()) if name.isupper() and isinstance(value, int)}


class Record(NamedTuple):
    """One operation. end 0: it was under way when its process died."""

    begin: int
    end: int
    inode: int
    argument: int
    operation: int
    flags: int
    more: bytes


class Log:
    """The log of one process, in files NAME.0.log, NAME.1.log, ..."""

    def __init__(self, directory: str, name: str) -> None:
        self._path = os.path.join(directory, name)
        self._maps: List[mmap.mmap] = []
        self._next()

    def _next(self) -> None:
        path = f"{self._path}.{len(self._maps)}.log"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.ftruncate(descriptor, SEGMENT)
        self._maps.append(mmap.mmap(descriptor, SEGMENT))
        os.close(descriptor)
        self._at = 0

    def begin(self, operation: int, inode: int = 0, argument: int = 0, more: bytes = b"", since: int = 0) -> int:
        """An operation begins now, or began at `since`. Returns what end() wants to know."""
        size = HEAD.size + (len(more) + 7 & ~7)
        if self._at + size > SEGMENT:
            self._next()
        at = self._at
        into = self._maps[-1]
        into[at + HEAD.size : at + HEAD.size + len(more)] = more
        self._at += size
        HEAD.pack_into(into, at, since or monotonic_ns(), 0, inode, argument, operation, 0, len(more))
        return at + SEGMENT * (len(self._maps) - 1)

    def end(self, at: int, flags: int = 0) -> None:
        """The operation has ended, of which begin() returned this."""
        into, at = self._maps[at // SEGMENT], at % SEGMENT
        if flags:
            _FLAGS.pack_into(into, at + 29, flags)
        _END.pack_into(into, at + 8, monotonic_ns())

    def note(self, operation: int, inode: int = 0, argument: int = 0, more: bytes = b"", since: int = 0) -> None:
        """Something that happened between `since` and now."""
        self.end(self.begin(operation, inode, argument, more, since))

    def close(self) -> None:
        for each in self._maps:
            each.close()


def read(content: bytes) -> Iterator[Record]:
    """The records of one file."""
    at = 0
    while at + HEAD.size <= len(content):
        begin, end, inode, argument, operation, flags, length = HEAD.unpack_from(content, at)
        if not operation:
            return
        at += HEAD.size
        yield Record(begin, end, inode, argument, operation, flags, content[at : at + length])
        at += length + 7 & ~7


def used(content: bytes) -> int:
    """How many bytes of a file hold records."""
    at = 0
    while at + HEAD.size <= len(content) and content[at + 28]:
        at += HEAD.size + (int.from_bytes(content[at + 30 : at + 32], "little") + 7 & ~7)
    return at


def pack(directory: str, into: str) -> None:
    """Puts the records of all files of a directory into one, and removes them: a guest sends it over a console."""
    with open(into, "wb") as packed:
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                content = file.read()
            content = content[: used(content)]
            packed.write(struct.pack("<H", len(name)) + name.encode() + struct.pack("<I", len(content)) + content)
            os.unlink(path)


def unpack(content: bytes) -> Iterable[Tuple[str, List[Record]]]:
    """The processes' names and records, from a file that pack() made."""
    at = 0
    found: Dict[Tuple[str, int], List[Record]] = {}
    while at < len(content):
        (length,) = struct.unpack_from("<H", content, at)
        name, number, _ = content[at + 2 : at + 2 + length].decode().rsplit(".", 2)
        at += 2 + length
        (size,) = struct.unpack_from("<I", content, at)
        found[name, int(number)] = list(read(content[at + 4 : at + 4 + size]))
        at += 4 + size
    processes: Dict[str, List[Record]] = {}
    for key in sorted(found):
        processes.setdefault(key[0], []).extend(found[key])
    return processes.items()
