"""A program's instructions as a Python generator, which runs many times as fast as an interpreter of each would.

It stops (yields) before every access to a value of a map that others see, and where a helper does. Registers that a
call clobbers hold None behind it, so that a program which uses them fails here as it does before the verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from sockpid import uapi
from sockpid.image import insn as bpf

from .memory import SHARED, Fault, Order

STACK = 512
U64 = (1 << 64) - 1
ALU = {0x00: "+", 0x10: "-", 0x20: "*", 0x40: "|", 0x50: "&", 0xA0: "^"}
JUMPS = {
    0x10: "==",
    0x20: ">",
    0x30: ">=",
    0x50: "!=",
    0x60: ">",
    0x70: ">=",
    0xA0: "<",
    0xB0: "<=",
    0xC0: "<",
    0xD0: "<=",
}
SIGNED = (0x60, 0x70, 0xC0, 0xD0)
JSET, JA, MOV, LSH, RSH, NEG, ARSH, END = 0x40, 0x00, 0xB0, 0x60, 0x70, 0x80, 0xC0, 0xD0
LOOKUP, UPDATE, DELETE = (uapi.BPF_FUNC[f"bpf_map_{what}_elem"] for what in ("lookup", "update", "delete"))
READS = uapi.BPF_FUNC["bpf_probe_read"], uapi.BPF_FUNC["bpf_probe_read_kernel"]
BPF_MEM, BPF_ATOMIC = 0x60, 0xC0

Run = Generator[str, None, int]
Program = Callable[[Any, int, int], Run]
"""Of the machine, the address of the context and that of the stack's end."""


def signed(value: int) -> int:
    return value - ((value & 1 << 63) << 1)


def decode(insns: bytes, order: Order) -> dict[int, bpf.Insn]:
    """Instructions by slot; the second slot of a wide load has none."""
    found: dict[int, bpf.Insn] = {}
    slot = 0
    while slot < len(insns) // 8:
        found[slot] = bpf.unpack(insns, slot, order)
        slot += 2 if found[slot].code == bpf.LD_IMM64 else 1
    return found


def width(one: bpf.Insn) -> int:
    return 2 if one.code == bpf.LD_IMM64 else 1


def is_jump(one: bpf.Insn) -> bool:
    return one.code & 7 == bpf.BPF_JMP and one.code not in (bpf.CALL, bpf.EXIT)


def translate(name: str, insns: bytes, order: Order) -> Program:
    """Compiles; calls go to machine.call[number](r1..r5), of which that of an update can stop, too."""
    code = decode(insns, order)
    leaders = {0}
    for slot, one in code.items():
        if is_jump(one):
            leaders |= {slot + 1 + one.off, slot + 1}
        elif one.code == bpf.EXIT:
            leaders.add(slot + 1)
    lines = [
        "def program(machine, r1, r10):",
        " load, store, call, stack, of = machine.load, machine.store, machine.call, machine.own_stack, int.from_bytes",
        " r0 = r2 = r3 = r4 = r5 = r6 = r7 = r8 = r9 = None",
        " if machine is None: yield  # a generator, also if it never stops",
        " pc = 0",
        " while True:",
    ]
    for slot, one in code.items():
        if slot in leaders:
            lines.append(f"  if pc == {slot}:")
        lines += ["   " + line for line in _statements(slot, one, insns, order)]
        following = slot + width(one)
        if following in leaders and not is_jump(one) and one.code != bpf.EXIT:
            lines.append(f"   pc = {following}")
    names: dict[str, Any] = {"signed": signed, "swap": swap}
    exec(compile("\n".join(lines), f"<bpf program {name}>", "exec"), names)  # of this function's own making
    program: Program = names["program"]
    return program


