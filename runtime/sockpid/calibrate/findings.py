"""What a calibration has found so far, and how it reads the memory it was given."""

from __future__ import annotations

from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from sockpid.arch import Arch
from sockpid.offsets.calibration import VARIETY, Found, Sample, pt_regs, search, search_bits
from sockpid.table.layout import Field, Layout, Struct, Type

COMMON = "struct sock.__sk_common."


class Findings:
    """Fields by full name ("struct sock.sk_protocol"), and why others were not found."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.order = arch.byte_order
        self.found: Dict[str, Field] = {}
        self.problems: Dict[str, str] = {}
        self.absent: Set[str] = set()
        """Fields that this kernel cannot have."""

    def note(self, field: str, found: Found) -> Optional[Field]:
        if found.field is None:
            self.problems[field] = found.problem
        else:
            self.found[field] = found.field
            self.problems.pop(field, None)
        return found.field

    def search(
        self, samples: Sequence[Sample], field: str, size: int, within: range, align: int = 0, taken: bool = False
    ) -> Optional[Field]:
        """Looks for a field of `size` bytes. taken: not where a field that was found before lies."""
        others = list(self.found.values()) if taken else []
        return self.note(field, search(samples, field, size, self.order, align, within, others))

    def search_bits(
        self, samples: Sequence[Sample], field: str, width: int, within: range, variety: int = VARIETY
    ) -> Optional[Field]:
        return self.note(field, search_bits(samples, field, width, self.order, within, variety))

    def refuse(self, fields: Sequence[str], problem: str) -> None:
        self.problems.update(dict.fromkeys(fields, problem))

    def number(self, memory: bytes) -> int:
        return int.from_bytes(memory, self.order)  # type: ignore[arg-type]

    def value(self, memory: bytes, field: Field) -> int:
        return self.number(memory[field.offset : field.offset + field.size])

    def pointer_field(self, offset: int) -> Field:
        return Field(offset * 8, self.arch.pointer_size * 8)

    def words(self, memory: bytes, within: range) -> Iterator[Tuple[int, int]]:
        """(offset, value) of every word of a pointer's size."""
        size = self.arch.pointer_size
        for offset in range(within.start, min(within.stop, len(memory)) - size + 1, size):
            yield offset, self.number(memory[offset : offset + size])

    def pointers(self, memory: bytes, within: range) -> List[Tuple[int, int]]:
        """Of these, what may be an address. No machine has the kernel in its first pages."""
        return [(offset, value) for offset, value in self.words(memory, within) if value >> 16 and not value & 3]

    def layout(self) -> Layout:
        """What was found, as rows of a table."""
        found: Dict[str, Optional[Field]] = {**self.found, **dict.fromkeys(self.absent)}
        if "struct task_struct.start_boottime" in found:  # before Linux 5.5 its name was another: see kernel.h
            found["struct task_struct.real_start_time"] = None
        common = [f.bit_offset + f.bit_size for name, f in self.found.items() if name.startswith(COMMON)]
        if common:
            found["struct request_sock.__req_common"] = Field(0, max(common))
        return layout_of(found, self.arch)


def layout_of(found: Mapping[str, Optional[Field]], arch: Arch) -> Layout:
    """Rows for fields by their full name ("struct sock.sk_protocol"); None: known to be absent.

    The size of a row is the end of its last field: how large a struct is cannot be seen from outside.
    """
    rows: Dict[str, Dict[str, Optional[Field]]] = {}
    for name, field in found.items():
        struct_name, _, path = name.partition(".")
        rows.setdefault(struct_name, {})[path] = field
    layout: Dict[str, Optional[Type]] = {"struct pt_regs": pt_regs(arch)}
    for name, fields in rows.items():
        ends = [-(-(f.bit_offset + f.bit_size) // 8) for f in fields.values() if f is not None]
        layout[name] = Struct(name, max(ends, default=0), fields)
    return layout
