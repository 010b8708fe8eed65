"""One kernel's offsets, read from everything that describes it, and held against each other before they are believed.

BTF is read twice, by sockpid.btf and by drgn; DWARF by drgn. Whatever a source has is read, and all must agree in every
wanted field.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

import sockpid
from sockpid import hooks
from sockpid.btf import Btf
from sockpid.errors import BtfError, SourceError
from sockpid.layout import Layout, Struct, Wanted

from .source import KernelSource


class Extraction(NamedTuple):
    """What a kernel's description says. layout: of exactly the wanted fields; the rest as in a table's kernel entry."""

    layout: Layout
    btf_ids: Optional[Dict[str, int]]
    kind: str
    tools: Dict[str, str]


def extract(kernel: KernelSource, wanted: Wanted, functions: Iterable[str] = hooks.functions()) -> Extraction:
    """Reads the wanted fields, and the BTF ids of `functions`.

    Raises SourceError if two descriptions of the kernel differ in a field, naming it and both values; BtfError if
    its BTF is damaged or ambiguous.
    """
    import drgn

    from . import btf_finder, drgn_layout

    answers: List[Tuple[str, Layout]] = []
    btf_ids = None
    if kernel.btf is not None:
        try:
            btf = Btf(kernel.btf)
            answers.append(("BTF read by sockpid", btf.extract(wanted, kernel.arch.pointer_size)))
            answers.append(("BTF read by drgn", drgn_layout.extract(btf_finder.program(btf, kernel.arch), wanted)))
            btf_ids = btf.func_ids(functions)
        except BtfError as error:
            raise BtfError(f"{kernel.file}: {error}") from None
    if kernel.dwarf is not None:
        prog = drgn.Program(btf_finder.platform(kernel.arch))
        module = prog.extra_module("vmlinux", create=True)
        try:
            # Not load_debug_info(): in a program without modules it ignores a vmlinux without a word.
            module.try_file(kernel.file, fd=os.dup(kernel.dwarf.fileno()), force=True)
            answers.append(("DWARF read by drgn", drgn_layout.extract(prog, wanted)))
        except (ValueError, OSError, drgn.MissingDebugInfoError) as error:
            raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
        if module.debug_file_status != drgn.ModuleFileStatus.HAVE:
            raise SourceError(f"{kernel.file}: drgn found no DWARF in it")
    source, layout = answers[0]
    for other_source, other in answers[1:]:
        differences = compare(layout, other)
        if differences:
            name, value, other_value = differences[0]
            raise SourceError(
                f"{kernel.file}: descriptions of {kernel.release} differ in {len(differences)} fields, first in "
                f"{name}: {source}: {value}; {other_source}: {other_value}"
            )
    tools = {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__)}
    return Extraction(layout, btf_ids, "dwarf" if kernel.btf is None else "btf", tools)


def compare(one: Layout, other: Layout) -> List[Tuple[str, Any, Any]]:
    """Every difference between two layouts, among what both speak of: (field, value in `one`, value in `other`)."""
    differences: List[Tuple[str, Any, Any]] = []
    for name in sorted(one.keys() & other.keys()):
        mine, theirs = one[name], other[name]
        if mine is None or theirs is None or type(mine) is not type(theirs):
            if mine != theirs:
                differences.append((name, mine, theirs))
            continue
        if mine.size != theirs.size:
            differences.append((f"sizeof({name})", mine.size, theirs.size))
        left: Dict[str, Any] = dict(mine.fields if isinstance(mine, Struct) else mine.values)
        right: Dict[str, Any] = dict(theirs.fields if isinstance(theirs, Struct) else theirs.values)
        differences.extend(
            (f"{name}.{path}", left[path], right[path])
            for path in sorted(left.keys() & right.keys())
            if left[path] != right[path]
        )
    return differences
