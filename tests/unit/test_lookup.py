"""What `sockpid lookup` reads and writes, and the public layout against what the compiler gave it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sockpid import lookup, pin, pinned, socket_tuple
from sockpid.errors import UsageError
from sockpid.socket_tuple import SocketTuple
from tests.unit.test_relocate import images

ROOT = Path(__file__).parents[2]
RUST = {"struct socket_tuple": "SocketTuple", "struct process": "Process"}


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
        SocketTuple(0, "inet6", 80, 0, "::", "::"),
    ):
        packed = socket_tuple.pack(key)
        assert len(packed) == 44
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


@pytest.mark.parametrize("name", RUST)
def test_version_1_never_changes(name: str) -> None:
    """The documents and the Rust types say what the compiler says; the numbers here are the promise itself."""
    abi = images()["little"].abi[name]
    promised = {
        "struct socket_tuple": [0, 4, 6, 8, 10, 12, 28, 44],
        "struct process": [0, 8, 16, 24, 32, 36, 40, 56],
    }[name]
    assert [*sorted(offset for offset, _ in abi["members"].values()), abi["size"]] == promised
    rust = (ROOT / "docs/examples/socket_to_pid.rs").read_text()
    document = (ROOT / "docs/socket-to-pid.md").read_text()
    assert f"size_of::<{RUST[name]}>() == {abi['size']})" in rust
    for member, (offset, _) in abi["members"].items():
        assert f"offset_of!({RUST[name]}, {member}) == {offset})" in rust
        assert f"| {offset} | `{member}` |" in document
