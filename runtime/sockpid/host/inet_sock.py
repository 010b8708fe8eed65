"""A TCP socket as sock_diag and /proc/net/tcp tell of it. Pure."""

from __future__ import annotations

import functools
import struct

from sockpid.event import socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

AF_INET = 2
AF_INET6 = 10
TCP_SYN_RECV = 3
TCP_TIME_WAIT = 6
TCP_LISTEN = 10
V4_MAPPED = bytes(10) + b"\xff\xff"


class InetSock(NamedTuple):
    """A socket: its name as in events, its state (TCP_ESTABLISHED...), and its inode, 0 if no file belongs to it.

    A listening socket has no remote end: dport is 0, daddr "0.0.0.0" or "::". key is socket_tuple.pack(tuple).
    device_told: whether the source knows of devices; if not, ifindex is 0.
    """

    tuple: SocketTuple
    state: int
    inode: int
    key: bytes
    device_told: bool = True


def inet_sock(
    netns: int,
    family: int,
    saddr: bytes,
    sport: int,
    daddr: bytes,
    dport: int,
    state: int,
    inode: int,
    ifindex: Optional[int] = None,
) -> InetSock:
    """Of addresses in network order (4 or 16 bytes) and ports as numbers. ifindex: None where the source does not tell.

    IPv4 in IPv6 becomes IPv4 by the rule of read_tuple() in bpf_bytecode/sockpid.bpf.c, which looks at the remote
    address: the keys of socket_to_pid must be the same.
    """
    if family == AF_INET6 and daddr.startswith(V4_MAPPED):
        family, saddr, daddr = AF_INET, saddr[12:], daddr[12:]
    device = ifindex or 0
    texts = _text(family, saddr), _text(family, daddr)
    name = SocketTuple(netns, socket_tuple.FAMILY[family], sport, dport, *texts, device)
    key = struct.pack("=" + socket_tuple.TUPLE, netns, device, family, sport, dport, 0, saddr, daddr)
    return InetSock(name, state, inode, key, ifindex is not None)


@functools.lru_cache(maxsize=1024)  # a server's sockets share their local address
def _text(family: int, address: bytes) -> str:
    return socket_tuple.address(family, address)


def is_link_local(text: str) -> bool:
    """Is it an address that means something on one link alone? Such a socket is bound to a device (fe80::/10)."""
    return text[:3] in ("fe8", "fe9", "fea", "feb") and text.find(":") == 4
