"""The steps of a calibration that find members of struct sock and of what it points to."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from typing import List, NamedTuple

from sockpid import uapi
from sockpid.errors import CalibrationError, SockpidError
from sockpid.offsets.calibration import Sample, places, search_bits
from sockpid.subjects import provoke, subjects, workers
from sockpid.subjects.peek import RAW, Peek
from sockpid.subjects.subjects import Connection
from sockpid.table.layout import Field

from .findings import COMMON, Findings

SOCK_COMMON = range(160)
"""Where members of struct sock_common can be: it has 136 bytes on 64-bit machines and less on others (4.9 to 7.3)."""
SOCK = range(96, 2048)
SOCKET = 1024  # bytes of struct socket and its inode to look at
NAMESPACE = 1024  # bytes of struct net; ns.inum has been within the first 300


class Socket(NamedTuple):
    """A connected socket of ours: the address of its struct sock, its memory, its inode's number, and itself."""

    sk: int
    memory: bytes
    inode: int
    client: socket.socket


class Sockets:
    """Plain TCP sockets, looked at in many states, and what they tell."""

    def __init__(self, findings: Findings, peek: Peek) -> None:
        self.peek = peek
        self.sockets: List[Socket] = []
        self._findings = findings
        self._samples: List[Sample] = []

    def run(self, stack: contextlib.ExitStack, children: List[workers.Child]) -> None:
        """All steps. Raises CalibrationError and OSError if the host does not let us make the sockets."""
        self.connect_all(stack)
        self._sock_common()
        self._net(children)
        self._sk_socket()
        self._sk_protocol()
        within = range(SOCK_COMMON.stop, SOCK.stop)
        self._findings.search(self._samples, "struct inet_sock.inet_sport", 2, within, taken=True)

    def connect_all(self, stack: contextlib.ExitStack) -> None:
        """Connections of every family, each looked at in several states, and their listening sockets."""
        families = ("inet", "mapped", "inet", "mapped", "inet", "mapped", "inet6")
        for number, family in enumerate(families):
            try:
                connection = Connection(family, buffers=number & 3)
            except OSError as error:
                if family == "inet":
                    raise
                self._findings.problems[COMMON + "skc_v6_daddr"] = (
                    f"no sockets of family {family} here: {error.strerror}"
                )
                continue
            stack.callback(connection.close)
            sk = self.connect(connection)
            server = connection.accept()
            self._closed_listener(connection)
            memory = self._look(connection, sk)
            self.sockets.append(Socket(sk, memory, os.fstat(connection.client.fileno()).st_ino, connection.client))
            for ending in (connection.client, server)[: 1 + number % 2][::-1][:1]:
                ending.shutdown(socket.SHUT_WR)  # FIN_WAIT2 for one half, CLOSE_WAIT for the other
            time.sleep(0.01)
            self._look(connection, sk)
        for _ in range(3):
            self._multicast()

    def connect(self, connection: Connection) -> int:
        """Connects; the address of the client's struct sock."""
        connection.listener.listen(1)
        for record in self.peek.capture(connection.connect):
            if record.args[-1] & 0xFF == uapi.TCP_SYN_SENT:
                return record.args[0]
        raise CalibrationError("the probe did not see a socket of our own connect", [])

    def _look(self, connection: Connection, sk: int) -> bytes:
        """Notes a connected client as a sample."""
        before = subjects.state(connection.client)
        memory = self.peek.read(sk)
        known = subjects.known(connection, self._findings.order)
        if before == subjects.state(connection.client):
            known[COMMON + "skc_state"] = {before}
        self._samples.append(Sample(memory, known))
        return memory

    def _closed_listener(self, connection: Connection) -> None:
        """Closes the listening socket: on that way it passes the probe, still in state LISTEN."""
        for record in self.peek.capture(connection.listener.close):
            if record.args[-1] & 0xFF == subjects.TCP_CLOSE:
                self._samples.append(Sample(record.memory, subjects.known_listener(connection, self._findings.order)))

    def _multicast(self) -> None:
        """A socket bound to a multicast address: the one it receives at, while the one it sends from stays 0.

        That tells skc_rcv_saddr from inet_saddr (Linux: net/ipv4/af_inet.c, __inet_bind).
        """
        name = subjects.names()
        address = "239" + name.local[3:]
        with socket.socket() as bound:
            try:
                bound.bind((address, name.port))
                bound.listen(1)
            except OSError:
                return
            packed = self._findings.number(socket.inet_aton(address))
            for record in self.peek.capture(bound.close):
                if record.args[-1] & 0xFF == subjects.TCP_CLOSE:
                    known = {
                        COMMON + "skc_rcv_saddr": {packed},
                        COMMON + "skc_daddr": {0},
                        COMMON + "skc_num": {name.port},
                    }
                    self._samples.append(Sample(record.memory, known))

    def _sock_common(self) -> None:
        # The long ones first: the kernel keeps IPv4 addresses in them, too.
        for name, size, align in (
            ("skc_v6_daddr", 16, 4), ("skc_v6_rcv_saddr", 16, 4), ("skc_daddr", 4, 0), ("skc_rcv_saddr", 4, 0),
            ("skc_dport", 2, 0), ("skc_num", 2, 0), ("skc_family", 2, 0), ("skc_state", 1, 0),
        ):  # fmt: skip
            self._findings.search(self._samples, COMMON + name, size, SOCK_COMMON, align, taken=True)

    def _net(self, children: List[workers.Child]) -> None:
        """skc_net is the pointer that the sockets of a namespace share, and no others; inum is behind it."""
        field, inum = COMMON + "skc_net.net", "struct net.ns.inum"
        here = os.stat("/proc/thread-self/ns/net").st_ino
        groups = [(here, [s.memory for s in self._samples])]
        for child in children:
            if child.netns is not None:
                records = self.peek.capture(child.pass_state, thread=child.id)
                groups.append((child.netns, [record.memory for record in records]))
        if len({inode for inode, _ in groups}) < 3:
            self._findings.problems[field] = self._findings.problems[inum] = (
                "no network namespaces of our own to compare with"
            )
            return
        candidates = []
        for offset, _ in self._findings.pointers(groups[0][1][0], SOCK_COMMON):
            size = self._findings.arch.pointer_size
            values = [
                {self._findings.number(memory[offset : offset + size]) for memory in group} for _, group in groups
            ]
            if all(len(v) == 1 for v in values) and len(set().union(*values)) == len(groups):
                candidates.append((offset, [v.pop() for v in values]))
        found = []
        for offset, addresses in candidates:
            samples = [
                Sample(self.peek.read(at, NAMESPACE), {inum: {group[0]}}) for at, group in zip(addresses, groups)
            ]
            for at in places(samples, inum, 4, self._findings.order, 4, range(NAMESPACE)):
                found.append((offset, at))
        if len(found) != 1:
            self._findings.problems[field] = self._findings.problems[inum] = (
                f"{len(found)} pairs of places fit {len(groups)} namespaces: {found}"
            )
            return
        self._findings.found[field] = self._findings.pointer_field(found[0][0])
        self._findings.found[inum] = Field(found[0][1] * 8, 32)

    def _sk_socket(self) -> None:
        """sk_socket points to something that points back to the sock and has the inode's number behind it."""
        names = ("struct sock.sk_socket", "struct socket.sk", "struct socket_alloc.vfs_inode.i_ino")
        triples = None
        for sk, memory, inode, _ in self.sockets:
            mine = set()
            for offset, value in self._findings.pointers(memory, SOCK):
                if triples is not None and offset not in {t[0] for t in triples}:
                    continue
                words = list(self._findings.words(self.peek.read(value, SOCKET), range(SOCKET)))
                backs = [at for at, word in words if word == sk]
                inodes = [at for at, word in words if word == inode]
                mine |= {(offset, back, ino) for back in backs for ino in inodes}
            triples = mine if triples is None else triples & mine
        if triples is None or len(triples) != 1:
            for name in names:
                self._findings.problems[name] = f"{len(triples or ())} places fit: {sorted(triples or ())[:8]}"
            return
        for name, offset in zip(names, triples.pop()):
            self._findings.found[name] = self._findings.pointer_field(offset)

    def _sk_protocol(self) -> None:
        """Raw sockets can have any protocol. Before Linux 5.6 the field is one byte, declared as a bit field."""
        field = "struct sock.sk_protocol"
        samples = [Sample(s.memory, {field: {socket.IPPROTO_TCP}}) for s in self.sockets]
        try:
            link = self.peek.attach(RAW)
        except SockpidError as error:
            self._findings.problems[field] = str(error)
            return
        try:
            for protocol in random.Random().sample(range(143, 253), 4):  # unassigned by IANA
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
                    records = self.peek.capture(lambda raw=raw: provoke.overrun(raw))  # type: ignore[misc]
                    samples += [Sample(record.memory, {field: {protocol}}) for record in records[:1]]
        except PermissionError:
            self._findings.problems[field] = "raw sockets need CAP_NET_RAW"
            return
        finally:
            self.peek.detach(link)
        if self._findings.search(samples, field, 2, SOCK) is None and "nowhere" in self._findings.problems[field]:
            self._findings.note(field, search_bits(samples, field, 8, self._findings.order, SOCK))
        self._sk_type(samples)

    def _sk_type(self, samples: List[Sample]) -> None:
        """It has been sk_protocol's neighbour in all versions, before it or behind it."""
        field, protocol = "struct sock.sk_type", self._findings.found.get("struct sock.sk_protocol")
        if protocol is None:
            return
        kinds = [
            Sample(s.memory, {field: {socket.SOCK_STREAM if number < len(self.sockets) else socket.SOCK_RAW}})
            for number, s in enumerate(samples)
        ]
        at = protocol.bit_offset // 8
        self._findings.search(kinds, field, 2, range(at - 2, at + 4))
