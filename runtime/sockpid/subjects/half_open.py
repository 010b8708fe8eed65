"""A connection request of our own whose SYN-ACK the kernel retransmits, at once.

The listening socket has a filter that drops what has the ACK flag, so the connection never gets beyond the request.
When a second SYN arrives with the number of the first, the kernel answers it by retransmitting
(net/ipv4/tcp_minisocks.c, tcp_check_req()): nobody has to wait for the timer, which runs for a second.
"""

from __future__ import annotations

import os
import socket
import struct

from sockpid import syscall, uapi
from sockpid.event import event
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel
from sockpid.host.noise import random_bytes

from .deaf import drop_everything

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple


class Request:
    """A listening socket, and two clients one after another with the same name. close() ends all."""

    def __init__(self) -> None:
        """Raises OSError where we may not choose a sequence number (CAP_NET_ADMIN)."""
        self._open: List[socket.socket] = []
        self.event: Optional[event.Event] = None
        self._deaf_clients = False
        noise = random_bytes(4)
        remote, local = (f"127.{noise[i] | 1}.{noise[i + 1] | 2}.{6 + i}" for i in (0, 2))
        self._isn = 1 << 30 | int.from_bytes(random_bytes(4), "big") >> 2
        try:
            self._listener = self._socket()
            self._listener.bind((remote, 0))
            self._listener.listen(1)
            _drop_acks(self._listener)
            self._inode = os.fstat(self._listener.fileno()).st_ino
            port = self._connect((local, 0))
            if self._has_accepted():
                self._deaf_clients = True
                port = self._connect((local, 0))
            self._open.pop().close()
        except BaseException:
            self.close()
            raise
        self._name = local, port
        self.tuple = SocketTuple(
            netns=kernel.netns_inode(),
            family="inet",
            sport=self._listener.getsockname()[1],
            dport=port,
            saddr=remote,
            daddr=local,
        )

    def send(self) -> None:
        """The second SYN. Raises OSError."""
        self._connect(self._name)

    def likeness(self, seen: event.Event) -> int:
        """How much an event has of this request: from 2 it is of this one; with 1 it may be, read wrong."""
        own, its = self.tuple, seen.tuple
        same = [its.sport == own.sport, its.dport == own.dport, its.saddr == own.saddr, its.daddr == own.daddr]
        return max(2 * (seen.inode == self._inode), sum(same))

    def compare(self, seen: event.Event, known: Dict[str, object]) -> List[str]:
        """Every field of an event that differs from what is known, as "field: got, expected"."""
        pairs: List[Tuple[str, object, object]] = [
            (name, getattr(seen.tuple, name), getattr(self.tuple, name)) for name in SocketTuple._fields
        ]
        pairs += [("kind", seen.kind, "synack"), ("inode", seen.inode, self._inode)]
        if seen.owner is not None and "pid" in known:
            pairs.append(("owner", seen.owner.pid, known["pid"]))
        return [f"{name}: {a!r}, expected {b!r}" for name, a, b in pairs if a != b]

    def _socket(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._open.append(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # to close is to reset
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return opened

    def _connect(self, name: Tuple[str, int]) -> int:
        client = self._socket()
        client.bind(name)
        tcp = socket.IPPROTO_TCP
        client.setsockopt(tcp, uapi.TCP_REPAIR, 1)
        client.setsockopt(tcp, uapi.TCP_REPAIR_QUEUE, uapi.TCP_SEND_QUEUE)
        client.setsockopt(tcp, uapi.TCP_QUEUE_SEQ, struct.pack("=I", self._isn))
        client.setsockopt(tcp, uapi.TCP_REPAIR, 0)
        client.settimeout(1.0)
        if self._deaf_clients:
            drop_everything(client)
            client.setblocking(False)
            client.connect_ex(self._listener.getsockname())
        else:
            client.connect(self._listener.getsockname())
        port: int = client.getsockname()[1]
        return port

    def _has_accepted(self) -> bool:
        """Was the listening socket's filter not asked about the ACK? Linux 4.9 asks it about what is for the socket
        itself, not for a request (net/ipv4/tcp_ipv4.c, tcp_v4_rcv()): there the clients must not answer.
        """
        self._listener.setblocking(False)
        try:
            self._open.append(self._listener.accept()[0])
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        for opened in self._open:
            opened.close()
        self._open = []


def _drop_acks(listener: socket.socket) -> None:
    """Classic BPF: byte 13 of the TCP header holds the flags; 0x10 is ACK."""
    code = bytearray().join(
        struct.pack("=HBBI", *insn)
        for insn in (
            (0x30, 0, 0, 13),  # ldb [13]
            (0x45, 0, 1, 0x10),  # jset
            (uapi.BPF_RET_K, 0, 0, 0),
            (uapi.BPF_RET_K, 0, 0, 0xFFFFFFFF),
        )
    )
    program = struct.pack("@HP", len(code) // 8, syscall.address(code))
    listener.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, program)
