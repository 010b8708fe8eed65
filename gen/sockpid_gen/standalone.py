"""One executable for hosts without Python: a bundle, and the Python that runs here, packed by PyInstaller.

The bundle lies in it as it is, so it looks at every byte of itself there as well. The C library is the host's: which
one it takes is found out from the libraries that were packed, and said by `--version`.
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
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from elftools.common.exceptions import ELFError
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
_SPEC = """\
import os, PyInstaller
from sockpid_gen import standalone

found = Analysis(["program.py"], hiddenimports={modules!r}, excludes=["sockpid", "sockpid_gen", "pyroute2"])
loader = os.path.join(os.path.dirname(PyInstaller.__file__), "bootloader")
programs = [os.path.join(root, "run") for root, _, names in os.walk(loader) if "run" in names]
libc = standalone.libc([path for _, path, _ in found.binaries] + programs)
with open("about", "w") as file:
    file.write({about!r}.format(libc=libc))
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
    about = f"sockpid {sockpid.__version__}\nstandalone: {architecture()}, {{libc}} or later, Python {python}\n"
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


def libc(paths: Sequence[str]) -> str:
    """The C library that these programs and libraries take: "glibc 2.34", the newest version that one of them names."""
    newest: Tuple[int, ...] = ()
    for path in paths:
        for wanted in _versions(path):
            match = re.fullmatch(r"GLIBC_([0-9.]+)", wanted)
            if match:
                newest = max(newest, tuple(int(number) for number in match.group(1).split(".")))
    return "glibc " + ".".join(map(str, newest)) if newest else "a C library that was not recognised"


def _versions(path: str) -> Iterator[str]:
    """Versions of symbols that an ELF file takes from others."""
    with open(path, "rb") as file:
        try:
            sections: List[Any] = list(ELFFile(file).iter_sections())
        except ELFError:
            return
        for section in sections:
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    yield from (str(version.name) for version in versions)


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
