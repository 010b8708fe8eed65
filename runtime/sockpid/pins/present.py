"""Who has the sockets open that there are now, for `sockpid lookup`.

The map knows who used a socket; it does not know who else has it, which of several sockets of one name is meant, or
whose the ones are that were there before. /proc does, by the sockets' inodes, for who may look at all processes.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from sockpid.event import event
from sockpid.event.socket_owner import SocketOwner
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import descriptors, kernel, proc
from sockpid.host.sight import Sight
from sockpid.probe import seed


class Entry(NamedTuple):
    """A socket with its owner. sharers: all who have it open, the oldest first; None where that is not known."""

    tuple: SocketTuple
    inode: int
    owner: event.Process
    users: int
    sharers: Optional[Tuple[proc.Holder, ...]]


class Present:
    """The sockets of a network namespace, or of all, and their holders."""

    def __init__(self, netns: Optional[int]) -> None:
        self.whole = proc.in_initial_pid_namespace() and not descriptors.missing_capabilities()
        """May we look at all processes? The holders that we see without would be some."""
        self.names: Dict[SocketTuple, List[int]] = {}
        """Inodes of the sockets of a name; 0 for one that nobody has open."""
        self.devices_told = True
        self._holders: Dict[int, Tuple[proc.Holder, ...]] = {}
        if self.whole:
            with Sight(netns) as sight:
                for sock in sight.sockets():
                    self.names.setdefault(sock.tuple, []).append(sock.inode)
                    self.devices_told &= sock.device_told
                self._holders = sight.opened.holders

    def entries(self, name: SocketTuple, found: Optional[SocketOwner]) -> Iterable[Entry]:
        """The sockets of a name. found: what the map says of one of them, if it does."""
        inodes = self.names.get(name) or self.names.get(name._replace(ifindex=0), []) if self.whole else []
        known = sorted({inode for inode in inodes if inode})
        if found is not None and not found.inode and len(known) == 1:
            found = found._replace(inode=known[0])
        if found is not None and (found.inode in known or not known):
            yield self._of_map(name, found)
        for inode in known:
            holders = self._holders.get(inode)
            if holders and (found is None or inode != found.inode):
                yield _held(name, inode, holders)

    def _of_map(self, name: SocketTuple, found: SocketOwner) -> Entry:
        """The process that the map names, unless it does not have the socket any more and others do."""
        holders = self._holders.get(found.inode) if found.inode else None
        if holders and found.latest.how != "kernel" and not any(_is(holder, found.latest) for holder in holders):
            return _held(name, found.inode, holders)
        return Entry(name, found.inode, found.latest, found.users, holders)


def _held(name: SocketTuple, inode: int, holders: Tuple[proc.Holder, ...]) -> Entry:
    """Of a socket of which only that is known: the oldest holder opened it, or got it first."""
    owner = seed.process(holders[0], kernel.monotonic_ns())._replace(how="holder")
    return Entry(name, inode, owner, len(holders), holders)


def _is(holder: proc.Holder, owner: event.Process) -> bool:
    return holder.pid == owner.pid and 0 <= holder.start_ticks - proc.ticks_of(owner.start_ns) <= 1
