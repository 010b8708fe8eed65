"""Owners of sockets that are older than the probe: whose they are, asked once when it starts.

The probe learns an owner when a process calls into TCP. A socket that was opened before and is idle, or that the kernel
alone still works on, has not been seen to. The kernel lists the sockets there are, with inode numbers; /proc/PID/fd
says which processes have these open; both together are the seeds. Attach first, seed then: no socket falls between the
two.

A seed is bound to the socket's inode, which no other socket has while that one lives. Its addresses and ports others
may have at the same time (SO_REUSEPORT; another device) or later.
"""

from __future__ import annotations

from sockpid.event import event, socket_owner, socket_tuple
from sockpid.event.socket_owner import SocketOwner
from sockpid.host import descriptors, proc
from sockpid.host.inet_sock import TCP_LISTEN, InetSock, is_link_local
from sockpid.host.sight import Sight
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import AbstractSet, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Tuple

    from sockpid.event.socket_tuple import SocketTuple
    from sockpid.host.descriptors import Holders

    Update = Callable[[bytes, bytes], bool]
    """Inserts key and value into socket_to_pid with BPF_NOEXIST; False if the key is there already."""

    Remove = Callable[[bytes], None]
    """Takes a key out of socket_to_pid, unless the probe itself has written it by now."""

SEVERAL = -1
"""In place of an inode, where several sockets were listed under one name."""

# Of a key, see socket_tuple.TUPLE.
NETNS, SPORT, DPORT, BEHIND_DEVICE = slice(0, 4), slice(10, 12), slice(12, 14), slice(8, None)


class Seeded(NamedTuple):
    """A socket that is older than the probe. owner: the oldest of its holders, how "seed", its process's first thread,
    and its start to the clock tick. holders: all who had it open, the oldest first. listed_ns: when, CLOCK_MONOTONIC.
    """

    owner: event.Process
    holders: Holders
    listed_ns: int
    inode: int


class Seeds:
    """What was found at the start, by inode and by name. Whether a holder still is one, /proc must be asked."""

    def __init__(
        self, listed: Iterable[InetSock] = (), holders: Optional[Mapping[int, Holders]] = None, listed_ns: int = 0
    ) -> None:
        self._listed_ns = listed_ns
        self._keys: Dict[int, bytes] = {}
        self._inodes: Dict[bytes, int] = {}
        self._holders: Dict[int, Holders] = {}
        self._owners: Dict[proc.Holder, event.Process] = {}
        self._without_devices: Set[int] = set()
        """Namespaces of whose sockets it is not known what device they are bound to."""
        self.add(listed, holders or {})

    def add(self, listed: Iterable[InetSock], holders: Mapping[int, Holders], again: bool = False) -> None:
        """again: what was listed a moment later. While sockets come and go, a listing may pass one over; and who has
        closed a socket meanwhile has taken its inode, not the socket."""
        for sock in listed:
            if not sock.device_told:
                self._without_devices.add(sock.tuple.netns)
            before = self._inodes.get(sock.key, sock.inode)
            if sock.inode == before:
                self._inodes[sock.key] = before
            elif sock.inode or not again:
                self._inodes[sock.key] = SEVERAL
            if sock.inode:
                self._keys[sock.inode] = sock.key
                by = holders.get(sock.inode)
                if by:
                    self._holders[sock.inode] = by

    def __len__(self) -> int:
        """How many sockets have an owner."""
        return len(self._holders)

    def by_inode(self, inode: int, named: Optional[SocketTuple] = None) -> Optional[Seeded]:
        """The socket with this inode. named: what it is called now; for a SYN-ACK, the connection that is to be.

        Inode numbers begin anew after 2^32 of them; so who knows the name gives it.
        """
        holders = self._holders.get(inode)
        if not holders or (named is not None and not self._is_named(inode, socket_tuple.pack(named))):
            return None
        return Seeded(self._owner(holders[0]), holders, self._listed_ns, inode)

    def by_tuple(self, named: SocketTuple) -> Optional[Seeded]:
        """The socket that was listed under this name, if it was one alone.

        A later one may be called the same: that the named one is not such, the caller must know.
        """
        return self.by_inode(self._inode_of(named) or 0)

    def find(
        self, inode: int, named: SocketTuple, public: Callable[[SocketTuple], Optional[SocketOwner]]
    ) -> Optional[Seeded]:
        """The socket of an event. public: what socket_to_pid says of a name now.

        A socket that nobody has open any more has no inode. It is the one that was listed under its name while the
        entry that was made for that one is there: it goes when the socket is closed, or another one is used.
        """
        if inode:
            return self.by_inode(inode, named)
        found = self.by_tuple(named)
        if found is None:
            return None
        entry = public(named)
        return found if entry is not None and not entry.sk and entry.inode == found.inode else None

    def inodes(self) -> AbstractSet[int]:
        """Of sockets whose holders are known."""
        return self._holders.keys()

    def users(self, seen: event.Event) -> int:
        """How many processes an event's socket has had, at least: those seen to use it, and those that held it at the
        start."""
        found = self.by_inode(seen.inode, seen.tuple)
        if found is None:
            return seen.users
        known = {(one.pid, proc.ticks_of(one.start_ns)) for one in (seen.owner, seen.first) if one is not None}
        held = {
            (holder.pid, holder.start_ticks)
            for holder in found.holders
            if not any(pid == holder.pid and 0 <= holder.start_ticks - ticks <= 1 for pid, ticks in known)
        }
        return max(seen.users, len(known) + len(held))

    def listed(self, inode: int, named: SocketTuple) -> bool:
        """Was this socket there at the start, whether or not an owner was found? inode: 0 if nobody has it open."""
        if inode:
            return self._is_named(inode, socket_tuple.pack(named))
        return self._inode_of(named) is not None

    def _owner(self, oldest: proc.Holder) -> event.Process:
        known = self._owners.get(oldest)
        if known is None:
            known = self._owners[oldest] = process(oldest, self._listed_ns)
        return known

    def _is_named(self, inode: int, key: bytes) -> bool:
        """Is it a name of the listed socket with this inode? Its device may have been set later."""
        known = self._keys.get(inode)
        if known is None or known[NETNS] != key[NETNS]:
            return False
        of = BEHIND_DEVICE if any(known[DPORT]) else SPORT  # one that listens has many connections
        return known[of] == key[of]

    def _inode_of(self, named: SocketTuple) -> Optional[int]:
        """What was listed under a name: an inode, 0 if nobody had it open, or SEVERAL; None: nothing was."""
        found = self._inodes.get(socket_tuple.pack(named))
        if found is None and named.netns in self._without_devices:
            found = self._inodes.get(socket_tuple.pack(named._replace(ifindex=0)))
        return found


