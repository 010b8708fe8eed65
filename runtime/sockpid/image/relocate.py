"""Resolves an image's relocations for one kernel: names and a layout in, instructions out.

The rules are libbpf's (src/relo_core.c): the old value is checked before the new one is written; a field that the
kernel does not have poisons the instruction, so that the verifier refuses the program unless the instruction cannot be
reached. Stricter than libbpf in one thing: a field whose size differs from what the program was compiled for is
refused, but for a long or a pointer of a 32-bit machine, and for what is a bit field in some kernels; so is one that
lies where no compiler puts it. No offset of compile time survives.
"""

from __future__ import annotations

import struct

from sockpid.errors import ImageError, RelocationError
from sockpid.namedtuple import NamedTuple
from sockpid.table.layout import Enum, Field, Layout, Struct

from . import insn as bpf
from .image import PROBE_CTX, SETTING, Program, Relocation, argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Mapping, Optional, Tuple

POISON = 195896080
"""Number of the helper that a poisoned instruction calls; "0xbad2310" read aloud. The relocation's index is added."""

# struct bpf_insn: __u8 code, dst_reg : 4, src_reg : 4; __s16 off; __s32 imm
_LE_OFF, _LE_IMM = struct.Struct("<h"), struct.Struct("<i")
_BE_OFF, _BE_IMM = struct.Struct(">h"), struct.Struct(">i")


class Resolved(NamedTuple):
    """A program for one kernel and any place. rest: the relocations that are left: of its context, and settings."""

    program: Program
    insns: bytes
    poison: Mapping[int, str]
    rest: Tuple[Relocation, ...]


class Relocated(NamedTuple):
    """Instructions ready but for map descriptors. poison: helper number -> C field the kernel does not have."""

    insns: bytes
    poison: Mapping[int, str]


def replace_calls(insns: bytearray, program: Program, byte_order: str, calls: Mapping[str, Optional[int]]) -> None:
    """Puts other helpers, by number, or the result 0 (None) in place of the calls of those in `calls`.

    Old verifiers refuse a call they do not know even where it is never made.
    """
    for helper, number in calls.items():
        other = bpf.Insn(bpf.MOV64, 0, 0, 0, 0) if number is None else bpf.Insn(bpf.CALL, 0, 0, 0, number)
        for index in program.helpers.get(helper, ()):
            insns[index * 8 : index * 8 + 8] = other.pack(byte_order)


def relocate(
    program: Program, byte_order: str, layout: Layout, context: Struct, settings: Mapping[str, int]
) -> Relocated:
    """Patches all relocations of `program`. Raises RelocationError, naming the field, when one cannot be resolved."""
    return place(resolve(program, byte_order, layout), byte_order, context, settings)


def resolve(program: Program, byte_order: str, layout: Layout, word: int = 4) -> Resolved:
    """Patches what depends on the kernel alone, and leaves what depends on the place. Raises RelocationError.

    word: bytes of the least long that the kernel may have.
    """
    insns = bytearray(program.insns)
    poison: Dict[int, str] = {}
    rest: List[Relocation] = []
    sized: Dict[Tuple[str, str], str] = {}
    for kind in ("byte_sz", "lshift_u64"):  # a field that is shifted has its size asked for too
        sized.update({(r.type, r.path): kind for r in program.relocations if r.kind == kind})
    values: Dict[Tuple[str, str, str], Tuple[Optional[int], Optional[Field]]] = {}
    for index, r in enumerate(program.relocations):
        if r.type in (PROBE_CTX, SETTING):
            rest.append(r)
            continue
        key = r.kind, r.type, r.path
        if key not in values:
            values[key] = _value(program, r, layout, byte_order)
        value, field = values[key]
        if value is None:
            poison[POISON + index] = f"{r.type}.{r.path}" if r.path else r.type
            _poison(insns, r, index, byte_order)
        else:
            _check_size(program, r, field, sized, byte_order, word)
            _patch(insns, program, r, value, field, byte_order)
    return Resolved(program, bytes(insns), poison, tuple(rest))


def place(resolved: Resolved, byte_order: str, context: Struct, settings: Mapping[str, int]) -> Relocated:
    """Patches what depends on where and for what a program is attached. Raises RelocationError."""
    insns = bytearray(resolved.insns)
    for r in resolved.rest:
        field: Optional[Field] = None
        if r.type == PROBE_CTX:
            field = context.fields.get(r.path)
            if field is None:
                raise RelocationError(f"no argument {argument(r.path)} here", r.type, r.path)
            value = _field_value(r, field, byte_order)
            _check_size(resolved.program, r, field, {}, byte_order)
        elif r.path in settings:
            value = settings[r.path]
        else:
            raise RelocationError(f"the loader has no value for setting {r.path}", r.type, r.path)
        _patch(insns, resolved.program, r, value, field, byte_order)
    return Relocated(bytes(insns), resolved.poison)


def _value(program: Program, r: Relocation, layout: Layout, byte_order: str) -> Tuple[Optional[int], Optional[Field]]:
    """New value of a relocation (None: poison) and the field it speaks of."""
    if r.type not in layout:
        raise RelocationError(f"program {program.name} needs {r.type}, which the offsets do not cover", r.type, r.path)
    row = layout[r.type]
    if r.kind == "type_exists":
        return int(row is not None), None
    if r.kind == "type_size":
        return (None if row is None else row.size), None
    if r.kind in ("enumval_exists", "enumval_value"):
        values = row.values if isinstance(row, Enum) else {}
        if isinstance(row, Enum) and r.path not in values:
            raise _not_covered(program, r)
        number = values.get(r.path)
        return (int(number is not None) if r.kind == "enumval_exists" else number), None
    if isinstance(row, Struct) and r.path not in row.fields:
        raise _not_covered(program, r)
    field = row.fields[r.path] if isinstance(row, Struct) else None
    if r.kind == "field_exists":
        return int(field is not None), field
    if field is None:
        return None, None
    return _field_value(r, field, byte_order), field


