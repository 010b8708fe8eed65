"""What the self-check says where the kernel is not what the offsets say, or does not run what was attached."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from .kernels import Guest
from .test_blindness import played, shard, told
from .test_sockpid import SOCKPID

__all__ = ["shard"]  # the fixture

ALL = os.environ.get("SOCKPID_CHANGES_ALL") == "1"
MECHANISMS = ("lsm", "fentry", "kprobe-pmu", "kprobe-tracefs", "raw_tp")
HERE = Path(__file__).parent


@pytest.mark.guests("6.1/amd64")
def test_an_id_that_is_another_functions_is_never_used(guest: Guest, shard: tuple[str, bytes]) -> None:
    """By fentry and LSM: each id of each function that a hook names, taken for each other one."""
    found = told(played(guest, shard, "exchanged"))
    assert found["functions"] > 15
    assert found["tried"] == found["functions"] ** 2
    assert all(name == other for name, other in found["accepted"]), found["accepted"]
    assert len(found["accepted"]) >= found["functions"] - 1, "and its own id is the right one"
    used = {link.split()[0] for link in found["hooks"].values() if link}
    assert not used & {"fentry", "lsm"}
    assert any("is not that of" in reason for reason in found["reasons"])
    assert found["wrong"] == []
    assert {"inet", "inet6", "mapped"} <= set(found["right"])


def changed(guest: Guest, many: int, *mechanisms: str) -> list[dict[str, Any]]:
    files = {
        "/run/changed.py": (HERE / "guest/changed.py").read_bytes(),
        "/run/tests/kernel/mutations.py": (HERE.parent / "kernel/mutations.py").read_bytes(),
    }
    command = ["python3", "-I", "-S", "/run/changed.py", str(many), *mechanisms]
    result = guest.run(command, timeout=2400, files=files, memory=512)
    assert result.status == 0, result
    print(result.stderr, f"{result.seconds:.0f} s", sep="\n")
    return [json.loads(line) for line in result.stdout.splitlines()]


def judge(found: dict[str, Any]) -> None:
    """Of the changes by one mechanism, which is in use."""
    mechanism = found["mechanism"]
    figures = ", ".join(f"{len(found[what])} {what}" for what in ("changes", "refused", "unused", "accepted"))
    print(f"{mechanism}: {figures}: {', '.join(found['accepted'])}", *found["differing"].items(), sep="\n")
    assert found["right"] == ["", "", ""]
    assert len(found["heard"]) == 10, found["heard"]
    assert sum((link or "").startswith(mechanism) for link in found["hooks"].values()) > 3, found["hooks"]
    assert found["differing"] == {}
    for name, links in found["accepted"].items():
        if name.startswith("id of "):
            assert f"{mechanism} {name.split()[2]}" not in links, (name, links)
    assert [why for why in found["refused"].values() if "came to no end" in why] == [], "that is no proof"
    for change in ("struct sock.__sk_common.skc_dport +16", "struct inet_connection_sock.icsk_ulp_data +64"):
        assert found["refused"].get(change, "").startswith("SelfCheckError"), found["refused"]


@pytest.mark.skipif(ALL, reason="SOCKPID_CHANGES_ALL=1 has all of them")
@pytest.mark.guests("6.12/amd64")
def test_tables_with_one_number_changed(guest: Guest) -> None:
    """Some of the changes of each mechanism: refused, not used, or no event says anything else."""
    for found in changed(guest, 2, *MECHANISMS):
        judge(found)
        kinds = {"id" if name.startswith("id of ") else name.split()[-1] for name in found["changes"]}
        assert "bits" in kinds
        assert any(kind[0] in "+-" for kind in kinds)
        assert ("id" in kinds) is (found["mechanism"] in ("lsm", "fentry"))


@pytest.mark.skipif(not ALL, reason="SOCKPID_CHANGES_ALL is not 1: every change takes a quarter of an hour a mechanism")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.guests("6.12/amd64")
def test_tables_with_any_one_number_changed(guest: Guest, mechanism: str) -> None:
    (found,) = changed(guest, 0, mechanism)
    judge(found)


@pytest.mark.guests("6.1/amd64")
def test_ftrace_that_is_switched_off_is_named(guest: Guest, shard: tuple[str, bytes]) -> None:
    """Functions cannot be traced then: what the mandatory hooks hang on is named, and not the offsets."""
    command = " ".join(SOCKPID)
    script = f"""echo 0 >/proc/sys/kernel/ftrace_enabled
        {command} selftest --json >/run/result/otherwise; echo selftest $?
        {command} run --duration 0.1 --deny raw_tp,tracepoint,lsm; echo run $?"""
    result = guest.run(["sh", "-c", script], timeout=240, files={shard[0]: shard[1]}, btf=True)
    report = json.loads(result.files["otherwise"])
    assert report["ok"], report
    assert result.stdout.split() == ["selftest", "0", "run", "10"], result
    assert "kernel.ftrace_enabled is 0" in result.stderr
    assert "the offsets are not those" not in result.stderr
