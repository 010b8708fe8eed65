"""The probe as one thing: identify the kernel, find its offsets, load, attach, seed, and read events."""

from __future__ import annotations

import errno
import os
import struct

from sockpid import data, uapi
from sockpid.bpf.map import Map
from sockpid.errors import ImageError, OtherKernelError, SyscallError, UnknownKernelError
from sockpid.event import event, socket_owner, socket_tuple
from sockpid.event.socket_owner import SocketOwner
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel
from sockpid.host.wall_clock import WallClock
from sockpid.image import hooks, image
from sockpid.image.digests import CONTENT
from sockpid.offsets import offsets
from sockpid.offsets.source import Offsets, function_ids

from .collection import Collection, Options
from .eviction import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Mapping, Optional

    from .seed import Seeds

    Inherit = Callable[[kernel.Identity, image.Image, Offsets, Options], Mapping[str, Map]]

# enum counter (bpf_bytecode/sockpid.h)
COUNTER_EVENTS = 0
COUNTER_LOST = 1
COUNTER_DELETED = 3


def find_offsets(
    options: Options, loaded: image.Image, identity: kernel.Identity, offsets_path: Optional[str]
) -> Offsets:
    """The offsets for this kernel; where nothing tells them, and no file was named, by way of options.prove."""
    try:
        return offsets.find(loaded, identity, offsets_path, options.deny)
    except OtherKernelError:
        raise
    except UnknownKernelError as unknown:
        if options.prove is None:
            raise
        return options.prove(options, loaded, identity, unknown)


