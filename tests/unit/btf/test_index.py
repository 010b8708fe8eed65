"""The index of records: what it concludes from top bytes is what stepping over each record finds."""

from __future__ import annotations

import contextlib
import struct
from array import array
from typing import Callable, Generator, List, Tuple
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockpid.btf.index import Index
from sockpid.btf.record import BTF_KIND_FUNC, BTF_KIND_STRUCT, BTF_KIND_VAR, TAIL_WORDS
from tests.btf_builder import BtfBuilder

FIRST_ID = 7
ANY = st.integers(0, (1 << 32) - 1)
TELLING = st.sampled_from([top << 24 for top in (*range(24), *range(0x80, 0x98), 0xFF)])
"""Values whose top byte could be taken for a kind."""

VALUE = st.one_of(st.integers(0, 5), TELLING, ANY)
NAME = st.integers(0, 99)
TYPE = st.integers(0, 60)


@st.composite
def records(draw: Callable[..., int]) -> Tuple[List[int], int]:
    """Words of one well-formed record, and its kind. Names and type ids are small; sizes and values are anything."""
    kind = draw(st.integers(1, 19))
    vlen = draw(st.integers(0, 4)) if TAIL_WORDS[kind][1] else 0
    flag = draw(st.booleans()) if kind in (4, 5, 6, 7, 17, 18, 19) else False
    value = VALUE if kind in (4, 5, 6, 15, 16, 19) else TYPE
    words = [draw(NAME), kind << 24 | flag << 31 | vlen, draw(value)]
    if kind == 1:
        words[2:] = [4, draw(st.sampled_from((0, 1, 2, 4))) << 24 | 32]
    elements = {
        3: (TYPE, TYPE, VALUE),
        4: (NAME, TYPE, VALUE),
        5: (NAME, TYPE, VALUE),
        6: (NAME, VALUE),
        13: (NAME, TYPE),
        14: (VALUE,),
        15: (TYPE, VALUE, VALUE),
        17: (VALUE,),
        19: (NAME, VALUE, VALUE),
    }.get(kind, ())
    for _ in range(vlen if TAIL_WORDS[kind][1] else 1):
        words.extend(draw(element) for element in elements)
    return words, kind


CHUNKS = pytest.mark.parametrize("chunk", [8, 64, 1 << 16])
"""Words that are looked at together: few, so that records lie across several, and as many as there are."""


@contextlib.contextmanager
def chunks_of(chunk: int) -> Generator[None, None, None]:
    with patch("sockpid.btf.section._CHUNK", chunk), patch("sockpid.btf.index._BLOCK", min(chunk, 16)):
        yield


def index(words: List[int]) -> Index:
    data = array("I", words).tobytes()
    return Index(data, 0, len(data), FIRST_ID, {})


def prototype_and_function(number: int) -> List[int]:
    """Records with the numbers `number` and `number` + 1."""
    return [0, 13 << 24, 0, 5, BTF_KIND_FUNC << 24, FIRST_ID + number]


@CHUNKS
@given(drawn=st.lists(records(), max_size=40))
def test_agrees_with_stepping(chunk: int, drawn: List[Tuple[List[int], int]]) -> None:
    starts: List[int] = []
    words: List[int] = []
    for record, _ in drawn:
        starts.append(len(words))
        words += record
    starts += [len(words), len(words) + 3]
    words += prototype_and_function(len(drawn))
    with chunks_of(chunk):
        found = index(words)
        assert len(found) == len(starts)
        for number, start in enumerate(starts):
            end = starts[number + 1] if number + 1 < len(starts) else len(words)
            assert found.number(start) == number
            assert list(found.record(number)) == words[start:end]
        kinds = {BTF_KIND_STRUCT, BTF_KIND_VAR}
        expected = [(i, r[0]) for i, (r, kind) in enumerate(drawn) if kind in kinds and r[0] in (0, 3, 50)]
        assert found.named((0, 3, 50), kinds) == expected
        with pytest.raises(IndexError):
            found.record(len(starts))


