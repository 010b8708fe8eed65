"""Sockets of our own that the kernel retransmits for, and whose every property we know.

A receiver with a filter that drops everything never acknowledges, so the kernel retransmits over loopback: no root, no
netem, no second host. Two segments in flight bring a tail loss probe after some milliseconds and the retransmission
timer after 200 and 600 ms; the sender shuts down in between, so that two states are seen.
"""

from __future__ import annotations

import os
import socket
import struct

from . import event, kernel, syscall, uapi
from .named import NamedTuple
from .socket_tuple import SocketTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional

FAMILIES = ("inet", "inet6", "mapped")
"""What a pair can be of: IPv4, IPv6, or IPv4 through IPv6 sockets."""


class Info(NamedTuple):
    """Of struct tcp_info (include/uapi/linux/tcp.h): timeouts in a row, round trip time in us, segments, segments.

    What is None was not to be had for the moment of an event.
    """

    retransmits: Optional[int]
    rtt: Optional[int]
    snd_cwnd: Optional[int]
    total_retrans: int


class Pair:
    """Two connected sockets on loopback, the receiving one deaf."""

    def __init__(self, family: str) -> None:
        """Raises OSError where the host has no such addresses."""
        self.family = family
        self.events: List[event.Event] = []
        self.infos: List[Info] = []
        noise = os.urandom(4)
        v4 = [f"127.{noise[i] | 1}.{noise[i + 1] | 2}.{2 + i}" for i in (0, 2)]
        local, remote = v4 if family == "inet" else [f"::ffff:{a}" for a in v4] if family == "mapped" else ["::1"] * 2
        domain = socket.AF_INET if family == "inet" else socket.AF_INET6
        self._sockets: List[socket.socket] = []
        try:
            listener = self._keep(socket.socket(domain, socket.SOCK_STREAM))
            if family == "mapped":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((remote, 0))
            listener.listen(1)
            self.sender = self._keep(socket.socket(domain, socket.SOCK_STREAM))
            self.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sender.bind((local, 0))
            self.sender.connect(listener.getsockname())
            receiver = self._keep(listener.accept()[0])
            drop_everything(receiver)
        except BaseException:
            self.close()
            raise
        self.tuple = SocketTuple(
            netns=kernel.netns_inode(),
            family="inet6" if family == "inet6" else "inet",
            sport=self.sender.getsockname()[1],
            dport=self.sender.getpeername()[1],
            saddr=v4[0] if family != "inet6" else local,
            daddr=v4[1] if family != "inet6" else remote,
        )

    def _keep(self, opened: socket.socket) -> socket.socket:
        self._sockets.append(opened)
        return opened

    def send(self) -> None:
        """Two segments, so that the tail loss probe need not wait for a delayed acknowledgement."""
        for _ in range(2):
            self.sender.send(b"x")

    def is_of(self, seen: event.Event) -> bool:
        """Whether an event is of our sending socket."""
        return (seen.tuple.sport, seen.tuple.dport) == (self.tuple.sport, self.tuple.dport)

    def take(self, seen: event.Event, uncounted: int) -> None:
        """Notes an event, and what the kernel says of the socket at the same moment. uncounted: retransmits that an
        event comes too early to be counted in.

        On a slow host the next retransmit may come before we ask. Then the number of this one must be between the
        former's and the kernel's.
        """
        info = self.info()
        info = info._replace(total_retrans=info.total_retrans - uncounted)
        former = self.events[-1].total_retrans if self.events else -uncounted
        if former < seen.total_retrans < info.total_retrans:
            info = Info(None, None, None, seen.total_retrans)
        self.infos.append(info)
        if not self.events:
            self.sender.shutdown(socket.SHUT_WR)
        self.events.append(seen)

    def complete(self) -> bool:
        """Enough was seen: two timeouts behind the shutdown, and once the kernel's own word on the same moment."""
        timeouts = sum(e.kind == "rto" and e.state == "FIN_WAIT1" for e in self.events)
        return timeouts > 1 and any(info.rtt is not None for info in self.infos)

    def info(self) -> Info:
        return Info(*struct.unpack("=2xB65xI8xI16xI", self.sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)))

    def inode(self) -> int:
        return os.fstat(self.sender.fileno()).st_ino

    def close(self) -> None:
        """Ends both ends at once: with a zero linger time a close is a reset."""
        for opened in self._sockets:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            opened.close()


def drop_everything(receiver: socket.socket) -> None:
    """Attaches a classic BPF filter of one instruction, `ret #0`."""
    code = bytearray(struct.pack("=HBBI", uapi.BPF_RET_K, 0, 0, 0))
    program = struct.pack("@HP", 1, syscall.address(code))  # struct sock_fprog
    receiver.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, program)
