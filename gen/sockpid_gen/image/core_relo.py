"""CO-RE relocations as clang writes them into .BTF.ext, and what they are about, in C's own words."""

from __future__ import annotations

import struct
from typing import NamedTuple

from sockpid.btf import record as btf_record
from sockpid.btf.btf import Btf
from sockpid.errors import ImageError

# enum bpf_core_relo_kind (include/uapi/linux/bpf.h), with the names that libbpf prints.
KINDS = {
    0: "byte_off",
    1: "byte_sz",
    2: "field_exists",
    3: "signed",
    4: "lshift_u64",
    5: "rshift_u64",
    8: "type_exists",
    9: "type_size",
    10: "enumval_exists",
    11: "enumval_value",
}
MODIFIERS = (btf_record.BTF_KIND_TYPEDEF, btf_record.BTF_KIND_CONST, btf_record.BTF_KIND_VOLATILE)


class CoreRelo(NamedTuple):
    """struct bpf_core_relo: byte offset of the instruction in its section, root type, access string, kind."""

    insn_off: int
    type_id: int
    access: str
    kind: int


def core_relocations(ext: bytes, btf: Btf, order: str) -> dict[str, list[CoreRelo]]:
    """The CO-RE relocations of a .BTF.ext section, by the name of the section that they patch."""
    mark = "<" if order == "little" else ">"
    hdr_len = struct.unpack_from(mark + "I", ext, 4)[0]
    if hdr_len < 32:
        return {}
    offset, length = struct.unpack_from(mark + "II", ext, 24)
    position, end = hdr_len + offset, hdr_len + offset + length
    found: dict[str, list[CoreRelo]] = {}
    (record_size,) = struct.unpack_from(mark + "I", ext, position)
    position += 4
    while position < end:
        name_off, count = struct.unpack_from(mark + "II", ext, position)
        position += 8
        rows = found.setdefault(btf.string(name_off), [])
        for _ in range(count):
            insn_off, type_id, access_off, kind = struct.unpack_from(mark + "IIII", ext, position)
            rows.append(CoreRelo(insn_off, type_id, btf.string(access_off), kind))
            position += record_size
    return found


def is_aggregate(btf: Btf, r: CoreRelo) -> bool:
    """The field of a relocation is a struct or union."""
    record = btf.type(r.type_id)
    for index in [int(part) for part in r.access.split(":")][1:]:
        while record.kind in MODIFIERS:
            record = btf.type(record.size_or_type)
        record = btf.type(record.array.type if record.array is not None else record.members[index].type)
    while record.kind in MODIFIERS:
        record = btf.type(record.size_or_type)
    return record.kind in (btf_record.BTF_KIND_STRUCT, btf_record.BTF_KIND_UNION)


def access(btf: Btf, r: CoreRelo, kind: str) -> tuple[str, str, int | None, int | None]:
    """Type name, path, byte offset and size (None: not simple, as for bit fields) that an access string names."""
    record = btf.type(r.type_id)
    while record.kind in MODIFIERS:
        record = btf.type(record.size_or_type)
    keyword = {btf_record.BTF_KIND_STRUCT: "struct", btf_record.BTF_KIND_UNION: "union"}.get(record.kind, "enum")
    # A flavour (name___flavour) is another view of the same kernel type.
    type_name = f"{keyword} {record.name.partition('___')[0]}"
    if kind.startswith("type_"):
        return type_name, "", None, None
    indices = [int(part) for part in r.access.split(":")]
    if kind.startswith("enumval_"):
        return type_name, record.values[indices[0]][0].partition("___")[0], None, None
    if indices[0] != 0:
        raise ImageError(f"access {r.access!r} to {type_name}: the root cannot be an array element")
    path, bits = "", 0
    bitfield = False
    for index in indices[1:]:
        if record.kind == btf_record.BTF_KIND_ARRAY and record.array is not None:
            path += f"[{index}]"
            element = size_of(btf, record.array.type)
            bits += index * element * 8
            record = btf.type(record.array.type)
        else:
            member = record.members[index]
            if member.name:
                path += ("." if path else "") + member.name
            bits += member.bit_offset
            bitfield = bool(member.bitfield_size)
            record = btf.type(member.type)
        while record.kind in MODIFIERS:
            record = btf.type(record.size_or_type)
    if bitfield:
        return type_name, path, None, None
    return type_name, path, bits // 8, size_of(btf, record.id)


def size_of(btf: Btf, type_id: int) -> int:
    """Size in bytes of a type of a BPF object, whose pointers have 8."""
    record = btf.type(type_id)
    while record.kind in MODIFIERS:
        record = btf.type(record.size_or_type)
    if record.kind == btf_record.BTF_KIND_PTR:
        return 8
    if record.array is not None:
        return record.array.nelems * size_of(btf, record.array.type)
    return record.size_or_type
