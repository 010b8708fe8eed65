"""The link step: a clang object in, the bytecode image out. docs/image-format.md defines what is written.

Relocations leave here by name, as C spells them, so that the loader needs no BTF at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from sockpid import btf_record, insn, uapi
from sockpid.btf import Btf
from sockpid.errors import ImageError
from sockpid.image import SCHEMA

ABI = ("count_key", "event", "exec_name", "owner", "process", "socket_tuple")
"""Structs of bpf_bytecode/sockpid.h whose layout the image records for whoever decodes them."""

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
HELPERS = {number: name for name, number in uapi.BPF_FUNC.items()}
R_BPF_64_64 = 1
MODIFIERS = (btf_record.BTF_KIND_TYPEDEF, btf_record.BTF_KIND_CONST, btf_record.BTF_KIND_VOLATILE)


class CoreRelo(NamedTuple):
    """struct bpf_core_relo: byte offset of the instruction in its section, root type, access string, kind."""

    insn_off: int
    type_id: int
    access: str
    kind: int


def build(object_file: Path, sources: list[Path]) -> bytes:
    """Links the object that clang made of `sources` into an image.

    Raises ImageError, naming the program and instruction, for anything a loader could not resolve later.
    """
    data = object_file.read_bytes()
    try:
        elf: Any = ELFFile(io.BytesIO(data))
    except Exception as error:  # pyelftools raises what it pleases for a damaged header
        raise ImageError(f"{object_file}: not an ELF object ({error})") from None
    order = "little" if elf.little_endian else "big"
    btf_section, ext_section = elf.get_section_by_name(".BTF"), elf.get_section_by_name(".BTF.ext")
    if btf_section is None or ext_section is None:
        raise ImageError(f"{object_file}: no .BTF and .BTF.ext: compile with -g")
    btf = Btf(btf_section.data())
    relocations = core_relocations(ext_section.data(), btf, order)
    maps = _maps(btf)
    programs: dict[str, Any] = {}
    for section in elf.iter_sections():
        if section["sh_flags"] & 4 and section.data_size and section.name.startswith("probe/"):
            name = section.name.partition("/")[2]
            programs[name] = _program(elf, section, name, relocations.get(section.name, []), btf, order, set(maps))
    document = {
        "schema": f"{SCHEMA[0]}.{SCHEMA[1]}",
        "byte_order": order,
        "license": elf.get_section_by_name("license").data().rstrip(b"\0").decode(),
        "producer": _compiler(elf),
        "digest": source_digest(sources),
        "abi": {f"struct {name}": _abi(btf, name) for name in ABI},
        "maps": maps,
        "programs": programs,
    }
    return (render(document) + "\n").encode()


def render(value: Any, depth: int = 0) -> str:
    """JSON with sorted keys, opened up to the fourth level: an instruction or relocation a line, for readable diffs."""
    if depth == 4 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, sort_keys=True)
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{pad}{json.dumps(k)}: {render(v, depth + 1)}" for k, v in sorted(value.items())]
        return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(pad + render(v, depth + 1) for v in value) + "\n" + " " * depth + "]"


def source_digest(sources: list[Path]) -> str:
    """sha256 over names and contents of the source files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(sources, key=lambda p: p.name):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


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


