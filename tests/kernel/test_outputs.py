"""Outputs and labels of the real command, with real retransmits."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import jsonschema
import pytest

from sockpid.subjects.deaf import Pair
from tests import truth
from tests.kernel.conftest import ROOT, sockpid
from tests.kernel.test_run import Probe, summary

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/events.schema.json").read_text()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def test_every_output_tells_the_same_events(tmp_path: Path) -> None:
    """Journald, syslog, file, socket, Prometheus and standard output at once, and every line meets the schema."""
    port = free_port()
    daemons = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    for name, daemon in zip(("log", "journal"), daemons, strict=True):
        daemon.bind(str(tmp_path / name))
        daemon.setblocking(False)
    specs = [
        "json", f"file:{tmp_path}/events.jsonl", f"unix:{tmp_path}/events.sock", f"syslog:{tmp_path}/log",
        f"journald:{tmp_path}/journal", f"prometheus:127.0.0.1:{port},labels=kind+comm+env.RANK",
    ]  # fmt: skip
    arguments = [word for spec in specs for word in ("--output", spec)]
    probe = Probe(
        *arguments, "--pid", str(os.getpid()), "--labels", "--label-env", "PATH", "--summary", "--json", "--sharers"
    )
    pair = Pair("inet")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as reader:
            reader.connect(str(tmp_path / "events.sock"))
            time.sleep(0.2)
            pair.send()
            deadline, followed = time.monotonic() + 10, b""
            while followed.count(b"\n") < 2 and time.monotonic() < deadline:
                followed += reader.recv(1 << 16)
        time.sleep(0.3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        events = probe.finish()
    finally:
        pair.close()
    ours = truth.of(pair.tuple, events)
    assert len(ours) >= 2
    for event in events:
        SCHEMA.validate(event)
    written = truth.parse_lines((tmp_path / "events.jsonl").read_text())
    assert written == events
    assert all(event in events for event in truth.parse_lines(followed.decode()))
    for event in ours:
        assert event["labels"]["env"] == {"PATH": os.environ["PATH"]}
        assert "pytest" in event["labels"]["cmdline"]
        assert event["labels"]["reason"] is None
        assert event["host"] == os.uname().nodename
    for daemon, needle in zip(daemons, (b'pid="%d"', b"SOCKPID_PID=%d\n"), strict=True):
        got = [daemon.recv(1 << 16) for _ in events]
        assert sum(needle % os.getpid() in datagram for datagram in got) >= len(ours)
        daemon.close()
    assert 'sockpid_retransmits_total{kind="' in metrics
    rows = {row["output"]: row for row in summary(probe.stderr)["outputs"]}
    assert len(rows) == 6
    assert all(row["offered"] == row["written"] == len(events) and row["dropped"] == 0 for row in rows.values()), rows


def test_sighup_opens_files_anew_and_does_not_end_the_run(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    probe = Probe("--output", f"file:{path}", "--comm", "nobody-is-called-so")
    path.rename(tmp_path / "moved")
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        probe.signal(signal.SIGHUP)
        time.sleep(0.1)
    assert path.exists()
    assert probe.finish() == []


@pytest.mark.parametrize("later", [None, "node-8"])
def test_a_gap_is_of_the_host_that_events_are_of(tmp_path: Path, later: str | None) -> None:
    """Also once a reload has given it another name."""
    config, path = tmp_path / "config.json", tmp_path / "events.sock"
    pair = Pair("inet")
    only = {"port": pair.tuple.sport, "pid": os.getpid()}  # the port may be that of others, too
    options = {"output": [f"unix:{path},buffer=1", "json"], "host": "node-7", "no-seed": True, **only}
    config.write_text(json.dumps(options))
    try:
        probe = Probe("--config", str(config))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as reader:
            reader.connect(str(path))
            if later is not None:
                config.write_text(json.dumps({**options, "host": later}))
                probe.signal(signal.SIGHUP)
                probe.until("reloaded")
            pair.send()
            time.sleep(1)
            events = probe.finish()
            with reader.makefile("rb") as file:
                gaps = truth.parse_lines(file.read().decode())
    finally:
        pair.close()
    for each in (*gaps, *events):
        SCHEMA.validate(each)
    assert {each["host"] for each in events} == {each["host"] for each in gaps} == {later or "node-7"}
    assert sum(each["dropped"] for each in gaps) == len(events)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--output", "pipe"], 2, "none of table, json"),
        (["--output", "table", "--json"], 2, "both want standard output"),
        (["--output", "file:/no/such/directory/x"], 18, "No such file or directory"),
        (["--labels", "colour"], 2, "--labels: colour is none of"),
        (["--count", "--output", "json"], 2, "--count prints sums"),
    ],
)
def test_mistakes_are_told_before_anything_is_attached(arguments: list[str], status: int, said: str) -> None:
    ran = sockpid("run", *arguments)
    assert (ran.status, ran.stdout) == (status, "")
    assert said in ran.stderr
    assert "offsets from" not in ran.stderr


def test_a_reader_that_closes_the_pipe_ends_the_run_quietly() -> None:
    pair = Pair("inet")
    try:
        probe = Probe("--json")
        assert probe._process.stdout is not None
        probe._process.stdout.close()
        pair.send()
        assert probe._process.wait(20) == 0
        assert probe._process.stderr is not None
        said = probe._process.stderr.read()
        probe._process.stderr.close()
        assert "Traceback" not in said
        assert "closed" not in said
    finally:
        pair.close()


def test_a_reader_that_hangs_does_not_hold_up_the_end() -> None:
    """The pipe is full and nobody reads: the run ends within about a second, and counts what is lost."""
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(write, True)
        pair = Pair("inet")
        try:
            probe = Probe("--json", "--summary", stdout=write)
            pair.send()
            time.sleep(1)
            started = time.monotonic()
            probe.finish()
            took = time.monotonic() - started
        finally:
            pair.close()
        (row,) = summary(probe.stderr)["outputs"]
        assert row["dropped"] == row["offered"] >= 2
        assert took < 4
    finally:
        os.close(read)
        os.close(write)
