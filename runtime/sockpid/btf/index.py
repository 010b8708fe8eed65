"""The records of a BTF type section by number and by name.

A record does not say its number: all before it have to be counted, on the string of kinds that section.py makes.
That string is held against numbers that the section tells: functions refer to their prototypes, and sections list their
variables. Where there is nothing to hold it against, all records are stepped over.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from zlib import adler32

from .record import BTF_KIND_DATASEC, BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO, BTF_KIND_VAR, KIND_FLAG
from .section import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

_BLOCK = 1 << 10
"""Words that are searched at once for the n-th record; a chunk of the section has a whole number of them."""

_TAIL_MAX = 4096
"""How many words, from the end of the section backwards, are searched for a record with a known number."""

_NONZERO = b"\0" + b"\1" * 255


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
        self._section = Section(data, start, end, first_id, new_kinds)
        self._words = self._section.words
        for kinds in self._section.glances():
            self._count(kinds)
            if self._holds():
                return
        self._count(self._section.step(0, 0))

    def __len__(self) -> int:
        return self._before[-1]

    def record(self, number: int) -> memoryview:
        """The words of record `number`. Raises IndexError if there is none, BtfError if it reaches past the end."""
        start = self._place(number)
        end = start + self._section.length(self._words[start + 1], number)
        if end > len(self._words):
            raise self._section.past_the_end(number)
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
        for first, end in self._section.chunks():
            # Where the low byte is that of an offset, and the next word is an info of these kinds.
            chunk = self._kinds[first + 1 : end + 1]
            last = max(map(chunk.rfind, tops), default=-1) + 1
            low = self._section.bytes_of(0, first, first + last)
            both = _number(low, is_low) & _number(chunk[:last], is_top)
            find = both.to_bytes(last, "little").find
            at = find(1)
            while at >= 0:
                offset = words[first + at]
                if offset in offsets:
                    found.append((self.number(first + at), offset))
                at = find(1, at + 1)
        return found

    def _holds(self) -> bool:
        """Whether the records are numbered right: those with a number that another record tells, and all after them."""
        for start in (self._last_function(), self._last_variable()):
            if start is not None:
                return self._kinds[start:] == self._section.step(start, self.number(start))
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
                return at - 1 if self._words[at + 1] == self._section.first_id + number - 1 else None

    def _last_variable(self) -> Optional[int]:
        """Where the last VAR starts, if its number is the highest that the sections of variables have."""
        highest = 0
        for start in self._starts(BTF_KIND_DATASEC):
            highest = max(highest, *self.record(self.number(start))[3::3], 0)
        start = next(self._starts(BTF_KIND_VAR), -1)
        return start if start >= 0 and highest == self._section.first_id + self.number(start) else None

    def _starts(self, kind: int) -> Iterator[int]:
        """Where records of this kind start, the last first. (Not those with kind_flag.)"""
        at = self._kinds.rfind(kind)
        while at >= 1:
            yield at - 1
            at = self._kinds.rfind(kind, 0, at)

    def _count(self, kinds: bytearray) -> None:
        """Counts the records before each block."""
        self._kinds = kinds
        counts: List[int] = [0]
        for first, end in self._section.chunks():
            marks = memoryview(kinds[first:end].translate(_NONZERO))
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
