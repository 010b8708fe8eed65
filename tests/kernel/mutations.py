"""Offsets with one field moved or resized, and what the loader and the self-check say of each.

No process is started for a mutation: probes with wrong offsets stand side by side, each waiting for its own sockets.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sockpid.errors import SockpidError
from sockpid.host import kernel
from sockpid.image.image import Image
from sockpid.offsets.source import Offsets
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.selfcheck import selfcheck
from sockpid.table.layout import Field, Layout, Struct

SHIFTS = (-64, -32, -16, -8, -3, -1, 1, 3, 8, 16, 32, 64)
SIZES = (8, 16, 32, 64)
AT_ONCE = 8


class Mutation(NamedTuple):
    """type, path: the field. how: "+8" (moved by so many bits) or "16 bits" (of that size instead)."""

    type: str
    path: str
    how: str

    @property
    def field(self) -> str:
        return f"{self.type}.{self.path}"


def all_of(
    image: Image, identity: kernel.Identity, layout: Layout, registers: bool = False
) -> Iterator[tuple[Mutation, Field]]:
    """Every mutation of every field that the kernel has, with the field as it is then. registers: of kprobes, too."""
    for type_name, paths in sorted(image.wanted(identity.arch).items()):
        row = layout.get(type_name)
        if not isinstance(row, Struct) or (type_name == "struct pt_regs" and not registers):
            continue
        for path in sorted(paths):
            field = row.fields.get(path)
            if field is None:
                continue
            for shift in SHIFTS:
                if field.bit_offset + shift >= 0:
                    moved = field._replace(bit_offset=field.bit_offset + shift)
                    yield Mutation(type_name, path, f"{shift:+}"), moved
            for size in SIZES:
                if size != field.bit_size:
                    yield Mutation(type_name, path, f"{size} bits"), field._replace(bit_size=size)


def mutated(layout: Layout, mutation: Mutation, field: Field) -> Layout:
    row = layout[mutation.type]
    assert isinstance(row, Struct)
    return {**layout, mutation.type: row._replace(fields={**row.fields, mutation.path: field})}


def verdict(identity: kernel.Identity, image: Image, found: Offsets) -> str:
    """What refuses these offsets; "" for nothing."""
    try:
        with Tracer.open_with(Options(), identity, image, found) as tracer:
            selfcheck.demand(selfcheck.run(tracer, timeout=6.0), must_pass=True)
    except SockpidError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def verdicts(identity: kernel.Identity, image: Image, found: Offsets) -> dict[Mutation, str]:
    """Of every mutation."""

    def of(each: tuple[Mutation, Field]) -> tuple[Mutation, str]:
        changed = found._replace(layout=mutated(found.layout, *each))
        return each[0], verdict(identity, image, changed)

    with pool() as threads:
        return dict(threads.map(of, all_of(image, identity, found.layout)))


def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE)
