"""`python -m tests.bench.streaming [--events N] [--hosts N]`: recorded events through outputs and graph.

Per case: seconds of CPU and of wall time, events per CPU second, the greatest memory above the start, and whether every
event was written or counted as dropped. Each case runs in a process of its own. Events are made once, and repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sockpid.graph import TransportGraph, View
from sockpid.outputs import Outputs
from tests.streams import Cluster

BATCH = 500
LIMIT = 65536


def batches(count: int) -> Iterator[list[dict[str, Any]]]:
    pool = list(Cluster(64, 8, 4, culprit=7).events(20 * BATCH))
    for start in range(0, count, BATCH):
        at = start % len(pool)
        yield pool[at : at + min(BATCH, count - start)]


def through(spec: str, count: int) -> dict[str, Any]:
    """Offers as fast as the output takes: whoever is faster than the queue waits for half of it, as a ring buffer
    would, so that the output's own speed is what is measured."""
    outputs = Outputs.open([spec], lambda line: print(line, file=sys.stderr))
    outputs.start()
    (sink,) = outputs._sinks
    for batch in batches(count):
        while len(sink._queue) > LIMIT // 2:
            time.sleep(0.001)
        outputs.offer(batch)
    outputs.close(60)
    (report,) = outputs.report()
    return report


def flooded(spec: str, count: int) -> dict[str, Any]:
    """Offers without ever waiting: what does not fit must be counted."""
    outputs = Outputs.open([f"{spec},queue=4096"], lambda line: print(line, file=sys.stderr))
    outputs.start()
    for batch in batches(count):
        outputs.offer(batch)
    outputs.close(60)
    (report,) = outputs.report()
    return report


def into_graph(hosts: int, count: int) -> dict[str, Any]:
    cluster = Cluster(hosts, 8, 4, culprit=hosts // 2)
    graph = TransportGraph()
    for event in cluster.events(count):
        graph.handle_transport_event(event)
    spent = time.process_time()
    document = View.of(graph).document
    held = sum(edge.events() for edge in graph.edges().values()) + graph.forgotten
    return {
        "offered": count,
        "written": held,
        "dropped": count - held,
        "hosts": len(graph.hosts),
        "connections": len(list(graph.connections())),
        "view_cpu_s": round(time.process_time() - spent, 2),
        "suspects": [suspect["title"] for suspect in document["suspects"]],
    }


def generated(hosts: int, count: int) -> dict[str, Any]:
    """Making the events alone: to be taken off the graph's figures."""
    made = sum(1 for _ in Cluster(hosts, 8, 4, culprit=hosts // 2).events(count))
    return {"offered": made, "written": made, "dropped": 0}


def drained(path: str, kind: int) -> None:
    """A log daemon, or a reader of the socket, that throws everything away, in a process of its own."""
    if kind == socket.SOCK_DGRAM:
        daemon = socket.socket(socket.AF_UNIX, kind)
        daemon.bind(path)
    else:
        daemon = socket.socket(socket.AF_UNIX, kind)
        while True:
            try:
                daemon.connect(path)
                break
            except OSError:
                time.sleep(0.01)
    while daemon.recv(1 << 20):
        pass


def collector(port: Any) -> None:
    from tests.unit.test_outputs_wire import Collector

    class Forgetting(list[Any]):
        def append(self, _: Any) -> None:
            pass

    with Collector() as made:
        made.got, made.headers = Forgetting(), Forgetting()
        port.send(made.url)
        threading.Event().wait()


def case(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Runs in a child, for its own memory and CPU time."""
    ours, theirs = multiprocessing.Pipe()

    def work() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        result = function(*arguments)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        theirs.send(
            {
                **result,
                "cpu_s": round(cpu, 2),
                "wall_s": round(wall, 2),
                "per_cpu_s": round(result["offered"] / cpu),
                "rss_mb": round((after.ru_maxrss - before.ru_maxrss) / 1024, 1),
            }
        )

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    result: dict[str, Any] = ours.recv()
    process.join()
    assert result["offered"] == result["written"] + result["dropped"], result
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("fork")
    helpers: list[Any] = []

    def helper(function: Callable[..., None], *of: Any) -> None:
        helpers.append(context.Process(target=function, args=of, daemon=True))
        helpers[-1].start()

    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = multiprocessing.Pipe()
        helper(drained, f"{directory}/log", socket.SOCK_DGRAM)
        helper(drained, f"{directory}/unix", socket.SOCK_STREAM)
        helper(collector, theirs)
        url = ours.recv()
        while not Path(f"{directory}/log").exists():
            time.sleep(0.01)
        count = arguments.events
        cases: dict[str, tuple[Any, ...]] = {
            "table": (through, "table", count),
            "json": (through, "json", count),
            "file": (through, f"file:{directory}/events.jsonl,size=64M,keep=2", count),
            "unix, one reader": (through, f"unix:{directory}/unix", count),
            "syslog": (through, f"syslog:{directory}/log", count),
            "journald": (through, f"journald:{directory}/log", count),
            "prometheus": (through, "prometheus:127.0.0.1:0,labels=kind+env.RANK", count),
            "otlp": (through, f"otlp:{url}", count),
            "otlp, no collector, disk": (
                through, f"otlp:http://127.0.0.1:1,queue-dir={directory}/q,queue-size=64M", count,
            ),
            "json, flooded": (flooded, "json", count),
            "events alone": (generated, 64, count),
            "graph, 64 hosts": (into_graph, 64, count),
            f"graph, {arguments.hosts} hosts": (into_graph, arguments.hosts, count),
        }  # fmt: skip
        for name, (function, *rest) in cases.items():
            if arguments.only in name:
                print(json.dumps({"case": name, **case(function, *rest)}), flush=True)
    for each in helpers:
        each.kill()


if __name__ == "__main__":
    main()
