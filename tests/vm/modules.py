"""Kernel modules for a guest, with those that they depend on, out of the packages that its kernel came in."""

from __future__ import annotations

import lzma
import re
from collections.abc import Collection
from pathlib import Path

from . import packages
from .kernels import Kernel


def wanted(kernel: Kernel, names: Collection[str]) -> dict[str, bytes]:
    """The modules by name, as insmod takes them, in the order to insert them. What the kernel has no module of, be it
    built in or not there at all, is left out."""
    found: dict[str, bytes] = {}
    for deb in _debs(kernel):
        for path, entry in _members(deb):
            found[_name(path)] = entry
    unpacked: dict[str, bytes] = {}
    ordered: dict[str, bytes] = {}

    def enter(name: str) -> None:
        if name in ordered or name not in found:
            return
        unpacked[name] = content = _unpacked(found[name])
        for other in depends(content):
            enter(other)
        ordered[name] = content

    for name in names:
        enter(name.replace("-", "_"))
    return ordered


def depends(module: bytes) -> list[str]:
    """What a module says that it depends on (.modinfo)."""
    said = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in (said[1].decode() if said else "").replace("-", "_").split(",") if name]


def insert(modules: Collection[str]) -> str:
    """Lines of a shell script that insert what files() brings into a guest."""
    return "".join(f"insmod /run/modules/{name}.ko\n" for name in modules)


def files(modules: dict[str, bytes]) -> dict[str, bytes]:
    """By path in the guest."""
    return {f"/run/modules/{name}.ko": content for name, content in modules.items()}


def _debs(kernel: Kernel) -> list[Path]:
    """Since Debian's 6.19 the modules have a package of their own."""
    if not kernel.package.name.startswith("linux-binary-"):
        return [kernel.deb()]
    return [packages.fetch(f"linux-modules-{kernel.package.release}", kernel.suite, kernel.arch)]


def _members(deb: Path) -> list[tuple[str, bytes]]:
    from .unpack import members

    return [(path, entry.content) for path, entry in members(deb, r".*/kernel/.*\.ko(\.xz)?")]


def _name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _unpacked(content: bytes) -> bytes:
    return lzma.decompress(content) if content.startswith(b"\xfd7zXZ") else content
