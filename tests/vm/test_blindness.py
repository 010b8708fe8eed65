"""What a hook does not see: a task that was preempted inside a program, and hooks that are switched off under us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .kernels import Guest
from .qemu import Result
from .test_sockpid import shard

__all__ = ["shard"]  # the fixture

FIELD = Path(__file__).with_name("guest")


def played(guest: Guest, shard: tuple[str, bytes], name: str, *arguments: str, append: str = "") -> Result:
    """Runs a script of the folder guest/ on the guest's kernel, whose BTF is there, with two CPUs."""
    files = {f"/run/{name}.py": (FIELD / f"{name}.py").read_bytes(), shard[0]: shard[1]}
    command = ["python3", "-I", "-S", f"/run/{name}.py", *arguments]
    return guest.run(command, timeout=400, files=files, append=append, smp=2, memory=512, btf=True)


def told(result: Result) -> dict[str, Any]:
    assert result.status == 0, result
    left: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return left


@pytest.mark.guests("7.2/amd64")
def test_senders_that_are_preempted_name_no_wrong_owner(guest: Guest, shard: tuple[str, bytes]) -> None:
    """Four processes send without pause on two CPUs; sockets pass from a parent to a child, which sends once."""
    found = told(played(guest, shard, "preempted", "60", "4"))
    assert found["wrong"] == []
    assert found["right"] >= 60
    assert found["hooks"]["send"] == "lsm bpf_lsm_socket_sendmsg"
    assert found["hooks"]["destroy"] == "lsm bpf_lsm_sk_free_security"
    assert found["missed"] == 0


@pytest.mark.guests("7.2/amd64")
def test_what_skips_senders_says_so(guest: Guest, shard: tuple[str, bytes]) -> None:
    """By trampolines alone the same kernel passes sends over: counted, told, and no wrong owner is a certain one."""
    found = told(played(guest, shard, "preempted", "60", "4", "--deny", "lsm,kprobe-pmu,kprobe-tracefs"))
    assert found["hooks"]["send"].startswith("fentry")
    assert found["missed"] > 0
    assert [wrong for wrong in found["wrong"] if wrong["certain"]] == []


@pytest.mark.guests("6.1/amd64")
def test_hooks_that_are_switched_off_are_told(guest: Guest, shard: tuple[str, bytes]) -> None:
    found = told(played(guest, shard, "disarmed", "--attach", "kprobe-pmu"))
    before, gone, again = found["said"]
    assert before.startswith("sockpid: offsets from")
    assert "kprobes are disarmed" in gone
    assert {"connect", "send", "accept", "destroy"} <= {
        part.split()[0] for part in gone.removeprefix("sockpid: ").split(", ")
    }
    assert "fires again" in again
    assert found["events"] == [], "what is done to see whether hooks fire is no event"


@pytest.mark.guests("7.2/amd64")
def test_elements_that_another_socket_gets_meanwhile_name_nobody_else(guest: Guest, shard: tuple[str, bytes]) -> None:
    """A process is taken off its CPU between the look at an element of an LRU map and its use, and another one makes
    that element the owner of a socket of its own."""
    for options in ((), ("--deny", "lsm,kprobe-pmu,kprobe-tracefs")):
        found = told(played(guest, shard, "elements", "400", *options))
        assert found["wrong"] == [], options
        assert (found["accepted"] >= 400, found["shared"] >= 1) == (True, True), found
