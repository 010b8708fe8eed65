"""What `sockpid run` does beside naming owners: nothing is lost silently, sums agree, filters hold, seeds serve."""

from __future__ import annotations

import collections
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sockpid.event.socket_tuple import SocketTuple, unpack
from sockpid.host import kernel
from sockpid.probe import tracer as tracer_module
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.subjects.deaf import Pair, drop_everything
from tests import truth
from tests.kernel.conftest import ROOT, RUNTIME, sockpid, trace

WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]


def summary(stderr: str) -> dict[str, Any]:
    line = next(line for line in stderr.splitlines() if line.startswith('sockpid: {"summary"'))
    told: dict[str, Any] = json.loads(line.partition(": ")[2])
    return told


class Probe:
    """A probe in the background, ready when entered."""

    def __init__(self, *arguments: str, stdout: int = subprocess.PIPE) -> None:
        self.stdout = self.stderr = ""
        self._process = subprocess.Popen(
            [*RUNTIME, "run", *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        self.until("offsets from")

    def until(self, said: str) -> None:
        assert self._process.stderr is not None
        while said not in self.stderr:
            line = self._process.stderr.readline()
            assert line, self.stderr
            self.stderr += line

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> list[dict[str, Any]]:
        self._process.terminate()
        stdout, rest = self._process.communicate(timeout=60)
        self.stdout = stdout or ""
        self.stderr += rest
        assert self._process.returncode == 0, self.stderr
        return truth.parse_lines(self.stdout)


def work(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run([*WORKLOAD, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return truth.parse_lines(done.stdout)


def test_a_reader_that_sleeps_loses_nothing_silently() -> None:
    """With the reader stopped for 5 s under a storm that overflows the ring buffer: delivered + lost = raised."""
    probe = Probe("--json", "--summary")
    probe.signal(signal.SIGSTOP)
    started = time.monotonic()
    work("--processes", "6", "--copies", "300", "--families", "inet", "--seconds", "4.5")
    time.sleep(max(0.0, 5 - (time.monotonic() - started)))
    probe.signal(signal.SIGCONT)
    events = probe.finish()
    totals = summary(probe.stderr)
    assert totals["lost"] > 0, "no storm: the ring buffer held everything"
    assert totals["delivered"] + totals["lost"] == totals["raised"]
    assert len(events) >= 4000
    assert f"{totals['lost']} lost" in probe.stderr


def test_our_sums_are_the_kernels(network_namespace: str) -> None:
    """In a namespace of its own, where nobody else retransmits, every counter that must agree does."""
    probe = Probe("--json", "--summary")
    inside = ["ip", "netns", "exec", network_namespace, *WORKLOAD, "--processes", "4", "--seconds", "1.2"]
    subprocess.run(inside, capture_output=True, check=True, timeout=60)
    events = probe.finish()
    inode = os.stat(f"/run/netns/{network_namespace}").st_ino
    lines = {row["name"]: row for row in summary(probe.stderr)["summary"] if row["netns"] == inode}
    ours = [event for event in events if event["netns"] == inode]
    assert lines["RetransSegs"]["ours"] == lines["RetransSegs"]["kernel"] == len(ours) >= 36
    assert 24 <= lines["TCPTimeouts"]["kernel"] <= lines["TCPTimeouts"]["ours"]
    assert lines["TCPLossProbes"]["ours"] == lines["TCPLossProbes"]["kernel"] == 12
    assert all(row["agrees"] for row in lines.values()), lines


@pytest.fixture
def network_namespace() -> Any:
    name = f"sockpid-run-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def name_of(document: dict[str, Any]) -> SocketTuple:
    return SocketTuple(*(document[member] for member in SocketTuple._fields))


def test_sockets_older_than_the_probe_are_seeded() -> None:
    pair = Pair("inet")
    try:
        probe = Probe("--json")
        pair.send()
        time.sleep(0.5)
        events = truth.of(pair.tuple, probe.finish())
    finally:
        pair.close()
    assert len(events) >= 2
    assert {(e["pid"], e["exited"]) for e in events} == {(os.getpid(), False)}
    # The first send, seen live, has overridden the seed: `how` tells which it was.
    assert {e["how"] for e in events} <= {"send", "seed"}


def test_a_seed_alone_names_the_owner() -> None:
    """The data was sent before the probe started: nothing but the seed can tell whose it is."""
    pair = Pair("mapped")
    try:
        pair.send()
        probe = Probe("--json")
        time.sleep(3)
        events = truth.of(pair.tuple, probe.finish())
    finally:
        pair.close()
    assert events
    assert {(e["pid"], e["how"], e["found"], e["reason"]) for e in events} == {(os.getpid(), "seed", "inode", None)}


def test_without_seeding_the_reason_is_given() -> None:
    pair = Pair("inet")
    try:
        pair.send()
        probe = Probe("--json", "--no-seed", "--no-witness")
        time.sleep(2)
        events = truth.of(pair.tuple, probe.finish())
    finally:
        pair.close()
    assert events
    assert {(e["pid"], e["reason"]) for e in events} == {(None, "older-than-probe")}
    assert {(e["certain"], e["doubt"]) for e in events} == {(None, None)}


def test_without_seeding_who_has_it_open_is_named_at_the_event() -> None:
    """Unless others' events leave no time to look: then nobody is."""
    pair = Pair("inet")
    try:
        pair.send()
        probe = Probe("--json", "--no-seed", "--summary")
        time.sleep(4)
        events = truth.of(pair.tuple, probe.finish())
    finally:
        pair.close()
    named = {(e["pid"], e["how"], e["found"], e["certain"], e["opener_pid"]) for e in events}
    assert (os.getpid(), "holder", "inode", True, None) in named
    assert named <= {(os.getpid(), "holder", "inode", True, None), (None, None, None, None, None)}
    assert {"confirmed", "contradicted", "unchecked", "uncertain", "missed"} <= summary(probe.stderr).keys()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [(["--comm", "chosen-1"], "comm", "chosen-1"), (["--cidr", "::1"], "family", "inet6")],
)
def test_filters(arguments: list[str], field: str, value: str) -> None:
    small = [*WORKLOAD, "--processes", "3", "--families", "inet,inet6", "--seconds", "0.6", "--name", "chosen"]
    traced = trace(small, *arguments)
    known = {truth.key(t): t for t in traced.truth}
    seen = {truth.key(e) for e in traced.events} & set(known)  # others may retransmit at the same time
    assert seen == {key for key, t in known.items() if t[field] == value}


def test_filters_in_the_kernel() -> None:
    first, second = Pair("inet"), Pair("inet")
    port, pid = first.tuple.sport, os.getpid()
    try:
        for arguments in (["--port", str(port)], ["--pid", str(pid), "--cidr", first.tuple.saddr]):
            probe = Probe("--json", *arguments)
            first.send()
            second.send()
            time.sleep(0.5)
            events = probe.finish()
            assert truth.of(first.tuple, events)
            assert not truth.of(second.tuple, events)
            for event in events:  # others may have sockets with that port
                assert port in (event["sport"], event["dport"])
                assert arguments[0] == "--port" or event["pid"] == pid
        with subprocess.Popen(["sleep", "60"]) as idle:
            probe = Probe("--json", "--pid", str(idle.pid))
            time.sleep(1)
            assert probe.finish() == []
            idle.kill()
    finally:
        first.close()
        second.close()


def test_network_namespace_filter(network_namespace: str) -> None:
    inside = ["ip", "netns", "exec", network_namespace, *WORKLOAD, "--processes", "2", "--seconds", "0.6"]
    outside = Pair("inet")
    try:
        probe = Probe("--json", "--netns", network_namespace)
        outside.send()
        subprocess.run(inside, capture_output=True, check=True, timeout=60)
        events = probe.finish()
        inode = os.stat(f"/run/netns/{network_namespace}").st_ino
        assert {e["netns"] for e in events} == {inode}
        assert len({e["sport"] for e in events}) == 6
    finally:
        outside.close()


def test_control_group_filter() -> None:
    with open("/proc/self/cgroup", encoding="ascii") as file:
        unified = [line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::")]
    if not unified:
        pytest.skip("no cgroup v2 hierarchy here")
    for path, there in ((unified[0], True), ("/sockpid-no-such-group", False)):
        pair = Pair("inet")
        try:
            probe = Probe("--json", "--cgroup", path)
            pair.send()
            time.sleep(0.5)
            events = truth.of(pair.tuple, probe.finish())
        finally:
            pair.close()
        assert bool(events) is there
        assert {e["cgroup"] for e in events} <= {unified[0]}


def test_count_sums_what_run_lists() -> None:
    """Of two probes beside the same traffic one counts and the other lists."""
    counting, listing = Probe("--json", "--count", "0.5"), Probe("--json")
    known = {(t["pid"], t["comm"], t["sport"]) for t in work("--processes", "3", "--families", "inet,inet6")}
    sums: collections.Counter[tuple[Any, ...]] = collections.Counter()
    for line in counting.finish():
        for row in line["counts"]:
            sums[row["pid"], row["comm"], row["sport"]] += row["events"]
    listed = collections.Counter((e["pid"], e["comm"], e["sport"]) for e in listing.finish())
    assert len(known) == 6
    assert known <= set(listed)
    assert {key: sums[key] for key in known} == {key: listed[key] for key in known}


def test_count_names_the_owner_of_an_older_socket() -> None:
    pair = Pair("inet")
    try:
        pair.send()
        probe = Probe("--json", "--count", "0.5")
        time.sleep(3)
        rows = [row for line in probe.finish() for row in line["counts"] if name_of(row) == pair.tuple]
    finally:
        pair.close()
    comm = Path("/proc/self/comm").read_text().rstrip("\n")
    assert rows
    assert {(row["pid"], row["comm"], row["ambiguous"]) for row in rows} == {(os.getpid(), comm, 1)}


def test_an_exited_owner_is_named_as_such() -> None:
    probe = Probe("--json")
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from sockpid.subjects.deaf import Pair; p = Pair('inet'); "
        "p.send(); print(os.getpid(), *p.tuple, flush=True); os._exit(0)"
    )
    # The receiver dies too, and its reset would end it all: keep that end open in a child that does nothing.
    script = script.replace("os._exit(0)", "os.fork() and os._exit(0); p.sender.close(); __import__('time').sleep(2)")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(ROOT / "runtime")], stdout=subprocess.PIPE, text=True, check=True
    )
    pid, netns, family, sport, dport, saddr, daddr = done.stdout.split()[:7]
    known = SocketTuple(int(netns), family, int(sport), int(dport), saddr, daddr)
    events = truth.of(known, probe.finish())
    late = [e for e in events if e["state"] != "ESTABLISHED"]
    assert late
    assert {(e["pid"], e["comm"]) for e in late} == {(int(pid), os.path.basename(sys.executable)[:15])}
    # The first comes milliseconds after the exit, or before it. What was seen then is believed for a second.
    assert late[-1]["ts_ns"] - late[0]["ts_ns"] > 1.1e9
    assert late[-1]["exited"]


def test_sharers_are_listed() -> None:
    probe = Probe("--json", "--sharers")
    pair = Pair("inet")
    child = os.fork()
    if child == 0:
        time.sleep(1.5)
        os._exit(0)
    try:
        pair.send()
        time.sleep(0.8)
        events = truth.of(pair.tuple, probe.finish())
    finally:
        os.waitpid(child, 0)
        pair.close()
    assert events
    for e in events:
        assert {s["pid"] for s in e["sharers"]} == {os.getpid(), child}
        assert e["ambiguous"] == 2
        assert e["pid"] == os.getpid()


def test_too_small_a_map_says_so_and_never_names_another() -> None:
    """Ten times more sockets than entries: unknown, because evicted; never wrong."""
    traced = trace(
        [*WORKLOAD, "--processes", "8", "--copies", "160", "--families", "inet", "--seconds", "12"],
        "--max-sockets", "128", "--summary",
    )  # fmt: skip
    verdict = truth.judge(traced.events, traced.truth)
    assert verdict.wrong == []
    assert verdict.unknown
    reasons = {line.partition(":")[0] for line in verdict.unknown}
    assert reasons == {"evicted"}, reasons
    # Another line with that option is of sockets that were there before, which this host may have many of.
    (said,) = (line for line in traced.stderr.splitlines() if "would have sufficed" in line)
    assert int(said.split("--max-sockets ")[1].split()[0]) >= 1280


def test_max_sockets_in_the_millions() -> None:
    ran = sockpid("doctor", "--json", "--max-sockets", "2000000")
    assert ran.status == 0, ran
    maps = {m["map"]: m for m in json.loads(ran.stdout)["maps"]}
    assert maps["owner_by_sock"]["max_entries"] >= 2_000_000
    assert maps["owner_by_sock"]["bytes"] > 2_000_000 * 100


def owned(tracer: Tracer, *ports: int) -> list[SocketTuple]:
    """The sockets of our network namespace with one of these ports at either end whose owner the programs know."""
    image = tracer_module.load_image(tracer.kernel.arch.byte_order)
    offset, size = image.abi["struct owner"]["members"]["tuple"]
    owners, found = tracer.collection.maps["owner_by_sock"], []
    for key in set(owners.keys()):
        if value := owners.lookup(key):
            name = unpack(value[offset : offset + size])
            if name.netns == kernel.netns_inode() and {name.sport, name.dport} & {*ports}:
                found.append(name)
    return found


def test_refused_connects_leave_nothing_in_the_maps() -> None:
    with Tracer.open(Options()) as tracer, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
            assert owned(tracer, listening.getsockname()[1])
        for _ in range(1200):
            with socket.socket() as refused, pytest.raises(ConnectionRefusedError):
                refused.connect(closed.getsockname())
        assert len(owned(tracer, port)) < 50
        keys = set(tracer.collection.maps["socket_to_pid"].keys())
        assert not [k for k in keys if unpack(k)[:2] == (kernel.netns_inode(), "inet") and unpack(k).dport == port]


def test_mptcp_sockets_are_forgotten() -> None:
    """They are destroyed in a way of their own; an entry that stayed would name a wrong owner of the next one."""
    mptcp = getattr(socket, "IPPROTO_MPTCP", 262)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, mptcp).close()
    except OSError as error:
        pytest.skip(f"no MPTCP here: {error}")
    with Tracer.open(Options()) as tracer:
        if tracer.collection.mechanisms()["mptcp"] is None:
            pytest.skip("nothing to see MPTCP sends by")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, mptcp) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(16)
            port = listener.getsockname()[1]
            for _ in range(16):
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, mptcp)
                client.connect(listener.getsockname())
                accepted, _ = listener.accept()
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
                assert owned(tracer, port)
                client.close()
                accepted.close()
            assert tracer.collection.counter(2) >= 16
        deadline = time.monotonic() + 5
        while owned(tracer, port) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert owned(tracer, port) == []


