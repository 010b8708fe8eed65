"""BPF instructions, as far as a loader touches them (Linux: include/uapi/linux/bpf.h, struct bpf_insn)."""

from __future__ import annotations

import struct

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

# instruction classes, code & 0x07
BPF_LD = 0x00
BPF_LDX = 0x01
BPF_ST = 0x02
BPF_STX = 0x03
BPF_ALU = 0x04
BPF_JMP = 0x05
BPF_ALU64 = 0x07

# size of a memory access, code & 0x18 -> bytes
SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
SIZE_CODES = {size: code for code, size in SIZES.items()}

BPF_X = 0x08
LDX_DW = 0x79  # BPF_LDX | BPF_MEM | BPF_DW
LD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW: takes two slots
CALL = 0x85  # BPF_JMP | BPF_CALL
EXIT = 0x95  # BPF_JMP | BPF_EXIT
MOV64 = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
MOV64_X = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
ADD64 = 0x07  # BPF_ALU64 | BPF_ADD | BPF_K

BPF_PSEUDO_MAP_FD = 1


class Insn(NamedTuple):
    """One slot: opcode, destination and source register, signed 16-bit offset, signed 32-bit immediate."""

    code: int
    dst: int
    src: int
    off: int
    imm: int

    def pack(self, byte_order: str) -> bytes:
        """The 8 bytes of the instruction; the two registers share a byte, in bit field order."""
        if byte_order == "little":
            return struct.pack("<BBhi", self.code, self.src << 4 | self.dst, self.off, self.imm)
        return struct.pack(">BBhi", self.code, self.dst << 4 | self.src, self.off, self.imm)


def unpack(data: Union[bytes, bytearray], index: int, byte_order: str) -> Insn:
    """The instruction in slot `index` of `data`."""
    if byte_order == "little":
        code, regs, off, imm = struct.unpack_from("<BBhi", data, index * 8)
        return Insn(code, regs & 15, regs >> 4, off, imm)
    code, regs, off, imm = struct.unpack_from(">BBhi", data, index * 8)
    return Insn(code, regs >> 4, regs & 15, off, imm)


def signed32(value: int) -> int:
    """The low 32 bits of `value` as a signed number."""
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)
