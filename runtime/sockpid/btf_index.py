"""Where the records of a BTF type section start, found without stepping over each of them.

A record does not say its number, and its length depends on its kind and element count, so the plain way to type id
100,000 is a loop over all before it: most of the time that reading a kernel's BTF takes in Python. Instead the top
bytes of all words are looked at as one string. The top byte of an info word (kind and kind_flag) is never zero. Name
offsets and type ids stay below 2^24 in any kernel, so theirs always is; the only others that are not belong to few
records: bit-field widths, enumerators, integer encodings. Those are stepped over, and the rest is counting bytes.

What that leaves open (a struct so large that the bit offset of a member needs more than 24 bits) shows as record
numbers that are wrong from there on. So the result is held against numbers that the section tells: functions
refer to their prototypes, and sections list their variables. Where that fails, structs and arrays are stepped over as
well; and where there is nothing to hold the result against, all records.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from itertools import accumulate
from typing import Collection, Container, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union
from zlib import adler32

from .btf_record import (
    BTF_KIND_ARRAY,
    BTF_KIND_DATASEC,
    BTF_KIND_DECL_TAG,
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_FLOAT,
    BTF_KIND_FUNC,
    BTF_KIND_FUNC_PROTO,
    BTF_KIND_INT,
    BTF_KIND_STRUCT,
    BTF_KIND_UNION,
    BTF_KIND_VAR,
    KIND_FLAG,
    TAIL_WORDS,
    kind_of,
)
from .errors import BtfError

_LITTLE = sys.byteorder == "little"
_WORDS_MAX = 3 << 24
"""Sections with more words could have type ids of more than 24 bits."""

_CHUNK = 1 << 16
"""Words whose bytes are looked at together: so many that the processor's cache holds what is made of them."""

_BLOCK = 1 << 10
"""Words that are searched at once for the n-th record; a chunk has a whole number of them."""

_TAIL_MAX = 4096
"""How many words, from the end of the section backwards, are searched for a record with a known number."""

_PLAIN, _STEPPED, _UNKNOWN = 1, 2, 3
"""What the top byte of a word says if the word is an info: to be counted, to be stepped over, or no known kind."""

_FLAGGED = frozenset(
    kind | KIND_FLAG for kind in (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DECL_TAG)
)
_MIXED = _FLAGGED.union((BTF_KIND_INT, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DATASEC, BTF_KIND_DECL_TAG))
"""Kinds, with kind_flag, of records whose later words have top bytes that are not zero."""

_LARGE = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ARRAY, BTF_KIND_VAR, BTF_KIND_FLOAT))
"""Kinds of records where they are not zero only if the type has 2 MiB, or 2^24 elements, or makes no sense."""

_NONZERO = b"\0" + b"\1" * 255
_TAILS = [TAIL_WORDS.get(byte & ~KIND_FLAG, (0, 0)) for byte in range(256)]


def _classes(stepped: Container[int]) -> bytes:
    """The class of each top byte; 0 for 0."""
    classes = bytearray((_UNKNOWN,)) * 256
    for kind in TAIL_WORDS:
        for top in (kind, kind | KIND_FLAG):
            classes[top] = _STEPPED if top in stepped else _PLAIN
    classes[0] = 0
    return bytes(classes)


_CLASSES = _classes(_MIXED), _classes(_MIXED | _LARGE)


