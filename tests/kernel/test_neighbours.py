"""The neighbours of `make living` do what they are there for, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockpid.host import kernel, proc
from tests import neighbours
from tests.kernel.conftest import ROOT
from tests.kernel.test_run import Probe


def traces() -> list[str]:
    """What of them is on this machine: directories, and mounts in them."""
    mounted = [mount.path for mount in proc.mounts() if "/neighbours-" in mount.path]
    return [*map(str, Path("/run").glob("neighbours-*")), *mounted]


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_they_come_and_go(number: int | None) -> None:
    before = traces()
    command = [sys.executable, "-m", "tests.neighbours", "--seconds", "3"]
    probe = Probe("--json", "--no-seed")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == f"{neighbours.READY}\n"
        children = Path(f"/proc/{there.pid}/task/{there.pid}/children").read_text().split()
        assert len(children) == len(neighbours.ALL) + 1
        came = set(traces()) - set(before)
        assert len([path for path in came if path.endswith("named")]) == 2
        assert [path for path in came if path.endswith("named") and not os.path.exists(path)]
        time.sleep(1)
        if number is not None:
            there.send_signal(number)
    assert there.returncode == 0
    assert set(traces()) <= set(before)
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]
    theirs = [event for event in probe.finish() if str(event["pid"]) in children]
    assert {event["family"] for event in theirs} == {"inet", "inet6"}
    assert {event["netns"] for event in theirs} > {kernel.netns_inode()}


def test_one_that_fails_ends_them_all() -> None:
    """A neighbour that is gone must not be missed unseen."""
    before = traces()
    command = [sys.executable, "-m", "tests.neighbours", "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == f"{neighbours.READY}\n"
        children = Path(f"/proc/{there.pid}/task/{there.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
    assert there.returncode == 1
    assert set(traces()) <= set(before)
