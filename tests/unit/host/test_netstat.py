"""The kernel's counters as values, and the judgement over them."""

from __future__ import annotations

import pytest

from sockpid.host import netstat

SNMP = """Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens RetransSegs InErrs
Tcp: 1 200 120000 -1 9 17 0
"""
ZERO = dict.fromkeys((*netstat.TCP, *netstat.TCP_EXT), 0)


def kernel(**counters: int) -> dict[int, netstat.Counters]:
    return {1: {**ZERO, **counters}}


def judged(kinds: dict[str, int], lost: int = 0, **counters: int) -> dict[str, tuple[int | None, bool | None]]:
    lines = netstat.reconcile({1: kinds}, kernel(**counters), lost)
    return {line.name: (line.missing, line.agrees) for line in lines}


def test_parse() -> None:
    assert netstat.parse(SNMP, "Tcp", ("RetransSegs", "NoSuch")) == {"RetransSegs": 17, "NoSuch": 0}
    assert netstat.parse("", "TcpExt", ("TCPTimeouts",)) == {"TCPTimeouts": 0}


def test_difference_begins_at_0_for_a_new_namespace() -> None:
    after, before = {1: {"RetransSegs": 9}, 2: {"RetransSegs": 4}}, {1: {"RetransSegs": 5}, 3: {"RetransSegs": 1}}
    assert netstat.difference(after, before) == {1: {"RetransSegs": 4}, 2: {"RetransSegs": 4}}


def test_all_kinds_add_up() -> None:
    kinds = {"rto": 3, "fast": 2, "tlp": 1, "syn": 4, "synack": 5, "failed": 6}
    counters = {"RetransSegs": 15, "TCPSynRetrans": 9, "TCPFastRetrans": 2, "TCPLossProbes": 3, "TCPTimeouts": 7}
    assert judged(kinds, **counters) == {
        "RetransSegs": (0, True), "TCPSynRetrans": (0, True), "TCPFastRetrans": (0, True), "TCPLossProbes": (2, True),
        "TCPTimeouts": (-5, True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "counters", "lost", "missing", "agrees"),
    [
        ({"rto": 3}, {"RetransSegs": 4, "TCPTimeouts": 4}, 0, 1, False),
        ({"rto": 3}, {"RetransSegs": 4, "TCPTimeouts": 4}, 1, 1, True),
        ({"rto": 3}, {"RetransSegs": 4, "TCPTimeouts": 4, "TCPRetransFail": 1}, 0, 1, True),
        ({"rto": 5}, {"RetransSegs": 4, "TCPTimeouts": 4}, 0, -1, False),
        # two skbs of three segments each, let go by acknowledgements
        ({"fast": 2}, {"RetransSegs": 6, "TCPFastRetrans": 6}, 0, 4, True),
        # the same after a timeout: one retransmit by the timer, two by acknowledgements
        ({"rto": 3}, {"RetransSegs": 7, "TCPTimeouts": 1, "TCPSlowStartRetrans": 6}, 0, 4, True),
        # the same for a path that takes smaller packets only: no timer went off
        ({"simple": 3}, {"RetransSegs": 6, "TCPSlowStartRetrans": 6}, 0, 3, True),
        ({"simple": 3}, {"RetransSegs": 7, "TCPSlowStartRetrans": 6}, 0, 4, False),
        ({"rto": 3}, {"RetransSegs": 8, "TCPTimeouts": 1, "TCPSlowStartRetrans": 6}, 0, 5, False),
    ],
)
def test_what_is_missing_must_be_explained(
    kinds: dict[str, int], counters: dict[str, int], lost: int, missing: int, agrees: bool
) -> None:
    assert judged(kinds, lost, **counters)["RetransSegs"] == (missing, agrees)


def test_a_syn_that_is_missing() -> None:
    counters = {"RetransSegs": 2, "TCPSynRetrans": 2, "TCPTimeouts": 2}
    assert judged({"syn": 1}, **counters)["TCPSynRetrans"] == (1, False)


def test_a_namespace_that_is_gone_cannot_be_judged() -> None:
    lines = netstat.reconcile({9: {"rto": 1}}, {}, 0)
    assert {line.agrees for line in lines} == {None}
    assert next(line for line in lines if line.name == "RetransSegs").ours == 1
