"""The programs of docs/examples, run for real. That for the pinned map in C and Rust is in tests/kernel/test_pin.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid.subjects.deaf import drop_everything
from tests import truth
from tests.kernel.conftest import REQUIRED, RUNTIME, attached, cannot_load_bpf
from tests.streams import document, unknown

from .page import ROOT

EXAMPLES = ROOT / "docs/examples"
FOLLOW = [sys.executable, "-I", "-S", str(EXAMPLES / "follow.py")]
WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]


@pytest.fixture(name="probe")
def _probe() -> None:
    if not REQUIRED and (reason := cannot_load_bpf()):
        pytest.skip(reason)


def test_every_example_has_a_line() -> None:
    page = (EXAMPLES / "README.md").read_text()
    named = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".c", ".rs", ".patch")}
    assert named == {name for name in re.findall(r"\[([\w.-]+)\]\(\1\)", page) if not name.endswith(".yml")}


def test_a_follower_says_what_is_not_known() -> None:
    lines = [document(), unknown("evicted"), document(certain=False, doubt="not-held", exited=True)]
    lines += [
        document(comm="\x1b[2Jinit"),
        document(pid=None, comm=None, how="kernel"),
        {"schema": 1, "ts_ns": 1, "dropped": 3, "host": "node-1"},
    ]
    given = "".join(json.dumps(line) + "\n" for line in lines)
    told = subprocess.run([*FOLLOW, "-"], input=given, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(": ")[1] for line in told] == [
        "python3[4711]", "unknown (evicted)", "python3[4711] (gone), but not-held",
        "?[2Jinit[4711]", "the kernel", "3 events missed"
    ]  # fmt: skip


@pytest.mark.kernel
def test_a_follower_names_the_owners(probe: None, tmp_path: Path) -> None:
    place = str(tmp_path / "events.sock")
    command = [*RUNTIME, "run", "--output", f"unix:{place}", "--host", "node-7"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        attached(run)
        with subprocess.Popen([*FOLLOW, place], stdout=subprocess.PIPE, text=True) as following:
            done = subprocess.run([*WORKLOAD, "--processes", "3"], capture_output=True, text=True, check=True)
            run.terminate()
            assert following.stdout is not None
            told = following.stdout.read()
        run.communicate(timeout=30)
    for true in truth.parse_lines(done.stdout):
        ends = [f"[{a}]" if ":" in a else a for a in (true["saddr"], true["daddr"])]
        of_socket = f" {ends[0]}:{true['sport']} > {ends[1]}:{true['dport']} "
        found = [line for line in told.splitlines() if of_socket in line]
        assert found, of_socket
        assert all(line.startswith(f"node-7: {true['comm']}[{true['pid']}]: ") for line in found), found


def info(of: socket.socket) -> int:
    """tcp_info.tcpi_bytes_acked."""
    (acked,) = struct.unpack_from("=Q", of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), 120)
    return int(acked)


@pytest.fixture(scope="module", name="changed")
def _changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the tree to which the patch was applied, with images and tables that were made of it."""
    if shutil.which("clang-14") is None:
        pytest.skip("needs clang-14, which images are compiled with")
    copy = tmp_path_factory.mktemp("changed") / "sockpid"
    apart = shutil.ignore_patterns(".git", ".venv", "build", "dist", ".cache", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, copy, ignore=apart, symlinks=True)
    (copy / ".venv").symlink_to(sys.prefix)  # `make` finds it made already
    os.utime(copy / "pyproject.toml", (0, 0))

    def run(*command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{copy / 'gen'}:{copy / 'runtime'}", "GIT_CEILING_DIRECTORIES": "/"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run("git", "apply", "docs/examples/new-field.patch")
    run("make", "-s", "image")
    run(sys.executable, "-m", "sockpid_gen", "refresh")
    run(sys.executable, "-m", "sockpid_gen", "check")
    tests = ["tests/unit/event", "tests/unit/image/test_digests.py", "tests/unit/image/test_programs.py"]
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    yield copy
    shutil.rmtree(copy.parent)


def test_a_new_field_is_in_the_table_of_every_kernel(changed: Path) -> None:
    for shard in (changed / "offsets").rglob("[0-9]*.json"):
        rows = [row for row in json.loads(shard.read_text())["structs"].values() if row["name"] == "struct tcp_sock"]
        assert rows
        assert all(row["fields"]["bytes_acked"]["size"] == 8 for row in rows), shard


@pytest.mark.kernel
def test_a_new_field_is_proved_and_told(probe: None, changed: Path) -> None:
    runtime = [sys.executable, "-I", "-S", str(changed / "runtime")]
    said = json.loads(subprocess.run([*runtime, "selftest", "--json"], capture_output=True, check=True).stdout)
    assert said["fields"]["struct tcp_sock.bytes_acked"]["ok"]
    command = [*runtime, "run", "--json", "--pid", str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        attached(run)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            near = socket.create_connection(listening.getsockname())
            far = listening.accept()[0]
        with near, far:
            near.sendall(bytes(1000))
            assert len(far.recv(1000, socket.MSG_WAITALL)) == 1000
            drop_everything(far)
            for _ in range(2):
                near.send(b"x")
            time.sleep(2)
            acked, port = info(near), near.getsockname()[1]
        run.terminate()
        stdout, _ = run.communicate(timeout=30)
    found: list[dict[str, Any]] = [event for event in truth.parse_lines(stdout) if event["sport"] == port]
    assert acked in (1000, 1001)
    assert len(found) > 2  # the first line is made the long way, later ones of its template
    assert {event["bytes_acked"] for event in found} == {acked}
    assert all("bytes_acked" in event for event in found)
