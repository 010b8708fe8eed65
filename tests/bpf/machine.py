"""What a running program has around it: memory it may touch, maps, and the kernel's helpers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from sockpid import uapi
from sockpid.image.image import Map as Spec

from .maps import Array, Hash, Records, Steps
from .memory import CONTEXTS, PAGE_BITS, SHARED, STACKS, Fault, Memory
from .translate import STACK, Program, Run

U64 = (1 << 64) - 1
MAP_POINTERS = 1 << 40
"""What a program holds of a map: no memory."""
WRITTEN_IN_PLACE = {"settled", "counters", "counts"}
JUNK = 0xA5
"""What a stack holds at first."""


class Machine:
    """Memory, maps and a clock, shared by all programs that run. entries: of hash maps, by name."""

    def __init__(self, memory: Memory, specs: Mapping[str, Spec], entries: Mapping[str, int]) -> None:
        self.memory = memory
        self.names = sorted(specs)
        self.now = 1_000_000_000
        self.arrays: dict[str, Array] = {}
        self.hashes: dict[str, Hash] = {}
        self.events = Records()
        self.stops_at_reads = False
        self.writable: set[int] = set()
        """Pages of values that programs may write in place."""
        for name, spec in specs.items():
            if spec.type in ("BPF_MAP_TYPE_ARRAY", "BPF_MAP_TYPE_PERCPU_ARRAY"):
                self.arrays[name] = Array(memory, spec)
            elif spec.type in ("BPF_MAP_TYPE_LRU_HASH", "BPF_MAP_TYPE_HASH"):
                self.hashes[name] = Hash(memory, spec, entries.get(name, 16))

    def counter(self, index: int) -> int:
        return self.arrays["counters"].sum(index)


class Cpu:
    """One run of one program: on which CPU, which task is current there.

    typed: the verifier knows types of the kernel here, so that the program may load from its memory; a load that
    faults gives 0.
    """

    def __init__(self, machine: Machine, task: int, pid_tgid: int, number: int = 0, typed: bool = False) -> None:
        self.machine, self.number, self.typed = machine, number, typed
        self.task, self.pid_tgid = task, pid_tgid
        memory = machine.memory
        self._memory = memory
        self.stack = memory.allocate(STACKS, STACK)
        memory.view(self.stack, STACK)[:] = bytes([JUNK]) * STACK
        self._delayed: list[tuple[int, int, int]] = []
        """Stores that other CPUs do not see yet: until an atomic operation, a lock, or the end."""
        self.own_stack = memory.pages[self.stack >> PAGE_BITS]
        self.stops_at_reads = machine.stops_at_reads
        f = uapi.BPF_FUNC
        self.call: dict[int, Callable[..., Any]] = {
            f["bpf_map_lookup_elem"]: self._lookup,
            f["bpf_map_update_elem"]: self._update,
            f["bpf_map_delete_elem"]: self._delete,
            f["bpf_probe_read"]: self._probe_read,
            f["bpf_probe_read_kernel"]: self._probe_read,
            f["bpf_ktime_get_ns"]: self._ktime,
            f["bpf_get_current_pid_tgid"]: lambda *_: self.pid_tgid,
            f["bpf_get_current_task"]: lambda *_: self.task,
            f["bpf_get_current_task_btf"]: lambda *_: self.task,
            f["bpf_get_current_cgroup_id"]: lambda *_: 4711,
            f["bpf_ringbuf_output"]: lambda _, data, size, *__: self._output(data, size),
            f["bpf_perf_event_output"]: lambda _, __, ___, data, size: self._output(data, size),
        }

    def run(self, program: Program, context: bytes) -> Run:
        """A started program; its context is gone with it."""
        at = self._memory.allocate(CONTEXTS, len(context))
        self._memory.view(at, len(context))[:] = context
        return self._run(program(self, at, self.stack + STACK))

    def _run(self, program: Run) -> Run:
        result = yield from program
        self._drain()
        return result

    def map_address(self, fd: int) -> int:
        return MAP_POINTERS + fd

    def _name(self, pointer: int) -> str:
        return self.machine.names[pointer - MAP_POINTERS]

    def is_hash(self, pointer: int) -> bool:
        return self._name(pointer) in self.machine.hashes

    def load(self, at: int, size: int) -> int:
        if at < STACKS:
            if not self.typed:
                raise Fault(f"load of kernel memory at {at:#x}")
            try:
                return self._memory.load(at, size)
            except Fault:
                return 0
        for where, _, value in reversed(self._delayed):
            if where == at:
                return value
        return self._memory.load(at, size)

    def store(self, at: int, size: int, value: int) -> None:
        if at < STACKS or CONTEXTS <= at < CONTEXTS + (1 << 32):
            raise Fault(f"store to {at:#x}")
        if at >= SHARED and (at >> PAGE_BITS) not in self.machine.writable:
            raise Fault("a value of a hash map was written in place")
        if at >= SHARED:
            self._delayed.append((at, size, value))
        else:
            self._memory.store(at, size, value)

    def add(self, at: int, size: int, value: int) -> None:
        """Atomically; what was stored before is seen by all then."""
        self._drain()
        self.store(at, size, self.load(at, size) + value)
        self._drain()

    def _drain(self) -> None:
        for at, size, value in self._delayed:
            self._memory.store(at, size, value)
        self._delayed.clear()

    def _stack(self, at: int, size: int) -> bytes:
        """What a helper is given: of the stack alone, before Linux 4.14."""
        if at >> PAGE_BITS != self.stack >> PAGE_BITS:
            raise Fault(f"a helper was given {at:#x}, which is not of the stack")
        return self._memory.read(at, size)

    def _lookup(self, pointer: int, key: int, *_: object) -> int:
        name = self._name(pointer)
        if name in self.machine.arrays:
            found = self.machine.arrays[name].lookup(self._stack(key, 4), self.number)
        else:
            one = self.machine.hashes[name]
            found = one.lookup(self._stack(key, one.spec.key_size))
        if name in WRITTEN_IN_PLACE:
            self.machine.writable.add(found >> PAGE_BITS)
        return found

    def _update(self, pointer: int, key: int, value: int, flags: int, *_: object) -> Steps:
        self._drain()
        one = self.machine.hashes[self._name(pointer)]
        spec = one.spec
        return (
            yield from one.update(self._stack(key, spec.key_size), self._stack(value, spec.value_size), flags)
        ) & U64

    def _delete(self, pointer: int, key: int, *_: object) -> int:
        self._drain()
        one = self.machine.hashes[self._name(pointer)]
        return one.delete(self._stack(key, one.spec.key_size)) & U64

    def _probe_read(self, into: int, size: int, source: int, *_: object) -> int:
        self._stack(into, size)
        target = self._memory.view(into, size)
        try:
            if source >= STACKS:
                raise Fault("not of the kernel's structs")
            target[:] = self._memory.read(source, size)
        except Fault:
            target[:] = bytes(size)
            return -errno.EFAULT & U64
        return 0

    def _ktime(self, *_: object) -> int:
        self.machine.now += 1
        return self.machine.now

    def _output(self, data: int, size: int) -> int:
        if self.machine.events.full:
            return -errno.ENOSPC & U64
        self.machine.events.records.append(self._stack(data, size))
        return 0


def finish(run: Run) -> int:
    """Runs a program to its end; what it returned."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return int(end.value)
