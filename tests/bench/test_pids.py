"""What the tools print is read as it is meant: their lines are real ones."""

from __future__ import annotations

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


def test_an_owner_is_right_unknown_or_wrong() -> None:
    text = "".join(
        f'{{"kind": "rto", "pid": {pid}, "sport": 1, "dport": {port}}}\n'
        for pid, port in ((7, 2), (8, 2), ("null", 2), (7, 3))
    )
    figures = {"owners": [{"scenario": "s", "sport": 1, "dport": 2, "pids": [7]}], "printed": {"sockpid": {"s": text}}}
    judged = pids.judged({**figures, "odd": []})
    assert judged["tools"]["sockpid"]["s"] == {"events": 3, "right": 1, "unknown": 1, "wrong": 1}
