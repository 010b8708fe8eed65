"""Imports modules out of the bytes of a bundle that were verified, and no more out of its file: what runs is what was
looked at, whatever becomes of the file meanwhile. An upgrade replaces it while it runs.
"""

from __future__ import annotations

import os
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

    from .bundle import Member

_Spec: Any = type(globals()["__spec__"])  # ModuleSpec: to import importlib.machinery for it takes longer than all below


class Finder:
    """Finds and loads the modules of a bundle (sys.meta_path), and gives its data.

    archive: path of the bundle. content: all of its bytes.
    """

    def __init__(self, archive: str, content: bytes) -> None:
        self.archive = archive
        self.content = content
        self._places: Dict[str, Tuple[int, int, bool]] = {}
        self._tops: Dict[str, None] = {}

    def add(self, member: Member) -> None:
        """Takes a verified member in."""
        start = member.offset + len(member.header())
        self._places[member.name] = start, start + len(member.packed), member.method != 0
        self._tops[member.name.partition("/")[0]] = None

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> Optional[Any]:
        """The spec of a module of the bundle (importlib.abc.MetaPathFinder)."""
        if fullname.partition(".")[0] not in self._tops:
            return None
        found = self._module(fullname)
        if found is None:
            return None
        name, is_package = found
        spec = _Spec(fullname, self, origin=os.path.join(self.archive, name), is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(os.path.dirname(spec.origin))
        return spec

    @staticmethod
    def create_module(_spec: object) -> None:
        """As usual."""

    def exec_module(self, module: Any) -> None:
        name = module.__spec__.origin[len(self.archive) + 1 :]
        exec(self._code(name), module.__dict__)

    def get_source(self, fullname: str) -> Optional[str]:
        """For tracebacks."""
        found = self._module(fullname)
        return None if found is None else self._content(found[0]).decode()

    def get_data(self, path: str) -> bytes:
        """A file of the bundle, by its path below that of the bundle. Raises OSError if there is none."""
        name = path[len(self.archive) + 1 :]
        if not path.startswith(self.archive) or name not in self._places:
            raise FileNotFoundError(path)
        return self._content(name)

    def _module(self, fullname: str) -> Optional[Tuple[str, bool]]:
        base = fullname.replace(".", "/")
        for name, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if name in self._places:
                return name, is_package
        return None

    def _code(self, name: str) -> Any:
        compiled = f"{name}c"
        if compiled in self._places:
            content = self._content(compiled)
            if content[:4] == _magic():
                import marshal

                return marshal.loads(content[16:])
        return compile(self._content(name), os.path.join(self.archive, name), "exec", dont_inherit=True)

    def _content(self, name: str) -> bytes:
        start, end, packed = self._places[name]
        content = self.content[start:end]
        return zlib.decompress(content, -15) if packed else content


def _magic() -> bytes:
    """What bytecode of this Python begins with."""
    found: Any = sys.modules.get("_frozen_importlib_external")  # where importlib.util takes it from
    if found is None:
        import importlib.util

        found = importlib.util
    magic: bytes = found.MAGIC_NUMBER
    return magic
