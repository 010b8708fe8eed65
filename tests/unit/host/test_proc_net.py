"""/proc/net/tcp as values: addresses are numbers in the machine's byte order there, ports are not."""

from __future__ import annotations

import pytest

from sockpid.event import socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import proc_net
from sockpid.host.inet_sock import TCP_LISTEN, InetSock, inet_sock

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TAIL = "00000000:00000000 00:00000000 00000000     0        0"


def sock(tuple_: SocketTuple, state: int, inode: int) -> InetSock:
    return InetSock(tuple_, state, inode, socket_tuple.pack(tuple_), device_told=False)


def test_ipv4_of_a_little_endian_machine() -> None:
    text = (
        HEAD
        + f"   0: 0100007F:1F90 00000000:0000 0A {TAIL} 1066 1 000000008fc996a7 100 0 0 10 0\n"
        + f"   1: 0100000A:9C62 0200000A:2328 01 {TAIL} 2077 2 000000008fc996a7 20 4 30 10 -1\n"
        + f"   2: 0100000A:9C63 0200000A:2328 06 {TAIL} 0 3 000000008fc996a7\n"
    )
    assert list(proc_net.parse(text, 77, 2, "little")) == [
        sock(SocketTuple(77, "inet", 8080, 0, "127.0.0.1", "0.0.0.0"), TCP_LISTEN, 1066),
        sock(SocketTuple(77, "inet", 40034, 9000, "10.0.0.1", "10.0.0.2"), 1, 2077),
    ]


def test_ipv4_of_a_big_endian_machine() -> None:
    text = HEAD + f"   1: 0A000001:9C62 0A000002:2328 04 {TAIL} 0 2 000000008fc996a7 20 4 30 10 -1\n"
    found = next(proc_net.parse(text, 1, 2, "big"))
    assert found == sock(SocketTuple(1, "inet", 40034, 9000, "10.0.0.1", "10.0.0.2"), 4, 0)


@pytest.mark.parametrize(
    ("digits", "order", "text"),
    [
        ("B80D0120000000000000000001000000", "little", "2001:db8::1"),
        ("20010DB8000000000000000000000001", "big", "2001:db8::1"),
        ("00000000000000000000000000000000", "little", "::"),
    ],
)
def test_ipv6(digits: str, order: str, text: str) -> None:
    line = HEAD + f"   0: {digits}:0016 {digits}:0017 01 {TAIL} 5 1\n"
    found = next(proc_net.parse(line, 1, 10, order))
    assert (found.tuple.family, found.tuple.saddr, found.tuple.daddr) == ("inet6", text, text)


def test_mapped_addresses_are_ipv4_where_the_remote_one_is_mapped() -> None:
    mapped, anywhere = bytes(10) + b"\xff\xff\x7f\0\0\1", bytes(16)
    connected = inet_sock(1, 10, mapped, 1, mapped, 2, 1, 3)
    assert connected.tuple == SocketTuple(1, "inet", 1, 2, "127.0.0.1", "127.0.0.1")
    assert inet_sock(1, 10, mapped, 1, mapped, 2, 1, 3, 4).tuple == connected.tuple._replace(ifindex=4)
    assert inet_sock(1, 10, anywhere, 1, anywhere, 0, TCP_LISTEN, 3).tuple == SocketTuple(1, "inet6", 1, 0, "::", "::")


def test_another_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="/proc/net/tcp"):
        list(proc_net.parse(HEAD + "   0: 0100007F:1F90\n", 1, 2))
