"""The direction of imports, held by reading the sources: tests/imports.py says who imports whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests import imports
from tests.imports import GROUND, PACKAGES, PURE, ROOT, WINGS, Module

RUNTIME = list(imports.modules("sockpid").values())
GEN = list(imports.modules("sockpid_gen").values())
OF_SOME_PYTHONS = {"_collections", "_json", "_sha2", "_sha256"}
"""Of the standard library of some versions, and not of the one that looks."""
KERNEL_HALF_ONLY = {"ctypes", "mmap", "socket", "subprocess", "fcntl", "select", "resource", "signal", "time"}
PURE_ALL_THE_SAME = {
    "event.socket_tuple": {"socket"},  # inet_ntop() and inet_pton() ask nobody
    "event.lines": {"time"},  # how long what /proc said is believed
}
ALSO_PURE = {
    "bpf.deniable", "calibrate.findings", "cli.arguments", "host.container", "host.inet_sock", "offsets.age",
    "offsets.agreement", "offsets.calibration", "offsets.consensus", "subjects.peek_prog", "top.columns", "top.model",
    "top.state", "top.view",
}  # fmt: skip
"""In wings that are not."""
FILES = {"sockpid.data", "sockpid.whole_file"}
"""What the generator uses of the ground beyond what is pure: files that travel along, and files replaced whole."""
READS_KERNEL_FILES = {
    "bpf": {"kernel_btf", "map", "perf", "tracefs"},
    "calibrate": {"proof", "sock", "task"},
    "cli": {"survey"},
    "host": {"capability", "descriptors", "kernel", "netns", "proc", "proc_net"},
    "image": {"hooks"},  # names one
    "offsets": {"source"},
    "owner": {"witness"},
    "pins": {"keep", "lookup", "pin", "pinned"},
    "probe": {"exercise"},
    "selfcheck": {"selfcheck"},
    "subjects": {"deaf", "peek", "provoke", "workers"},
}
FOREIGN = {"host.sock_diag": {"pyroute2"}}


def name(module: Module) -> str:
    return f"{module.package}.{module.name}" if module.name else module.package


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_wing_imports_from_those_below_it_alone(package: str) -> None:
    assert list(map(str, imports.upward(package))) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_imports_go_in_a_circle(package: str) -> None:
    """Those for types included."""
    assert list(map(str, imports.circle(package))) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wings_are_all_that_there_are(package: str) -> None:
    found = imports.modules(package).values()
    assert {module.wing for module in found} == set(WINGS[package])
    assert [str(module) for module in found if module.name.count(".") > 1] == [], "a wing has no wings"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wing_says_what_it_is_and_does_nothing(package: str) -> None:
    """Its __init__ may hand on names of its own modules."""
    for wing in set(WINGS[package]) - {GROUND}:
        module = imports.modules(package)[wing]
        body = ast.parse(module.path.read_text()).body
        assert ast.get_docstring(ast.parse(module.path.read_text())), module
        assert {type(node) for node in body} <= {ast.Expr, ast.ImportFrom, ast.Assign}, module
        assert {each.of.wing for each in imports.imports(module)} <= {wing}, module


@pytest.mark.parametrize("module", RUNTIME, ids=name)
def test_runtime_imports_the_standard_library_and_itself(module: Module) -> None:
    outside = {top(m) for m in imports.foreign(module)} - sys.stdlib_module_names - OF_SOME_PYTHONS
    assert outside == FOREIGN.get(module.name, set())
    assert {each.of.package for each in imports.imports(module)} <= {"sockpid"}


@pytest.mark.parametrize("stem", FOREIGN)
def test_what_is_foreign_is_imported_when_it_is_needed(stem: str) -> None:
    body = ast.parse(imports.modules("sockpid")[stem].path.read_text()).body
    at_once = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    at_once |= {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}
    assert not {top(name) for name in at_once} & FOREIGN[stem]


def is_pure(module: Module) -> bool:
    return imports.is_pure(module) or module.name in ALSO_PURE


@pytest.mark.parametrize("module", [m for m in RUNTIME if imports.is_pure(m) or m.name in ALSO_PURE], ids=name)
def test_what_is_pure_does_not_touch_the_kernel(module: Module) -> None:
    used = {top(m) for m in imports.foreign(module)}
    assert used & KERNEL_HALF_ONLY == PURE_ALL_THE_SAME.get(module.name, set())
    assert [str(each) for each in imports.imports(module) if each.of.name and not is_pure(each.of)] == []


def test_what_is_said_to_be_pure_exists() -> None:
    assert set(imports.modules("sockpid")) >= {*ALSO_PURE, *PURE, *PURE_ALL_THE_SAME}


@pytest.mark.parametrize("module", GEN, ids=name)
def test_generator_uses_what_is_pure_alone(module: Module) -> None:
    of_runtime = [each for each in imports.imports(module) if each.of.package == "sockpid" and each.of.name]
    assert [str(each) for each in of_runtime if not imports.is_pure(each.of) and name(each.of) not in FILES] == []


def test_one_module_calls_libc() -> None:
    assert {module.name for module in RUNTIME if "CDLL" in module.path.read_text()} == {"syscall"}


def test_few_modules_read_kernel_files() -> None:
    def names_one(path: Path) -> bool:
        return any(f'"{root}' in path.read_text() for root in ("/proc", "/sys"))

    named = {module.name for module in RUNTIME if names_one(module.path)}
    assert named <= {f"{wing}.{stem}" for wing, stems in READS_KERNEL_FILES.items() for stem in stems}


def test_unit_tests_stand_by_the_wings() -> None:
    """tests/unit/WING tests a wing of sockpid, tests/unit/gen/WING one of the generator."""
    unit = ROOT / "tests/unit"
    ours = {path.parent.relative_to(unit).as_posix() for path in unit.rglob("test_*.py")} - {"."}
    assert {wing for wing in ours if not wing.startswith("gen/")} <= {*WINGS["sockpid"], "lab"}
    assert {wing.removeprefix("gen/") for wing in ours if wing.startswith("gen/")} <= set(WINGS["sockpid_gen"])


def test_an_import_that_goes_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that goes in a circle, though it is for types alone."""
    (tmp_path / "low").mkdir()
    (tmp_path / "high").mkdir()
    for path, text in {
        "__init__.py": "",
        "low/__init__.py": "",
        "low/one.py": "from p.high.two import a, b\n",
        "low/three.py": "if TYPE_CHECKING:\n    from .four import C\n",
        "low/four.py": "def f():\n    from . import three\n",
        "high/__init__.py": "",
        "high/two.py": "a = b = 1\n",
    }.items():
        (tmp_path / path).write_text(text)
    monkeypatch.setitem(PACKAGES, "p", tmp_path)
    monkeypatch.setitem(WINGS, "p", (GROUND, "low", "high"))
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    (up,) = imports.upward("p")
    assert str(up) == "low/one.py takes a, b from high/two.py"
    assert set(map(str, imports.circle("p"))) == {
        "low/three.py takes C from low/four.py",
        "low/four.py takes all from low/three.py",
    }


def test_data_directories_hold_no_python() -> None:
    assert not [p for d in ("offsets", "bpf_bytecode") for p in (ROOT / d).rglob("*.py")]


def test_the_two_ways_are_of_modules_that_exist() -> None:
    for step in (*imports.OFFSET, *imports.EVENT):
        package, _, rest = step.partition(".")
        assert rest in imports.modules(package), step


def test_the_page_has_the_report() -> None:
    """With what each wing says of itself."""
    page = imports.PAGE.read_text()
    assert page.split(imports.BEGIN)[1].split(imports.END)[0] == imports.report(), "python -m tests.imports --write"
