"""Room in the maps that know owners: made where a map cannot do so by itself, and what was lost for want of it.

LRU maps drop what was used least. Plain hash maps, which are all there was before, refuse new entries once they are
full. So these are trimmed well before, whenever events are asked for: from three quarters in use down to half, the
oldest first. A burst that fills the rest between two looks leaves its sockets unknown.

Linux kernel commit 29ba732acbee ("bpf: Add BPF_MAP_TYPE_LRU_HASH") (in v4.10)
"""

from __future__ import annotations

import struct
import time

from sockpid.bpf.map import LOCAL_FREE_TARGET, cpus
from sockpid.host import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .collection import Collection

TRIM_SECONDS = 0.2
REST = 10
"""So many times as long as a walk through a map took, there is none after it."""

QUICK_SECONDS = 0.02
"""But for one that took no longer than this, if somebody has to know."""

WHEN = {"owner_by_sock": 16, "socket_to_pid": 16, "exec_names": 8, "exited": 0}
"""Where in a value the time is (u64, nanoseconds): entry.latest.when_ns, latest.when_ns, exec_name.when_ns, the
value."""

# enum counter (bpf_bytecode/sockpid.h)
COUNTER_INSERTED = 2
COUNTER_DELETED = 3


class Room:
    """Of the maps of an attached collection."""

    def __init__(self, collection: Collection) -> None:
        maps = collection.maps
        self._counter = collection.counter
        self._owners, self._public = maps["owner_by_sock"], maps["socket_to_pid"]
        self._plain = [(maps[name], at) for name, at in WHEN.items() if maps[name].spec.type == "BPF_MAP_TYPE_HASH"]
        self._evicted = self._trimmed = self._forgiven = 0
        self._trim_again = self._look_again = self._took = 0.0
        self._looked_ns = 0
        if collection.base and self._owners.spec.max_entries <= 1 << 16:  # of the instance before: what is there counts
            self._forgiven = self.living() - len(set(self._owners.keys()))

    def make(self) -> None:
        """Trims the maps that need it, unless that was just done."""
        now = time.monotonic()
        if not self._plain or now < self._trim_again:
            return
        for one, at in self._plain:
            keys = list(one.keys())
            entries = one.spec.max_entries
            if len(keys) > entries * 3 // 4:
                values = ((key, one.lookup(key)) for key in keys)
                ages = sorted((struct.unpack_from("=Q", value, at)[0], key) for key, value in values if value)
                for _, key in ages[: len(ages) - entries // 2]:
                    gone = one.delete(key)
                    self._trimmed += gone and one is self._owners
        self._trim_again = time.monotonic() + max(TRIM_SECONDS, REST * (time.monotonic() - now))

    def evicted(self, by_ns: int = 0) -> int:
        """How many living sockets have lost their entry in owner_by_sock so far. by_ns: it matters whether one of them
        had by then (CLOCK_MONOTONIC).

        Every entry that was made and not taken out at its socket's end must be there; the LRU evicted those that are
        not. The map is only walked when it is full enough for that: see map.lru_entries().
        """
        entries = self._owners.spec.max_entries
        living, now = self.living(), time.monotonic()
        is_due = now >= self._look_again
        if not self._evicted and self._looked_ns < by_ns:
            is_due |= self._took <= QUICK_SECONDS
        if is_due and living > entries - LOCAL_FREE_TARGET * len(cpus("possible")):
            self._looked_ns = kernel.monotonic_ns()
            present = len(list(self._owners.keys())) if entries <= 1 << 16 else entries
            self._took = time.monotonic() - now
            self._look_again = now + REST * self._took
            self._evicted = max(self._evicted, living - present)
        self._evicted = max(self._evicted, living - entries, self._trimmed)
        return self._evicted

    def living(self) -> int:
        """How many sockets that were learnt have not been destroyed: what the maps should have had room for."""
        return self._counter(COUNTER_INSERTED) - self._counter(COUNTER_DELETED) - self._forgiven

    def is_public_full(self) -> bool:
        """May socket_to_pid have evicted living sockets? It holds those that were there before, too; nothing counts."""
        entries = self._public.spec.max_entries
        return len(list(self._public.keys())) > entries - LOCAL_FREE_TARGET * len(cpus("possible"))

    def forget(self, key: bytes) -> None:
        """Takes a socket's entry out of owner_by_sock, as an eviction would, without it being counted as one."""
        self._forgiven += self._owners.delete(key)
