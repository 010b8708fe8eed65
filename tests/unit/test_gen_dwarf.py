"""DWARF in the forms that compilers and distributions give it: read, or refused with the reason."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar, Dict

import pytest

from sockpid.errors import SourceError
from sockpid.layout import Field, Struct
from sockpid_gen import Table
from sockpid_gen.extraction import extract
from sockpid_gen.source import open_source
from tests import kernel_files as make

WANTED = {"struct sock": frozenset(("state", "next[1]"))}
SOURCE = """
struct sock { short type; unsigned state : 5; void *next[2]; } sock;
const char linux_banner[] = "BANNER";
""" + "".join(f"struct {name} {{}} {name};\n" for name in sorted(make.ALWAYS - {"sock"}))


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
