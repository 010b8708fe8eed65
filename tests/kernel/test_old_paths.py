"""What is done on kernels that lack something, tried on this one, and held against what it does by default."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid import uapi
from sockpid.bpf import perfbuf, prog
from sockpid.bpf.deniable import FEATURES
from sockpid.bpf.map import cpus
from sockpid.errors import AttachError, SyscallError
from sockpid.host import kernel, netns
from sockpid.probe import eviction, tracer
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from tests import namespaces, truth
from tests.kernel.conftest import ROOT, RUNTIME, attached, sockpid
from tests.kernel.test_run import owned
from tests.unit.image.test_relocate import images

WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]
HELPERS = "probe_read_kernel,task_btf,cgroup_id,lru_hash,obj_name"
WITH_TRACEFS = ("unshare", "--mount", "sh", "-c", 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"', "sh")
TIMES = {"ts_ns", "age_ns"}
ASKED_LATER = {"ambiguous", "cgroup", "exited", "ns_pid", "sharers"}
"""What is looked up in /proc after the event, where the process may have gone."""


def side_by_side(
    directory: Path, deny: list[str], before: tuple[str, ...] = ()
) -> tuple[list[list[dict[str, Any]]], Any]:
    """Events of the same sockets as probes saw them that ran together, each doing without other things; the truth.

    In a network namespace of its own, to which the programs keep: what is lost is not lost for others' events.
    """
    with namespaces.bound(directory) as namespace:
        return _side_by_side(namespace, deny, before)


def _side_by_side(
    namespace: netns.Namespace, deny: list[str], before: tuple[str, ...]
) -> tuple[list[list[dict[str, Any]]], Any]:
    probes = [
        subprocess.Popen(
            [*before, *RUNTIME, "run", "--json", "--netns", str(namespace.inode), "--deny", names],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for names in deny
    ]
    try:
        for probe in probes:
            attached(probe)
        inside = ["nsenter", f"--net={namespace.file}", *WORKLOAD, "--processes", "8", "--seconds", "3"]
        done = subprocess.run(inside, capture_output=True, text=True, check=True, timeout=60)
        true = truth.parse_lines(done.stdout)
        time.sleep(0.1)
        results = []
        for probe in probes:
            probe.terminate()
            stdout, stderr = probe.communicate(timeout=30)
            assert probe.returncode == 0, stderr
            assert " 0 lost" in stderr
            keys = {truth.key(t) for t in true}
            results.append([event for event in truth.parse_lines(stdout) if truth.key(event) in keys])
        return results, true
    finally:
        for probe in probes:
            if probe.poll() is None:
                probe.kill()
            probe.communicate()


def comparable(events: list[dict[str, Any]], *without: str) -> list[str]:
    """Events as sorted text, less `without` and what no two probes have in common."""
    leave = TIMES | ASKED_LATER | set(without)
    return sorted(json.dumps({k: v for k, v in event.items() if k not in leave}, sort_keys=True) for event in events)


def test_old_paths_see_what_the_new_ones_see(tmp_path: Path) -> None:
    """All that can be denied together is, beside a probe that does as it likes, on the same retransmits."""
    (default, old, array), true = side_by_side(tmp_path, ["", f"ringbuf,{HELPERS}", "ringbuf"])
    verdict = truth.judge(default, true)
    assert (verdict.wrong, verdict.unknown, verdict.owners) == ([], [], 8)
    assert len(default) > 60
    assert comparable(array) == comparable(default)
    assert comparable(old, "cgroup_id") == comparable(default, "cgroup_id")
    for events in (old, array):
        stamps = [event["ts_ns"] for event in events]
        assert stamps == sorted(stamps), "the buffers of all CPUs together are in order"


def test_tracepoints_of_perf_see_what_raw_ones_see(tmp_path: Path) -> None:
    """Where nothing but tracepoints is left, senders are not seen; these connected, and that is."""
    (raw, perf), true = side_by_side(tmp_path, ["fentry,kprobe-pmu,kprobe-tracefs", "raw_tp"], before=WITH_TRACEFS)
    verdict = truth.judge(perf, true)
    assert (verdict.wrong, verdict.unknown, verdict.owners) == ([], [], 8)
    learnt = ("how", "opener_how")
    assert comparable(perf, *learnt) == comparable(raw, *learnt)


OTHER_USER = """
import os, struct, sys
sys.path.insert(0, sys.argv[1])
from sockpid import syscall, uapi; from sockpid.bpf import tracefs
point = tracefs.Tracepoint("tcp/tcp_retransmit_skb").id
attr = struct.pack("=IIQQQQQIIQQ", uapi.PERF_TYPE_TRACEPOINT, 112, point, 1, 0, 0, 0, 1, 0, 0, 0)
attr = bytearray(attr.ljust(112, b"\\0"))
cpus = [syscall.perf_event_open(attr, -1, int(cpu), 0) for cpu in sys.argv[2].split()]
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
with Tracer.open(Options(frozenset({"raw_tp"}))) as tracer:
    assert tracer.collection.mechanisms()["retransmit"] == "tracepoint tcp/tcp_retransmit_skb"
    os.system(sys.argv[3])
    tracer.finish()
    print(tracer.raised(), sum(int.from_bytes(os.read(fd, 8), sys.byteorder) for fd in cpus))
