"""One executable for hosts without Python: a bundle, and the Python that runs here, packed by PyInstaller.

The bundle lies in it as it is, so it looks at every byte of itself there as well. The C library is the host's, and so
is what PyInstaller's own part takes before it has unpacked anything. Both are found out from the programs and libraries
themselves, and said by `--version`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

import sockpid
from sockpid.arch import of_machine
from sockpid.errors import SourceError, UsageError

# Nothing here is of the build: the same bundle and the same Python make the same program.
_ENVIRONMENT = {"PYTHONHASHSEED": "1", "SOURCE_DATE_EPOCH": "315532800"}
_MAIN = """\
import os, runpy, sys

bundle = os.path.join(sys._MEIPASS, "sockpid.pyz")
if sys.argv[1:] == ["--version"]:
    print(open(os.path.join(sys._MEIPASS, "about")).read(), end="")
else:
    runpy.run_path(bundle, run_name="__main__")
"""
# glibc's own libraries, dynamic linker included, on every architecture.
_GLIBC = re.compile(r"(lib(c|dl|m|pthread|rt|util|resolv)|ld[-a-z0-9_]*)\.so\.[0-9]+")
_SPEC = """\
import os, PyInstaller
from sockpid_gen.bundle import standalone

found = Analysis(["program.py"], hiddenimports={modules!r}, excludes=["sockpid", "sockpid_gen", "pyroute2"])
loader = os.path.join(os.path.dirname(PyInstaller.__file__), "bootloader")
programs = [os.path.join(root, "run") for root, _, names in os.walk(loader) if "run" in names]
takes = standalone.takes(programs, [path for _, path, _ in found.binaries])
with open("about", "w") as file:
    file.write({about!r}.format(takes=takes))
found.datas += [(name, os.path.abspath(name), "DATA") for name in ("sockpid.pyz", "about")]
EXE(PYZ(found.pure), found.scripts, found.binaries, found.datas, name="sockpid", console=True, upx=False)
"""


class Standalone(NamedTuple):
    """The program, and what it says of itself: architecture, C library, Python."""

    content: bytes
    about: str


def architecture() -> str:
    """The architecture that a standalone program is for: this machine's, whose Python it takes along."""
    return of_machine(platform.machine()).name


def build(files: Dict[str, bytes], bundle: bytes) -> Standalone:
    """Makes the program of a bundle and the files in it.

    Raises UsageError where PyInstaller is not installed, SourceError with what it says if it does not succeed.
    """
    if importlib.util.find_spec("PyInstaller") is None:
        raise UsageError(
            "--standalone takes PyInstaller, which is not installed here: pip install 'sockpid[standalone]'"
        )
    python = sys.version.split()[0]
    about = f"sockpid {sockpid.__version__}\nstandalone: {architecture()}, {{takes}}, Python {python}\n"
    with tempfile.TemporaryDirectory(prefix="sockpid-gen.") as name:
        directory = Path(name)
        (directory / "sockpid.pyz").write_bytes(bundle)
        (directory / "program.py").write_text(_MAIN)
        (directory / "sockpid.spec").write_text(_SPEC.format(modules=sorted(_needed(files)), about=about))
        command = [sys.executable, "-m", "PyInstaller", "--log-level=ERROR", "--noconfirm", "sockpid.spec"]
        environment = {**os.environ, **_ENVIRONMENT}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SourceError(f"PyInstaller: {done.stderr.strip() or done.stdout.strip()}")
        return Standalone((directory / "dist/sockpid").read_bytes(), (directory / "about").read_text())


def takes(programs: Sequence[str], packed: Sequence[str]) -> str:
    """What a host must have: "glibc 2.35 or later, libz.so.1".

    programs: what runs before anything is unpacked. packed: programs and libraries that are unpacked by them.
    """
    newest: Tuple[int, ...] = ()
    others: Set[str] = set()
    for path in (*programs, *packed):
        versions, libraries = _wanted(path)
        for version in versions:
            match = re.fullmatch(r"GLIBC_([0-9.]+)", version)
            if match:
                newest = max(newest, tuple(int(number) for number in match.group(1).split(".")))
        if path in programs:
            others.update(name for name in libraries if not _GLIBC.fullmatch(name))
    libc = f"glibc {'.'.join(map(str, newest))} or later" if newest else "a C library that was not recognised"
    return ", ".join([libc, *sorted(others)])


def _wanted(path: str) -> Tuple[List[str], List[str]]:
    """Versions of symbols that an ELF file takes from others, and the libraries that it names. No ELF file: nothing."""
    versions: List[str] = []
    libraries: List[str] = []
    with open(path, "rb") as file:
        try:
            sections: List[Any] = list(ELFFile(file).iter_sections())
        except ELFError:
            return [], []
        for section in sections:
            if isinstance(section, GNUVerNeedSection):
                for _, wanted in section.iter_versions():
                    versions += (str(version.name) for version in wanted)
            elif isinstance(section, DynamicSection):
                libraries += (str(tag.needed) for tag in section.iter_tags("DT_NEEDED"))  # type: ignore[attr-defined]
    return versions, libraries


def _needed(files: Dict[str, bytes]) -> Set[str]:
    """The modules of the standard library that a bundle's code imports anywhere."""
    found: Set[str] = set()
    for name, content in files.items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name for name in found if name.partition(".")[0] in sys.stdlib_module_names}
