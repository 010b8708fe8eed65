"""What the running probe is still allowed to do: next to nothing, and it works all the same."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sockpid import errors, uapi
from sockpid.host import capability, kernel
from tests import truth

from .conftest import ROOT, RUNTIME, sockpid

WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py"), "--processes", "3", "--seconds", "2"]


LOOKING = frozenset({uapi.CAP_SYS_PTRACE, uapi.CAP_DAC_READ_SEARCH})
"""What it takes to see which sockets other users' processes have open."""


def sets(pid: int) -> dict[str, set[str]]:
    """The capability sets of every thread of a process, by name; NoNewPrivs as it stands there."""
    found: dict[str, set[str]] = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith(("Cap", "NoNewPrivs")):
                found.setdefault(line.split(":")[0], set()).add(line.split()[1].lstrip("0") or "0")
    return found


ON_OWN_PROC = """
umount -l /proc
mount -t proc -o "hidepid=$1" proc /proc
shift
exec "$@"
"""


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        ((), LOOKING),
        (("--no-witness",), frozenset()),
        (("--no-witness", "--sharers"), LOOKING),
        (("--no-witness", "--summary"), frozenset({uapi.CAP_SYS_PTRACE, uapi.CAP_SYS_ADMIN})),
    ],
)
@pytest.mark.parametrize("hidepid", [0, 2])
def test_capabilities_are_gone_and_events_still_come(
    arguments: tuple[str, ...], more: frozenset[int], hidepid: int
) -> None:
    """With a /proc of its own, be this machine's as it may."""
    command = ["unshare", "--mount", "sh", "-c", ON_OWN_PROC, "sh", str(hidepid), *RUNTIME, "run", "--json", *arguments]
    if hidepid:
        more |= {uapi.CAP_SYS_PTRACE}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
        assert probe.stderr is not None
        while "sockpid: offsets from" not in (line := probe.stderr.readline()):
            assert line
        try:
            now = sets(probe.pid)
            done = subprocess.run(WORKLOAD, capture_output=True, text=True, check=True, timeout=60)
        finally:
            probe.terminate()
        events, stderr = probe.communicate(timeout=30)
    expected = sum(1 << number for number in more | capability.for_maps(lambda: None))
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert now[name] == {f"{expected:x}"}, now
    assert now["CapInh"] == now["CapAmb"] == {"0"}
    assert now["NoNewPrivs"] == {"1"}
    verdict = truth.judge(truth.parse_lines(events), truth.parse_lines(done.stdout))
    assert (verdict.wrong, verdict.unknown) == ([], [])
    assert verdict.right > 5
    assert " 0 lost" in stderr
    if "--sharers" in arguments:
        assert any(event["sharers"] for event in truth.parse_lines(events))


def test_doctor_tells_what_run_keeps() -> None:
    document = json.loads(sockpid("doctor", "--json").stdout)
    assert "CAP_SYS_ADMIN" in document["capabilities_dropped"]
    assert not set(document["capabilities_kept"]) & set(document["capabilities_dropped"])
    text = sockpid("doctor").stdout
    assert "after attaching, run keeps " in text


SELFTEST_WITH = """
import ctypes, os, sys
libc, keep = ctypes.CDLL(None), {int(n) for n in sys.argv[1].split(",")}
for n in range(64):
    if n not in keep:
        libc.prctl(24, n, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_three_capabilities_are_enough_for_the_start() -> None:
    """CAP_BPF and CAP_PERFMON to load; CAP_NET_ADMIN because kernels have come to want it for the filter that makes the
    sockets of the self-check deaf."""
    before = (sys.executable, "-c", SELFTEST_WITH, f"{uapi.CAP_BPF},{uapi.CAP_PERFMON},{uapi.CAP_NET_ADMIN}")
    done = sockpid("selftest", "--json", before=before)
    assert done.status == 0, done
    assert json.loads(done.stdout)["ok"]


FILTER = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    try:
        listener.setsockopt(socket.SOL_SOCKET, 26, bytes(16))  # SO_ATTACH_FILTER, of no instructions
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("command", [("run", "--duration", "1"), ("selftest",)])
def test_without_a_self_check_nothing_is_reported(command: tuple[str, ...]) -> None:
    """Where the kernel keeps the filter from a process, that process gets a refusal, not events nobody has proved."""
    before = (sys.executable, "-c", SELFTEST_WITH, f"{uapi.CAP_BPF},{uapi.CAP_PERFMON}")
    tried = subprocess.run([*before, sys.executable, "-c", FILTER], capture_output=True, text=True, check=True)
    done = sockpid(*command, before=before)
    if tried.stdout.strip() == "PermissionError":
        assert (done.status, done.stdout) == (errors.CapabilityError.exit_code, ""), done
        assert "lacks CAP_NET_ADMIN" in done.stderr
    else:
        assert done.status == 0, done


def test_the_trial_puts_everything_back() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = kernel.capability_sets()
    seen: list[int] = []
    assert capability.for_maps(lambda: seen.append(kernel.capability_sets().effective)) == frozenset()
    assert seen == [0]
    assert kernel.capability_sets() == before


def test_numbers_and_names_are_the_kernels() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(capability.NAMES) >= last + 1
    assert all(capability.NAMES[value] == name for name, value in vars(uapi).items() if name.startswith("CAP_"))
    assert ctypes.CDLL(None).prctl(23, uapi.CAP_BPF, 0, 0, 0) in (0, 1)  # PR_CAPBSET_READ knows it
