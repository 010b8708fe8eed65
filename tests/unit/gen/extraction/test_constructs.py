"""Every construct of C that a kernel's structs are made of, as compilers for all architectures describe it.

Held against the compiler's own numbers: offsetof() and sizeof() as constants in the same object, and bit fields as the
bits that an object has where that field alone is all ones.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import drgn
import pytest
from elftools.elf.elffile import ELFFile

from sockpid.arch import ARCHES
from sockpid.btf.btf import Btf
from sockpid.table.layout import Enum, Field, Struct, Wanted
from sockpid_gen.btf import finder, pahole
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.difference import compare

TYPES = """
enum small { SMALL_A, SMALL_B = 7 };
enum negative { NEGATIVE_A = -3, NEGATIVE_B = 2 };
enum __attribute__((packed)) narrow { NARROW_A, NARROW_B };
enum declared_enum;
struct declared; struct declared_sock;
typedef unsigned short be16; typedef const volatile be16 odd16;
typedef struct { int x; union { unsigned char u; long v; struct { short deep; signed char deeper; }; }; } inner_t;
struct port { be16 port; };
struct sock { be16 port; be16 dport; struct port sport; struct declared *declared; };
struct tcp_sock { struct sock sock; struct sock *sk; unsigned char state; struct declared_sock *of; };
struct empty {};
struct bits {
    unsigned first : 3; signed second : 7; unsigned : 0; unsigned third : 1; unsigned straddles : 31; _Bool flag : 1;
    enum small value : 4; unsigned long long wide : 40; unsigned char plain; unsigned char low : 5, high : 3;
};
struct __attribute__((packed)) tight { char c; int i; unsigned a : 5, b : 11; long long l; be16 last; };
struct all {
    char c; signed char sc; unsigned char uc; short s; unsigned short us; int i; unsigned u; long l; unsigned long ul;
    long long ll; unsigned long long ull; _Bool b; float f; double d; odd16 odd; const char *name; void *volatile p;
    int (*call)(struct all *, ...); enum small small; enum narrow narrow; inner_t in[3]; int grid[2][5];
    struct sock list[2]; struct tcp_sock tcp; union { int one; struct { be16 low, high; }; struct sock nested; };
    struct { unsigned inside : 4; int after; }; struct bits bits; struct empty empty;
    int aligned __attribute__((aligned(32))); char *names[4]; unsigned char tail[];
};
union either { int number; struct sock sock; unsigned char bytes[24]; };
struct flexible { int count; struct { int id; long value; } entries[]; };
struct negatives { enum negative n; };
"""
PLAIN: Dict[str, str] = {
    "struct all": """
        c sc uc s us i u l ul ll ull b f d odd name p call small narrow in in[1] in[2].x in[1].u in[0].v in[2].deep
        in[2].deeper grid list list[1].dport tcp tcp.sock.port tcp.sk tcp.state one low high nested.dport after
        bits.plain empty aligned names names[3]
    """,
    "struct sock": "port dport sport sport.port declared",
    "struct tcp_sock": "sock sock.dport sk state of",
    "struct port": "port",
    "struct tight": "c i l last",
    "struct bits": "plain",
    "union either": "number sock sock.dport bytes bytes[23]",
    "struct flexible": "count",
}
BITS: Dict[str, str] = {
    "struct bits": "first second third straddles flag value wide low high",
    "struct tight": "a b",
    "struct all": "inside bits.second bits.wide",
}
SIGNED = {"second", "bits.second"}
ABSENT: Dict[str, Tuple[str, ...]] = {
    "struct all": ("gone", "c.x", "in.x", "in[3].x", "p.x", "in[0].gone", "list[1].port.x", "bits.gone"),
    "struct sock": ("port2", "ort", "sock"),
    "union either": ("gone",),
    "struct empty": ("gone",),
}
FLEXIBLE = {"struct all": ("tail",), "struct flexible": ("entries",)}
BEHIND = ("entries[2].value",)
ENUMS: Dict[str, Dict[str, Optional[int]]] = {
    "enum small": {"SMALL_A": 0, "SMALL_B": 7, "GONE": None},
    "enum narrow": {"NARROW_B": 1},
}
NEGATIVE: Dict[str, Dict[str, Optional[int]]] = {"enum negative": {"NEGATIVE_A": -3, "NEGATIVE_B": 2}}

TARGETS = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "arm": "armv7-linux-gnueabihf",
}


class Combination(NamedTuple):
    """compiler with options; arch: as sockpid names it; reads: "dwarf", "pahole" (BTF made of DWARF) or "btf"."""

    compiler: str
    options: str
    arch: str
    reads: str

    @property
    def name(self) -> str:
        return f"{self.reads}-{self.compiler}-{self.arch}{self.options}".replace(" ", "")


def combinations() -> List[Combination]:
    made = [
        Combination("gcc", f"-gdwarf-{version} {more}", "x86_64", "dwarf")
        for version, mores in ((2, [""]), (3, [""]), (4, FORMS), (5, FORMS))
        for more in mores
    ]
    made += [
        Combination("clang-14", f"-gdwarf-{version} {more}", arch, "dwarf")
        for arch in TARGETS
        for version, mores in ((2, [""]), (3, [""]), (4, ["", "-fdebug-types-section"]), (5, ["", "-O2"]))
        for more in mores
    ]
    made += [Combination("clang-14", f"-gdwarf-{version}", arch, "pahole") for arch in TARGETS for version in (4, 5)]
    made += [Combination("gcc", f"-gdwarf-{version}", "x86_64", "pahole") for version in (4, 5)]
    # BPF has the sizes of a 64-bit machine of that byte order.
    made += [
        Combination("clang-14", f"-g {more} -target {target}", arch, "btf")
        for target, arch in (("bpfel", "x86_64"), ("bpfeb", "s390x"))
        for more in ("-O0", "-O2")
    ]
    return made


FORMS = ["", "-fdebug-types-section", "-O2", "-gz", "-flto", "-gstrict-dwarf", "-fno-eliminate-unused-debug-types"]
COMBINATIONS = combinations()


def test_there_are_enough_of_them() -> None:
    assert len(COMBINATIONS) >= 60
    assert len({combination.name for combination in COMBINATIONS}) == len(COMBINATIONS)


def source() -> str:
    """The types, and constants about them in sections of their own."""
    lines = [TYPES, "#define offsetof __builtin_offsetof"]
    lines.append('const unsigned long long the_truth[][3] __attribute__((section("truth"), used)) = {')
    for name, path in pairs(PLAIN):
        member = f"(({name} *)0)->{path}"
        signed = f"IS_SIGNED({member})" if path in INTEGERS else "0"
        lines.append(f"    {{ offsetof({name}, {path}), sizeof({member}), {signed} }},")
    lines += [f"    {{ offsetof({name}, {path}), 0, 0 }}," for name, paths in FLEXIBLE.items() for path in paths]
    lines += [f"    {{ 0, sizeof({name}), 0 }}," for name in NAMES]
    lines.append("};")
    for number, (name, path) in enumerate(pairs(BITS)):
        lines.append(
            f'const {name} probe_{number} __attribute__((section("bits_{number}"), used)) = {{ .{path} = -1 }};'
        )
    lines += [
        f"__attribute__((used)) {name} *use_{number};"
        for number, name in enumerate((*NAMES, *ENUMS, *NEGATIVE, "struct negatives"))
    ]
    text = "\n".join(lines) + "\n"
    return "#define IS_SIGNED(x) ((__typeof__(x))-1 < (__typeof__(x))1)\n" + text


_SCALARS = """
    c sc uc s us i u l ul ll ull odd small narrow one low high after count number last plain port dport aligned state
    in[2].x in[1].u in[0].v in[2].deep in[2].deeper sport.port bytes[23] tcp.state tcp.sock.port list[1].dport
    sock.dport nested.dport bits.plain
