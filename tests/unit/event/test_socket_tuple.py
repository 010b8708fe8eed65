"""The name of a socket as bytes, and as people read it."""

from __future__ import annotations

import ipaddress
import random
import struct
import sys

import pytest

from sockpid.event import socket_tuple
from sockpid.event.socket_tuple import SocketTuple


@pytest.mark.parametrize("seed", range(50))
def test_names_as_bytes_and_back(seed: int) -> None:
    """Addresses with zeros anywhere; as text they are those of the standard library's other module for them."""
    chosen = random.Random(seed)
    raw = [bytes(chosen.choice((0, 0, 1, 255)) for _ in range(16)) for _ in range(2)]
    raw = [b"\x20" + address[1:] for address in raw]  # none that embeds an IPv4 address
    texts = [str(ipaddress.IPv6Address(address)) for address in raw]
    value = SocketTuple(4026531840, "inet6", 443, 65535, texts[0], texts[1], chosen.randrange(1 << 32))
    packed = socket_tuple.pack(value)
    assert packed[4:8] == value.ifindex.to_bytes(4, sys.byteorder)
    assert packed[16:] == b"".join(raw)
    assert socket_tuple.unpack(packed) == value


def test_of_an_ipv4_address_four_bytes_count() -> None:
    value = SocketTuple(1, "inet", 22, 0, "10.0.255.1", "0.0.0.0")
    packed = socket_tuple.pack(value)
    assert packed[16:32] == bytes((10, 0, 255, 1)).ljust(16, b"\0")
    assert socket_tuple.unpack(packed) == value
    assert socket_tuple.address(2, bytes((10, 0, 255, 1))) == "10.0.255.1"


def test_a_family_that_is_unknown_is_named_by_its_number() -> None:
    addresses = bytes((1, 2, 3, 4)).ljust(16, b"\0") + bytes(16)
    packed = struct.pack("=" + socket_tuple.TUPLE, 1, 0, 99, 22, 0, 0, addresses[:16], addresses[16:])
    assert socket_tuple.unpack(packed) == (1, "family-99", 22, 0, "1.2.3.4", "0.0.0.0", 0)


@pytest.mark.parametrize(("family", "text"), [("inet", "1.2.3"), ("inet", "::1"), ("inet6", "1.2.3.4"), ("inet6", "")])
def test_what_is_no_address_is_refused(family: str, text: str) -> None:
    with pytest.raises(OSError, match="illegal IP address"):
        socket_tuple.pack(SocketTuple(1, family, 1, 2, text, text))