def test_socket_activation_names_the_service() -> None:
    """One process opens the listening socket, another program gets it as descriptor 3 and serves (sd_listen_fds(3))."""
    service = (
        "import socket, sys; listening = socket.socket(fileno=3); each = listening.accept()[0]; sys.stdin.readline(); "
        "each.sendall(b'x'); sys.stdin.readline()"
    )
    probe = Probe("--json", "--sharers")
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        port = listening.getsockname()[1]
        activator = f"import os, sys; os.dup2({listening.fileno()}, 3); os.execv(sys.argv[1], sys.argv[1:])"
        python = [sys.executable, "-I", "-S", "-c"]
        with subprocess.Popen(
            [*python, activator, *python, service],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=[listening.fileno()],
            env={"LISTEN_FDS": "1"},
        ) as activated:
            assert activated.stdin is not None
            client.connect(("127.0.0.1", port))
            drop_everything(client)
            activated.stdin.write("send\n")
            activated.stdin.flush()
            time.sleep(1.5)
            assert activated.poll() is None
            own = kernel.netns_inode()
            name = SocketTuple(own, "inet", port, client.getsockname()[1], "127.0.0.1", "127.0.0.1")
            events = truth.of(name, probe.finish())
            activated.communicate("end\n", timeout=10)
    assert events
    assert {e["pid"] for e in events} == {activated.pid}
    assert {e["opener_pid"] for e in events} <= {activated.pid, None}  # None where nobody sees accepts
    assert {tuple(s["pid"] for s in e["sharers"]) for e in events} == {(activated.pid,)}
