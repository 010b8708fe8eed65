"""Sockets of our own, made for being looked at, with values that nothing else has; and what is known of them.

The values are random, and no two bytes of a socket's addresses and ports are equal: no port is found within an address.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from typing import Dict, List, NamedTuple, Set, Tuple

from sockpid.host.inet_sock import V4_MAPPED

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_ULP = 19, 20, 21, 31  # include/uapi/linux/tcp.h
TCP_SEND_QUEUE = 2
IPPROTO_MPTCP = 262
SO_NO_CHECK = 11  # include/uapi/asm-generic/socket.h
TCP_CLOSE, TCP_LISTEN = 7, 10
COMMON = "struct sock.__sk_common."
TRIES = 20


class Names(NamedTuple):
    """Addresses and ports of a connection, IPv4."""

    local: str
    remote: str
    port: int
    remote_port: int


def names() -> Names:
    """A connection on loopback that has no byte twice, and none that is also a family, a state or a length here."""
    chosen = random.Random().sample([n for n in range(17, 256) if n not in (127, 255)], 10)
    local, remote = (f"127.{a}.{b}.{c}" for a, b, c in (chosen[:3], chosen[3:6]))
    return Names(local, remote, (chosen[6] | 64) << 8 | chosen[7], (chosen[8] | 64) << 8 | chosen[9])


class Connection:
    """Two connected sockets and the listening one. family: "inet", "mapped" (v4-mapped) or "inet6" (::1)."""

    def __init__(self, family: str = "inet", protocol: int = 0, buffers: int = 0) -> None:
        """Opens and binds; connect() connects. buffers: bit 0, 1: set the send, the receive buffer of the client.

        Raises OSError where the host has no such sockets.
        """
        self.family = family
        self._open: List[socket.socket] = []
        self.domain = int(socket.AF_INET if family == "inet" else socket.AF_INET6)
        for attempt in range(TRIES):
            self.names = names()
            try:
                self.listener = self._socket(protocol)
                self.client = self._socket(protocol)
                self._bind()
                break
            except OSError as error:
                self.close()
                if error.errno != errno.EADDRINUSE or attempt + 1 == TRIES:
                    raise
        for bit, option in ((1, socket.SO_SNDBUF), (2, socket.SO_RCVBUF)):
            if buffers & bit:
                self.client.setsockopt(socket.SOL_SOCKET, option, 1 << 16)

    def _socket(self, protocol: int) -> socket.socket:
        opened = socket.socket(self.domain, socket.SOCK_STREAM, protocol)
        self._open.append(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.family == "mapped":
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if protocol != IPPROTO_MPTCP:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _bind(self) -> None:
        self.listener.bind((self._text(self.names.remote), self.names.remote_port))
        self.client.bind((self._text(self.names.local), self.names.port))

    def _text(self, address: str) -> str:
        return {"inet": address, "mapped": "::ffff:" + address, "inet6": "::1"}[self.family]

    def number_from(self, isn: int) -> None:
        """Sets the sequence number of the client's SYN. Raises OSError without CAP_NET_ADMIN."""
        tcp = socket.IPPROTO_TCP
        self.client.setsockopt(tcp, TCP_REPAIR, 1)
        self.client.setsockopt(tcp, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
        self.client.setsockopt(tcp, TCP_QUEUE_SEQ, struct.pack("=I", isn))
        self.client.setsockopt(tcp, TCP_REPAIR, 0)

    def listen(self) -> None:
        self.listener.listen(1)

    def connect(self) -> None:
        self.client.connect(self.listener.getsockname())

    def accept(self) -> socket.socket:
        self.server = self.listener.accept()[0]
        self._open.append(self.server)
        return self.server

    def address(self, which: str, byte_order: str) -> Tuple[int, int]:
        """An address of the client, "local" or "remote", as the kernel's memory has it: of 4 and of 16 bytes."""
        packed = socket.inet_aton(getattr(self.names, which))
        long = V4_MAPPED + packed if self.family == "mapped" else bytes(15) + b"\1"
        return int.from_bytes(packed, byte_order), int.from_bytes(long, byte_order)  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends all at once: with a zero linger time a close is a reset."""
        for opened in self._open:
            if opened.fileno() >= 0:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                opened.close()
        self._open = []


def known(of: Connection, byte_order: str) -> Dict[str, Set[int]]:
    """What a connected client's memory must say, by field; all but its state."""
    local, remote = of.address("local", byte_order), of.address("remote", byte_order)
    values: Dict[str, Set[int]] = {
        COMMON + "skc_num": {of.names.port},
        COMMON + "skc_dport": {swapped(of.names.remote_port, byte_order)},
        COMMON + "skc_family": {of.domain},
        "struct inet_sock.inet_sport": {swapped(of.names.port, byte_order)},
    }
    if of.family == "inet":
        values.update({COMMON + "skc_daddr": {remote[0]}, COMMON + "skc_rcv_saddr": {local[0]}})
    else:
        values.update({COMMON + "skc_v6_daddr": {remote[1]}, COMMON + "skc_v6_rcv_saddr": {local[1]}})
    return values


def known_listener(of: Connection, byte_order: str) -> Dict[str, Set[int]]:
    """The same of the listening socket."""
    address = of.address("remote", byte_order)
    values: Dict[str, Set[int]] = {
        COMMON + "skc_num": {of.names.remote_port},
        COMMON + "skc_dport": {0},
        COMMON + "skc_family": {of.domain},
        COMMON + "skc_state": {TCP_LISTEN},
        "struct inet_sock.inet_sport": {swapped(of.names.remote_port, byte_order)},
    }
    if of.family == "inet":
        values.update({COMMON + "skc_daddr": {0}, COMMON + "skc_rcv_saddr": {address[0]}})
    else:
        values.update({COMMON + "skc_v6_daddr": {0}, COMMON + "skc_v6_rcv_saddr": {address[1]}})
    return values


def swapped(port: int, byte_order: str) -> int:
    """A port in network order, as a number of the machine's order."""
    return int.from_bytes(port.to_bytes(2, "big"), byte_order)  # type: ignore[arg-type]


def state(of: socket.socket) -> int:
    """TCP state of a socket, as TCP_INFO has it."""
    return of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
