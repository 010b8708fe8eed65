"""The self-check where this process gets no time of the CPU for seconds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sockpid import errors
from sockpid.event import event
from sockpid.image.hooks import HOOKS, SET_STATE_LOCKED, Target
from sockpid.probe import collection
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.selfcheck import selfcheck
from sockpid.subjects import deaf, half_open


def test_a_host_that_stands_still_for_seconds_gets_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing still beyond the time limit: nothing is wrong, all is late."""
    others: list[event.Event] = []
    pairs: list[deaf.Pair] = []
    made = deaf.Pair.__init__

    def init(pair: deaf.Pair, family: str, bind: bool = False) -> None:
        pairs.append(pair)
        made(pair, family, bind)

    monkeypatch.setattr(deaf.Pair, "__init__", init)
    with Tracer.open(Options(), None) as tracer:
        read = tracer.events
        standing = iter([3.3])

        def late(seconds: float) -> Any:
            time.sleep(next(standing, 0))
            return read(seconds)

        monkeypatch.setattr(tracer, "events", late)
        results = selfcheck.run(tracer, others, timeout=0.2)
    assert [result for result in results if not result.ok] == []
    assert len([pair for pair in pairs if pair.family in deaf.FAMILIES]) == 2 * len(deaf.FAMILIES)
    assert not [seen for seen in others for pair in pairs if pair.is_of(seen)]


def test_a_hook_that_does_not_run_is_named_and_not_the_offsets() -> None:
    """Detached behind the probe's back: as if tracing was switched off. All that is left to try is tried."""
    with Tracer.open(Options(), None) as tracer:
        (retransmit,) = (a for a in tracer.collection.hooks if a.hook.name == "retransmit")
        assert retransmit.link is not None
        where = f"{retransmit.link.mechanism} {retransmit.link.target}"
        retransmit.link.close()
        try:
            results = selfcheck.run(tracer, timeout=0.5)
        except errors.AttachError as error:
            refused = error.reasons
        else:
            assert [result for result in results if not result.ok] == []
            (retransmit,) = (a for a in tracer.collection.hooks if a.hook.name == "retransmit")
            refused = list(retransmit.refused)
    assert [reason.partition(":")[0] for place, reason in refused if place == where] == ["attached, and does not run"]


def test_a_hook_that_runs_and_forgets_nothing_is_named() -> None:
    """What it is told is no socket's address, so that owners outlive their sockets: detached it does no more."""
    with Tracer.open(Options(), None) as tracer:
        (destroy,) = (a for a in tracer.collection.hooks if a.hook.name == "destroy")
        assert destroy.link is not None
        destroy.link.close()
        with pytest.raises(errors.SelfCheckError, match="forgets no socket that is destroyed"):
            selfcheck.demand(selfcheck.run(tracer))


def test_a_kernel_that_does_not_ask_a_listeners_filter_about_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux 4.9: the first client's ACK is taken. Its successors leave the SYN-ACK unanswered."""
    monkeypatch.setattr(half_open, "_drop_acks", lambda _listener: None)
    with Tracer.open(Options(), None) as tracer:
        (synack,) = (result for result in selfcheck.run(tracer) if result.family == "synack")
    assert synack.ok
    assert [seen.kind for seen in synack.events] == ["synack"]


def test_a_tracepoint_that_is_not_raised_for_what_a_hook_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tcp_set_state of Linux 4.15 is there, and nobody passes it who begins to listen."""
    other = Target("raw_tp", "sock_recv_length", SET_STATE_LOCKED, general=True)
    (listen,) = (hook for hook in HOOKS if hook.name == "listen")
    blind = listen._replace(targets=(other, *listen.targets))
    monkeypatch.setattr(collection, "HOOKS", tuple(blind if hook is listen else hook for hook in HOOKS))
    with Tracer.open(Options(), None) as tracer:
        (attached,) = (a for a in tracer.collection.hooks if a.hook.name == "listen")
        assert attached.link is not None
        assert attached.link.target == "inet_sock_set_state"
        assert attached.seen
        reason = dict(attached.refused)["raw_tp sock_recv_length"]
        if "No such file" in reason:
            pytest.skip("this kernel has no tracepoint sock_recv_length (Linux 6.3)")
        assert reason == collection.NOT_RUNNING
        assert [result for result in selfcheck.run(tracer) if not result.ok] == []
