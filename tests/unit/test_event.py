"""The decoder against the layout that the compiler gave the record, and against the documented object."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from sockpid import counting, event, hooks, socket_tuple, uapi
from tests.unit.test_relocate import images

MEMBERS = {
    "struct socket_tuple": (socket_tuple.TUPLE, ("netns", "family", "sport", "dport", "zero", "saddr", "daddr")),
    "struct process": (event.PROCESS, ("pid_tgid", "start_ns", "when_ns", "cgroup_id", "how", "flags", "comm")),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_formats_are_the_compilers(name: str) -> None:
    abi = images()["little"].abi[name]
    code, members = MEMBERS[name]
    assert struct.calcsize("=" + code) == abi["size"]
    parts = re.findall(r"\d*[a-zA-Z]", code)
    position = 0
    for member, part in zip(members, parts, strict=True):
        assert abi["members"][member] == [position, struct.calcsize("=" + part)], member
        position += struct.calcsize("=" + part)


def test_event_has_the_compilers_layout() -> None:
    abi = images()["little"].abi
    record = abi["struct event"]
    assert record["size"] == event.EVENT_SIZE
    names = [
        "ts_ns", "sk", "interrupted", "latest", "first", "tuple", "users", "inode", "err", "seq", "end_seq", "srtt_us",
        "snd_cwnd", "total_retrans", "type", "found", "state", "ca_state", "pending", "retransmits", "kern", "zero",
        "ulp",
    ]  # fmt: skip
    codes = ["Q", "Q", "Q", event.PROCESS, event.PROCESS, socket_tuple.TUPLE, *"IQiIIIII", *"BBBBBBB", "x", "16s"]
    position = 0
    for name, code in zip(names, codes, strict=True):
        assert record["members"][name] == [position, struct.calcsize("=" + code)], name
        position += struct.calcsize("=" + code)
    assert "=" + "".join(codes) == event.EVENT


def test_what_hooks_call_a_use_is_what_events_call_it() -> None:
    header = (Path(__file__).parents[2] / "bpf_bytecode/sockpid.h").read_text()
    numbers = {int(number): name.lower() for name, number in re.findall(r"HOW_(\w+) = (\d+)", header)}
    assert numbers == {number: name or "unknown" for number, name in event.HOW.items()}
    told = {hook.name: dict(hook.settings) for hook in hooks.HOOKS if hook.learns}
    assert {name: event.HOW[settings["SETTING_HOW"]] for name, settings in told.items()} == {
        **{name: name for name in ("connect", "listen", "accept", "send")},
        "sendpage": "send",
        "mptcp": "send",
        "receive": "recv",
    }
    states = {name: uapi.TCP_STATES[n - 1] for name, s in told.items() if (n := s.get("SETTING_STATE", 0))}
    assert states == {"connect": "SYN_SENT", "listen": "LISTEN"}


def test_count_key_has_the_compilers_layout() -> None:
    assert images()["little"].abi["struct count_key"]["size"] == struct.calcsize(counting.KEY)


def record(owner: bytes, family: int = 2, state: int = 1, ca_state: int = 4, pending: int = 0, err: int = 0) -> bytes:
    saddr, daddr = bytes([10, 0, 0, 1]).ljust(16, b"\0"), bytes([10, 0, 0, 2]).ljust(16, b"\0")
    if family == 10:
        saddr, daddr = bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes(15) + b"\1"
    head = struct.pack("=QQQ", 5_000, 0xFFFF, 77 << 32 | 78)
    key = struct.pack("=IHHHH16s16s", 4026531840, family, 40034, 9000, 0, saddr, daddr)
    tail = struct.pack("=IQiIIIII", 3 if any(owner) else 0, 4711, err, 100, 148, 8 * 25, 10, 7)
    tail += struct.pack("=BBBBBBBx16s", 0, bool(any(owner)), state, ca_state, pending, 2, 0, b"tls\0")
    return head + owner + key + tail


NOBODY = bytes(112)


def owner(how: int = 3) -> bytes:
    latest = struct.pack("=QQQQII16s", 94 << 32 | 95, 1111, 2_000, 7, how, 0, b"python3\0junk")
    first = struct.pack("=QQQQII16s", 90 << 32 | 90, 1000, 1_500, 7, 1, 0, b"parent")
    return latest + first


def test_known_owner() -> None:
    got = event.decode(record(owner())).json(1_000_000, "table", "never used")
    assert got == {
        "schema": 1, "ts_ns": 1_005_000, "kind": "rto", "family": "inet", "saddr": "10.0.0.1", "sport": 40034,
        "daddr": "10.0.0.2", "dport": 9000, "netns": 4026531840, "state": "ESTABLISHED", "pid": 94, "tid": 95,
        "comm": "python3", "start_ns": 1111, "how": "send", "age_ns": 3_000, "reason": None, "interrupted_pid": 77,
        "ambiguous": 3, "offsets": "table", "found": "sock", "opener_pid": 90, "opener_comm": "parent",
        "opener_how": "connect", "cgroup_id": 7, "inode": 4711, "err": 0, "seq": 100, "end_seq": 148, "srtt_us": 25,
        "snd_cwnd": 10, "total_retrans": 7, "retransmits": 2, "ulp": "tls",
    }  # fmt: skip


def test_unknown_owner_is_never_the_interrupted_process() -> None:
    got = event.decode(record(NOBODY)).json(0, "btf", "older-than-probe")
    assert (got["pid"], got["tid"], got["comm"], got["how"], got["reason"]) == (
        None,
        None,
        None,
        None,
        "older-than-probe",
    )
    assert got["interrupted_pid"] == 77


def test_kernel_socket_has_no_pid() -> None:
    got = event.decode(record(owner(how=7))).json(0, "btf", "x")
    assert (got["pid"], got["comm"], got["how"], got["reason"]) == (None, None, "kernel", None)


def test_ipv6_text() -> None:
    got = event.decode(record(owner(), family=10)).tuple
    assert (got.saddr, got.daddr, got.family) == ("2001:db8::1", "::1", "inet6")


@pytest.mark.parametrize(
    ("err", "state", "ca_state", "pending", "kind"),
    [
        (0, 1, 4, 0, "rto"), (0, 1, 3, 1, "fast"), (0, 1, 3, 5, "fast"), (0, 1, 0, 5, "tlp"), (0, 1, 2, 5, "tlp"),
        (0, 2, 0, 0, "syn"), (-16, 1, 4, 0, "failed"), (0, 1, 0, 1, "other"),
    ],
)  # fmt: skip
def test_kinds(err: int, state: int, ca_state: int, pending: int, kind: str) -> None:
    assert event.kind(err, state, ca_state, pending) == kind


def test_short_record_is_refused() -> None:
    with pytest.raises(ValueError, match="event of 239 bytes, 240 expected"):
        event.decode(record(owner())[:-1])


def test_tuple_survives_the_way_to_a_map_key_and_back() -> None:
    for family in (2, 10):
        value = event.decode(record(owner(), family=family)).tuple
        packed = socket_tuple.pack(value)
        assert packed == record(owner(), family=family)[136:180]
