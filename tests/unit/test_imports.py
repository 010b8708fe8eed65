"""The direction of imports, held by reading the sources."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = sorted((ROOT / "runtime/sockpid").rglob("*.py"))
GEN = sorted((ROOT / "gen/sockpid_gen").glob("*.py"))
PURE = {
    "__init__", "agreement", "arch", "arguments", "btf", "btf_fields", "btf_header", "btf_index", "btf_record",
    "btf_section", "bundle", "calibration", "commands", "consensus", "container", "data", "deniable", "errors",
    "event", "filters", "findings", "hooks", "image", "image_digests", "inet_sock", "insn", "layout", "manual",
    "named", "notes", "peek_prog", "plain_json", "qr", "relocate", "request", "rows", "scanned", "sha256",
    "signature", "socket_tuple", "table", "table_types", "table_writer", "uapi", "whole_file", "words",
    "top.__init__", "top.columns", "top.model", "top.state", "top.view",
    "graph.__init__", "graph.export", "graph.model", "graph.suspects", "graph.transport", "graph.view",
}  # fmt: skip
OF_SOME_PYTHONS = {"_collections", "_json", "_sha2", "_sha256"}
"""Of the standard library of some versions, and not of the one that looks."""
KERNEL_HALF_ONLY = {"ctypes", "mmap", "socket", "subprocess", "fcntl", "select", "resource", "signal", "time"}
PURE_ALL_THE_SAME = {"socket_tuple": {"socket"}}
"""inet_ntop() and inet_pton() ask nobody."""
READS_KERNEL_FILES = {
    "calibrate_sock",
    "calibrate_task",
    "capability",
    "deaf",
    "descriptors",
    "exercise",
    "hooks",  # names one
    "keep",
    "kernel",
    "kernel_btf",
    "lookup",
    "map",
    "netns",
    "offsets",
    "peek",
    "perf",
    "pin",
    "pinned",
    "proc",
    "proc_net",
    "provoke",
    "selfcheck",
    "survey",
    "tracefs",
    "witness",
    "workers",
}
FOREIGN = {"sock_diag": {"pyroute2"}}


def name(path: Path) -> str:
    """A module's name within sockpid: "event", "outputs.table"; a package is called "outputs.__init__"."""
    return ".".join(path.relative_to(ROOT / "runtime/sockpid").with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere; relative ones as "sockpid.x"."""
    package = ".".join(path.relative_to(ROOT).parent.parts[1:])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module}" if node.level and node.module else node.module or package
            package_itself = (node.level and not node.module) or node.module in ("sockpid", "sockpid_gen")
            assert node.level < 2, f"{path}: a package above is imported by its name"
            found.update(f"{base}.{alias.name}" for alias in node.names) if package_itself else found.add(base)
    return found


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", RUNTIME, ids=name)
def test_runtime_imports_the_standard_library_and_itself(path: Path) -> None:
    foreign = {top(m) for m in imports(path)} - sys.stdlib_module_names - OF_SOME_PYTHONS - {"sockpid", "__future__"}
    assert foreign == FOREIGN.get(name(path), set())


@pytest.mark.parametrize("stem", FOREIGN)
def test_what_is_foreign_is_imported_when_it_is_needed(stem: str) -> None:
    body = ast.parse((ROOT / f"runtime/sockpid/{stem}.py").read_text()).body
    at_once = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    at_once |= {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}
    assert not {top(name) for name in at_once} & FOREIGN[stem]


@pytest.mark.parametrize("path", [p for p in RUNTIME if name(p) in PURE], ids=name)
def test_pure_half_does_not_touch_the_kernel(path: Path) -> None:
    used = {top(m) for m in imports(path)}
    assert used & KERNEL_HALF_ONLY == PURE_ALL_THE_SAME.get(name(path), set())
    own = {m.partition(".")[2] for m in imports(path) if m.startswith("sockpid.")} - {"__version__"}
    assert own <= PURE


def test_pure_modules_exist() -> None:
    assert set(map(name, RUNTIME)) >= PURE


@pytest.mark.parametrize("path", GEN, ids=lambda p: p.stem)
def test_generator_uses_only_the_pure_half(path: Path) -> None:
    own = {m.split(".")[1] for m in imports(path) if m.startswith("sockpid.")} - {"__version__"}
    assert own <= PURE


def test_one_module_calls_libc() -> None:
    calling = {name(p) for p in RUNTIME if "CDLL" in p.read_text()}
    assert calling == {"syscall"}


def test_few_modules_read_kernel_files() -> None:
    named = {name(p) for p in RUNTIME if any(f'"{root}' in p.read_text() for root in ("/proc", "/sys"))}
    assert named <= READS_KERNEL_FILES


def test_data_directories_hold_no_python() -> None:
    assert not [p for d in ("offsets", "bpf_bytecode") for p in (ROOT / d).rglob("*.py")]
