"""How sure an owner is: what the probe saw, held against who has the socket open.

An owner is certain unless something speaks against it. What does is told as `doubt`:

- "not-held": somebody has the socket open, and the process that was seen to use it lives and does not.
- "missed": a run of a hook that learns owners was passed over since this one was seen to use the socket.
- "lent": the kernel works with the socket for others (sockmap, KCM, a network block device): who made it do so need not
  have the socket. The owner is one who has it open; where that is not known there is no owner.
- "unseen": nobody was seen to use the socket, or who was has been forgotten for want of room; the named process had it
  open when that was last looked at, and others may have, or have had.
- "inherited": it was learnt by the instance before this one, and not seen to use the socket since.

Who alone has a socket open is its owner where nothing tells of others. That lifts no "missed" and no "inherited": who
used the socket in between may have closed it since.
"""

from __future__ import annotations

from sockpid.event import event
from sockpid.host import proc
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

    from sockpid.probe.tracer import Tracer

    from .describe import Describer
    from .witness import Witness


RECENT_NS = 1_000_000_000
"""So old may be what is known of how many have a listening socket open."""


class Settled(NamedTuple):
    """seen: the event, with another owner if the first one was contradicted, or if nobody was seen to use the socket.

    certain: None for an event without an owner. doubt: why it is not certain.
    """

    seen: event.Event
    certain: Optional[bool]
    doubt: Optional[str]


