"""The BTF reader against blobs made for the purpose, in both byte orders, and against hostile ones."""

from __future__ import annotations

import contextlib
import struct
from typing import Optional

import pytest

from sockpid.btf.btf import Btf
from sockpid.btf.record import BTF_KIND_FUNC, BTF_KIND_STRUCT
from sockpid.errors import BtfError
from sockpid.table.layout import Enum, Field, Struct
from tests.btf_builder import BtfBuilder

ORDERS = pytest.mark.parametrize("byte_order", ["little", "big"])


def field(blob: bytes, path: str, name: str = "struct s", pointer_size: int = 8) -> Optional[Field]:
    row = Btf(blob).extract({name: frozenset((path,))}, pointer_size)[name]
    assert isinstance(row, Struct)
    return row.fields[path]


@ORDERS
def test_members_of_members(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    u32 = b.integer("unsigned int", 4)
    inner = b.struct("inner", 8, ("x", u32, 0), ("y", u32, 32))
    b.struct("s", 16, ("pad", u32, 0), ("in", inner, 32))
    blob = b.build()
    assert Btf(blob).byte_order == byte_order
    assert field(blob, "in.y") == Field(64, 32)
    assert field(blob, "in") == Field(32, 64)
    assert field(blob, "in.z") is None
    assert field(blob, "pad.x") is None


@ORDERS
def test_anonymous_members_are_transparent(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    u16 = b.integer("unsigned short", 2)
    anonymous = b.struct("", 4, ("a", u16, 0), ("b", u16, 16))
    union = b.struct("", 4, ("", anonymous, 0), ("whole", b.integer("unsigned int", 4), 0), kind=5)
    const = b.record(10, "", union)
    b.struct("s", 8, ("first", u16, 0), ("", const, 32))
    assert field(b.build(), "b") == Field(48, 16)
    assert field(b.build(), "whole") == Field(32, 32)


def test_pointer_size_is_the_callers() -> None:
    b = BtfBuilder()
    pointer = b.pointer(0)
    b.struct("s", 8, ("p", pointer, 0), ("all", b.array(pointer, 3), 64))
    assert field(b.build(), "p", pointer_size=4) == Field(0, 32)
    assert field(b.build(), "all") == Field(64, 192)
    assert field(b.build(), "p.x") is None


def test_arrays() -> None:
    b = BtfBuilder()
    element = b.struct("e", 12, ("v", b.integer("int", 4, signed=True), 32))
    matrix = b.array(b.array(element, 2), 3)
    b.struct("s", 80, ("m", matrix, 8), ("flexible", b.array(element, 0), 640))
    blob = b.build()
    assert field(blob, "m") == Field(8, 3 * 2 * 96)
    assert field(blob, "m[1]") == Field(8 + 192, 192)
    assert field(blob, "m[2][1].v") == Field(8 + 5 * 96 + 32, 32, signed=True)
    assert field(blob, "m[3]") is None
    assert field(blob, "m[0][2]") is None
    assert field(blob, "flexible") == Field(640, 0)
    assert field(blob, "flexible[2].v") == Field(640 + 2 * 96 + 32, 32, signed=True)


def test_modifiers_are_stripped() -> None:
    b = BtfBuilder()
    last = b.integer("long", 8, signed=True)
    for kind in (10, 9, 8, 18, 11):
        last = b.record(kind, "t" if kind in (8, 18) else "", last)
    b.struct("s", 8, ("m", last, 0))
    assert field(b.build(), "m") == Field(0, 64, signed=True)


@ORDERS
def test_bitfields_with_kind_flag(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    u8 = b.integer("unsigned char", 1)
    signed = b.integer("int", 4, signed=True)
    b.bitfield_struct("s", 8, ("plain", u8, 0, 0), ("ca_state", u8, 8, 5), ("s3", signed, 13, 3), ("", u8, 16, 2))
    blob = b.build()
    assert field(blob, "plain") == Field(0, 8)
    assert field(blob, "ca_state") == Field(8, 5, bitfield=True)
    assert field(blob, "s3") == Field(13, 3, bitfield=True, signed=True)


def test_bitfields_of_old_compilers_are_narrow_ints() -> None:
    b = BtfBuilder()
    b.struct(
        "s",
        8,
        ("narrow", b.integer("unsigned int", 4, bits=6), 32),
        ("shifted", b.integer("u", 4, bits=8, offset=8), 32),
    )
    assert field(b.build(), "narrow") == Field(32, 6, bitfield=True)
    assert field(b.build(), "shifted") == Field(40, 8, bitfield=True)


@ORDERS
def test_enums(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    small = b.enum("small", ("A", 0), ("B", 0xFFFFFFFF))
    negative = b.enum("negative", ("C", -1), signed=True)
    b.enum("wide", ("D", 1 << 40), wide=True)
    b.enum("wide_negative", ("E", -(1 << 40)), signed=True, wide=True)
    b.struct("s", 8, ("n", negative, 0), ("p", small, 32))
    wanted = {
        "enum small": frozenset(("A", "B", "gone")),
        "enum negative": frozenset("C"),
        "enum wide": frozenset("D"),
        "enum wide_negative": frozenset("E"),
        "struct s": frozenset("np"),
    }
    assert Btf(b.build()).extract(wanted, 8) == {
        "enum small": Enum("enum small", 4, {"A": 0, "B": 0xFFFFFFFF, "gone": None}),
        "enum negative": Enum("enum negative", 4, {"C": -1}),
        "enum wide": Enum("enum wide", 8, {"D": 1 << 40}),
        "enum wide_negative": Enum("enum wide_negative", 8, {"E": -(1 << 40)}),
        "struct s": Struct("struct s", 8, {"n": Field(0, 32, signed=True), "p": Field(32, 32)}),
    }


def test_absent_types() -> None:
    b = BtfBuilder()
    b.struct("u", 4, kind=5)
    b.record(7, "s", 0)  # struct s;
    b.struct("s", 4, ("a", b.integer("int", 4), 0))
    wanted = {"struct t": frozenset("a"), "struct u": frozenset[str](), "union u": frozenset[str]()}
    layout = Btf(b.build()).extract({**wanted, "union s": frozenset("a")}, 8)
    assert layout == {"struct t": None, "struct u": None, "union u": Struct("union u", 4, {}), "union s": None}
    assert Btf(b.build()).extract({"struct s": frozenset("b")}, 8) == {"struct s": Struct("struct s", 4, {"b": None})}


@pytest.mark.parametrize("name", ["struct s", "union w", "enum e"])
def test_what_is_only_declared_is_not_known_to_be_absent(name: str) -> None:
    b = BtfBuilder()
    b.record(7, "s", 0)  # struct s;
    b.record(7, "w", 0, flag=True)  # union w;
    b.enum("e")  # enum e;
    with pytest.raises(BtfError, match=f"{name} is only declared"):
        Btf(b.build()).extract({name: frozenset("a")}, 8)


@pytest.mark.parametrize("path", ["a", "inner.a"])
def test_members_that_were_left_out_are_not_known_to_be_absent(path: str) -> None:
    b = BtfBuilder()
    bare = b.struct("bare", 8)
    b.struct("s", 8, ("inner", bare, 0))
    with pytest.raises(BtfError, match=r"\(bare\) of 8 bytes has no members"):
        Btf(b.build()).extract({"struct s" if "." in path else "struct bare": frozenset((path,))}, 8)
    b = BtfBuilder()
    b.struct("empty", 0)
    assert Btf(b.build()).extract({"struct empty": frozenset("a")}, 8)["struct empty"] == Struct(
        "struct empty", 0, {"a": None}
    )


def test_duplicate_names() -> None:
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4)
    b.struct("s", 8, ("x", u32, 0), ("y", u32, 32))
    b.struct("s", 8, ("x", u32, 0), ("z", u32, 32))
    btf = Btf(b.build())
    assert btf.extract({"struct s": frozenset("x")}, 8)["struct s"] == Struct("struct s", 8, {"x": Field(0, 32)})
    with pytest.raises(BtfError, match="several different types called 'struct s'"):
        btf.extract({"struct s": frozenset("y")}, 8)


def test_func_ids() -> None:
    b = BtfBuilder()
    proto = b.record(13, "", 0, (b.name("sk"), 0), vlen=1)
    first = b.record(12, "tcp_connect", proto)
    b.record(12, "twice", proto)
    b.record(12, "twice", proto, vlen=1)
    b.struct("a_struct", 0)
    assert Btf(b.build()).func_ids(["tcp_connect", "twice", "gone", "a_struct"]) == {"tcp_connect": first}


def test_every_type_can_be_walked() -> None:
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4, signed=True)
    b.record(14, "variable", u32, (1,))
    b.record(15, ".data", 4, (2, 0, 4), vlen=1)
    b.record(13, "", 0, (b.name("arg"), u32), vlen=1)
    b.record(16, "float", 4)
    b.record(17, "tag", u32, (0xFFFFFFFF,))
    btf = Btf(b.build())
    assert len(btf) == 6
    records = [btf.type(i) for i in btf.ids()]
    assert [record.kind for record in records] == [1, 14, 15, 13, 16, 17]
    assert (records[0].int_encoding, records[0].int_bits, records[1].detail) == (1, 32, 1)
    assert records[2].variables == ((2, 0, 4),)
    assert records[3].params == (("arg", u32),)
    assert btf.type(0).name == "void"


@ORDERS
def test_split_btf_continues_its_base(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    u32 = b.integer("unsigned int", 4)
    b.struct("s", 4, ("x", u32, 0))
    b.struct("only_base", 4, ("x", u32, 0))
    base = Btf(b.build())
    m = BtfBuilder(byte_order, first_id=4, first_string=len(b.strings))
    m.struct("module", 8, ("y", u32, 32))
    m.record(4, b.name("s"), 8, (m.name("y"), u32, 32), vlen=1)  # same name as the base's, string of the base
    split = Btf(m.build(), base)
    assert list(split.ids()) == [4, 5]
    layout = split.extract({f"struct {s}": frozenset("y") for s in ("s", "module", "only_base")}, 8)
    assert layout == {
        "struct s": Struct("struct s", 8, {"y": Field(32, 32)}),
        "struct module": Struct("struct module", 8, {"y": Field(32, 32)}),
        "struct only_base": Struct("struct only_base", 4, {"y": None}),
    }
    assert split.find(["s"], frozenset((BTF_KIND_STRUCT,))) == {"s": [5]}


def test_split_and_base_of_different_byte_order() -> None:
    with pytest.raises(BtfError, match="big-endian but its base is little-endian"):
        Btf(BtfBuilder("big").build(), Btf(BtfBuilder("little").build()))


@ORDERS
def test_unknown_kinds_are_stepped_over_if_the_layout_section_explains_them(byte_order: str) -> None:
    b = BtfBuilder(byte_order)
    b.record(30, "new", 0, range(1 + 2 * 3), vlen=3)
    s = b.struct("s", 4)
    layout = bytes(4 * 30) + bytes((4, 8, 0, 0))
    assert Btf(b.build(layout)).find(["s"], frozenset((BTF_KIND_STRUCT,))) == {"s": [s]}
    with pytest.raises(BtfError, match="type 1 is of unknown kind 30"):
        len(Btf(b.build()))


def sample() -> BtfBuilder:
    b = BtfBuilder()
    u32 = b.integer("unsigned int", 4)
    b.struct("s", 4, ("x", u32, 0))
    return b


@pytest.mark.parametrize(
    ("position", "layout", "value", "message"),
    [
        (0, "<H", 0x1234, "no BTF"),
        (2, "<B", 9, "version 9"),
        (4, "<I", 1 << 20, "header length"),
        (4, "<I", 8, "header length"),
        (8, "<I", 1 << 31, "type section .* past the end"),
        (12, "<I", 1 << 31, "type section .* past the end"),
        (12, "<I", 39, "not a multiple of 4"),
        (12, "<I", 36, "type 2 runs past the end"),
        (12, "<I", 20, "type 2 runs past the end"),
        (20, "<I", 1 << 31, "string section .* past the end"),
        (20, "<I", 0, "does not start with an empty string"),
        (20, "<I", 5, "does not end with NUL"),
        (24 + 16 + 4, "<I", 4 << 24 | 2, "type 2 runs past the end"),
        (24 + 16 + 4, "<I", 0x7E << 24, "type 2 is of unknown kind 126"),
        (24 + 16 + 12, "<I", 1 << 20, "name offset 1048576 is past the end"),
        (24 + 16 + 16, "<I", 77, "type id 77 is out of range"),
    ],
)
def test_hostile_blobs(position: int, layout: str, value: int, message: str) -> None:
    blob = bytearray(sample().build())
    struct.pack_into(layout, blob, position, value)
    with pytest.raises(BtfError, match=message):
        Btf(bytes(blob)).extract({"struct s": frozenset("x")}, 8)


def test_every_truncation_is_an_error() -> None:
    blob = sample().build()
    for size in range(len(blob)):
        with pytest.raises(BtfError):
            Btf(blob[:size]).extract({"struct s": frozenset("x")}, 8)


def test_flipped_bits_are_errors_or_other_answers_but_nothing_else() -> None:
    blob = sample().build()
    for bit in range(len(blob) * 8):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(BtfError):
            btf = Btf(bytes(flipped))
            btf.extract({"struct s": frozenset(("x", "x.y", "x[1]"))}, 8)
            btf.func_ids(["s"])


def test_reference_cycles() -> None:
    b = BtfBuilder()
    b.record(10, "", 2)
    b.record(9, "", 1)
    b.struct("s", 4, ("x", 1, 0))
    with pytest.raises(BtfError, match="reference cycle"):
        field(b.build(), "x")
    b = BtfBuilder()
    b.struct("s", 4, ("", 1, 0))
    with pytest.raises(BtfError, match="struct inside itself"):
        field(b.build(), "x")
    b = BtfBuilder()
    b.array(1, 2)
    b.struct("s", 4, ("x", 1, 0))
    with pytest.raises(BtfError, match="array of itself"):
        field(b.build(), "x")


def test_a_member_must_have_a_size() -> None:
    b = BtfBuilder()
    b.struct("s", 4, ("x", b.record(BTF_KIND_FUNC, "f", 0), 0))
    with pytest.raises(BtfError, match="has no size"):
        field(b.build(), "x")


@pytest.mark.parametrize("path", ["", "a..b", "a[", "a[-1]", "a[x]", "a b", "[0]"])
def test_malformed_paths(path: str) -> None:
    with pytest.raises(ValueError, match="not a field path"):
        field(sample().build(), path)


@pytest.mark.parametrize("name", ["sock", "class sock", "struct ", ""])
def test_malformed_type_names(name: str) -> None:
    with pytest.raises(ValueError, match="does not start with"):
        Btf(sample().build()).extract({name: frozenset()}, 8)


@ORDERS
@pytest.mark.parametrize("order", ["copy first", "tail first"])
def test_a_name_may_be_there_twice_and_be_the_end_of_another(byte_order: str, order: str) -> None:
    """Types whose names are the first copy, the second copy, and the end of a longer string, are all found."""

    def named(*places: str) -> bytes:
        b = BtfBuilder(byte_order)
        u32 = b.integer("unsigned int", 4)
        texts = ["tcp_sock", "sock", "x"] if order == "tail first" else ["sock", "tcp_sock", "x"]
        offsets = {}
        for text in [*texts, "sock"]:
            offsets["second" if text in offsets else text] = len(b.strings)
            b.strings += text.encode() + b"\0"
        offsets["tail"] = offsets["tcp_sock"] + 4
        for number, place in enumerate(places):
            b.record(4, offsets[place], 8, (offsets["x"], u32, 32 * (number % 2)), vlen=1)
        return b.build()

    for place in ("sock", "second", "tail"):
        assert field(named(place), "x", "struct sock") == Field(0, 32)
        assert field(named(place, "tcp_sock"), "x", "struct tcp_sock") == Field(32, 32)
    for one, other in (("sock", "second"), ("sock", "tail"), ("tail", "second"), ("second", "sock")):
        with pytest.raises(BtfError, match="several different types called 'struct sock'"):
            field(named(one, other), "x", "struct sock")


def test_a_function_whose_name_is_there_twice_has_no_id() -> None:
    b = BtfBuilder()
    proto = b.record(13, "", 0)
    one = len(b.strings)
    b.strings += b"tcp_connect\0"
    other = len(b.strings)
    b.strings += b"__tcp_connect\0"
    found = b.record(12, other + 2, proto)
    assert Btf(b.build()).func_ids(["tcp_connect"]) == {"tcp_connect": found}
    b.record(12, one, proto)
    assert Btf(b.build()).func_ids(["tcp_connect"]) == {}
