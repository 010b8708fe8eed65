"""QR codes (ISO/IEC 18004) of a text, for a terminal: alphanumeric mode, error correction level L, versions 1 to 40.

The alphanumeric mode takes 5.5 bits for a character, and every scanner gives back what was put in; bytes would be taken
for text in some encoding. Level L suits a screen: nothing on it is torn or dirty.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from sockpid.errors import UsageError

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
QUIET = 4
"""Light modules around a code, without which it is not found."""

# Of level L, by version from 1 on: check bytes of each block, and blocks (table 9 of the standard).
_CHECK = (
    7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28,
    28, 28, 30, 30, 26, 28, *[30] * 14,
)  # fmt: skip
_BLOCKS = (
    1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8,
    8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25,
)  # fmt: skip
_LEVEL_L = 1
_MASKS: Tuple[Callable[[int, int], int], ...] = (
    lambda x, y: (x + y) % 2,
    lambda x, y: y % 2,
    lambda x, y: x % 3,
    lambda x, y: (x + y) % 3,
    lambda x, y: (x // 3 + y // 2) % 2,
    lambda x, y: x * y % 2 + x * y % 3,
    lambda x, y: (x * y % 2 + x * y % 3) % 2,
    lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
)  # fmt: skip
Modules = Dict[Tuple[int, int], int]
"""Column and row of a module; 1 is dark."""


def size(version: int) -> int:
    """Modules of a side, without the quiet zone."""
    return 17 + 4 * version


def capacity(version: int) -> int:
    """How many characters a code of a version holds."""
    bits = 8 * _data_bytes(version) - 4 - _count_bits(version)
    return bits // 11 * 2 + (bits % 11 >= 6)


def encode(text: str, least: int = 1) -> List[str]:
    """The smallest code that holds the text, of version `least` or more: rows of "0" (light) and "1" (dark).

    Raises UsageError for a text that is too long; its characters are those of ALPHABET.
    """
    version = next((v for v in range(least, 41) if capacity(v) >= len(text)), None)
    if version is None:
        raise UsageError(f"{len(text)} characters do not fit into a QR code, which holds {capacity(40)}")
    side = range(size(version))
    fixed = _patterns(version)
    free = [place for place in _path(size(version)) if place not in fixed]
    bits = "".join(f"{byte:08b}" for byte in _interleaved(_bytes(text, version), version)).ljust(len(free), "0")
    best: Tuple[int, List[str]] = (1 << 30, [])
    for number, mask in enumerate(_MASKS):
        modules = {**fixed, **_format(version, number)}
        modules.update((place, int(bit) ^ (mask(*place) == 0)) for place, bit in zip(free, bits))
        rows = ["".join(str(modules[x, y]) for x in side) for y in side]
        best = min(best, (_penalty(rows), rows))
    return best[1]


def lines(rows: Sequence[str]) -> List[str]:
    """A code with its quiet zone as lines of half blocks, light on dark."""
    blank = "0" * (len(rows) + 2 * QUIET)
    padded = [blank] * QUIET + ["0" * QUIET + row + "0" * QUIET for row in rows] + [blank] * (QUIET + 1)
    glyphs = {("0", "0"): "█", ("0", "1"): "▀", ("1", "0"): "▄", ("1", "1"): " "}
    return ["".join(glyphs[pair] for pair in zip(*padded[y : y + 2])) for y in range(0, len(padded) - 1, 2)]


def _count_bits(version: int) -> int:
    return 9 if version < 10 else 11 if version < 27 else 13


def _all_bytes(version: int) -> int:
    """Data and check bytes: what is left of the square by everything that is fixed."""
    centres = _centres(version)
    fixed = 3 * 64 + 2 * (size(version) - 16) + 31  # finders with their borders, timing, format and the dark module
    if centres:
        # Three corners are taken by finders; what lies on a timing pattern shares five modules with it.
        fixed += 25 * (len(centres) ** 2 - 3) - 10 * (len(centres) - 2)
    if version >= 7:
        fixed += 2 * 18
    return (size(version) ** 2 - fixed) // 8


def _data_bytes(version: int) -> int:
    return _all_bytes(version) - _CHECK[version - 1] * _BLOCKS[version - 1]


def _bytes(text: str, version: int) -> List[int]:
    """The data: mode, length, characters in pairs, end, padding."""
    bits = f"0010{len(text):0{_count_bits(version)}b}"
    for at in range(0, len(text) - 1, 2):
        bits += f"{ALPHABET.index(text[at]) * 45 + ALPHABET.index(text[at + 1]):011b}"
    if len(text) % 2:
        bits += f"{ALPHABET.index(text[-1]):06b}"
    room = _data_bytes(version)
    bits += "0" * min(4, 8 * room - len(bits))
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    return data + [0xEC, 0x11] * ((room - len(data)) // 2) + [0xEC] * ((room - len(data)) % 2)


def _interleaved(data: List[int], version: int) -> Iterator[int]:
    """Data in blocks, each with its check bytes; the first byte of every block, then the second..."""
    blocks, check = _BLOCKS[version - 1], _CHECK[version - 1]
    short = len(data) // blocks
    longer = len(data) % blocks
    parts: List[List[int]] = []
    for number in range(blocks):
        start = number * short + max(0, number - (blocks - longer))
        parts.append(data[start : start + short + (number >= blocks - longer)])
    for at in range(short + 1):
        yield from (part[at] for part in parts if at < len(part))
    checks = [_remainder(part, check) for part in parts]
    for at in range(check):
        yield from (row[at] for row in checks)


def _field() -> Tuple[List[int], List[int]]:
    """Powers of 2 in GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1, and their logarithms."""
    powers, logs, value = [0] * 510, [0] * 256, 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logs[value] = exponent
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return powers, logs


_POWER, _LOG = _field()


def _remainder(data: Sequence[int], count: int) -> List[int]:
    """Check bytes of Reed and Solomon: the remainder by (x - 2^0)(x - 2^1)...(x - 2^(count-1))."""
    divisor = [1]
    for exponent in range(count):
        moved = [0] + [_POWER[_LOG[c] + exponent] if c else 0 for c in divisor]
        divisor = [a ^ b for a, b in zip([*divisor, 0], moved)]
    rest = [*data, *[0] * count]
    for at in range(len(data)):
        factor = rest[at]
        if factor:
            for offset, c in enumerate(divisor):
                rest[at + offset] ^= _POWER[_LOG[c] + _LOG[factor]] if c else 0
    return rest[-count:]


def _centres(version: int) -> List[int]:
    """Coordinates of the alignment patterns' centres (annex E): evenly apart, but for the first two."""
    if version == 1:
        return []
    count, last = version // 7 + 2, size(version) - 7
    step = 26 if version == 32 else -(-(last - 6) // (2 * (count - 1))) * 2
    return [6, *(last - step * back for back in range(count - 2, -1, -1))]


def _patterns(version: int) -> Modules:
    """Everything that depends on the version alone; places of the format are taken, as light."""
    side = size(version)
    found: Modules = {(x, y): 0 for x in range(9) for y in range(9)}
    found.update({(side - 1 - x, y): 0 for x in range(8) for y in range(9)})
    found.update({(x, side - 1 - y): 0 for x in range(9) for y in range(8)})
    for at in range(8, side - 8):
        found[at, 6] = found[6, at] = 1 - at % 2
    corners = [(3, 3), (side - 4, 3), (3, side - 4)]
    for x, y in corners:
        found.update(_rings(x, y, 3, (1, 1, 0, 1)))
    centres = _centres(version)
    for x in centres:
        for y in centres:
            if (x, y) not in {(6, 6), (6, side - 7), (side - 7, 6)}:
                found.update(_rings(x, y, 2, (1, 0, 1)))
    if version >= 7:
        word = _bch(version, 12, 0x1F25)
        for bit in range(18):
            found[side - 11 + bit % 3, bit // 3] = found[bit // 3, side - 11 + bit % 3] = word >> bit & 1
    return found


def _rings(x: int, y: int, reach: int, colours: Sequence[int]) -> Modules:
    around = range(-reach, reach + 1)
    return {(x + dx, y + dy): colours[max(abs(dx), abs(dy))] for dx in around for dy in around}


def _format(version: int, mask: int) -> Modules:
    """Level and mask, twice, and the module that is always dark."""
    side = size(version)
    word = _bch(_LEVEL_L << 3 | mask, 10, 0x537) ^ 0x5412
    one = [(8, y) for y in (0, 1, 2, 3, 4, 5, 7, 8)] + [(x, 8) for x in (7, 5, 4, 3, 2, 1, 0)]
    two = [(side - 1 - x, 8) for x in range(8)] + [(8, side - 7 + y) for y in range(7)]
    found = {place: word >> bit & 1 for places in (one, two) for bit, place in enumerate(places)}
    return {**found, (8, side - 8): 1}


def _bch(value: int, count: int, polynomial: int) -> int:
    """A value followed by `count` check bits."""
    rest = value << count
    while rest >> count:
        rest ^= polynomial << rest.bit_length() - polynomial.bit_length()
    return value << count | rest


def _path(side: int) -> Iterator[Tuple[int, int]]:
    """All modules in the order in which bits are laid: pairs of columns from the right, up and down in turn."""
    up = True
    for right in [*range(side - 1, 6, -2), 5, 3, 1]:  # the timing pattern's column is passed over
        for y in range(side - 1, -1, -1) if up else range(side):
            yield right, y
            yield right - 1, y
        up = not up


def _penalty(rows: List[str]) -> int:
    """How hard a code is to read (7.8.3): long runs, blocks, what looks like a finder, more dark than light."""
    total = 0
    for lines_of in (rows, ["".join(column) for column in zip(*rows)]):
        for line in lines_of:
            total += sum(len(run.group()) - 2 for run in re.finditer("0{5,}|1{5,}", line))
            total += 40 * len(re.findall("(?=10111010000|00001011101)", line))
    numbers = [int(row, 2) for row in rows]
    for one, two in zip(numbers, numbers[1:]):
        differ = one ^ two
        unequal = (one ^ one >> 1) | differ | differ >> 1
        total += 3 * (len(rows) - 1 - bin(unequal & (1 << len(rows) - 1) - 1).count("1"))
    dark = sum(row.count("1") for row in rows)
    return total + 10 * (abs(20 * dark - 10 * len(rows) ** 2) // len(rows) ** 2)
