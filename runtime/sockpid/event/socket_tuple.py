"""What a socket is called: the key of socket_to_pid, struct socket_tuple of bpf_bytecode/sockpid.h. Pure."""

from __future__ import annotations

import struct

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

FAMILY = {2: "inet", 10: "inet6"}

TUPLE = "IIHHHH16s16s"
"""netns, ifindex, family, sport, dport, zero, saddr, daddr, for struct, behind a byte order."""


class SocketTuple(NamedTuple):
    """Network namespace inode, family ("inet", "inet6"), ports, addresses as text, index of the device.

    saddr and sport are the local end. A v4-mapped IPv6 socket is an inet one here. ifindex: of the device that the
    socket is bound to (SO_BINDTODEVICE, a link-local address, a VRF), 0 for none. Two sockets of one namespace may
    differ in nothing else.
    """

    netns: int
    family: str
    sport: int
    dport: int
    saddr: str
    daddr: str
    ifindex: int = 0


def pack(value: SocketTuple) -> bytes:
    """The struct socket_tuple of a value. Raises OSError for what is no address."""
    import socket  # see address()

    named = {name: number for number, name in FAMILY.items()}
    family = named[value.family] if value.family in named else int(value.family.rpartition("-")[2])
    written = family if family in FAMILY else socket.AF_INET  # as of_fields() does
    saddr, daddr = (socket.inet_pton(written, text).ljust(16, b"\0") for text in (value.saddr, value.daddr))
    return struct.pack("=" + TUPLE, value.netns, value.ifindex, family, value.sport, value.dport, 0, saddr, daddr)


def unpack(value: bytes) -> SocketTuple:
    """The value of a struct socket_tuple."""
    return of_fields(*struct.unpack("=" + TUPLE, value))


def of_fields(
    netns: int, ifindex: int, family: int, sport: int, dport: int, _zero: int, saddr: bytes, daddr: bytes
) -> SocketTuple:
    """Of the members of struct socket_tuple."""
    name = FAMILY.get(family, f"family-{family}")
    return SocketTuple(netns, name, sport, dport, address(family, saddr), address(family, daddr), ifindex)


def address(family: int, raw: Union[bytes, bytearray]) -> str:
    """Text of an address in network order, of whose bytes IPv4 takes the first four; RFC 5952 for IPv6."""
    import socket  # once attached it is there; before, its enumerations would take as long as to load three programs

    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, raw)
    return socket.inet_ntop(socket.AF_INET, raw[:4])
