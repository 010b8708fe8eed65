"""What the second witness does to an event: confirms, contradicts, names who has the socket open, or has no time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.event import event
from sockpid.host import proc
from sockpid.owner.certainty import Certainty
from tests.unit.event.test_event import NOBODY, owner, record

NAMED, NAMED_TICKS = 94, proc.ticks_of(1111)
OTHER = proc.Holder(50, "child", 7)
SELF = proc.Holder(NAMED, "python3", NAMED_TICKS)


class Witness:
    """Says what it was told to, as Witness does."""

    def __init__(
        self,
        held: bool | None,
        holders: tuple[proc.Holder, ...] | None,
        whole: bool = True,
        some: tuple[proc.Holder, ...] = (),
    ) -> None:
        self.held, self.open, self.whole, self.some = held, holders, whole, some

    def holds(self, pid: int, start_ns: int, _inode: int, since_ns: int = 0) -> bool | None:
        assert (pid, start_ns) == (NAMED, 1111)
        return self.held

    def some_holders(self, inode: int, since_ns: int = 0) -> tuple[proc.Holder, ...]:
        assert inode == 4711
        assert self.open is None, "all were found"
        return self.some

    def holders(self, inode: int, since_ns: int) -> tuple[proc.Holder, ...] | None:
        assert inode == 4711
        assert since_ns <= 5_000
        return self.open


def settle(
    witness: Witness | None,
    seen: event.Event | None = None,
    missed: int = 0,
    inherited: int = 0,
) -> tuple[Any, Certainty]:
    tracer: Any = SimpleNamespace(missed_at_ns=missed, inherited_at_ns=inherited, misses=0)
    certainty = Certainty(tracer, witness)  # type: ignore[arg-type] # it says the same
    return certainty.settle(seen or event.decode(record(owner()))), certainty


def test_confirmed() -> None:
    settled, counts = settle(Witness(True, None))
    assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (NAMED, True, None)
    assert dict(counts.counts()) == {"confirmed": 1, "contradicted": 0, "unchecked": 0, "uncertain": 0, "missed": 0}


RECEIVED = event.decode(record(owner(how=4)))


def test_a_living_process_that_does_not_have_the_socket_is_not_named_but_who_has_it() -> None:
    settled, counts = settle(Witness(False, (OTHER,)), RECEIVED)
    seen = settled.seen
    assert (seen.owner.pid, seen.owner.comm, seen.owner.how) == (50, "child", "holder")
    assert (settled.certain, settled.doubt, seen.first.pid) == (False, "not-held", 90)
    assert (counts.contradicted, counts.uncertain, counts.confirmed) == (1, 1, 0)


def test_where_there_is_no_time_to_look_at_all_whoever_is_known_to_have_it_is_named() -> None:
    witness = Witness(False, None, some=(OTHER,))
    settled, counts = settle(witness, event.decode(record(owner(how=4))))
    assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (50, False, "not-held")
    assert (counts.contradicted, counts.unchecked) == (1, 0)
    settled, _ = settle(witness, event.decode(record(NOBODY)))
    assert (settled.seen.owner.pid, settled.seen.owner.how, settled.certain) == (50, "holder", False)


@pytest.mark.parametrize("how", [3, 4])
def test_who_was_seen_to_use_it_and_who_has_it_are_two(how: int) -> None:
    settled, _ = settle(Witness(False, (OTHER,)), event.decode(record(owner(how=how)))._replace(users=1))
    assert settled.seen.users == 2


def test_who_was_seen_to_use_a_socket_late_stays_as_its_opener() -> None:
    late = event.decode(record(owner(how=4, flags=event.OWNER_LATE)))
    settled, _ = settle(Witness(False, (OTHER,)), late)
    assert (settled.seen.first.pid, settled.seen.late) == (NAMED, False)


@pytest.mark.parametrize(
    ("witness", "certain", "doubt"),
    [
        (Witness(None, None), True, None),  # no time, or not to be looked into
        (Witness(False, ()), True, None),  # closed since the event: it may have been the owner's until then
        (Witness(False, (SELF, OTHER)), True, None),  # opened again since it was looked into
        (Witness(False, None), False, "not-held"),  # not its own, and no time to ask whose
    ],
)
def test_what_could_not_be_looked_at_is_unchecked(witness: Witness, certain: bool, doubt: str | None) -> None:
    settled, counts = settle(witness)
    assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (NAMED, certain, doubt)
    assert (counts.unchecked, counts.contradicted, counts.confirmed) == (1, 0, 0)


@pytest.mark.parametrize(("missed", "inherited", "doubt"), [(2_001, 0, "missed"), (0, 2_001, "inherited")])
def test_a_doubt_of_what_was_not_seen_is_lifted_by_nobody(missed: int, inherited: int, doubt: str) -> None:
    """Another may have used the socket, and closed it since: that one alone has it open says nothing of that."""
    for witness in (Witness(True, (SELF,)), Witness(True, (SELF, OTHER)), Witness(True, None), None):
        settled, _ = settle(witness, missed=missed, inherited=inherited)
        assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (NAMED, False, doubt)


def test_a_use_that_was_seen_since_needs_nobody_to_lift_a_doubt() -> None:
    settled, _ = settle(Witness(True, (SELF, OTHER)), missed=2_000, inherited=2_000)
    assert (settled.certain, settled.doubt) == (True, None)


def test_who_sent_what_is_retransmitted_stays_its_owner_in_doubt() -> None:
    """It may have closed the socket since, which another has open."""
    settled, counts = settle(Witness(False, (OTHER,)))
    assert (settled.seen.owner.pid, settled.seen.owner.how) == (NAMED, "send")
    assert (settled.certain, settled.doubt, counts.contradicted) == (False, "not-held", 1)


def test_an_owner_that_ended_was_the_owner() -> None:
    """Its parent, say, has the socket open still; who sent last is the one that ended."""
    settled, counts = settle(Witness(None, (OTHER,)))
    assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (NAMED, True, None)
    assert (counts.unchecked, counts.contradicted) == (1, 0)


def test_who_was_made_to_send_by_the_kernel_is_a_hint_at_most() -> None:
    lent = event.decode(record(owner(flags=event.OWNER_LENT)))
    for held in (True, None):
        settled, _ = settle(Witness(held, (SELF,)), lent)
        assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (NAMED, True, None)
    for held in (False, None):
        settled, _ = settle(Witness(held, (OTHER,)), lent)
        assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (50, True, None)
        settled, _ = settle(Witness(held, (OTHER, proc.Holder(51, "heir", 9))), lent)
        assert (settled.seen.owner.pid, settled.certain, settled.doubt) == (50, False, "lent")
        for nobody in (Witness(held, ()), Witness(held, None)):
            settled, counts = settle(nobody, lent)
            assert (settled.seen.owner, settled.certain, settled.doubt, counts.uncertain) == (None, None, None, 0)
            assert (settled.seen.lent, settled.seen.first.pid) == (True, 90)
    assert settle(None, lent)[0].seen.owner is None
    assert settle(Witness(True, (SELF,)), lent._replace(inode=0))[0].seen.owner is None


def test_a_socket_that_nobody_was_seen_to_use_belongs_to_who_has_it_open() -> None:
    nobody = event.decode(record(NOBODY))
    settled, _ = settle(Witness(None, (OTHER, SELF)), nobody)
    seen = settled.seen
    assert (seen.owner.pid, seen.owner.how, seen.users, seen.first, seen.found) == (50, "holder", 2, None, "inode")
    assert (settled.certain, settled.doubt) == (False, "unseen")
    for alone in (Witness(None, (OTHER,)), Witness(None, (OTHER,), whole=False)):
        settled, _ = settle(alone, nobody)
        assert (settled.seen.owner.pid, settled.certain) == (50, alone.whole)
    for witness in (Witness(None, ()), Witness(None, None), None):
        settled, _ = settle(witness, nobody)
        assert (settled.seen.owner, settled.certain, settled.doubt) == (None, None, None)
    of_the_kernel = nobody._replace(kern=True)
    assert settle(Witness(None, (OTHER,)), of_the_kernel)[0].seen.owner is None
    subflow = nobody._replace(kern=True, ulp="mptcp")
    assert settle(Witness(None, (OTHER,)), subflow)[0].seen.owner.pid == 50


def test_without_an_inode_there_is_nothing_to_ask() -> None:
    settled, counts = settle(Witness(False, (OTHER,)), event.decode(record(owner()))._replace(inode=0))
    assert (settled.seen.owner.pid, settled.certain) == (NAMED, True)
    assert (counts.confirmed, counts.unchecked, counts.contradicted) == (0, 0, 0)


def test_whoever_has_a_listening_socket_may_answer() -> None:
    synack = event.decode(record(owner(how=5)))._replace(kind="synack", users=1)
    settled, _ = settle(Witness(True, (SELF, OTHER)), synack)
    assert (settled.seen.owner.pid, settled.seen.users, settled.certain) == (NAMED, 2, True)
    settled, _ = settle(Witness(False, (OTHER,)), synack)
    assert (settled.seen.owner.pid, settled.seen.owner.how, settled.certain) == (50, "holder", True)
    for held in (False, None):  # it was not looked into, and has it
        settled, _ = settle(Witness(held, (SELF,)), synack)
        assert (settled.seen.owner.pid, settled.seen.owner.how, settled.seen.users) == (NAMED, "listen", 1)
    settled, _ = settle(Witness(False, None, some=(OTHER,)), synack)
    assert (settled.seen.owner.pid, settled.seen.owner.how, settled.certain) == (50, "holder", True)
    settled, counts = settle(Witness(False, ()), synack)
    assert (settled.seen.owner.pid, settled.certain, counts.unchecked) == (NAMED, True, 1)
    settled, counts = settle(Witness(False, None), synack)
    assert (settled.seen.owner.pid, settled.certain, settled.doubt, counts.unchecked) == (NAMED, False, "unseen", 1)
