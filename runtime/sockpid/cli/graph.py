"""`sockpid graph`: streams of events into a graph, and that into a file or a list of suspects."""

from __future__ import annotations

import contextlib
import gc
import gzip
import heapq
import json
import os
import resource
import sys
from typing import Any, BinaryIO, Dict, Generator, Iterator, List, Optional, cast

from sockpid import whole_file
from sockpid.errors import SockpidError, UsageError
from sockpid.event.text import printable
from sockpid.graph.export import FORMATS
from sockpid.graph.transport import TransportGraph
from sockpid.graph.view import View

Event = Dict[str, Any]

HOSTS_NAMED = 3
"""Of those that miss events."""


def graph(sources: List[str], output: Optional[str], form: Optional[str], as_json: bool, max_edges: int) -> int:
    """Reads all sources, writes `output` ("-": standard output), and says who is suspicious. Raises SockpidError."""
    form = form or _form_of(output)
    made = TransportGraph()
    bad = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncollected())
        _allow_files(len(sources))
        streams = [_read(stack, source) for source in sources]
        for event in heapq.merge(*streams, key=_moment) if len(streams) > 1 else streams[0]:
            try:
                made.handle_transport_event(event)
            except (KeyError, TypeError, ValueError):
                bad += 1
        if not made.events:
            raise UsageError(f"no events in {', '.join(sources)}" + (f"; {bad} lines are none" if bad else ""))
        view = View.of(made, max_edges)
    if bad:
        print(f"sockpid: {bad} lines are no events", file=sys.stderr)
    if output:
        _write(output, FORMATS[form](view))
    if output != "-":
        _say(view, as_json)
    return 0


@contextlib.contextmanager
def uncollected() -> Generator[None, None, None]:
    """Without the garbage collector: nothing in a graph refers to itself in a circle, and to look for circles among a
    million objects, again and again while they are made, is half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _allow_files(number: int) -> None:
    """So many hosts have a file each, and all are open at once: more than 1,024 need to be asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 64
    if soft < wanted and soft != resource.RLIM_INFINITY:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _moment(event: Event) -> int:
    moment = event.get("ts_ns")
    return moment if isinstance(moment, int) else 0


def _form_of(output: Optional[str]) -> str:
    ending = (output or "").rpartition(".")[2]
    return ending if ending in FORMATS else "html" if ending == "htm" else "json"


def _read(stack: contextlib.ExitStack, source: str) -> Iterator[Event]:
    """Events of FILE, FILE.gz or "-"; HOST=FILE says what to call the host. Raises UsageError."""
    host, equals, path = source.partition("=")
    if not equals or os.path.exists(source):
        host, path = "", source
    try:
        if path == "-":
            file = sys.stdin.buffer
        elif path.endswith(".gz"):
            file = cast(BinaryIO, stack.enter_context(gzip.open(path, "rb")))
        else:
            file = stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return _events(file, path, host)


def _events(file: BinaryIO, path: str, host: str) -> Iterator[Event]:
    try:
        for line in file:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except ValueError:
                event = {}
            if not isinstance(event, dict):
                event = {}
            if host:
                event["host"] = host
            yield cast(Event, event)
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: {error}") from None


def _write(output: str, text: str) -> None:
    if output == "-":
        sys.stdout.write(text)
        return
    try:
        whole_file.write(output, text.encode())
    except OSError as error:
        raise SockpidError(f"{output}: {error.strerror}") from None


def _say(view: View, as_json: bool) -> None:
    document = view.document
    if as_json:
        told = ("schema", "events", "missing", "forgotten", "omitted", "suspects")
        print(json.dumps({**{name: document[name] for name in told}, "hosts": len(document["hosts"])}))
        return
    print(f"{document['events']} retransmits, {len(document['hosts'])} hosts, {_between(view)}")
    if document["missing"]:
        print(f"{document['missing']} more are missing{_of_hosts(document['hosts'])}: readers were too slow")
    if not document["suspects"]:
        print("nobody stands out")
    for number, suspect in enumerate(document["suspects"], 1):
        print(f"{number}. {suspect['title']}: {suspect['why']}")


def _of_hosts(hosts: List[Dict[str, Any]]) -> str:
    """Whose events are missing: the worst hosts, where that is told."""
    told = sorted((host for host in hosts if host["missing"]), key=lambda host: -host["missing"])
    named = [f"{host['missing']} of {printable(host['name'])}" for host in told[:HOSTS_NAMED]]
    rest = sum(host["missing"] for host in told[HOSTS_NAMED:])
    return f" ({', '.join([*named, *([f'{rest} of others'] if rest else [])])})" if told else ""


def _between(view: View) -> str:
    document = view.document
    edges = len(document["edges"]) + document["omitted"]["edges"]
    return f"{edges} pairs that talk to each other"
