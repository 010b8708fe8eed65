"""What tests on this machine's kernel share: the command under test, and a workload beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sockpid.host import kernel
from tests import truth

ROOT = Path(__file__).parents[2]
RUNTIME = [sys.executable, "-I", "-S", str(ROOT / "runtime")]
REQUIRED = os.environ.get("SOCKPID_REQUIRE_KERNEL") == "1"


def cannot_load_bpf() -> str | None:
    """Why this machine cannot run the probe, or None."""
    if kernel.effective_capabilities() >> 21 & 1 == 0:
        return "needs CAP_SYS_ADMIN (or CAP_BPF and CAP_PERFMON)"
    result = subprocess.run([*RUNTIME, "doctor"], capture_output=True, text=True, check=False, timeout=60)
    return None if result.returncode == 0 else f"sockpid doctor says: {result.stdout}{result.stderr}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(item.path).parent == Path(__file__).parent]
    if not here:
        return
    reason = cannot_load_bpf()
    for item in here:
        item.add_marker(pytest.mark.kernel)
        if reason is not None and not REQUIRED:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def bpffs() -> Iterator[Path]:
    """A bpf file system of our own, which other users may enter."""
    mounted = Path(tempfile.mkdtemp(prefix="sockpid-bpffs-"))
    mounted.chmod(0o755)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
        mounted.rmdir()


class Ran(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Traced(NamedTuple):
    events: list[dict[str, Any]]
    truth: list[dict[str, Any]]
    stderr: str


def sockpid(*arguments: str, before: tuple[str, ...] = (), timeout: float = 60) -> Ran:
    """Runs the runtime from the checkout, as on a target. `before` is a command that runs it in turn."""
    done = subprocess.run(
        [*before, *RUNTIME, *arguments], capture_output=True, text=True, check=False, timeout=timeout, cwd="/"
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def attached(probe: subprocess.Popen[str]) -> str:
    """Waits until a `sockpid run` is ready, and returns what it said until then."""
    assert probe.stderr is not None
    said = ""
    while "sockpid: offsets from" not in said:
        line = probe.stderr.readline()
        assert line, f"the probe ended: {said}"
        said += line
    return said


def trace(workload: list[str], *arguments: str) -> Traced:
    """`sockpid run --json` beside a workload that begins once the probe is ready."""
    with subprocess.Popen(
        [*RUNTIME, "run", "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as probe:
        said = attached(probe)
        try:
            done = subprocess.run(workload, capture_output=True, text=True, check=True, timeout=120)
        finally:
            probe.terminate()
        stdout, stderr = probe.communicate(timeout=30)
    assert probe.returncode == 0, stderr
    return Traced(truth.parse_lines(stdout), truth.parse_lines(done.stdout), said + stderr)
