"""Container, pod and unit from control group paths as they are found in the wild, and labels of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sockpid.host import container, proc
from sockpid.host.container import Place
from sockpid.owner import labels
from sockpid.owner.labels import Wanted

A, B = "0123456789abcdef" * 4, "fedcba9876543210" * 4
UID = "6a6fb2a6-1b8f-4a62-9a2c-0b1f5f6d7e80"
UNDER = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", Place()),
        ("/user.slice/user-1000.slice/session-3.scope", Place(unit="session-3.scope")),
        ("/user.slice/user-0.slice/user@0.service/app.slice/x.service", Place(unit="x.service")),
        ("/system.slice/nginx.service", Place(unit="nginx.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", Place(unit="getty@tty1.service")),
        ("/system.slice/dev\\x2dsda.mount", Place(unit="dev-sda.mount")),
        (f"/docker/{A}", Place(A, "docker")),
        (f"/system.slice/docker-{A}.scope", Place(A, "docker")),
        (f"/system.slice/docker.service/docker/{A}", Place(A, "docker", unit="docker.service")),
        (f"/docker/{A}/docker/{B}", Place(B, "docker")),
        (f"/docker/{A}/system.slice/nginx.service", Place(A, "docker")),
        (f"/kubepods/burstable/pod{UID}/{A}", Place(A, None, UID)),
        (f"/kubepods/pod{UID}/{A}", Place(A, None, UID)),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice/cri-containerd-{A}.scope",
            Place(A, "containerd", UID),
        ),
        (f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-{A}.scope", Place(A, "cri-o", UID)),
        (f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-{A}.scope/container", Place(A, "cri-o", UID)),
        (f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-conmon-{A}.scope", Place(None, None, UID)),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDER}.slice/docker-{A}.scope",
         Place(A, "docker", UID)),
        (f"/kubepods/besteffort/pod{UID}/crio-{A}", Place(A, "cri-o", UID)),
        (f"/system.slice/containerd.service/kubepods-burstable-pod{UNDER}.slice:cri-containerd:{A}",
         Place(A, "containerd", UID, "containerd.service")),
        (f"/kubepods/kubepods-pod{'ab' * 16}.slice/cri-containerd-{A}.scope", Place(A, "containerd", "ab" * 16)),
        (f"/machine.slice/libpod-{A}.scope", Place(A, "podman")),
        (f"/machine.slice/libpod-{A}.scope/container", Place(A, "podman")),
        (f"/machine.slice/libpod-conmon-{A}.scope", Place()),
        (f"/libpod_parent/libpod-{A}", Place(A, "podman")),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope",
         Place(A, "podman", None, "user@1000.service")),
        (f"/default/nerdctl-{A}", Place(A, "containerd")),
        ("/system.slice/slurmstepd.scope/job_12/step_0/user/task_0", Place(unit="slurmstepd.scope")),
        (f"/somewhere/deploy{A}", Place()),
        (f"/somewhere/{A[:-1]}", Place()),
    ],
)  # fmt: skip
def test_paths(path: str, expected: Place) -> None:
    assert container.place(path) == expected


def test_all_hierarchies_of_cgroup_v1_are_looked_at() -> None:
    lines = (
        ("12:pids", f"/docker/{A}"),
        ("4:cpu,cpuacct", "/"),
        ("1:name=systemd", "/system.slice/ssh.service"),
        ("0:", "/"),
    )
    text = "".join(f"{controllers}:{path}\n" for controllers, path in lines)
    assert container.of_process(text) == Place(A, "docker", None, "ssh.service")
    both = f"1:name=systemd:/docker/{A}\n0::/system.slice/docker-{B}.scope\n"
    assert container.of_process(both) == Place(B, "docker")
    assert container.of_process("") == Place()


EVERYTHING = Wanted(labels.KINDS, ("RANK", "UNSET"))


@pytest.fixture
def initial_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run in a container; process ids of this /proc are then good for this /proc."""
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: True)


