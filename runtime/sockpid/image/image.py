"""The linked bytecode image: programs with relocations by name, as the generator writes it and the loader takes it.

An image is a JSON document, one per byte order. docs/image-format.md is its definition. Everything in it was checked
against the compiler's own BTF when it was linked; here it is checked again for what the loader relies on.
"""

from __future__ import annotations

from sockpid import plain_json
from sockpid.arch import Arch, register
from sockpid.errors import ImageError, RelocationError, SchemaError
from sockpid.namedtuple import NamedTuple
from sockpid.sha256 import sha256
from sockpid.table.layout import Field, Layout, Struct, Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Set, Tuple

SCHEMA = (1, 1)

PROBE_CTX = "struct probe_ctx"
"""Pseudo-type: arguments of the probe, resolved by how a program is attached."""
PT_REGS = "struct pt_regs"
SETTING = "enum setting"
"""Pseudo-type: what the loader decides, resolved by `Settings`."""


class Relocation(NamedTuple):
    """One CO-RE relocation.

    insn: index of the instruction (in 8-byte units) that holds the value. kind: as libbpf calls it ("byte_off",
    "byte_sz", "field_exists", "signed", "lshift_u64", "rshift_u64", "type_exists", "type_size", "enumval_exists",
    "enumval_value"). type, path: as in sockpid.layout; path is empty for types. old: the value that the compiler wrote.
    size: size in bytes of the field as declared for the compiler (0 for other kinds).
    """

    insn: int
    kind: str
    type: str
    path: str
    old: int
    size: int


class Program(NamedTuple):
    """One program: name, instructions (8 bytes each, image's byte order), and what must be patched in them.

    maps: (instruction, map name) of each two-slot load of a map. helpers: helper name -> instructions that call it.
    """

    name: str
    insns: bytes
    maps: Tuple[Tuple[int, str], ...]
    helpers: Mapping[str, Tuple[int, ...]]
    relocations: Tuple[Relocation, ...]


