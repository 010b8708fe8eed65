"""What the oldest kernels demand of a program, held against the committed images, instruction by instruction."""

from __future__ import annotations

import pytest

from sockpid import uapi
from sockpid.image import insn
from sockpid.image.image import Image, Program
from tests.unit.image.test_relocate import images

BPF_MAXINSNS = 4096
"""Linux 4.9 to 5.1 refuse longer programs (include/uapi/linux/bpf_common.h)."""
JUMPS = {0x05, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D, 0x45, 0x4D, 0x55, 0x5D, 0x65, 0x6D, 0x75, 0x7D}
"""Jumps that Linux 4.9 knows: JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE with an immediate or a register (-mcpu=v1)."""
JA = 0x05
HELPERS_OF_4_9 = {name for name, number in uapi.BPF_FUNC.items() if number <= uapi.BPF_FUNC["bpf_get_current_task"]}
REPLACED = {
    "bpf_probe_read_kernel",
    "bpf_get_current_cgroup_id",
    "bpf_get_current_task_btf",
    "bpf_ringbuf_output",
}
"""Calls that the loader replaces where the kernel has no such helper."""

PROGRAMS = [
    pytest.param(image, program, id=f"{order}-{name}")
    for order, image in images().items()
    for name, program in image.programs.items()
]


def instructions(image: Image, program: Program) -> list[tuple[int, insn.Insn]]:
    found, slot = [], 0
    while slot < len(program.insns) // 8:
        one = insn.unpack(program.insns, slot, image.byte_order)
        found.append((slot, one))
        slot += 2 if one.code == insn.LD_IMM64 else 1
    return found


@pytest.mark.parametrize(("image", "program"), PROGRAMS)
def test_an_old_verifier_finds_nothing_it_does_not_know(image: Image, program: Program) -> None:
    assert len(program.insns) // 8 < BPF_MAXINSNS
    for slot, one in instructions(image, program):
        if one.code & 7 == 6:
            pytest.fail(f"{slot}: 32-bit jumps came with Linux 5.1")
        if one.code == insn.CALL:
            assert one.src == 0, f"{slot}: calls between functions came with Linux 4.16"
        elif one.code & 7 == insn.BPF_JMP and one.code != insn.EXIT:
            assert one.code in JUMPS, f"{slot}: jump {one.code:#x} is not of -mcpu=v1"


def successors(code: dict[int, insn.Insn], slot: int) -> list[int]:
    one = code[slot]
    if one.code == insn.EXIT:
        return []
    following = slot + (2 if one.code == insn.LD_IMM64 else 1)
    if one.code & 7 != insn.BPF_JMP or one.code == insn.CALL:
        return [following]
    return [slot + 1 + one.off] if one.code == JA else [following, slot + 1 + one.off]


@pytest.mark.parametrize(("image", "program"), PROGRAMS)
def test_no_loop_and_no_dead_end(image: Image, program: Program) -> None:
    """check_cfg() of kernel/bpf/verifier.c: "back-edge" before Linux 5.3, "unreachable insn" in all versions."""
    code = dict(instructions(image, program))
    done: set[int] = set()
    way: list[tuple[int, list[int]]] = [(0, successors(code, 0))]
    while way:
        slot, left = way[-1]
        if not left:
            done.add(slot)
            way.pop()
        elif (following := left.pop()) not in done:
            assert following not in {s for s, _ in way}, f"{slot}: a way back to {following}"
            way.append((following, successors(code, following)))
    assert done == code.keys()


@pytest.mark.parametrize(("image", "program"), PROGRAMS)
def test_every_helper_is_old_or_replaceable(image: Image, program: Program) -> None:
    assert set(program.helpers) - HELPERS_OF_4_9 <= REPLACED, image.byte_order
    calls = {slot for slot, one in instructions(image, program) if one.code == insn.CALL}
    assert calls == {slot for slots in program.helpers.values() for slot in slots}