class Index:
    """The records of a type section: by number, counted from 0, and by name.

    data[start:end] is the section, in host byte order, whole words. first_id: the type id of its first record.
    new_kinds: lengths of kinds that only the blob explains, as TAIL_WORDS. Raises BtfError if a record reaches past the
    end or is of an unknown kind; in a section with name offsets or type ids out of range, that may go unnoticed until
    the record is read.
    """

    def __init__(
        self, data: bytes, start: int, end: int, first_id: int, new_kinds: Mapping[int, Tuple[int, int]]
    ) -> None:
        self._data, self._start, self._end = data, start, end
        self._words = words = memoryview(data)[start:end].cast("I")
        self._first_id = first_id
        self._new_kinds = new_kinds
        for classes in () if new_kinds or len(words) > _WORDS_MAX else _CLASSES:
            kinds = self._glance(classes)
            if kinds is not None:
                self._count(kinds)
                if self._holds():
                    return
        self._count(self._step(0, 0))

    def __len__(self) -> int:
        return self._before[-1]

    def record(self, number: int) -> memoryview:
        """The words of record `number`. Raises IndexError if there is none, BtfError if it reaches past the end."""
        start = self._place(number)
        end = start + self._length(self._words[start + 1], number)
        if end > len(self._words):
            raise self._past_the_end(number)
        return self._words[start:end]

    def _place(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(number)
        block = bisect_right(self._before, number) - 1
        marks = self._kinds[block * _BLOCK : (block + 1) * _BLOCK].translate(_NONZERO)
        passed = marks.replace(b"\1", b"\0", number - self._before[block])
        return block * _BLOCK + passed.index(1) - 1

    def number(self, start: int) -> int:
        """The number of the record that starts at word `start`, counted from 0."""
        block = (start + 1) // _BLOCK
        first = block * _BLOCK
        return self._before[block] + start + 1 - first - self._kinds.count(0, first, start + 1)

    def named(self, offsets: Collection[int], kinds: Iterable[int]) -> List[Tuple[int, int]]:
        """Records of these kinds with one of these name offsets, ascending: (number, name offset)."""
        tops = [top for kind in kinds for top in (kind, kind | KIND_FLAG)]
        is_low, is_top = _table(offset & 0xFF for offset in offsets), _table(tops)
        words = self._words
        found: List[Tuple[int, int]] = []
        for first in range(0, len(words), _CHUNK):
            # Where the low byte is that of an offset, and the next word is an info of these kinds.
            chunk = self._kinds[first + 1 : first + 1 + _CHUNK]
            last = max(map(chunk.rfind, tops), default=-1) + 1
            low = self._bytes(0, first, first + last)
            both = _number(low, is_low) & _number(chunk[:last], is_top)
            find = both.to_bytes(last, "little").find
            at = find(1)
            while at >= 0:
                offset = words[first + at]
                if offset in offsets:
                    found.append((self.number(first + at), offset))
                at = find(1, at + 1)
        return found

    def _bytes(self, byte: int, first: int, last: int) -> bytes:
        """One byte (0 is the lowest) of each word in [first, last)."""
        start = self._start + (byte if _LITTLE else 3 - byte)
        return self._data[start + 4 * first : min(self._end, start + 4 * last) : 4]

    def _glance(self, classes: bytes) -> Optional[bytearray]:
        """By word: kind and kind_flag if a record's info is there, else 0. None if that cannot be told so."""
        words, size, tails = self._words, len(self._words), _TAILS
        kinds = bytearray(size)
        end = 0
        for base in range(0, size, _CHUNK):
            tops = self._bytes(3, base, base + _CHUNK)
            kinds[base : base + len(tops)] = tops
            marks = bytearray(tops.translate(classes))
            if end:  # of a record that started in a chunk before
                kinds[base : base + end] = marks[:end] = bytes(end)
            find, count, left = marks.find, marks.count, size - base
            at = find(_STEPPED, end)
            while at >= 0:
                info = words[base + at]
                kind = info >> 24
                once, each = tails[kind]
                tail = 1 + once + each * (info & 0xFFFFFF)
                end = at + 1 + tail
                if end > left or (kind == BTF_KIND_INT and not self._is_int(base + at)):
                    return None
                if count(0, at + 1, end) != tail:
                    kinds[base + at + 1 : base + end] = marks[at + 1 : end] = bytes(tail)
                at = find(_STEPPED, end)
            if _UNKNOWN in marks:
                return None
            end = max(0, end - len(tops))
        return kinds

    def _is_int(self, at: int) -> bool:
        """Whether word `at` can be the info of an INT."""
        info, size, detail, *after = self._words[at : at + 5].tolist()
        bits = (detail & 0xFF) + (detail >> 16 & 0xFF)
        return (
            info == BTF_KIND_INT << 24
            and size in (1, 2, 4, 8, 16)
            and 0 < bits <= size * 8
            and detail >> 24 in (0, 1, 2, 4)
            and (len(after) < 2 or after[1] >> 24 != 0)  # where the next record has its info
        )

    def _holds(self) -> bool:
        """Whether the records are numbered right: those with a number that another record tells, and all after them."""
        for start in (self._last_function(), self._last_variable()):
            if start is not None:
                return self._kinds[start:] == self._step(start, self.number(start))
        return False

    def _last_function(self) -> Optional[int]:
        """Where the last FUNC starts that comes right after a prototype, if that is near the end and its own.

        Compilers write them in pairs, so a wrong number shows in every pair.
        """
        at = len(self._kinds)
        while True:
            at = self._kinds.rfind(BTF_KIND_FUNC, max(0, len(self._kinds) - _TAIL_MAX), at)
            number = self.number(at - 1) if 0 < at < len(self._words) - 1 else 0
            if number < 1:
                return None
            if self._kinds[self._place(number - 1) + 1] == BTF_KIND_FUNC_PROTO:
                return at - 1 if self._words[at + 1] == self._first_id + number - 1 else None

    def _last_variable(self) -> Optional[int]:
        """Where the last VAR starts, if its number is the highest that the sections of variables have."""
        highest = 0
        for start in self._starts(BTF_KIND_DATASEC):
            highest = max(highest, *self.record(self.number(start))[3::3], 0)
        start = next(self._starts(BTF_KIND_VAR), -1)
        return start if start >= 0 and highest == self._first_id + self.number(start) else None

    def _starts(self, kind: int) -> Iterator[int]:
        """Where records of this kind start, the last first. (Not those with kind_flag.)"""
        at = self._kinds.rfind(kind)
        while at >= 1:
            yield at - 1
            at = self._kinds.rfind(kind, 0, at)

    def _step(self, position: int, number: int) -> bytearray:
        """As _glance, for the words from `position` on, where record `number` starts; looking at each record."""
        words, end = self._words, len(self._words)
        kinds = bytearray(end - position)
        first = position
        lengths: Dict[int, int] = {}
        while position < end:
            info = words[position + 1] if position + 1 < end else 0
            length = lengths.get(info)
            if length is None:
                length = lengths[info] = self._length(info, number) if position + 1 < end else 3
            if position + length > end:
                raise self._past_the_end(number)
            kinds[position + 1 - first] = info >> 24
            position += length
            number += 1
        return kinds

    def _length(self, info: int, number: int) -> int:
        tail = TAIL_WORDS.get(info >> 24 & ~KIND_FLAG) or self._new_kinds.get(kind_of(info))
        if tail is None:
            raise BtfError(f"BTF type {self._first_id + number} is of unknown kind {kind_of(info)}")
        return 3 + tail[0] + tail[1] * (info & 0xFFFFFF)

    def _past_the_end(self, number: int) -> BtfError:
        return BtfError(f"BTF type {self._first_id + number} runs past the end of the type section")

    def _count(self, kinds: bytearray) -> None:
        """Counts the records before each block."""
        self._kinds = kinds
        counts: List[int] = [0]
        for first in range(0, len(kinds), _CHUNK):
            marks = memoryview(kinds[first : first + _CHUNK].translate(_NONZERO))
            # The low half of Adler-32 is one more than the sum of the bytes; there is no faster way to count ones.
            counts += [(adler32(marks[at : at + _BLOCK]) & 0xFFFF) - 1 for at in range(0, len(marks), _BLOCK)]
        self._before: List[int] = list(accumulate(counts))


def _table(values: Iterable[int]) -> bytes:
    """A translation table: 1 for these bytes, 0 for the others."""
    table = bytearray(256)
    for value in values:
        table[value] = 1
    return bytes(table)


def _number(data: Union[bytes, bytearray], table: bytes) -> int:
    """The bytes, translated, as one number."""
    return int.from_bytes(data.translate(table), "little")
