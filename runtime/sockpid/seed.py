"""Owners of sockets that are older than the probe: whose they are, asked once when it starts.

The probe learns an owner when a process calls into TCP. A socket that was opened before and is idle, or that the kernel
alone still works on, has not been seen to. The kernel lists the sockets there are, with inode numbers; /proc/PID/fd
says which processes have these open; both together fill socket_to_pid. What the probe has learnt by then is the better
knowledge, so nothing is overwritten. Attach first, seed then: no socket falls between the two.
"""

from __future__ import annotations

import struct
import time

from . import event, kernel, netns, proc, proc_net, sock_diag
from .inet_sock import TCP_LISTEN, TCP_SYN_RECV, InetSock
from .named import NamedTuple
from .socket_tuple import SocketTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, FrozenSet, Iterable, Iterator, List, Mapping, Optional

    Source = Callable[[netns.Namespace], Iterable[InetSock]]
    Update = Callable[[bytes, bytes], bool]
    """Inserts key and value into socket_to_pid with BPF_NOEXIST; False if the key is there already."""

    Remove = Callable[[bytes], None]
    """Takes a key out of socket_to_pid, unless the probe itself has written it by now."""

CAP_SYS_PTRACE = 19  # include/uapi/linux/capability.h
PROCESS = "=" + event.PROCESS
SLOW_SECONDS = 1.0
"""Most hosts have no pyroute2 and read /proc/net/tcp in some milliseconds: no word of it, unless it takes so long."""

NUMBER_OF_HOW = {name: number for number, name in event.HOW.items() if name}


class Owned(NamedTuple):
    """A socket with its owner, the oldest of its holders: it opened the socket or got it first."""

    sock: InetSock
    owner: event.Process
    holders: List[proc.Holder]


class Owners(NamedTuple):
    """What owners() found. orphans: sockets that no process has open - closed but not yet done, not yet accepted, of
    the kernel itself, or held where we cannot look."""

    owned: List[Owned]
    orphans: FrozenSet[SocketTuple]


class SeedResult(NamedTuple):
    """seeded: entries made. orphans: see Owners. shared: how many processes have a seeded socket open, where it is more
    than one. warnings: what could not be read, a line each."""

    seeded: int
    orphans: FrozenSet[SocketTuple]
    shared: Mapping[SocketTuple, int]
    warnings: List[str]


def seed(update: Update, remove: Remove, room: Optional[int] = None) -> SeedResult:
    """Gives `update` the owner of every TCP socket in every network namespace. Raises what `update` raises.

    A socket that was closed between being listed and being entered would leave its entry behind for the next one with
    its addresses and ports. So they are listed again, and entries of sockets that are not there are given to `remove`;
    of those that are still there the probe sees the end.

    room: how many entries to make at most, listening sockets first: an LRU map that is filled further evicts what the
    probe has learnt. Outside the initial pid namespace nothing is seeded: the ids in /proc are not the kernel's there.
    """
    if not proc.in_initial_pid_namespace():
        reason = "sockets older than the probe stay unknown: not in the initial pid namespace"
        return SeedResult(0, frozenset(), {}, [reason])
    warnings: List[str] = []
    if not kernel.effective_capabilities() >> CAP_SYS_PTRACE & 1:
        warnings.append("sockets of other users that are older than the probe stay unknown: needs CAP_SYS_PTRACE")
    found = owners(tcp_sockets(warnings))
    # Sockets that listen on one port (SO_REUSEPORT) have one key: the oldest process gets it.
    owned = sorted(found.owned, key=lambda o: (o.sock.state != TCP_LISTEN, o.owner.start_ns, o.owner.pid))
    if room is not None and len(owned) > room:
        warnings.append(
            f"{len(owned) - room} sockets older than the probe stay unknown: more than {room}; --max-sockets"
        )
        owned = owned[:room]
    made = {o.sock.key: o for o in owned if update(o.sock.key, pack_process(o.owner))}
    there = {sock.key: sock.inode for sock in tcp_sockets([])} if made else {}
    for key in [key for key, o in made.items() if there.get(key) != o.sock.inode]:
        remove(key)
        del made[key]
    shared = {o.sock.tuple: len(o.holders) for o in made.values() if len(o.holders) > 1}
    return SeedResult(len(made), found.orphans, shared, warnings)


def tcp_sockets(warnings: List[str]) -> Iterator[InetSock]:
    """The TCP sockets of all network namespaces. A namespace that cannot be read becomes a line in `warnings`.

    From sock_diag where pyroute2 and the kernel have it, else from /proc/net/tcp, which costs more where many sockets
    are in TIME_WAIT and is otherwise as good. A socket in SYN_RECV is a request that the listening socket answers for,
    unless a file belongs to it.
    """
    sources: List[Source] = [sock_diag.tcp, proc_net.tcp]
    told, started = len(warnings), time.monotonic()
    for namespace in netns.find():
        for sock in _read(namespace, sources, warnings):
            if sock.inode or sock.state != TCP_SYN_RECV:
                yield sock
    took = time.monotonic() - started
    if len(sources) == 1 and len(warnings) == told and took >= SLOW_SECONDS:
        warnings.append(f"to list the sockets that were there took {took:.1f} s; it takes less with pyroute2 installed")


def _read(namespace: netns.Namespace, sources: List[Source], warnings: List[str]) -> List[InetSock]:
    """The sockets of a namespace, from the first source that gives them. One that does not is taken off the list."""
    while True:
        try:
            return list(sources[0](namespace))
        except (ImportError, OSError) as error:
            if len(sources) == 1 or isinstance(error, ProcessLookupError):
                warnings.append(f"network namespace {namespace.inode} cannot be read: {error}")
                return []
            del sources[0]
            if not isinstance(error, ModuleNotFoundError) or error.name != "pyroute2":
                warnings.append(f"sockets are listed by /proc/net/tcp, which is as good but slower: {error}")


def owners(socks: Iterable[InetSock]) -> Owners:
    """Finds who has these sockets open, in one pass over the descriptors of all processes."""
    listed = list(socks)
    held = proc.holders({sock.inode for sock in listed if sock.inode})
    now = time.monotonic_ns()
    processes = {oldest: process(oldest, now) for oldest in {by[0] for by in held.values()}}
    owned: List[Owned] = []
    orphans: List[SocketTuple] = []
    for sock in listed:
        by = held.get(sock.inode)
        if by:
            owned.append(Owned(sock, processes[by[0]], by))
        else:
            orphans.append(sock.tuple)
    return Owners(owned, frozenset(orphans))


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


def pack_process(value: event.Process) -> bytes:
    """The struct process of a value: what socket_to_pid holds. The name is cut to 15 bytes, as the kernel does."""
    return struct.pack(
        PROCESS,
        value.pid << 32 | value.tid,
        value.start_ns,
        value.when_ns,
        value.cgroup_id,
        NUMBER_OF_HOW.get(value.how or "", 0),
        value.flags,
        value.comm.encode()[:15],
    )
