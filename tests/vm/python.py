"""The Python of the guests: which one each architecture has, and the bytecode it would compile for itself.

Compiling what sockpid imports takes an emulated guest many seconds, so that is done here: by the same Python, built for
this machine. Bytecode is the same on all architectures.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from . import packages
from .unpack import members

_COMPILER = """
import importlib.util, json, marshal, sys
unchecked_hash = (1).to_bytes(4, "little")  # PEP 552: the guest never looks at a source file's time
found = {}
for path, source in json.load(sys.stdin).items():
    code = marshal.dumps(compile(source, "/" + path, "exec", dont_inherit=True, optimize=0))
    header = importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(source.encode())
    found[importlib.util.cache_from_source(path)] = (header + code).hex()
json.dump(found, sys.stdout)
"""


_CLOSURE = """
import ast, importlib, json, os, sys
sys.path.insert(0, sys.argv[1])
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(open(os.path.join(directory, name)).read())):
                modules = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for module in modules:
                    try:
                        importlib.import_module(module)
                    except ImportError:  # pyroute2, which a target may do without
                        pass
import encodings.idna, encodings.ascii, encodings.latin_1, encodings.utf_8
json.dump([m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)], sys.stdout)
"""


class Python(NamedTuple):
    """A Python as one Debian suite packages it. version: "3.11"."""

    suite: str
    version: str

    @property
    def packages(self) -> Mapping[str, str]:
        """What it is made of: package, and which of the files (a pattern of their paths)."""
        stdlib = rf"usr/lib/python{self.version}/(?!{_UNUSED}).*"
        return {
            f"python{self.version}-minimal": rf"usr/bin/python{self.version}",
            f"libpython{self.version}-minimal": stdlib,
            f"libpython{self.version}-stdlib": stdlib,
            "libc6": r"(usr/)?lib(64)?/(.*/)?(ld-linux.*|ld64|libc|libm)\.so\.\d",
            "libexpat1": r".*/libexpat\.so\.1.*",
            "libgcc-s1": r".*/libgcc_s\.so\.1",
            "libffi8": r".*/libffi\.so\.8.*",
            "zlib1g": r".*/libz\.so\.1.*",
        }


# Debian has riscv64 since trixie.
PYTHONS: Mapping[str, Python] = {
    **dict.fromkeys(("amd64", "arm64", "armhf", "ppc64el", "s390x"), Python("bookworm", "3.11")),
    "riscv64": Python("trixie", "3.13"),
}

# Extension modules that need no library but those above. The standard library falls back where one is missing.
_EXTENSIONS = "_asyncio|_contextvars|_ctypes|_json|_multiprocessing|_queue|_typing|_zoneinfo|mmap|resource|termios"
_UNUSED = (
    "__pycache__|config-.*|ctypes/test|curses|dbm|distutils|ensurepip|idlelib|lib2to3|pydoc_data|sitecustomize|"
    "sqlite3|test|tkinter|turtledemo|unittest|venv|wsgiref|xml|xmlrpc|_pyrepl|"
    rf"lib-dynload(?!/({_EXTENSIONS})\.)|"
    "encodings/(big5|cp(?!437)|euc|gb|hp|hz|iso|johab|koi8|kz|mac|palm|ptcp|shift|tis)"
)


def compiled(python: Python, sources: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The bytecode caches of Python modules, by path; `sources` are by path, too."""
    given = json.dumps({path: source.decode() for path, source in sources.items()})
    done = _run(_here(python), _COMPILER, standard_input=given)
    return {path: bytes.fromhex(content) for path, content in json.loads(done).items()}


def needed(python: Python, code: Path) -> Collection[str]:
    """The modules of the standard library that the Python code below `code` needs: paths of their files."""
    root = _here(python)
    done = _run(root, _CLOSURE, str(code))
    prefix = f"{root.directory.name}/"
    return {path.removeprefix(prefix) for path in json.loads(done) if path.startswith(prefix)}


def _run(root: _Here, script: str, *arguments: str, standard_input: str = "") -> str:
    done = subprocess.run(
        [*root.command, "-I", "-S", "-B", "-c", script, *arguments],
        input=standard_input,
        env={"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise packages.PackageError(f"a guest's Python does not run on this machine: {done.stderr.strip()}")
    return done.stdout


class _Here(NamedTuple):
    """A Python unpacked for this machine, run by its own dynamic linker."""

    directory: tempfile.TemporaryDirectory[str]
    command: list[str]


@functools.cache
def _here(python: Python) -> _Here:
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    directory = tempfile.TemporaryDirectory(prefix="python.")
    libraries, linker = set(), ""
    for package, wanted in python.packages.items():
        for path, entry in members(packages.fetch(package, python.suite, arch), wanted):
            name = os.path.join(directory.name, path)
            os.makedirs(os.path.dirname(name), exist_ok=True)
            if entry.is_symlink:
                os.symlink(entry.content, name)
                continue
            with open(name, "wb") as file:
                file.write(entry.content)
            os.chmod(name, entry.mode & 0o777)
            if ".so" in path:
                libraries.add(os.path.dirname(name))
            if package == "libc6" and "/ld" in path:
                linker = name
    program = f"{directory.name}/usr/bin/python{python.version}"
    return _Here(directory, [linker, "--library-path", ":".join(sorted(libraries)), program])