def _program(
    elf: Any, section: Any, name: str, relocations: list[CoreRelo], btf: Btf, order: str, maps: set[str]
) -> dict[str, Any]:
    code: bytes = section.data()
    used: dict[str, list[int]] = {}
    rel = elf.get_section_by_name(".rel" + section.name)
    if isinstance(rel, RelocationSection):
        symbols: Any = elf.get_section(rel["sh_link"])
        for entry in rel.iter_relocations():
            symbol = symbols.get_symbol(entry["r_info_sym"]).name
            if entry["r_info_type"] != R_BPF_64_64 or symbol not in maps:
                raise ImageError(f"program {name}: relocation against {symbol!r}, which is no map: no global data here")
            used.setdefault(symbol, []).append(entry["r_offset"] // 8)
    helpers: dict[str, list[int]] = {}
    slot = 0
    while slot < len(code) // 8:
        found = insn.unpack(code, slot, order)
        if found.code == insn.CALL:
            if found.src or found.imm not in HELPERS:
                raise ImageError(f"program {name}: instruction {slot} calls {found.imm}, which uapi.BPF_FUNC lacks")
            helpers.setdefault(HELPERS[found.imm], []).append(slot)
        slot += 2 if found.code == insn.LD_IMM64 else 1
    rows = [_relocation(r, name, code, btf, order) for r in relocations]
    sized = {(row["type"], row["path"]) for row in rows if row["kind"] == "byte_sz"}
    for row, r in zip(rows, relocations, strict=True):
        if row["kind"] == "byte_off" and (row["type"], row["path"]) not in sized and _is_aggregate(btf, r):
            row["size"] = 0  # the program takes the address of a struct to go on from there
    return {
        "insns": [code[i : i + 8].hex() for i in range(0, len(code), 8)],
        "maps": used,
        "helpers": helpers,
        "relocations": rows,
    }


def _is_aggregate(btf: Btf, r: CoreRelo) -> bool:
    """The field of a relocation is a struct or union."""
    record = btf.type(r.type_id)
    for index in [int(part) for part in r.access.split(":")][1:]:
        while record.kind in MODIFIERS:
            record = btf.type(record.size_or_type)
        record = btf.type(record.array.type if record.array is not None else record.members[index].type)
    while record.kind in MODIFIERS:
        record = btf.type(record.size_or_type)
    return record.kind in (btf_record.BTF_KIND_STRUCT, btf_record.BTF_KIND_UNION)


def _relocation(r: CoreRelo, name: str, code: bytes, btf: Btf, order: str) -> dict[str, Any]:
    if r.kind not in KINDS:
        raise ImageError(f"program {name}: relocation kind {r.kind} at byte {r.insn_off} is not supported")
    kind = KINDS[r.kind]
    type_name, path, offset, size = access(btf, r, kind)
    slot = r.insn_off // 8
    found = insn.unpack(code, slot, order)
    if found.code == insn.LD_IMM64:
        old = insn.unpack(code, slot + 1, order).imm << 32 | found.imm & 0xFFFFFFFF
    else:
        old = found.off if found.code & 7 in (insn.BPF_LDX, insn.BPF_ST, insn.BPF_STX) else found.imm
    expected = {"byte_off": offset, "byte_sz": size}.get(kind)
    if expected is not None and old != expected:
        raise ImageError(f"program {name}: instruction {slot} holds {old}, but {type_name}.{path} is at {expected}")
    return {"insn": slot, "kind": kind, "type": type_name, "path": path, "old": old, "size": size or 0}


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
            element = _sizeof(btf, record.array.type)
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
    return type_name, path, bits // 8, _sizeof(btf, record.id)


def _sizeof(btf: Btf, type_id: int) -> int:
    record = btf.type(type_id)
    while record.kind in MODIFIERS:
        record = btf.type(record.size_or_type)
    if record.kind == btf_record.BTF_KIND_PTR:
        return 8
    if record.array is not None:
        return record.array.nelems * _sizeof(btf, record.array.type)
    return record.size_or_type


def _maps(btf: Btf) -> dict[str, Any]:
    """The map definitions of section .maps: anonymous structs whose members encode numbers as array lengths."""
    names = {number: name for name, number in vars(uapi).items() if name.startswith("BPF_MAP_TYPE_")}
    maps: dict[str, Any] = {}
    for section in (r for r in map(btf.type, btf.ids()) if r.kind == btf_record.BTF_KIND_DATASEC and r.name == ".maps"):
        for variable in section.variables:
            record = btf.type(variable.type)
            numbers = {"key_size": 0, "value_size": 0}
            for member in btf.type(record.size_or_type).members:
                target = btf.type(btf.type(member.type).size_or_type)
                if member.name in ("key", "value"):
                    numbers[member.name + "_size"] = _sizeof(btf, target.id)
                elif target.array is not None:
                    numbers[member.name] = target.array.nelems
            maps[record.name] = {
                "type": names[numbers["type"]],
                "key_size": numbers["key_size"],
                "value_size": numbers["value_size"],
                "max_entries": numbers["max_entries"],
            }
    return maps


def _abi(btf: Btf, name: str) -> dict[str, Any]:
    for type_id in btf.find([name], frozenset((btf_record.BTF_KIND_STRUCT,))).get(name, []):
        record = btf.type(type_id)
        members = {m.name: [m.bit_offset // 8, _sizeof(btf, m.type)] for m in record.members}
        return {"size": record.size_or_type, "members": members}
    raise ImageError(f"the object's BTF has no struct {name}")


def _compiler(elf: Any) -> str:
    """The compiler's name and version from the DWARF producer string, without its vendor's decorations."""
    for unit in elf.get_dwarf_info().iter_CUs():
        text = unit.get_top_DIE().attributes["DW_AT_producer"].value.decode()
        match = re.search(r"clang version [0-9.]+", text)
        return match.group(0) if match else text
    raise ImageError("the object has no debug information: compile with -g")
