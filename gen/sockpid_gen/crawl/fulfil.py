"""Answers a request: finds the package of a kernel that a host asked about, and makes a table file of that one kernel.

A package is that kernel's if build-id, release and version banner all are; where there is no build-id to compare, if
the others are. What has the build-id and another banner is refused by name. All else is refused, but for one case: the
tables have a build before and a build after the wanted one, and these and the package that was found are equal in every
field. That is said in the entry.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from sockpid.arch import of_machine
from sockpid.errors import RequestError, SockpidError, SourceError
from sockpid.request.request import Request
from sockpid.table import table
from sockpid_gen.extraction.difference import compare
from sockpid_gen.extraction.entry import KernelEntry, extract
from sockpid_gen.files.stream import Tick
from sockpid_gen.table import shard

from . import apt
from .apt import SUITES

Say = Callable[[str], None]

DEBUGINFOD_TIMEOUT = 120.0
DEBIAN = {
    "x86_64": "amd64", "aarch64": "arm64", "arm": "armhf", "riscv64": "riscv64", "ppc64le": "ppc64el", "s390x": "s390x",
}  # fmt: skip
"""Debian's names of the architectures."""


class Places(NamedTuple):
    """Where to look. paths: files, and directories with packages. apt: keeps what apt fetches; None: do not ask it."""

    offsets: Path
    paths: Sequence[Path] = ()
    apt: Optional[Path] = None
    suites: Sequence[str] = SUITES
    debuginfod: Sequence[str] = ()


class Answer(NamedTuple):
    """The table file, where its entry comes from, and why another build's package was believed (None: it was not)."""

    content: bytes
    source: str
    note: Optional[str]


def fulfil(request: Request, places: Places, say: Say = lambda _: None, tick: Tick = lambda _: None) -> Answer:
    """The answer to a request. `say` is told what is looked at, `tick` of bytes read.

    Raises SourceError that names everything that was looked at, if nothing fits; RequestError if the request
    contradicts itself; UnsupportedArchError.
    """
    arch = of_machine(request.arch)
    _demand_sense(request)
    known = _known(request, places.offsets)
    refused: List[str] = []
    for build in known:
        if _is_same(request, build):
            return _answer(build, "the table", None)
        if _has_build_id(request, build):
            refused.append(f"the table: {_contradiction(request, build)}")
    strangers: List[KernelEntry] = []
    for path in _candidates(request, places, say, refused):
        say(f"reading {path.name}")
        try:
            found = extract(path, tick=tick)
        except SockpidError as error:
            refused.append(str(error) if path.name in str(error) else f"{path.name}: {error}")
            continue
        if _is_same(request, found):
            return _answer(found, path.name, None)
        if _has_build_id(request, found):
            refused.append(f"{path.name}: {_contradiction(request, found)}")
            continue
        refused.append(f"{path.name}: it is {found.identity}")
        if (found.arch, found.release) == (arch.name, request.release):
            strangers.append(found)
    for found in strangers:
        try:
            note = _equal_on_both_sides(request, found, known)
        except _NotProvenError as error:
            refused.append(f"{found.provenance['source']}: not proven equal: {error}")
            continue
        provenance = {**found.provenance, "note": note}
        equal = found._replace(build_id=request.build_id, banner=request.banner, btf_ids=None, provenance=provenance)
        return _answer(equal, str(provenance["source"]), note)
    raise SourceError(
        f"no package of {request.arch} {request.release}, build-id {request.build_id or '(none)'} was found; looked at:"
        + "".join(f"\n  {line}" for line in refused or ["nothing: give --from PATH, --apt or --debuginfod URL"])
    )


def _demand_sense(request: Request) -> None:
    """Raises RequestError if the parts of a request contradict each other: then no answer can be right."""
    said = request.banner.split(" ", 3)[2:3]
    if said != [request.release]:
        raise RequestError(
            f"the request contradicts itself: release {request.release}, but its banner is {request.banner}"
        )


def _is_same(request: Request, build: KernelEntry) -> bool:
    if request.arch != build.arch or request.release != build.release:
        return False
    if build.banner is None or not request.is_of(build.banner):
        return False
    return None in (request.build_id, build.build_id) or request.build_id == build.build_id


def _has_build_id(request: Request, build: KernelEntry) -> bool:
    return request.build_id is not None and request.build_id == build.build_id


def _contradiction(request: Request, build: KernelEntry) -> str:
    return (
        f"it has the build-id {build.build_id} that is asked for, but it is {build.arch} {build.release}, "
        f"{build.banner!r}; asked for is {request.arch} {request.release}, {request.banner!r}: "
        "one of the two is not what it says"
    )


def _known(request: Request, offsets: Path) -> List[KernelEntry]:
    """The builds of the series that the tables have, but for those that were themselves concluded."""
    path = offsets / request.arch / f"{table.series_of(request.release)}.json"
    if not path.exists():
        return []
    known = table.parse_shard(path.read_bytes(), str(path))
    return [shard.kernel_of(known, e, known.layout(e)) for e in known.entries if table.is_measured(e.provenance)]


def _answer(build: KernelEntry, where: str, note: Optional[str]) -> Answer:
    document = shard.empty(build.arch, table.series_of(build.release))
    shard.merge(document, build, where)
    content = shard.canonical(document)
    shard.validate(json.loads(content), where)
    return Answer(content, where, note)


