"""The decoder against the layout that the compiler gave the record, and against the documented object."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from sockpid import uapi
from sockpid.event import count, event, socket_tuple
from sockpid.image import hooks
from tests.unit.image.test_relocate import images

MEMBERS = {
    "struct socket_tuple": (
        socket_tuple.TUPLE,
        ("netns", "ifindex", "family", "sport", "dport", "zero", "saddr", "daddr"),
    ),
    "struct process": (event.PROCESS, ("pid_tgid", "start_ns", "when_ns", "cgroup_id", "how", "flags", "comm")),
    "struct exec_name": (event.EXEC_NAME[1:], ("start_ns", "when_ns", "comm")),
    "struct exited_key": (event.EXITED[1:], ("start_ns", "tgid", "zero")),
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
    opener, users = "QII16s", "48x"
    inner = [
        ("entry", event.ENTRY), ("first", opener), ("tuple", socket_tuple.TUPLE), ("users", users), ("seal", "8x"),
    ]  # fmt: skip
    parts = [
        ("ts_ns", "Q"), ("sk", "Q"), ("interrupted", "Q"), ("owner", event.OWNER), ("tuple", socket_tuple.TUPLE),
        ("inode", "Q"), ("err", "i"), ("seq", "I"), ("end_seq", "I"), ("srtt_us", "I"), ("snd_cwnd", "I"),
        ("total_retrans", "I"), ("undo_marker", "I"), ("owned", "4x"), ("type", "B"), ("found", "B"), ("state", "B"),
        ("ca_state", "B"), ("pending", "B"), ("retransmits", "B"), ("kern", "B"), ("stale", "B"), ("ulp", "16s"),
    ]  # fmt: skip
    for name, members in (("struct owner", inner), ("struct event", parts)):
        position = 0
        for member, code in members:
            assert abi[name]["members"][member] == [position, struct.calcsize("=" + code)], member
            position += struct.calcsize("=" + code)
        assert position == abi[name]["size"]
    assert "".join(code for _, code in inner) == event.OWNER
    assert "=" + "".join(code for _, code in parts) == event.EVENT


def test_what_hooks_call_a_use_is_what_events_call_it() -> None:
    header = (Path(__file__).parents[3] / "bpf_bytecode/sockpid.h").read_text()
    numbers = {int(number): name.lower() for name, number in re.findall(r"HOW_(\w+) = (\d+)", header)}
    assert numbers == {number: name or "unknown" for number, name in event.HOW.items()}
    told = {hook.name: dict(hook.settings) for hook in hooks.HOOKS if hook.learns}
    assert {name: event.HOW[settings["SETTING_HOW"]] for name, settings in told.items()} == {
        **{name: name for name in ("connect", "listen", "accept", "send", "shutdown")},
        **dict.fromkeys(("mptcp-connect", "socket_connect"), "connect"),
        "socket_listen": "listen",
        **dict.fromkeys(("sendpage", "mptcp"), "send"),
        **dict.fromkeys(("receive", "mptcp-receive", "splice", "zerocopy"), "recv"),
    }
    states = {name: uapi.TCP_STATES[n - 1] for name, s in told.items() if (n := s.get("SETTING_STATE", 0))}
    assert states == {"connect": "SYN_SENT", "mptcp-connect": "SYN_SENT", "listen": "LISTEN"}


def test_count_key_has_the_compilers_layout() -> None:
    assert images()["little"].abi["struct count_key"]["size"] == struct.calcsize(count.KEY)


def record(
    owner: bytes,
    family: int = 2,
    state: int = 1,
    ca_state: int = 4,
    pending: int = 0,
    err: int = 0,
    undo: int = 9,
) -> bytes:
    saddr, daddr = bytes([10, 0, 0, 1]).ljust(16, b"\0"), bytes([10, 0, 0, 2]).ljust(16, b"\0")
    if family == 10:
        saddr, daddr = bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes(15) + b"\1"
    head = struct.pack("=QQQ", 5_000, 0xFFFF, 77 << 32 | 78)
    key = struct.pack("=IIHHHH16s16s", 4026531840, 3, family, 40034, 9000, 0, saddr, daddr)
    tail = struct.pack("=QiIIIIIII", 4711, err, 100, 148, 8 * 25, 10, 7, undo, 0)
    tail += struct.pack("=BBBBBBBB16s", 0, bool(any(owner)), state, ca_state, pending, 2, 0, 0, b"tls\0")
    return head + owner + key + tail


NOBODY = bytes(struct.calcsize("=" + event.OWNER))


def owner(how: int = 3, flags: int = 0) -> bytes:
    latest = struct.pack("=QQQQII16s", 94 << 32 | 95, 1111, 2_000, 7, how, 0, b"python3\0junk")
    first = struct.pack("=QII16s", 1000, 90, 1, b"parent")
    return latest + struct.pack("=QQII8x", 0xFFFF, 4711, 3, flags) + first + bytes(48 + 48 + 8)


def test_what_is_looked_at_before_a_record_is_decoded() -> None:
    assert event.INODE.unpack_from(record(owner()), event.INODE_AT) == (4711,)
    assert [record(each)[event.FOUND_AT] for each in (owner(), NOBODY)] == [1, 0]


def test_known_owner() -> None:
    got = event.decode(record(owner())).json(1_000_000, "table", "never used")
    assert got == {
        "schema": 1, "ts_ns": 1_005_000, "kind": "rto", "family": "inet", "saddr": "10.0.0.1", "sport": 40034,
        "daddr": "10.0.0.2", "dport": 9000, "netns": 4026531840, "ifindex": 3, "state": "ESTABLISHED",
        "pid": 94, "tid": 95, "comm": "python3", "start_ns": 1111, "how": "send", "age_ns": 3_000, "reason": None,
        "interrupted_pid": 77,
        "ambiguous": 3, "certain": None, "doubt": None, "offsets": "table", "found": "sock",
        "opener_pid": 90, "opener_comm": "parent",
        "opener_how": "connect", "cgroup_id": 7, "inode": 4711, "err": 0, "seq": 100, "end_seq": 148, "srtt_us": 25,
        "snd_cwnd": 10, "total_retrans": 7, "retransmits": 2, "ulp": "tls",
    }  # fmt: skip


def test_a_socket_that_was_not_seen_to_begin_has_no_opener() -> None:
    got = event.decode(record(owner(flags=event.OWNER_LATE))).json(0, "table", "never used")
    assert (got["pid"], got["opener_pid"], got["opener_comm"], got["opener_how"]) == (94, None, None, None)


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
    ("err", "state", "ca_state", "pending", "undo", "kind"),
    [
        (0, 1, 4, 0, 9, "rto"), (0, 1, 4, 1, 9, "rto"), (0, 1, 4, 0, 0, "rto"), (0, 1, 4, 1, 0, "simple"),
        (0, 1, 3, 1, 9, "fast"), (0, 1, 3, 5, 0, "fast"), (0, 1, 0, 5, 0, "tlp"), (0, 1, 2, 5, 9, "tlp"),
        (0, 2, 0, 0, 0, "syn"), (-16, 1, 4, 0, 9, "failed"), (0, 1, 0, 1, 0, "other"),
    ],
)  # fmt: skip
def test_kinds(err: int, state: int, ca_state: int, pending: int, undo: int, kind: str) -> None:
    assert event.kind(err, state, ca_state, pending, undo) == kind


def test_short_record_is_refused() -> None:
    with pytest.raises(ValueError, match="event of 359 bytes, 360 expected"):
        event.decode(record(owner())[:-1])


def test_tuple_survives_the_way_to_a_map_key_and_back() -> None:
    for family in (2, 10):
        value = event.decode(record(owner(), family=family)).tuple
        packed = socket_tuple.pack(value)
        assert packed == record(owner(), family=family)[24 + len(NOBODY) :][:48]
