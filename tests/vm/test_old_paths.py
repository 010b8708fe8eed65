"""Old and odd kernels: each mechanism by itself, and what remains where the kernel withholds something."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sockpid import errors
from tests.kernel.test_errors import renumber
from tests.shard_lines import render

from .kernels import Guest
from .qemu import Result
from .test_sockpid import SOCKPID, shard

__all__ = ["shard"]  # the fixture

COMMAND = " ".join(SOCKPID)
MECHANISMS = ("lsm", "fentry", "raw_tp", "tracepoint", "kprobe-pmu", "kprobe-tracefs")
ALONE = MECHANISMS[1:]
"""What security modules are asked is not all that there has to be."""
HELPERS = "ringbuf,probe_read_kernel,task_btf,cgroup_id,lru_hash,obj_name"


def script(guest: Guest, shard: tuple[str, bytes], text: str, append: str = "") -> Result:
    """Runs a shell script in the guest, with the table of its kernel."""
    return guest.run(["sh", "-c", text], timeout=240, files={shard[0]: shard[1]}, append=append)


def report(result: Result, name: str) -> dict[str, Any]:
    """What a selftest left in /run/result/NAME."""
    assert result.files.get(name), result
    left: dict[str, Any] = json.loads(result.files[name])
    return left


def all_families(found: dict[str, Any]) -> dict[str, Any]:
    """What must be everywhere; MPTCP and SYN-ACKs are seen where they can be, and then right."""
    assert not [family for name, family in found["families"].items() if name not in RIGHT and family["mismatches"]]
    return {name: (found["families"][name]["ok"], found["families"][name]["mismatches"]) for name in RIGHT}


RIGHT: dict[str, tuple[bool, list[str]]] = dict.fromkeys(("inet", "inet6", "mapped"), (True, []))


@pytest.mark.guests("5.10/amd64", "6.1/amd64")
def test_each_mechanism_by_itself(guest: Guest, shard: tuple[str, bytes]) -> None:
    """All others denied: every hook that is attached is so by this one, and every field and owner is right."""
    lines = [
        f"{COMMAND} selftest --json --deny live-btf,{','.join(m for m in MECHANISMS if m != one)} >/run/result/{one}"
        for one in ALONE
    ]
    result = script(guest, shard, "\n".join([*lines, "cat /sys/kernel/tracing/kprobe_events"]))
    for mechanism in ALONE:
        found = report(result, mechanism)
        assert all_families(found) == RIGHT, (mechanism, found)
        used = {link.split()[0] for link in found["hooks"].values() if link}
        assert used == {mechanism}, found["hooks"]
    assert result.stdout == "", "no kprobe event is left behind"
    whole = guest.kernel.series == "5.10"  # 6.1's compiler split the function
    for mechanism in ("kprobe-pmu", "kprobe-tracefs"):
        found = report(result, mechanism)
        function = "__tcp_retransmit_skb" if whole else "tcp_retransmit_skb"
        assert found["hooks"]["retransmit"] == f"{mechanism} {function}"
        assert any("tail loss probes are not seen" in flaw for flaw in found["flaws"]) is not whole
        assert any("attempts that fail" in flaw for flaw in found["flaws"])
        kinds = {event["kind"] for event in found["families"]["inet"]["events"]}
        assert kinds == ({"tlp", "rto"} if whole else {"rto"})
    assert report(result, "raw_tp")["flaws"] == []


def without_ipv6(shard: bytes) -> bytes:
    """The table of a kernel with CONFIG_IPV6=n: its sockets have no place for IPv6 addresses. No distribution here
    has such a kernel."""
    document = json.loads(shard)
    (row,) = (row for row in document["structs"].values() if row["name"] == "struct sock")
    for path in ("__sk_common.skc_v6_daddr", "__sk_common.skc_v6_rcv_saddr"):
        assert row["fields"][path]
        row["fields"][path] = None
    renumber(document)
    return render(document)


@pytest.mark.guests("5.10/amd64")
def test_a_kernel_without_most_things(guest: Guest, shard: tuple[str, bytes]) -> None:
    """No IPv6, no tracefs, no JIT, none of the newer helpers and maps; nothing but kprobes at the end."""
    text = f"""
        umount /sys/kernel/tracing
        {COMMAND} selftest --json --deny live-btf >/run/result/untraced
        echo 0 >/proc/sys/net/core/bpf_jit_enable
        {COMMAND} selftest --json --deny live-btf >/run/result/interpreted
        {COMMAND} selftest --json --deny live-btf,{HELPERS} >/run/result/helpers
        {COMMAND} selftest --json --deny live-btf,{HELPERS},raw_tp,fentry >/run/result/kprobes
        {COMMAND} selftest --json --deny live-btf --offsets /run/without-ipv6.json >/run/result/without-ipv6
        {COMMAND} run --deny live-btf,raw_tp,fentry,kprobe-pmu
        echo $?
    """
    files = {shard[0]: shard[1], "/run/without-ipv6.json": without_ipv6(shard[1])}
    result = guest.run(["sh", "-c", text], timeout=240, files=files, append="ipv6.disable=1")
    for name in ("untraced", "interpreted", "helpers", "kprobes", "without-ipv6"):
        found = report(result, name)
        assert found["ok"], found
        assert found["families"]["inet"]["ok"]
        for family in ("inet6", "mapped"):
            assert found["families"][family]["skipped"].startswith("no IPv6 here"), found
    assert report(result, "kprobes")["hooks"]["retransmit"] == "kprobe-pmu __tcp_retransmit_skb"
    assert result.stdout == f"{errors.AttachError.exit_code}\n"
    assert "mount -t tracefs" in result.stderr


@pytest.mark.guests("6.1/amd64")
def test_lockdown(guest: Guest, shard: tuple[str, bytes]) -> None:
    """Integrity forbids nothing that is needed; confidentiality forbids to read, and that is what the error says."""
    text = f"""
        mount -t securityfs securityfs /sys/kernel/security
        echo integrity >/sys/kernel/security/lockdown
        {COMMAND} selftest --json --deny live-btf >/run/result/integrity
        echo confidentiality >/sys/kernel/security/lockdown
        {COMMAND} doctor --json --deny live-btf >/run/result/doctor
        {COMMAND} run --deny live-btf
        echo $?
    """
    result = script(guest, shard, text)
    assert all_families(report(result, "integrity")) == RIGHT
    assert result.stdout == f"{errors.ProgError.exit_code}\n"
    assert "locked down for confidentiality" in result.stderr
    assert "Traceback" not in result.stderr
    found = report(result, "doctor")
    assert found["lockdown"] == "confidentiality"
    states = {row["name"]: row["state"] for row in found["features"]}
    assert (states["probe_read_kernel"], states["probe_read"], states["raw_tp"]) == ("absent", "absent", "present")
