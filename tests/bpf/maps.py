"""The kernel's maps, as far as what programs can see of one another in them.

An element of a hash map that is evicted, deleted or superseded goes back to a free list and may be given to any key at
once, while programs still hold pointers to its value (kernel/bpf/hashtab.c: htab_lru_map_update_elem() takes an
element, writes key and value, and only then links it; htab_lru_push_free() frees without a grace period). The free list
here is a stack, so that an element is reused as soon as it can be. An update never writes into the element that is
linked.
"""

from __future__ import annotations

import errno
from collections.abc import Generator

from sockpid.image.image import Map as Spec

from .memory import PRIVATE, SHARED, Memory

BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2
CPUS = 4

Steps = Generator[str, None, int]
"""What stops wherever others may run in between, and returns what the helper does."""


class Array:
    """An array whose values all programs share, or one value for each CPU."""

    def __init__(self, memory: Memory, spec: Spec) -> None:
        per_cpu = spec.type == "BPF_MAP_TYPE_PERCPU_ARRAY"
        self._memory, self._spec, self._per_cpu = memory, spec, per_cpu
        self._values: dict[tuple[int, int], int] = {}

    def lookup(self, key: bytes, cpu: int) -> int:
        index = int.from_bytes(key, self._memory.order)
        if index >= self._spec.max_entries:
            return 0
        place = (index, cpu if self._per_cpu else 0)
        if place not in self._values:
            self._values[place] = self._memory.allocate(PRIVATE if self._per_cpu else SHARED, self._spec.value_size)
        return self._values[place]

    def sum(self, index: int) -> int:
        """Over all CPUs."""
        found = [address for (at, _), address in self._values.items() if at == index]
        return sum(self._memory.load(address, 8) for address in found)


class Hash:
    """A hash map with preallocated elements; one that is LRU evicts the element least recently used."""

    def __init__(self, memory: Memory, spec: Spec, entries: int) -> None:
        self._memory, self.spec = memory, spec
        self._lru = spec.type == "BPF_MAP_TYPE_LRU_HASH"
        self._free = [memory.allocate(SHARED, spec.value_size) for _ in range(entries)]
        self._linked: dict[bytes, int] = {}
        self.refusals: list[int] = []
        """Numbers of errors that the next updates and deletions end with: a bucket's lock is held by this CPU."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        return tuple(self._linked)

    def lookup(self, key: bytes, cpu: int = 0) -> int:
        """Address of the value, 0 for none."""
        address = self._linked.pop(key, 0)
        if address:
            self._linked[key] = address  # the one used last
        return address

    def get(self, key: bytes) -> bytes | None:
        """A copy of the value at one moment."""
        address = self._linked.get(key)
        return None if address is None else self._memory.read(address, self.spec.value_size)

    def update(self, key: bytes, value: bytes, flags: int) -> Steps:
        """Stops where other programs may run in between."""
        if self.refusals:
            return -self.refusals.pop()
        if not self._free and self._lru and self._linked:
            self.evict(next(iter(self._linked)))
        if not self._free:
            return -errno.E2BIG
        address = self._free.pop()
        half = len(value) // 16 * 8
        into = self._memory.view(address, self.spec.value_size)
        for start, end in ((0, 8), (8, half), (half, len(value))):
            into[start:end] = value[start:end]
            yield "copy into an element"
        if flags == BPF_NOEXIST and key in self._linked:
            self._free.append(address)
            return -errno.EEXIST
        old = self._linked.pop(key, 0)
        self._linked[key] = address
        if old:
            self._free.append(old)
        return 0

    def delete(self, key: bytes) -> int:
        if self.refusals:
            return -self.refusals.pop()
        address = self._linked.pop(key, 0)
        if not address:
            return -errno.ENOENT
        self._free.append(address)
        return 0

    def evict(self, key: bytes) -> bool:
        """Whether there was one."""
        address = self._linked.pop(key, 0)
        if address:
            self._free.append(address)
        return bool(address)


class Records:
    """The events map: a ring buffer or a perf buffer."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.full = False
