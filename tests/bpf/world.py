"""Sockets that processes use while programs watch, and what is true of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from sockpid.arch import ARCHES
from sockpid.event import event, socket_owner, socket_tuple
from sockpid.image.image import Image
from sockpid.table.layout import Layout

from .kernel import Kernel, Socket, Task
from .layouts import layout
from .machine import Cpu, Machine, finish
from .memory import Memory
from .programs import Programs
from .translate import Run


@dataclass(frozen=True)
class Owner:
    """An owner of owner_by_sock, of socket_to_pid or of an event, as far as it can be wrong."""

    sk: int
    inode: int
    tgid: int
    start_ns: int
    how: str | None
    comm: str
    users: int
    flags: int
    opener: int
    opener_how: str | None
    when_ns: int


class World:
    """A machine, its kernel, the programs, and a record of who truly used which socket."""

    def __init__(self, programs: Programs, entries: dict[str, int] | None = None, memory: Layout | None = None) -> None:
        """memory: where the kernel has what, if that is not what the programs believe."""
        image = programs.image
        self.image, self.programs, self.order = image, programs, programs.order
        self.machine = Machine(Memory(programs.order), image.maps, entries or {})
        self.kernel = Kernel(self.machine, memory or programs.layout, programs.arch.pointer_size)
        self.used: set[tuple[int, int, int]] = set()
        """(address of the struct sock, inode, tgid) of every use."""
        self._mark = "<" if programs.order == "little" else ">"

    # What processes and the kernel do. Each gives a started program, for a test to run on or to interrupt.

    def use(self, task: Task, sock: Socket, hook: str = "send", kind: str = "fentry", **settings: Any) -> Run:
        """A process does something to a socket."""
        self.used.add((sock.address, sock.inode, task.tgid))
        attached = self.programs.attach(hook, kind, **settings)
        first = sock.above if kind == "lsm" and hook != "accept" else sock.address
        typed = bool(settings.get("TASK_BTF") or settings.get("ARG_BTF"))
        return self.kernel.cpu(task, typed=typed).run(attached.program, attached.context(first, 0, 0))

    def softirq(self, hook: str, interrupted: Task, *arguments: int, kind: str = "raw_tp", **settings: Any) -> Run:
        attached = self.programs.attach(hook, kind, **settings)
        return self.kernel.cpu(interrupted, 1).run(attached.program, attached.context(*arguments))

    def retransmit(self, sock: Socket, interrupted: Task, **settings: Any) -> Run:
        return self.softirq("retransmit", interrupted, sock.address, 0, 0, **settings)

    def destroy(self, sock: Socket, task: Task) -> Run:
        return self.softirq("destroy", task, sock.address)

    def closes(self, sock: Socket, task: Task) -> Run:
        """Enters TCP_CLOSE, by the tracepoint."""
        return self.softirq("close", task, sock.address, sock.state, 7)

    def evict(self, name: str, *keys: bytes) -> Run:
        """The map takes elements for itself: what an update of a full map does."""
        for key in keys:
            self.machine.hashes[name].evict(key)
            yield "evicted"
        return 0

    # What is there to be seen.

    def key(self, sock: Socket) -> bytes:
        return sock.address.to_bytes(8, self.order)

    def owner(self, sock: Socket) -> Owner | None:
        """What owner_by_sock says, if its seal is right."""
        raw = self.machine.hashes["owner_by_sock"].get(self.key(sock))
        return None if raw is None else self.unseal(raw)

    def unseal(self, raw: bytes) -> Owner | None:
        words = struct.unpack(f"{self._mark}{len(raw) // 8}Q", raw)
        seal = socket_owner.SEAL_SEED
        for word in words[:-1]:
            seal = (seal + word) * socket_owner.SEAL_FACTOR & socket_owner.MASK
            seal ^= seal >> 32
        return self.unpack(raw) if seal == words[-1] else None

    def unpack(self, raw: bytes) -> Owner:
        f = struct.unpack_from(self._mark + event.OWNER, raw)
        pid_tgid, start, when, _cgroup, how, _flags, comm, sk, inode, users, flags = f[:11]
        opener, opener_how = f[12], f[13]
        return Owner(
            sk, inode, pid_tgid >> 32, start, event.HOW[how], event.text(comm), users, flags, opener,
            event.HOW[opener_how], when,
        )  # fmt: skip

    def public(self) -> dict[bytes, Owner | None]:
        """What socket_to_pid says; None: a value that does not hold together."""
        found: dict[bytes, Owner | None] = {}
        one = self.machine.hashes["socket_to_pid"]
        for key in one.keys:
            value = one.get(key)
            assert value is not None
            found[key] = self.unseal_public(key, value)
        return found

    def name_of(self, key: bytes) -> tuple[object, ...]:
        """What stands in a key of socket_to_pid, as in Event.name."""
        return struct.unpack(self._mark + socket_tuple.TUPLE, key)

    def unseal_public(self, key: bytes, value: bytes) -> Owner | None:
        words = struct.unpack(f"{self._mark}{len(key + value) // 8}Q", key + value)
        seal = socket_owner.SEAL_SEED
        for word in words[:-1]:
            seal = (seal + word) * socket_owner.SEAL_FACTOR & socket_owner.MASK
            seal ^= seal >> 32
        f = struct.unpack(self._mark + socket_owner.OWNER, value)
        if seal != words[-1]:
            return None
        return Owner(f[7], f[8], f[0] >> 32, f[1], event.HOW[f[4]], event.text(f[6]), f[9], f[10], 0, None, f[2])

    def events(self) -> list[Event]:
        return [self._event(raw) for raw in self.machine.events.records]

    def _event(self, raw: bytes) -> Event:
        size = struct.calcsize("=" + event.OWNER)
        f = struct.unpack(self._mark + event.EVENT[1:], raw)
        known = any(raw[24 : 24 + size])
        names = (
            "inode", "err", "seq", "end_seq", "srtt_us", "snd_cwnd", "total_retrans", "undo_marker", "type", "found",
            "state", "ca_state", "pending", "retransmits", "kern", "stale",
        )  # fmt: skip
        owner = self.unpack(raw[24:]) if known else None
        return Event(owner, f[1], f[26:34], event.text(f[-1]), dict(zip(names, f[34:-1], strict=True)))

    # What must be true, whatever came between.

    def check(self, *sockets: Socket) -> None:
        """No owner who did not use the socket; each latest process settled, or nobody."""
        for sk, raw in self._owners():
            owner = self.unseal(raw)
            assert owner is not None, "an owner is torn for good"
            assert owner.sk == sk
            assert (owner.sk, owner.inode, owner.tgid) in self.used, f"wrong owner: {owner}"
        for owner in self.public().values():
            assert owner is not None, "a public owner is torn for good"
            assert (owner.sk, owner.inode, owner.tgid) in self.used, f"wrong public owner: {owner}"
        for one in self.events():
            if one.owner is not None:
                inode = one.fields["inode"] or one.owner.inode
                assert (one.owner.sk, inode, one.owner.tgid) in self.used, f"wrong owner in an event: {one}"
        for sock in sockets:
            self.check_settled(sock)

    def _owners(self) -> list[tuple[int, bytes]]:
        one = self.machine.hashes["owner_by_sock"]
        return [(int.from_bytes(key, self.order), one.get(key) or b"") for key in one.keys]

    def settled(self, sock: Socket, task: Task) -> bool:
        """Whether the word stands for this process: its next use takes the short way."""
        mask = (1 << 64) - 1
        spread = socket_owner.SEAL_SEED
        place = (sock.address * spread & mask) >> 32 & self.programs.settled_mask
        at = self.machine.arrays["settled"].lookup(place.to_bytes(4, self.order), 0)
        word = ((sock.address ^ task.start_ns) * spread & mask ^ task.tgid) * socket_owner.SEAL_FACTOR & mask
        return word >> 8 == self.machine.memory.load(at, 8) >> 8

    def check_settled(self, sock: Socket) -> None:
        owner = self.owner(sock)
        for task in self.tasks:
            if self.settled(sock, task) and owner is not None and owner.inode == sock.inode:
                assert owner.tgid == task.tgid, f"settled for {task}, and the owner is {owner}"

    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Event:
    """A record. name: the tuple's members."""

    owner: Owner | None
    sk: int
    name: tuple[object, ...]
    ulp: str
    fields: dict[str, int]


def programs_of(image: Image, arch: str, seed: int = 1, **options: Any) -> Programs:
    found = ARCHES[arch]
    return Programs(image, found, layout(image, found, seed, **options))


__all__ = ["Cpu", "Event", "Owner", "World", "finish", "programs_of"]
