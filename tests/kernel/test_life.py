"""The life of a daemon: what its manager is told, reloads and ends, with real retransmits meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import truth
from tests.kernel.conftest import RUNTIME, attached
from tests.kernel.test_run import WORKLOAD


class Manager:
    """In systemd's place: a socket that a service tells its state to."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.heard: list[tuple[float, str]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.name)

    def wait(self, wanted: str, seconds: float = 30) -> str:
        """Until a datagram that begins so."""
        end = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            message = self.socket.recv(4096).decode()
            self.heard.append((time.monotonic(), message))
            if message.startswith(wanted):
                return message

    def drain(self) -> None:
        self.socket.settimeout(0.01)
        with contextlib.suppress(TimeoutError):
            while True:
                self.heard.append((time.monotonic(), self.socket.recv(4096).decode()))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


def start(manager: Manager, *arguments: str, watchdog: float = 2.0) -> subprocess.Popen[str]:
    environ = {**os.environ, "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": str(int(watchdog * 1e6))}
    return subprocess.Popen(
        [*RUNTIME, "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )


def test_the_manager_hears_of_start_life_and_end(manager: Manager) -> None:
    with start(manager, "--json") as daemon:
        try:
            said = attached(daemon)
            manager.wait("READY=1")
            assert not [m for _, m in manager.heard[:-1] if m.startswith("WATCHDOG")]
            for _ in range(4):
                manager.wait("WATCHDOG=1", 3)
            beats = [moment for moment, message in manager.heard if message == "WATCHDOG=1"]
            assert all(later - earlier < 2.0 for earlier, later in itertools.pairwise(beats)), said
            subprocess.run([*WORKLOAD, "--processes", "1", "--seconds", "1"], check=True, capture_output=True)
            assert "0 lost" in manager.wait("STATUS=")
        finally:
            started = time.monotonic()
            daemon.terminate()
            daemon.communicate(timeout=30)
        assert daemon.returncode == 0
        assert time.monotonic() - started < 3  # it takes a second; this host may be busy
        manager.drain()
        assert manager.heard[-1][1].startswith("STOPPING=1")


def test_a_daemon_that_hangs_gives_no_sign_of_life(manager: Manager) -> None:
    with start(manager, "--json", watchdog=1.0) as daemon:
        try:
            attached(daemon)
            manager.wait("WATCHDOG=1")
            daemon.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            manager.drain()
            manager.heard.clear()
            time.sleep(1.5)
            manager.drain()
            assert manager.heard == []
            daemon.send_signal(signal.SIGCONT)
            manager.wait("WATCHDOG=1")
        finally:
            daemon.send_signal(signal.SIGCONT)
            daemon.terminate()
            daemon.communicate(timeout=30)


@contextlib.contextmanager
def in_peace(path: Path) -> Iterator[None]:
    """A probe that writes the same events into a file, and is told nothing meanwhile."""
    command = [*RUNTIME, "run", "--output", f"file:{path}", "--comm", "load-*"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
        try:
            attached(probe)
            yield
        finally:
            probe.terminate()
            probe.communicate(timeout=30)
    assert probe.returncode == 0


def named(events: list[dict[str, Any]], until: int) -> set[tuple[Any, ...]]:
    return {(e["saddr"], e["sport"], e["seq"], e["total_retrans"]) for e in events if e["ts_ns"] <= until}


def missing(events: list[dict[str, Any]], others: list[dict[str, Any]], until: int) -> list[tuple[Any, ...]]:
    """Those until a moment (Unix time, ns) that the others do not have."""
    return sorted(named(events, until) - named(others, 2 * until))


def test_reloads_lose_no_event(manager: Manager, tmp_path: Path) -> None:
    """Under traffic: outputs and labels change, a bad file changes nothing, and each event is somewhere, once.

    Which events there are says a probe left in peace: not every kernel runs BPF programs wherever it retransmits.
    """
    config, first, second = tmp_path / "config.toml", tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    config.write_text(f'output = ["file:{first}"]\nport = 1\n')
    witness = tmp_path / "witness.jsonl"
    with start(manager, "--config", str(config), "--summary") as daemon, in_peace(witness):
        try:
            attached(daemon)
            manager.wait("READY=1")
            config.write_text(f'output = ["file:{first}"]\ncomm = "load-*"\nmax-sockets = 99\n')
            daemon.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in manager.wait("RELOADING=1")
            manager.wait("READY=1")
            with subprocess.Popen(
                [*WORKLOAD, "--processes", "6", "--copies", "20", "--name", "load", "--seconds", "4"],
                stdout=subprocess.PIPE,
                text=True,
            ) as load:
                for number in range(12):
                    time.sleep(0.2)
                    if number == 5:
                        config.write_text("outputs = 1\n")
                    else:
                        where = (first, second)[number % 2]
                        env = 'label-env = ["PATH"]\n' if number % 2 else ""
                        config.write_text(f'output = ["file:{where}"]\n{env}comm = "load-*"\n')
                    daemon.send_signal(signal.SIGHUP)
                    manager.wait("READY=1")
                load.wait(60)
                ended = time.time_ns()
        finally:
            daemon.terminate()
            _, stderr = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, stderr
    assert stderr.count("reloaded") == 12
    assert stderr.count("reload refused, all stays as it was") == 1
    assert "unknown option 'outputs'; the nearest is 'output'" in stderr
    told = [truth.parse_lines(path.read_text()) for path in (first, second)]
    assert all(told)
    events = [event for one in told for event in one]
    assert all(event["comm"].startswith("load-") for event in events)
    assert {event["labels"]["env"]["PATH"] for event in told[1]} == {os.environ["PATH"]}
    assert not any(event["labels"] for event in told[0])
    assert len(events) == len(named(events, 2 * ended))
    assert len({(event["saddr"], event["sport"]) for event in events}) == 360
    # Meanwhile both were attached. Their clocks are one, but an event is stamped by each program.
    seen = truth.parse_lines(witness.read_text())
    assert missing(seen, events, ended) == missing(events, seen, ended) == [], stderr
    assert " 0 lost" in stderr
    assert not [line for line in stderr.splitlines() if "dropped" in line and not line.endswith(" 0 dropped")]
