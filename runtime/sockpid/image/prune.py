"""Leaves out of a program what it cannot reach once its relocations are resolved. Pure.

What the kernel does not have is behind a branch on a constant, and so is what belongs to another setting. New verifiers
see that such a branch is decided and follow the other way alone. That of Linux 4.9 takes the value of a wide load for
unknown, follows both, and refuses what it meets there: a poisoned instruction, a helper that came later. None takes an
instruction that no way leads to, so those are removed and the jumps across them shortened. Nor does an old one follow a
pointer to which a register is added, so what that is known to hold is added.
"""

from __future__ import annotations

import struct

from . import insn as bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    Constants = Dict[int, int]
    """Register -> its value, where that is known."""
    Raw = Tuple[int, int, int, int]
    """code, both registers, offset, immediate."""

JA = 0x05
ADD_X = bpf.ADD64 | bpf.BPF_X
U64 = (1 << 64) - 1


def prune(insns: bytes, byte_order: str) -> bytes:
    """The program without branches that are decided, and without what they did not take.

    Constants are followed through moves and arithmetic in registers. One pass: a program for old kernels has no loop.
    """
    mark = "<" if byte_order == "little" else ">"
    code: List[Raw] = list(struct.iter_unpack(mark + "BBhi", insns))
    dst_shift, src_shift = (0, 4) if byte_order == "little" else (4, 0)
    leaders = _leaders(code)
    entry: Dict[int, Optional[Constants]] = {0: {}}
    """What is known where a block begins; a block that is not here is not reached."""
    decided: Dict[int, bool] = {}
    out = bytearray(insns)
    reached: List[Tuple[int, int]] = []
    for start, end in _in_order(code, leaders):
        known = entry.get(start)
        if known is None:
            continue
        reached.append((start, end))
        last = _follow(code, out, start, end, known, dst_shift, src_shift, mark)
        op, regs, off, imm = code[last]
        targets: Tuple[int, ...] = (end,)
        if op == bpf.EXIT:
            targets = ()
        elif op == JA:
            targets = (last + 1 + off,)
        elif op & 7 == bpf.BPF_JMP and op != bpf.CALL:
            one = known.get(regs >> dst_shift & 15)
            other = known.get(regs >> src_shift & 15) if op & bpf.BPF_X else imm & U64
            taken = None if one is None or other is None else _taken(op & 0xF0, one, other)
            if taken is None:
                targets = (end, last + 1 + off)
            else:
                decided[last] = taken
                targets = (last + 1 + off if taken else end,)
        for target in targets:
            before = entry.get(target)
            entry[target] = dict(known) if before is None else {r: v for r, v in before.items() if known.get(r) == v}
    return _without(bytes(out), code, sorted(reached), decided, mark)


def _leaders(code: List[Raw]) -> List[int]:
    """Where blocks begin, and behind the last one."""
    found = {0, len(code)}
    for index, (op, _, off, _) in enumerate(code):
        if op & 7 == bpf.BPF_JMP and op != bpf.CALL:
            found.add(index + 1)
            if op != bpf.EXIT:
                found.add(index + 1 + off)
    return sorted(found)


def _in_order(code: List[Raw], leaders: List[int]) -> List[Tuple[int, int]]:
    """The blocks, each behind all that lead to it."""
    blocks = dict(zip(leaders, leaders[1:]))
    order: List[Tuple[int, int]] = []
    done = set()
    way = [(0, False)]
    while way:
        start, left = way.pop()
        if left:
            order.append((start, blocks[start]))
            continue
        if start in done:
            continue
        done.add(start)
        way.append((start, True))
        end = blocks[start]
        op, _, off, _ = code[end - 1]
        if op & 7 == bpf.BPF_JMP and op not in (bpf.CALL, bpf.EXIT):
            way.append((end + off, False))
        if op not in (JA, bpf.EXIT):
            way.append((end, False))
    order.reverse()
    return order


