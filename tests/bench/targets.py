"""What sockpid is to reach, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Json = dict[str, Any]


class Target(NamedTuple):
    """measured is None where there is no figure yet. at_least: more is better, else less."""

    what: str
    measured: float | None
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return "met" if met else "**not met**"


def at(document: Any, *keys: str) -> Any:
    """What stands there, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def levels(document: Any, *keys: str) -> Json:
    """What stands there by number of sockets or kernels; nothing where it failed, which has no number."""
    return {level: row for level, row in (at(document, *keys) or {}).items() if level.isdigit()}


def moved(vm: Json) -> float | None:
    """Instructions by which a write without a tool differed at most from before the tool to after it."""
    cases = [case for row in (at(vm, "send") or {}).values() for case in row.values() if isinstance(case, dict)]
    return max((abs(value) for case in cases for value in case.get("moved", {}).values()), default=None)


def over(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value / other


def added(vm: Json, name: str, mode: str, case: str = "1", part: str = "send") -> float | None:
    """Instructions that a tool adds to one write of 64 bytes."""
    row = at(vm, part, name, case)
    if row is None or mode not in row.get("with", {}):
        return None
    return float(row["with"][mode] - row["without"][mode])


def own(vm: Json, name: str, case: str = "1", part: str = "send") -> float | None:
    """What the program at tcp_sendmsg takes itself, the kernel's clock reads included. A program of ply has no name."""
    for row in at(vm, part, name, case, "programs") or ():
        if row["program"] in ("tcp_sendmsg", "kprobe__tcp_sen", ""):
            return float(row["ns"])
    return None


def called(vm: Json, name: str, what: str, program: str) -> float | None:
    """What a program takes per call while there are "connections" or "retransmits"."""
    found = at(vm, "life", name, what)
    for row in (found.get("programs", ()) if isinstance(found, dict) else found) or ():
        if row["program"].startswith(program):
            return float(row["ns"])
    return None


def right(vm: Json, tool: str) -> float | None:
    """Share of events whose PID is an owner's, in percent, over all scenarios that it watched."""
    rows = [row for play in at(vm, "pids") or {} for row in (at(vm, "pids", play, "tools", tool) or {}).values()]
    events = sum(row["events"] for row in rows)
    return 100 * sum(row["right"] for row in rows) / events if events else None


def native(document: Json, part: str, *keys: str) -> Any:
    return at(document, part, "figures", *keys)


def spread_of(document: Json, what: str) -> float | None:
    """How many times dearer it is at the most sockets than at the fewest."""
    scale = native(document, "scale") or {}
    values = {int(level): row.get(what) for level, row in scale.items() if row.get(what) is not None}
    return values[max(values)] / values[min(values)] if values else None


def targets(vm: Json, here: Json) -> Iterator[Target]:
    ours = at(vm, "start", "sockpid run") or {}
    cpu = ours.get("cpu_s")
    yield Target("CPU from exec until attached", None if cpu is None else cpu * 1000, 58, "million instructions")
    for rival, share in (("bpftrace tcpretrans.bt", 1 / 18), ("bcc tcpretrans", 1 / 200)):
        yield Target(f"the same, as a part of {rival}'s", over(cpu, at(vm, "start", rival, "cpu_s")), share)
    yield Target("resident set, peak", ours.get("peak_mib"), 10.3, "MiB")
    yield Target("private memory", ours.get("private_mib"), 4, "MiB")
    yield Target("send hook, known owner, its own time (fentry)", own(vm, "sockpid, fentry"), 150, "instructions")
    for case in levels(vm, "many", "sockpid, fentry"):
        many = own(vm, "sockpid, fentry", case, "many")
        yield Target(f"the same with {int(case):,} sockets", many, 150, "instructions")
    yield Target("added to a write through fentry", added(vm, "sockpid, fentry", "cork"), 230, "instructions")
    yield Target("added to a write through a kprobe", added(vm, "sockpid, kprobe", "cork"), 450, "instructions")
    sending = native(here, "send", "known owner, 1 socket") or {}
    ratio = over(sending.get("ns"), sending.get("empty_ns"))
    yield Target("natively, send hook as a multiple of an empty program there", ratio, 1.5)
    yield Target("right PIDs, all scenarios", right(vm, "sockpid"), 100, "%", at_least=True)
    program = native(here, "rates", "count, overload", "program_ns")
    counted = over(1e9, program)
    yield Target("`--count`: events that one core looks up and sums per owner", counted, 1e6, "a second", True)
    line = native(here, "rates", "json, overload", "cpu_us")
    yield Target("events as JSON lines on one core", over(1e6, line), 200_000, "a second", True)
    for name, what in (
        ("the program per event", "event_ns"),
        ("a look-up", "lookup_ns"),
        ("the program per send", "send_ns"),
        ("reading and telling an event", "reader_us"),
    ):
        yield Target(f"{name}, with most sockets as a multiple of 1,000", spread_of(here, what), 1.3)
