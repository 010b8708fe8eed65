"""Finding this kernel in a table of very many: all of one series, the worst there is, and this one in the middle."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Sequence

from sockpid.host import kernel
from sockpid.offsets import offsets
from sockpid.probe import tracer
from sockpid.table import table

PUBLISHED = "/sockpid/offsets/{}/{}.json"
BIG = "/run/big-table.json"
START = b'"kernels": [\n'
END = b"\n],\n"


def grown(content: bytes, wanted: bytes, count: int) -> bytes:
    """A shard with so many kernels: the one with this build-id, and others, each with a build-id of its own."""
    head, _, rest = content.partition(START)
    lines, _, tail = rest.partition(END)
    known = lines.split(b",\n")
    ours = next(line for line in known if wanted in line)
    others: List[bytes] = []
    while len(others) < count - 1:
        line = known[len(others) % len(known)]
        before, key, after = line.partition(b'"build_id": "')
        others.append(before + key + b"%040x" % len(others) + after[40:])
    others.insert(count // 2, ours)
    return head + START + b",\n".join(others) + END + tail


def measure(counts: Sequence[int]) -> Dict[str, Any]:
    """Per number of kernels: seconds to read the file and find this kernel's layout, and the file's bytes."""
    identity = kernel.identify()
    image = tracer.load_image(identity.arch.byte_order)
    with open(PUBLISHED.format(identity.arch.name, table.series_of(identity.release)), "rb") as file:
        published = file.read()
    assert identity.build_id
    figures: Dict[str, Any] = {}
    for count in counts:
        content = grown(published, identity.build_id.encode(), count)
        with open(BIG, "wb") as big:
            big.write(content)
        best = float("inf")
        for _ in range(3):
            started = time.monotonic()
            offsets.find(image, identity, BIG)
            best = min(best, time.monotonic() - started)
        figures[str(count)] = {"seconds": best, "bytes": len(content)}
    return figures
