"""DWARF in the forms that compilers and distributions give it: read, or refused with the reason."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar, Dict

import pytest

from sockpid.errors import SourceError
from sockpid.table.layout import Field, Struct
from sockpid_gen import Table
from sockpid_gen.extraction.extraction import extract
from sockpid_gen.kernel.source import open_source
from tests import kernel_files as make

WANTED = {"struct sock": frozenset(("state", "next[1]"))}
SOURCE = (
    """
struct sock { short type; unsigned state : 5; void *next[2]; } sock;
const char linux_banner[] = "BANNER";
"""
    + make.C_OTHERS
)


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
def test_split_and_packaged(tmp_path: Path, form: str) -> None:
    dwp = shutil.which("llvm-dwp") or shutil.which("llvm-dwp-14")
    if dwp is None:
        pytest.skip("llvm-dwp is not installed")
    path = build(tmp_path, form)
    subprocess.run([dwp, "-e", path, "-o", f"{path}.dwp"], cwd=tmp_path, check=True)
    (tmp_path / "s.dwo").unlink()
    check(path)


class Debuginfod(http.server.BaseHTTPRequestHandler):
    """Speaks the protocol (man 8 debuginfod): GET /buildid/HEX/debuginfo."""

    files: ClassVar[Dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_debuginfod_server_has_the_dwarf(tmp_path: Path) -> None:
    """An image without types; a server knows the build by its build-id, another does not."""
    path = build(tmp_path, "-gdwarf-5")
    with open_source(path) as kernel:
        build_id = kernel.build_id
    Debuginfod.files = {f"/buildid/{build_id}/debuginfo": path.read_bytes()}
    image = tmp_path / "stripped" / "vmlinux"
    image.parent.mkdir()
    subprocess.run(["objcopy", "--strip-debug", path, image], check=True)
    offsets = tmp_path / "offsets"
    command = [sys.executable, "-m", "sockpid_gen", "add", str(image), "--find=debuginfod", f"--offsets={offsets}"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Debuginfod) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        own = {"DEBUGINFOD_URLS": url, "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache"), "NO_PROXY": "*"}
        environment = {**os.environ, **own}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        Debuginfod.files = {}
        environment["DEBUGINFOD_CACHE_PATH"] = str(tmp_path / "another")
        other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    (entry,) = Table.load(offsets)
    assert entry.build_id == build_id
    assert entry.provenance["kind"] == "dwarf"
    assert entry.provenance["debug"] == "debuginfo"
    assert entry.measured
    row = entry.layout["struct sock"]
    assert isinstance(row, Struct)
    assert row.size == 24
    assert other.returncode != 0
    assert "neither BTF nor DWARF" in other.stderr


@pytest.mark.parametrize("form", SPLIT)
def test_types_in_a_missing_file_are_not_called_absent(tmp_path: Path, form: str) -> None:
    path = build(tmp_path, form)
    (tmp_path / "s.dwo").unlink()
    with (
        open_source(path) as kernel,
        pytest.raises(SourceError, match=r"struct sock was not found .* its DWARF is split"),
    ):
        extract(kernel, WANTED)


def refused(path: Path, message: str, wanted: Dict[str, Any] = WANTED) -> None:
    with open_source(path) as kernel, pytest.raises(SourceError, match=message):
        extract(kernel, wanted)


def linked(directory: Path, compiler: str, **sources: str) -> Path:
    """A kernel of several objects: source by name; the first word is an option of its own ("-g0")."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    objects = []
    for name, text in {"banner": f'-g const char linux_banner[] = "{make.BANNER}";', **sources}.items():
        options, _, source = text.partition(" ")
        suffix = "s" if name.startswith("entry") else "c"
        (directory / f"{name}.{suffix}").write_text(source + "\n")
        objects.append(f"{name}.o")
        command = [compiler, *options.split(","), "-fPIC", "-c", f"{name}.{suffix}", "-o", objects[-1]]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    command = [compiler, "-shared", "-nostdlib", "-Wl,--build-id", *objects, "-o", "vmlinux"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "vmlinux"


COMPILERS = pytest.mark.parametrize("compiler", ["gcc", "clang-14"])
VERSIONS = pytest.mark.parametrize("version", [4, 5])
SOCK = (
    "struct sock { short type; unsigned state : 5; void *next[2]; } sock; struct sock *of(struct sock *s) { return s; }"
)
WITH_MORE = {**WANTED, "struct more": frozenset("x")}


@COMPILERS
@VERSIONS
def test_a_type_that_is_nowhere_is_absent(tmp_path: Path, compiler: str, version: int) -> None:
    path = linked(tmp_path, compiler, main=f"-gdwarf-{version} {SOCK}")
    with open_source(path) as kernel:
        assert extract(kernel, WITH_MORE).layout["struct more"] is None


@COMPILERS
@VERSIONS
def test_a_type_that_is_only_declared_is_not_called_absent(tmp_path: Path, compiler: str, version: int) -> None:
    path = linked(tmp_path, compiler, main=f"-gdwarf-{version} {SOCK} struct more *more;")
    refused(path, "struct more was not found .* it is mentioned, but nowhere defined", WITH_MORE)


@COMPILERS
def test_an_object_without_debug_information_is_named(tmp_path: Path, compiler: str) -> None:
    path = linked(
        tmp_path, compiler, main=f"-g {SOCK}", other="-g0 struct more { int x; } m; int f(void) { return m.x; }"
    )
    refused(path, r"struct more was not found .* no debug information: other\.c", WITH_MORE)


def test_objects_with_few_types_are_noticed(tmp_path: Path) -> None:
    path = linked(tmp_path, "gcc", main=f"-g {SOCK}", other="-g1 struct more { int x; } m; int f(void) { return m.x; }")
    refused(path, "struct more was not found .* compiled with -g1, which leaves out types", WITH_MORE)


@VERSIONS
def test_units_with_line_numbers_alone_are_noticed(tmp_path: Path, version: int) -> None:
    other = f"-gdwarf-{version},-gline-tables-only struct more {{ int x; }} m; int f(void) {{ return m.x; }}"
    path = linked(tmp_path, "clang-14", main=f"-gdwarf-{version} {SOCK}", other=other)
    refused(path, "struct more was not found .* 1 units of C in it have line numbers alone", WITH_MORE)


@pytest.mark.parametrize("form", SPLIT)
@pytest.mark.parametrize("missing", ["main.dwo", "more.dwo"])
def test_split_behind_an_assembler_unit(tmp_path: Path, form: str, missing: str) -> None:
    """Not the first unit tells whether DWARF is split; one file of several is missing."""
    options = form.replace(" ", ",")
    more = f"{options} struct more {{ int x; }} more;"
    version = "5" if "5" in form else "4"
    entry = f"-Wa,-gdwarf-{version} .globl entry\n entry: ret"
    path = linked(tmp_path, "clang-14", entry=entry, main=f"{options} {SOCK}", more=more)
    (tmp_path / missing).unlink()
    name = "struct sock" if missing == "main.dwo" else "struct more"
    refused(path, f"{name} was not found .* its DWARF is split", WITH_MORE)


@COMPILERS
@VERSIONS
@pytest.mark.parametrize("where", ["b", "net/main"])
def test_two_types_of_one_name_are_refused(tmp_path: Path, compiler: str, version: int, where: str) -> None:
    """In another file, or in one of the same name in another directory."""
    (tmp_path / "net").mkdir()
    other = SOCK.replace("short type", "long type").replace("sock;", "sock2;").replace("*of(", "*of2(")
    path = linked(tmp_path, compiler, **{"main": f"-gdwarf-{version} {SOCK}", where: f"-gdwarf-{version} {other}"})
    refused(path, "several different types called 'struct sock'")


@COMPILERS
@VERSIONS
def test_two_types_of_one_name_may_differ_in_what_nobody_asks(tmp_path: Path, compiler: str, version: int) -> None:
    other = SOCK.replace("type;", "kind;").replace("sock;", "sock2;").replace("*of(", "*of2(")
    check(linked(tmp_path, compiler, main=f"-gdwarf-{version} {SOCK}", b=f"-gdwarf-{version} {other}"))


def test_a_kernel_without_what_every_kernel_has(tmp_path: Path) -> None:
    path = linked(tmp_path, "gcc", main=f"-g {SOCK}")
    wanted = {**WANTED, "struct task_struct": frozenset({"pid"})}
    refused(path, "has no struct task_struct, which every kernel has: it is not that of a whole kernel", wanted)
