"""docs/case-study.md: its tables are those of its data, and what it tells of happens again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from sockpid.graph import TransportGraph, suspects
from tests import truth
from tests.kernel.conftest import REQUIRED, RUNTIME, attached, cannot_load_bpf

from . import case_study
from .case_study import DATA, PAGE, Told, read, told, truth_of


def test_the_tables_are_those_of_the_data() -> None:
    assert PAGE.read_text() == case_study.text(PAGE.read_text()), "`python -m tests.docs.case_study` makes them anew"


def test_what_the_page_says_of_them() -> None:
    seen = list(told(read(DATA / "truth.jsonl"), read(DATA / "events.jsonl")))
    assert all(each.owner == each.truth for each in seen)
    assert not [each for each in seen if each.current == each.truth and each.kind != "fast"]
    current = Counter(each.current for each in seen if each.current != case_study.OTHERS)
    assert current.most_common(1)[0][0] == "dataloader"
    assert current["trainer-5"] == 0
    graph = TransportGraph()
    for event in read(DATA / "events.jsonl"):
        graph.handle_transport_event(event)
    (one,) = suspects(graph)
    assert one.title.startswith("process trainer-5["), one


def test_what_is_wrong_would_show() -> None:
    (worker, other) = (read(DATA / "truth.jsonl")[at] for at in (5, 6))
    event = next(event for event in read(DATA / "events.jsonl") if event["comm"] == "trainer-5")
    (seen,) = told([worker, other], [{**event, "pid": other["pid"]}])
    assert (seen.owner, seen.truth) == ("trainer-6", "trainer-5")
    assert "| `rto` | 1 | 0 | 0 |" in case_study.by_kind([Told("rto", "nobody", seen.owner, seen.truth)])


def test_data_names_no_host_of_ours() -> None:
    events = read(DATA / "events.jsonl")
    assert {event["host"] for event in events} == {"node-7"}
    assert {tuple(event) for event in events} == {case_study.KEPT}


@pytest.mark.kernel
def test_it_happens_again() -> None:
    """For a shorter time: too short for who stands out, long enough for timers."""
    if not REQUIRED and (reason := cannot_load_bpf()):
        pytest.skip(reason)
    with subprocess.Popen(
        [*RUNTIME, "run", "--json", "--label-env", "RANK"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        attached(run)
        job = ["unshare", "--net", sys.executable, "-I", "-S", str(DATA / "job.py"), "6"]
        done = subprocess.run(job, capture_output=True, text=True, check=True, timeout=60)
        run.terminate()
        stdout, _ = run.communicate(timeout=30)
    known = truth_of(truth.parse_lines(done.stdout))
    of_job = [event for event in map(json.loads, stdout.splitlines()) if case_study.name_of(event) in known]
    assert sum(event["kind"] in ("rto", "tlp") for event in of_job) > 14
    for event in of_job:
        true = known[case_study.name_of(event)]
        assert (event["pid"], event["comm"]) == (true["pid"], true["comm"]), event
        assert event["exited"] or event["labels"]["env"] == {"RANK": str(true["rank"])}