def swap(value: int, bits: int, order: str, to: str) -> int:
    """BPF_END: to little or big endian."""
    value &= (1 << bits) - 1
    return value if order == to else int.from_bytes(value.to_bytes(bits // 8, "little"), "big")


def _statements(slot: int, one: bpf.Insn, insns: bytes, order: Order) -> list[str]:
    kind, op = one.code & 7, one.code & 0xF0
    dst, src = f"r{one.dst}", f"r{one.src}"
    if one.code == bpf.LD_IMM64:
        high = bpf.unpack(insns, slot + 1, order).imm
        if one.src == bpf.BPF_PSEUDO_MAP_FD:
            return [f"{dst} = machine.map_address({one.imm})"]
        return [f"{dst} = {(high & 0xFFFFFFFF) << 32 | (one.imm & 0xFFFFFFFF)}"]
    if kind in (bpf.BPF_LDX, bpf.BPF_ST, bpf.BPF_STX):
        return _on_stack(one, kind, order) or _memory(one, kind)
    if kind == bpf.BPF_ALU64:
        return [_alu(one, op, dst, src)]
    if kind == bpf.BPF_ALU and op == END:
        return [f"{dst} = swap({dst}, {one.imm}, {order!r}, {'big' if one.code & bpf.BPF_X else 'little'!r})"]
    if one.code == bpf.EXIT:
        return [f"return {dst if one.dst else 'r0'}"]
    if one.code == bpf.CALL:
        return [*_call(one.imm), "r1 = r2 = r3 = r4 = r5 = None"]
    if kind == bpf.BPF_JMP:
        target = slot + 1 + one.off
        if op == JA:
            return [f"pc = {target}", *_go(target, slot)]
        other = src if one.code & bpf.BPF_X else str(one.imm & U64)
        if op == JSET:
            condition = f"{dst} & {other}"
        elif op in SIGNED:
            condition = f"signed({dst}) {JUMPS[op]} signed({other})"
        else:
            condition = f"{dst} {JUMPS[op]} {other}"
        return [f"pc = {target} if {condition} else {slot + 1}", *_go(target, slot)]
    raise Fault(f"{slot}: no instruction of -mcpu=v1: {one}")


def _call(number: int) -> list[str]:
    arguments = "(r1, r2, r3, r4, r5)"
    if number in READS:
        return ["if machine.stops_at_reads: yield 'read'", f"r0 = call[{number}]{arguments}"]
    if number == UPDATE:
        return ["yield 'update'", f"r0 = yield from call[{number}]{arguments}"]
    if number in (LOOKUP, DELETE):
        return [
            f"if machine.is_hash(r1): yield '{'look-up' if number == LOOKUP else 'delete'}'",
            f"r0 = call[{number}]{arguments}",
        ]
    return [f"r0 = call[{number}]{arguments}"]


def _go(target: int, slot: int) -> list[str]:
    return ["continue"] if target <= slot else []


def _on_stack(one: bpf.Insn, kind: int, order: Order) -> list[str]:
    """An access that is seen to be to the program's own stack; none for others."""
    size = bpf.SIZES[one.code & 0x18]
    base = one.src if kind == bpf.BPF_LDX else one.dst
    if base != 10 or one.code & 0xE0 != BPF_MEM:
        return []
    if not -STACK <= one.off <= -size:
        raise Fault(f"beyond the stack: {one}")
    place = f"stack[{STACK + one.off}:{STACK + one.off + size}]"
    if kind == bpf.BPF_LDX:
        return [f"r{one.dst} = of({place}, {order!r})"]
    value = f"r{one.src}" if kind == bpf.BPF_STX else str(one.imm)
    return [f"{place} = ({value} & {(1 << 8 * size) - 1}).to_bytes({size}, {order!r})"]


def _memory(one: bpf.Insn, kind: int) -> list[str]:
    size, mode = bpf.SIZES[one.code & 0x18], one.code & 0xE0
    at = f"r{one.src if kind == bpf.BPF_LDX else one.dst} + {one.off}"
    found = [f"at = {at}", f"if at >= {SHARED}: yield 'map value'"]
    if mode == BPF_ATOMIC and kind == bpf.BPF_STX and one.imm == 0:
        return [*found, f"machine.add(at, {size}, r{one.src})"]
    if mode != BPF_MEM:
        raise Fault(f"no access of -mcpu=v1: {one}")
    if kind == bpf.BPF_LDX:
        return [*found, f"r{one.dst} = load(at, {size})"]
    return [*found, f"store(at, {size}, {f'r{one.src}' if kind == bpf.BPF_STX else one.imm})"]


def _alu(one: bpf.Insn, op: int, dst: str, src: str) -> str:
    other = src if one.code & bpf.BPF_X else str(one.imm & U64)
    if op == MOV:
        return f"{dst} = {other}"
    if op == NEG:
        return f"{dst} = -{dst} & {U64}"
    if op == LSH:
        return f"{dst} = {dst} << ({other} & 63) & {U64}"
    if op == RSH:
        return f"{dst} = {dst} >> ({other} & 63)"
    if op == ARSH:
        return f"{dst} = signed({dst}) >> ({other} & 63) & {U64}"
    if op in ALU:
        return f"{dst} = ({dst} {ALU[op]} {other}) & {U64}"
    raise Fault(f"no arithmetic of this machine: {one}")
