"""One kernel for the archive, read from its BTF or DWARF."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import drgn

import sockpid
from sockpid.arch import Arch
from sockpid.btf.btf import Btf
from sockpid.errors import BtfError, SourceError
from sockpid_gen.btf import finder
from sockpid_gen.dwarf import dwarf, names
from sockpid_gen.extraction.extraction import ALWAYS, dwarf_program
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.kernel.nameless import Nameless
from sockpid_gen.kernel.source import KernelSource

from .archive import Kernel
from .names import FUNCTIONS, ROOTS
from .rows import Rows
from .types import describe_btf, describe_dwarf


def record_of(kernel: KernelSource) -> Kernel:
    """Everything about one kernel that is kept: identity, sources, rows of all types, BTF ids of functions.

    Raises SourceError, BtfError if its types cannot be read or two readers disagree about them.
    """
    identity = {
        "release": kernel.release,
        "banner": kernel.banner,
        "build_id": kernel.build_id,
        "distribution": kernel.distribution,
        "sources": [[kernel.file, kernel.sha256]],
    }
    if kernel.btf is not None:
        return _of_btf(identity, kernel.arch, bytes(kernel.btf), kernel.file)
    if kernel.dwarf is None:
        raise SourceError(f"{kernel.file}: neither BTF nor DWARF")
    try:
        if dwarf.is_split(kernel.dwarf):
            raise SourceError("its DWARF is split, so types may be missing from it unnoticed")
        prog = dwarf_program(kernel)
        rows = describe_dwarf(prog, names.Definitions(prog, kernel.dwarf), wanted_fields(kernel.arch))
        missing = [name for name, row in rows.items() if row is None]
        for name in dwarf.doubts(kernel.dwarf, missing) if missing else ():
            del rows[name]  # not looked for, as far as anybody can tell
        _demand_always(rows)
    except drgn.FaultError as error:
        raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
    except SourceError as error:
        raise SourceError(f"{kernel.file}: {error}") from None
    return {**identity, "arch": kernel.arch.name, "kind": "dwarf", "tools": _tools(), "functions": None, "types": rows}


def record_of_nameless(kernel: Nameless, file: str, sha256: str) -> Kernel:
    """As record_of, of a kernel of which the release is all that is known. Its BTF ids are of no use to anybody."""
    identity = {
        "release": kernel.release,
        "banner": None,
        "build_id": None,
        "distribution": kernel.distribution,
        "sources": [[file, sha256]],
    }
    return {**_of_btf(identity, kernel.arch, kernel.btf, file), "functions": None}


def _of_btf(identity: Mapping[str, Any], arch: Arch, content: bytes, file: str) -> Kernel:
    try:
        btf = Btf(content)
        rows = describe_btf(finder.BtfTypes(content, arch).prog, btf, arch.pointer_size)
        _demand_always(rows)
        functions = {**dict.fromkeys(FUNCTIONS, 0), **btf.func_ids(FUNCTIONS)}
    except (BtfError, SourceError) as error:
        raise type(error)(f"{file}: {error}") from None
    return {**identity, "arch": arch.name, "kind": "btf", "tools": _tools(), "functions": functions, "types": rows}


def _demand_always(rows: Rows) -> None:
    missing = [name for name in ALWAYS if name in ROOTS and rows.get(name) is None]
    if missing:
        raise SourceError(f"it has no {missing[0]} that could be told, which every kernel has")


def _tools() -> Dict[str, str]:
    return {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__)}