"""


def test_a_tracepoint_of_perf_stays_visible_to_its_other_users() -> None:
    """A program that returns 0 would hide the event from every counter of perf on the tracepoint; ours returns 1."""
    online = " ".join(str(cpu) for cpu in cpus("online"))
    workload = " ".join([*WORKLOAD, "--processes 4 --seconds 1 >/dev/null"])
    runtime = str(ROOT / "runtime")
    command = [*WITH_TRACEFS, sys.executable, "-I", "-S", "-c", OTHER_USER, runtime, online, workload]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    ours, perfs = map(int, done.stdout.split())
    assert ours >= 20
    assert perfs >= ours


@pytest.fixture
def small_rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    """A probe whose perf buffers hold a page each: nine events."""
    monkeypatch.setattr(perfbuf, "RING_SIZE", 4096)
    with Tracer.open(Options(frozenset({"ringbuf"}))) as opened:
        yield opened


def test_delivered_and_lost_make_what_was_raised(small_rings: Tracer) -> None:
    done = subprocess.run(
        [*WORKLOAD, "--processes", "30", "--seconds", "1.5"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout
    delivered = len(small_rings.finish())
    raised, lost = small_rings.raised(), small_rings.lost()
    assert lost > 0
    assert delivered > 0
    assert delivered + lost == raised
    # This kernel also counts in the program, where bpf_perf_event_output() tells it: the same number.
    assert small_rings.collection.counter(tracer.COUNTER_LOST) == lost


def test_the_kernel_tells_the_reader_of_losses_too(small_rings: Tracer) -> None:
    """PERF_RECORD_LOST, by which alone kernels before 5.1 tell, comes with the next record that fits."""
    for _ in range(2):
        subprocess.run(
            [*WORKLOAD, "--processes", "30", "--seconds", "1.5"], capture_output=True, check=True, timeout=60
        )
        told = small_rings._reader.lost()
        small_rings._reader.drain()
    small_rings.finish()
    assert 0 < small_rings._reader.lost() <= small_rings.lost()
    assert told <= small_rings._reader.lost()


def test_a_map_without_lru_is_trimmed() -> None:
    """More sockets than a plain hash map holds: the oldest go, the newest are known, and that is told.

    The room is shared with all other sockets of this machine. Where these come by the dozen, room cannot always be
    made in time.
    """
    from sockpid.subjects.deaf import Pair

    entries = 64
    with Tracer.open(Options(frozenset({"lru_hash"}), max_sockets=entries)) as opened:
        owners = opened.collection.maps["owner_by_sock"]
        assert owners.spec.type == "BPF_MAP_TYPE_HASH"
        pairs = []
        try:
            for _ in range(entries * 2):
                pairs.append(Pair("inet"))
                pairs[-1].send()
                opened._room._trim_again = 0.0
                opened.events(0)
                if len(list(owners.keys())) >= entries:
                    ours = owned(opened, *(port for pair in pairs for port in (pair.tuple.sport, pair.tuple.dport)))
                    assert len(ours) < entries * 3 // 4, "room is made before it is needed"
            for _ in range(50):
                pairs[-1].send()
                opened._room._trim_again = 0.0
                opened.events(0)
                if (newest := opened.owner_of(pairs[-1].tuple)) is not None:
                    break
            assert newest is not None
            assert newest.comm == kernel.comm()
            assert opened.owner_of(pairs[0].tuple) is None
            assert opened.evicted() > 0
        finally:
            for pair in pairs:
                pair.close()


def test_the_times_by_which_entries_are_old_lie_where_the_compiler_put_them() -> None:
    abi = images()["little"].abi
    process = abi["struct process"]["members"]["when_ns"][0]
    assert {
        "owner_by_sock": abi["struct owner"]["members"]["entry"][0] + process,
        "socket_to_pid": abi["struct socket_owner"]["members"]["latest"][0] + process,
        "exec_names": abi["struct exec_name"]["members"]["when_ns"][0],
        "exited": 0,
    } == eviction.WHEN


def test_doctor_tells_every_capability() -> None:
    ran = sockpid("doctor", "--json", "--deny", "ringbuf")
    assert ran.status == 0, ran
    rows = {row["name"]: row for row in json.loads(ran.stdout)["features"]}
    assert rows.keys() == FEATURES.keys()
    assert rows["ringbuf"]["state"] == "denied"
    assert rows["raw_tp"]["state"] == "present"
    assert {row["state"] for row in rows.values()} <= {"present", "absent", "denied"}
    assert all((row["reason"] is None) == (row["state"] == "present") for row in rows.values())


def test_no_way_to_read_the_kernel_is_an_error() -> None:
    ran = sockpid("run", "--deny", "probe_read_kernel,probe_read")
    assert ran.status == 9, ran
    assert "may not read kernel memory" in ran.stderr
    assert ran.stdout == ""


def test_a_type_of_program_that_the_kernel_does_not_know_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 4.17 there are no raw tracepoints: EINVAL, and no word from the verifier."""
    load = prog._load

    def before_4_17(name: str, prog_type: int, *rest: Any) -> int:
        if prog_type == uapi.BPF_PROG_TYPE_RAW_TRACEPOINT:
            raise SyscallError("bpf(BPF_PROG_LOAD)", errno.EINVAL)
        return load(name, prog_type, *rest)

    monkeypatch.setattr(prog, "_load", before_4_17)
    try:
        with Tracer.open(Options()) as tracer:
            mechanisms = tracer.collection.mechanisms()
    except AttachError as error:  # a kernel that has neither fentry nor kprobes, and tracefs out of reach
        refused = dict(error.reasons)
        assert "no word from the verifier" in refused["raw_tp tcp_destroy_sock"]
    else:
        assert mechanisms["destroy"] is not None
        assert not [told for told in mechanisms.values() if told and told.startswith("raw_tp")]
