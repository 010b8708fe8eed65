"""The tables of docs/case-study.md out of its data: `python -m tests.docs.case_study`.

`python -m tests.docs.case_study TRUTH EVENTS` takes new data, too: what docs/case-study/job.py and `sockpid run --json`
beside it wrote. Of these only the job's events are kept, and of them the keys that the page speaks of.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .page import ROOT

PAGE = ROOT / "docs/case-study.md"
DATA = ROOT / "docs/case-study"
KEPT = (
    "schema", "ts_ns", "host", "kind", "family", "saddr", "sport", "daddr", "dport", "netns", "state", "pid", "comm",
    "start_ns", "how", "reason", "certain", "doubt", "interrupted_pid", "srtt_us", "total_retrans", "retransmits",
    "labels",
)  # fmt: skip
IDLE, OTHERS = "nobody: the CPU was idle", "programs that are not of the job"


class Told(NamedTuple):
    """An event: what made the kernel retransmit; who was the current process, who is the owner, and who had the socket
    in truth, by name."""

    kind: str
    current: str
    owner: str
    truth: str


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def truth_of(workers: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Who has the socket of a local and a remote end."""
    return {tuple(ends): worker for worker in workers for ends in worker["sockets"]}


def name_of(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event.get(key) for key in ("saddr", "sport", "daddr", "dport"))


def told(workers: list[dict[str, Any]], events: list[dict[str, Any]]) -> Iterator[Told]:
    names = {0: IDLE, **{worker["pid"]: worker["comm"] for worker in workers}}
    truth = truth_of(workers)
    for event in events:
        owner = names[event["pid"]] if event["pid"] is not None else f"unknown ({event['reason']})"
        current = names.get(event["interrupted_pid"], OTHERS)
        yield Told(event["kind"], current, owner, truth[name_of(event)]["comm"])


def by_process(seen: list[Told]) -> str:
    of_current, of_owner, of_truth = (Counter(each[at] for each in seen) for at in (1, 2, 3))
    job = sorted({*of_current, *of_owner, *of_truth} - {IDLE, OTHERS}, key=lambda name: (name == "dataloader", name))
    lines = ["| process | current process | owner, says sockpid | truth |", "|---|---|---|---|"]
    for name in (*job, OTHERS, IDLE):
        lines.append(f"| {name} | {of_current[name]} | {of_owner[name]} | {of_truth[name]} |")
    return "\n".join(lines) + "\n"


def by_kind(seen: list[Told]) -> str:
    lines = ["| kind | events | current process is right | owner is right |", "|---|---|---|---|"]
    for kind, count in Counter(each.kind for each in seen).most_common():
        of_kind = [each for each in seen if each.kind == kind]
        right = [sum(getattr(each, who) == each.truth for each in of_kind) for who in ("current", "owner")]
        lines.append(f"| `{kind}` | {count} | {right[0]} | {right[1]} |")
    return "\n".join(lines) + "\n"


TABLES = {"by process": by_process, "by kind": by_kind}


def text(page: str) -> str:
    """The page with its tables made anew."""
    seen = list(told(read(DATA / "truth.jsonl"), read(DATA / "events.jsonl")))
    for name, make in TABLES.items():
        before, begin, rest = page.partition(f"<!-- made of the data: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert begin, name
        assert end, name
        page = f"{before}{begin}\n{make(seen)}\n{end}{after}"
    return page


def take(truth: Path, events: Path) -> None:
    workers = read(truth)
    known = truth_of(workers)
    kept = [{key: event[key] for key in KEPT} for event in read(events) if name_of(event) in known]
    workers.sort(key=lambda worker: (worker["rank"] is None, worker["rank"]))
    for name, lines in (("truth.jsonl", workers), ("events.jsonl", kept)):
        (DATA / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]), Path(sys.argv[2]))
    PAGE.write_text(text(PAGE.read_text()), encoding="utf-8")
