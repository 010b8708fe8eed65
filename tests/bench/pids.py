"""The share of right PIDs per tool on the same traffic: what to run, and how to read what each tool prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import peers

SCENARIOS = (
    "asleep",
    "cpu-hog",
    "owners-spin",
    "bulk-loss",
    "fork-child-sends",
    "exited",
    "syn",
    "sendfile",
)
SCALE = 0.25  # of the usual 80 sockets

Ports = tuple[int, int]
"""Local and remote port: the scenarios' sockets are at many addresses, and a local port alone can be two sockets'."""

Told = tuple[int | None, Ports]
"""PID (None: the tool says that it does not know) and ports."""


def lines(pattern: str) -> Callable[[str], Iterator[Told]]:
    """Of a tool with a line for each retransmit: the pattern has the groups pid, sport and dport."""
    compiled = re.compile(pattern)

    def read(text: str) -> Iterator[Told]:
        for line in text.splitlines():
            if found := compiled.search(line):
                yield int(found["pid"]), (int(found["sport"]), int(found["dport"]))

    return read


def documents(text: str) -> Iterator[Told]:
    """Of `sockpid run --json`."""
    for line in text.splitlines():
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("kind") != "failed":
                yield event["pid"], (event["sport"], event["dport"])


_END = r"\S+:(?P<{}>\d+)"
_ENDS = f"{_END.format('sport')}{{}} +{_END.format('dport')}"
READERS: Mapping[str, Callable[[str], Iterator[Told]]] = {
    "sockpid": documents,
    "bcc tcpretrans": lines(rf"^\S+ +(?P<pid>\d+) +\d +{_ENDS.format(' +[RL]>')} "),
    "bpftrace tcpretrans.bt": lines(rf"^\S+ +(?P<pid>\d+) +{_ENDS.format('')} "),
    "perf trace": lines(r" \S*/(?P<pid>\d+) tcp:tcp_retransmit_skb\(.*sport: (?P<sport>\d+), dport: (?P<dport>\d+)"),
    "C with libbpf, owner map": lines(rf"^(?P<pid>\d+) .*? ?{_ENDS.format('')} \d+$"),
    **dict.fromkeys(
        ("bcc owner map", "bpftrace owner map", "ply owner map"),
        lines(r"^ *(?P<pid>\d+),? +(?P<sport>\d+),? +(?P<dport>\d+)( \d+)?$"),
    ),
}


def jobs(run: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of bcc and bpftrace some programs return 0 at the tracepoint, and perf then sees no event: perf watches apart.
    bcc's tools do, too, for they take long to attach."""
    ours = ([*run, "--json"], False, None)
    rivals = {name: tuple(peer) for name, peer in {**peers.RETRANSMITS, **peers.OWNERS}.items() if name in READERS}
    for play, chosen in (("together", r"(?!bcc|perf).*"), ("perf trace", "perf.*"), ("bcc", "bcc.*")):
        tools = {name: peer for name, peer in rivals.items() if re.fullmatch(chosen, name)}
        yield play, {"tools": {"sockpid": ours, **tools}, "scenarios": SCENARIOS, "scale": SCALE}


def owners_of(told: list[dict[str, Any]], scenario: str) -> dict[Ports, list[int]]:
    """Owners by ports; of a socket that changed hands, the last. Where sockets at several addresses have the same
    ports, nothing can be said of them: not every tool tells addresses.
    """
    found: dict[Ports, list[int]] = {}
    sockets: dict[Ports, set[tuple[str, str]]] = {}
    for line in (line for line in told if line["scenario"] == scenario):
        ports = line["sport"], line["dport"]
        found[ports] = line["pids"]
        sockets.setdefault(ports, set()).add((line["saddr"], line["daddr"]))
    return {ports: pids for ports, pids in found.items() if len(sockets[ports]) == 1}


def judged(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Per tool and scenario: events of its sockets that the tool told of, and how many named an owner, nobody, or
    somebody else."""
    if "failed" in figures:
        return dict(figures)
    table: dict[str, Any] = {}
    for tool, parts in figures["printed"].items():
        for scenario, text in parts.items():
            owners = owners_of(figures["owners"], scenario)
            row = {"events": 0, "right": 0, "unknown": 0, "wrong": 0}
            for pid, ports in READERS[tool](text):
                if ports in owners:
                    row["events"] += 1
                    right = pid in owners[ports]
                    row["right" if right else "unknown" if pid is None else "wrong"] += 1
            table.setdefault(tool, {})[scenario] = row
    samples = {
        tool: {scenario: text.splitlines()[:3] for scenario, text in parts.items()}
        for tool, parts in figures["printed"].items()
    }
    return {"tools": table, "odd": figures["odd"], "samples": samples}
