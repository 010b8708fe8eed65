"""Kernels that nobody has built: every field somewhere, but whole, aligned, and none over another."""

from __future__ import annotations

import random
from collections.abc import Iterable

from sockpid.arch import Arch
from sockpid.image.image import Image
from sockpid.offsets import calibration
from sockpid.table.layout import Field, Layout, Struct

OBJECT = 8192
"""Bytes of an object; fields lie in its first half."""
SAME_OBJECT = (
    ("struct sock", "struct inet_sock", "struct inet_connection_sock", "struct tcp_sock"),
    ("struct socket", "struct socket_alloc"),
)
POINTERS = {
    "__sk_common.skc_net.net", "sk_socket", "sk_user_data", "sk", "icsk_ulp_ops", "icsk_ulp_data", "conn",
    "group_leader", "vfs_inode.i_ino",
}  # fmt: skip
"""And unsigned longs."""
BITS = {"sk_kern_sock": 1, "icsk_ca_state": 5}
OLD_BITS = {"sk_type": 16, "sk_protocol": 8}
"""Bit fields before Linux 5.6, at whole bytes."""
SIZES = {"__sk_common.skc_v6_daddr": 16, "__sk_common.skc_v6_rcv_saddr": 16, "__req_common": 0}

NEW_ABSENT = ("struct task_struct.real_start_time",)
OLD_ABSENT = (
    "struct task_struct.start_boottime",
    "struct sock.sk_kern_sock",
    "struct inet_connection_sock.icsk_ulp_ops",
    "struct inet_connection_sock.icsk_ulp_data",
    "struct mptcp_subflow_context",
)
"""What Linux 4.9 lacks."""


def layout(image: Image, arch: Arch, seed: int, absent: Iterable[str] = NEW_ABSENT, old: bool = False) -> Layout:
    """absent: types and fields that the kernel does not have. old: as before Linux 5.6."""
    draw = random.Random(seed)
    sizes = {(r.type, r.path): r.size for p in image.programs.values() for r in p.relocations if r.size}
    wanted = image.wanted(arch)
    taken: dict[str, set[int]] = {}
    rows: dict[str, Struct | None] = {}
    for name in sorted(wanted):
        if name == "struct pt_regs":  # the same in every kernel
            rows[name] = calibration.pt_regs(arch)
            continue
        first = next((group[0] for group in SAME_OBJECT if name in group), name)
        used = taken.setdefault(first, set())
        fields: dict[str, Field | None] = {}
        for path in sorted(wanted[name]):
            if f"{name}.{path}" in absent:
                fields[path] = None
            elif path in BITS:
                at = _free(draw, used, 1, 1)
                fields[path] = Field(at * 8 + draw.randrange(9 - BITS[path]), BITS[path], True)
            elif old and path in OLD_BITS:
                size = OLD_BITS[path] // 8
                fields[path] = Field(_free(draw, used, size, size) * 8, size * 8, True)
            else:
                fields[path] = _whole(draw, used, name, path, arch, sizes)
        rows[name] = None if name in absent else Struct(name, OBJECT, fields)
    return rows


def _whole(
    draw: random.Random, used: set[int], name: str, path: str, arch: Arch, sizes: dict[tuple[str, str], int]
) -> Field:
    size = arch.pointer_size if path in POINTERS else SIZES.get(path, sizes.get((name, path), 0))
    room = 40 if name == "struct tcp_skb_cb" else OBJECT // 4
    return Field(_free(draw, used, size, min(size, 8) or 8, room) * 8, size * 8)


def _free(draw: random.Random, used: set[int], size: int, alignment: int, room: int = OBJECT // 4) -> int:
    while True:
        at = draw.randrange(room // alignment) * alignment
        if used.isdisjoint(range(at, at + size)):
            used.update(range(at, at + size))
            return at


def put(memory: memoryview, field: Field, value: int, order: str) -> None:
    """Writes a field, bit by bit where it is one of bits."""
    if not field.bitfield:
        memory[field.offset : field.offset + field.size] = value.to_bytes(
            field.size, "big" if order == "big" else "little"
        )
        return
    for n in range(field.bit_size):
        at = field.bit_offset + n
        if order == "little":
            mask, bit = 1 << at % 8, value >> n & 1
        else:
            mask, bit = 0x80 >> at % 8, value >> (field.bit_size - 1 - n) & 1
        memory[at // 8] = memory[at // 8] & ~mask | (mask if bit else 0)
