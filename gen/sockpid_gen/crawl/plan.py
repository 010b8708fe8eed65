"""What a crawl reads, and in which order: packages of Debian-style indices, files of directories, given addresses."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from sockpid.errors import SourceError, TableError, UsageError
from sockpid.table.table import series_of
from sockpid_gen.files.stream import sha256_of
from sockpid_gen.kernel.release import flavour, sort_key

from .apt import Package, Repository

_KERNEL = re.compile(r"linux-(?:image|binary)-(?:unsigned-)?([0-9].*?)(?:-unsigned)?\Z")
_NO_KERNEL = re.compile(r"-(dbg|signed-template)\Z")
_DEPENDS_ON_KERNEL = re.compile(r"(?:^|, )linux-(image|binary)-")

WITHOUT_TYPES = frozenset({"armhf"})
"""Debian architectures whose kernels have no BTF in any release: their debug packages are read at once."""

_IN_DIRECTORIES = re.compile(r"(linux-(image|binary)-.*\.d?deb|kernel-.*\.rpm|.*\.btf|.*\.btf\.tar\.xz|vmlinu[xz].*)\Z")
"""Names of files that are looked at in directories. Others are read when they are named."""


class File(NamedTuple):
    """A file to read. uri: its address, or a path. sha256: what it must have, in hex; None: not known. size: bytes.

    modified: when a file that is here was last changed before it was read for its sum (st_mtime_ns), else 0.
    """

    uri: str
    sha256: Optional[str] = None
    size: int = 0
    modified: int = 0

    @property
    def name(self) -> str:
        """Its name without directory."""
        return self.uri.rstrip("/").rpartition("/")[2]

    @property
    def remote(self) -> bool:
        """It has to be fetched."""
        return "://" in self.uri


class Task(NamedTuple):
    """One kernel to read: a file, and another one in case that the first has no types in it."""

    file: File
    debug: Optional[File] = None

    @property
    def key(self) -> str:
        """What a crawl's state knows it by: safe as a file name, equal for equal content."""
        return self.file.sha256 or hashlib.sha256(self.file.uri.encode()).hexdigest()

    @property
    def files(self) -> Tuple[File, ...]:
        return (self.file,) if self.debug is None else (self.file, self.debug)


def of_index(packages: Iterable[Package], arch: str) -> List[Task]:
    """The kernels of one architecture's indices, each once, newest of every series and flavour first.

    Left out are packages that only depend on a kernel, and unsigned images where the signed one is there: they hold the
    same vmlinux, with the same build-id.
    """
    everything = {package.sha256: package for package in packages}.values()
    debug = {(p.name, p.version): p for p in everything if p.name.endswith("-dbg")}
    kernels: Dict[Tuple[str, str], Package] = {}
    for package in sorted(everything, key=lambda p: (p.name, p.version, p.sha256)):
        match = _KERNEL.fullmatch(package.name)
        if match is None or _NO_KERNEL.search(package.name) or _DEPENDS_ON_KERNEL.search(package.depends):
            continue
        key = match.group(1), package.version
        if key not in kernels or "unsigned" in kernels[key].name:
            kernels[key] = package
    generations: Dict[Tuple[str, str], int] = {}
    tasks: List[Tuple[Tuple[int, bool, str], Task]] = []
    for (release, version), package in sorted(kernels.items(), key=lambda item: sort_key(item[0][1]), reverse=True):
        try:
            line = series_of(version), flavour(release)
        except TableError:
            continue  # "linux-image-6.1-amd64-extra": a name of somebody's own
        generation = generations[line] = generations.get(line, -1) + 1
        file = _file(package)
        other = debug.get((f"linux-image-{release}-dbg", version))
        task = Task(file, _file(other) if other else None)
        if arch in WITHOUT_TYPES and task.debug is not None:
            task = Task(task.debug)
        tasks.append(((generation, task.file.name.find("-dbg_") > 0, task.file.name), task))
    return [task for _, task in sorted(tasks, key=lambda item: item[0])]


def of_suites(suites: Iterable[str], arch: str, state: Path, warn: Callable[[str], None]) -> List[Task]:
    """The kernels that suites of this machine's mirror have for one architecture.

    state: where apt keeps its indices, which are fetched anew when they are a day old. A suite that the mirror does not
    have for this architecture is warned about; so is one that cannot be reached now, whose older index then does.
    """
    packages: List[Package] = []
    for suite in suites:
        repository = Repository(state / f"{suite}-{arch}", (suite,), arch)
        if repository.current(warn):
            packages.extend(repository.packages("linux-"))
    return of_index(packages, arch)


def interleave(lists: Iterable[List[Task]]) -> Iterator[Task]:
    """One task of each list in turn, so that an interrupted crawl has something of everything; equal files once."""
    seen = set()
    pending = [iter(tasks) for tasks in lists]
    while pending:
        for tasks in list(pending):
            task = next(tasks, None)
            if task is None:
                pending.remove(tasks)
            elif task.key not in seen:
                seen.add(task.key)
                yield task


def of_places(places: Iterable[str]) -> List[Task]:
    """The files that paths, directories (searched through) and addresses name. Raises UsageError for what is not there.

    A debug package (NAME-dbg) beside its image is only read if the image has no types.
    """
    uris: List[str] = []
    for place in places:
        path = Path(place)
        if "://" in place:
            uris.append(place)
        elif path.is_dir():
            uris.extend(str(p) for p in sorted(path.rglob("*")) if p.is_file() and _IN_DIRECTORIES.match(p.name))
        elif path.is_file():
            uris.append(place)
        else:
            raise UsageError(f"{place}: no such file or directory, and no address either")
    files = {uri: File(uri) if "://" in uri else of_path(Path(uri)) for uri in sorted(set(uris))}
    debug = {_image_name(f.name): f for f in files.values() if _image_name(f.name) != f.name}
    tasks = [Task(f, debug.get(re.sub("-unsigned_", "_", f.name))) for f in files.values() if f not in debug.values()]
    images = {re.sub("-unsigned_", "_", task.file.name) for task in tasks}
    return tasks + [Task(f) for name, f in sorted(debug.items()) if name not in images]


def of_path(path: Path) -> File:
    """A file that is here. Raises SourceError if it cannot be read."""
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    return File(str(path), sum_of(path), modified=modified)


def sum_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex. Raises SourceError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return sha256_of(file)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None


def _image_name(name: str) -> str:
    """The image that a debug package belongs to, by their file names."""
    return name.replace("-dbg_", "_", 1)


def _file(package: Package) -> File:
    return File(package.uri, package.sha256, package.size)
