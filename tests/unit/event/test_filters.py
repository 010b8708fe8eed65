"""What is said of filters that cannot do what they seem to."""

from __future__ import annotations

import os
from argparse import Namespace

import pytest

from sockpid.cli import shared
from sockpid.event.event import decode
from sockpid.event.filters import Filter, network
from sockpid.host import kernel, netns, proc
from tests.unit.event.test_event import owner, record


def asked(**values: object) -> Namespace:
    return Namespace(**{**dict.fromkeys(("pid", "comm", "cgroup", "netns", "port", "cidr")), **values})


@pytest.mark.parametrize(("initial", "said"), [(True, ""), (False, "--pid 17: process ids are those of the host")])
def test_a_process_id_means_the_hosts(
    initial: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: initial)
    assert shared.filter_of(asked(pid=17)) == Filter(pid=17)
    stderr = capsys.readouterr().err
    assert said in stderr
    assert bool(stderr) == bool(said)
    shared.filter_of(asked(port=17))
    assert capsys.readouterr().err == ""


def test_a_namespace_that_is_filtered_for_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    own = kernel.netns_inode()
    assert shared.filter_of(asked(netns=str(own))) == Filter(netns=own)
    assert os.fstat(netns._held[0]).st_ino == own
    before = len(os.listdir("/proc/self/fd"))
    assert shared.filter_of(asked(netns=f"pid:{os.getpid()}")) == Filter(netns=own)
    assert len(os.listdir("/proc/self/fd")) == before, "one at a time"
    assert capsys.readouterr().err == ""
    assert shared.filter_of(asked(netns="1")) == Filter(netns=1)
    assert "--netns 1: nothing in sight refers to this namespace" in capsys.readouterr().err
    assert netns._held == [netns._NONE]
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_what_is_not_of_the_owner_is_asked_without_it() -> None:
    seen = decode(record(owner()))
    t = seen.tuple
    for chosen, matches in (
        (Filter(), True),
        (Filter(port=t.dport), True),
        (Filter(port=1), False),
        (Filter(netns=t.netns), True),
        (Filter(netns=1), False),
        (Filter(cidr=network(t.daddr)), True),
        (Filter(cidr=network("203.0.113.0/24")), False),
        (Filter(pid=1, comm="x", cgroup="/x"), True),
    ):
        assert chosen.matches_socket(seen) == matches, chosen
        document = {"pid": 94, "comm": "python3", "cgroup": "/"}
        assert chosen.matches(seen, document) == (matches and chosen.pid is None), chosen
