"""DWARF in the forms that compilers and distributions give it: read, or refused with the reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sockpid.errors import SourceError
from sockpid.layout import Field, Struct
from sockpid_gen.extraction import extract
from sockpid_gen.source import open_source
from tests import kernel_files as make

WANTED = {"struct sock": frozenset(("state", "next[1]"))}
SOURCE = """
struct sock { short type; unsigned state : 5; void *next[2]; } sock;
const char linux_banner[] = "BANNER";
"""


def build(directory: Path, form: str, source: str = SOURCE) -> Path:
    """A shared library that has of a kernel what is looked at: a banner, a build-id, and DWARF."""
    clang = shutil.which("clang") or shutil.which("clang-14")
    if clang is None:
        pytest.skip("clang is not installed")
    (directory / "s.c").write_text(source.replace("BANNER", make.BANNER))
    path = directory / "vmlinux"
    linked = ["-target", "x86_64-linux-gnu", "-shared", "-nostdlib", "-Wl,--build-id", "-o", str(path)]
    for command in ([clang, *form.split(), "-c", "s.c", "-o", "s.o"], [clang, *form.split(), "s.o", *linked]):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return path


FORMS = ["-gdwarf-4", "-gdwarf-5", "-gdwarf-4 -gz=zlib", "-gdwarf-5 -gz=zlib"]
SPLIT = ["-gdwarf-4 -gsplit-dwarf", "-gdwarf-5 -gsplit-dwarf"]


@pytest.mark.parametrize("form", [*FORMS, *SPLIT])
def test_forms_of_dwarf(tmp_path: Path, form: str) -> None:
    check(build(tmp_path, form))


@pytest.mark.parametrize("form", ["zlib", "zlib-gnu", "zstd"])
def test_compressed_afterwards(tmp_path: Path, form: str) -> None:
    path = build(tmp_path, "-gdwarf-5")
    command = ["objcopy", f"--compress-debug-sections={form}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized" in done.stderr or "invalid" in done.stderr or "not supported" in done.stderr:
        pytest.skip(f"objcopy does not know {form}")
    assert done.returncode == 0, done.stderr
    check(path)


def check(path: Path) -> None:
    with open_source(path) as kernel:
        assert kernel.btf is None
        found = extract(kernel, WANTED)
    row = found.layout["struct sock"]
    assert found.kind == "dwarf"
    assert isinstance(row, Struct)
    assert row.fields == {"state": Field(16, 5, bitfield=True), "next[1]": Field(128, 64)}


@pytest.mark.parametrize("form", SPLIT)
def test_types_in_a_missing_file_are_not_called_absent(tmp_path: Path, form: str) -> None:
    path = build(tmp_path, form)
    (tmp_path / "s.dwo").unlink()
    with open_source(path) as kernel, pytest.raises(SourceError, match="DWARF is split, and struct sock was not found"):
        extract(kernel, WANTED)
