"""Every kernel that the machine's mirrors offer, as kernels of the lab, and where their offsets come from."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

from sockpid import table
from sockpid.errors import NoTypesError
from sockpid.layout import Layout
from sockpid_gen.entry import extract
from tests import generator

from . import cache, packages
from .kernels import MACHINE, USUAL, Kernel

log = logging.getLogger(__name__)

SUITES = (
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "forky",
    "sid",
    "experimental",
)


def discover(arches: Collection[str] = tuple(USUAL)) -> list[Kernel]:
    """The newest kernel of each series and flavour. The usual flavours come first, then the others, each by series.

    An index that cannot be had is left out with a warning: not every suite has every architecture.
    """
    found: dict[tuple[str, ...], Kernel] = {}
    for arch in arches:
        for suite in SUITES:
            try:
                offered = packages.kernels(suite, arch)
            except packages.PackageError as error:
                log.warning("%s for %s is left out: %s", suite, arch, str(error).splitlines()[0])
                continue
            for package, *_ in offered:
                kernel = Kernel(suite, arch, package.flavour, package.series)
                key = (arch, package.series, package.flavour)
                other = found.get(key)
                if other is None or packages.newest_first([other.package, package])[0] is package:
                    found[key] = kernel

    def order(kernel: Kernel) -> tuple[bool, list[int], str, str]:
        return kernel.flavour != USUAL[kernel.arch], [*map(int, kernel.series.split("."))], kernel.arch, kernel.flavour

    return sorted(found.values(), key=order)


def series_file(kernel: Kernel) -> str:
    """The file of the table that a kernel's entry belongs into, below offsets/."""
    return f"{MACHINE[kernel.arch]}/{kernel.series}.json"


def committed(kernel: Kernel) -> table.Entry | None:
    """The entry of exactly this build in the committed table."""
    path = cache.CHECKOUT / "offsets" / series_file(kernel)
    if not path.exists():
        return None
    version = f" {kernel.package.version} ("
    for entry in entries(path):
        if entry.release == kernel.package.release and version in (entry.banner or ""):
            return entry
    return None


@functools.cache
def entries(path: Path) -> tuple[table.Entry, ...]:
    """The kernels of a shard, which does not change while we run."""
    return table.parse_shard(path.read_bytes(), path.name).entries


@functools.cache
def layout(kernel: Kernel) -> Layout:
    """What the debug information of a kernel says: its package's, or where that has none, that in its entry of the
    committed table or in its package of debug information."""
    try:
        return extract(kernel.deb()).layout
    except NoTypesError:
        path = cache.CHECKOUT / "offsets" / series_file(kernel) if committed(kernel) else generated(kernel)
    shard = table.parse_shard(path.read_bytes(), path.name)
    (entry,) = (entry for entry in shard.entries if entry.release == kernel.package.release)
    return shard.layout(entry)


@functools.cache
def _wanted() -> str:
    """Stands for the fields that a table must carry: those that the images read."""
    digest = hashlib.sha256()
    for image in sorted((cache.CHECKOUT / "bpf_bytecode").glob("*.json")):
        digest.update(image.read_bytes())
    return digest.hexdigest()[:8]


def generated(kernel: Kernel) -> Path:
    """A table of this kernel alone, made by the generator from its package: from the one with the debug information
    where the image has no BTF. Kept in the cache."""
    package = kernel.package
    directory = cache.directory("table", kernel.arch, f"{package.name}_{package.version}-{_wanted()}")
    with cache.locked(directory):
        for shard in directory.glob("*/*.json"):
            return shard
        try:
            return generator.add(kernel.deb(), directory)
        except AssertionError as error:
            if "neither BTF nor DWARF" not in str(error):
                raise
        debug = packages.fetch(f"linux-image-{package.release}-dbg", kernel.suite, kernel.arch)
        shard = generator.add(debug, directory)
        debug.unlink()  # some hundred megabytes, for a table of four kilobytes
        return shard