def _candidates(request: Request, places: Places, say: Say, refused: List[str]) -> Iterator[Path]:
    """Files that may hold the kernel, the likeliest first. Adds what could not be asked to `refused`."""
    for path in places.paths:
        if path.is_dir():
            fitting = sorted(p for p in path.rglob(f"*{glob.escape(request.release)}[-_.]*") if p.is_file())
            yield from sorted(fitting, key=lambda p: p.stat().st_size)  # debug packages last
            if not fitting:
                refused.append(f"{path}: no file in it has {request.release} in its name")
        else:
            yield path
    with tempfile.TemporaryDirectory(prefix="sockpid-gen.") as directory:
        if request.build_id is not None:
            for url in places.debuginfod:
                say(f"asking {url}")
                try:
                    yield _debuginfod(url, request.build_id, Path(directory))
                except (OSError, ValueError) as error:
                    refused.append(f"{url}: {error}")
        if places.apt is not None:
            yield from _apt(request, places.apt, places.suites, Path(directory), say, refused)


def _debuginfod(url: str, build_id: str, directory: Path) -> Path:
    """The vmlinux with DWARF of a build-id (man 8 debuginfod). Raises OSError, ValueError for what is no URL."""
    path = directory / f"{build_id}.debug"
    address = f"{url.rstrip('/')}/buildid/{build_id}/debuginfo"
    with urllib.request.urlopen(address, timeout=DEBUGINFOD_TIMEOUT) as reply, path.open("wb") as file:
        shutil.copyfileobj(reply, file, 1 << 20)
    return path


def _apt(
    request: Request, state: Path, suites: Sequence[str], directory: Path, say: Say, refused: List[str]
) -> Iterator[Path]:
    release, arch = request.release, DEBIAN[request.arch]
    names = [f"linux-image-{release}", f"linux-image-{release}-unsigned", f"linux-binary-{release}"]
    names += [f"linux-image-{release}-dbg"]
    seen: set[str] = set()
    for suite in suites:
        say(f"asking apt for {release} in {suite}")
        repository = apt.Repository(state / f"{suite}-{arch}", (suite,), arch)
        try:
            if not repository.current(refused.append):
                continue
            found = [p for p in repository.packages("linux-") if p.name in names]
        except SockpidError as error:
            refused.append(f"{suite} {arch}: {error}")
            continue
        if not found:
            refused.append(f"{suite} {arch}: no package of {release}")
        for package in sorted(found, key=lambda p: names.index(p.name)):
            if package.sha256 in seen or package.size < 1 << 16:  # a metapackage
                continue
            seen.add(package.sha256)
            path = directory / os.path.basename(package.uri)
            try:
                apt.download(package.uri, package.sha256, path)
            except SockpidError as error:
                refused.append(f"{path.name}: {error}")
                continue
            yield path
            path.unlink()


class _NotProvenError(Exception):
    """Why the package of another build cannot be taken."""


def _equal_on_both_sides(request: Request, found: KernelEntry, known: List[KernelEntry]) -> str:
    """The note that says why the package of another build can be taken; _NotProvenError otherwise.

    Builds of one series and flavour by one distribution are in the order of their versions. If the nearest before and
    the nearest after the wanted one have equal layouts, and the package found as well, a field would have to have moved
    there and back in between.
    """
    if request.build_id is None:
        raise _NotProvenError("the request has no build-id that an entry could be found by")
    wished, flavour = _version(request.banner), _flavour(request.release)
    if wished is None:
        raise _NotProvenError("the banner does not tell the build's version as Debian's do")
    versions = {_version(b.banner): b for b in known if _flavour(b.release) == flavour}
    builds = {version: build for version, build in versions.items() if version is not None}
    older, newer = (
        max((v for v in builds if v < wished), default=None),
        min((v for v in builds if v > wished), default=None),
    )
    if older is None or newer is None:
        side = "before" if older is None else "after"
        raise _NotProvenError(f"the tables have no build of flavour {flavour} {side} {_text(wished)}")
    for version in (older, newer):
        differences = compare(found.layout, builds[version].layout)
        if differences:
            raise _NotProvenError(f"{differences[0].field} differs in {_text(version)}")
    return (
        f"no package of this build was found; {found.release} (build-id {found.build_id}), {_text(older)} and "
        f"{_text(newer)}, the builds before and after it, are equal in every field"
    )


def _version(banner: Optional[str]) -> Optional[Tuple[int, ...]]:
    """The version of a Debian kernel package as its banner says it: 6.1.192-2 as (6, 1, 192, 2)."""
    match = re.search(r" Debian ([0-9][0-9.]*-[0-9]+)", banner or "")
    return tuple(int(number) for number in re.findall("[0-9]+", match.group(1))) if match else None


def _text(version: Tuple[int, ...]) -> str:
    return ".".join(map(str, version[:-1])) + f"-{version[-1]}"


def _flavour(release: str) -> str:
    """What follows the version in a release: "cloud-amd64" of "6.1.0-56-cloud-amd64"."""
    return re.sub(r"\A[0-9.]+(-[0-9]+)?([+~][a-z0-9.]+)*-", "", release)
