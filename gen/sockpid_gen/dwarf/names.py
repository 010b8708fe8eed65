"""All definitions of a type in DWARF. drgn knows several of one name by the files that they are in, and gives one.

So it is asked for the type in every file that the line tables name. Two that are in one file, told apart by
the preprocessor, it takes for one.
"""

from __future__ import annotations

import os
from typing import IO, Any, Iterator, Optional

import drgn

from .dwarf import file_names
from .line_tables import FileNames


class Definitions:
    """The definitions of types by name ("struct sock"), in a program whose types are those of a file's DWARF."""

    def __init__(self, prog: drgn.Program, file: IO[bytes]) -> None:
        self._prog = prog
        self._file = file
        self._names: Optional[FileNames] = None

    def __call__(self, name: str) -> Iterator[drgn.Type]:
        """Every one that can be told from the others by its file."""
        if self._names is None:
            self._names = file_names(self._file)
        for base in self._names.files:
            if self._find(name, base) is None:
                continue
            for directory in self._names.directories:
                found = self._find(name, os.path.join(directory, base))
                if found is not None and found.is_complete():
                    yield found

    def _find(self, name: str, file: str) -> Any:
        try:
            return self._prog.type(name, file)
        except LookupError:
            return None
