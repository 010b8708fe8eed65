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
from collections.abc import Sequence
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
    """The package that holds one kernel image. `release` is what `uname -r` says when it runs."""

    name: str
    version: str
    release: str


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


def find_kernel(suite: str, arch: str, flavour: str, series: str) -> KernelPackage:
    """The newest kernel image of `series` ("6.1") and `flavour` ("cloud-amd64") that `suite` offers now.

    The image is in linux-image-RELEASE, and since Debian's 6.19 in linux-binary-RELEASE. Then linux-image-RELEASE is a
    metapackage, as linux-image-6.1-cloud-amd64 always was; what depends on another image is no image.
    """
    with cache.locked(cache.directory("deb", suite, arch)):
        config = _index(suite, arch)
        pattern = rf"^linux-(image|binary)-{re.escape(series)}([.+-].*)?-{re.escape(flavour)}$"
        listing = _apt("apt-cache", config, "search", "--names-only", "--full", pattern)
    found: list[KernelPackage] = []
    for stanza in listing.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Depends): (.*)$", stanza, re.MULTILINE))
        match = re.fullmatch(r"linux-(?:image|binary)-(.*)", fields.get("Package", ""))
        if match and not re.search(r"\blinux-(image|binary)-", fields.get("Depends", "")):
            found.append(KernelPackage(fields["Package"], fields["Version"], match[1]))
    if not found:
        raise PackageError(f"{suite} offers no {series} kernel of flavour {flavour} for {arch}")
    return max(found, key=functools.cmp_to_key(_compare_versions))


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
    cache.write(state / "sources.list", "".join(_sources(suite)).encode())
    cache.write(config, _CONFIG.format(state=state, arch=arch).encode())
    try:
        _apt("apt-get", config, "update", "--error-on=any")
    except PackageError as error:
        if not stamp.exists():
            raise
        log.warning("%s; the index of %s stays in use", error, time.ctime(stamp.stat().st_mtime))
        return config
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
