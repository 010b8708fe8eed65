"""One kernel's offsets, read from everything that describes it, and held against each other before they are believed.

BTF is read twice, by sockpid.btf and by drgn; DWARF by drgn. Whatever a source has is read, and all must agree in every
wanted field.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional, Tuple

import sockpid
from sockpid.arch import Arch
from sockpid.btf.btf import Btf
from sockpid.errors import BtfError, SourceError
from sockpid.image import hooks
from sockpid.table.layout import Layout, Struct, Wanted
from sockpid_gen.dwarf import dwarf
from sockpid_gen.kernel.source import KernelSource

from .difference import compare, words

if TYPE_CHECKING:
    import drgn


ALWAYS = (
    "struct inet_connection_sock",
    "struct inet_sock",
    "struct net",
    "struct pt_regs",
    "struct request_sock",
    "struct sk_buff",
    "struct sock",
    "struct socket",
    "struct socket_alloc",
    "struct task_struct",
    "struct tcp_skb_cb",
    "struct tcp_sock",
)
"""Types that every kernel with TCP has. Where one of them is missing, nothing can be said to be absent."""

_NOT_WANTED = object()


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
    """Reads the wanted fields, and the BTF ids of `functions`, 0 of those that it has not.

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
    return Extraction(first.layout, {**dict.fromkeys(functions, 0), **btf.func_ids(functions)}, "btf", tools)


def _read(kernel: KernelSource, wanted: Wanted) -> Tuple[List[Answer], Optional[Btf]]:
    """The answers, and the BTF. DWARF is read before it, and gone then: together they would need more memory."""
    from sockpid_gen.btf import finder
    from sockpid_gen.dwarf import names

    from . import drgn_layout

    found: List[Answer] = []
    try:
        if kernel.dwarf is not None:
            prog = dwarf_program(kernel)
            # To look at all definitions takes ten times as long as all else. Where there is BTF, it has them all, too.
            every = [names.Definitions(prog, kernel.dwarf)] if kernel.btf is None else []
            layout = drgn_layout.extract(prog, wanted, *every)
            missing = [name for name, row in layout.items() if row is None]
            doubts = dwarf.doubts(kernel.dwarf, missing) if missing else {}
            for name, why in doubts.items():
                raise SourceError(f"{name} was not found in the DWARF, but may be in the kernel: {why}")
            found.append(Answer("DWARF read by drgn", layout))
        if kernel.btf is None:
            return _of_a_kernel(kernel.arch, found), None
        btf = Btf(bytes(kernel.btf))
        types = finder.BtfTypes(btf.data, kernel.arch)
        theirs = drgn_layout.extract(types.prog, wanted, types.namesakes)
        ours = btf.extract(wanted, kernel.arch.pointer_size)
        return _of_a_kernel(
            kernel.arch, [Answer("BTF read by sockpid", ours), Answer("BTF read by drgn", theirs), *found]
        ), btf
    except (BtfError, SourceError) as error:
        raise type(error)(
            f"{kernel.file}: {error}".replace(f"{kernel.file}: {kernel.file}: ", f"{kernel.file}: ")
        ) from None


def _of_a_kernel(arch: Arch, found: List[Answer]) -> List[Answer]:
    """Raises SourceError unless each has the types that no kernel of the architecture is without, as far as they are
    wanted."""
    for reader, layout in found:
        registers = layout.get("struct pt_regs")
        if isinstance(registers, Struct) and any(registers.fields.get(name, _NOT_WANTED) is None for name in arch.args):
            raise SourceError(f"{reader} has a struct pt_regs that is not that of {arch.name}")
        missing = [name for name in ALWAYS if layout.get(name, _NOT_WANTED) is None]
        if missing:
            raise SourceError(f"{reader} has no {missing[0]}, which every kernel has: it is not that of a whole kernel")
    return found


def dwarf_program(kernel: KernelSource) -> drgn.Program:
    """A drgn program with the types of a kernel's DWARF. Raises SourceError if it cannot be read."""
    import drgn

    from sockpid_gen.btf import finder

    assert kernel.dwarf is not None
    prog = drgn.Program(finder.platform(kernel.arch))
    module = prog.extra_module("vmlinux", create=True)
    try:
        # Not load_debug_info(): in a program without modules it ignores a vmlinux without a word.
        module.try_file(kernel.file, fd=os.dup(kernel.dwarf.fileno()), force=True)
    except (ValueError, OSError, drgn.MissingDebugInfoError) as error:
        raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
    if module.debug_file_status != drgn.ModuleFileStatus.HAVE:
        raise SourceError(f"{kernel.file}: drgn found no DWARF in it")
    return prog
