"""The runtime on real kernels: the table alone answers, and the learning hooks are kprobes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sockpid import errors
from tests import generator, truth
from tests.kernel.test_errors import move
from tests.shard_lines import render

from .kernels import Guest
from .qemu import Result

SOCKPID = ["python3", "-I", "-S", "/sockpid/runtime"]
KPROBES = ["--attach", "kprobe-pmu", "--deny", "live-btf"]
# tests.vm puts the checkout's runtime, offsets and bytecode at /sockpid; the workload comes along as a file.
WORKLOAD = Path(__file__).parents[1] / "workload.py"


@pytest.fixture(scope="session")
def shard(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Path in the guest and content of a table that the generator makes from the kernel's package."""
    directory = tmp_path_factory.mktemp("offsets")
    path = generator.add(guest.kernel.deb(), directory)
    return f"/sockpid/offsets/{path.relative_to(directory)}", path.read_bytes()


def run(guest: Guest, shard: tuple[str, bytes], *arguments: str) -> Result:
    return guest.run([*SOCKPID, *arguments], timeout=90, files={shard[0]: shard[1]})


@pytest.mark.guests("5.10/amd64", "6.1/amd64", "6.12/amd64", "6.18/amd64", "7.2/amd64", "6.1/arm64", "6.12/arm64")
def test_selftest_with_the_table_alone(guest: Guest, shard: tuple[str, bytes]) -> None:
    result = run(guest, shard, "selftest", "--json", *KPROBES)
    assert result.status == 0, result
    report = json.loads(result.stdout)
    assert report["ok"]
    assert report["offsets"] == "table"
    assert report["release"] == guest.kernel.package.release
    hooks = report["hooks"]
    assert hooks["connect"] == "kprobe-pmu tcp_connect"
    assert hooks["send"] == "kprobe-pmu tcp_sendmsg_locked"
    assert hooks["retransmit"] == "raw_tp tcp_retransmit_skb"
    for family in ("inet", "inet6", "mapped"):
        assert report["families"][family]["ok"], report["families"][family]
        assert {e["state"] for e in report["families"][family]["events"]} == {"ESTABLISHED", "FIN_WAIT1"}


@pytest.mark.guests("5.10/amd64", "7.2/amd64", "6.12/arm64")
def test_fentry_with_the_ids_of_the_table(guest: Guest, shard: tuple[str, bytes]) -> None:
    """The kernel has BTF for itself, and sockpid reads none of it: ids and offsets come from the table."""
    result = run(guest, shard, "selftest", "--json", "--attach", "fentry", "--deny", "live-btf")
    assert result.status == 0, result
    hooks = json.loads(result.stdout)["hooks"]
    for name, function in (
        ("connect", "tcp_connect"),
        ("listen", "inet_csk_listen_start"),
        ("accept", "security_sock_graft"),
        ("send", "tcp_sendmsg_locked"),
        ("receive", "tcp_recvmsg"),
        ("destroy", "tcp_v4_destroy_sock"),
    ):
        assert hooks[name] == f"fentry {function}", hooks


@pytest.mark.guests("6.1/amd64", "6.12/arm64")
def test_tracefs_kprobes_leave_nothing_behind(guest: Guest, shard: tuple[str, bytes]) -> None:
    tracefs = "--attach kprobe-tracefs --deny live-btf"
    sockpid = " ".join(SOCKPID)
    script = f"""
        events() {{ cat /sys/kernel/tracing/kprobe_events; }}
        {sockpid} selftest {tracefs} || exit 1
        [ -z "$(events)" ] || exit 2
        {sockpid} run {tracefs} 2>/run/ready & probe=$!
        for i in $(seq 100); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
        kill -9 $probe; wait $probe
        [ -n "$(events)" ] || exit 3
        {sockpid} selftest {tracefs} >/dev/null || exit 4
        [ -z "$(events)" ] || exit 5
    """
    result = guest.run(["sh", "-c", script], timeout=120, files={shard[0]: shard[1]})
    assert result.status == 0, result
    assert "send            kprobe-tracefs tcp_sendmsg_locked" in result.stdout


@pytest.mark.guests("6.1/amd64")
@pytest.mark.parametrize("signal", ["TERM", "HUP"])
def test_a_signal_while_tracefs_kprobes_are_made_leaves_nothing_behind(
    guest: Guest, shard: tuple[str, bytes], signal: str
) -> None:
    """SIGTERM is the end once all are attached, SIGHUP a reload."""
    run = f"{' '.join(SOCKPID)} run --deny live-btf,fentry,raw_tp,tracepoint,kprobe-pmu"
    script = f"""
        events() {{ grep -c . /sys/kernel/tracing/kprobe_events; }}
        ready() {{
            for i in $(seq 200); do grep -q 'offsets from' /run/said && return; sleep 0.2; done
            cat /run/said; exit 2
        }}
        {run} 2>/run/said & probe=$!
        until grep -q . /sys/kernel/tracing/kprobe_events; do :; done
        kill -{signal} $probe
        some=$(events)
        if [ {signal} = HUP ]; then ready; [ $(events) -gt $some ] || exit 3; kill $probe; fi
        wait $probe || exit 4
        [ $(events) = 0 ] || exit 5
        {run} 2>/run/said & probe=$!
        ready
        [ $(events) -gt $some ] || exit 6  # it came too late
        kill $probe; wait $probe
    """
    result = guest.run(["sh", "-c", script], timeout=120, files={shard[0]: shard[1]}, smp=2)
    assert result.status == 0, result


