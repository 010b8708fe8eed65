"""Why an owner is not known, told from what the tracer knows of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.event import event, socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import proc
from sockpid.host.inet_sock import InetSock
from sockpid.probe.seed import Seeds
from sockpid.probe.tracer import Tracer

NAME = SocketTuple(77, "inet", 40034, 9000, "10.0.0.1", "10.0.0.2")
UNKNOWN = event.decode(bytes(event.EVENT_SIZE))._replace(tuple=NAME, inode=4711)
LISTED = InetSock(NAME, 1, UNKNOWN.inode, socket_tuple.pack(NAME))
HOLDERS = (proc.Holder(100, "parent", 50), proc.Holder(101, "child", 60))


def tracer(**known: Any) -> Tracer:
    """A tracer that is attached to nothing: seeded, with all hooks, nothing evicted, unless `known` says otherwise."""
    made = Tracer.__new__(Tracer)
    made.__dict__.update(seeds=Seeds(), _sees_mptcp=True, public=lambda _name: None)
    made.__dict__.update(collection=SimpleNamespace(learns=lambda: known.get("learns", True)))
    made.__dict__.update(_room=SimpleNamespace(evicted=lambda by_ns: known.get("evicted", 0)), ready_ns=-1, misses=0)
    made.__dict__.update({k: v for k, v in known.items() if k in ("seeds", "public", "ready_ns", "misses")})
    return made


@pytest.mark.parametrize(
    ("known", "changes", "reason"),
    [
        ({}, {}, "no-hook"),
        ({"ready_ns": 10}, {"ts_ns": 10}, "older-than-probe"),
        ({"ready_ns": 10}, {"ts_ns": 11}, "no-hook"),
        ({}, {"lent": True}, "lent"),
        ({"learns": False}, {}, "no-hook"),
        ({"misses": 1}, {}, "missed"),
        ({"misses": 1, "ready_ns": 10}, {"ts_ns": 10}, "older-than-probe"),
        ({"misses": 1, "learns": False}, {}, "no-hook"),
        ({"evicted": 5}, {}, "evicted"),
        ({"seeds": None}, {}, "older-than-probe"),
        ({"seeds": Seeds([LISTED]), "evicted": 5}, {}, "older-than-probe"),
        ({}, {"kern": True}, "kernel-socket"),
        ({"learns": False}, {"kern": True, "ulp": "tls"}, "kernel-socket"),
        ({"seeds": Seeds([LISTED]), "evicted": 5}, {"inode": 0}, "older-than-probe"),
        ({"seeds": Seeds([LISTED]), "evicted": 5}, {"inode": 4712}, "evicted"),
        ({"seeds": None}, {"kern": True, "ulp": "mptcp"}, "older-than-probe"),
    ],
)
def test_reason(known: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    assert tracer(**known).reason(UNKNOWN._replace(**changes)) == reason


def test_an_mptcp_socket_that_nobody_sees_used_has_no_owner() -> None:
    owner = event.Process(7, 7, 10**12, 1, 0, "send", 0, "python3")
    seen = UNKNOWN._replace(ulp="mptcp", owner=owner, first=event.Opener(7, 10**12, "connect", "python3"), found="sock")
    hidden = tracer()._unless_mptcp(seen)
    assert (hidden.owner, hidden.first, hidden.found) == (None, None, None)
    plain = seen._replace(ulp=None)
    assert tracer()._unless_mptcp(plain) == plain


@pytest.mark.parametrize("with_inode", [True, False])
def test_what_is_older_than_the_probe_is_known_by_its_inode(with_inode: bool) -> None:
    seeds = Seeds([LISTED], {UNKNOWN.inode: HOLDERS}, 1)
    made = tracer(seeds=seeds)
    seen = made.resolve(UNKNOWN._replace(inode=UNKNOWN.inode if with_inode else 0))
    if with_inode:
        assert (seen.owner and seen.owner.pid, seen.first, seen.users, seen.found) == (100, None, 2, "inode")
    else:
        assert seen.owner is None  # no entry says that this is not a later socket
    for changes in ({"kern": True}, {"inode": UNKNOWN.inode + 1}, {"tuple": UNKNOWN.tuple._replace(sport=1)}):
        assert made.resolve(UNKNOWN._replace(**changes)).owner is None


def test_who_uses_it_later_is_not_the_only_one_who_has_it() -> None:
    seeds = Seeds([LISTED], {UNKNOWN.inode: HOLDERS}, 1)
    later = event.Process(7, 7, 10**12, 1, 0, "send", 0, "later")
    assert tracer(seeds=seeds).resolve(UNKNOWN._replace(owner=later, users=1)).users == 3
    assert tracer().resolve(UNKNOWN._replace(owner=later, users=1)).users == 1
