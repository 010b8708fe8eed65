"""One kernel for the archive, read from its BTF or DWARF."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import drgn

import sockpid
from sockpid.arch import Arch
from sockpid.btf import Btf
from sockpid.errors import BtfError, SourceError

from . import btf_finder, dwarf
from .archive import Kernel
from .archive_names import FUNCTIONS
from .archive_types import describe, describe_btf
from .extraction import dwarf_program
from .nameless import Nameless
from .source import KernelSource


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
    if kernel.dwarf is not None and dwarf.is_split(kernel.dwarf):
        raise SourceError(f"{kernel.file}: its DWARF is split, so types may be missing from it unnoticed")
    try:
        rows = describe(dwarf_program(kernel))
    except drgn.FaultError as error:
        raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
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
        rows = describe_btf(btf_finder.program(btf, arch), btf, arch.pointer_size)
        functions = btf.func_ids(FUNCTIONS)
    except BtfError as error:
        raise BtfError(f"{file}: {error}") from None
    return {**identity, "arch": arch.name, "kind": "btf", "tools": _tools(), "functions": functions, "types": rows}


def _tools() -> Dict[str, str]:
    return {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__)}
