"""The transport graph: both ends of a connection are one, nothing is counted twice or lost, memory is bounded, and the
culprit is found - and nobody where there is none.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import networkx
import pytest

from sockpid.cli.graph import graph as command
from sockpid.errors import UsageError
from sockpid.graph import TransportGraph, View, suspects
from sockpid.graph.export import to_dot, to_graphml, to_html, to_json
from sockpid.graph.model import Node, Traffic
from sockpid.outputs.base import gap
from tests.streams import START_NS, Cluster, document, unknown

HERE: dict[str, Any] = {"host": "a", "saddr": "10.0.0.1", "sport": 40000, "daddr": "10.0.0.2", "dport": 9000, "pid": 1}
THERE: dict[str, Any] = {"host": "b", "saddr": "10.0.0.2", "sport": 9000, "daddr": "10.0.0.1", "dport": 40000, "pid": 2}


def made(events: Iterable[dict[str, Any]], **limits: Any) -> TransportGraph:
    graph = TransportGraph(**limits)
    for event in events:
        graph.handle_transport_event(event)
    return graph


def total(graph: TransportGraph) -> int:
    return sum(edge.events() for edge in graph.edges().values()) + graph.forgotten


def test_both_ends_are_one_edge() -> None:
    graph = made([document(**HERE), document(**HERE), document(**THERE)])
    ((pair, edge),) = graph.edges().items()
    assert [(node.kind, node.where, node.pid) for node in pair] == [("process", "a", 1), ("process", "b", 2)]
    assert (edge.there.events, edge.back.events, edge.connections, edge.ports) == (2, 1, 1, (9000,))
    assert len(list(graph.connections())) == 1


def test_an_end_of_which_nobody_has_told() -> None:
    graph = made([document(**HERE)])
    ((pair, _),) = graph.edges().items()
    assert Node("address", "10.0.0.2") in pair


def test_an_end_whose_host_is_known_by_its_address_is_not_given_a_process() -> None:
    """Another connection tells that b has the address; whose the end is stays unknown."""
    elsewhere = document(**{**THERE, "daddr": "10.0.0.9", "dport": 50000})
    graph = made([document(**HERE), elsewhere])
    assert Node("unknown", "b") in {node for pair in graph.edges() for node in pair}
    twice = made([document(**HERE), elsewhere, {**elsewhere, "host": "c", "dport": 50001}])
    assert Node("address", "10.0.0.2") in {node for pair in twice.edges() for node in pair}


def test_the_order_of_streams_does_not_matter() -> None:
    events = [document(**HERE, ts_ns=START_NS + n) for n in range(5)]
    events += [document(**THERE, ts_ns=START_NS + n) for n in range(7)]
    events += [unknown(**{**HERE, "pid": None, "sport": 41000})]
    views = set()
    for seed in range(5):
        mixed = events[:]
        random.Random(seed).shuffle(mixed)
        graph = made(mixed)
        views.add(tuple(sorted((pair, edge.there.events, edge.back.events) for pair, edge in graph.edges().items())))
    assert len(views) == 1


def test_loopback_stays_on_its_host_and_in_its_namespace() -> None:
    local = {"saddr": "127.0.0.1", "daddr": "127.0.0.1"}
    events = [document(**{**HERE, **local, "host": host, "netns": netns}) for host in "ab" for netns in (1, 2)]
    graph = made([*events, document(**{**THERE, **local, "host": "a", "netns": 1})])
    assert len(list(graph.connections())) == 4
    both = [low for low, high in graph.connections() if low.host and high.host]
    assert [(side.host, side.netns) for side in both] == [("a", 1)]


def test_private_addresses_that_are_used_twice_are_kept_apart() -> None:
    graph = made([document(**HERE), document(**{**HERE, "host": "c", "pid": 7}), document(**HERE)])
    assert sorted(low.events + high.events for low, high in graph.connections()) == [1, 2]


def test_an_owner_that_becomes_known_takes_its_connection_over() -> None:
    graph = made([unknown(**{**HERE, "pid": None}), document(**HERE), unknown(**{**HERE, "pid": None})])
    ((pair, edge),) = graph.edges().items()
    assert pair[1] == Node("process", "a", 1, 1_663_481_925_963)
    assert edge.events() == 3


def test_a_process_is_not_its_pid() -> None:
    graph = made([document(**HERE), document(**{**HERE, "sport": 40001, "start_ns": 5})])
    assert len(graph.processes) == 2


@pytest.mark.parametrize("starts", [(50_000_000, 51_234_567), (51_234_567, 50_000_000)])
def test_a_process_whose_start_is_told_to_the_tick_is_the_one_that_is_told_exactly(starts: tuple[int, int]) -> None:
    seeded, seen = starts
    graph = made([document(**{**HERE, "start_ns": seeded}), document(**{**HERE, "sport": 40001, "start_ns": seen})])
    assert [node.start_ns for node in graph.processes] == [seeded]


def test_the_kernels_sockets_are_nobodys() -> None:
    graph = made([document(**{**HERE, "pid": None, "how": "kernel"})])
    assert {node.kind for pair in graph.edges() for node in pair} == {"kernel", "address"}


def test_what_is_no_event_changes_nothing() -> None:
    graph = TransportGraph()
    for bad in ({}, {"host": "a"}, {k: v for k, v in document().items() if k != "dport"}):
        with pytest.raises(KeyError):
            graph.handle_transport_event(bad)
    wrong: dict[str, Any] = {
        "host": 7, "saddr": None, "daddr": 5, "sport": [], "ts_ns": "now", "srtt_us": "10", "pid": [], "start_ns": [1],
        "comm": 3, "labels": ["RANK"], "kind": {},
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises((TypeError, ValueError)):
            graph.handle_transport_event(document(**{name: value}))
    for gap_of in ({"dropped": 1, "host": 7}, {"dropped": "many", "host": "a"}):
        with pytest.raises((TypeError, ValueError)):
            graph.handle_transport_event(gap_of)
    assert (graph.events, list(graph.connections()), graph.hosts, graph.processes) == (0, [], {}, {})
    assert (graph.missing, graph.missing_of) == (0, {})
    graph.handle_transport_event(document(labels={"env": "RANK", "unit": 3}))
    assert View.of(graph).document["events"] == 1


def test_gaps_are_counted_as_missing() -> None:
    graph = made([document(), {"schema": 1, "ts_ns": 1, "dropped": 12}])
    assert (graph.events, graph.missing, graph.missing_of) == (1, 12, {})


def test_a_gap_is_of_the_host_that_it_names() -> None:
    gaps = [gap(host, missing).document for host, missing in (("a", 5), ("node-9", 1), ("a", 2))]
    graph = made([document(**HERE), document(**THERE), *gaps, {"schema": 1, "ts_ns": 1, "dropped": 12}])
    assert (graph.missing, graph.missing_of) == (20, {"a": 7, "node-9": 1})
    assert View.of(graph).document["hosts"] == [
        {"name": "a", "events": 1, "missing": 7},
        {"name": "b", "events": 1, "missing": 0},
        {"name": "node-9", "events": 0, "missing": 1},
    ]


def test_memory_is_bounded_and_every_event_is_accounted_for() -> None:
    chance = random.Random(1)
    events = [
        document(sport=chance.randrange(1, 65536), pid=chance.randrange(1, 3000), ts_ns=START_NS + n * 10**6)
        for n in range(6000)
    ]
    graph = made(events, max_connections=500, max_edges=200)
    assert len(list(graph.connections())) <= 500
    assert len(graph.processes) <= 500 + 200 + 200
    assert graph.forgotten > 0
    assert total(graph) == graph.events == 6000


def test_folding_keeps_sums_by_direction() -> None:
    ends = [({**HERE, "sport": port}, {**THERE, "dport": port}) for port in range(40000, 40100)]
    graph = made((document(**end) for here, there in ends for end in (here, there, there)), max_connections=10)
    ((pair, edge),) = graph.edges().items()
    assert [node.where for node in pair] == ["a", "b"]
    assert (edge.there.events, edge.back.events) == (100, 200)
    assert edge.connections == 100
    assert edge.ports == (9000,)


def test_weights_decay() -> None:
    traffic = Traffic()
    for second in range(100):
        traffic.add(0, START_NS + second * 10**9, 100, 60e9)
    rate = traffic.weight_at(traffic.last_ns, 60e9) / 60
    assert 0.75 < rate < 1.0  # 1 - exp(-100/60) of one a second
    assert traffic.weight_at(traffic.last_ns + 60 * 10**9, 60e9) == pytest.approx(rate * 60 / 2.718281828)
    late = traffic.weight
    traffic.add(0, START_NS, 100, 60e9)
    assert late < traffic.weight < late + 0.2  # an old event that comes late counts little
    assert (traffic.first_ns, traffic.last_ns) == (START_NS, START_NS + 99 * 10**9)


def test_merging_traffic_is_as_adding_it_at_once() -> None:
    one, two, whole = Traffic(), Traffic(), Traffic()
    for n in range(50):
        for each in (whole, one if n % 3 else two):
            each.add(n % 7, START_NS + n * 10**9, n, 60e9)
    one.merge(two, 60e9)
    assert (one.events, one.kinds, one.first_ns, one.last_ns, one.srtt_most) == (
        whole.events, whole.kinds, whole.first_ns, whole.last_ns, whole.srtt_most
    )  # fmt: skip
    assert one.weight == pytest.approx(whole.weight)


@pytest.mark.parametrize("seed", range(5))
def test_the_culprit_is_found_and_nobody_else(seed: int) -> None:
    found = suspects(made(Cluster(20, 4, 4, culprit=7, factor=30).events(8000, seed)))
    assert [(s.kind, s.name) for s in found] == [("host", "node-0007")]
    assert found[0].ratio > 10
    assert "times as many as expected" in found[0].why
    assert "on 19 hosts" in found[0].why or "hosts are affected" in found[0].why


def test_the_second_is_found_as_it_would_be_without_the_first() -> None:
    events = list(Cluster(20, 4, 4, culprit=7, factor=30).events(8000, 3))
    ends = {event["saddr"] for event in events if event["host"] == "node-0007"}
    others = [event for event in events if not ends & {event["saddr"], event["daddr"]}]
    worse = [event for event in others if event["host"] == "node-0003"] * 8
    first, second, *_ = suspects(made([*events, *worse]))
    assert (first.name, second.name) == ("node-0007", "node-0003")
    (alone, *_) = suspects(made([*others, *worse]))
    assert alone._replace(share=0, score=0, why="") == second._replace(share=0, score=0, why="")
    assert alone.score == pytest.approx(second.score)


@pytest.mark.parametrize("seed", range(10))
def test_where_there_is_no_culprit_nobody_is_blamed(seed: int) -> None:
    assert suspects(made(Cluster(20, 4, 4).events(8000, seed))) == []


@pytest.mark.parametrize(("sent", "advice"), [(True, "look at what leaves it"), (False, "look at what arrives there")])
def test_a_bad_rank_is_told_from_its_host_and_which_way(sent: bool, advice: str) -> None:
    events = list(Cluster(20, 4, 6).events(8000))
    mine, other = ("labels", "daddr") if sent else ("daddr", "labels")
    assert mine != other
    rank = "13"
    ends = {(e["saddr"], e["sport"]) for e in events if e["labels"]["env"]["RANK"] == rank}
    of_it = [
        e for e in events
        if (e["labels"]["env"]["RANK"] == rank if sent else (e["daddr"], e["dport"]) in ends)
    ]  # fmt: skip
    (first, *_) = suspects(made([*events, *of_it * 60]))
    assert first.nodes == tuple(n for n in first.nodes if n.start_ns == 1_000_000_000_000 + int(rank))
    assert first.kind in ("process", "label")
    assert advice in first.why


def test_one_bad_connection_is_a_pair() -> None:
    events = list(Cluster(20, 4, 4).events(8000))
    (first, *_) = suspects(made([*events, *[events[0]] * 2000]))
    assert first.kind == "pair"
    assert "look at the path" in first.why


def view() -> View:
    events = [*Cluster(6, 2, 3, culprit=2, factor=50).events(2000), unknown(host="node-0000", daddr="192.0.2.9")]
    return View.of(made([*events, document(comm='a"b\\<c>&', host='h<"&', saddr="192.0.2.1", daddr="192.0.2.2")]))


def test_views_say_the_same_in_every_format() -> None:
    of = view()
    document_ = json.loads(to_json(of))
    assert document_ == of.document
    sums = sum(edge["events"] for edge in document_["edges"])
    assert sums == document_["events"] == 2002
    read = networkx.parse_graphml(to_graphml(of))
    assert read.number_of_nodes() == len(document_["nodes"])
    assert sum(data["events"] for _, _, data in read.edges(data=True)) == sums
    assert sum(data["sent_there"] + data["sent_back"] for _, _, data in read.edges(data=True)) == sums
    ET.fromstring(to_graphml(of))
    dot = to_dot(of)
    assert sum(int(n) for n in re.findall(r'label="(\d+)", penwidth', dot)) == sums
    assert '\\"b\\\\<c>&[4711]' in dot


def test_what_is_left_out_is_told() -> None:
    graph = made(Cluster(20, 4, 4).events(3000))
    of = View.of(graph, max_edges=10).document
    assert len(of["edges"]) == 10
    assert sum(edge["events"] for edge in of["edges"]) + of["omitted"]["events"] == 3000


def test_a_page_cannot_be_broken_by_a_name() -> None:
    graph = made([document(comm="</script><b>"), document(host="/*DATA*/null", sport=1)])
    page = to_html(View.of(graph))
    assert page.count("</script>") == 1
    assert "<b>" not in page.replace("<b>", "", 0).split("const D = ")[1].split(";\n")[0]


def write(path: Path, events: Iterable[dict[str, Any]]) -> str:
    data = "".join(json.dumps(event) + "\n" for event in events).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def test_the_command_merges_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a.jsonl", [document(**HERE, ts_ns=START_NS + 5)])
    b = write(tmp_path / "b.jsonl.gz", [document(**THERE, ts_ns=START_NS), {"no": "event"}])
    assert command([a, f"other={b}"], str(tmp_path / "g.json"), None, False, 100) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["2 retransmits, 2 hosts, 1 pairs that talk to each other", "nobody stands out"]
    assert "1 lines are no events" in said.err
    nodes = json.loads((tmp_path / "g.json").read_text())["nodes"]
    assert {node["host"] for node in nodes} == {"a", "other"}
    assert command([a, b], None, None, True, 100) == 0
    assert json.loads(capsys.readouterr().out)["suspects"] == []


def test_the_command_says_whose_events_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaps = [gap(f"node-{number}", number).document for number in (4, 1, 3, 2, 3)]
    every = write(tmp_path / "every.jsonl", [document(**HERE), *gaps])
    old = write(tmp_path / "old.jsonl", [document(**THERE), {"schema": 1, "ts_ns": 1, "dropped": 5}])
    for sources, said in (
        ([every], "13 more are missing (6 of node-3, 4 of node-4, 2 of node-2, 1 of others)"),
        ([old], "5 more are missing"),
        ([f"other={old}"], "5 more are missing (5 of other)"),
    ):
        assert command(sources, None, None, False, 100) == 0
        assert f"\n{said}: readers were too slow\n" in capsys.readouterr().out


def test_the_command_reads_standard_input_and_writes_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(document()).encode())))
    assert command(["-"], "-", "graphml", False, 100) == 0
    ET.fromstring(capsys.readouterr().out)


def test_more_hosts_than_files_may_be_open(tmp_path: Path) -> None:
    for number in range(100):
        write(
            tmp_path / f"{number}.jsonl", [document(host=f"node-{number}", ts_ns=START_NS + n, sport=n) for n in (5, 2)]
        )
    write(tmp_path / "odd.jsonl", [document(ts_ns="later")])
    told = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", sys.executable, "-m", "sockpid", "graph", "--json",
         *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (json.loads(told.stdout)["hosts"], json.loads(told.stdout)["events"]) == (100, 200)
    assert told.stderr == "sockpid: 1 lines are no events\n"


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        command([str(tmp_path / "none")], None, None, False, 100)
    with pytest.raises(UsageError, match="no events"):
        command([write(tmp_path / "x", [])], None, None, False, 100)
    (tmp_path / "x.gz").write_bytes(b"not gzip")
    with pytest.raises(UsageError, match=r"x\.gz"):
        command([str(tmp_path / "x.gz")], None, None, False, 100)
