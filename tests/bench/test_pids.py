"""What the tools print is read as it is meant: their lines are real ones."""

from __future__ import annotations

from typing import Any

from . import pids

LINES = {
    "bcc tcpretrans": "12:05:24 207    4  10.99.0.1:48674      R> 10.99.0.2:5000       ESTABLISHED",
    "bpftrace tcpretrans.bt": "12:05:24 207           10.99.0.1:48674       10.99.0.2:5000   ESTABLISHED",
    "perf trace": "    25.640 ksoftirqd/0/207 tcp:tcp_retransmit_skb(skbaddr: 0xff, skaddr: 0xff, state: 1, "
    "sport: 48674, dport: 5000, family: 2, saddr: 0x7f, daddr: 0x7f, saddr_v6: 0x7f, daddr_v6: 0x7f)",
    "C with libbpf, owner map": "207 a name 10.99.0.1:48674 10.99.0.2:5000 0",
    "bcc owner map": "207 48674 5000 0",
    "bpftrace owner map": "207 48674 5000",
    "ply owner map": "  207, 48674,  5000",
    "sockpid": '{"kind": "rto", "pid": 207, "sport": 48674, "dport": 5000}',
}


def test_each_tool_is_read() -> None:
    assert set(LINES) == set(pids.READERS)
    for tool, line in LINES.items():
        assert list(pids.READERS[tool](f"Tracing... Hit Ctrl-C to end.\n{line}\n")) == [(207, (48674, 5000))], tool


def owner(saddr: str, dport: int, pid: int) -> dict[str, Any]:
    return {"scenario": "s", "saddr": saddr, "sport": 1, "daddr": "10.0.0.9", "dport": dport, "pids": [pid]}


def test_two_sockets_with_one_pair_of_ports_are_not_judged() -> None:
    """As it happened: every tool that knew the owner of one of them was called wrong of the other."""
    told = [owner("10.0.0.1", 2, 7), owner("10.0.0.2", 2, 8), owner("10.0.0.1", 3, 7)]
    assert pids.owners_of(told, "s") == {(1, 3): [7]}


def test_an_owner_is_right_unknown_or_wrong() -> None:
    text = "".join(
        f'{{"kind": "rto", "pid": {pid}, "sport": 1, "dport": {port}}}\n'
        for pid, port in ((7, 2), (8, 2), ("null", 2), (7, 3))
    )
    figures = {"owners": [owner("10.0.0.1", 2, 6), owner("10.0.0.1", 2, 7)], "printed": {"sockpid": {"s": text}}}
    judged = pids.judged({**figures, "odd": []})
    assert judged["tools"]["sockpid"]["s"] == {"events": 3, "right": 1, "unknown": 1, "wrong": 1}
