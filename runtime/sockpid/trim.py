"""Making room in maps that cannot do so by themselves: plain hash maps, before LRU ones came.

Linux kernel commit 29ba732acbee ("bpf: Add BPF_MAP_TYPE_LRU_HASH") (in v4.10)

A full map refuses new entries, so it is trimmed well before, whenever events are asked for: from three quarters in use
down to half, the oldest first. A burst that fills the rest between two looks leaves its sockets unknown.
"""

from __future__ import annotations

import struct
import time

from .map import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping

LOOK_SECONDS = 0.2

WHEN = {"owner_by_sock": 24, "socket_to_pid": 16, "exec_names": 0}
"""Where in a value the time is (u64, nanoseconds): owner.latest.when_ns, process.when_ns, exec_name.start_ns."""


class Trimmer:
    """Trims those of the maps that need it. trimmed: so many owners of sockets were taken out."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = [(maps[name], at) for name, at in WHEN.items() if maps[name].spec.type == "BPF_MAP_TYPE_HASH"]
        self._look = 0.0
        self.trimmed = 0

    def trim(self) -> None:
        """Looks at the maps, unless that was just done."""
        now = time.monotonic()
        if not self._maps or now < self._look:
            return
        for one, at in self._maps:
            keys = list(one.keys())
            entries = one.spec.max_entries
            if len(keys) > entries * 3 // 4:
                values = ((key, one.lookup(key)) for key in keys)
                ages = sorted((struct.unpack_from("=Q", value, at)[0], key) for key, value in values if value)
                for _, key in ages[: len(ages) - entries // 2]:
                    gone = one.delete(key)
                    self.trimmed += gone and one.spec.name == "owner_by_sock"
        self._look = time.monotonic() + max(LOOK_SECONDS, 10 * (time.monotonic() - now))
