"""drgn over our type finder says what our own reader says; where two descriptions differ, the error names both."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import drgn
import pytest
from elftools.elf.elffile import ELFFile

from sockpid.arch import ARCHES
from sockpid.btf.btf import Btf
from sockpid.errors import BtfError, SourceError
from sockpid.table.layout import Enum, Field, Layout, Struct, Wanted
from sockpid_gen.btf import finder, pahole, stream
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.difference import compare
from sockpid_gen.extraction.extraction import ALWAYS, extract
from sockpid_gen.kernel.source import KernelSource, open_source
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

WANTED = {"struct sock": frozenset(("sk_protocol", "state", "gone")), "struct gone": frozenset("x")}


def rich_btf(byte_order: str) -> bytes:
    """One of everything that a path can pass through."""
    b = BtfBuilder(byte_order)
    i32, u8 = b.integer("int", 4, signed=True), b.integer("unsigned char", 1)
    b.record(1, "_Bool", 1, (4 << 24 | 8,))
    negative = b.enum("negative", ("N", -5), signed=True)
    b.enum("wide", ("W", 1 << 40), wide=True)
    union = b.struct("", 8, ("u", i32, 0), ("v", u8, 0), kind=5)
    inner = b.struct("inner", 12, ("first", i32, 0), ("", b.record(10, "", union), 32))
    const = b.record(8, "inner_t", b.record(9, "", inner))
    pointer = b.pointer(b.record(13, "", i32, (b.name("x"), i32, 0, 0), vlen=2))
    narrow = b.integer("unsigned int", 4, bits=3, offset=2)
    b.bitfield_struct("flags", 4, ("a", u8, 3, 0), ("b", i32, 5, 4), ("e", negative, 9, 3))
    b.struct("s", 96, ("p", pointer, 0), ("in", const, 64), ("n", narrow, 160), ("many", b.array(const, 3), 192))
    b.record(7, "declared", 0)
    b.record(16, "double", 8)
    return b.build()


RICH = {
    "struct s": frozenset(
        [
            "p",
            "in",
            "in.first",
            "in.u",
            "in.v",
            "n",
            "many",
            "many[0]",
            "many[2].v",
            "many[3]",
            "p.x",
            "in.gone",
            "many.x",
            "gone",
        ]
    ),
    "struct flags": frozenset(["b", "e"]),
    "struct inner": frozenset(("u",)),
    "enum negative": frozenset(("N", "gone")),
    "enum wide": frozenset(("W",)),
}


@pytest.mark.parametrize("arch", ["x86_64", "s390x", "arm"])
def test_both_readers_agree(arch: str) -> None:
    machine = ARCHES[arch]
    btf = Btf(rich_btf(machine.byte_order))
    ours = btf.extract(RICH, machine.pointer_size)
    assert compare(ours, drgn_layout.extract(finder.BtfTypes(btf.data, machine).prog, RICH)) == []
    row = ours["struct s"]
    assert isinstance(row, Struct)
    assert row.fields["p"] == Field(0, machine.pointer_size * 8)
    assert row.fields["n"] == Field(162, 3, bitfield=True)
    assert row.fields["many[2].v"] == Field(192 + 2 * 96 + 32, 8)


def test_every_type_can_be_made() -> None:
    btf = Btf(rich_btf("little"))
    types = finder.BtfTypes(btf.data, ARCHES["x86_64"])
    for type_id in btf.ids():
        assert isinstance(types.type(type_id), drgn.Type)


def test_finder_refuses_what_is_no_type_and_cycles() -> None:
    b = BtfBuilder()
    func = b.record(12, "f", b.record(13, "", 0))
    cycle = b.record(10, "", b.next_id)
    btf = Btf(b.build())
    types = finder.BtfTypes(btf.data, ARCHES["x86_64"])
    with pytest.raises(BtfError, match="is not a type"):
        types.type(func)
    with pytest.raises(BtfError, match="reference cycle"):
        types.type(cycle)


def test_what_drgn_refuses_is_damaged_btf() -> None:
    b = BtfBuilder()
    pointer = b.pointer(0)
    b.bitfield_struct("s", 8, ("p", pointer, 0, 3))
    b.struct("t", 8, ("f", b.record(7, "declared", 0), 0))
    prog = finder.BtfTypes(b.build(), ARCHES["x86_64"]).prog
    with pytest.raises(BtfError, match="BTF type 1 as a bit field of 3: bit field must be integer"):
        drgn_layout.extract(prog, {"struct s": frozenset("p")})
    with pytest.raises(SourceError, match="struct t is damaged: cannot get size of incomplete structure"):
        drgn_layout.extract(prog, {"struct t": frozenset("f")})


def test_finder_knows_no_files() -> None:
    prog = finder.BtfTypes(make.btf(), ARCHES["x86_64"]).prog
    assert prog.type("struct sock").size == 4
    with pytest.raises(LookupError):
        prog.type("struct sock", "net/core/sock.c")


def kernel(path: Path, content: bytes) -> KernelSource:
    path.write_bytes(content)
    with open_source(path) as opened:
        return opened


def test_extraction(tmp_path: Path) -> None:
    found = extract(kernel(tmp_path / "vmlinux", make.elf()), WANTED, ["tcp_connect", "gone"])
    assert found.layout == {
        "struct sock": Struct(
            "struct sock", 4, {"sk_protocol": Field(0, 16), "state": Field(16, 5, bitfield=True), "gone": None}
        ),
        "struct gone": None,
    }
    assert (found.kind, found.btf_ids) == ("btf", {"tcp_connect": 5, "gone": 0})
    assert set(found.tools) == {"drgn", "sockpid-gen"}


def test_damaged_btf_names_the_file(tmp_path: Path) -> None:
    broken = make.elf({".rodata": make.BANNERS, ".BTF": make.btf()[:-30]})
    with pytest.raises(BtfError, match=r"^vmlinux: BTF string section"):
        extract(kernel(tmp_path / "vmlinux", broken), WANTED)


def test_disagreement_names_field_values_and_descriptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other: Layout = {"struct sock": Struct("struct sock", 4, {"sk_protocol": Field(8, 16)})}
    monkeypatch.setattr(drgn_layout, "extract", lambda *_: other)
    with pytest.raises(SourceError) as caught:
        extract(kernel(tmp_path / "vmlinux", make.elf()), WANTED)
    for part in (
        "vmlinux: ",
        "struct sock.sk_protocol",
        "BTF read by sockpid: 0 (2 bytes)",
        "BTF read by drgn: 1 (2 bytes)",
    ):
        assert part in str(caught.value)


def test_dwarf_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.elf({".rodata": make.BANNERS, ".debug_info": b"garbage"}))
    with open_source(path) as opened, pytest.raises(SourceError, match="vmlinux: "):
        extract(opened, WANTED)


def refused(tmp_path: Path, btf: bytes, message: str, wanted: Wanted, arch: str = "x86_64") -> None:
    opened = kernel_of(tmp_path, btf, arch)
    with pytest.raises((SourceError, BtfError), match=f"^vmlinux: .*{message}"):
        extract(opened, wanted)


IN_SOCK: Wanted = {"struct sock": frozenset({"here", "gone"})}


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_nothing_is_called_absent_of_a_type_that_is_not_whole(tmp_path: Path, byte_order: str) -> None:
    """Declarations; types without members, as .BTF.base has them; types with a few, as min_core_btf leaves them."""
    arch = "x86_64" if byte_order == "little" else "s390x"

    def with_sock(*members: tuple[str, int], size: int = 776, declared: bool = False) -> bytes:
        b = BtfBuilder(byte_order)
        u32 = b.integer("unsigned int", 4)
        if declared:
            b.record(7, "sock", 0)
        else:
            b.struct("sock", size, *((name, u32, 8 * at) for name, at in members))
        return b.build()

    refused(tmp_path, with_sock(declared=True), "struct sock is only declared", IN_SOCK, arch)
    refused(tmp_path, with_sock(), "struct sock: no member is known at bytes 0 to 776", IN_SOCK, arch)
    refused(tmp_path, with_sock(size=16), "struct sock of 16 bytes has no members: they were left out", IN_SOCK, arch)
    some = ("here", 0), ("there", 540), ("last", 772)
    refused(tmp_path, with_sock(*some), "struct sock: no member is known at bytes 4 to 540", IN_SOCK, arch)
    refused(tmp_path, with_sock(*some[:1]), "no member is known at bytes 4 to 776", IN_SOCK, arch)
    # Padding is shorter than the longest cache line.
    padded = kernel_of(tmp_path, with_sock(("here", 0), ("there", 256), size=512), arch)
    row = extract(padded, IN_SOCK).layout["struct sock"]
    assert isinstance(row, Struct)
    assert row.fields == {"here": Field(0, 32), "gone": None}


def kernel_of(tmp_path: Path, btf: bytes, arch: str) -> KernelSource:
    machine, order = ARCHES[arch].e_machine, ARCHES[arch].byte_order
    sections = {".rodata": make.BANNERS, ".notes": make.build_id_note(order), ".BTF": btf}
    return kernel(tmp_path / "vmlinux", make.elf(sections, order, machine))


def test_what_lies_in_a_type_has_to_be_whole_too(tmp_path: Path) -> None:
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4)
    b.struct("sock", 20, ("in", b.struct("inner", 16), 0), ("here", u32, 128))
    refused(tmp_path, b.build(), "struct inner of 16 bytes has no members", {"struct sock": frozenset({"in.gone"})})
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4)
    b.struct("sock", 20, ("", b.struct("", 16), 0), ("here", u32, 128))
    refused(tmp_path, b.build(), "of 16 bytes has no members", IN_SOCK)


def test_btf_of_less_than_a_kernel(tmp_path: Path) -> None:
    b = BtfBuilder()
    b.integer("int", 4, signed=True)
    message = "has no struct sock, which every kernel has: it is not that of a whole kernel"
    refused(tmp_path, b.build(), message, IN_SOCK)
    for name in sorted(ALWAYS):
        refused(tmp_path, b.build(), f"has no {name}, which every kernel has", {name: frozenset({"gone"})})


@pytest.mark.parametrize(
    ("arch", "byte_order", "long", "registers", "message"),
    [
        ("x86_64", "big", 8, ["di", "si", "dx", "cx"], "the BTF is big-endian, but x86_64 is little-endian"),
        ("s390x", "little", 8, ["gprs"], "the BTF is little-endian, but s390x is big-endian"),
        ("x86_64", "little", 4, ["di", "si", "dx", "cx"], "the BTF is of a 32-bit kernel, but x86_64 has 64 bits"),
        ("aarch64", "little", 8, ["di", "si", "dx", "cx"], "struct pt_regs that is not that of aarch64"),
        ("x86_64", "little", 8, ["regs"], "struct pt_regs that is not that of x86_64"),
    ],
)
def test_btf_of_another_machine(
    tmp_path: Path, arch: str, byte_order: str, long: int, registers: list[str], message: str
) -> None:
    b = BtfBuilder(byte_order)
    word = b.integer("long unsigned int", long)
    b.struct("pt_regs", 8 * len(registers), *((name, word, 64 * n) for n, name in enumerate(registers)))
    refused(tmp_path, b.build(), message, {"struct pt_regs": frozenset(ARCHES[arch].args)}, arch)


@pytest.mark.parametrize("first", ["sock", "tail"])
def test_copies_and_ends_of_strings_are_names_for_drgn_too(first: str) -> None:
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4)
    x = b.name("x")
    places = {"tail": len(b.strings) + 4, "sock": len(b.strings) + 9}
    b.strings += b"tcp_sock\0sock\0sock\0"
    b.record(4, places[first], 4, (x, u32, 0), vlen=1)
    types = finder.BtfTypes(b.build(), ARCHES["x86_64"])
    wanted = {"struct sock": frozenset("x")}
    assert drgn_layout.extract(types.prog, wanted, types.namesakes)["struct sock"] == Struct(
        "struct sock", 4, {"x": Field(0, 32)}
    )
    b.record(4, places["sock"] + 5, 8, (x, u32, 32), vlen=1)
    types = finder.BtfTypes(b.build(), ARCHES["x86_64"])
    with pytest.raises(SourceError, match="several different types called 'struct sock'"):
        drgn_layout.extract(types.prog, wanted, types.namesakes)


def test_the_two_readers_of_btf_share_nothing() -> None:
    """What both would get wrong, they would agree on."""
    for reader in (stream, finder, drgn_layout):
        tree = ast.parse(Path(str(reader.__file__)).read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not [module for module in modules if module and module.startswith("sockpid.btf")]


def test_compare() -> None:
    one: Layout = {
        "struct s": Struct("struct s", 8, {"a": Field(0, 8), "b": None}),
        "enum e": Enum("enum e", 4, {"A": 1}),
    }
    other: Layout = {
        "struct s": Struct("struct s", 9, {"a": Field(8, 8)}),
        "enum e": Enum("enum e", 4, {"A": 2, "B": 3}),
    }
    assert compare(one, one) == []
    assert compare(one, other) == [
        ("enum e.A", 1, 2),
        ("sizeof(struct s)", 8, 9),
        ("struct s.a", Field(0, 8), Field(8, 8)),
    ]
    assert compare(one, {"struct s": None}) == [("struct s", one["struct s"], None)]


SOURCE = """
enum e { A = 3, B = 7 };
typedef struct { int x; union { unsigned char u; long v; }; } inner_t;
struct s { unsigned a : 3; signed b : 7; enum e c; inner_t in[2]; void *p; signed char tail[]; };
struct s s;
"""


@pytest.mark.parametrize(("arch", "bpf"), [("x86_64", "bpfel"), ("aarch64", "bpfel"), ("s390x", "bpfeb")])
def test_btf_agrees_with_dwarf_of_the_same_c(tmp_path: Path, arch: str, bpf: str) -> None:
    """clang describes the same C twice; drgn reads the DWARF and, over our finder, the BTF."""
    clang = shutil.which("clang") or shutil.which("clang-14")
    if clang is None:
        pytest.skip("clang is not installed")
    (tmp_path / "s.c").write_text(SOURCE)
    for target, output in ((f"{arch}-linux-gnu", "dwarf.o"), (bpf, "btf.o")):
        command = [clang, "-g", "-target", target, "-c", "s.c", "-o", output]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / "btf.o").open("rb") as file:
        section = ELFFile(file).get_section_by_name(".BTF")
        assert section is not None
        btf = Btf(section.data())
    wanted = {
        "struct s": frozenset(
            ["a", "b", "c", "in", "in[1].x", "in[1].u", "in[1].v", "in[2].x", "p", "tail", "tail[3]", "gone"]
        ),
        "enum e": frozenset("AB"),
    }
    dwarf = drgn.Program(finder.platform(ARCHES[arch]))
    dwarf.extra_module("s", create=True).try_file(str(tmp_path / "dwarf.o"), force=True)
    expected = drgn_layout.extract(dwarf, wanted)
    assert compare(drgn_layout.extract(finder.BtfTypes(btf.data, ARCHES[arch]).prog, wanted), expected) == []
    assert compare(btf.extract(wanted, 8), expected) == []
    row = expected["struct s"]
    assert isinstance(row, Struct)
    assert row.fields["b"] == Field(3, 7, bitfield=True, signed=True)


@pytest.mark.parametrize("arch", ["x86_64", "s390x"])
def test_pahole_reads_dwarf_as_drgn_does(tmp_path: Path, arch: str) -> None:
    """Two readers of DWARF that share nothing: what pahole makes of it, read by us, and drgn."""
    clang = shutil.which("clang") or shutil.which("clang-14")
    if clang is None or not pahole.version():
        pytest.skip("clang or pahole is not installed")
    (tmp_path / "s.c").write_text(SOURCE)
    command = [clang, "-g", "-target", f"{arch}-linux-gnu", "-c", "s.c", "-o", "s.o"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    wanted = {
        "struct s": frozenset(["a", "b", "c", "in", "in[1].x", "in[1].u", "p", "tail", "gone"]),
        "enum e": frozenset("AB"),
    }
    prog = drgn.Program(finder.platform(ARCHES[arch]))
    assert prog.extra_module("s", create=True).try_file(str(tmp_path / "s.o"), force=True) is None
    with (tmp_path / "s.o").open("rb") as file:
        ours = Btf(pahole.encode(file)).extract(wanted, 8)
    assert compare(ours, drgn_layout.extract(prog, wanted)) == []
    assert isinstance(ours["struct s"], Struct)


def test_pahole_says_what_it_cannot_read(tmp_path: Path) -> None:
    if not pahole.version():
        pytest.skip("pahole is not installed")
    (tmp_path / "x").write_bytes(b"no ELF file")
    with (tmp_path / "x").open("rb") as file, pytest.raises(SourceError, match="pahole: "):
        pahole.encode(file)
