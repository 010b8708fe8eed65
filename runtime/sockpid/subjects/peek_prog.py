"""The program behind peek.py: a few instructions that copy memory into a map, and need no offset of any kernel."""

from __future__ import annotations

import struct
from typing import List, Sequence, Tuple

from sockpid import uapi
from sockpid.image.insn import BPF_ALU64, BPF_LDX, BPF_PSEUDO_MAP_FD, BPF_STX, BPF_X, CALL, LD_IMM64, SIZE_CODES, Insn

CONFIG = "=QQQQ"
"""What the program is told: pid_tgid to look at (0: all), address, argument 0 to look at (0: any), records so far."""
HEADER = "=QQQQ"
"""What stands before the memory in a record: the probe's arguments, the last one three times or twice if there are less
than three; the address of the current task."""
SIZE = 4096
"""Bytes that one look copies. struct tcp_sock has less than 3000 so far."""
ARG0, ARG1 = 0, 1
"""Instead of an address: what the first or the second argument points to."""

_CHUNK = 256  # one that cannot be read is left out, not everything
_MOV, _ADD, _EXIT, _JEQ, _JNE, _MEM = 0xB0, 0x00, 0x95, 0x15, 0x55, 0x60
_IMM = 0x00


def assemble(args: Sequence[int], size: int, probe_read: int, maps: Tuple[int, int], byte_order: str) -> bytes:
    """The program.

    args: where in the probe's context its arguments are, in bytes; size: of each. probe_read: number of the helper.
    maps: descriptors of the arrays of CONFIG and of HEADER with SIZE bytes. Registers: r6 is the context, r7 the
    configuration, then the address; r8 argument 0; r9 the slot. Memory is read onto the stack, the one place
    that a helper of Linux 4.9 may write to (check_func_arg() of its kernel/bpf/verifier.c), and stored from there.
    """
    code: List[Insn] = []
    leave: List[int] = []  # jumps to the end

    def mov(dst: int, src: int) -> None:
        code.append(Insn(BPF_ALU64 | _MOV | BPF_X, dst, src, 0, 0))

    def mov_imm(dst: int, value: int) -> None:
        code.append(Insn(BPF_ALU64 | _MOV, dst, 0, 0, value))

    def add(dst: int, value: int) -> None:
        code.append(Insn(BPF_ALU64 | _ADD, dst, 0, 0, value))

    def load(dst: int, src: int, offset: int, width: int = 8) -> None:
        code.append(Insn(BPF_LDX | _MEM | SIZE_CODES[width], dst, src, offset, 0))

    def store(dst: int, offset: int, src: int, width: int = 8) -> None:
        code.append(Insn(BPF_STX | _MEM | SIZE_CODES[width], dst, src, offset, 0))

    def leave_if(code_: int, dst: int, src: int = 0, imm: int = 0) -> None:
        leave.append(len(code))
        code.append(Insn(code_, dst, src, 0, imm))

    def lookup(fd: int) -> None:
        code.append(Insn(LD_IMM64, 1, BPF_PSEUDO_MAP_FD, 0, fd))
        code.append(Insn(_IMM, 0, 0, 0, 0))
        mov(2, 10)
        add(2, -4)
        call("bpf_map_lookup_elem")
        leave_if(_JEQ, 0)

    def call(name: str) -> None:
        code.append(Insn(CALL, 0, 0, 0, uapi.BPF_FUNC[name]))

    mov(6, 1)
    mov_imm(1, 0)
    store(10, -4, 1, 4)
    lookup(maps[0])
    mov(7, 0)
    load(8, 7, 0)
    code.append(Insn(_JEQ, 8, 0, 2, 0))
    call("bpf_get_current_pid_tgid")
    leave_if(_JNE | BPF_X, 0, 8)
    load(8, 6, args[0], size)
    load(1, 7, 16)
    code.append(Insn(_JEQ, 1, 0, 1, 0))
    leave_if(_JNE | BPF_X, 1, 8)
    load(1, 7, 24)
    store(10, -4, 1, 4)
    add(1, 1)
    store(7, 24, 1)
    lookup(maps[1])
    mov(9, 0)
    for n in range(3):
        load(1, 6, args[min(n, len(args) - 1)], size)
        store(9, 8 * n, 1)
    call("bpf_get_current_task")
    store(9, 24, 0)
    load(7, 7, 8)
    code.append(Insn(_JNE, 7, 0, 1, ARG0))
    mov(7, 8)
    if len(args) > 1:
        code.append(Insn(_JNE, 7, 0, 1, ARG1))
        load(7, 6, args[1], size)
    header = struct.calcsize(HEADER)
    for offset in range(0, SIZE, _CHUNK):
        mov(1, 10)
        add(1, -_CHUNK)
        mov_imm(2, _CHUNK)
        mov(3, 7)
        add(3, offset)
        code.append(Insn(CALL, 0, 0, 0, probe_read))
        for at in range(0, _CHUNK, 8):
            load(1, 10, at - _CHUNK)
            store(9, header + offset + at, 1)
    for index in leave:
        code[index] = code[index]._replace(off=len(code) - index - 1)
    mov_imm(0, 0)
    code.append(Insn(_EXIT, 0, 0, 0, 0))
    return b"".join(insn.pack(byte_order) for insn in code)