"""
INTEGERS = frozenset(_SCALARS.split())
NAMES = tuple(dict.fromkeys((*PLAIN, *BITS, *ABSENT)))


def pairs(paths: Dict[str, str]) -> List[Tuple[str, str]]:
    return [(name, path) for name, text in paths.items() for path in text.split()]


def wanted(combination: Combination) -> Wanted:
    found: Dict[str, set[str]] = {name: set() for name in NAMES}
    for name, path in [*pairs(PLAIN), *pairs(BITS)]:
        found[name].add(path)
    for names in (ABSENT, FLEXIBLE):
        for name, some in names.items():
            found[name].update(some)
    found["struct flexible"].update(BEHIND)
    for name, values in enums(combination).items():
        found[name] = set(values)
    return {name: frozenset(paths) for name, paths in found.items()}


def enums(combination: Combination) -> Dict[str, Dict[str, Optional[int]]]:
    """BTF says that values are signed only since LLVM 15 and pahole 1.25."""
    return {**ENUMS, **(NEGATIVE if combination.reads == "dwarf" else {})}


def compiled(combination: Combination, directory: Path) -> Path:
    if shutil.which(combination.compiler) is None:
        pytest.skip(f"{combination.compiler} is not installed")
    (directory / "s.c").write_text(source())
    options = combination.options.split()
    if combination.compiler != "gcc" and "-target" not in options:
        options += ["-target", TARGETS[combination.arch]]
    steps = [[combination.compiler, *options, "-fPIC", "-c", "s.c", "-o", "s.o"]]
    if combination.compiler == "gcc":
        steps.append(["gcc", *options, "-shared", "-nostdlib", "s.o", "-o", "s.so"])
    for command in steps:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return directory / steps[-1][-1]


def truth(path: Path, combination: Combination) -> Dict[str, Any]:
    """What the compiler itself says, out of the constants in the object."""
    order: Any = ARCHES[combination.arch].byte_order
    with path.open("rb") as file:
        elf = ELFFile(file)
        sections = {
            section.name: section.data() for section in elf.iter_sections() if section["sh_type"] != "SHT_NOBITS"
        }
    content = sections["truth"]
    numbers = iter(struct.iter_unpack(("<" if order == "little" else ">") + "3Q", content))
    rows: Dict[str, Dict[str, Optional[Field]]] = {name: {} for name in NAMES}
    for name, path_ in pairs(PLAIN):
        offset, size, signed = next(numbers)
        rows[name][path_] = Field(offset * 8, size * 8, False, bool(signed))
    for name, paths in FLEXIBLE.items():
        for path_ in paths:
            rows[name][path_] = Field(next(numbers)[0] * 8, 0)
    sizes = {name: next(numbers)[1] for name in NAMES}
    for number, (name, path_) in enumerate(pairs(BITS)):
        rows[name][path_] = field_of(sections[f"bits_{number}"][: sizes[name]], order, path_ in SIGNED)
    for name, absent in ABSENT.items():
        rows[name].update(dict.fromkeys(absent))
    # struct { int id; long value; }, twice over, behind an int.
    word = ARCHES[combination.arch].pointer_size
    rows["struct flexible"]["entries[2].value"] = Field((word + 2 * 2 * word + word) * 8, word * 8, False, True)
    found: Dict[str, Any] = {name: Struct(name, sizes[name], rows[name]) for name in NAMES}
    for name, values in enums(combination).items():
        found[name] = Enum(name, 1 if name == "enum narrow" else 4, values)
    return found


def field_of(memory: bytes, order: Any, signed: bool) -> Field:
    """A bit field, out of memory in which it alone is all ones."""
    bits = [
        8 * number + bit
        for number, byte in enumerate(memory)
        for bit in range(8)
        if byte >> (bit if order == "little" else 7 - bit) & 1
    ]
    assert bits == list(range(bits[0], bits[0] + len(bits))), "not in one piece"
    return Field(bits[0], len(bits), True, signed)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda combination: combination.name)
def test_layouts_are_those_of_the_compiler(tmp_path: Path, combination: Combination) -> None:
    path = compiled(combination, tmp_path)
    expected, asked, arch = truth(path, combination), wanted(combination), ARCHES[combination.arch]
    if combination.reads == "dwarf":
        prog = drgn.Program(finder.platform(arch))
        prog.extra_module("s", create=True).try_file(str(path), force=True)
        assert compare(drgn_layout.extract(prog, asked), expected) == []
        return
    if combination.reads == "pahole":
        if not pahole.version():
            pytest.skip("pahole is not installed")
        with path.open("rb") as file:
            content = pahole.encode(file)
    else:
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".BTF")
            assert section is not None
            content = section.data()
    types = finder.BtfTypes(content, arch)
    by_drgn = drgn_layout.extract(types.prog, asked, types.namesakes)
    by_sockpid = Btf(content).extract(asked, arch.pointer_size)
    assert compare(by_drgn, expected) == []
    assert compare(by_sockpid, expected) == []
    assert facts(by_sockpid) == facts(expected)


def facts(layout: Any) -> int:
    """How many fields and values a layout speaks of."""
    return sum(len(row.fields if isinstance(row, Struct) else row.values) for row in layout.values())
