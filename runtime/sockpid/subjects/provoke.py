"""Brings connections of our own into states that TCP does not stay in, and tells what these are."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from typing import Callable, Dict, NamedTuple, Sequence, Set, Tuple

from sockpid import syscall, uapi
from sockpid.errors import CalibrationError
from sockpid.offsets.calibration import Known, Sample

from .deaf import drop_everything
from .peek import RETRANSMIT, Peek
from .peek_prog import ARG1
from .subjects import Connection

SO_DETACH_FILTER = 27  # include/uapi/asm-generic/socket.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1  # include/uapi/linux/{netlink,sock_diag}.h
NOCOOKIE = 0xFFFFFFFF


class Info(NamedTuple):
    """Of a connected socket: what TCP_INFO says, and `timer`, the column tr of /proc/net/tcp."""

    ca_state: int
    retransmits: int
    backoff: int
    rtt: int
    snd_cwnd: int
    total_retrans: int
    timer: int


def info(of: socket.socket) -> Info:
    """Linux: include/uapi/linux/tcp.h, struct tcp_info; Documentation/networking/proc_net_tcp.rst."""
    raw = of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    rtt, cwnd, total = struct.unpack_from("=68xI8xI16xI", raw)
    return Info(raw[1], raw[2], raw[4], rtt, cwnd, total, _timer(of))


def _timer(of: socket.socket) -> int:
    """Asked of the kernel for this one socket where it can be: /proc/net/tcp has all sockets of the host behind it.

    Linux: include/uapi/linux/inet_diag.h, struct inet_diag_req_v2 and inet_diag_msg, whose third byte is that column.
    """
    (local, port), (remote, remote_port) = of.getsockname(), of.getpeername()
    ends = struct.pack(">HH", port, remote_port) + socket.inet_aton(local).ljust(16, b"\0")
    ends += socket.inet_aton(remote).ljust(16, b"\0") + struct.pack("=III", 0, NOCOOKIE, NOCOOKIE)
    asked = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
    header = struct.pack("=IHHII", 16 + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
            diag.send(header + asked)
            reply = diag.recv(4096)
        if struct.unpack_from("=H", reply, 4) == (SOCK_DIAG_BY_FAMILY,):
            return reply[16 + 2]
    except OSError:  # no such family, or not for us
        pass
    return _timer_of_inode(os.fstat(of.fileno()).st_ino)


def _timer_of_inode(inode: int) -> int:
    with open("/proc/thread-self/net/tcp", encoding="ascii") as file:
        for line in file:
            columns = line.split()
            if columns[9] == str(inode):
                return int(columns[5].split(":")[0], 16)
    return -1


def known_tcp(of: Info) -> Dict[str, Known]:
    """What a socket's memory must say while `of` holds. A timer may stand for several causes."""
    icsk = "struct inet_connection_sock."
    pending: Dict[int, Set[int]] = {0: {0}, 1: {1} if of.ca_state == uapi.TCP_CA_Loss else {1, 2, 5}, 2: {0}, 4: {3}}
    values: Dict[str, Known] = {
        icsk + "icsk_ca_state": {of.ca_state},
        icsk + "icsk_retransmits": {of.retransmits},
        icsk + "icsk_pending": pending.get(of.timer, set(range(256))),
        "struct tcp_sock.snd_cwnd": {of.snd_cwnd},
        "struct tcp_sock.total_retrans": {of.total_retrans},
    }
    if of.rtt:
        values["struct tcp_sock.srtt_us"] = range(of.rtt * 8, of.rtt * 8 + 8)  # kept in eighths
    return values


def prepare(server: socket.socket, client: socket.socket, kind: str) -> None:
    """Brings a connection into a state: "deaf", "recovering" (deaf for now), "lossy", "full" or "busy"."""
    if kind in ("deaf", "recovering"):
        drop_everything(server)
        for size in (7, 11, 13):
            client.send(b"x" * size)
    elif kind == "lossy":
        # The filter sees the segment from its TCP header on; the data begins where the header's length says.
        drop_first(server)
        for size in (17, 19, 23, 29, 31, 37, 41):
            client.send((b"!" if size == 17 else b"x") * size)
    elif kind == "full":
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10000):
                client.send(bytes(4096))
    else:
        client.setblocking(False)
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                client.send(bytes(32768))
                server.recv(65536)


def drop_first(receiver: socket.socket) -> None:
    """Drops every segment whose data begins with "!": classic BPF, Linux: Documentation/networking/filter.rst."""
    code = bytearray().join(
        struct.pack("=HBBI", *insn)
        for insn in (
            (0x30, 0, 0, 12),  # ldb [12]: length of the header in words, in the upper half
            (0x54, 0, 0, 0xF0),
            (0x74, 0, 0, 2),  # in bytes
            (0x07, 0, 0, 0),  # tax
            (0x50, 0, 0, 0),  # ldb [x + 0]; beyond the segment's end: dropped as well
            (0x15, 0, 1, 0x21),  # "!"
            (uapi.BPF_RET_K, 0, 0, 0),
            (uapi.BPF_RET_K, 0, 0, 0xFFFFFFFF),
        )
    )
    program = struct.pack("@HP", len(code) // 8, syscall.address(code))
    receiver.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, program)


def retransmitted(
    peek: Peek, connect: Callable[[Connection], int], isn: int, size: int, fields: Tuple[str, str]
) -> Sample:
    """The sk_buff of a retransmitted segment of `size` bytes after a SYN numbered `isn`.

    fields: what the sample is to call its first number and the one behind its last. Raises CalibrationError.
    """
    connection = Connection()
    try:
        connection.number_from(isn)
        sk = connect(connection)
        drop_everything(connection.accept())
        link = peek.attach(RETRANSMIT)
        try:

            def wait() -> None:
                connection.client.send(b"x" * size)
                until = time.monotonic() + 2
                while not peek.passed() and time.monotonic() < until:
                    time.sleep(0.01)

            records = peek.capture(wait, ARG1, sk, 0)
        finally:
            peek.detach(link)
        records = [record for record in records if record.args[1] >> 16]
        if not records:
            raise CalibrationError("no retransmit of a socket of our own was seen", [])
        return Sample(records[0].memory, {fields[0]: {isn + 1}, fields[1]: {isn + 1 + size}})
    finally:
        connection.close()


def overrun(raw: socket.socket) -> None:
    """Makes a raw socket send to itself until its receive buffer is full."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(32):
        with contextlib.suppress(OSError):
            raw.sendto(bytes(512), socket.MSG_DONTWAIT, ("127.0.0.1", 0))


def isns(count: int) -> Sequence[int]:
    """Sequence numbers to begin with, far from one another and from what else a counter may be."""
    return random.Random().sample(range(1 << 30, 3 << 30, 0x1010101), count)
