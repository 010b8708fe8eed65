"""Every kernel that the machine's mirrors offer, as kernels of the lab, and those of the lab by their names."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from . import packages, tables
from .kernels import FURTHER, KERNELS, USUAL, Kernel

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

    def order(kernel: Kernel) -> tuple[bool, tuple[int, ...], str, str]:
        return kernel.flavour != USUAL[kernel.arch], kernel.number, kernel.arch, kernel.flavour

    return sorted(found.values(), key=order)


def find(name: str) -> Kernel:
    """The kernel of that name, one of the lab's own or any other that the mirrors offer, as they deliver it today.

    Suites move on. Where none has a series of the lab any more, another one stands in for it, which is said.
    """
    own = {**KERNELS, **FURTHER}.get(name)
    if own is not None and own.offered:
        return own.deliverable()
    _, _, rest = name.partition("/")
    arch = rest.partition("/")[0]
    offered = discover([arch]) if arch in USUAL else []
    for kernel in offered:
        if kernel.name == name:
            return kernel.deliverable()
    if own is None:
        raise packages.PackageError(f"no kernel is called {name}; see --list and matrix --list")
    instead = stand_in(own, offered)
    if instead is None:
        raise packages.PackageError(f"no suite offers {name}, nor another series of that flavour")
    log.warning("no suite offers %s any more; %s stands in for it", name, instead.name)
    return instead.deliverable()


def stand_in(kernel: Kernel, offered: Sequence[Kernel]) -> Kernel | None:
    """What comes next in place of a series that is gone: the first later one that the published table knows, or any
    later one, or the last one before."""
    others = sorted((o for o in offered if o.flavour == kernel.flavour), key=lambda o: o.number)
    later = [other for other in others if other.number > kernel.number]
    known = [other for other in later if (tables.PUBLISHED / other.shard).exists()]
    return next(iter([*known, *later, *reversed(others)]), None)
