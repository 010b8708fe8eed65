"""What `sockpid lookup` reads and writes, and the public layout against what the compiler gave it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sockpid.errors import UsageError
from sockpid.event import event, socket_owner, socket_tuple
from sockpid.event.socket_owner import SocketOwner
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel, proc
from sockpid.pins import lookup, pin, pinned, present
from sockpid.pins.present import Present
from tests.unit.image.test_relocate import images

ROOT = Path(__file__).parents[3]
RUST = {
    "struct socket_tuple": "SocketTuple",
    "struct process": "Process",
    "struct socket_owner": "SocketOwner",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", ("inet", "10.0.0.1", 80)),
        ("[::1]:65535", ("inet6", "::1", 65535)),
        ("[2001:DB8:0::1]:1", ("inet6", "2001:db8::1", 1)),
        ("[::ffff:10.0.0.1]:80", ("inet", "10.0.0.1", 80)),
        ("[fe80::1%eth0]:80", ("inet6", "fe80::1", 80)),
        ("0.0.0.0:0", ("inet", "0.0.0.0", 0)),
    ],
)
def test_endpoints(text: str, expected: tuple[str, str, int]) -> None:
    assert lookup.endpoint(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "10.0.0.1", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:-1", "10.0.0.1:http", "::1:80", "[10.0.0.1]:80",
     "[::1]", "[::1]80", "host:80", "10.0.0.1:²"],
)  # fmt: skip
def test_what_is_no_endpoint_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        lookup.endpoint(text)


def test_network_namespaces(tmp_path: Path) -> None:
    own = lookup.netns_inode(None)
    assert lookup.netns_inode("4711") == 4711
    assert lookup.netns_inode("/proc/self/ns/net") == lookup.netns_inode(f"pid:{os.getpid()}") == own
    for wrong in ("no-such-namespace", "pid:999999999", str(tmp_path)):
        with pytest.raises(UsageError, match=re.escape(wrong)):
            lookup.netns_inode(wrong)


@pytest.mark.parametrize(
    ("ends", "show_all"),
    [((None, None), False), (("10.0.0.1:1", None), True), ((None, "10.0.0.1:1"), False)],
)
def test_endpoints_or_all(ends: tuple[str | None, str | None], show_all: bool) -> None:
    with pytest.raises(UsageError, match="one or two endpoints"):
        lookup.lookup(*ends, None, "/nowhere", show_all, False)


def test_families_must_agree() -> None:
    with pytest.raises(UsageError, match="families"):
        lookup.lookup("10.0.0.1:1", "[::1]:1", None, "/nowhere", False, False)


def test_durations() -> None:
    assert [lookup.duration(n) for n in (0, 119, 120, 7199, 7200, 172799, 172800)] == [
        "0s", "119s", "2m", "119m", "2h", "47h", "2d",
    ]  # fmt: skip


def test_key_survives_packing() -> None:
    for key in (
        SocketTuple(4026531840, "inet", 1, 65535, "10.0.0.1", "255.255.255.255"),
        SocketTuple(0, "inet6", 80, 0, "::", "::", 7),
    ):
        packed = socket_tuple.pack(key)
        assert len(packed) == 48
        assert socket_tuple.unpack(packed) == key


def test_version_is_the_headers() -> None:
    header = (ROOT / "bpf_bytecode/sockpid.h").read_text()
    rust = (ROOT / "docs/examples/socket_to_pid.rs").read_text()
    assert f"#define SOCKPID_ABI {pinned.ABI}\n" in header
    assert f"pub const SOCKPID_ABI: u32 = {pinned.ABI};\n" in rust
    assert pin.path_of("DIR", "socket_to_pid") == f"DIR/v{pinned.ABI}/socket_to_pid"
    for name, number in re.findall(r"HOW_([A-Z]+) = (\d+)", header):
        if number != "0":
            assert f"pub const {name}: u32 = {number};" in rust
    document = (ROOT / "docs/socket-to-pid.md").read_text()
    for name, number in re.findall(r"OWNER_([A-Z]+) \(1 << (\d+)\)", header):
        assert f"pub const {name}: u32 = 1 << {number};" in rust
        assert f"{1 << int(number)} (`OWNER_{name}`)" in document
        assert getattr(socket_owner, name) == 1 << int(number)


@pytest.mark.parametrize("name", RUST)
def test_version_2_never_changes(name: str) -> None:
    """The documents and the Rust types say what the compiler says; the numbers here are the promise itself."""
    abi = images()["little"].abi[name]
    promised = {
        "struct socket_tuple": [0, 4, 8, 10, 12, 14, 16, 32, 48],
        "struct process": [0, 8, 16, 24, 32, 36, 40, 56],
        "struct socket_owner": [0, 56, 64, 72, 76, 80, 88],
    }[name]
    assert [*sorted(offset for offset, _ in abi["members"].values()), abi["size"]] == promised
    rust = (ROOT / "docs/examples/socket_to_pid.rs").read_text()
    document = (ROOT / "docs/socket-to-pid.md").read_text()
    assert f"size_of::<{RUST[name]}>() == {abi['size']})" in rust
    for member, (offset, _) in abi["members"].items():
        assert f"offset_of!({RUST[name]}, {member}) == {offset})" in rust
        assert f"| {offset} | `{member}` |" in document


NAME = SocketTuple(77, "inet", 80, 0, "0.0.0.0", "0.0.0.0")
OLD, YOUNG, THIRD = proc.Holder(100, "old", 50), proc.Holder(90, "young", 60), proc.Holder(91, "third", 70)


def learnt(holder: proc.Holder, inode: int) -> SocketOwner:
    owner = event.Process(holder.pid, holder.pid, holder.start_ticks * 10_000_000 + 5, 1, 9, "listen", 0, holder.comm)
    return SocketOwner(owner, 0xFFFF, inode, 1, 0)


def there(names: dict[SocketTuple, list[int]], holders: dict[int, tuple[proc.Holder, ...]]) -> Present:
    made = Present.__new__(Present)
    made.whole, made.devices_told, made.names, made._holders = True, True, names, holders
    return made


def told(found: Present, entry: SocketOwner | None) -> list[tuple[int, int, str | None, int | None]]:
    return [
        (one.inode, one.owner.pid, one.owner.how, None if one.sharers is None else len(one.sharers))
        for one in found.entries(NAME, entry)
    ]


@pytest.fixture
def _ticks_of_10_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "time_namespace_ticks", lambda: 0)


@pytest.mark.usefixtures("_ticks_of_10_ms")
@pytest.mark.parametrize(
    ("inodes", "holders", "entry", "expected"),
    [
        ([5], {5: (OLD, YOUNG)}, learnt(YOUNG, 5), [(5, 90, "listen", 2)]),
        ([5], {5: (OLD, YOUNG)}, learnt(YOUNG, 0), [(5, 90, "listen", 2)]),
        ([5], {5: (OLD,)}, learnt(YOUNG, 5), [(5, 100, "holder", 1)]),  # handed on
        ([5], {5: (OLD,)}, None, [(5, 100, "holder", 1)]),  # older than the probe
        ([5, 6], {5: (OLD,), 6: (YOUNG,)}, learnt(YOUNG, 6), [(6, 90, "listen", 1), (5, 100, "holder", 1)]),
        ([5, 6], {5: (OLD,), 6: (YOUNG, THIRD)}, None, [(5, 100, "holder", 1), (6, 90, "holder", 2)]),
        ([6], {6: (OLD,)}, learnt(YOUNG, 5), [(6, 100, "holder", 1)]),  # of a former socket of that name
        ([0], {}, learnt(YOUNG, 5), [(5, 90, "listen", None)]),  # closed, and the kernel still works on it
        ([], {}, learnt(YOUNG, 5), [(5, 90, "listen", None)]),
        ([5], {}, None, []),
    ],
)  # fmt: skip
def test_every_socket_of_a_name_is_told_with_all_who_have_it(
    inodes: list[int],
    holders: dict[int, tuple[proc.Holder, ...]],
    entry: SocketOwner | None,
    expected: list[tuple[int, int, str | None, int | None]],
) -> None:
    assert told(there({NAME: inodes}, holders), entry) == expected


def test_who_may_not_see_all_processes_is_told_what_the_map_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "effective_capabilities", lambda: 0)
    monkeypatch.setattr(present, "Sight", lambda _netns: pytest.fail("what can be seen is a part"))
    made = Present(None)
    assert told(made, learnt(YOUNG, 5)) == [(5, 90, "listen", None)]
    assert told(made, None) == []


def test_a_name_is_the_one_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = learnt(YOUNG, 5).latest
    monkeypatch.setattr(proc, "comm", lambda _pid: "renamed")
    assert [lookup.name_of(owner, exited) for exited in (False, True, None)] == ["renamed", "young", "young"]
