#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Follows sockpid's events, and says who retransmits to whom.

    sockpid run --output unix:/run/sockpid/events.sock &
    python3 follow.py /run/sockpid/events.sock
    sockpid run --json | python3 follow.py -

Needs Python 3.7 and nothing else. A reader has to know three things: an owner may be unknown, and then there is a
reason; one may be in doubt; and a line with "dropped" says how many events this reader has missed.
"""

import json
import socket
import sys
from typing import Any, Dict, Iterator, TextIO


def lines_of(place: str) -> TextIO:
    """Standard input for "-", else what comes out of a Unix socket. Raises OSError."""
    if place == "-":
        return sys.stdin
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(place)
    return connection.makefile("r", encoding="utf-8")


def events(lines: TextIO) -> Iterator[Dict[str, Any]]:
    for line in lines:
        event = json.loads(line)
        if event["schema"] != 1:
            raise SystemExit(f"events of schema {event['schema']}: this program knows 1")
        yield event


def owner(event: Dict[str, Any]) -> str:
    """Never the interrupted process: that one happened to run when the timer fired."""
    if event["pid"] is None:
        return f"unknown ({event['reason']})" if event["how"] is None else "the kernel"
    doubt = f", but {event['doubt']}" if event["doubt"] else ""
    # A process calls itself what it likes: nothing of that may be a terminal's command.
    name = "".join(c if c.isprintable() else "?" for c in event["comm"])
    return f"{name}[{event['pid']}]{' (gone)' if event['exited'] else ''}{doubt}"


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for event in events(lines_of(sys.argv[1])):
        if "dropped" in event:
            print(f"{event['host']}: {event['dropped']} events missed: this reader is too slow", flush=True)
            continue
        near, far = end(event["saddr"], event["sport"]), end(event["daddr"], event["dport"])
        print(f"{event['host']}: {owner(event)}: {event['kind']} {near} > {far} {event['state']}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
