"""Every retransmit names the process that sent, on this kernel."""

from __future__ import annotations

import json
import sys

from tests import truth
from tests.kernel.conftest import ROOT, sockpid, trace

WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]


def test_selftest_passes_for_all_families() -> None:
    ran = sockpid("selftest", "--json")
    assert ran.status == 0, ran
    report = json.loads(ran.stdout)
    assert report["ok"]
    for family in ("inet", "inet6", "mapped"):
        result = report["families"][family]
        assert result["ok"]
        assert {e["state"] for e in result["events"]} == {"ESTABLISHED", "FIN_WAIT1"}
        assert result["mismatches"] == []


def test_200_retransmits_of_20_processes_all_name_the_sender() -> None:
    traced = trace([*WORKLOAD, "--processes", "20", "--seconds", "3.5"])
    verdict = truth.judge(traced.events, traced.truth)
    assert len(traced.truth) == 60
    assert verdict.wrong == []
    assert verdict.unknown == []
    assert verdict.right >= 200
    assert verdict.owners == 20
    # `current` is somebody else nearly always: the owners sleep.
    assert verdict.naive_right < verdict.right / 2
    assert " 0 lost" in traced.stderr
