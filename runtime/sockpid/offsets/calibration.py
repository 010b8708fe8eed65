"""Where must a field lie, if these are the bytes and those the values? The search behind `sockpid calibrate`.

A sample is a piece of kernel memory and what is known of the object in it. A field lies where every sample has a value
that it may have. One place must be left, and the values must have differed: all else is an answer in words.
"""

from __future__ import annotations

from typing import Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence

from sockpid.arch import Arch, register
from sockpid.errors import CalibrationError
from sockpid.image.image import Image
from sockpid.table.layout import Field, Layout, Struct, Type

from . import agreement

Known = Collection[int]
"""The values that a field may have: one, a range, or several. Anything with `in`."""

VARIETY = 2
"""Different values, none of them 0, that the samples must at least have: memory that cannot be read is 0, too."""

ULP = ("struct inet_connection_sock.icsk_ulp_ops", "struct tcp_ulp_ops.name")
"""The upper layer protocol's name. It decides about an owner where there is MPTCP; there it can be found."""
BESIDE = (*agreement.OF_MPTCP, *agreement.EVERYWHERE)
"""Fields that calibration does not look for. Without them two sockets of one name on two devices are told apart by
inode alone, an MPTCP socket that its process closed is not found from its subflows, and what kernel TLS with a network
card's help, or a sockmap, does in a process's name is not told from what the process does itself."""

IPV6 = ("struct sock.__sk_common.skc_v6_daddr", "struct sock.__sk_common.skc_v6_rcv_saddr")

_PT_REGS: Mapping[str, int] = {"x86_64": 168, "aarch64": 320, "riscv64": 288, "ppc64le": 384, "s390x": 200, "arm": 72}
"""Bytes of struct pt_regs, which need not be searched: see arch.register()."""


class Sample(NamedTuple):
    """Bytes of an object, and by field what its value may be. A field that is not a key says nothing here."""

    memory: bytes
    known: Mapping[str, Known]


class Found(NamedTuple):
    """What a search came to: the place in bits, or why there is none."""

    field: Optional[Field]
    problem: str = ""


def places(samples: Sequence[Sample], field: str, size: int, byte_order: str, align: int, within: range) -> List[int]:
    """Every multiple of `align` in `within`, in bytes, at which all samples that speak of `field` have an acceptable
    value."""
    mine = [sample for sample in samples if field in sample.known]
    end = min([within.stop, *(len(sample.memory) for sample in mine)])
    offsets = list(range(-(-within.start // align) * align, end - size + 1, align))
    for memory, known in mine:
        values = known[field]
        offsets = [o for o in offsets if int.from_bytes(memory[o : o + size], byte_order) in values]  # type: ignore[arg-type]
    return offsets if mine else []


def search(
    samples: Sequence[Sample],
    field: str,
    size: int,
    byte_order: str,
    align: int = 0,
    within: range = range(1 << 20),
    taken: Collection[Field] = (),
) -> Found:
    """The one place of a field of `size` bytes. align: 0 for natural alignment. taken: fields that lie elsewhere."""
    found = [
        Field(o * 8, size * 8)
        for o in places(samples, field, size, byte_order, align or size, within)
        if not any(o * 8 < other.bit_offset + other.bit_size and other.bit_offset < (o + size) * 8 for other in taken)
    ]
    return _one(samples, field, found)


def search_bits(
    samples: Sequence[Sample],
    field: str,
    width: int,
    byte_order: str,
    within: range = range(1 << 20),
    variety: int = VARIETY,
) -> Found:
    """The one place of a bit field that lies within a byte. variety: 1 for a single bit, which is 0 or not."""
    mine = [sample for sample in samples if field in sample.known]
    end = min([within.stop, *(len(sample.memory) for sample in mine)])
    found = [
        Field(byte * 8 + bit, width, True)
        for byte in range(within.start, end)
        for bit in range(9 - width)
        if all(bits(s.memory, byte * 8 + bit, width, byte_order) in s.known[field] for s in mine)
    ]
    return _one(samples, field, found, variety)


def bits(memory: bytes, bit_offset: int, width: int, byte_order: str) -> int:
    """The value of a bit field within one byte; bits count as in layout.Field."""
    byte, bit = divmod(bit_offset, 8)
    shift = bit if byte_order == "little" else 8 - bit - width
    return memory[byte] >> shift & ((1 << width) - 1)


def _one(samples: Sequence[Sample], field: str, found: List[Field], variety: int = VARIETY) -> Found:
    mine = [sample.known[field] for sample in samples if field in sample.known]
    different: List[Known] = []
    for values in mine:
        if 0 not in values and values not in different:
            different.append(values)
    if len(different) < variety:
        return Found(None, f"not observed: {len(mine)} samples with {len(different)} different values")
    if not found:
        return Found(None, f"found nowhere that fits all {len(mine)} samples")
    if len(found) > 1:
        where = ", ".join(str(f.bit_offset // 8) for f in found[:8])
        return Found(None, f"{len(found)} places fit all {len(mine)} samples: {where}")
    return Found(found[0])


def pt_regs(arch: Arch) -> Struct:
    """struct pt_regs as far as arguments of functions are in it."""
    fields = {name: Field(register(arch, n) * 8, arch.pointer_size * 8) for n, name in enumerate(arch.args)}
    return Struct("struct pt_regs", _PT_REGS[arch.name], fields)


def complete(layout: Layout, unused: Collection[str]) -> Layout:
    """The layout with what it lacks of `unused` marked as absent, so that the image does without."""
    filled: Dict[str, Optional[Type]] = dict(layout)
    for name in unused:
        struct_name, _, path = name.partition(".")
        row = filled.get(struct_name)
        fields = dict(row.fields) if isinstance(row, Struct) else {}
        fields.setdefault(path, None)
        filled[struct_name] = Struct(struct_name, row.size if row is not None else 0, fields)
    return filled


def demand(image: Image, arch: Arch, layout: Layout, problems: Mapping[str, str]) -> None:
    """Raises CalibrationError, naming every field that the image reads and `layout` does not have, and why."""
    lines = [f"{name}: {problems.get(name, 'no way to find it is known')}" for name in _missing(image, arch, layout)]
    if lines:
        raise CalibrationError(
            "these fields were not found, so no offsets are written:\n  " + "\n  ".join(lines), lines
        )


def _missing(image: Image, arch: Arch, layout: Layout) -> List[str]:
    """Like Image.missing(), but a struct that is not there is named field by field."""
    names: List[str] = []
    wanted = image.wanted(arch)
    for name in image.missing(arch, layout):
        names += sorted(f"{name}.{path}" for path in wanted[name]) if name in wanted else [name]
    return names
