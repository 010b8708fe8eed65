"""Names of source files out of line tables of every version, whole and damaged."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sockpid.errors import SourceError
from sockpid_gen.dwarf.dwarf import file_names
from sockpid_gen.dwarf.line_tables import FileNames

COMPILERS = pytest.mark.parametrize("compiler", ["gcc", "clang-14"])


def compiled(directory: Path, compiler: str, option: str) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    (directory / "net").mkdir()
    (directory / "net/sock.h").write_text("struct sock { int a; };\n")
    (directory / "net/inet_sock.h").write_text("static inline int of(struct sock *s) { return s->a; }\n")
    (directory / "main.c").write_text(
        '#include "net/sock.h"\n#include "net/inet_sock.h"\nint f(void *p) { return of(p); }\n'
    )
    command = [compiler, "-g", option, "-fPIC", "-shared", "-nostdlib", "main.c", "-o", "main.so"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "main.so"


@COMPILERS
@pytest.mark.parametrize("option", ["-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5"])
def test_files_and_directories(tmp_path: Path, compiler: str, option: str) -> None:
    """One name is the end of another; the linker keeps that string once."""
    with compiled(tmp_path, compiler, option).open("rb") as file:
        names = file_names(file)
    assert {"main.c", "sock.h", "inet_sock.h"} <= set(names.files)
    assert "net" in names.directories


@COMPILERS
@pytest.mark.parametrize("option", ["-gdwarf-4", "-gdwarf-5"])
def test_damaged_tables_are_errors_or_other_names(tmp_path: Path, compiler: str, option: str) -> None:
    with compiled(tmp_path, compiler, option).open("rb") as file:
        section = ELFFile(file).get_section_by_name(".debug_line")
        assert section is not None
        table = section.data()
    for size in range(len(table)):
        with contextlib.suppress(SourceError):
            FileNames(table[:size], 0, size, lambda *_: b"x", True)
    for at in range(min(len(table), 80)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            damaged = bytearray(table)
            damaged[at] = value
            with contextlib.suppress(SourceError):
                FileNames(bytes(damaged), 0, len(damaged), lambda *_: b"x", True)


def test_a_table_of_a_version_to_come() -> None:
    with pytest.raises(SourceError, match="line tables of DWARF 6"):
        FileNames(b"\x02\0\0\0\x06\0", 0, 6, lambda *_: b"", True)
