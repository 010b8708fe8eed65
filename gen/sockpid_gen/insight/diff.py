"""Two kernels beside each other: fields that moved, the relocations these touch, the instructions that come of them."""

from __future__ import annotations

from typing import Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from sockpid.arch import ARCHES
from sockpid.errors import RelocationError, UsageError
from sockpid.image.image import Image, Program, context_layout
from sockpid.image.relocate import relocate
from sockpid_gen.extraction.difference import Difference, compare, facts
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.extraction.wanted import image_for

from . import disasm
from .uses import Use, field_of, uses


class Move(NamedTuple):
    """A difference, and the relocations that depend on it; none: no program reads it (a struct's size, mostly)."""

    difference: Difference
    uses: Tuple[Use, ...]


class Diff(NamedTuple):
    """Two kernels compared. only_one, only_other: fields that one of the two entries does not speak of."""

    one: KernelEntry
    other: KernelEntry
    same: int
    moves: Tuple[Move, ...]
    only_one: Tuple[str, ...]
    only_other: Tuple[str, ...]

    @property
    def programs(self) -> Dict[str, int]:
        """How many instructions of each program differ in value."""
        touched: Dict[str, FrozenSet[int]] = {}
        for move in self.moves:
            for use in move.uses:
                touched[use.program] = touched.get(use.program, frozenset()) | {use.insn}
        return {name: len(insns) for name, insns in sorted(touched.items())}


class Patched(NamedTuple):
    """One instruction that comes out differently. fields: what it depends on; one, other: as text."""

    program: str
    insn: int
    one: str
    other: str
    fields: Tuple[str, ...]


def diff(one: KernelEntry, other: KernelEntry) -> Diff:
    """What differs between two kernels of the table, or of anywhere."""
    image, arch = image_for(ARCHES[one.arch]), ARCHES[one.arch]
    by_field = uses(image, arch)
    differences = compare(one.layout, other.layout)
    moves = tuple(Move(found, tuple(_touched(by_field, found.field))) for found in differences)
    ours, theirs = facts(one.layout), facts(other.layout)
    same = len(ours & theirs) - sum(not found.field.startswith("sizeof(") for found in differences)
    return Diff(one, other, same, moves, tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours)))


def instructions(one: KernelEntry, other: KernelEntry) -> List[Patched]:
    """Every instruction that is patched differently for the two kernels, as kprobes have it where they can.

    Raises UsageError if the two have different byte orders: then they run different images.
    """
    if ARCHES[one.arch].byte_order != ARCHES[other.arch].byte_order:
        raise UsageError(f"{one.arch} and {other.arch} have different byte orders: no two instructions are comparable")
    image = image_for(ARCHES[one.arch])
    found: List[Patched] = []
    for name, program in sorted(image.programs.items()):
        patched = [_patched(image, program, kernel) for kernel in (one, other)]
        slots = {r.insn for r in program.relocations}
        for insn in sorted(slots):
            texts = [p if isinstance(p, str) else disasm.text(p, insn, image.byte_order) for p in patched]
            if texts[0] != texts[1]:
                arch = ARCHES[one.arch]
                fields = dict.fromkeys(field_of(r, arch) for r in program.relocations if r.insn == insn)
                found.append(Patched(name, insn, texts[0], texts[1], tuple(fields)))
    return found


def _patched(image: Image, program: Program, kernel: KernelEntry) -> bytes | str:
    """The instructions of a program for a kernel, or why there are none. Settings, the loader's matter, are all 0."""
    refusal: Optional[str] = None
    for kind in ("kprobe", "args"):
        try:
            context = context_layout(ARCHES[kernel.arch], kernel.layout, kind)
            settings = dict.fromkeys(image.settings(), 0)
            return relocate(program, image.byte_order, kernel.layout, context, settings).insns
        except RelocationError as error:
            refusal = refusal or f"refused: {error}"
    return refusal or "refused"


def _touched(by_field: Dict[str, List[Use]], field: str) -> List[Use]:
    """The relocations that a difference touches; all below a type that only one side has."""
    exact = by_field.get(field, [])
    return exact or [use for name, found in by_field.items() if name.startswith(f"{field}.") for use in found]
