"""What a guest runs on: busybox, a Python of the standard library, and sockpid as it lies in the checkout.

Nothing else of a distribution is there, so a command that works in the guest needs nothing else. The archives are not
compressed, but for the smallest guests: the kernel would unpack them in emulation.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cache, packages, python
from .newc import DIRECTORY, FILE, PROGRAM, SYMLINK, Entry, archive
from .unpack import members

INIT = Path(__file__).with_name("init")
RUNTIME = cache.CHECKOUT / "runtime"
STALE = 24 * 3600
BUSYBOX = r"(usr/)?bin/busybox"
_OURS = (INIT, Path(__file__), Path(python.__file__))


def base(arch: str, *, minimal: bool = False) -> Path:
    """The archive that every guest of `arch` boots from, cached under the hash of what went into it.

    minimal: of the standard library only what sockpid imports, and that as bytecode alone.
    """
    chosen = python.PYTHONS[arch]
    wanted = {"busybox-static": BUSYBOX, **chosen.packages}
    debs = {packages.fetch(package, chosen.suite, arch): pattern for package, pattern in wanted.items()}
    recipe = hashlib.sha256()
    for path in (*_OURS, *debs, *(sorted(RUNTIME.glob("**/*.py")) if minimal else ())):
        recipe.update(path.name.encode() if path in debs else path.read_bytes())
    directory = cache.directory("initramfs")
    kind = f"{arch}-minimal" if minimal else arch
    path = directory / f"{kind}-{recipe.hexdigest()[:16]}.cpio"
    with cache.locked(directory):
        if not path.exists():
            # Other checkouts may use the same cache: only what is old goes.
            for stale in directory.glob(f"{kind}-{'[0-9a-f]' * 16}.cpio"):
                if time.time() - stale.stat().st_mtime > STALE:
                    stale.unlink()
            entries = _base_entries(chosen, debs)
            # While it unpacks, an archive is in memory twice.
            content = gzip.compress(archive(_minimal(chosen, entries)), mtime=0) if minimal else archive(entries)
            cache.write(path, content + bytes(-len(content) % 4))
    return path


def bare(arch: str) -> bytes:
    """The archive of a guest that has busybox, and nothing else: no Python, no C library."""
    deb = packages.fetch("busybox-static", python.PYTHONS[arch].suite, arch)
    return archive({**_skeleton(), **dict(members(deb, BUSYBOX))})


def _minimal(chosen: python.Python, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    needed = {_portable(path) for path in python.needed(chosen, RUNTIME)}
    library = f"usr/lib/python{chosen.version}/"
    kept: dict[str, Entry] = {}
    for path, entry in entries.items():
        if not path.startswith(library) or (_portable(path) in needed and not path.endswith(".py")):
            kept[path] = entry
        elif "/__pycache__/" in path:
            name = re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc$", r"\1.py", path)
            if name in needed:
                kept[f"{name}c"] = entry  # found without a source
    return kept


def _portable(path: str) -> str:
    """A path without what says the architecture of an extension module: needed() is asked of this machine's Python."""
    return path.partition(".cpython-")[0]


@functools.cache
def checkout(arch: str, table: str) -> bytes:
    """The archive of sockpid itself, below /sockpid, laid out as in the checkout.

    Of the offset tables those that match `table` (a pattern below offsets/). The bytecode caches are for the Python of
    `arch`.
    """
    sources: dict[str, bytes] = {}
    others: dict[str, Entry] = {"sockpid/runtime": Entry(DIRECTORY)}
    for pattern in ("runtime/**/*.py", "runtime/**/py.typed", f"offsets/{table}", "bpf_bytecode/*.json"):
        for path in cache.CHECKOUT.glob(pattern):
            name, content = f"sockpid/{path.relative_to(cache.CHECKOUT)}", path.read_bytes()
            others[name] = Entry(FILE, content)
            if path.suffix == ".py":
                sources[name] = content
    return archive({**others, **_compiled(python.PYTHONS[arch], sources)})


def order(command: Sequence[str], files: Mapping[str, bytes]) -> bytes:
    """The archive that tells /init what to run, with `files` by their path in the guest."""
    entries = {path: Entry(PROGRAM if content[:2] == b"#!" else FILE, content) for path, content in files.items()}
    entries["run/command"] = Entry(FILE, f"cd /\nexec {shlex.join(command)}\n".encode())
    return archive(entries)


def _skeleton() -> dict[str, Entry]:
    entries = {path: Entry(DIRECTORY) for path in ("dev", "proc", "run", "sys", "tmp")}
    entries |= {path: Entry(SYMLINK, f"usr/{path}".encode()) for path in ("bin", "lib", "lib64")}
    return {**entries, "init": Entry(PROGRAM, INIT.read_bytes())}


def _base_entries(chosen: python.Python, debs: Mapping[Path, str]) -> dict[str, Entry]:
    entries = _skeleton()
    entries["usr/bin/python3"] = Entry(SYMLINK, f"python{chosen.version}".encode())
    for deb, wanted in debs.items():
        entries.update(members(deb, wanted))
    sources = {path: entry.content for path, entry in entries.items() if path.endswith(".py")}
    return {**entries, **_compiled(chosen, sources)}


def _compiled(chosen: python.Python, sources: Mapping[str, bytes]) -> dict[str, Entry]:
    return {path: Entry(FILE, content) for path, content in python.compiled(chosen, sources).items()}
