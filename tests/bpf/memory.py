"""Memory of objects, each in a page of its own: what lies beyond an object is nobody's."""

from __future__ import annotations

from typing import Literal

PAGE_BITS = 16
PAGE = 1 << PAGE_BITS
OBJECTS_64 = 0xFFFF_8880_0000_0000
OBJECTS_32 = 0xC000_0000
STACKS = 0xFFFF_C900_0000_0000
CONTEXTS = 0xFFFF_CA00_0000_0000
PRIVATE = 0xFFFF_CB00_0000_0000
"""Values of maps that no two programs of one CPU can meet in: per-CPU counters."""
SHARED = 0xFFFF_D000_0000_0000
"""And up: values of maps that all programs see."""

Order = Literal["little", "big"]


class Fault(Exception):
    """A program touched what it may not, or what is not there."""


class Memory:
    """Pages by address. A page may be swapped for another: an address that is freed and given out again."""

    def __init__(self, order: Order) -> None:
        self.order: Order = order
        self.pages: dict[int, bytearray] = {}
        self._next: dict[int, int] = {}

    def allocate(self, region: int, size: int) -> int:
        """A new zeroed object; its address."""
        address = self._next.get(region, region) + PAGE
        self._next[region] = address
        self.pages[address >> PAGE_BITS] = bytearray(size)
        return address

    def view(self, address: int, size: int) -> memoryview:
        """Bytes of one object, to read or write. Raises Fault."""
        page = self.pages.get(address >> PAGE_BITS)
        start = address & (PAGE - 1)
        if page is None or start + size > len(page):
            raise Fault(f"{size} bytes at {address:#x}")
        return memoryview(page)[start : start + size]

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.view(address, size))

    def load(self, address: int, size: int) -> int:
        page = self.pages.get(address >> PAGE_BITS)
        start = address & 0xFFFF
        if page is None or start + size > len(page):
            raise Fault(f"load of {size} bytes at {address:#x}")
        return int.from_bytes(page[start : start + size], self.order)

    def store(self, address: int, size: int, value: int) -> None:
        page = self.pages.get(address >> PAGE_BITS)
        start = address & 0xFFFF
        if page is None or start + size > len(page):
            raise Fault(f"store of {size} bytes at {address:#x}")
        page[start : start + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, self.order)
