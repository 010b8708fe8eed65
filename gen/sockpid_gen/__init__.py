"""The generator: makes offset tables of kernels, and images of BPF objects. For connected machines.

As a library (docs/api.md has examples):

* extract(source) reads one kernel, a package, vmlinux or BTF file, and gives a KernelEntry; extract_all(source) reads
  all kernels of a directory or archive.
* Table.load(directory), Table.add(entry), Table.merge(other), Table.save(directory).

Errors are those of sockpid.errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sockpid_gen.extraction.entry import KernelEntry, extract, extract_all
    from sockpid_gen.kernel.source import Given
    from sockpid_gen.table.table import Table

__all__ = ["Given", "KernelEntry", "Table", "extract", "extract_all"]

_HOME = {
    "Given": "kernel.source",
    "KernelEntry": "extraction.entry",
    "Table": "table.table",
    "extract": "extraction.entry",
    "extract_all": "extraction.entry",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: commands that need none of it start faster."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
