"""A kernel's entry of the offset table: the published one, or where that lacks this build, one made from its package.

The mirrors have new builds every few days, the published table only later. A test that boots a kernel must not depend
on which of the two is ahead today, so a guest always finds its own kernel in its table; ORIGINS keeps how that came.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sockpid.errors import NoTypesError
from sockpid.image import hooks
from sockpid.table import table
from sockpid.table.layout import Layout
from sockpid_gen.extraction.entry import extract
from sockpid_gen.table import shard as shards
from tests import generator

from . import cache, packages

if TYPE_CHECKING:
    from .kernels import Kernel

log = logging.getLogger(__name__)

PUBLISHED = cache.CHECKOUT / "offsets"
ORIGINS: dict[str, str] = {}
"""Of each kernel that was booted: which one exactly it was, and where its entry came from. For people."""


def committed(kernel: Kernel) -> table.Entry | None:
    """The entry of exactly this build in the published table."""
    path = PUBLISHED / kernel.shard
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


def of_guest(kernel: Kernel) -> dict[str, bytes]:
    """What a guest with the whole published table needs besides to know its kernel: nothing, or its shard anew."""
    known = committed(kernel)
    origin = "in the published table" if known else "not in the published table: entry made from its package"
    ORIGINS[kernel.name] = f"{kernel.package.release} ({kernel.package.version}), {origin}"
    return {} if known else {f"/sockpid/offsets/{kernel.shard}": completed(kernel)}


@functools.cache
def completed(kernel: Kernel) -> bytes:
    """The published shard of the kernel's series, with the entry that the generator makes of its package."""
    log.warning("%s is not in the published table; its entry is made from its package", kernel.package.release)
    path = generated(kernel)
    made = table.parse_shard(path.read_bytes(), path.name)
    document = shards.read(PUBLISHED / kernel.shard, made.arch, made.series)
    for entry in made.entries:
        shards.merge(document, shards.kernel_of(made, entry, made.layout(entry)), kernel.shard)
    return shards.canonical(document)


@functools.cache
def layout(kernel: Kernel) -> Layout:
    """What the debug information of a kernel says: its package's, or where that has none, that in its entry of the
    published table or in its package of debug information."""
    try:
        return extract(kernel.deb()).layout
    except NoTypesError:
        path = PUBLISHED / kernel.shard if committed(kernel) else generated(kernel)
    shard = table.parse_shard(path.read_bytes(), path.name)
    (entry,) = (entry for entry in shard.entries if entry.release == kernel.package.release)
    return shard.layout(entry)


@functools.cache
def _wanted() -> str:
    """Stands for what a table must carry: the fields that the images read, and functions."""
    digest = hashlib.sha256(" ".join(sorted(hooks.functions())).encode())
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