class Certainty:
    """Of the events of one tracer. witness: None if nobody is asked.

    Counts, of events whose socket somebody had open: confirmed, contradicted, unchecked. And of all: uncertain, those
    that were told with a doubt.
    """

    def __init__(self, tracer: Tracer, witness: Optional[Witness]) -> None:
        self._tracer = tracer
        self.witness = witness
        self.confirmed = self.contradicted = self.unchecked = self.uncertain = 0

    def counts(self) -> Tuple[Tuple[str, int], ...]:
        """By name, as they are told."""
        return (
            ("confirmed", self.confirmed),
            ("contradicted", self.contradicted),
            ("unchecked", self.unchecked),
            ("uncertain", self.uncertain),
            ("missed", self._tracer.misses),
        )

    def glance(self, pid: int, start_ns: int, when_ns: int, inode: int) -> bool:
        """Is an owner that was certain certain again? True also where there was no time to look."""
        if self._stale(when_ns) is not None:
            return False
        if not inode or self.witness is None:
            return True
        held = self.witness.holds(pid, start_ns, inode)
        if held:
            self.confirmed += 1
        elif held is None:
            self.unchecked += 1
        return held is not False

    def document(self, seen: event.Event, describer: Describer) -> Dict[str, Any]:
        """The event as it is told, but for the host's name."""
        settled = self.settle(seen)
        document: Dict[str, Any] = describer.complete(settled.seen, self._tracer.json(settled.seen))
        document["certain"], document["doubt"] = settled.certain, settled.doubt
        return document

    def settle(self, seen: event.Event) -> Settled:
        owner = seen.owner
        if owner is None:
            return self._by_holders(seen)
        if owner.how == "kernel":
            return Settled(seen, True, None)
        settled = self._checked(seen, owner)
        if settled.certain is False:
            self.uncertain += 1
        return settled

    def _by_holders(self, seen: event.Event) -> Settled:
        """An event of a socket that nobody was seen to use belongs to who has it open."""
        if not seen.inode or self.witness is None or (seen.kern and seen.ulp != "mptcp"):
            return Settled(seen, None, None)
        holders = self.witness.holders(seen.inode, seen.ts_ns)
        alone = self.witness.whole and holders is not None and len(holders) == 1
        if holders is None:
            holders = self.witness.some_holders(seen.inode)
        if not holders:
            return Settled(seen, None, None)
        self.uncertain += not alone
        return Settled(_held_by(seen, holders, None), alone, None if alone else "unseen")

    def _checked(self, seen: event.Event, owner: event.Process) -> Settled:
        doubt = "lent" if seen.lent else self._stale(owner.when_ns)
        if owner.how == "seed" and self._tracer.evicted():  # somebody may have used it since, and been forgotten
            doubt = "unseen"
        witness = self.witness
        if not seen.inode or witness is None:
            return _unknown(seen) if seen.lent else Settled(seen, doubt is None, doubt)
        if seen.kind == "synack":
            return self._listening(seen, owner, doubt, witness)
        held = witness.holds(owner.pid, owner.start_ns, seen.inode)
        if held and doubt in (None, "missed", "inherited"):
            self.confirmed += 1
            return Settled(seen, doubt is None, doubt)
        holders = witness.holders(seen.inode, seen.ts_ns)
        if held:
            self.confirmed += 1
            alone = witness.whole and holders is not None and [holder.pid for holder in holders] == [owner.pid]
            return Settled(seen, alone, None if alone else doubt)
        if seen.lent:
            if not holders:
                return _unknown(seen)
            alone = witness.whole and len(holders) == 1
            return Settled(_held_by(seen, holders, owner), alone, None if alone else doubt)
        if held is None:  # it has ended since it used the socket, or there was no time to look
            self.unchecked += 1
            return Settled(seen, doubt is None, doubt)
        if holders is None:
            holders = witness.some_holders(seen.inode)
            if not holders:
                self.unchecked += 1
                return Settled(seen, False, "not-held")
        if not holders or any(holder.pid == owner.pid for holder in holders):
            # The socket is closed by now: it may have been the owner's until then.
            self.unchecked += 1
            return Settled(seen, doubt is None, doubt)
        self.contradicted += 1
        # What is retransmitted was sent by who was seen to send it, though it may have closed the socket since. Who was
        # never seen to do so has handed it on.
        if owner.how == "send":
            return Settled(seen._replace(users=max(seen.users, len(holders) + 1)), False, "not-held")
        return Settled(_held_by(seen, holders, owner), False, "not-held")

    def _listening(self, seen: event.Event, owner: event.Process, doubt: Optional[str], witness: Witness) -> Settled:
        """An event of a listening socket: whoever has it open may answer, and who made it may be gone or not serve."""
        if witness.holds(owner.pid, owner.start_ns, seen.inode, seen.ts_ns):
            self.confirmed += 1
            others = witness.holders(seen.inode, seen.ts_ns - RECENT_NS) or ()
            return Settled(seen._replace(users=max(seen.users, len(others))), True, None)
        holders = witness.holders(seen.inode, seen.ts_ns)
        if holders is None:
            holders = witness.some_holders(seen.inode, seen.ts_ns)
            doubt = doubt or "unseen"
        if not holders:
            self.unchecked += 1
            return Settled(seen, doubt is None, doubt)
        self.confirmed += 1
        if any(holder.pid == owner.pid for holder in holders):
            return Settled(seen._replace(users=max(seen.users, len(holders))), True, None)
        return Settled(_held_by(seen, holders, owner), True, None)

    def _stale(self, when_ns: int) -> Optional[str]:
        if when_ns < self._tracer.inherited_at_ns:
            return "inherited"
        return "missed" if when_ns < self._tracer.missed_at_ns else None


def _unknown(seen: event.Event) -> Settled:
    """Somebody was made to use the socket, and who has it open is not known."""
    return Settled(seen._replace(owner=None, found=None), None, None)


def _held_by(seen: event.Event, holders: Tuple[proc.Holder, ...], used_by: Optional[event.Process]) -> event.Event:
    """The event with the oldest of those that have the socket open as its owner. used_by: who was seen to use it."""
    oldest = holders[0]
    owner = event.Process(
        pid=oldest.pid,
        tid=oldest.pid,
        start_ns=proc.ns_of(oldest.start_ticks),
        when_ns=seen.ts_ns,
        cgroup_id=0,
        how="holder",
        flags=0,
        comm=oldest.comm,
    )
    first = seen.first
    if used_by is not None and (first is None or seen.late):
        first = event.Opener(used_by.pid, used_by.start_ns, used_by.how, used_by.comm)
    further = used_by is not None and all(holder.pid != used_by.pid for holder in holders)
    users = max(seen.users, len(holders) + further)
    return seen._replace(owner=owner, first=first, late=first is None, users=users, found="inode")
