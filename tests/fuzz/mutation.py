"""Damaged files: what bit rot, broken downloads and attackers make of well-formed ones."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

from hypothesis import strategies as st

Change = Tuple[str, float, int]

_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 1 << 24, 0x7FFFFFFF, 1 << 31, 0xFFFFFFF0, 0xFFFFFFFF]

_CHANGES = st.tuples(
    st.sampled_from(["bit", "byte", "le32", "be32", "le16", "cut", "drop", "double", "zero", "digits"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(_NUMBERS), st.integers(0, (1 << 32) - 1), st.integers(0, 300)),
)


def damaged(seeds: Dict[str, bytes]) -> st.SearchStrategy[bytes]:
    """One of `seeds` with some changes; or none, or bytes without any sense."""
    base = st.sampled_from(sorted(seeds)).map(seeds.__getitem__)
    return st.one_of(st.builds(_changed, base, st.lists(_CHANGES, max_size=8)), st.binary(max_size=200))


def _changed(data: bytes, changes: List[Change]) -> bytes:
    changed = bytearray(data)
    for what, place, number in changes:
        at = int(place * len(changed))
        _APPLY[what](changed, at, number)
    return bytes(changed)


def _replace(width: int, order: Any) -> Callable[[bytearray, int, int], None]:
    def replace(data: bytearray, at: int, number: int) -> None:
        at &= ~(width - 1)
        data[at : at + width] = (number & (1 << 8 * width) - 1).to_bytes(width, order)

    return replace


def _bit(data: bytearray, at: int, number: int) -> None:
    if data:
        data[at] ^= 1 << number % 8


def _cut(data: bytearray, at: int, number: int) -> None:
    del data[at:]


def _drop(data: bytearray, at: int, number: int) -> None:
    del data[at : at + number % 64 + 1]


def _double(data: bytearray, at: int, number: int) -> None:
    data[at:at] = data[at : at + number % 512]


def _zero(data: bytearray, at: int, number: int) -> None:
    size = len(data[at : at + number % 256])
    data[at : at + size] = bytes(size)


def _digits(data: bytearray, at: int, number: int) -> None:
    """Numbers in headers of ar, tar and cpio are text, as those in JSON."""
    text = str(number).encode()
    data[at : at + len(text)] = text


_APPLY: Dict[str, Callable[[bytearray, int, int], None]] = {
    "bit": _bit,
    "byte": _replace(1, "little"),
    "le16": _replace(2, "little"),
    "le32": _replace(4, "little"),
    "be32": _replace(4, "big"),
    "cut": _cut,
    "drop": _drop,
    "double": _double,
    "zero": _zero,
    "digits": _digits,
}