def _not_covered(program: Program, r: Relocation) -> RelocationError:
    return RelocationError(
        f"program {program.name} needs {r.type}.{r.path}, which the offsets do not cover", r.type, r.path
    )


def unit(field: Field) -> Tuple[int, int]:
    """Byte offset and size of the naturally aligned load that covers a field's bits."""
    if not field.bitfield:
        return field.offset, field.size
    for size in (1, 2, 4, 8):
        start = field.bit_offset // 8 // size * size
        if field.bit_offset + field.bit_size <= (start + size) * 8:
            return start, size
    raise ImageError(f"bit field of {field.bit_size} bits at bit {field.bit_offset} fits no 64-bit load")


def _field_value(r: Relocation, field: Field, byte_order: str) -> int:
    start, size = unit(field)
    if r.kind == "byte_off":
        return start
    if r.kind == "byte_sz":
        return size
    if r.kind == "field_exists":
        return 1
    if r.kind == "signed":
        return int(field.signed)
    if r.kind == "rshift_u64":
        return 64 - field.bit_size
    if r.kind == "lshift_u64":
        if byte_order == "little":
            return 64 - (field.bit_offset + field.bit_size - start * 8)
        return (8 - size) * 8 + (field.bit_offset - start * 8)
    raise ImageError(f"unknown relocation kind {r.kind!r}")


def _check_size(
    program: Program,
    r: Relocation,
    field: Optional[Field],
    sized: Mapping[Tuple[str, str], str],
    byte_order: str,
    word: int = 4,
) -> None:
    """Refuses a field that the program would read with a wrong size."""
    if field is None or r.kind != "byte_off":
        return
    size = unit(field)[1]
    if not field.bitfield and field.bit_offset % (min(size, 8) * 8 if size in bpf.SIZE_CODES else 8):
        raise RelocationError(
            f"program {program.name}: {r.type}.{r.path} of {size} bytes begins at bit {field.bit_offset}: none does",
            r.type,
            r.path,
        )
    if not r.size:  # of a struct the place alone is asked for
        return
    how = sized.get((r.type, r.path))
    if how == "lshift_u64":  # read into 64 bits and shifted
        fits = size <= 8 if field.bitfield else size == r.size
    elif how == "byte_sz":  # read with the kernel's own size into a zeroed variable of the declared one
        # A long or a pointer of a 32-bit machine.
        fits = size == r.size or (r.size == 8 and size == 4 == word and byte_order == "little")
    else:
        fits = size == r.size or _is_memory_access(program, r, byte_order)
    if not fits:
        raise RelocationError(
            f"program {program.name}: {r.type}.{r.path} has {size} bytes in this kernel, not {r.size}", r.type, r.path
        )


def _is_memory_access(program: Program, r: Relocation, byte_order: str) -> bool:
    return bpf.unpack(program.insns, r.insn, byte_order).code & 7 in (bpf.BPF_LDX, bpf.BPF_ST, bpf.BPF_STX)


def _patch(
    insns: bytearray, program: Program, r: Relocation, value: int, field: Optional[Field], byte_order: str
) -> None:
    at = r.insn * 8
    code = insns[at]
    off, imm = (_LE_OFF, _LE_IMM) if byte_order == "little" else (_BE_OFF, _BE_IMM)
    if code == bpf.LD_IMM64:
        low, high = imm.unpack_from(insns, at + 4)[0], imm.unpack_from(insns, at + 12)[0]
        _check_old(program, r, (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF), r.old & 0xFFFFFFFFFFFFFFFF)
        imm.pack_into(insns, at + 4, bpf.signed32(value))
        imm.pack_into(insns, at + 12, bpf.signed32(value >> 32))
    elif code & 7 in (bpf.BPF_LDX, bpf.BPF_ST, bpf.BPF_STX):
        _check_old(program, r, off.unpack_from(insns, at + 2)[0], r.old)
        if not -0x8000 <= value < 0x8000:
            raise RelocationError(f"offset {value} of {r.type}.{r.path} does not fit 16 bits", r.type, r.path)
        off.pack_into(insns, at + 2, value)
        if field is not None and r.kind == "byte_off":
            size = unit(field)[1]
            if size not in bpf.SIZE_CODES:
                raise RelocationError(f"{r.type}.{r.path} of {size} bytes cannot be loaded", r.type, r.path)
            if size != bpf.SIZES[code & 0x18]:
                insns[at] = code & ~0x18 | bpf.SIZE_CODES[size]
    elif code & 7 in (bpf.BPF_ALU, bpf.BPF_ALU64) and not code & bpf.BPF_X:
        _check_old(program, r, imm.unpack_from(insns, at + 4)[0], bpf.signed32(r.old))
        imm.pack_into(insns, at + 4, bpf.signed32(value))
    else:
        raise ImageError(f"program {program.name}: instruction {r.insn} (code {code:#x}) holds no relocatable value")


def _check_old(program: Program, r: Relocation, found: int, expected: int) -> None:
    if found != expected:
        raise ImageError(
            f"program {program.name}: instruction {r.insn} holds {found} where the image says {expected} "
            f"({r.kind} of {r.type}.{r.path}): damaged image"
        )


def _poison(insns: bytearray, r: Relocation, index: int, byte_order: str) -> None:
    call = bpf.Insn(bpf.CALL, 0, 0, 0, POISON + index).pack(byte_order)
    slots = 2 if bpf.unpack(insns, r.insn, byte_order).code == bpf.LD_IMM64 else 1
    insns[r.insn * 8 : (r.insn + slots) * 8] = call * slots
