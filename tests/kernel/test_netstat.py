"""The kernel's counters of a namespace made for it, in which exactly what we cause is counted."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from sockpid.host import kernel, netns, netstat
from sockpid.subjects.deaf import drop_everything
from tests import namespaces


def retransmit() -> tuple[socket.socket, list[socket.socket]]:
    """A connection whose receiving end drops everything, with two segments on their way."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server, _ = listener.accept()
    drop_everything(server)
    client.send(b"x")
    client.send(b"x")
    return client, [listener, client, server]


def total_retrans(sock: socket.socket) -> int:
    """tcp_info.tcpi_total_retrans."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[100:104], sys.byteorder)


def test_counts_of_one_connection_add_up(tmp_path: Path) -> None:
    with namespaces.bound(tmp_path) as namespace:
        before = netstat.read()
        assert before[namespace.inode] == dict.fromkeys((*netstat.TCP, *netstat.TCP_EXT), 0)
        assert kernel.netns_inode() in before
        client, opened = netns.run_in(namespace, retransmit)
        try:
            deadline = time.monotonic() + 5
            while total_retrans(client) < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            for sock in opened:
                sock.close()
            time.sleep(0.05)
        counted = netstat.difference(netstat.read(), before)[namespace.inode]
        probes = counted["TCPLossProbes"]
        assert counted["RetransSegs"] >= 3
        assert counted["RetransSegs"] == probes + counted["TCPTimeouts"]
        kinds = {"tlp": probes, "rto": counted["TCPTimeouts"]}
        lines = netstat.reconcile({namespace.inode: kinds}, {namespace.inode: counted}, 0)
        assert all(line.agrees for line in lines), lines
        kinds["rto"] -= 1
        lines = netstat.reconcile({namespace.inode: kinds}, {namespace.inode: counted}, 0)
        assert [line.name for line in lines if line.agrees is False] == ["RetransSegs"]


def test_syns_to_nobody_are_counted_as_such(tmp_path: Path) -> None:
    """The listening socket drops everything: nothing answers, and the SYN goes out again after a second."""

    def connect() -> socket.socket:
        sock = socket.socket()
        listener.append(socket.socket())
        listener[0].bind(("127.0.0.1", 0))
        listener[0].listen()
        drop_everything(listener[0])
        sock.setblocking(False)
        sock.connect_ex(listener[0].getsockname())
        return sock

    listener: list[socket.socket] = []
    with namespaces.bound(tmp_path) as namespace:
        sock = netns.run_in(namespace, connect)
        try:
            time.sleep(1.3)
            counted = netstat.read()[namespace.inode]
        finally:
            sock.close()
            listener[0].close()
    assert (counted["RetransSegs"], counted["TCPSynRetrans"], counted["TCPTimeouts"]) == (1, 1, 1)
    lines = netstat.reconcile({namespace.inode: {"syn": 1}}, {namespace.inode: counted}, 0)
    assert all(line.agrees and line.missing == 0 for line in lines)
