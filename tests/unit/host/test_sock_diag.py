"""The parser that pyroute2 is given: sockets, the end, and errors, which look like IPv4 to pyroute2's own."""

from __future__ import annotations

import socket
import struct

import pytest

from sockpid.event import socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import sock_diag
from sockpid.host.inet_sock import InetSock
from sockpid.host.sock_diag import Answer


def sock(tuple_: SocketTuple, state: int, inode: int) -> InetSock:
    return InetSock(tuple_, state, inode, socket_tuple.pack(tuple_))


def message(family: int, saddr: str, daddr: str, inode: int = 7, ifindex: int = 0) -> bytes:
    source, destination = (socket.inet_pton(family, a).ljust(16, b"\0") for a in (saddr, daddr))
    body = struct.pack("=BBBB", family, 1, 0, 0) + struct.pack("!HH", 40034, 9000) + source + destination
    body += struct.pack("=IQIIIII", ifindex, 1, 0, 0, 0, 0, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 255, 1) + body


def end(kind: int, error: int) -> bytes:
    return struct.pack("=IHHIIi", 20, kind, 2, 255, 1, error)


def feed(answer: Answer, datagram: bytes) -> list[object]:
    """As pyroute2's Marshal.parse() does."""
    returned: list[object] = []
    offset = 0
    while offset < len(datagram):
        length = struct.unpack_from("=I", datagram, offset)[0]
        returned.append(answer.get_parser(0, 0, 0)(datagram, offset, length))
        offset += length
    return returned


def test_sockets_and_the_end() -> None:
    answer = Answer(77)
    v4, v6 = message(socket.AF_INET, "10.0.0.1", "10.0.0.2"), message(socket.AF_INET6, "fe80::1", "fe80::2", 8, 3)
    returned = feed(answer, v4 + v6)
    assert [r is None for r in returned] == [True, False]
    assert not answer.done
    feed(answer, end(3, 0))
    assert (answer.done, answer.error) == (True, 0)
    assert answer.socks == [
        sock(SocketTuple(77, "inet", 40034, 9000, "10.0.0.1", "10.0.0.2"), 1, 7),
        sock(SocketTuple(77, "inet6", 40034, 9000, "fe80::1", "fe80::2", ifindex=3), 1, 8),
    ]


def test_an_error_is_no_socket() -> None:
    for kind in (2, 3):
        answer = Answer(77)
        feed(answer, end(kind, -2))
        assert (answer.error, answer.socks) == (2, [])


def test_a_pyroute2_with_another_interface_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __enter__(self) -> Other:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(sock_diag, "load", lambda: Other)
    with pytest.raises(ImportError, match="AttributeError"):
        sock_diag.dump(77, socket.AF_INET)
