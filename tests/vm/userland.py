"""Other user lands to run a bundle in: another Python, another C library. A guest enters their directory by chroot.

bullseye: Debian 11's Python 3.9. pypy: its PyPy, which speaks Python 3.7. musl: CPython linked to musl, as in Alpine.
That one is put together: wheels of freeze-core for musl hold an interpreter with its extension modules, as the base
that cx_Freeze freezes programs onto; Debian has the C library, zlib's source, and the modules written in Python.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import cache, packages, unpack
from .newc import DIRECTORY, FILE, PROGRAM, SYMLINK, Entry, archive

ROOT = "userland"
"""Where it lies in the guest."""

_ALL = r"(?!usr/share/|etc/|var/).*"
_NO_TESTS = r"(?!.*/(test|tests|lib2to3|idlelib|tkinter|ensurepip)/)(?!usr/share/|etc/|var/).*"
_LIBRARIES = dict.fromkeys(("libc6", "zlib1g", "libexpat1", "libbz2-1.0", "libtinfo6", "libgcc-s1"), _ALL)
BULLSEYE = {
    **_LIBRARIES,
    "libffi7": _ALL,
    "python3.9-minimal": r"usr/bin/python3\.9",
    "libpython3.9-minimal": _NO_TESTS,
    "libpython3.9-stdlib": _NO_TESTS,
    "libssl1.1": _ALL,
}
PYPY = {
    **_LIBRARIES,
    "libffi7": _ALL,
    "libncursesw6": _ALL,
    "libssl1.1": _ALL,
    "pypy3": _NO_TESTS,
    "pypy3-lib": _NO_TESTS,
}

# What the base of cx_Freeze imports and calls when the program is called python3; DIR/lib is on the path then.
STARTUP = """
import runpy, sys

def run(_):
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Userland(NamedTuple):
    """python: the command that runs Python there. entries: makes the files, by path within it."""

    python: str
    entries: Callable[[], Mapping[str, Entry]]


def _debian(wanted: Mapping[str, str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for package, pattern in wanted.items():
        found.update(unpack.members(packages.fetch(package, "bullseye", "amd64"), pattern))
    return found


def _musl() -> dict[str, Entry]:
    found = dict(unpack.members(packages.fetch("musl", "trixie", "amd64"), _ALL))  # 1.2.5, which the wheel wants
    for package in ("libpython3.11-minimal", "libpython3.11-stdlib"):
        found.update(unpack.members(packages.fetch(package, "bookworm", "amd64"), _NO_TESTS))
    found = {
        path.replace("usr/lib/python3.11/", "python/lib/"): entry
        for path, entry in found.items()
        if "lib-dynload" not in path and "_sysconfigdata" not in path
    }
    with zipfile.ZipFile(wheel("freeze-core", "musllinux_1_2_x86_64", "3.11")) as members:
        for name in members.namelist():
            if match := re.fullmatch(r"freeze_core/lib/(.*\.so)", name):
                found[f"python/lib/{match[1]}"] = Entry(FILE, members.read(name))
            elif match := re.fullmatch(r"freeze_core\.libs/(lib(ffi|intl)-.*)", name):
                found[f"freeze_core.libs/{match[1]}"] = Entry(FILE, members.read(name))
                found[f"python/lib/{match[1]}"] = Entry(FILE, members.read(name))
            elif re.fullmatch(r"freeze_core/bases/console-cpython-311-x86_64-linux-musl", name):
                found["python/python3"] = Entry(PROGRAM, members.read(name))
    found["usr/lib/libz.so.1"] = Entry(FILE, _zlib())
    found["python/lib/__init__python3.py"] = Entry(FILE, STARTUP.encode())
    return found


def _zlib() -> bytes:
    """zlib for musl: wheels leave it to the system."""
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(packages.fetch_source("zlib", "bookworm")) as source:
            source.extractall(directory, filter="data")
        files = [str(path) for path in Path(directory).glob("zlib-*/*.c") if not path.name.startswith("gz")]
        command = ["musl-gcc", "-O2", "-fPIC", "-shared", "-Wl,-soname,libz.so.1", "-o", f"{directory}/libz.so.1"]
        subprocess.run([*command, *files], check=True, capture_output=True)
        return Path(directory, "libz.so.1").read_bytes()


def wheel(name: str, platform: str, python: str) -> Path:
    """A wheel, fetched by pip. Without network if it was fetched before."""
    directory = cache.directory("wheel", platform)
    pattern = f"{name.replace('-', '_')}-*.whl"
    with cache.locked(directory):
        for found in sorted(directory.glob(pattern)):
            return found
        with tempfile.TemporaryDirectory(dir=directory, prefix=".download.") as partial:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += [
                f"--platform={platform}",
                f"--python-version={python}",
                "--implementation=cp",
                f"--dest={partial}",
            ]
            done = subprocess.run([*command, name], capture_output=True, text=True, check=False)
            if done.returncode:
                raise packages.PackageError(f"pip download {name}: {done.stderr.strip()}")
            (found,) = Path(partial).glob(pattern)
            return found.rename(directory / found.name)


USERLANDS: Mapping[str, Userland] = {
    "bullseye": Userland("/usr/bin/python3.9 -I -S", lambda: _debian(BULLSEYE)),
    "pypy": Userland("/usr/bin/pypy3 -I -S", lambda: _debian(PYPY)),
    "musl": Userland("/python/python3", _musl),
}


@functools.cache
def archive_of(name: str) -> bytes:
    """The archive of a user land, below ROOT."""
    entries = {f"{ROOT}/{path}": entry for path, entry in USERLANDS[name].entries().items()}
    for directory in ("proc", "sys", "dev", "tmp"):
        entries[f"{ROOT}/{directory}"] = Entry(DIRECTORY)
    for link in ("lib", "lib64"):
        entries[f"{ROOT}/{link}"] = Entry(SYMLINK, f"usr/{link}".encode())
    return archive(entries)


def enter(name: str) -> str:
    """Shell commands that mount what it takes; and the start of a command that runs Python in there."""
    mounts = "".join(f"mount --bind /{d} /{ROOT}/{d}\n" for d in ("proc", "sys", "dev"))
    mounts += f"mount -t tracefs tracefs /{ROOT}/sys/kernel/tracing\n"
    return f"{mounts}python='chroot /{ROOT} {USERLANDS[name].python}'\n"