def _follow(
    code: List[Raw], out: bytearray, start: int, end: int, known: Constants, dst_shift: int, src_shift: int, mark: str
) -> int:
    """Brings what is known from the beginning of a block to its last instruction; the index of that.

    out: where the program is changed.
    """
    index = last = start
    while index < end:
        op, regs, _, imm = code[index]
        last = index
        index += 1
        kind = op & 7
        if kind == bpf.BPF_ALU64 or op == bpf.LD_IMM64:
            dst = regs >> dst_shift & 15
            value = None
            if op == bpf.LD_IMM64:
                if not regs >> src_shift & 15:  # not of a map
                    value = (code[index][3] & 0xFFFFFFFF) << 32 | (imm & 0xFFFFFFFF)
                index += 1
            else:
                value = imm & U64 if not op & bpf.BPF_X else known.get(regs >> src_shift & 15)
                if op == ADD_X and dst not in known and value is not None and value < 1 << 31:
                    struct.pack_into(mark + "BBhi", out, last * 8, bpf.ADD64, dst << dst_shift, 0, value)
                if op & 0xF0 != 0xB0:
                    value = _calculated(op & 0xF0, known.get(dst), value)
            if value is None:
                known.pop(dst, None)
            else:
                known[dst] = value
        elif kind in (bpf.BPF_LDX, bpf.BPF_ALU, bpf.BPF_LD):
            known.pop(regs >> dst_shift & 15, None)
        elif op == bpf.CALL:
            for register in range(6):
                known.pop(register, None)
    return last


def _calculated(op: int, one: Optional[int], other: Optional[int]) -> Optional[int]:
    """The result of 64-bit arithmetic."""
    if one is None or other is None:
        return None
    if op == 0x00:
        return one + other & U64
    if op == 0x10:
        return one - other & U64
    if op == 0x20:
        return one * other & U64
    if op == 0x40:
        return one | other
    if op == 0x50:
        return one & other
    if op == 0x60:
        return one << (other & 63) & U64
    if op == 0x70:
        return one >> (other & 63)
    if op == 0x80:
        return -one & U64
    if op == 0xA0:
        return one ^ other
    if op == 0xC0:
        return _signed(one) >> (other & 63) & U64
    return None


def _signed(value: int) -> int:
    return value - ((value & 1 << 63) << 1)


def _taken(op: int, one: int, other: int) -> Optional[bool]:
    """Whether a conditional jump (BPF_OP of its code) is taken; None for one that is not known here."""
    if op == 0x10:
        return one == other
    if op == 0x20:
        return one > other
    if op == 0x30:
        return one >= other
    if op == 0x40:
        return bool(one & other)
    if op == 0x50:
        return one != other
    if op == 0x60:
        return _signed(one) > _signed(other)
    if op == 0x70:
        return _signed(one) >= _signed(other)
    return None


def _without(
    insns: bytes, code: List[Raw], reached: List[Tuple[int, int]], decided: Dict[int, bool], mark: str
) -> bytes:
    """The blocks that are reached, without jumps that are not taken or lead to where they are anyway."""
    kept: List[Tuple[int, int]] = []
    """Runs of instructions, from and to."""
    for position, (start, end) in enumerate(reached):
        op, _, off, _ = code[end - 1]
        taken = decided.get(end - 1)
        is_jump = op == JA or taken
        following = reached[position + 1][0] if position + 1 < len(reached) else -1
        is_idle = (is_jump and end + off == following) or taken is False
        kept.append((start, end - is_idle))
    moved: Dict[int, int] = {}
    """Where a block begins now."""
    count = 0
    for start, end in kept:
        moved[start] = count
        count += end - start
    parts: List[bytes] = []
    count = 0
    for start, end in kept:
        count += end - start
        if end == start:
            continue
        op, regs, off, imm = code[end - 1]
        if op & 7 != bpf.BPF_JMP or op in (bpf.CALL, bpf.EXIT):
            parts.append(insns[start * 8 : end * 8])
            continue
        parts.append(insns[start * 8 : end * 8 - 8])
        op, regs, imm = (JA, 0, 0) if end - 1 in decided else (op, regs, imm)
        parts.append(struct.pack(mark + "BBhi", op, regs, moved[end + off] - count, imm))
    return b"".join(parts)
