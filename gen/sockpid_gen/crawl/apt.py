"""Debian repositories through apt, from the mirror that this machine is set up for.

Each repository has apt state of its own in a directory, so nothing on the machine changes: no foreign architecture, no
source, no pin. Mirror addresses come from the machine's own configuration, and so do proxies and the trusted keys.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from sockpid.errors import SourceError
from sockpid_gen.table.shard import write

SUITES = (
    "bullseye", "bullseye-security", "bookworm", "bookworm-security", "bookworm-backports", "trixie", "trixie-security",
    "trixie-backports", "forky", "sid", "experimental",
)  # fmt: skip
"""Where Debian's kernels of today and of the last releases are."""

APT_TIMEOUT = 1800
"""Seconds after which an apt command is given up: a debug package has up to a gigabyte."""

INDEX_LIFETIME = 24 * 3600
"""Seconds after which a mirror's index is fetched again."""

_HELPER = "/usr/lib/apt/apt-helper"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The machine's own hooks and pins are about its own packages. The state may lie where apt's own user cannot go.
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


class Package(NamedTuple):
    """One package of an index. size is in bytes; sha256, in hex, is the index's; uri is where the file is."""

    name: str
    version: str
    depends: str
    size: int
    sha256: str
    uri: str


class Repository(NamedTuple):
    """Suites ("bookworm", "bookworm-security") of one architecture ("arm64"), with apt's state in a directory."""

    state: Path
    suites: Tuple[str, ...]
    arch: str

    @property
    def config(self) -> Path:
        """The file for apt's option -c."""
        return self.state / "apt.conf"

    def age(self) -> float:
        """Seconds since the index was last fetched; infinite if it never was."""
        stamp = self.state / "updated"
        return time.time() - stamp.stat().st_mtime if stamp.exists() else float("inf")

    def update(self) -> None:
        """Fetches the index. Raises SourceError with what apt says, if the mirror lacks the suite for example."""
        state = self.state.resolve()
        for part in ("lists/partial", "archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        write(state / "status", b"")
        write(state / "sources.list", "".join(map(source_line, self.suites)).encode())
        write(self.config, _CONFIG.format(state=state, arch=self.arch).encode())
        self.run("apt-get", "update", "--error-on=any")
        (state / "updated").touch()

    def current(self, warn: Callable[[str], None]) -> bool:
        """Whether there is an index; fetched anew if it is a day old.

        When the mirror cannot be reached or does not have a suite for the architecture, `warn` is told, and an older
        index does.
        """
        if self.age() > INDEX_LIFETIME:
            try:
                self.update()
            except SourceError as error:
                warn(f"{' and '.join(self.suites)} for {self.arch}: {error}")
        return self.age() < float("inf")

    def run(self, tool: str, *arguments: str, directory: Optional[Path] = None) -> str:
        """What an apt tool says about this repository, started in `directory`. Raises SourceError if it refuses."""
        return run([tool, "-q", "-c", str(self.config.resolve()), *arguments], directory)

    def packages(self, prefix: str) -> Iterator[Package]:
        """All versions of the packages whose names start with `prefix`, as the index lists them."""
        listing = self.run("apt-get", "indextargets", "--format", "$(FILENAME) $(REPO_URI)", "Created-By: Packages")
        for line in listing.splitlines():
            file, _, base = line.rpartition(" ")
            text = run([_HELPER, "-c", str(self.config.resolve()), "cat-file", file])
            for stanza in _stanzas(text, f"Package: {prefix}"):
                fields: Dict[str, str] = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
                yield Package(
                    fields["Package"],
                    fields["Version"],
                    fields.get("Depends", ""),
                    int(fields["Size"]),
                    fields["SHA256"],
                    base.rstrip("/") + "/" + fields["Filename"],
                )


def _stanzas(text: str, start: str) -> Iterator[str]:
    """The stanzas of an index that start so. Indices have tens of megabytes, and few of their stanzas are wanted."""
    at = 0 if text.startswith(start) else text.find("\n" + start) + 1
    while at or text.startswith(start):
        end = text.find("\n\n", at)
        if end < 0:
            end = len(text)
        yield text[at:end]
        at = text.find("\n" + start, end) + 1
        if not at:
            return


def download(uri: str, sha256: Optional[str], path: Path) -> None:
    """Fetches a file the way apt does: its proxies, its retries, the hash (if known) checked. Raises SourceError."""
    options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    run([_HELPER, *options, "download-file", uri, str(path), *([f"SHA256:{sha256}"] if sha256 else [])])


def source_line(suite: str) -> str:
    """What a suite's line in sources.list is (man 5 sources.list). Raises SourceError as mirror() does."""
    signed = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
    return f"deb{signed} {mirror(suite)} {suite} main\n"


@functools.lru_cache(maxsize=None)
def mirror(suite: str) -> str:
    """The address from which this machine's apt takes the archive that a suite belongs to. Raises SourceError."""
    label = "Debian-Security" if suite.endswith("-security") else "Debian"
    listing = run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    )
    for line in listing.splitlines():
        if line.startswith(f"{label} "):
            return line.split(" ", 1)[1]
    raise SourceError(f"apt on this machine has no source labelled {label} (apt-get update may be due)")


def run(command: Sequence[str], directory: Optional[Path] = None) -> str:
    """The output of an apt command. Raises SourceError if it fails, is missing or does not come to an end."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    arguments: List[str] = list(command)
    try:
        done = subprocess.run(
            arguments,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=APT_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise SourceError(f"{arguments[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{' '.join(arguments)}: no answer within {APT_TIMEOUT} s") from None
    if done.returncode:
        raise SourceError(f"{' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
