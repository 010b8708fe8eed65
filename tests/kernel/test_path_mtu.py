"""A packet that is too big for the path is sent again in smaller ones: no timer ran out."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from sockpid.host import netns
from sockpid.host.netns import Namespace
from sockpid.subjects.deaf import drop_everything
from tests import namespaces
from tests.kernel.test_run import Probe

DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4
IP_MTU = 14
PATH_MTU = 1000
PAYLOAD = 4000


def checksum(content: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def sent_by(client: socket.socket, heard: socket.socket) -> bytes:
    """The start of the packet that carries the client's data, as a router would quote it."""
    port = client.getsockname()[1]
    while True:
        packet = heard.recv(65536)
        header = (packet[0] & 15) * 4
        if int.from_bytes(packet[header : header + 2], "big") == port and len(packet) > PAYLOAD:
            return packet[: header + 8]


def too_big(quoted: bytes) -> bytes:
    """What a router says of it (RFC 1191)."""
    head = struct.pack("!BBHHH", DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, PATH_MTU)
    return head[:2] + struct.pack("!H", checksum(head + quoted)) + head[4:] + quoted


def timeouts(namespace: Namespace) -> int:
    """How often a retransmission timer ran out there."""
    rows = [line.split() for line in netns.read(namespace, "netstat").splitlines() if line.startswith("TcpExt:")]
    return int(rows[1][rows[0].index("TCPTimeouts")])


def test_it_is_not_called_a_timeout(tmp_path: Path) -> None:
    """The packet's receiver hears nothing, and a router's word comes before any timer runs out."""
    with namespaces.bound(tmp_path) as namespace, contextlib.ExitStack() as stack:
        probe = Probe("--json", "--netns", str(namespace.inode))
        before = timeouts(namespace)

        def say_so() -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            drop_everything(stack.enter_context(listener.accept()[0]))
            heard = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
            router = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
            client.send(bytes(PAYLOAD))
            router.sendto(too_big(sent_by(client, heard)), ("127.0.0.1", 0))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            mtu = client.getsockopt(socket.IPPROTO_IP, IP_MTU)
            client.close()
            return mtu

        assert netns.run_in(namespace, say_so) == PATH_MTU
        ran_out = timeouts(namespace) - before
        kinds = [event["kind"] for event in probe.finish()]
    assert kinds.count("rto") == ran_out
    assert kinds.count("simple") >= 1
    assert set(kinds) <= {"simple", "rto", "tlp"}