class Tracer:
    """An attached probe. Iterate with `events`; end with close() or `with`."""

    def __init__(self, identity: kernel.Identity, found: Offsets, collection: Collection) -> None:
        self.kernel = identity
        self.offsets = found
        self.collection = collection
        self.seeds: Optional[Seeds] = None
        """None until seed() has looked."""
        self.delivered = 0
        attached = {a.hook.name: a for a in collection.hooks}
        send = attached["send"].target
        self.sees_mptcp = attached["mptcp"].link is not None or (send is not None and send.general)
        self._wall_clock = WallClock()
        self._silent = False
        self.misses = 0
        """Runs of hooks that learn owners that were passed over since we attached, as far as looked at."""
        # Hooks come one after another: who connected when the first of them was there may have handed the socket on
        # before the last one was.
        self.missed_at_ns = kernel.monotonic_ns()
        """CLOCK_MONOTONIC: what was learnt before may be outdated, for a run of a hook that learns was passed over."""
        collection.unsettle()
        self.own: List[SocketTuple] = []
        """Sockets of our own, which the kernel may still have raised events for."""
        self.ready_ns = kernel.monotonic_ns()
        """CLOCK_MONOTONIC: all hooks are up, and the sockets there were are listed, if they are to be."""
        self.is_blind = False
        """A hook that learns owners is known not to fire any more."""
        self.inherited_at_ns = kernel.monotonic_ns() if collection.base else 0
        """CLOCK_MONOTONIC, when the owners of an instance before were taken over; 0: there were none."""
        self._room = Room(collection)
        self._reader = collection.reader

    @classmethod
    def open(cls, options: Options, offsets_path: Optional[str] = None, inherit: Optional[Inherit] = None) -> Tracer:
        """Attaches the probe to the running kernel. Raises the errors of every step, leaving nothing behind.

        inherit: gives maps to go on with, of an instance before.
        """
        identity = kernel.identify()
        loaded = load_image(identity.arch.byte_order)
        found = find_offsets(options, loaded, identity, offsets_path)
        given = inherit(identity, loaded, found, options) if inherit is not None else {}
        return cls.open_with(options, identity, loaded, found, given)

    @classmethod
    def open_with(
        cls,
        options: Options,
        identity: kernel.Identity,
        loaded: image.Image,
        found: Offsets,
        given: Optional[Mapping[str, Map]] = None,
    ) -> Tracer:
        """The same with given offsets, and maps."""
        collection = Collection.attach(loaded, found, options, given=given)
        try:
            # The BTF ids have served; with them goes the kernel's whole BTF, where it was the source.
            ids = {name: found.btf_id(name) for name in hooks.functions()} if found.is_new else {}
            return cls(identity, found._replace(btf_id=function_ids(ids, None)), collection)
        except BaseException:
            collection.close()
            raise

    def seed(self) -> List[str]:
        """Finds the owners of the sockets that exist already, for events and for socket_to_pid. Returns warnings.

        Not for socket_to_pid where closed sockets cannot be forgotten: a stale seed would be a wrong owner.
        """
        from . import seed

        owners = self.collection.maps["socket_to_pid"]

        def update(key: bytes, value: bytes) -> bool:
            try:
                owners.update(key, value, uapi.BPF_NOEXIST)
            except SyscallError as error:
                if error.errno == errno.EEXIST:
                    return False
                raise
            return True

        def remove(key: bytes) -> None:
            found = socket_owner.find(owners.lookup, key)
            if found is not None and not found.sk:
                owners.delete(key)

        ends = self.collection.mechanisms()["close"] is not None
        result = seed.seed(update if ends else None, remove, owners.spec.max_entries // 2)
        self.seeds, self.ready_ns = result.seeds, kernel.monotonic_ns()
        if ends:
            return result.warnings
        return [*result.warnings, "socket_to_pid gets no older sockets: nothing tells when one of them is closed"]

    def events(self, timeout: float) -> List[event.Event]:
        """What arrived within `timeout` seconds, oldest first; returns as soon as there is something."""
        self._room.make()
        if not self._reader.wait(timeout):
            return []
        records = self._reader.drain()
        self.watch_misses()
        return self._decoded(records)

    def watch_misses(self) -> None:
        """Looks how many runs of hooks that learn owners were passed over.

        To be done before what was drained is told: an owner that was not seen to use the socket since the last of
        these may be another by now. The next use of every socket is looked at in full.
        """
        misses = self.collection.misses()
        if misses > self.misses or self.is_blind:
            self.misses, self.missed_at_ns = misses, kernel.monotonic_ns()
            self.collection.unsettle()

    def finish(self) -> List[event.Event]:
        """Ends the raising of events; returns those that are left."""
        self.collection.silence()
        self._silent = True
        records = self._reader.drain(last=True)
        self.watch_misses()
        return self._decoded(records)

    def _decoded(self, records: List[bytes]) -> List[event.Event]:
        self.delivered += len(records)
        # To be decoded is what costs: of most events nothing has to be known here but that their owner is.
        inode_of, old = event.INODE.unpack_from, self.seeds.inodes() if self.seeds is not None else frozenset()
        found: List[event.Event] = []
        for record in records:
            seen = event.decode(record)
            if not record[event.FOUND_AT] or inode_of(record, event.INODE_AT)[0] in old:
                seen = self.resolve(seen)
            found.append(seen)
        return found if self.sees_mptcp else [self._unless_mptcp(seen) for seen in found]

    def _unless_mptcp(self, seen: event.Event) -> event.Event:
        """Where nobody sees who uses an MPTCP socket, the process that connected it may not be its owner any more."""
        return seen._replace(owner=None, first=None, found=None) if seen.ulp == "mptcp" else seen

    def name_of(self, pid: int, start_ns: int) -> Optional[str]:
        """What a process was called after it executed a program while the probe ran, or None."""
        executed = self.executed(pid)
        return executed.comm if executed is not None and executed.start_ns == start_ns else None

    def executed(self, pid: int) -> Optional[event.Executed]:
        """The latest program that a process with this id executed while the probe ran, or None."""
        value = self.collection.maps["exec_names"].lookup(struct.pack("=I", pid))
        if value is None:
            return None
        start_ns, when_ns, comm = struct.unpack(event.EXEC_NAME, value)
        return event.Executed(start_ns, when_ns, event.text(comm))

    def resolve(self, seen: event.Event) -> event.Event:
        """The event with what is known of its socket from before the probe: its owner, if it was not seen in use since,
        and else how many had it open."""
        if seen.tuple.family not in socket_tuple.FAMILY.values():  # it is read wrong, which the self-check tells
            return seen
        if self.seeds is None or seen.kern or (seen.ulp == "mptcp" and not self.sees_mptcp):
            return seen
        if seen.owner is not None:
            users = self.seeds.users(seen)
            return seen._replace(users=users) if users > seen.users else seen
        found = self.seeds.find(seen.inode, seen.tuple, self.public)
        if found is None:
            return seen
        by = "inode" if seen.inode else "tuple"
        return seen._replace(owner=found.owner, first=None, users=len(found.holders), found=by)

    def json(self, value: event.Event) -> Dict[str, event.Json]:
        """The event as the documented object, with the wall clock of now."""
        return value.json(
            self._wall_clock.offset(), self.offsets.origin, self.reason(value) if value.owner is None else None
        )

    def reason(self, value: event.Event) -> str:
        """Why the owner of an event is not known: "no-hook", "missed", "older-than-probe", "evicted", "lent" or
        "kernel-socket"."""
        if value.kern and value.ulp != "mptcp":  # the kernel opens MPTCP's subflows, too, for processes
            return "kernel-socket"
        if value.lent:
            return "lent"
        if not self.collection.learns():
            return "no-hook"
        if value.ts_ns <= self.ready_ns or (self.seeds is not None and self.seeds.listed(value.inode, value.tuple)):
            return "older-than-probe"
        if self._room.evicted(value.ts_ns):
            return "evicted"
        if self.seeds is None:
            return "older-than-probe"
        return "missed" if self.misses else "no-hook"

    def evicted(self) -> int:
        """How many living sockets have lost their owner for want of room so far."""
        return self._room.evicted()

    def is_public_full(self) -> bool:
        """May socket_to_pid have evicted living sockets?"""
        return self._room.is_public_full()

    def living(self) -> int:
        """How many sockets the maps should have had room for."""
        return self._room.living()

    def knows(self, sk: int, inode: int) -> bool:
        """Is there an owner of the socket with this address and this inode?"""
        value = self.collection.maps["owner_by_sock"].lookup(struct.pack("=Q", sk))
        return value is not None and event.INODE.unpack_from(value, event.OWNER_INODE_AT) == (inode,)

    def forgotten(self) -> int:
        """How many owners were taken out at their socket's end."""
        return self.collection.counter(COUNTER_DELETED)

    def forget(self, sk: int) -> None:
        """Takes a socket's owner out, as if for want of room."""
        self._room.forget(sk.to_bytes(8, self.kernel.arch.byte_order))  # type: ignore[arg-type]

    def lost(self) -> int:
        """Events that found no room.

        Before Linux 5.1 a program is not told that its perf buffer is full; the reader is, with the next record that
        fits. What was lost behind the last one shows only after finish(), as missing.
        """
        told = max(self._since(COUNTER_LOST), self._reader.lost())
        return max(told, self.raised() - self.delivered) if self._silent else told

    def raised(self) -> int:
        """Events that the programs raised, those lost among them."""
        return self._since(COUNTER_EVENTS)

    def _since(self, counter: int) -> int:
        """Counted since we attached."""
        return self.collection.counter(counter) - self.collection.base.get(counter, 0)

    def inherited(self) -> List[event.Event]:
        """What the instance before us raised and did not read."""
        return [event.decode(record) for record in self.collection.inherited]

    def owner_of(self, key: SocketTuple) -> Optional[event.Process]:
        """Who used a socket last, as the socket_to_pid map says."""
        found = self.public(key)
        return found.latest if found is not None else None

    def public(self, key: SocketTuple) -> Optional[SocketOwner]:
        """What the socket_to_pid map says of a socket."""
        return socket_owner.find(self.collection.maps["socket_to_pid"].lookup, socket_tuple.pack(key))

    def ended_ns(self, pid: int, start_ns: int) -> Optional[int]:
        """When the first thread of a process was seen to end, CLOCK_MONOTONIC. None if it was not."""
        value = self.collection.maps["exited"].lookup(struct.pack(event.EXITED, start_ns, pid, 0))
        return int(struct.unpack("=Q", value)[0]) if value is not None else None

    def close(self) -> None:
        self.collection.close()

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_image(byte_order: str) -> image.Image:
    """The bytecode image for this byte order, the one that this code was made with. Raises ImageError."""
    path = f"bpf_bytecode/{image.file_name(byte_order)}"
    content = data.read(path)
    if content is None:
        raise ImageError(f"{path} is missing from this installation")
    loaded = image.parse_image(content, os.path.basename(path))
    if loaded.byte_order != byte_order:
        raise ImageError(f"{path} holds a {loaded.byte_order}-endian image")
    if loaded.content != CONTENT[byte_order]:
        raise ImageError(f"{path} is not the image that this sockpid was made with: {loaded.content[:16]}")
    return loaded
