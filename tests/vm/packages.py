"""Debian packages of any suite and architecture, fetched by apt from the mirror that this machine is set up for.

Each (suite, architecture) gets apt state of its own below the cache, so nothing on the machine changes: no foreign
architecture, no source, no pin. Mirror addresses come from the machine's own configuration, and so do proxies and the
keys that are trusted.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import cache

log = logging.getLogger(__name__)

INDEX_LIFETIME = 24 * 3600
APT_TIMEOUT = 600
WITH_SECURITY = frozenset({"bullseye", "bookworm", "trixie"})
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class PackageError(Exception):
    """apt refused, or the archive does not have what was asked for. The message says which."""


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
        config = _index(suite, arch)
        with tempfile.TemporaryDirectory(dir=debs, prefix=".download.") as partial:
            _apt("apt-get", config, "download", f"{package}:{arch}", cwd=Path(partial))
            (deb,) = Path(partial).glob("*.deb")
            return deb.rename(debs / deb.name)


def fetch_source(package: str, suite: str) -> Path:
    """The upstream tarball of `package`. Without network if it was fetched before."""
    sources = cache.directory("source", suite)
    with cache.locked(sources):
        for found in sorted(sources.glob(f"{package}_*.orig.tar.*")):
            return found
        config = _index(suite, "amd64")
        with tempfile.TemporaryDirectory(dir=sources, prefix=".download.") as partial:
            state = Path(partial) / "state"
            (state / "lists/partial").mkdir(parents=True)
            listing = Path(partial) / "sources.list"
            listing.write_text(_sources(suite)[0].replace("deb ", "deb-src ", 1))
            own = [f"-oDir::State={state}", f"-oDir::Cache={state}", f"-oDir::Etc::sourcelist={listing}"]
            _apt("apt-get", config, *own, "update", "--error-on=any")
            _apt("apt-get", config, *own, "--download-only", "source", package, cwd=Path(partial))
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
        config = _index(suite, arch)
        listing = _apt("apt-cache", config, "search", "--names-only", "--full", r"^linux-(image|binary)-[0-9]")
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


def _index(suite: str, arch: str) -> Path:
    """An apt configuration whose index of (suite, arch) is at most a day old. Call it with the cache locked.

    When the mirror cannot be reached, an older index does: what is in the cache stays usable off line.
    """
    state = cache.directory("apt", f"{suite}-{arch}")
    config, stamp = state / "apt.conf", state / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < INDEX_LIFETIME:
        return config
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    cache.write(state / "status", b"")
    cache.write(config, _CONFIG.format(state=state, arch=arch).encode())
    sources = _sources(suite)
    while True:
        cache.write(state / "sources.list", "".join(sources).encode())
        try:
            _apt("apt-get", config, "update", "--error-on=any")
        except PackageError as error:
            if stamp.exists():
                log.warning("%s; the index of %s stays in use", error, time.ctime(stamp.stat().st_mtime))
                return config
            # Security updates are not made for every architecture, and a mirror may lag with those of some.
            if len(sources) == 1:
                raise
            log.warning("%s; %s for %s is used without it", error, suite, arch)
            del sources[-1]
        else:
            stamp.touch()
            return config


# The machine's own hooks and pins are about its own packages. The cache may lie where apt's own user cannot go.
_CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
"""


def _sources(suite: str) -> list[str]:
    options = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
    sources = [f"deb{options} {_mirror('Debian')} {suite} main\n"]
    if suite in WITH_SECURITY:
        sources.append(f"deb{options} {_mirror('Debian-Security')} {suite}-security main\n")
    return sources


@functools.cache
def _mirror(label: str) -> str:
    """The address from which this machine's apt takes the archive of that label."""
    targets = _run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ]
    )
    for line in targets.splitlines():
        if line.startswith(f"{label} "):
            return line.split(" ", 1)[1]
    raise PackageError(f"apt on this machine has no source labelled {label} (apt-get update may be due)")


def _apt(tool: str, config: Path, *arguments: str, cwd: Path | None = None) -> str:
    return _run([tool, "-q", "-c", str(config), *arguments], cwd)


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=APT_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise PackageError(f"{command[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise PackageError(f"{' '.join(command)}: no answer within {APT_TIMEOUT} s") from None
    if done.returncode:
        raise PackageError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