class SeedResult(NamedTuple):
    """seeds: for events. published: how many of them socket_to_pid got. warnings: what others should know, a line
    each."""

    seeds: Seeds
    published: int
    warnings: List[str]


def seed(update: Optional[Update], remove: Remove, room: int) -> SeedResult:
    """Finds the owner of every TCP socket in every network namespace, and gives `update` those that it can have.

    update: None where nothing tells of the end of a socket, so that socket_to_pid would keep it. It has room for so
    many: an LRU map that is filled further evicts what the probe has learnt. Raises what `update` raises.

    Outside the initial pid namespace nothing is seeded: the ids in /proc are not the kernel's there.
    """
    if not proc.in_initial_pid_namespace():
        return SeedResult(Seeds(), 0, ["sockets older than the probe stay unknown: not in the initial pid namespace"])
    warnings: List[str] = []
    missing = descriptors.missing_capabilities()
    if missing:
        warnings.append(
            f"sockets of other users that are older than the probe may stay unknown: needs {' and '.join(missing)}"
        )
    published = 0
    with Sight() as sight:
        listed = sight.sockets()
        seeds = Seeds(listed, sight.opened.holders, sight.looked_ns)
        warnings += sight.warnings()
        if update is not None:
            public = sorted(_public(seeds, listed))
            if len(public) > room:
                warnings.append(_too_many(len(public), room))
            made = {key: inode for _, _, key, inode, value in public[:room] if update(key, value)}
            there = sight.sockets() if made else []
            seeds.add(there, sight.opened.holders, again=True)
            published = len(made) - _take_back(made, there, remove)
    return SeedResult(seeds, published, warnings)


def _public(seeds: Seeds, listed: Iterable[InetSock]) -> Iterator[Tuple[bool, int, bytes, int, bytes]]:
    """Entries for socket_to_pid: whether it does not listen, its owner's start, key, inode, value.

    Not where several sockets have one name, nor where the name is not known whole.
    """
    for sock in listed:
        if not sock.device_told and is_link_local(sock.tuple.saddr):
            continue
        found = seeds.by_tuple(sock.tuple)
        if found is not None:
            value = SocketOwner(found.owner, 0, found.inode, len(found.holders), socket_owner.LATE)
            packed = socket_owner.pack(sock.key, value)
            yield sock.state != TCP_LISTEN, found.owner.start_ns, sock.key, found.inode, packed


def _take_back(made: Mapping[bytes, int], there: Iterable[InetSock], remove: Remove) -> int:
    """Removes entries of sockets that are not there any more; of the others the probe sees the end. How many.

    A socket that was closed between being listed and being entered would leave its entry behind for the next one with
    its addresses and ports. So they were listed again. Without an inode it is there, too: the kernel still works on it.
    """
    still = {(sock.key, sock.inode) for sock in there}
    gone = [key for key, inode in made.items() if (key, inode) not in still and (key, 0) not in still]
    for key in gone:
        remove(key)
    return len(gone)


def _too_many(wanted: int, room: int) -> str:
    enough = 1 << (2 * wanted - 1).bit_length()  # `room` is a half
    return (
        f"{wanted - room} of {wanted} sockets older than the probe are missing in socket_to_pid, and will be in events "
        f"once nobody has them open: --max-sockets {enough} has room for them"
    )


def process(holder: proc.Holder, when_ns: int) -> event.Process:
    """A holder as an owner: how "seed", the process's first thread, and its start to the clock tick. when_ns: now."""
    return event.Process(
        pid=holder.pid,
        tid=holder.pid,
        start_ns=proc.ns_of(holder.start_ticks),
        when_ns=when_ns,
        cgroup_id=0,
        how="seed",
        flags=0,
        comm=holder.comm,
    )
