"""BPF instructions as the kernel's verifier prints them (kernel/bpf/disasm.c)."""

from __future__ import annotations

from sockpid.image import insn as bpf
from sockpid.image.relocate import POISON

_ALU = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian")
_JMP = ("goto", "==", ">", ">=", "&", "!=", "s>", "s>=", "call", "exit", "<", "<=", "s<", "s<=")
_SIZES = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def text(insns: bytes, index: int, byte_order: str) -> str:
    """The instruction in slot `index`: "r1 = *(u16 *)(r6 +540)". A poisoned one says so."""
    i = bpf.unpack(insns, index, byte_order)
    kind, code = i.code & 7, i.code >> 4
    if i.code == bpf.LD_IMM64:
        high = bpf.unpack(insns, index + 1, byte_order)
        return f"r{i.dst} = {(high.imm & 0xFFFFFFFF) << 32 | (i.imm & 0xFFFFFFFF):#x} ll"
    if kind in (bpf.BPF_LDX, bpf.BPF_ST, bpf.BPF_STX):
        size = _SIZES[bpf.SIZES[i.code & 0x18]]
        if kind == bpf.BPF_LDX:
            return f"r{i.dst} = *({size} *)(r{i.src} {i.off:+})"
        value = f"r{i.src}" if kind == bpf.BPF_STX else i.imm
        operator = "+=" if i.code & 0xE0 == 0xC0 else "="  # BPF_ATOMIC, BPF_MEM
        return f"*({size} *)(r{i.dst} {i.off:+}) {operator} {value}"
    if kind in (bpf.BPF_ALU, bpf.BPF_ALU64) and code < len(_ALU):
        register = "r" if kind == bpf.BPF_ALU64 else "w"
        if _ALU[code] == "neg":
            return f"{register}{i.dst} = -{register}{i.dst}"
        if _ALU[code] == "endian":
            return f"r{i.dst} = {'be' if i.code & bpf.BPF_X else 'le'}{i.imm} r{i.dst}"
        return f"{register}{i.dst} {_ALU[code]} {f'{register}{i.src}' if i.code & bpf.BPF_X else i.imm}"
    if i.code == bpf.CALL:
        return f"poisoned (helper {i.imm})" if i.imm >= POISON else f"call {i.imm}"
    if kind == bpf.BPF_JMP and code < len(_JMP):
        if _JMP[code] in ("goto", "exit"):
            return "exit" if _JMP[code] == "exit" else f"goto pc{i.off:+}"
        return f"if r{i.dst} {_JMP[code]} {f'r{i.src}' if i.code & bpf.BPF_X else i.imm} goto pc{i.off:+}"
    return f"({i.code:#04x}) dst {i.dst} src {i.src} off {i.off} imm {i.imm}"
