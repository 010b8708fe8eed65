"""Debian packages of any suite and architecture, through sockpid_gen.apt, in the cache of the lab."""

from __future__ import annotations

import functools
import logging
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sockpid.errors import SourceError
from sockpid_gen.crawl import apt

from . import cache

log = logging.getLogger(__name__)

PackageError = SourceError
"""apt refused, or the archive does not have what was asked for. The message says which."""

WITH_SECURITY = frozenset({"bullseye", "bookworm", "trixie"})


class KernelPackage(NamedTuple):
    """The package that holds one kernel image.

    release: what `uname -r` says when it runs. series: "6.1". flavour: what the release ends with: "cloud-amd64".
    """

    name: str
    version: str
    release: str
    series: str
    flavour: str


def fetch(package: str, suite: str, arch: str) -> Path:
    """The .deb of `package`. Without network if it was fetched before."""
    debs = cache.directory("deb", suite, arch)
    with cache.locked(debs):
        # A package name has no underscore (deb-control(5)), so one name's pattern never matches another's file.
        for deb in sorted(debs.glob(f"{package}_*.deb")):
            return deb
        index = _index(suite, arch)
        with tempfile.TemporaryDirectory(dir=debs, prefix=".download.") as partial:
            index.run("apt-get", "download", f"{package}:{arch}", directory=Path(partial))
            (deb,) = Path(partial).glob("*.deb")
            return deb.rename(debs / deb.name)


def with_dependencies(packages: Sequence[str], suite: str, arch: str) -> list[str]:
    """The names of `packages` and of all that they depend on, as apt would install them onto nothing."""
    with cache.locked(cache.directory("deb", suite, arch)):
        plan = _index(suite, arch).run("apt-get", "-s", "--no-install-recommends", "install", *packages)
    return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)


def fetch_all(packages: Sequence[str], suite: str, arch: str) -> list[Path]:
    """The .debs of `packages`, those that are missing by one call of apt."""
    debs = cache.directory("deb", suite, arch)
    with cache.locked(debs):
        missing = [name for name in packages if not any(debs.glob(f"{name}_*.deb"))]
        if missing:
            index = _index(suite, arch)
            with tempfile.TemporaryDirectory(dir=debs, prefix=".download.") as partial:
                index.run("apt-get", "download", *(f"{name}:{arch}" for name in missing), directory=Path(partial))
                for deb in Path(partial).glob("*.deb"):
                    deb.rename(debs / deb.name)
    return [fetch(name, suite, arch) for name in packages]


def fetch_source(package: str, suite: str) -> Path:
    """The upstream tarball of `package`. Without network if it was fetched before."""
    sources = cache.directory("source", suite)
    with cache.locked(sources):
        for found in sorted(sources.glob(f"{package}_*.orig.tar.*")):
            return found
        index = _index(suite, "amd64")
        with tempfile.TemporaryDirectory(dir=sources, prefix=".download.") as partial:
            state = Path(partial) / "state"
            (state / "lists/partial").mkdir(parents=True)
            listing = Path(partial) / "sources.list"
            listing.write_text(apt.source_line(suite).replace("deb ", "deb-src ", 1))
            own = [f"-oDir::State={state}", f"-oDir::Cache={state}", f"-oDir::Etc::sourcelist={listing}"]
            index.run("apt-get", *own, "update", "--error-on=any")
            index.run("apt-get", *own, "--download-only", "source", package, directory=Path(partial))
            (found,) = Path(partial).glob("*.orig.tar.*")
            return found.rename(sources / found.name)


def find_kernel(suite: str, arch: str, flavour: str, series: str, but: Collection[str] = ()) -> KernelPackage:
    """The newest kernel image of `series` ("6.1") and `flavour` ("cloud-amd64") that `suite` offers now.

    but: names of packages to pass over.
    """
    for builds in kernels(suite, arch):
        if (builds[0].series, builds[0].flavour) == (series, flavour):
            for kernel in builds:
                if kernel.name not in but:
                    return kernel
    raise PackageError(f"{suite} offers no {series} kernel of flavour {flavour} for {arch}")


# 6.1.0-56-cloud-amd64, 6.12.117+deb13-arm64-16k, 6.1.0-0.deb11.52-rt-amd64, 7.3-powerpc64le
_RELEASE = re.compile(r"(?P<series>\d+\.\d+)(\.\d+)?(\+[^-]+)?(-[\d.]+(deb[\d.]+)?)?-(?P<flavour>[a-z].*)")
_NO_IMAGE = ("-dbg", "-unsigned", "-template")


@functools.cache
def kernels(suite: str, arch: str) -> Sequence[Sequence[KernelPackage]]:
    """The kernel images that `suite` offers now: for each series and flavour its builds, the newest first.

    The image is in linux-image-RELEASE, and since Debian's 6.19 in linux-binary-RELEASE. Then linux-image-RELEASE is a
    metapackage, as linux-image-6.1-cloud-amd64 always was; what depends on another image is no image. The -unsigned
    packages hold the same images as the signed ones.
    """
    with cache.locked(cache.directory("deb", suite, arch)):
        search = ("search", "--names-only", "--full", r"^linux-(image|binary)-[0-9]")
        listing = _index(suite, arch).run("apt-cache", *search)
    found: dict[tuple[str, str], list[KernelPackage]] = {}
    for kernel in images(listing):
        found.setdefault((kernel.series, kernel.flavour), []).append(kernel)
    return [newest_first(builds) for builds in found.values()]


def images(listing: str) -> Iterator[KernelPackage]:
    """The packages of an index that hold a kernel image."""
    for stanza in listing.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Depends): (.*)$", stanza, re.MULTILINE))
        package = re.fullmatch(r"linux-(?:image|binary)-(.*)", fields.get("Package", ""))
        release = _RELEASE.fullmatch(package[1]) if package else None
        if package is None or release is None or package[1].endswith(_NO_IMAGE):
            continue
        if not re.search(r"\blinux-(image|binary)-", fields.get("Depends", "")):
            yield KernelPackage(fields["Package"], fields["Version"], package[1], release["series"], release["flavour"])


def newest_first(builds: Sequence[KernelPackage]) -> list[KernelPackage]:
    """Sorted by Debian version."""
    return sorted(builds, key=functools.cmp_to_key(_compare_versions), reverse=True)


def _compare_versions(left: KernelPackage, right: KernelPackage) -> int:
    for relation, answer in (("lt", -1), ("gt", 1)):
        command = ["dpkg", "--compare-versions", left.version, relation, right.version]
        if subprocess.run(command, check=False).returncode == 0:
            return answer
    return 0


def _index(suite: str, arch: str) -> apt.Repository:
    """The index of (suite, architecture), with that of its security updates. Call it with the cache locked."""
    state = cache.directory("apt", f"{suite}-{arch}")
    with_security = (suite, f"{suite}-security") if suite in WITH_SECURITY else (suite,)
    # Security updates are not made for every architecture, and a mirror may lag with those of some.
    for suites in dict.fromkeys((with_security, (suite,))):
        refused: list[str] = []
        repository = apt.Repository(state, suites, arch)
        if repository.current(refused.append):
            for reason in refused:
                log.warning("%s; an older index stays in use", reason)
            return repository
        log.warning("%s", *refused)
    raise PackageError(refused[0])
