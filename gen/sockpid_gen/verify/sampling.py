"""Some kernels of a table, spread over architectures and series, held against the DWARF of their debug packages."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import urllib.parse
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from sockpid.errors import SockpidError, SourceError
from sockpid.table.table import series_of
from sockpid_gen.crawl import apt
from sockpid_gen.crawl.apt import SUITES
from sockpid_gen.extraction.entry import KernelEntry

from .verify import Verdict, verify_dwarf

_DEB = re.compile(r"[^_/]+_(?P<version>[^_/]+)_(?P<arch>[^_/]+)\.d?deb")

TRIES = 3
"""How many kernels are looked at for each one that is wanted, where debug packages are gone."""


class Sampled(NamedTuple):
    """What came of one kernel of a sample: a verdict, or the reason why there is none."""

    kernel: KernelEntry
    package: str
    verdict: Optional[Verdict]
    reason: Optional[str]


class DebugPackage(NamedTuple):
    """Debian's package with the DWARF of a kernel: name, version, Debian's name of the architecture."""

    name: str
    version: str
    arch: str

    @property
    def file(self) -> str:
        """Its file name."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


Fetch = Callable[[DebugPackage, Path], None]
"""Puts a package into a file, or raises SourceError."""


def sample(kernels: Iterable[KernelEntry], seed: int) -> List[KernelEntry]:
    """All kernels, in an order of which any part from the start is spread over architectures, within these over series.

    The order depends on the kernels and on `seed` alone. A kernel more or less does not change that of the others.
    """

    def rank(*name: object) -> bytes:
        return hashlib.sha256(repr((seed, *name)).encode()).digest()

    groups: Dict[str, Dict[str, List[KernelEntry]]] = {}
    for kernel in sorted(kernels, key=lambda k: rank(*k.key, k.arch)):
        groups.setdefault(kernel.arch, {}).setdefault(series_of(kernel.release), []).append(kernel)
    queues: List[List[KernelEntry]] = []
    for arch in sorted(groups, key=rank):
        by_series = groups[arch]
        queues.append(_interleave([by_series[series] for series in sorted(by_series, key=lambda s: rank(arch, s))]))
    return _interleave(queues)


def debug_package(kernel: KernelEntry) -> DebugPackage:
    """The debug package of a kernel that was read from a Debian package. Raises SourceError if it was not."""
    match = _DEB.fullmatch(str(kernel.provenance.get("source")))
    if match is None:
        raise SourceError(f"{kernel.provenance.get('source')} is no Debian package: no debug package is known for it")
    version = urllib.parse.unquote(match["version"])
    return DebugPackage(f"linux-image-{kernel.release}-dbg", version, match["arch"])


def verify_sample(kernels: Sequence[KernelEntry], count: int, fetch: Fetch) -> Iterator[Sampled]:
    """Kernels against their debug packages until `count` have a verdict; one package is on disk at a time.

    What cannot be fetched or read is reported with the reason, and another kernel takes its place.
    """
    done = 0
    for kernel in kernels[: count * TRIES]:
        if done == count:
            return
        name = "-"
        try:
            package = debug_package(kernel)
            name = package.file
            with tempfile.TemporaryDirectory(prefix="sockpid-gen.") as directory:
                path = Path(directory, name)
                fetch(package, path)
                verdict = verify_dwarf(kernel, path)
        except SockpidError as error:
            yield Sampled(kernel, name, None, str(error))
        else:
            done += 1
            yield Sampled(kernel, name, verdict, None)


class Beside:
    """Takes debug packages that are here already, of files by their names."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = {path.name: path for path in paths}

    def available(self, kernels: Iterable[KernelEntry]) -> Iterator[KernelEntry]:
        """The kernels whose debug package is here."""
        for kernel in kernels:
            with contextlib.suppress(SourceError):
                if debug_package(kernel).file in self._paths:
                    yield kernel

    def __call__(self, package: DebugPackage, path: Path) -> None:
        """Puts a link to a package into `path`. Raises SourceError if it is not here."""
        if package.file not in self._paths:
            raise SourceError(f"{package.file} is not here")
        path.symlink_to(self._paths[package.file].resolve())


class Fetcher:
    """Fetches debug packages through apt, whose state for each suite and architecture is below a directory."""

    def __init__(self, state: Path, suites: Sequence[str] = SUITES) -> None:
        self._state, self._suites = state, suites
        self._known: Dict[str, Dict[DebugPackage, apt.Package]] = {}

    def available(self, kernels: Iterable[KernelEntry]) -> Iterator[KernelEntry]:
        """The kernels whose debug package can be had. Archives keep old images longer than what was built with them."""
        for kernel in kernels:
            with contextlib.suppress(SourceError):
                if self._find(debug_package(kernel)) is not None:
                    yield kernel

    def __call__(self, package: DebugPackage, path: Path) -> None:
        """Fetches a package into `path`. Raises SourceError if no suite has it in this version."""
        found = self._find(package)
        if found is None:
            raise SourceError(
                f"{package.name} {package.version} ({package.arch}) is in none of {', '.join(self._suites)}"
            )
        apt.download(found.uri, found.sha256, path)

    def _find(self, package: DebugPackage) -> Optional[apt.Package]:
        if package.arch not in self._known:
            self._known[package.arch] = dict(self._index(package.arch))
        return self._known[package.arch].get(package)

    def _index(self, arch: str) -> Iterator[Tuple[DebugPackage, apt.Package]]:
        for suite in self._suites:
            repository = apt.Repository(self._state / f"{suite}-{arch}", (suite,), arch)
            if not repository.current(lambda _: None):  # what is missed is missed by name
                continue
            for found in repository.packages("linux-image-"):
                if found.name.endswith("-dbg"):
                    yield DebugPackage(found.name, found.version, arch), found


def _interleave(queues: Sequence[Sequence[KernelEntry]]) -> List[KernelEntry]:
    longest = max(map(len, queues), default=0)
    return [queue[n] for n in range(longest) for queue in queues if n < len(queue)]
