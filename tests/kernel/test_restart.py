"""A restart in the middle of traffic: no owner is forgotten, none is made up, and what nobody saw is counted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sockpid.errors import PinError
from sockpid.subjects.deaf import Pair
from tests import truth
from tests.kernel.conftest import ROOT, RUNTIME, attached, sockpid

WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]


@pytest.fixture
def directory(bpffs: Path) -> str:
    return str(bpffs / f"r{time.monotonic_ns()}")


class Daemon:
    """`sockpid run --keep --no-seed`: what it knows of older sockets it has from the one before."""

    def __init__(self, directory: str, *arguments: str, keep: bool = True) -> None:
        command = [*RUNTIME, "run", "--json", "--pin", directory, *(["--keep"] if keep else []), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = attached(self.process)

    def end(self, number: int) -> list[dict[str, Any]]:
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=30)
        self.said += stderr
        assert self.process.returncode == (-number if number == signal.SIGKILL else 0), self.said
        # The last line of one that was killed may be half a line.
        whole = stdout[: stdout.rfind("\n") + 1]
        return truth.parse_lines(whole)


def status(directory: str, running: bool) -> dict[str, Any]:
    ran = sockpid("status", "--json", "--pin", directory)
    assert ran.status == (0 if running else 1), ran
    told: dict[str, Any] = json.loads(ran.stdout)
    assert told["running"] is running
    return told


def retransmits() -> int:
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(rows[1][rows[0].index("RetransSegs")])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_owners_outlive_their_daemon(directory: str, number: int) -> None:
    """Sockets that are idle, in use, closed by their process, and of a process that is gone; and one that dies in the
    gap, whose addresses and ports another process takes over."""
    first = Daemon(directory, "--no-seed")
    ours = [Pair(family) for family in ("inet", "inet6", "mapped")]
    orphan, reused = Pair("inet"), Pair("inet")
    with subprocess.Popen(
        [*WORKLOAD, "--processes", "4", "--name", "other", "--seconds", "9"], stdout=subprocess.PIPE, text=True
    ) as others:
        for pair in (*ours, orphan, reused):
            pair.send()
        orphan.sender.close()  # its segments are sent again for nobody
        time.sleep(1.3)
        told = first.end(number)
        record = status(directory, running=False)
        assert record["kept"]
        assert record["state"] == ("running" if number == signal.SIGKILL else "ended")
        # In the gap: a socket ends, and another process has its addresses and ports.
        local, remote = reused.sender.getsockname(), reused.sender.getpeername()
        reused.close()
        before = retransmits()
        thief = subprocess.Popen([*PYTHON, THIEF, *map(str, (*local, *remote))], stdout=subprocess.PIPE, text=True)
        assert thief.stdout is not None
        taken = json.loads(thief.stdout.readline())
        time.sleep(1.0)
        missed = retransmits() - before
        second = Daemon(directory, "--no-seed")
        time.sleep(2.5)
        now = status(directory, running=True)
        told += (late := second.end(signal.SIGTERM))
        thief.kill()
        thief.communicate()
        true = truth.parse_lines(others.communicate(timeout=60)[0])
    for pair in ours:
        true.append({"pid": os.getpid(), "comm": Path("/proc/self/comm").read_text().strip(), **pair.tuple._asdict()})
        pair.close()
    for opened in orphan._sockets:
        opened.close()
    verdict = truth.judge(told, true)
    assert verdict.wrong == []
    assert verdict.unknown == []
    after = truth.judge(late, true)
    assert (after.wrong, after.unknown, after.owners) == ([], [], 5)
    lost = truth.of(orphan.tuple, late)
    assert lost
    assert {e["pid"] for e in lost} == {os.getpid()}
    stolen = [e for e in late if (e["saddr"], e["sport"], e["dport"]) == (local[0], local[1], remote[1])]
    assert stolen
    assert {e["pid"] for e in stolen} <= {None, taken["pid"]}
    gap = now["gap"]
    assert gap["seconds"] >= 1.0
    assert gap["retransmits"] >= missed >= 4
    # Of a killed one the last count is of up to a second before, and what any namespace raised since is taken off.
    assert gap["unseen"] >= missed - (gap["seen"] if number == signal.SIGKILL else 0)
    assert f"{gap['unseen']} retransmits not seen" in second.said
    assert "took over" in second.said
    assert now["owners"] >= 12 + 3


PYTHON = [sys.executable, "-I", "-S", "-c"]
THIEF = """
import json, os, socket, struct, sys, time
local, remote = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4]))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(remote)
listener.listen()
sender = socket.socket()
sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sender.bind(local)
sender.connect(remote)
receiver = listener.accept()[0]
code = struct.pack("=HBBI", 6, 0, 0, 0)
import ctypes
buffer = ctypes.create_string_buffer(code)
receiver.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(buffer)))
sender.send(b"x")
print(json.dumps({"pid": os.getpid()}), flush=True)
time.sleep(60)
"""


def test_an_event_that_a_killed_daemon_did_not_read_is_told_by_the_next(directory: str) -> None:
    first = Daemon(directory)
    pair = Pair("inet")
    try:
        os.kill(first.process.pid, signal.SIGSTOP)
        pair.send()
        time.sleep(1.0)
        assert not truth.of(pair.tuple, first.end(signal.SIGKILL))
        second = Daemon(directory)
        gap = status(directory, running=True)["gap"]
        events = truth.of(pair.tuple, second.end(signal.SIGTERM))
        assert gap["waiting"] >= 2
        assert sorted(e["total_retrans"] for e in events)[:2] == [1, 2]
        assert {e["pid"] for e in events} == {os.getpid()}
    finally:
        pair.close()


def test_a_listening_socket_that_is_made_anew_in_the_gap_was_seen_by_nobody(directory: str) -> None:
    """Its memory and its port are those of the one before: the likeliest way to a wrong owner. Who has it open is told
    as just that."""
    first = Daemon(directory, "--no-seed")
    one = socket.create_server(("127.0.0.1", 0))
    port = one.getsockname()[1]
    first.end(signal.SIGKILL)
    one.close()
    with socket.socket() as two:
        two.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        two.bind(("127.0.0.1", port))
        two.listen()
        second = Daemon(directory, "--no-seed")
        found = sockpid("lookup", f"127.0.0.1:{port}", "--pin", directory)
        second.end(signal.SIGTERM)
    assert found.status == 0, found.stdout
    (line,) = found.stdout.splitlines()[1:]
    assert f" {os.getpid()} " in line
    assert " holder " in line


HEIR = """
import socket, sys
given = socket.socket(fileno=int(sys.argv[1]))
given.send(b"x")
print("sent", flush=True)
sys.stdin.readline()
given.shutdown(socket.SHUT_WR)
sys.stdin.readline()
"""


@pytest.mark.parametrize("keeps", [True, False], ids=["both-have-it", "handed-on"])
def test_a_socket_that_another_process_used_in_the_gap_is_not_surely_ours(directory: str, keeps: bool) -> None:
    """A child sends while no daemon runs. With the next one there, it only ends the connection, which few hooks see."""
    first = Daemon(directory, "--no-seed")
    pair = Pair("inet")
    try:
        pair.send()
        time.sleep(0.5)
        assert {event["pid"] for event in truth.of(pair.tuple, first.end(signal.SIGTERM))} == {os.getpid()}
        fd = pair.sender.fileno()
        with subprocess.Popen(
            [*PYTHON, HEIR, str(fd)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[fd]
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "sent\n"
            if not keeps:
                pair._sockets.remove(pair.sender)
                pair.sender.close()
            second = Daemon(directory, "--no-seed")
            child.stdin.write("end\n")
            child.stdin.flush()
            time.sleep(3.5)  # by now a timer has waited long between two attempts
            events = truth.of(pair.tuple, second.end(signal.SIGTERM))
            child.communicate("end\n", timeout=10)
    finally:
        pair.close()
    assert events
    for event in events:
        assert event["pid"] in (os.getpid(), child.pid), event
        assert event["pid"] == child.pid or event["doubt"] in ("inherited", "not-held"), event


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--max-sockets", "1024"], "another max_sockets"), (["--deny", "fentry"], "another deny")],
)
def test_another_probe_looks_owners_up_anew(directory: str, arguments: list[str], reason: str) -> None:
    Daemon(directory).end(signal.SIGKILL)
    pair = Pair("inet")
    try:
        second = Daemon(directory, *arguments)
        assert reason in second.said
        assert "took over" not in second.said
        pair.send()
        time.sleep(0.8)
        events = truth.of(pair.tuple, second.end(signal.SIGTERM))
        assert {e["pid"] for e in events} == {os.getpid()}
    finally:
        pair.close()


def test_one_that_does_not_keep_leaves_nothing(directory: str) -> None:
    Daemon(directory).end(signal.SIGKILL)
    assert len([p for p in Path(directory).rglob("*") if not p.is_dir()]) == 9
    Daemon(directory, keep=False).end(signal.SIGTERM)
    assert [p for p in Path(directory).rglob("*") if not p.is_dir()] == []
    assert sockpid("status", "--pin", directory).stdout.startswith("not running")


def test_a_second_is_told_who_is_there(directory: str) -> None:
    first = Daemon(directory)
    try:
        second = sockpid("run", "--pin", directory, "--duration", "1")
        assert second.status == PinError.exit_code
        since = time.strftime("%Y-%m-%d %H:", time.localtime(os.stat(f"/proc/{first.process.pid}").st_ctime))
        assert f"in use by another sockpid (pid {first.process.pid}, since {since}" in second.stderr
        told = sockpid("status", "--pin", directory)
        assert told.status == 0
        for wanted in (f"pid {first.process.pid}", os.uname().release, "raw_tp tcp_destroy_sock", "keeps owners"):
            assert wanted in told.stdout
        record = status(directory, running=True)
        assert {"confirmed", "contradicted", "unchecked", "uncertain", "missed"} <= record.keys()
        assert re.search(r"^checked +\d+ owners confirmed, \d+ contradicted, \d+ not checked$", told.stdout, re.M)
        assert re.search(r"^doubts +\d+ owners uncertain, \d+ runs of hooks passed over$", told.stdout, re.M)
        assert (record["schema"], record["pid"], record["state"]) == (1, first.process.pid, "running")
        assert record["hooks"]["destroy"].endswith("tcp_destroy_sock")
        assert time.time() - record["beat"] < 10
    finally:
        with contextlib.suppress(ProcessLookupError):
            first.end(signal.SIGTERM)


def test_status_where_nothing_is(bpffs: Path, tmp_path: Path) -> None:
    told = sockpid("status", "--pin", str(bpffs / "nothing"))
    assert (told.status, "nothing pins in" in told.stdout) == (1, True)
    assert sockpid("status", "--pin", str(tmp_path)).status == 2
