"""Relocations: the right value in the right place, or an error that names the field."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from typing import Literal

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import ImageError, RelocationError
from sockpid.image import insn
from sockpid.image.image import PROBE_CTX, Image, Program, Relocation, context_layout, parse_image, record_context
from sockpid.image.relocate import POISON, relocate, replace_calls, resolve, unit
from sockpid.offsets import calibration
from sockpid.table.layout import Enum, Field, Layout, Struct

ORDERS = ("little", "big")
MOV = insn.BPF_ALU64 | 0xB0
LDX_DW = insn.BPF_LDX | 0x60 | insn.SIZE_CODES[8]
CONTEXT = context_layout(ARCHES["x86_64"], {}, "args")


def program(order: str, code: insn.Insn, relocation: Relocation, *more: Relocation) -> Program:
    slots = [code.pack(order)]
    if code.code == insn.LD_IMM64:
        slots.append(insn.Insn(0, 0, 0, 0, 0).pack(order))
    slots += [insn.Insn(MOV, 2, 0, 0, r.old).pack(order) for r in more]
    return Program("p", b"".join(slots), (), {}, (relocation, *more))


def patched(order: str, code: insn.Insn, layout: Layout, *relocations: Relocation) -> insn.Insn:
    result = relocate(program(order, code, *relocations), order, layout, CONTEXT, {"SETTING_X": 7})
    return insn.unpack(result.insns, 0, order)


def struct_row(**fields: Field | None) -> Layout:
    return {"struct s": Struct("struct s", 64, fields)}


@pytest.mark.parametrize("order", ORDERS)
def test_byte_offset_in_immediate_and_in_load(order: str) -> None:
    layout = struct_row(f=Field(40 * 8, 64))
    r = Relocation(0, "byte_off", "struct s", "f", 8, 8)
    assert patched(order, insn.Insn(MOV, 3, 0, 0, 8), layout, r) == insn.Insn(MOV, 3, 0, 0, 40)
    assert patched(order, insn.Insn(LDX_DW, 3, 1, 8, 0), layout, r) == insn.Insn(LDX_DW, 3, 1, 40, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_load_of_a_smaller_field_changes_its_size(order: str) -> None:
    r = Relocation(0, "byte_off", "struct s", "f", 0, 8)
    got = patched(order, insn.Insn(LDX_DW, 3, 1, 0, 0), struct_row(f=Field(24 * 8, 32)), r)
    assert got == insn.Insn(LDX_DW & ~0x18 | insn.SIZE_CODES[4], 3, 1, 24, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_old_value_is_checked(order: str) -> None:
    r = Relocation(0, "byte_off", "struct s", "f", 8, 8)
    with pytest.raises(ImageError, match="holds 9 where the image says 8"):
        patched(order, insn.Insn(MOV, 3, 0, 0, 9), struct_row(f=Field(0, 64)), r)


def test_a_field_of_another_size_is_refused_unless_its_size_is_asked_for() -> None:
    offset = Relocation(0, "byte_off", "struct s", "f", 0, 8)
    size = Relocation(1, "byte_sz", "struct s", "f", 8, 8)
    mov = insn.Insn(MOV, 3, 0, 0, 0)
    smaller, larger = struct_row(f=Field(32, 32)), struct_row(f=Field(64, 128))
    with pytest.raises(RelocationError, match=r"struct s\.f has 4 bytes in this kernel, not 8"):
        patched("little", mov, smaller, offset)
    result = relocate(program("little", mov, offset, size), "little", smaller, CONTEXT, {})
    assert [insn.unpack(result.insns, i, "little").imm for i in (0, 1)] == [4, 4]
    with pytest.raises(RelocationError, match="has 4 bytes"):  # no long or pointer of a 64-bit machine
        resolve(program("little", mov, offset, size), "little", smaller, word=8)
    with pytest.raises(RelocationError, match="has 2 bytes"):
        patched("little", mov, struct_row(f=Field(32, 16)), offset, size)
    with pytest.raises(RelocationError, match="has 4 bytes"):  # a big-endian short pointer would land in the high half
        patched("big", mov, smaller, offset, size)
    with pytest.raises(RelocationError, match="has 16 bytes"):  # would overrun the variable
        patched("little", mov, larger, offset, size)


@pytest.mark.parametrize("field", [Field(1, 32), Field(8, 32), Field(48, 64), Field(67, 8)])
def test_a_field_where_no_compiler_puts_it_is_refused(field: Field) -> None:
    offset = Relocation(0, "byte_off", "struct s", "f", 0, field.size)
    with pytest.raises(RelocationError, match=rf"struct s\.f of {field.size} bytes begins at bit {field.bit_offset}"):
        patched("little", insn.Insn(MOV, 3, 0, 0, 0), struct_row(f=field), offset)


def test_what_is_no_bit_field_has_the_size_that_was_declared() -> None:
    shift = Relocation(0, "lshift_u64", "struct s", "f", 48, 0)
    offset = Relocation(1, "byte_off", "struct s", "f", 0, 2)
    mov = insn.Insn(MOV, 3, 0, 0, 48)
    for field in (Field(16, 16), Field(16, 8, True)):
        relocate(program("little", mov, shift, offset), "little", struct_row(f=field), CONTEXT, {})
    with pytest.raises(RelocationError, match="has 1 bytes in this kernel, not 2"):
        relocate(program("little", mov, shift, offset), "little", struct_row(f=Field(16, 8)), CONTEXT, {})


@pytest.mark.parametrize("order", ORDERS)
def test_absent_field_poisons_and_existence_says_so(order: str) -> None:
    layout = struct_row(f=None)
    mov = insn.Insn(MOV, 3, 0, 0, 1)
    assert patched(order, mov, layout, Relocation(0, "field_exists", "struct s", "f", 1, 0)).imm == 0
    r = Relocation(0, "byte_off", "struct s", "f", 1, 8)
    result = relocate(program(order, mov, r), order, layout, CONTEXT, {})
    assert insn.unpack(result.insns, 0, order) == insn.Insn(insn.CALL, 0, 0, 0, POISON)
    assert result.poison == {POISON: "struct s.f"}


def test_absent_type_and_uncovered_field() -> None:
    mov = insn.Insn(MOV, 3, 0, 0, 1)
    assert patched("little", mov, {"struct s": None}, Relocation(0, "type_exists", "struct s", "", 1, 0)).imm == 0
    assert patched("little", mov, struct_row(), Relocation(0, "type_exists", "struct s", "", 1, 0)).imm == 1
    assert patched("little", mov, struct_row(), Relocation(0, "type_size", "struct s", "", 1, 0)).imm == 64
    with pytest.raises(RelocationError, match=r"struct s\.f, which the offsets do not cover"):
        patched("little", mov, struct_row(), Relocation(0, "byte_off", "struct s", "f", 1, 8))
    with pytest.raises(RelocationError, match="struct s, which the offsets do not cover"):
        patched("little", mov, {}, Relocation(0, "byte_off", "struct s", "f", 1, 8))


@pytest.mark.parametrize("order", ORDERS)
def test_enum_values_fill_both_halves_of_a_wide_load(order: str) -> None:
    layout = {"enum e": Enum("enum e", 8, {"A": -2, "GONE": None})}
    wide = insn.Insn(insn.LD_IMM64, 3, 0, 0, 5)
    code = program(order, wide, Relocation(0, "enumval_value", "enum e", "A", 5, 0))
    result = relocate(code, order, layout, CONTEXT, {})
    assert [insn.unpack(result.insns, i, order).imm for i in (0, 1)] == [-2, -1]
    code = program(order, wide, Relocation(0, "enumval_value", "enum e", "GONE", 5, 0))
    result = relocate(code, order, layout, CONTEXT, {})
    assert [insn.unpack(result.insns, i, order).code for i in (0, 1)] == [insn.CALL] * 2
    mov = insn.Insn(MOV, 3, 0, 0, 1)
    assert patched(order, mov, layout, Relocation(0, "enumval_exists", "enum e", "GONE", 1, 0)).imm == 0
    assert patched(order, mov, layout, Relocation(0, "enumval_exists", "enum e", "A", 1, 0)).imm == 1


@pytest.mark.parametrize("order", ORDERS)
def test_shifts_extract_exactly_the_bits_of_a_field(order: Literal["little", "big"]) -> None:
    """Does what the program does - load the unit into 64 bits, shift left, shift right - against the bits."""
    draw = random.Random(1)
    tried = 0
    while tried < 500:
        field = Field(draw.randrange(100), draw.randrange(1, 33), True)
        try:
            start, size = unit(field)
        except ImageError:
            continue
        tried += 1
        memory = draw.randbytes(24)
        bits = "".join(f"{byte:08b}" if order == "big" else f"{byte:08b}"[::-1] for byte in memory)
        taken = bits[field.bit_offset : field.bit_offset + field.bit_size]
        truth = int(taken if order == "big" else taken[::-1], 2)
        layout = struct_row(f=field)
        shifts = [
            patched(order, insn.Insn(MOV, 3, 0, 0, 0), layout, Relocation(0, kind, "struct s", "f", 0, 0)).imm
            for kind in ("lshift_u64", "rshift_u64")
        ]
        # BPF_CORE_READ_BITFIELD_PROBED reads into the low-order bytes of a u64
        value = int.from_bytes(memory[start : start + size], order)
        assert (value << shifts[0] & 2**64 - 1) >> shifts[1] == truth, field


@pytest.mark.parametrize("order", ORDERS)
def test_calls_that_the_kernel_lacks_are_replaced(order: str) -> None:
    calls = [insn.Insn(insn.CALL, 0, 0, 0, number) for number in (113, 80, 14)]
    code = b"".join(one.pack(order) for one in calls)
    helpers = {"bpf_probe_read_kernel": (0,), "bpf_get_current_cgroup_id": (1,), "bpf_get_current_pid_tgid": (2,)}
    insns = bytearray(code)
    replaced = {"bpf_probe_read_kernel": 4, "bpf_get_current_cgroup_id": None, "bpf_ringbuf_output": None}
    replace_calls(insns, Program("p", code, (), helpers, ()), order, replaced)
    got = [insn.unpack(insns, index, order) for index in range(3)]
    assert got == [insn.Insn(insn.CALL, 0, 0, 0, 4), insn.Insn(insn.MOV64, 0, 0, 0, 0), calls[2]]


def test_context_of_a_tracepoints_record() -> None:
    """The record of a real-time kernel begins later, and its state is an int."""
    record = {"skaddr": Field(24 * 8, 64), "newstate": Field(36 * 8, 32)}
    context = record_context(record, ("skaddr", "newstate"))
    r = Relocation(0, "byte_off", PROBE_CTX, "arg1", 8, 8)
    code = program("little", insn.Insn(LDX_DW, 3, 1, 8, 0), r)
    patched = relocate(code, "little", {}, context, {})
    assert insn.unpack(patched.insns, 0, "little") == insn.Insn(LDX_DW & ~0x18 | insn.SIZE_CODES[4], 3, 1, 36, 0)
    with pytest.raises(RelocationError, match="no field err"):
        record_context(record, ("skaddr", "err"))


def test_context_of_a_function_with_fewer_arguments() -> None:
    """A fentry program may not even load an argument that the function does not have."""
    context = context_layout(ARCHES["x86_64"], {}, "args", 2)
    assert [context.fields[f"arg{n}"] for n in range(3)] == [Field(0, 64), Field(64, 64), Field(64, 64)]


def test_context_follows_the_way_of_attaching() -> None:
    regs = Struct("struct pt_regs", 72, {f"uregs[{n}]": Field(n * 32, 32) for n in range(4)})
    r = Relocation(0, "byte_off", PROBE_CTX, "arg1", 8, 8)
    code = program("little", insn.Insn(LDX_DW, 3, 1, 8, 0), r)
    arm = ARCHES["arm"]
    kprobe = relocate(code, "little", {}, context_layout(arm, {"struct pt_regs": regs}, "kprobe"), {})
    assert insn.unpack(kprobe.insns, 0, "little") == insn.Insn(LDX_DW & ~0x18 | insn.SIZE_CODES[4], 3, 1, 4, 0)
    args = relocate(code, "little", {}, context_layout(arm, {}, "args"), {})
    assert insn.unpack(args.insns, 0, "little") == insn.Insn(LDX_DW, 3, 1, 8, 0)
    with pytest.raises(RelocationError, match="struct pt_regs"):
        context_layout(arm, {}, "kprobe")


@pytest.mark.parametrize("change", [Field(120 * 8, 64), Field(104 * 8, 64), Field(112 * 8, 32), Field(112 * 8 + 1, 64)])
def test_registers_that_are_elsewhere_are_refused_by_name(change: Field) -> None:
    """They are the kernel's user space interface: a hook that reads another one may look as if it did its work."""
    x86 = ARCHES["x86_64"]
    regs = calibration.pt_regs(x86)
    assert context_layout(x86, {"struct pt_regs": regs}, "kprobe").fields["arg0"] == Field(112 * 8, 64)
    moved = regs._replace(fields={**regs.fields, "di": change})
    with pytest.raises(RelocationError, match=r"struct pt_regs\.di of \d+ bits begins at bit"):
        context_layout(x86, {"struct pt_regs": moved}, "kprobe")


