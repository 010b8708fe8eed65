"""TCP sockets that the kernel uses for others: who makes it send by one that he does not have is not its owner.

Its own are nobody's: of a mount by NFS 3 and by CIFS, and of NVMe over TCP. Those that a process lends to it are that
process's: the connection behind a network block device, and one below the multiplexor KCM. SMC falls back to TCP with a
peer that knows no more.

ESP in TCP (espintcp) takes a kernel that was built for it (CONFIG_INET_ESPINTCP), which Debian's are not: what it sends
in softirq teaches nothing, for want of the socket's lock, and tests/unit/image/test_programs.py runs the programs
without it.
kTLS offload needs a network card, and comes by the same way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import modules
from .kernels import Guest

FIELD = Path(__file__).with_name("guest")
MODULES = ("nfsv3", "cifs", "nvme-tcp", "nbd", "kcm", "smc")
KINDS = ("nfs", "cifs", "nvme", "nbd", "kcm", "smc")
OWN = ("nfs", "cifs", "nvme")


@pytest.fixture(scope="module")
def found(guest: Guest) -> dict[str, Any]:
    """All kinds in one guest: who took part, and what was told."""
    loaded = modules.wanted(guest.kernel, MODULES)
    files = {f"/run/{path.name}": path.read_bytes() for path in (FIELD / "lent.py", FIELD / "rpc.py")}
    command = f"{modules.insert(loaded)}exec python3 -I -S /run/lent.py {' '.join(KINDS)}"
    result = guest.run(
        ["sh", "-c", command], timeout=200, files={**files, **modules.files(loaded)}, smp=2, memory=512, btf=True
    )
    assert result.status == 0, result
    left: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return left


def events_of(found: dict[str, Any], kind: str) -> tuple[dict[str, int], list[dict[str, Any]]]:
    if isinstance(found[kind], str):
        pytest.skip(f"{kind} is not to be had on this kernel: {found[kind]}")
    assert len(found[kind]["events"]) >= 2, found
    return found[kind]["parts"], found[kind]["events"]


@pytest.mark.guests("6.1/amd64", "7.2/amd64")
@pytest.mark.parametrize("kind", OWN)
def test_the_kernels_own_are_nobodys(guest: Guest, found: dict[str, Any], kind: str) -> None:
    """Neither who mounted, nor who looks at what is mounted. NVMe's were not marked as the kernel's own before it made
    them by sock_create_kern()."""
    _, events = events_of(found, kind)
    reason = "lent" if kind == "nvme" and guest.kernel.number < (6, 12) else "kernel-socket"
    for event in events:
        assert event["sharers"] == [], event
        assert (event["pid"], event["reason"]) == (None, reason), event


@pytest.mark.guests("6.1/amd64", "7.2/amd64")
@pytest.mark.parametrize("kind", ["nbd", "kcm"])
def test_one_that_is_lent_stays_its_holders(found: dict[str, Any], kind: str) -> None:
    """Who reads from the device, or sends by the socket above, has not got it."""
    parts, events = events_of(found, kind)
    named = {event["pid"] for event in events}
    assert named <= {parts["lends"], None}, events
    assert {event["reason"] for event in events} <= {None, "lent"}, events
    assert parts["lends"] in named, events
    for event in events:
        assert event["opener_pid"] in (parts["lends"], None), event
        assert [each["pid"] for each in event["sharers"]] == [parts["lends"]], event


@pytest.mark.guests("6.1/amd64")
def test_below_one_of_another_family_is_no_other_process(found: dict[str, Any]) -> None:
    parts, events = events_of(found, "smc")
    assert {event["pid"] for event in events} <= {None, parts["uses"]}