@pytest.mark.guests("6.1/amd64")
@pytest.mark.parametrize("command", ["selftest", "top --json", "calibrate -o /run/table.json"])
def test_no_command_leaves_tracefs_kprobes_behind_when_it_is_ended(
    guest: Guest, shard: tuple[str, bytes], command: str
) -> None:
    deny = "live-btf,fentry,raw_tp,tracepoint,kprobe-pmu"
    script = f"""
        events() {{ grep -c . /sys/kernel/tracing/kprobe_events; }}
        for some in 1 1 1; do
            {" ".join(SOCKPID)} {command} --deny {deny} >/run/out 2>/run/said & probe=$!
            until [ $(events) -ge $some ]; do kill -0 $probe || {{ cat /run/said; exit 2; }}; done
            kill -TERM $probe
            wait $probe
            status=$?
            [ $(events) = 0 ] || exit 3
            [ $status = 143 ] || {{ echo $status; cat /run/said; exit 4; }}
        done
    """
    result = guest.run(["sh", "-c", script], timeout=120, files={shard[0]: shard[1]}, smp=2)
    assert result.status == 0, result


@pytest.mark.guests("6.1/amd64")
def test_200_retransmits_of_20_processes_all_name_the_sender(guest: Guest, shard: tuple[str, bytes]) -> None:
    script = f"""
        {" ".join([*SOCKPID, "run", "--json", *KPROBES])} > /run/events 2> /run/ready & probe=$!
        for i in $(seq 100); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
        python3 -I -S /sockpid/tests/workload.py --processes 20 --seconds 4 > /run/truth
        kill $probe; wait $probe
        echo "=== truth"; cat /run/truth; echo "=== events"; cat /run/events; cat /run/ready >&2
    """
    files = {shard[0]: shard[1], "/sockpid/tests/workload.py": WORKLOAD.read_bytes()}
    result = guest.run(["sh", "-c", script], timeout=180, files=files, smp=2)
    assert result.status == 0, result
    _, _, rest = result.stdout.partition("=== truth\n")
    true, _, events = rest.partition("=== events\n")
    verdict = truth.judge(truth.parse_lines(events), truth.parse_lines(true))
    assert verdict.wrong == []
    assert verdict.unknown == []
    assert verdict.right >= 200
    assert verdict.owners == 20
    assert " 0 lost" in result.stderr


@pytest.mark.guests("6.1/amd64", "6.12/arm64")
def test_a_wrong_argument_register_is_found(guest: Guest, shard: tuple[str, bytes]) -> None:
    document: dict[str, Any] = json.loads(shard[1])
    first = {"x86_64": "di", "aarch64": "regs[0]"}[document["arch"]]
    move(document, "struct pt_regs", first)
    doctored = shard[0], render(document)
    result = run(guest, doctored, "run", "--json", "--duration", "1", *KPROBES)
    assert result.status == errors.RelocationError.exit_code, result
    assert f"struct pt_regs.{first} of 64 bits begins at bit" in result.stderr
    assert result.stdout == ""


@pytest.mark.guests("6.1/amd64")
def test_kernel_without_entry_and_without_btf(guest: Guest, shard: tuple[str, bytes]) -> None:
    document: dict[str, Any] = json.loads(shard[1])
    document["kernels"][0].update(build_id="11" * 20, release="6.1.0-1-other")
    # The lab covers /sys/kernel/btf, but bpf(BPF_BTF_GET_NEXT_ID) would still find the kernel's BTF.
    result = run(guest, (shard[0], render(document)), "run", "--deny", "live-btf", "--no-consensus")
    assert result.status == errors.UnknownKernelError.exit_code, result
    assert guest.kernel.package.release in result.stderr
    assert "6.1.0-1-other" in result.stderr


DROP_SYS_RESOURCE = """
import ctypes, os, resource, sys
if sys.argv[1] == "without":
    assert ctypes.CDLL(None).prctl(24, 24, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE: lost at the next exec
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.guests("5.10/amd64")
def test_memlock_limit_before_linux_5_11(guest: Guest, shard: tuple[str, bytes]) -> None:
    """Maps and programs count against RLIMIT_MEMLOCK there: it is raised, and where that is refused the message says
    so. With small maps it is a program that reaches the limit."""
    small = ["run", "--max-sockets", "16", "--duration", "1"]
    for way, command, status in (("with", ["selftest"], 0), ("with", small, 0), ("without", small, 1)):
        arguments = [way, *SOCKPID, *command, "--deny", "live-btf"]
        result = guest.run(
            ["python3", "-I", "-S", "-c", DROP_SYS_RESOURCE, *arguments], timeout=90, files={shard[0]: shard[1]}
        )
        assert result.status == status, result
        if status:
            assert "RLIMIT_MEMLOCK" in result.stderr
            assert "ulimit -l" in result.stderr
            assert result.stdout == ""