def test_settings_are_the_loaders_to_give() -> None:
    wide = insn.Insn(insn.LD_IMM64, 3, 0, 0, 5)
    assert patched("little", wide, {}, Relocation(0, "enumval_value", "enum setting", "SETTING_X", 5, 0)).imm == 7
    with pytest.raises(RelocationError, match="no value for setting SETTING_Y"):
        patched("little", wide, {}, Relocation(0, "enumval_value", "enum setting", "SETTING_Y", 5, 0))


def images() -> Mapping[str, Image]:
    from sockpid import data
    from sockpid.image import image

    found = {}
    for order in ORDERS:
        content = data.read(f"bpf_bytecode/{image.file_name(order)}")
        assert content is not None
        found[order] = parse_image(content, order)
    return found


def test_committed_images_ask_for_the_same_in_both_byte_orders() -> None:
    both = images()
    for arch in ARCHES.values():
        assert both["little"].wanted(arch) == both["big"].wanted(arch)
    assert both["little"].maps == both["big"].maps
    assert both["little"].abi == both["big"].abi
    assert {o: i.byte_order for o, i in both.items()} == {o: o for o in ORDERS}
    assert both["little"].digest == both["big"].digest


@pytest.mark.parametrize("order", ORDERS)
def test_no_offset_of_compile_time_survives(order: str) -> None:
    """With every field moved far away, each patched instruction holds a number that only the layout can have given."""
    image = images()[order]
    arch = next(a for a in ARCHES.values() if a.byte_order == order)
    rows: dict[str, Struct] = {}
    for name, paths in image.wanted(arch).items():
        sizes = {r.path: r.size for p in image.programs.values() for r in p.relocations if r.type == name and r.size}
        fields = {path: Field((4096 + 64 * i) * 8, sizes.get(path, 1) * 8) for i, path in enumerate(sorted(paths))}
        rows[name] = Struct(name, 32000, fields)
    far = {f"arg{n}": Field((4096 + 8 * n) * 8, arch.pointer_size * 8) for n in range(4)}
    settings = dict.fromkeys(image.settings(), 1)
    for p in image.programs.values():
        result = relocate(p, order, rows, Struct(PROBE_CTX, 32000, far), settings)
        assert result.poison == {}
        for r in p.relocations:
            if r.kind == "byte_off":
                got = insn.unpack(result.insns, r.insn, order)
                assert max(got.off, got.imm) >= 4096


def test_insn_registers_share_a_byte_in_bit_field_order() -> None:
    one = insn.Insn(0x61, 3, 10, -8, 0x1234)
    assert one.pack("little") == struct.pack("<BBhi", 0x61, 0xA3, -8, 0x1234)
    assert one.pack("big") == struct.pack(">BBhi", 0x61, 0x3A, -8, 0x1234)
    for order in ORDERS:
        assert insn.unpack(one.pack(order), 0, order) == one
