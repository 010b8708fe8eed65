"""`make bench-streaming`: recorded events through outputs and graph.

Each case runs in a process of its own, and what it sends is counted in another one: received + dropped = sent, or the
bench fails. Per event: CPU time of the sender, and that in units of one json.dumps() of an event, measured just before,
since machines differ and are not quiet. Memory is what the sender needed at most above what it had before. Needs
nothing but Python's standard library: targets have no other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sockpid.cli.graph import uncollected
from sockpid.graph import TransportGraph, View, suspects
from sockpid.outputs import Outputs
from sockpid.outputs.spec import open_output
from sockpid.outputs.unix import Unix
from tests.bench import receivers, stream_report
from tests.bench.receivers import CONTEXT, Receiver
from tests.streams import Cluster

BATCH = 500
LIMIT = 65536
PEERS = 4
"""Connections that each of a host's eight processes opens."""
Result = dict[str, Any]
POOL = list(Cluster(64, 8, 4, culprit=7).events(20 * BATCH))


def batches(count: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, count, BATCH):
        at = start % len(POOL)
        yield POOL[at : at + min(BATCH, count - start)]


def through(spec: str, count: int, wait: bool = True, seconds: float = 60) -> Result:
    """Offers as fast as the output takes: whoever is faster than the queue waits for half of it, as a ring buffer
    would, so that the output's own speed is what is measured. Without `wait` what does not fit must be counted."""
    output, limit = open_output(spec, LIMIT)
    outputs = Outputs([(output, limit)], lambda line: print(line, file=sys.stderr))
    outputs.start()
    (sink,) = outputs._sinks
    while isinstance(output, Unix) and not output._readers:  # what is sent before is nobody's
        time.sleep(0.001)
    for batch in batches(count):
        while wait and len(sink._queue) > LIMIT // 2:
            time.sleep(0.001)
        outputs.offer(batch)
    scraped = _scrape(output, sink) if spec.startswith("prometheus") else None
    outputs.close(seconds)
    (report,) = outputs.report()
    return {"sent": report["offered"], "dropped": report["dropped"], "received": scraped}


def _scrape(output: Any, sink: Any) -> int:
    """What Prometheus fetches after the last event: the sum of all series."""
    while sink.written < sink.offered:
        time.sleep(0.01)
    return sum(int(n) for n in re.findall(rb"^sockpid_retransmits_total\{.*\} (\d+)$", output.text(), re.MULTILINE))


def into_graph(hosts: int, count: int, peers: int = PEERS) -> Result:
    """As `sockpid graph` does it, but for the JSON."""
    with uncollected():
        graph = TransportGraph()
        for event in Cluster(hosts, 8, peers, culprit=hosts // 2).events(count):
            graph.handle_transport_event(event)
        edges = graph.edges()
        started = time.process_time()
        suspects(graph, edges=edges)
        asked = time.process_time()
        del edges
        document = View.of(graph).document
        seen = time.process_time()
    return {
        "sent": count,
        "received": sum(edge.events() for edge in graph.edges().values()),
        "dropped": graph.forgotten,
        "hosts": len(graph.hosts),
        "connections": len(list(graph.connections())),
        "suspects_s": round(asked - started, 2),
        "view_s": round(seen - asked, 2),
        "suspects": [suspect["title"] for suspect in document["suspects"]],
    }


def generated(hosts: int, count: int) -> Result:
    """Making the graph's events alone: to be taken off its figures."""
    made = sum(1 for _ in Cluster(hosts, 8, PEERS, culprit=hosts // 2).events(count))
    return {"sent": made, "received": made, "dropped": 0}


def one_dumps() -> float:
    """Microseconds of CPU for one json.dumps() of an event: what a store of JSON cannot do without."""
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for event in POOL[:1000]:
            json.dumps(event)
        best = min(best, time.process_time() - started)
    return best / 1000 * 1e6


def measured(function: Callable[..., Result], *arguments: Any, stdout: str | None = None) -> Result:
    """Runs in a child, for its own memory and CPU time. stdout: a file that is to be its standard output."""
    ours, theirs = CONTEXT.Pipe()

    def work() -> None:
        os.dup2(os.open(stdout or os.devnull, os.O_WRONLY), 1)
        unit = one_dumps()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM anew
        before, started, rss = time.process_time(), time.perf_counter(), _rss("VmRSS")
        result = function(*arguments)
        cpu, wall = time.process_time() - before, time.perf_counter() - started
        per_event = cpu / result["sent"] * 1e6
        theirs.send(
            {
                **result,
                "cpu_us": round(per_event, 2),
                "dumps_us": round(unit, 2),
                "wall_s": round(wall, 1),
                "memory_mb": round((_rss("VmHWM") - rss) / 1024, 1),
            }
        )

    process = CONTEXT.Process(target=work)
    process.start()
    theirs.close()
    result: Result = ours.recv()
    process.join()
    return result


def _rss(which: str) -> int:
    """Kilobytes of this process's memory, of /proc/self/status."""
    return int(re.search(rf"{which}:\s*(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index] # is there


def output_case(receiver: Receiver | None, spec: str, count: int, **how: Any) -> Result:
    """A case with somebody at the other end. In the spec {} is the receiver's place."""
    to_stdout = spec.partition(",")[0] in ("json", "table")
    place = receiver.place if receiver else None
    whole = measured(lambda: through(spec.format(place), count, **how), stdout=place if to_stdout else None)
    if receiver is not None:
        whole["received"] = receiver.finish()
    return whole


def cases(count: int, hosts: int, directory: str) -> dict[str, Callable[[], Result]]:
    def of(receiver: Callable[..., None] | None, *at: Any, spec: str, **how: Any) -> Callable[[], Result]:
        return lambda: output_case(Receiver(receiver, *at) if receiver else None, spec, count, **how)

    Path(f"{directory}/files").mkdir()
    return {
        "table": of(receivers.lines, 1, spec="table"),
        "json": of(receivers.lines, 0, spec="json"),
        "json, a reader that is never waited for": of(receivers.lines, 0, spec="json,queue=4096", wait=False),
        "file, rotated every 64 MB": of(receivers.files, f"{directory}/files", spec="file:{},size=64M,keep=1000"),
        "unix, one reader": of(receivers.reader, f"{directory}/unix", spec="unix:{}"),
        "syslog": of(receivers.datagrams, f"{directory}/syslog", spec="syslog:{}"),
        "journald": of(receivers.datagrams, f"{directory}/journald", spec="journald:{}"),
        "prometheus": of(None, spec="prometheus:127.0.0.1:0,labels=kind+env.RANK"),
        "otlp": of(receivers.collector, spec="otlp:{}"),
        "making the graph's events": lambda: measured(generated, hosts, count),
        f"graph, {hosts} hosts": lambda: measured(into_graph, hosts, count),
        f"graph, {hosts} hosts with more connections than it keeps": lambda: measured(
            into_graph, hosts, count, 4 * PEERS
        ),
        "graph, 64 hosts": lambda: measured(into_graph, 64, count),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--report", type=Path, help="add the results to this page and the .json beside it")
    arguments = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory() as directory:
        for name, case in cases(arguments.events, arguments.hosts, directory).items():
            if not name.startswith(arguments.only):
                continue
            result = case()
            print(json.dumps({"case": name, **result}), flush=True)
            if result["received"] + result["dropped"] != result["sent"]:
                print(f"{name}: received + dropped is not what was sent", file=sys.stderr)
                status = 1
            elif arguments.report:
                stream_report.enter(arguments.report, "cases", {name: result})
    assert threading.active_count() == 1
    return status


if __name__ == "__main__":
    sys.exit(main())
