"""Sockets that a process has open: opening, using and closing them, with a record of each."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from time import monotonic_ns
from typing import Callable, Optional, Tuple

from tests.accuracy.field import filters, sockets

from . import record
from .record import Log

Address = Tuple[str, int]

SO_BINDTODEVICE = 25
TCP_THIN_LINEAR_TIMEOUTS = 16
IPPROTO_MPTCP = 262
_libc = ctypes.CDLL(None, use_errno=True)


class Held:
    """A TCP socket that is open here. state: listening, new, connecting, connected, shut, disconnected.

    netns, family, device: of its tuple. queued: connections that wait for an accept(), as far as known.
    """

    __slots__ = ("device", "family", "inode", "local", "mptcp", "netns", "queued", "sock", "state", "tls")

    def __init__(self, sock: socket.socket, family: str, netns: int) -> None:
        self.sock = sock
        self.family = family
        self.netns = netns
        self.inode = os.fstat(sock.fileno()).st_ino
        self.state = "new"
        self.device = 0
        self.mptcp = self.tls = False
        self.local: Optional[Address] = None
        self.queued = 0

    @property
    def fileno(self) -> int:
        return self.sock.fileno()

    def describe(self) -> str:
        """All that another process has to know who is given the descriptor."""
        words = [self.inode, self.family, self.netns, self.state, self.device, int(self.mptcp), int(self.tls)]
        return " ".join(map(str, words))

    @classmethod
    def described(cls, descriptor: int, text: str) -> Held:
        """The descriptor must be of the inode that is described, else ValueError."""
        inode, family, netns, state, device, mptcp, tls = text.split(" ")
        opened = socket.socket(
            socket.AF_INET if family == "inet" else socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=descriptor
        )
        held = cls(opened, family, int(netns))
        held.state, held.device, held.mptcp, held.tls = state, int(device), mptcp == "1", tls == "1"
        if held.inode != int(inode):
            raise ValueError(f"inode {held.inode} in place of {inode}")
        return held

    def tuple(self, local: Address, peer: Address) -> bytes:
        """The socket's tuple as records have it."""
        folded = [text[7:] if text.startswith("::ffff:") else text for text in (local[0], peer[0])]
        family = "inet6" if ":" in folded[0] else "inet"
        return f"{self.netns} {family} {folded[0]} {local[1]} {folded[1]} {peer[1]} {self.device}".encode()


def opened(log: Log, family: str, netns: int, protocol: int = 0) -> Held:
    """A new socket."""
    since = monotonic_ns()
    held = Held(sockets.tcp(family, protocol), family, netns)
    held.mptcp = protocol == IPPROTO_MPTCP
    log.note(record.TAKE, held.inode, since=since)
    held.sock.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
    held.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 2, 0))  # for connect()
    return held


def bind_to_device(held: Held, name: str) -> None:
    held.sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, name.encode())
    held.device = socket.if_nametoindex(name)


def listen(log: Log, held: Held, backlog: int, thread: int = 0) -> None:
    local = held.sock.getsockname()[:2]
    held.local = local
    at = log.begin(record.LISTEN, held.inode, thread, held.tuple(local, ("", 0)))
    held.sock.listen(backlog)
    log.end(at)
    held.state = "listening"


def connect(log: Log, held: Held, peer: Address, *, wait: bool = True, thread: int = 0) -> bool:
    """Connects a bound socket. wait: until it stands. False if that failed."""
    local = held.sock.getsockname()[:2]
    held.local = local
    held.sock.setblocking(wait)
    at = log.begin(record.CONNECT, held.inode, thread, held.tuple(local, peer))
    try:
        held.sock.connect(peer)
    except BlockingIOError:
        log.end(at)
        held.state = "connecting"
        return True
    except OSError:
        log.end(at, record.FAILED)
        return False
    log.end(at)
    held.sock.setblocking(False)
    held.state = "connected"
    return True


def accept(log: Log, listener: Held) -> Optional[Held]:
    """Accepts a connection, if one is there."""
    listener.sock.setblocking(False)
    since = monotonic_ns()
    try:
        sock, peer = listener.sock.accept()
    except OSError:
        return None
    held = Held(sock, listener.family, listener.netns)
    held.device, held.state, held.local = listener.device, "connected", sock.getsockname()[:2]
    log.note(record.ACCEPT, held.inode, 0, held.tuple(held.local, peer[:2]), since=since)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return held


def disconnect(log: Log, held: Held) -> None:
    """connect() to AF_UNSPEC. The socket keeps the address that it was bound to."""
    at = log.begin(record.DISCONNECT, held.inode)
    address = ctypes.create_string_buffer(struct.pack("=H14x", socket.AF_UNSPEC))
    failed = _libc.connect(held.fileno, address, 16)
    log.end(at, record.FAILED if failed else 0)
    held.state = "disconnected"


def use(log: Log, operation: int, held: Held, body: Callable[[Held], object], thread: int = 0) -> bool:
    """Does something with a socket. False if that failed."""
    at = log.begin(operation, held.inode, thread)
    try:
        done = body(held)
    except OSError:
        log.end(at, record.FAILED)
        return False
    # The end of the stream is no data; it may have counted, or not.
    log.end(at, 0 if done or operation == record.SHUTDOWN else record.FAILED)
    return True


def close(log: Log, held: Held, reset: bool = False) -> None:
    """Closes our descriptor; reset: if it is the last one, the connection ends at once."""
    if reset:
        held.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    at = log.begin(record.CLOSE, held.inode, int(reset))
    held.sock.close()
    log.end(at)


def hear(held: Held) -> None:
    """Takes the filter away, if there is one."""
    with contextlib.suppress(OSError):
        held.sock.setsockopt(socket.SOL_SOCKET, filters.SO_DETACH_FILTER, 0)


def deafen(held: Held, what: filters.Filter = filters.DATA) -> None:
    filters.drop(held.sock, what)
