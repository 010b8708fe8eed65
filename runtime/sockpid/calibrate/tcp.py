"""The steps of a calibration that find what TCP notes of a connection while it loses segments, and of a segment."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Callable, List, Tuple

from sockpid.errors import SockpidError
from sockpid.offsets.calibration import Sample, bits, search
from sockpid.subjects import provoke
from sockpid.subjects.peek import Peek
from sockpid.subjects.peek_prog import SIZE
from sockpid.subjects.subjects import Connection

from .findings import Findings

Connect = Callable[[Connection], int]
"""Connects the client, and returns the address of its struct sock."""

ICSK, TP = "struct inet_connection_sock.", "struct tcp_sock."
WITHIN = range(160, SIZE)  # behind struct sock_common
SECONDS = 2.2  # tail loss probe, and timeouts after 0.2, 0.6 and 1.4 seconds
PATIENCE = 8.0
LOSING = 0.15  # a connection that lost its first segment recovers until the timeout, 0.2 seconds later
SEGMENT = ("struct sk_buff.cb", "struct tcp_skb_cb.seq", "struct tcp_skb_cb.end_seq")


def find_retransmitting(findings: Findings, peek: Peek, connect: Connect) -> None:
    """Several connections at once, in different troubles, each looked at again and again beside what TCP_INFO says."""
    samples: List[Sample] = []

    def look(connection: Connection, sk: int) -> provoke.Info:
        before = provoke.info(connection.client)
        memory = peek.read(sk)
        if provoke.info(connection.client) == before:
            samples.append(Sample(memory, provoke.known_tcp(before)))
        return before

    with contextlib.ExitStack() as stack:
        watched: List[Tuple[Connection, int]] = []
        for number, kind in enumerate(("recovering", "deaf", "deaf", "full", "busy", "lossy", "lossy")):
            connection = Connection()
            stack.callback(connection.close)
            if number % 2:  # it keeps no state of its own; BBR has a count like icsk_retransmits in it
                connection.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            watched.append((connection, connect(connection)))
            provoke.prepare(connection.accept(), connection.client, kind)
            until = time.monotonic() + (LOSING if kind == "lossy" else 0)
            look(*watched[-1])
            while time.monotonic() < until:
                look(*watched[-1])
        started = time.monotonic()
        healed = recovered = False
        while time.monotonic() < started + (SECONDS if recovered else PATIENCE):
            seen = [look(connection, sk) for connection, sk in watched]
            if not healed and seen[0].retransmits:
                healed = True  # the next retransmit is acknowledged: then icsk_retransmits is 0 again, and nothing else
                watched[0][0].server.setsockopt(socket.SOL_SOCKET, provoke.SO_DETACH_FILTER, 0)
            recovered = healed and not seen[0].retransmits
            time.sleep(0.03)
    for name, size in ((ICSK + "icsk_retransmits", 1), (ICSK + "icsk_pending", 1)):
        findings.search(samples, name, size, WITHIN)
    for name in ("srtt_us", "snd_cwnd", "total_retrans"):
        findings.search(samples, TP + name, 4, WITHIN)
    state = findings.search_bits(samples, ICSK + "icsk_ca_state", 5, WITHIN)
    # The next bit says that congestion control has begun, and is set here. Where it is not, it is the field's sixth.
    if state is not None and not any(bits(s.memory, state.bit_offset + 5, 1, findings.order) for s in samples):
        findings.found[ICSK + "icsk_ca_state"] = state._replace(bit_size=6)


def find_segment(findings: Findings, peek: Peek, connect: Connect) -> None:
    """One segment of a known number, retransmitted: the second argument of that probe is its sk_buff."""
    first, last = "first", "last"
    samples: List[Sample] = []
    try:
        for number, isn in enumerate(provoke.isns(3)):
            samples.append(provoke.retransmitted(peek, connect, isn, 5 + number, (first, last)))
    except PermissionError:
        findings.refuse(SEGMENT, "to choose sequence numbers needs CAP_NET_ADMIN")
        return
    except SockpidError as error:
        findings.refuse(SEGMENT, str(error))
        return
    begin, end = (search(samples, name, 4, findings.order, within=range(256)) for name in (first, last))
    if begin.field is None or end.field is None:
        findings.refuse(SEGMENT, begin.problem or end.problem)
        return
    # The control block begins with the number (include/net/tcp.h). Only where both are can be seen.
    findings.found[SEGMENT[0]] = begin.field._replace(bit_size=48 * 8)
    findings.found[SEGMENT[1]] = begin.field._replace(bit_offset=0)
    findings.found[SEGMENT[2]] = end.field._replace(bit_offset=end.field.bit_offset - begin.field.bit_offset)
