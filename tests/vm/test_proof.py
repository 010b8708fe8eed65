"""What the self-check says where the kernel is not what the offsets say, or does not run what was attached."""

from __future__ import annotations

import json

import pytest

from .kernels import Guest
from .test_blindness import played, shard, told
from .test_sockpid import SOCKPID

__all__ = ["shard"]  # the fixture


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