def large(offset: int, size: int = 1 << 25) -> Callable[[BtfBuilder], None]:
    def add(b: BtfBuilder) -> None:
        b.struct("large", size, ("first", 1, 0), ("second", 1, offset), ("third", 1, offset + 8))

    return add


@pytest.mark.parametrize(
    "add",
    [
        *(large(kind << 24 | low) for kind in (1, 2, 3, 4, 6, 15, 17, 19, 20) for low in (0, 0x40)),
        *(large(8, size=1 << shift) for shift in range(20, 32)),
        *(lambda b, n=1 << shift: b.array(1, n) for shift in range(20, 32)),
        lambda b: b.enum("flags", *((f"F{bit}", 1 << bit) for bit in range(32))),
        lambda b: b.enum("negative", ("A", -1), ("B", -2), signed=True),
        lambda b: b.bitfield_struct("bits", 4, *((f"b{width}", 1, 0, width) for width in range(32))),
        lambda b: b.record(17, "tag", 1, (0xFFFFFFFF,)),
        lambda b: b.record(14, "variable", 1, (1 << 24,)),
        lambda b: b.record(15, ".data", 1 << 26, (14, 1 << 24, 1 << 24), vlen=1),
    ],
)
@pytest.mark.parametrize("functions", [True, False])
@CHUNKS
def test_values_that_look_like_kinds(add: Callable[[BtfBuilder], None], functions: bool, chunk: int) -> None:
    b = BtfBuilder()
    b.integer("int", 4, signed=True)
    add(b)
    after = b.struct("after", 4, ("x", 1, 0))
    if functions:
        b.record(BTF_KIND_FUNC, "f", b.record(13, "", 1))
    with chunks_of(chunk):
        found = Index(b.types, 0, len(b.types), 1, {})
        assert found.record(after - 1)[2] == 4
        assert len(found) == b.next_id - 1


def test_variables_number_a_section_that_is_sorted_by_name() -> None:
    """As from Linux 7.2 on: functions are far from their prototypes."""
    b = BtfBuilder()
    proto = b.record(13, "", 0)
    b.struct("large", 1 << 22, ("a", 1, 0), ("b", 1, 1 << 24))
    b.record(BTF_KIND_FUNC, "m", proto)
    section = b.record(15, ".data..percpu", 4, (b.next_id + 1, 0, 4), vlen=1)
    assert b.record(BTF_KIND_VAR, "v", 2, (1,)) == section + 1
    last = b.struct("w", 8, ("x", 2, 0))
    found = Index(b.types, 0, len(b.types), 1, {})
    assert len(found) == last
    assert struct.unpack("<I", bytes(found.record(last - 1))[8:12]) == (8,)


def test_ids_of_a_module_continue_those_of_its_kernel() -> None:
    words = [*[0, 2 << 24, 1] * 9, *prototype_and_function(9)]
    assert len(index(words)) == 11


def test_a_record_too_many_and_one_too_few() -> None:
    """A variable whose linkage looks like an array that hides a prototype: numbers after both would be right again."""
    words = [0, BTF_KIND_VAR << 24, 0, 3 << 24, *prototype_and_function(1)]
    found = index(words)
    assert [found.number(start) for start in (0, 4, 7)] == [0, 1, 2]


def test_a_function_that_shares_a_prototype_holds_no_numbers() -> None:
    """Where one record too many was lost ("enum" in a struct of 13 MiB), it seems to follow the one it refers to."""
    words = [0, BTF_KIND_STRUCT << 24 | 1, 13 << 20, 0, 2, 6 << 24 | 3]
    words += [0, 2 << 24, 0, 0, 2 << 24, 0, 0, 2 << 24, 0]
    words += [*prototype_and_function(4), 5, BTF_KIND_FUNC << 24, FIRST_ID + 4, 5, BTF_KIND_FUNC << 24, FIRST_ID + 4]
    assert len(index(words)) == 8
