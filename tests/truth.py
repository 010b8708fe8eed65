"""Holds events against the truth that a workload printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sockpid.event.socket_tuple import SocketTuple


class Verdict(NamedTuple):
    """right: the event names the process that sent. naive_right: the interrupted process happened to be the owner."""

    right: int
    wrong: list[str]
    unknown: list[str]
    naive_right: int
    owners: int


def parse_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def key(value: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value[name] for name in ("netns", "family", "saddr", "sport", "daddr", "dport"))


def of(socket: SocketTuple, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of one socket. A port alone may be another's, in another namespace or at another address."""
    wanted = key(socket._asdict())
    return [event for event in events if key(event) == wanted]


def judge(events: list[dict[str, Any]], truth: list[dict[str, Any]]) -> Verdict:
    """Every event of a socket in `truth` is right, wrong or unknown; events of other sockets are not counted."""
    owners = {key(t): t for t in truth}
    right = naive = 0
    wrong, unknown = [], []
    seen = set()
    for event in events:
        true = owners.get(key(event))
        if true is None:
            continue
        if event["pid"] is None:
            unknown.append(f"{event['reason']}: {event}")
        elif (event["pid"], event["comm"]) != (true["pid"], true["comm"]):
            wrong.append(f"{event['pid']} {event['comm']}, truly {true['pid']} {true['comm']}: {event}")
        else:
            right += 1
            seen.add(true["pid"])
        naive += event["interrupted_pid"] == true["pid"]
    return Verdict(right, wrong, unknown, naive, len(seen))
