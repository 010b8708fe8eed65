"""Event documents where there is no kernel to raise them: one, or the streams of many hosts of an imagined cluster.

`python3 tests/streams.py --hosts 8 --culprit 5 DIRECTORY` writes node-0000.jsonl and so on.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the runtime lies beside the tests
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "runtime"))

from sockpid.event import event
from sockpid.event.socket_tuple import SocketTuple

START_NS = 1_795_359_768_000_000_000


def document(**changes: Any) -> dict[str, Any]:
    """The document of an event whose owner is known, as `sockpid run` tells it, with some keys changed."""
    owner = event.Process(4711, 4712, 1_663_481_925_963, 2_000, 77, "send", 0, "python3")
    name = SocketTuple(4026531840, "inet", 40034, 9000, "10.0.0.1", "10.0.0.2")
    opener = event.Opener(owner.pid, owner.start_ns, owner.how, owner.comm)
    fields: tuple[Any, ...] = (
        5_000, 1, "rto", name, "ESTABLISHED", owner, opener, 1, False, False, "sock", 0, 99, 0, 100, 1548, 250, 10, 7,
        2, 4, 0, False, False, None,
    )  # fmt: skip
    seen = event.Event(**dict(zip(event.FIELDS, fields, strict=True)))
    made: dict[str, Any] = seen.json(START_NS, "table", None)
    made.update(exited=False, ns_pid=4711, cgroup="/system.slice/train.service", labels=None, sharers=None)
    made["host"] = "node-1"
    return {**made, **changes}


def unknown(reason: str = "older-than-probe", **changes: Any) -> dict[str, Any]:
    """As above, of an event whose owner is not known."""
    none = dict.fromkeys(
        ("pid", "tid", "comm", "start_ns", "how", "age_ns", "ambiguous", "found", "opener_pid", "opener_comm",
         "opener_how", "cgroup_id", "exited", "ns_pid", "cgroup")
    )  # fmt: skip
    return document(**{**none, "reason": reason, **changes})


class Cluster:
    """A training job: `hosts` hosts with `ranks` processes each, every one of which talks to its neighbours in a ring
    and to some others. Retransmits come at random; those that touch `culprit` (a host's number) `factor` times as
    often."""

    def __init__(
        self, hosts: int, ranks: int = 8, peers: int = 4, culprit: int | None = None, factor: float = 40.0
    ) -> None:
        self.hosts, self.ranks = hosts, ranks
        self.culprit = culprit
        self._factor = factor
        chance = random.Random(hosts * 1000 + ranks)
        total = hosts * ranks
        self.links: list[tuple[int, int, int]] = []
        """(client rank, server rank, client's port)"""
        for rank in range(total):
            others = {(rank + 1) % total, *(chance.randrange(total) for _ in range(peers - 1))} - {rank}
            self.links += [(rank, other, chance.randrange(32768, 61000)) for other in sorted(others)]

    def address(self, host: int) -> str:
        return str(ipaddress.IPv4Address("10.0.0.0") + 256 * (host // 250) + host % 250 + 1)

    def events(self, count: int, seed: int = 1, seconds: float = 600.0) -> Iterator[dict[str, Any]]:
        """`count` events of all hosts, in order of time."""
        chance = random.Random(seed)
        weights = [
            self._factor if self.culprit in (a // self.ranks, b // self.ranks) else 1.0 for a, b, _ in self.links
        ]
        base = document()
        moment = START_NS
        for client, server, port in chance.choices(self.links, weights, k=count):
            moment += int(seconds * 1e9 / count)
            sends = chance.random() < 0.5
            rank, other = (client, server) if sends else (server, client)
            listening = 9000 + server % self.ranks
            local, remote = (port, listening) if sends else (listening, port)
            yield {
                **base,
                "ts_ns": moment,
                "host": f"node-{rank // self.ranks:04d}",
                "kind": chance.choice(("rto", "tlp", "fast")),
                "saddr": self.address(rank // self.ranks),
                "sport": local,
                "daddr": self.address(other // self.ranks),
                "dport": remote,
                "pid": 4000 + rank % self.ranks,
                "tid": 4000 + rank % self.ranks,
                "start_ns": 1_000_000_000_000 + rank,
                "comm": "python3",
                "how": "send",
                "opener_how": "connect" if sends else "accept",
                "srtt_us": chance.randrange(80, 400),
                "labels": {"env": {"RANK": str(rank)}, "reason": None},
            }


def record(cluster: Cluster, count: int, directory: Path) -> None:
    """Writes NAME.jsonl for each host of a cluster."""
    lines: dict[str, list[str]] = {}
    for made in cluster.events(count):
        lines.setdefault(made["host"], []).append(json.dumps(made) + "\n")
    for host, of_host in sorted(lines.items()):
        (directory / f"{host}.jsonl").write_text("".join(of_host))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=4, help="processes per host (default: %(default)s)")
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--culprit", type=int, help="number of the host whose connections suffer (default: none)")
    options = parser.parse_args()
    record(Cluster(options.hosts, options.ranks, 3, options.culprit), options.events, options.directory)


if __name__ == "__main__":
    main()