class Map(NamedTuple):
    """A map to create: name, type ("BPF_MAP_TYPE_LRU_HASH"), key and value size in bytes, entries."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int


class Image(NamedTuple):
    """A whole image. digest: of its sources. content: of itself. abi: of the records, struct name ->
    {"size": bytes, "members": {name: [offset, size]}}."""

    byte_order: str
    license: str
    digest: str
    content: str
    maps: Mapping[str, Map]
    programs: Mapping[str, Program]
    abi: Mapping[str, Any]

    def wanted(self, arch: Arch) -> Wanted:
        """Every kernel type, field and enumerator that the relocations name, for one architecture.

        Arguments of the probe appear as the members of struct pt_regs that hold them there.
        """
        wanted: Dict[str, Set[str]] = {}
        for program in self.programs.values():
            for r in program.relocations:
                if r.type == PROBE_CTX:
                    wanted.setdefault(PT_REGS, set()).add(arch.args[argument(r.path)])
                elif r.type != SETTING:
                    paths = wanted.setdefault(r.type, set())
                    if r.path:
                        paths.add(r.path)
        return {name: frozenset(paths) for name, paths in wanted.items()}

    def missing(self, arch: Arch, layout: Layout) -> List[str]:
        """What the relocations name and `layout` does not speak of, sorted: "struct sock.sk_protocol"."""
        missing: List[str] = []
        for name, paths in self.wanted(arch).items():
            if name not in layout:
                missing.append(name)
                continue
            row = layout[name]
            if row is not None:
                known: Mapping[str, object] = row.fields if isinstance(row, Struct) else row.values
                missing.extend(f"{name}.{path}" for path in paths if path not in known)
        return sorted(missing)

    def settings(self) -> FrozenSet[str]:
        """The names of all settings that programs ask for."""
        return frozenset(r.path for p in self.programs.values() for r in p.relocations if r.type == SETTING)


def context_layout(arch: Arch, layout: Layout, kind: str, count: int = 12) -> Struct:
    """Where struct probe_ctx lies for a way of attaching: "kprobe" (struct pt_regs) or "args" (8 bytes each).

    Raw tracepoints and fentry programs get an array of 64-bit values on every architecture; count: how many, for fentry
    programs may not read on, so that further arguments are the last one. Raises RelocationError if
    the layout lacks the argument registers.
    """
    fields: Dict[str, Optional[Field]] = {}
    if kind == "args":
        for n in range(12):
            fields[f"arg{n}"] = Field(min(n, count - 1) * 64, 64)
        return Struct(PROBE_CTX, 96, fields)
    regs = layout.get(PT_REGS)
    if not isinstance(regs, Struct):
        raise RelocationError(f"the offsets lack {PT_REGS}, which a kprobe needs", PT_REGS, "")
    for n, member in enumerate(arch.args):
        field = regs.fields.get(member)
        if field is not None:
            right = register(arch, n) * 8
            if field[:2] != (right, arch.pointer_size * 8):
                raise RelocationError(
                    f"{PT_REGS}.{member} of {field.bit_size} bits begins at bit {field.bit_offset} in the offsets, and "
                    f"at bit {right} in every kernel of {arch.name}",
                    PT_REGS,
                    member,
                )
            fields[f"arg{n}"] = field
    return Struct(PROBE_CTX, regs.size, fields)


def record_context(record: Mapping[str, Field], names: Tuple[str, ...]) -> Struct:
    """Where struct probe_ctx lies in a tracepoint's record: argN is the field that is called names[N].

    Raises RelocationError if the record has no field of that name.
    """
    for name in names:
        if name not in record:
            raise RelocationError(f"the tracepoint's record has no field {name}", PROBE_CTX, name)
    fields: Dict[str, Optional[Field]] = {f"arg{n}": record[name] for n, name in enumerate(names)}
    return Struct(PROBE_CTX, 0, fields)


def argument(path: str) -> int:
    """The number N of probe context member "argN"."""
    if not (path.startswith("arg") and path[3:].isdigit()):
        raise ImageError(f"{PROBE_CTX} has no member {path!r}")
    return int(path[3:])


def file_name(byte_order: str) -> str:
    """Name of the image for "little" or "big" endian machines, as clang calls the target."""
    return {"little": "sockpid.bpfel.json", "big": "sockpid.bpfeb.json"}[byte_order]


def parse_image(data: bytes, name: str) -> Image:
    """Decodes an image; `name` is for messages. Raises SchemaError and ImageError."""
    try:
        doc: Dict[str, Any] = plain_json.loads(data)
        schema = doc["schema"]
        major, minor = (int(part) for part in schema.split("."))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{name}: not a sockpid bytecode image ({error!r})") from None
    if major != SCHEMA[0] or minor > SCHEMA[1]:
        raise SchemaError(
            f"{name}: image schema {schema}, but this sockpid reads {SCHEMA[0]}.0 to {SCHEMA[0]}.{SCHEMA[1]}"
        )
    if doc.get("content") != content_digest(data):
        raise ImageError(f"{name}: damaged bytecode image (it is not what its digest says)")
    try:
        maps = {n: Map(n, m["type"], m["key_size"], m["value_size"], m["max_entries"]) for n, m in doc["maps"].items()}
        programs = {n: _program(n, p) for n, p in doc["programs"].items()}
        image = Image(doc["byte_order"], doc["license"], doc["digest"], doc["content"], maps, programs, doc["abi"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{name}: damaged bytecode image ({error!r})") from None
    for program in image.programs.values():
        _check(image, program, name)
    return image


def content_digest(data: bytes) -> str:
    """sha256 over all of an image but the digest itself, for which zeros stand: a relocation that is taken away would
    leave an offset of the compiler's in the program, and nothing else would tell.
    """
    before, key, after = data.partition(b'"content": "')
    return sha256(before + key + b"0" * 64 + after[64:]).hexdigest()


def _program(name: str, doc: Dict[str, Any]) -> Program:
    lines: List[str] = doc["insns"]
    relocations = tuple(
        Relocation(r["insn"], r["kind"], r["type"], r["path"], r["old"], r["size"]) for r in doc["relocations"]
    )
    maps = tuple((insn, m) for m, insns in doc["maps"].items() for insn in insns)
    helpers = {h: tuple(insns) for h, insns in doc["helpers"].items()}
    return Program(name, bytes.fromhex("".join(lines)), maps, helpers, relocations)


def _check(image: Image, program: Program, name: str) -> None:
    """Refuses references that point outside of the program or to maps that the image does not have."""
    count = len(program.insns) // 8
    places = [insn for insn, _ in program.maps] + [r.insn for r in program.relocations]
    places += [insn for insns in program.helpers.values() for insn in insns]
    if len(program.insns) % 8 or any(not 0 <= insn < count for insn in places):
        raise ImageError(f"{name}: program {program.name}: a reference points outside of its instructions")
    for _, map_name in program.maps:
        if map_name not in image.maps:
            raise ImageError(f"{name}: program {program.name} uses map {map_name!r}, which the image does not have")
