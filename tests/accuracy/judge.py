"""Holds every event against what the scenarios say: right, wrong, or unknown."""

from __future__ import annotations

import bisect
import collections
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Key = tuple[Any, ...]

WAYS: Mapping[str, str] = {
    "connect": "connect",
    "accept": "accept",
    "send": "send",
    "recv": "receive",
    "listen": "listen",
    "mptcp": "mptcp",
    "synack": "synack",
}
"""What scenarios call the ways to learn an owner or to report an event, and `sockpid doctor` its hooks."""

ULP = {"ktls": "tls", "mptcp": "mptcp", "mptcp-child-sends": "mptcp"}
"""What sits above TCP in a scenario; nothing in all others."""
ALSO = {"accepted-unused": ("shutdown",)}
"""How an owner may be known as well: whoever has accepted a socket and does not use it ends it."""
PROBE = "(probe)"
"""Verdict of what went wrong with the probe itself."""

UNSEEN_SHARE = 0.1
"""How many retransmits of a scenario may raise no event, as a share. Where other tracers come and go on a busy machine,
the kernel was seen to run no program for a burst of them: that is told, and is no wrong owner."""

PATIENCE_NS = 1_500_000_000
"""How long after its end an owner may be taken for alive."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Verdict:
    """What became of one scenario.

    wrong: events that name another process than an owner. unknown: events that name none, by reason; missed: those of
    them that a hook in place should have known. odd: whatever else is not as it should be. naive: events whose
    interrupted process happened to be an owner. unseen: retransmits that the kernel counts and no event tells of.
    kinds: the events by kind.
    """

    sockets: int = 0
    events: int = 0
    right: int = 0
    naive: int = 0
    unseen: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    skipped: str = ""

    @property
    def ok(self) -> bool:
        return not (self.wrong or self.missed or self.odd) and self.unseen <= self.events * UNSEEN_SHARE


def attached(doctor: Json) -> set[str]:
    """Which ways to learn an owner the probe has, in the scenarios' words."""
    hooks = {hook["hook"] for hook in doctor.get("hooks", ()) if hook["attached"]}
    return {"seed"} | {way for way, hook in WAYS.items() if hook in hooks}


def key(value: Json) -> Key:
    return tuple(value[name] for name in ("netns", "family", "saddr", "sport", "daddr", "dport"))


def judge(truth: Iterable[Json], events: Iterable[Json], ways: set[str]) -> dict[str, Verdict]:
    """Verdicts by scenario. Events of sockets that no scenario speaks of are not counted."""
    verdicts: dict[str, Verdict] = collections.defaultdict(Verdict)
    owners: dict[Key, list[Json]] = collections.defaultdict(list)
    counts: list[Json] = []
    ended: dict[tuple[int, int], int] = {}
    for line in truth:
        name = line["scenario"] or PROBE
        if line["what"] == "owner":
            owners[key(line)].append(line)
            verdicts[name].sockets += 1
        elif line["what"] == "ended":
            ended[line["pid"], line["start_ticks"]] = line["at_ns"]
        elif line["what"] == "count":
            counts.append(line)
        elif line["what"] == "skip":
            verdicts[name].skipped = line["reason"]
        elif line["what"] == "error":
            verdicts[name].odd.append(line["reason"])
    for lines in owners.values():
        lines.sort(key=lambda line: line["since_ns"])
    seen: collections.Counter[int] = collections.Counter()
    for event in events:
        lines = owners.get(key(event), [])
        index = bisect.bisect_right([line["since_ns"] for line in lines], event["ts_ns"]) - 1
        if index >= 0:  # what came before may be of another run: numbers of network namespaces are given out again
            line = lines[index]
            seen[id(line)] += 1
            _judge(verdicts[line["scenario"]], event, line, ways, ended)
    _silent(verdicts, owners, seen, counts, ways)
    return dict(verdicts)


