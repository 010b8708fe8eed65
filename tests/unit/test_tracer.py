"""Why an owner is not known, told from what the tracer knows of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sockpid import event
from sockpid.tracer import Tracer
from tests.unit.test_event import NOBODY, record

UNKNOWN = event.decode(record(NOBODY))._replace(ulp=None)


def tracer(**known: Any) -> Tracer:
    """A tracer that is attached to nothing: seeded, with all hooks, nothing evicted, unless `known` says otherwise."""
    made = Tracer.__new__(Tracer)
    made.__dict__.update(_orphans=frozenset(), _shared={}, seeded=3, _sees_mptcp=True)
    made.__dict__.update(collection=SimpleNamespace(learns=lambda: known.get("learns", True)))
    made.__dict__.update(evicted=lambda: known.get("evicted", 0))
    made.__dict__.update({k: v for k, v in known.items() if k in ("_orphans", "seeded")})
    return made


@pytest.mark.parametrize(
    ("known", "changes", "reason"),
    [
        ({}, {}, "no-hook"),
        ({"learns": False}, {}, "no-hook"),
        ({"evicted": 5}, {}, "evicted"),
        ({"seeded": None}, {}, "older-than-probe"),
        ({"_orphans": frozenset([UNKNOWN.tuple]), "evicted": 5}, {}, "older-than-probe"),
        ({}, {"kern": True}, "kernel-socket"),
        ({"learns": False}, {"kern": True, "ulp": "tls"}, "kernel-socket"),
        ({"seeded": None}, {"kern": True, "ulp": "mptcp"}, "older-than-probe"),
    ],
)
def test_reason(known: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    assert tracer(**known).reason(UNKNOWN._replace(**changes)) == reason


def test_an_mptcp_socket_that_nobody_sees_used_has_no_owner() -> None:
    from tests.unit.test_event import owner

    seen = event.decode(record(owner()))._replace(ulp="mptcp")
    hidden = tracer()._unless_mptcp(seen)
    assert (seen.owner is None, hidden.owner, hidden.first, hidden.found) == (False, None, None, None)
    plain = seen._replace(ulp=None)
    assert tracer()._unless_mptcp(plain) == plain