def sleeping(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--flag"], env=environment)


def start_ns(pid: int) -> int:
    ticks = proc.start_ticks(pid)
    assert ticks is not None
    return proc.ns_of(ticks)


@pytest.mark.usefixtures("initial_namespace")
def test_a_real_process() -> None:
    with sleeping(RANK="3", OTHER="secret") as child:
        try:
            until(lambda: proc.read(child.pid, "cmdline").endswith(b"--flag\0"))
            found = labels.read(EVERYTHING, child.pid, start_ns(child.pid))
            assert found["cmdline"] == f"{sys.executable} -c import time; time.sleep(60) --flag"
            assert found["env"] == {"RANK": "3", "UNSET": None}
            assert found["reason"] is None
            other = labels.read(EVERYTHING, child.pid, start_ns(child.pid) - 10**10)
            assert other == labels.empty(EVERYTHING, "exited")
        finally:
            child.kill()
    assert labels.read(EVERYTHING, child.pid, 1) == labels.empty(EVERYTHING, "exited")


@pytest.mark.usefixtures("initial_namespace")
def test_an_id_that_is_given_to_another_while_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after its start time was compared, and its id goes to another: nothing of that is told."""
    started = start_ns(os.getpid())
    answers = iter([False, True])
    monkeypatch.setattr(proc, "is_exited", lambda _pid, _start, _ended: next(answers))
    assert labels.read(EVERYTHING, os.getpid(), started) == labels.empty(EVERYTHING, "exited")


@pytest.mark.usefixtures("initial_namespace")
def test_what_may_not_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    read = proc.read

    def refuse(pid: int, name: str) -> bytes:
        if name == "environ":
            raise PermissionError
        return read(pid, name)

    monkeypatch.setattr(proc, "read", refuse)
    found = labels.read(EVERYTHING, os.getpid(), start_ns(os.getpid()))
    assert found["env"] is None
    assert found["reason"] == "permission"
    assert found["cmdline"]


def test_in_another_pid_namespace_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: False)
    assert labels.read(EVERYTHING, os.getpid(), 1) == labels.empty(EVERYTHING, "pid-namespace")


def test_environment_values() -> None:
    data = b"RANK=1\0EMPTY=\0EQUALS=a=b\0junk\0XRANK=2\0LONG=" + b"x" * 10000
    found = labels.environment(data, ("RANK", "EMPTY", "EQUALS", "LONG", "junk"))
    assert {**found, "LONG": None} == {"RANK": "1", "EMPTY": "", "EQUALS": "a=b", "LONG": None, "junk": None}
    assert found["LONG"] == "x" * labels.MAX_BYTES


class NoTracer:
    def executed(self, _pid: int) -> None:
        return None

    def ended_ns(self, _pid: int, _start_ns: int) -> None:
        return None


@pytest.mark.usefixtures("initial_namespace")
def test_labels_are_remembered_by_process_and_not_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from sockpid.event.event import decode
    from sockpid.owner import describe
    from tests.unit.event.test_event import owner, record

    describer = describe.Describer(NoTracer(), False, Wanted((), ("RANK",)))  # type: ignore[arg-type] # all it needs
    seen = decode(record(owner()))

    def told(pid: int, started: int) -> Any:
        document: dict[str, Any] = dict(seen.json(0, "btf", None), pid=pid, start_ns=started)
        return describer.complete(seen, document)["labels"]

    with sleeping(RANK="3") as child:
        try:
            started = start_ns(child.pid)
            until(lambda: b"RANK" in proc.read(child.pid, "environ"))
            assert told(child.pid, started) == {"env": {"RANK": "3"}, "reason": None}
            assert told(child.pid, started - 10**10) == {"env": None, "reason": "exited"}
        finally:
            child.kill()
    monkeypatch.setattr(describe, "KEEP_SECONDS", -1.0)
    describer._known[child.pid, started] = describer._known[child.pid, started]._replace(until=0.0)
    assert told(child.pid, started) == {"env": {"RANK": "3"}, "reason": None}, "it was the one"
    assert told(child.pid, started + 10**10) == {"env": None, "reason": "exited"}


@pytest.mark.usefixtures("initial_namespace")
def test_of_a_process_that_is_gone_the_control_group_still_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    from sockpid.event.event import decode
    from sockpid.owner import describe
    from tests.unit.event.test_event import owner, record

    describer = describe.Describer(NoTracer(), False, Wanted(("container", "cmdline")))  # type: ignore[arg-type] # as above
    monkeypatch.setattr(describer._cgroups, "path", lambda _id: f"/system.slice/docker-{A}.scope")
    seen = decode(record(owner()))
    found = describer.complete(seen, dict(seen.json(0, "btf", None)))["labels"]
    assert (found["container_id"], found["cmdline"], found["reason"]) == (A, None, "exited")


def test_processes_are_forgotten_in_time_and_beyond_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from sockpid.event.event import decode
    from sockpid.owner import describe
    from tests.unit.event.test_event import owner, record

    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(describe, "KEEP_PROCESSES", 100)
    describer = describe.Describer(NoTracer(), False, Wanted(("unit",)))  # type: ignore[arg-type] # as above
    seen = decode(record(owner()))

    def tell(number: int) -> None:
        describer.complete(seen, dict(seen.json(0, "btf", None), pid=1 << 22, start_ns=number))

    for number in range(90):
        tell(number)
        clock[0] += 1
    clock[0] += describe.FORGET_SECONDS - 45
    tell(7)  # asked for again: the latest
    assert sorted(start for _, start in describer._known) == [7, *range(45, 90)]
    for number in range(1000, 1300):
        tell(number)
    assert len(describer._known) == 100
    clock[0] += describe.FORGET_SECONDS + 2
    tell(1)
    assert list(describer._known) == [(1 << 22, 1)]


def test_control_groups_that_are_gone_are_remembered_but_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sockpid.host import cgroup

    monkeypatch.setattr(cgroup, "KEEP_GONE", 10)
    paths = cgroup.CgroupPaths(str(tmp_path))
    inodes = []
    for number in range(30):
        if number:
            # Its inode must not be given to the next one at once, or there is nothing to tell apart.
            (tmp_path / f"kept-{number}").rename(tmp_path.parent / f"{tmp_path.name}-gone-{number}")
        made = tmp_path / f"kept-{number + 1}"
        made.mkdir()
        inodes.append(made.stat().st_ino)
        paths._scan()
    assert len(paths._paths) == 1 + 1 + 10
    assert [paths._known(inode) is not None for inode in inodes] == [False] * 19 + [True] * 11


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")