def _judge(verdict: Verdict, event: Json, line: Json, ways: set[str], ended: Mapping[tuple[int, int], int]) -> None:
    verdict.events += 1
    verdict.kinds[event["kind"]] += 1
    pids = [owner["pid"] for owner in line["owners"]]
    verdict.naive += event["interrupted_pid"] in pids
    if event["kind"] not in line["kinds"]:
        verdict.odd.append(f"kind {event['kind']}, expected {line['kinds']}: {event}")
    if event.get("ulp") != ULP.get(line["scenario"]):
        verdict.odd.append(f"ulp {event.get('ulp')}, expected {ULP.get(line['scenario'])}: {event}")
    if event["state"] not in line.get("states", [event["state"]]):
        verdict.odd.append(f"state {event['state']}, expected {line['states']}: {event}")
    if event["pid"] is None:
        reason = event["reason"] or f"how={event['how']}"
        verdict.unknown[reason] = verdict.unknown.get(reason, 0) + 1
        if reason not in line["unknown"] and ways & set(line["hooks"]):
            verdict.missed.append(f"{reason}, though {sorted(ways & set(line['hooks']))} would tell: {event}")
        elif reason not in line["unknown"] and line["unknown"]:
            verdict.odd.append(f"reason {reason}, expected {line['unknown']}: {event}")
        return
    named = next((o for o in line["owners"] if (o["pid"], o["comm"]) == (event["pid"], event["comm"])), None)
    if named is None:
        verdict.wrong.append(f"{event['pid']} {event['comm']!r}, truly {line['owners']}: {event}")
        return
    if event["start_ns"] * TICKS // 10**9 != named["start_ticks"]:
        verdict.wrong.append(f"started at {event['start_ns']} ns, truly at tick {named['start_ticks']}: {event}")
        return
    verdict.right += 1
    end = ended.get((named["pid"], named["start_ticks"]), event["ts_ns"])
    if event.get("exited") is False and event["ts_ns"] > end + PATIENCE_NS:
        verdict.odd.append(f"exited false, though the owner ended at {end}: {event}")
    verdict.odd += [f"{what}: {event}" for what in _oddities(event, line)]


def _oddities(event: Json, line: Json) -> Iterable[str]:
    """What is not true of an event that names the right owner.

    Where no hook saw who used the socket last, it is named for having it open, or for what was seen of it before. And a
    SYN-ACK is of the listening socket, whose inode is in no line.
    """
    if event["how"] not in {*line["how"], *ALSO.get(line["scenario"], ()), "holder"}:
        yield f"how {event['how']}, expected {line['how']}"
    if (
        event["how"] in line["how"]
        and event["how"] != "connect"
        and event["tid"] not in line.get("tids", [event["tid"]])
    ):
        yield f"tid {event['tid']}, expected {line['tids']}"
    if event.get("opener_pid") is not None and event["opener_pid"] not in line.get("openers", [event["opener_pid"]]):
        yield f"opener_pid {event['opener_pid']}, expected {line['openers']}"
    if event["kind"] != "synack" and event.get("inode") not in (None, 0, line["inode"]):
        yield f"inode {event['inode']}, expected {line['inode']}"
    others = {sharer["pid"] for sharer in event.get("sharers") or ()} - set(line.get("sharers", [event["pid"]]))
    if "sharers" in line and others:
        yield f"sharers {others} besides {line['sharers']}"
    if event["age_ns"] < 0:
        yield f"age_ns {event['age_ns']}"


def _silent(
    verdicts: Mapping[str, Verdict],
    owners: Mapping[Key, list[Json]],
    seen: Mapping[int, int],
    counts: Iterable[Json],
    ways: set[str],
) -> None:
    """Sockets without an event, or with fewer than the kernel counts itself; kinds that never came."""
    for lines in owners.values():
        for line in lines:
            verdict = verdicts[line["scenario"]]
            text = f"no {line['kinds'][0]} at all"
            if verdict.events and not verdict.kinds[line["kinds"][0]] and text not in verdict.odd:
                by = line.get("reported_by")
                verdict.odd += [text] if by is None or by in ways else []
    for count in counts:
        line = owners[key(count)][-1]
        verdicts[count["scenario"]].unseen += max(0, count["total_retrans"] - seen.get(id(line), 0))
    silent = [line for lines in owners.values() for line in lines if not seen.get(id(line))]
    for line in silent:
        by = line.get("reported_by")
        if by is None or by in ways:
            verdicts[line["scenario"]].odd.append(f"no event of {key(line)}")
