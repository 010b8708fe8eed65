"""What a guest runs on: busybox, a Python of the standard library, and sockpid as it lies in the checkout.

Nothing else of a distribution is there, so a command that works in the guest needs nothing else. The archives are not
compressed: the kernel would unpack them in emulation.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import cache, packages
from .newc import DIRECTORY, FILE, PROGRAM, SYMLINK, Entry, archive

INIT = Path(__file__).with_name("init")
SUITE = "bookworm"
PYTHON = "3.11"

# Extension modules that need no library but those of PACKAGES. The standard library falls back where one is missing.
_EXTENSIONS = "_asyncio|_contextvars|_ctypes|_json|_multiprocessing|_queue|_typing|_zoneinfo|mmap|resource|termios"
_UNUSED = (
    "__pycache__|config-.*|ctypes/test|curses|dbm|distutils|ensurepip|idlelib|lib2to3|pydoc_data|sitecustomize|"
    "sqlite3|test|tkinter|turtledemo|unittest|venv|wsgiref|xml|xmlrpc|"
    rf"lib-dynload(?!/({_EXTENSIONS})\.)|"
    "encodings/(big5|cp(?!437)|euc|gb|hp|hz|iso|johab|koi8|kz|mac|palm|ptcp|shift|tis)"
)
_STDLIB = rf"usr/lib/python{PYTHON}/(?!{_UNUSED}).*"

# package: which of its files
PACKAGES: Mapping[str, str] = {
    "busybox-static": r"bin/busybox",
    f"python{PYTHON}-minimal": rf"usr/bin/python{PYTHON}",
    f"libpython{PYTHON}-minimal": _STDLIB,
    f"libpython{PYTHON}-stdlib": _STDLIB,
    "libc6": r"lib(64)?/(.*/)?(ld-linux.*|libc|libm)\.so\.\d",
    "libexpat1": r".*/libexpat\.so\.1.*",
    "libffi8": r".*/libffi\.so\.8.*",
    "zlib1g": r".*/libz\.so\.1.*",
}


def base(arch: str) -> Path:
    """The archive that every guest of `arch` boots from, cached under the hash of what went into it."""
    debs = [packages.fetch(package, SUITE, arch) for package in PACKAGES]
    recipe = hashlib.sha256(repr((sorted(PACKAGES.items()), sys.version_info[:2])).encode())
    for path in (INIT, Path(__file__), *debs):
        recipe.update(path.name.encode() if path in debs else path.read_bytes())
    directory = cache.directory("initramfs")
    path = directory / f"{arch}-{recipe.hexdigest()[:16]}.cpio"
    with cache.locked(directory):
        if not path.exists():
            for stale in directory.glob(f"{arch}-*.cpio"):
                stale.unlink()
            cache.write(path, archive(_base_entries(debs)))
    return path


def checkout() -> bytes:
    """The archive of sockpid itself, below /sockpid, laid out as in the checkout."""
    entries: dict[str, Entry] = {"sockpid/runtime": Entry(DIRECTORY)}
    for pattern in ("runtime/**/*.py", "runtime/**/py.typed", "offsets/**/*.json", "bpf_bytecode/*.json"):
        for path in cache.CHECKOUT.glob(pattern):
            entries[f"sockpid/{path.relative_to(cache.CHECKOUT)}"] = Entry(FILE, path.read_bytes())
    return archive({**entries, **_compiled(entries)})


def order(command: Sequence[str], files: Mapping[str, bytes]) -> bytes:
    """The archive that tells /init what to run, with `files` by their path in the guest."""
    entries = {path: Entry(PROGRAM if content[:2] == b"#!" else FILE, content) for path, content in files.items()}
    entries["run/command"] = Entry(FILE, f"cd /\nexec {shlex.join(command)}\n".encode())
    return archive(entries)


def _base_entries(debs: Sequence[Path]) -> dict[str, Entry]:
    entries = {path: Entry(DIRECTORY) for path in ("dev", "proc", "run", "sys", "tmp")}
    entries["init"] = Entry(PROGRAM, INIT.read_bytes())
    entries["usr/bin/python3"] = Entry(SYMLINK, f"python{PYTHON}".encode())
    for deb, wanted in zip(debs, PACKAGES.values(), strict=True):
        selected = dict(_members(deb, wanted))
        if not selected:
            raise packages.PackageError(f"{deb.name} has no file {wanted}")
        entries.update(selected)
    return {**entries, **_compiled(entries)}


def _members(deb: Path, wanted: str) -> Iterator[tuple[str, Entry]]:
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as members:
        for member in members:
            path = member.name.removeprefix("./")
            if not re.fullmatch(wanted, path):
                continue
            if member.issym():
                yield path, Entry(SYMLINK, member.linkname.encode())
            elif content := members.extractfile(member):
                yield path, Entry(PROGRAM if member.mode & 0o100 else FILE, content.read())


def _compiled(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The bytecode caches of all modules in `entries`, if the Python that runs us is of the guest's version.

    Compiling what `import ctypes, json, socket` needs takes a guest two seconds. The caches are of the unchecked kind
    (PEP 552): the guest never looks at a source file's time.
    """
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        return {}
    tag = f"cpython-{PYTHON.replace('.', '')}"
    unchecked_hash = (1).to_bytes(4, "little")
    found: dict[str, Entry] = {}
    for path, entry in entries.items():
        if not path.endswith(".py"):
            continue
        directory, _, name = path.rpartition("/")
        code = marshal.dumps(compile(entry.content, f"/{path}", "exec", dont_inherit=True, optimize=0))
        header = importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(entry.content)
        found[f"{directory}/__pycache__/{name[:-3]}.{tag}.pyc"] = Entry(FILE, header + code)
    return found
