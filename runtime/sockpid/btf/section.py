"""Which words of a BTF type section are the infos of its records, found without stepping over each of them.

A record's length depends on its kind and element count, so the plain way is a loop over all of them: most of the time
that reading a kernel's BTF takes in Python. Instead the top bytes of all words are looked at as one string. The top
byte of an info word (kind and kind_flag) is never zero. Name offsets and type ids stay below 2^24 in any kernel, so
theirs always is; the only others that are not belong to few records: bit-field widths, enumerators, integer encodings.
Those are stepped over.

What that leaves open is a struct so large that the bit offset of a member needs more than 24 bits. So there is a second
way, which steps over structs and arrays as well, and a third, which steps over all records. index.py finds out
which of them is right.
"""

from __future__ import annotations

import sys

from sockpid.errors import BtfError

from .record import (
    BTF_KIND_ARRAY,
    BTF_KIND_DATASEC,
    BTF_KIND_DECL_TAG,
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_FLOAT,
    BTF_KIND_INT,
    BTF_KIND_STRUCT,
    BTF_KIND_UNION,
    BTF_KIND_VAR,
    KIND_FLAG,
    TAIL_WORDS,
    kind_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Container, Dict, Iterator, Mapping, Optional, Tuple

_LITTLE = sys.byteorder == "little"
_WORDS_MAX = 3 << 24
"""Sections with more words could have type ids of more than 24 bits."""

_CHUNK = 1 << 16
"""Words whose bytes are looked at together: so many that the processor's cache holds what is made of them."""

_PLAIN, _STEPPED, _UNKNOWN = 1, 2, 3
"""What the top byte of a word says if the word is an info: to be counted, to be stepped over, or no known kind."""

_FLAGGED = frozenset(
    kind | KIND_FLAG for kind in (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DECL_TAG)
)
_MIXED = _FLAGGED.union((BTF_KIND_INT, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_DATASEC, BTF_KIND_DECL_TAG))
"""Kinds, with kind_flag, of records whose later words have top bytes that are not zero."""

_LARGE = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ARRAY, BTF_KIND_VAR, BTF_KIND_FLOAT))
"""Kinds of records where they are not zero only if the type has 2 MiB, or 2^24 elements, or makes no sense."""

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


class Section:
    """The type section data[start:end], in host byte order, whole words.

    first_id: the type id of its first record. new_kinds: lengths of kinds that only the blob explains, as TAIL_WORDS.
    """

    def __init__(
        self, data: bytes, start: int, end: int, first_id: int, new_kinds: Mapping[int, Tuple[int, int]]
    ) -> None:
        self._data, self._start, self._end = data, start, end
        self.words = memoryview(data)[start:end].cast("I")
        self.first_id = first_id
        self._new_kinds = new_kinds

    def chunks(self) -> Iterator[Tuple[int, int]]:
        """The words in pieces that are looked at together: [first, last)."""
        for first in range(0, len(self.words), _CHUNK):
            yield first, min(first + _CHUNK, len(self.words))

    def bytes_of(self, byte: int, first: int, last: int) -> bytes:
        """One byte (0 is the lowest) of each word in [first, last)."""
        start = self._start + (byte if _LITTLE else 3 - byte)
        return self._data[start + 4 * first : min(self._end, start + 4 * last) : 4]

    def length(self, info: int, number: int) -> int:
        """Words of record `number`, whose info this is. Raises BtfError if its kind is unknown."""
        tail = TAIL_WORDS.get(info >> 24 & ~KIND_FLAG) or self._new_kinds.get(kind_of(info))
        if tail is None:
            raise BtfError(f"BTF type {self.first_id + number} is of unknown kind {kind_of(info)}")
        return 3 + tail[0] + tail[1] * (info & 0xFFFFFF)

    def past_the_end(self, number: int) -> BtfError:
        """The error of a record that reaches past the end."""
        return BtfError(f"BTF type {self.first_id + number} runs past the end of the type section")

    def glances(self) -> Iterator[bytearray]:
        """By word: kind and kind_flag if a record's info is there, else 0. What is likely first, each to be checked."""
        for classes in () if self._new_kinds or len(self.words) > _WORDS_MAX else _CLASSES:
            kinds = self._glance(classes)
            if kinds is not None:
                yield kinds

    def step(self, position: int, number: int) -> bytearray:
        """As glances(), for the words from `position` on, where record `number` starts; looking at each record.

        Raises BtfError if one reaches past the end or is of an unknown kind.
        """
        words, end = self.words, len(self.words)
        kinds = bytearray(end - position)
        first = position
        lengths: Dict[int, int] = {}
        while position < end:
            info = words[position + 1] if position + 1 < end else 0
            length = lengths.get(info)
            if length is None:
                length = lengths[info] = self.length(info, number) if position + 1 < end else 3
            if position + length > end:
                raise self.past_the_end(number)
            kinds[position + 1 - first] = info >> 24
            position += length
            number += 1
        return kinds

    def _glance(self, classes: bytes) -> Optional[bytearray]:
        """None if it cannot be told so."""
        words, size, tails = self.words, len(self.words), _TAILS
        kinds = bytearray(size)
        end = 0
        for base, last in self.chunks():
            tops = self.bytes_of(3, base, last)
            kinds[base:last] = tops
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
        return None if kinds[:1].strip(b"\0") else kinds  # the first word is a name offset

    def _is_int(self, at: int) -> bool:
        """Whether word `at` can be the info of an INT."""
        info, size, detail, *after = self.words[at : at + 5].tolist()
        bits = (detail & 0xFF) + (detail >> 16 & 0xFF)
        return (
            info == BTF_KIND_INT << 24
            and size in (1, 2, 4, 8, 16)
            and 0 < bits <= size * 8
            and detail >> 24 in (0, 1, 2, 4)
            and (len(after) < 2 or after[1] >> 24 != 0)  # where the next record has its info
        )
