"""What /proc adds to an event, where the probe and /proc do not say the same: the later word counts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.event import event
from sockpid.host import cgroup, descriptors, kernel, proc
from sockpid.owner import describe
from sockpid.owner.labels import Wanted
from tests.unit.event.test_event import owner, record

PID = 94
SEEN_NS = 2_000
"""When the owner was seen to use its socket."""


class Host:
    """A process as /proc shows it, and what the probe knows of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exited: bool | None = False
        self.comm, self.cgroup = "proc", "/now"
        self.executed: event.Executed | None = None
        self.ended: int | None = None
        self.now = SEEN_NS + 1_000
        monkeypatch.setattr(proc, "is_exited", lambda _pid, _start, ended=False: ended or self.exited)
        monkeypatch.setattr(proc, "comm", lambda _pid: self.comm)
        monkeypatch.setattr(proc, "namespace_pid", lambda _pid: 5)
        monkeypatch.setattr(cgroup, "of_process", lambda _pid: self.cgroup)
        monkeypatch.setattr(kernel, "monotonic_ns", lambda: self.now)
        monkeypatch.setattr(describe, "KEEP_SECONDS", -1.0)  # look each time
        tracer: Any = SimpleNamespace(
            executed=lambda _pid: self.executed, ended_ns=lambda _pid, start: self.ended if start == 1111 else None
        )
        self.describer = describe.Describer(tracer, False, Wanted())
        monkeypatch.setattr(self.describer._cgroups, "path", {7: "/then", 8: "/now"}.get)
        monkeypatch.setattr(self.describer._cgroups, "number", {"/then": 7, "/now": 8}.get)

    def told(self, **owned: Any) -> dict[str, Any]:
        seen = event.decode(record(owner()))
        assert seen.owner is not None
        latest = seen.owner._replace(when_ns=SEEN_NS, cgroup_id=7, comm="probe", **owned)
        seen = seen._replace(owner=latest, users=1)
        return self.describer.complete(seen, dict(seen.json(0, "btf", None)))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_living_process_has_the_name_that_it_has_now(host: Host) -> None:
    assert host.told()["comm"] == "proc"


def test_a_name_from_before_the_last_use_is_not_told_any_more(host: Host) -> None:
    host.exited, host.executed = True, event.Executed(1111, SEEN_NS - 1, "python3")
    assert host.told()["comm"] == "probe"
    host.executed = event.Executed(1111, SEEN_NS + 1, "python3")
    assert host.told()["comm"] == "python3"
    host.executed = event.Executed(2222, SEEN_NS + 1, "other")
    assert host.told()["comm"] == "probe", "that was another process"


def test_a_name_that_was_read_while_it_lived_stays(host: Host) -> None:
    host.executed = event.Executed(1111, SEEN_NS - 1, "python3")
    assert host.told()["comm"] == "proc"
    host.exited = True
    assert host.told()["comm"] == "proc"


def test_a_process_that_moved_is_where_it_is_now(host: Host) -> None:
    document = host.told()
    assert (document["cgroup"], document["cgroup_id"]) == ("/now", 8)
    host.exited = True
    assert host.told()["cgroup"] == "/now", "it was there when it was last seen alive"


def test_of_a_process_that_was_never_looked_at_the_probe_tells_the_group(host: Host) -> None:
    host.exited = True
    document = host.told()
    assert (document["cgroup"], document["cgroup_id"], document["ns_pid"]) == ("/then", 7, None)


def test_a_holder_is_in_the_group_that_proc_says(host: Host) -> None:
    document = host.told(how="holder")
    assert (document["cgroup"], document["cgroup_id"]) == ("/now", 8)


def test_an_id_that_was_given_out_again_within_a_clock_tick(host: Host) -> None:
    host.ended = SEEN_NS + 1
    assert host.told()["exited"] is True


def test_a_start_to_the_tick_becomes_exact_once_it_is_known(host: Host) -> None:
    exact = 500_000_000 + 1_234_567
    assert host.told(how="seed", start_ns=500_000_000)["start_ns"] == 500_000_000
    assert host.told(how="send", start_ns=exact)["start_ns"] == exact
    assert host.told(how="seed", start_ns=500_000_000)["start_ns"] == exact
    assert host.told(how="seed", start_ns=510_000_000)["start_ns"] == 510_000_000, "that started later"
    assert host.told(how="seed", pid=95, start_ns=500_000_000)["start_ns"] == 500_000_000


def test_an_executed_program_tells_the_start_as_well(host: Host) -> None:
    host.executed = event.Executed(501_000_000, 1, "python3")
    assert host.told(how="holder", start_ns=500_000_000)["start_ns"] == 501_000_000


def test_sharers_are_processes_and_not_ids(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.describer._sharers = True
    ticks = proc.ticks_of(1111)
    looks: list[int] = []

    def held(owner_ticks: int) -> None:
        holders = (proc.Holder(PID, "a", owner_ticks), proc.Holder(95, "b", ticks))
        opened = descriptors.Opened({4711: holders}, {}, {})

        def look() -> descriptors.Opened:
            looks.append(1)
            return opened

        monkeypatch.setattr(descriptors, "look", look)

    held(ticks)
    host.now = 5_000  # when the event was raised
    assert [host.told()["ambiguous"] for _ in range(3)] == [2, 2, 2]
    assert len(looks) == 1
    host.describer._opened_ns = 4_999
    held(ticks + 500)
    assert host.told()["ambiguous"] == 3, "one that has the id now, and the owner that had it"


def test_control_group_of_a_process() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    expected = next((line[3:] for line in lines if line.startswith("0::")), None)
    assert cgroup.of_process(os.getpid()) == expected
    assert cgroup.of_process(1 << 22) is None


def test_path_and_number_of_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    paths = cgroup.CgroupPaths(str(tmp_path))
    for path in ("/", "/a", "/a/b"):
        number = paths.number(path)
        assert number is not None
        assert paths.path(number) == path
    assert paths.number("/a/c") is None
