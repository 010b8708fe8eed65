"""One kernel's offsets, read from everything that describes it, and held against each other before they are believed.

BTF is read twice, by sockpid.btf and by drgn; DWARF by drgn. Whatever a source has is read, and all must agree in every
wanted field.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional, Tuple

import sockpid
from sockpid import hooks
from sockpid.btf import Btf
from sockpid.errors import BtfError, SourceError
from sockpid.layout import Layout, Wanted

from . import dwarf
from .difference import compare, words
from .source import KernelSource

if TYPE_CHECKING:
    import drgn


class Extraction(NamedTuple):
    """What a kernel's description says. layout: of exactly the wanted fields; the rest as in a table's kernel entry."""

    layout: Layout
    btf_ids: Optional[Dict[str, int]]
    kind: str
    tools: Dict[str, str]


class Answer(NamedTuple):
    """What one reader says of one description of a kernel; reader: "BTF read by drgn"."""

    reader: str
    layout: Layout


def answers(kernel: KernelSource, wanted: Wanted) -> List[Answer]:
    """The wanted fields, as each reader of each description of the kernel has them; BTF before DWARF.

    Raises SourceError if the DWARF cannot be read, BtfError if the BTF is damaged or ambiguous.
    """
    return _read(kernel, wanted)[0]


def extract(kernel: KernelSource, wanted: Wanted, functions: Iterable[str] = hooks.functions()) -> Extraction:
    """Reads the wanted fields, and the BTF ids of `functions`.

    Raises SourceError if two descriptions of the kernel differ in a field, naming it and both values; BtfError if
    its BTF is damaged or ambiguous.
    """
    import drgn

    (first, *others), btf = _read(kernel, wanted)
    for other in others:
        differences = compare(first.layout, other.layout)
        if differences:
            name, value, other_value = differences[0]
            raise SourceError(
                f"{kernel.file}: descriptions of {kernel.release} differ in {len(differences)} fields, first in "
                f"{name}: {first.reader}: {words(value)}; {other.reader}: {words(other_value)}"
            )
    tools = {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__)}
    if btf is None:
        return Extraction(first.layout, None, "dwarf", tools)
    return Extraction(first.layout, btf.func_ids(functions), "btf", tools)


def _read(kernel: KernelSource, wanted: Wanted) -> Tuple[List[Answer], Optional[Btf]]:
    """The answers, and the BTF. DWARF is read before it, and gone then: together they would need more memory."""
    from . import btf_finder, drgn_layout

    found: List[Answer] = []
    if kernel.dwarf is not None:
        layout = drgn_layout.extract(dwarf_program(kernel), wanted)
        missing = [name for name, row in layout.items() if row is None]
        if missing and dwarf.is_split(kernel.dwarf):
            raise SourceError(
                f"{kernel.file}: its DWARF is split, and {missing[0]} was not found: are all its .dwo files there, or "
                "the .dwp beside it? (They are not found for a vmlinux in a package.)"
            )
        found.append(Answer("DWARF read by drgn", layout))
    if kernel.btf is None:
        return found, None
    try:
        btf = Btf(bytes(kernel.btf))
        ours = btf.extract(wanted, kernel.arch.pointer_size)
        theirs = drgn_layout.extract(btf_finder.program(btf, kernel.arch), wanted)
    except BtfError as error:
        raise BtfError(f"{kernel.file}: {error}") from None
    return [Answer("BTF read by sockpid", ours), Answer("BTF read by drgn", theirs), *found], btf


def dwarf_program(kernel: KernelSource) -> drgn.Program:
    """A drgn program with the types of a kernel's DWARF. Raises SourceError if it cannot be read."""
    import drgn

    from . import btf_finder

    assert kernel.dwarf is not None
    prog = drgn.Program(btf_finder.platform(kernel.arch))
    module = prog.extra_module("vmlinux", create=True)
    try:
        # Not load_debug_info(): in a program without modules it ignores a vmlinux without a word.
        module.try_file(kernel.file, fd=os.dup(kernel.dwarf.fileno()), force=True)
    except (ValueError, OSError, drgn.MissingDebugInfoError) as error:
        raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
    if module.debug_file_status != drgn.ModuleFileStatus.HAVE:
        raise SourceError(f"{kernel.file}: drgn found no DWARF in it")
    return prog
