"""Where the records of a BTF type section start, found without stepping over each of them.

A record does not say its number, and its length depends on its kind and element count, so the plain way to type id
100,000 is a loop over all before it: most of the time that reading a kernel's BTF takes in Python. Instead the top
bytes of all words are looked at as one string. The top byte of an info word (kind and kind_flag) is never zero. Name
offsets and type ids stay below 2^24 in any kernel, so theirs always is; the only others that are not belong to few
records: bit-field widths, enumerators, integer encodings. Those are stepped over, and the rest is counting bytes.

What that leaves open (a struct so large that the bit offset of a member needs more than 24 bits) shows as record
numbers that are too high from there on. So the result is held against numbers that the section tells: functions
refer to their prototypes, and sections list their variables. Where that fails, structs and arrays are stepped over as
well; and where there is nothing to hold the result against, all records.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from itertools import accumulate
from typing import Collection, Dict, Iterable, List, Mapping, Optional, Tuple

from .btf_record import (
    BTF_KIND_ARRAY,
    BTF_KIND_DATASEC,
    BTF_KIND_DECL_TAG,
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_FUNC,
    BTF_KIND_INT,
    BTF_KIND_STRUCT,
    BTF_KIND_UNION,
    BTF_KIND_VAR,
    KIND_FLAG,
    TAIL_WORDS,
    kind_of,
    vlen_of,
)
from .errors import BtfError

_LITTLE = sys.byteorder == "little"
_WORDS_MAX = 3 << 24
"""Sections with more words could have type ids of more than 24 bits."""

_BLOCK = 1024
"""Words that are searched at once for the n-th record."""

_TAIL_MAX = 4096
"""How many words, from the end of the section backwards, are searched for a record with a known number."""

_NONZERO = b"\0" + b"\1" * 255
_MIXED = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DATASEC, BTF_KIND_DECL_TAG)).union(
    kind | KIND_FLAG for kind in (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DECL_TAG)
)
"""Kinds, with kind_flag, of records whose later words have top bytes that are not zero."""

_LARGE = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ARRAY))
"""Kinds of records where they are not zero only if the type has 2 MiB, or 2^24 elements."""

_KNOWN = bytes(byte for kind in TAIL_WORDS for byte in (kind, kind | KIND_FLAG)) + b"\0"
_AFTER_INFO = [1 + TAIL_WORDS.get(byte & ~KIND_FLAG, (0, 0))[0] for byte in range(256)]
_PER_ELEMENT = [TAIL_WORDS.get(byte & ~KIND_FLAG, (0, 0))[1] for byte in range(256)]


class Index:
    """The records of a type section: by number, counted from 0, and by name.

    section: in host byte order, whole words. first_id: the type id of its first record. new_kinds: lengths of kinds
    that only the blob explains, as TAIL_WORDS. Raises BtfError if a record reaches past the end or is of an unknown
    kind; in a section with name offsets or type ids out of range, that may go unnoticed until the record is read.
    """

    def __init__(self, section: bytes, first_id: int, new_kinds: Mapping[int, Tuple[int, int]]) -> None:
        self._bytes = section
        self._words = words = memoryview(section).cast("I")
        self._first_id = first_id
        self._new_kinds = new_kinds
        for stepped in () if new_kinds or len(words) > _WORDS_MAX else (_MIXED, _MIXED | _LARGE):
            kinds = self._glance(bytes(top in stepped for top in range(256)))
            if kinds is not None:
                self._count(kinds)
                if self._holds():
                    return
        self._count(self._step(0, 0))

    def __len__(self) -> int:
        return self._before[-1]

    def record(self, number: int) -> memoryview:
        """The words of record `number`. Raises IndexError if there is none, BtfError if it reaches past the end."""
        start = self._start(number)
        end = start + self._length(self._words[start + 1], number)
        if end > len(self._words):
            raise self._past_the_end(number)
        return self._words[start:end]

    def _start(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(number)
        block = bisect_right(self._before, number) - 1
        marks = self._marks[block * _BLOCK : (block + 1) * _BLOCK]
        passed = marks.replace(b"\1", b"\0", number - self._before[block])
        return block * _BLOCK + passed.index(1) - 1

    def number(self, start: int) -> int:
        """The number of the record that starts at word `start`, counted from 0."""
        block = (start + 1) // _BLOCK
        return self._before[block] + self._marks.count(1, block * _BLOCK, start + 1)

    def named(self, offsets: Collection[int], kinds: Iterable[int]) -> List[Tuple[int, int]]:
        """Records of these kinds with one of these name offsets, ascending: (number, name offset)."""
        tops = [top for kind in kinds for top in (kind, kind | KIND_FLAG)]
        ends = [self._kinds.rfind(top) for top in tops]
        first = max(0, min((self._kinds.find(top) for top, end in zip(tops, ends) if end >= 0), default=0) - 1)
        last = max(0, *ends)
        # Each offset sets a bit for its low and one for its middle byte; words that have both are few.
        low, middle = bytearray(256), bytearray(256)
        for number, offset in enumerate(offsets):
            low[offset & 0xFF] |= 1 << number % 8
            middle[offset >> 8 & 0xFF] |= 1 << number % 8
        both = self._stream(0, bytes(low), first, last) & self._stream(1, bytes(middle), first, last)
        marks = both.to_bytes(max(0, last - first), "little").translate(_NONZERO)
        found: List[Tuple[int, int]] = []
        at = marks.find(1)
        while at >= 0:
            start = first + at
            if self._words[start] in offsets and self._kinds[start + 1] in tops:
                found.append((self.number(start), self._words[start]))
            at = marks.find(1, at + 1)
        return found

    def _stream(self, byte: int, table: bytes, first: int, last: int) -> int:
        """One byte (0 is the lowest) of each word in [first, last), through a translation table, as one number."""
        of_word = self._bytes[4 * first + (byte if _LITTLE else 3 - byte) : 4 * last : 4]
        return int.from_bytes(of_word.translate(table), "little")

    def _glance(self, is_stepped: bytes) -> Optional[bytearray]:
        """By word: kind and kind_flag if a record's info is there, else 0. None if that cannot be told so.

        is_stepped: by kind with kind_flag, 1 for records whose later words are not to be taken for an info.
        """
        words = self._words
        tops = self._bytes[3 if _LITTLE else 0 :: 4]
        kinds = bytearray(tops)
        find, not_zero = tops.translate(is_stepped).find, tops.translate(_NONZERO).find
        per_element, after_info = _PER_ELEMENT, _AFTER_INFO
        at = find(1)
        while at >= 0:
            info = words[at]
            kind = info >> 24
            end = at + 1 + after_info[kind] + per_element[kind] * (info & 0xFFFFFF)
            if end > len(words):
                return None
            if not_zero(1, at + 1, end) >= 0:
                kinds[at + 1 : end] = bytes(end - at - 1)
            at = find(1, end)
        at = kinds.find(BTF_KIND_INT)
        while at >= 0:
            if words[at] != BTF_KIND_INT << 24 or at + 2 >= len(words) or not _is_int(words[at + 1], words[at + 2]):
                return None
            if at + 4 < len(words) and not kinds[at + 4]:  # where the next record has its info
                return None
            kinds[at + 2] = 0
            at = kinds.find(BTF_KIND_INT, at + 1)
        return None if kinds.translate(None, _KNOWN) else kinds

    def _holds(self) -> bool:
        """Whether the records are numbered right: those with a number that another record tells, and all after them."""
        for start in (self._last_function(), self._last_variable()):
            if start is not None:
                return self._kinds[start:] == self._step(start, self.number(start))
        return False

    def _last_function(self) -> Optional[int]:
        """Where the last FUNC starts that refers to the record before it, if that is near the end."""
        at = len(self._kinds)
        while True:
            at = self._kinds.rfind(BTF_KIND_FUNC, max(0, len(self._kinds) - _TAIL_MAX), at)
            if at < 1 or at + 1 >= len(self._words):
                return None
            # No function refers to one that comes later, so a number that is too high cannot match.
            if self._words[at + 1] == self._first_id + self.number(at - 1) - 1:
                return at - 1

    def _last_variable(self) -> Optional[int]:
        """Where the last VAR starts, if its number is the highest that the sections of variables have."""
        highest = 0
        at = self._kinds.find(BTF_KIND_DATASEC)
        while at >= 1:
            highest = max(highest, *self.record(self.number(at - 1))[3::3], 0)
            at = self._kinds.find(BTF_KIND_DATASEC, at + 1)
        start = self._kinds.rfind(BTF_KIND_VAR) - 1
        return start if start >= 0 and highest == self._first_id + self.number(start) else None

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
        kind = kind_of(info)
        tail = TAIL_WORDS.get(kind) or self._new_kinds.get(kind)
        if tail is None:
            raise BtfError(f"BTF type {self._first_id + number} is of unknown kind {kind}")
        return 3 + tail[0] + tail[1] * vlen_of(info)

    def _past_the_end(self, number: int) -> BtfError:
        return BtfError(f"BTF type {self._first_id + number} runs past the end of the type section")

    def _count(self, kinds: bytearray) -> None:
        """Counts the records before each block."""
        self._kinds = kinds
        self._marks = bytes(kinds.translate(_NONZERO))
        counts = (self._marks.count(1, here, here + _BLOCK) for here in range(0, len(self._marks), _BLOCK))
        self._before: List[int] = [0, *accumulate(counts)]


def _is_int(size: int, detail: int) -> bool:
    """Whether an INT can be of this size and have this word after it."""
    bits = (detail & 0xFF) + (detail >> 16 & 0xFF)
    return size in (1, 2, 4, 8, 16) and 0 < bits <= size * 8 and detail >> 24 in (0, 1, 2, 4)
