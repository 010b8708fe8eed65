"""A restart of the daemon in the middle of traffic, on other kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import truth

from .kernels import Guest
from .test_sockpid import SOCKPID, WORKLOAD, shard

__all__ = ["shard"]

SCRIPT = """
    mount -t bpf bpf /sys/fs/bpf 2>/dev/null
    start() {{
        {run} > /run/result/events-$1 2> /run/result/said-$1 & probe=$!
        for i in $(seq 1000); do grep -q 'offsets from' /run/result/said-$1 && return; sleep 0.1; done
        cat /run/result/said-$1 >&2; exit 9
    }}
    start 1
    python3 -I -S /sockpid/tests/workload.py --processes 6 --seconds 1000 > /run/result/truth &
    for i in $(seq 600); do [ $(wc -l < /run/result/truth) -ge 18 ] && break; sleep 0.1; done
    sleep 1.2  # for a sign of the daemon that tells of them
    kill -{signal} $probe; wait $probe
    sleep 1
    start 2
    {status} > /run/result/health || exit 8
    # The kernel waits twice as long each time before it sends again.
    for i in $(seq 600); do [ $(wc -l < /run/result/events-2) -ge 18 ] && break; sleep 0.1; done
    kill $probe; wait $probe
"""


def restart(guest: Guest, shard: tuple[str, bytes], signal: str, *arguments: str) -> Mapping[str, bytes]:
    run = " ".join([*SOCKPID, "run", "--json", "--keep", "--no-seed", *arguments])
    script = SCRIPT.format(run=run, status=" ".join([*SOCKPID, "status", "--json"]), signal=signal)
    files = {shard[0]: shard[1], "/sockpid/tests/workload.py": Path(WORKLOAD).read_bytes()}
    result = guest.run(["sh", "-c", script], timeout=300, files=files, smp=2)
    assert result.status == 0, result
    return result.files


@pytest.mark.guests("6.1/amd64")
@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_owners_outlive_their_daemon(guest: Guest, shard: tuple[str, bytes], signal: str) -> None:
    files = restart(guest, shard, signal, "--deny", "live-btf")
    true = truth.parse_lines(files["truth"].decode())
    verdict = truth.judge(truth.parse_lines(files["events-2"].decode()), true)
    assert b"took over" in files["said-2"], (files["said-1"], files["said-2"])
    assert (verdict.wrong, verdict.unknown, verdict.owners) == ([], [], 6)
    status = json.loads(files["health"])
    assert status["running"]
    assert status["hooks"]["destroy"] == "raw_tp tcp_destroy_sock"
    assert status["gap"]["unseen"] >= 6
    assert f"{status['gap']['unseen']} retransmits not seen".encode() in files["said-2"]


@pytest.mark.guests("6.1/amd64")
def test_where_links_cannot_be_pinned_it_says_so_and_makes_up_nothing(guest: Guest, shard: tuple[str, bytes]) -> None:
    files = restart(guest, shard, "KILL", "--attach", "kprobe-pmu", "--deny", "live-btf")
    true = truth.parse_lines(files["truth"].decode())
    verdict = truth.judge(truth.parse_lines(files["events-2"].decode()), true)
    assert verdict.wrong == []  # who has a socket open is found, and nobody is made up
    assert b"a restart will look up owners anew: no such link can be pinned" in files["said-1"]
    assert b"are looked up anew" in files["said-2"]
    assert json.loads(files["health"])["gap"]["retransmits"] >= 6
