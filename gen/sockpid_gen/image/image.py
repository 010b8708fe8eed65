"""The link step: a clang object in, the bytecode image out. docs/image-format.md defines what is written.

Relocations leave here by name, as C spells them, so that the loader needs no BTF at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from sockpid import uapi
from sockpid.btf import record as btf_record
from sockpid.btf.btf import Btf
from sockpid.errors import ImageError
from sockpid.image import insn
from sockpid.image.image import SCHEMA, content_digest

from .core_relo import KINDS, CoreRelo, access, core_relocations, is_aggregate, size_of

ABI = ("count_key", "event", "exec_name", "exited_key", "owner", "process", "socket_owner", "socket_tuple")
"""Structs of bpf_bytecode/sockpid.h whose layout the image records for whoever decodes them."""

HELPERS = {number: name for name, number in uapi.BPF_FUNC.items()}
R_BPF_64_64 = 1

LINE = 64
"""Bytes of instructions to a string. With one to each, an image took half as long again to read."""


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
        "content": "0" * 64,
        "abi": {f"struct {name}": _abi(btf, name) for name in ABI},
        "maps": maps,
        "programs": programs,
    }
    document["content"] = content_digest((render(document) + "\n").encode())
    return (render(document) + "\n").encode()


def render(value: Any, depth: int = 0) -> str:
    """JSON with sorted keys, opened up to the fourth level: eight instructions or a relocation a line, for diffs."""
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
        if row["kind"] == "byte_off" and (row["type"], row["path"]) not in sized and is_aggregate(btf, r):
            row["size"] = 0  # the program takes the address of a struct to go on from there
    return {
        "insns": [code[i : i + LINE].hex() for i in range(0, len(code), LINE)],
        "maps": used,
        "helpers": helpers,
        "relocations": rows,
    }


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
                    numbers[member.name + "_size"] = size_of(btf, target.id)
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
        members = {m.name: [m.bit_offset // 8, size_of(btf, m.type)] for m in record.members}
        return {"size": record.size_or_type, "members": members}
    raise ImageError(f"the object's BTF has no struct {name}")


def _compiler(elf: Any) -> str:
    """The compiler's name and version from the DWARF producer string, without its vendor's decorations."""
    for unit in elf.get_dwarf_info().iter_CUs():
        text = unit.get_top_DIE().attributes["DW_AT_producer"].value.decode()
        match = re.search(r"clang version [0-9.]+", text)
        return match.group(0) if match else text
    raise ImageError("the object has no debug information: compile with -g")
