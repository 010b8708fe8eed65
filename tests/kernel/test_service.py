"""What the installed unit runs, as it runs it: its command line, its capabilities, its end and its next start."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockpid.deploy import unit
from sockpid.errors import UnknownKernelError
from sockpid.host import capability
from sockpid.subjects.deaf import Pair
from tests import bundles, truth
from tests.kernel.conftest import attached

WORKLOAD = [sys.executable, "-I", "-S", str(bundles.ROOT / "tests/workload.py"), "--processes", "3", "--seconds", "1"]
WITH = """
import ctypes, os, sys
libc, keep = ctypes.CDLL(None), {int(n) for n in sys.argv[1].split(",")}
for n in range(64):
    if n not in keep:
        libc.prctl(24, n, 0, 0, 0)  # PR_CAPBSET_DROP
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, like MemoryDenyWriteExecute; EINVAL before Linux 6.3
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the installed unit, with no capabilities but the unit's."""
    root = tmp_path_factory.mktemp("root")
    bundle = bundles.make(root / "sockpid.pyz", "--arch", os.uname().machine, "--without-pyroute2")
    install = [sys.executable, "-I", "-S", str(bundle), "install", "--root", str(root), "--python", sys.executable]
    subprocess.run(install, check=True, capture_output=True)
    text = (root / "usr/local/lib/systemd/system" / unit.NAME).read_text()
    start, names = re.search(r"^ExecStart=(.*)$", text, re.M), re.search(r"^CapabilityBoundingSet=(.*)$", text, re.M)
    assert start
    assert names
    command = [word for word in shlex.split(start[1]) if word != "$SOCKPID_OPTIONS"]
    command[command.index("/usr/local/lib/sockpid/sockpid.pyz")] = f"{root}/usr/local/lib/sockpid/sockpid.pyz"
    numbers = ",".join(str(capability.NAMES.index(name)) for name in names[1].split())
    return [sys.executable, "-c", WITH, numbers, *command]


def test_it_names_owners_and_survives_a_restart(service: list[str]) -> None:
    for _ in range(2):
        with subprocess.Popen(service, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
            assert probe.stderr is not None
            said = ""
            while "sockpid: offsets from" not in (line := probe.stderr.readline()):
                assert line, said
                said += line
            assert "self-check" not in said  # nothing was skipped for want of a capability
            try:
                done = subprocess.run(WORKLOAD, capture_output=True, text=True, check=True, timeout=60)
            finally:
                probe.terminate()
            events, _ = probe.communicate(timeout=30)
        assert probe.returncode == 0
        verdict = truth.judge(truth.parse_lines(events), truth.parse_lines(done.stdout))
        assert (verdict.wrong, verdict.unknown, verdict.owners) == ([], [], 3)


@pytest.mark.parametrize("version", bundles.PYTHONS)
def test_every_python_does_without_memory_that_is_written_and_executed(service: list[str], version: str) -> None:
    python = bundles.interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    command = [python if word == sys.executable and at else word for at, word in enumerate(service)]
    assert command.count(python) == 1
    done = subprocess.run([*command, "--duration", "0.1"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "self-check" in done.stderr) == (0, False), done.stderr


def test_it_keeps_owners_across_a_restart(service: list[str], bpffs: Path) -> None:
    """With the unit's capabilities and no more, for sockets that nobody touches after the first start."""
    command = [*service, "--pin", str(bpffs / "service"), "--no-seed"]
    pair = Pair("inet")
    try:
        for turn in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
                said = attached(probe)
                if turn == 0:
                    pair.send()
                time.sleep((0.7, 5)[turn])  # sent again after 0.2, 0.6, 1.4, 3, 6.2 seconds
                probe.terminate()
                events, _ = probe.communicate(timeout=30)
            assert probe.returncode == 0
            assert ("took over" in said) == (turn == 1)
            mine = truth.of(pair.tuple, truth.parse_lines(events))
            assert mine
            assert {event["pid"] for event in mine} == {os.getpid()}
    finally:
        pair.close()


def test_a_kernel_that_it_does_not_know_is_refused_and_not_tried_again(service: list[str]) -> None:
    """After a kernel change: without an entry and without BTF it says so, and systemd does not start it for ever."""
    other = bundles.make(
        Path(next(w for w in service if w.endswith("sockpid.pyz"))).with_name("other.pyz"),
        "--series",
        "5.10",
        "--without-pyroute2",
    )
    command = [str(other) if word.endswith("sockpid.pyz") else word for word in service]
    done = subprocess.run([*command, "--deny", "live-btf"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == UnknownKernelError.exit_code
    assert os.uname().release in done.stderr
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", unit.UNIT, re.M)
    assert prevented
    assert str(done.returncode) in prevented[1].split()


def test_a_full_disk_ends_it_with_a_message(service: list[str]) -> None:
    with open("/dev/full", "w") as full:
        probe = subprocess.Popen([*service, "--duration", "20"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert probe.stderr is not None
        while "sockpid: offsets from" not in (line := probe.stderr.readline()):
            assert line
        subprocess.run(WORKLOAD, capture_output=True, check=True, timeout=60)
        _, stderr = probe.communicate(timeout=40)
    assert probe.returncode == 1, stderr
    assert "No space left on device" in stderr
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", unit.UNIT, re.M)
    assert prevented
    assert "1" not in prevented[1].split()  # there may be room again
