"""Chooses what goes into a bundle: code, images, tables of the kernels asked for, pyroute2, licences.

The form of the file is `sockpid.bundle.bundle`'s. It depends on what goes in alone: not on the clock, the umask, the
order of directories or the version of Python, as long as zlib compresses alike; with `precompile`, on that of the
interpreter that compiles.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import sockpid
from sockpid import data
from sockpid.arch import of_machine
from sockpid.bundle import bundle
from sockpid.errors import BundleError, UsageError
from sockpid.event.text import printable
from sockpid.image.image import file_name
from sockpid.table import table
from sockpid_gen.table import shard

from .precompile import precompile

RUNTIME = Path(sockpid.__file__).parent
MAIN = "cli/bundle_main.py"


class Choice(NamedTuple):
    """Which kernels: of these architectures, series, releases (as in a shell) and build-ids (or how these start).

    Empty: all. A kernel must fit each of the four.
    """

    archs: Sequence[str] = ()
    series: Sequence[str] = ()
    releases: Sequence[str] = ()
    build_ids: Sequence[str] = ()

    def has_shard(self, parsed: table.Shard) -> bool:
        archs = [of_machine(name).name for name in self.archs]
        return (not archs or parsed.arch in archs) and (not self.series or parsed.series in self.series)

    def has_kernel(self, entry: table.Entry) -> bool:
        build_id = entry.build_id or ""
        return (not self.releases or any(fnmatch.fnmatchcase(entry.release, glob) for glob in self.releases)) and (
            not self.build_ids or any(len(b) >= 4 and build_id.startswith(b.lower()) for b in self.build_ids)
        )


class Built(NamedTuple):
    """A bundle and what is in it. packages: version by name; kernels: (architecture, release) of each."""

    content: bytes
    packages: Dict[str, Any]
    kernels: List[Tuple[str, str]]


def build(offsets: Path, choice: Choice, with_pyroute2: bool = True, python: Optional[str] = None) -> Built:
    """Makes a bundle. python: the interpreter that compiles its modules, None: they stay source.

    Raises UsageError if no kernel fits, or pyroute2 is wanted and not installed; TableError.
    """
    files: Dict[str, bytes] = dict(_runtime())
    files["__main__.py"] = files.pop(f"sockpid/{MAIN}")
    kernels: List[Tuple[str, str]] = []
    orders = set()
    for path in sorted(offsets.glob("*/*.json")):
        content = path.read_bytes()
        parsed = table.parse_shard(content, str(path))
        chosen = [entry for entry in parsed.entries if choice.has_kernel(entry)] if choice.has_shard(parsed) else []
        if not chosen:
            continue
        kernels += [(parsed.arch, entry.release) for entry in chosen]
        orders.add(of_machine(parsed.arch).byte_order)
        if len(chosen) < len(parsed.entries):
            content = shard.trim(content, choice.has_kernel, str(path))
        files[f"sockpid/_data/offsets/{parsed.arch}/{parsed.series}.json"] = content
    if not kernels:
        raise UsageError(f"no kernel in {offsets} fits what was asked for (`sockpid-gen list` shows what is there)")
    for order in orders:
        files[f"sockpid/_data/bpf_bytecode/{file_name(order)}"] = _data(f"bpf_bytecode/{file_name(order)}")
    files["sockpid/_data/bpf_bytecode/LICENSE"] = _data("bpf_bytecode/LICENSE")
    files["LICENSE"] = _licence()
    packages: Dict[str, Any] = {}
    if with_pyroute2:
        packages["pyroute2"] = _add_distribution(files, "pyroute2")
    if python is not None:
        files.update(precompile(files, python))
    about = {
        "producer": f"sockpid-gen {sockpid.__version__}",
        "version": sockpid.__version__,
        "kernels": len(kernels),
        "packages": packages,
    }
    return Built(bundle.pack(files, about), packages, kernels)


def read(path: Path) -> bytes:
    """The bytes of a bundle, as far as one may have any. Raises BundleError."""
    try:
        with path.open("rb") as file:
            return file.read(bundle.LIMIT + 1)
    except OSError as error:
        raise BundleError(f"{printable(str(path))}: {error.strerror}") from None


def _runtime() -> Iterator[Tuple[str, bytes]]:
    """The package sockpid by name in the bundle, without tables and images."""
    for path in RUNTIME.rglob("*"):
        parts = path.relative_to(RUNTIME).parts
        if path.is_file() and "__pycache__" not in parts and parts[0] != "_data" and path.suffix != ".pyc":
            yield "/".join(("sockpid", *parts)), path.read_bytes()


def _data(name: str) -> bytes:
    content = data.read(name)
    if content is None:
        raise BundleError(f"{name} is not part of this installation")
    return content


def _licence() -> bytes:
    """The licence of sockpid itself, which lies beside the sources or among what the installer recorded."""
    beside = RUNTIME.parents[1] / "LICENSE"
    if (RUNTIME.parent.name, beside.is_file()) == ("runtime", True):
        return beside.read_bytes()
    for file in importlib.metadata.files("sockpid") or []:
        if file.parts[-2:] == ("licenses", "LICENSE"):
            return file.read_binary()
    raise BundleError("the licence of sockpid is not part of this installation")


def _add_distribution(files: Dict[str, bytes], name: str) -> Dict[str, Any]:
    """Adds the Python modules and licences of an installed distribution. Returns what the manifest says of it."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{name} is not installed here; `pip install 'sockpid[diag]'` brings it, --without-{name} leaves it out"
        ) from None
    for file in found.files or []:
        inside = file.parts[0] == name and file.suffix == ".py"
        if inside or (file.parts[0].endswith(".dist-info") and "licenses" in file.parts):
            files["/".join(file.parts)] = file.read_binary()
    about = found.metadata.json
    return {
        "version": found.version,
        "licence": about.get("license_expression") or about.get("license"),
        "python": about.get("requires_python"),
    }
