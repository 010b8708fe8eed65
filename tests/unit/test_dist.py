"""What is shipped: the same bytes from the same tree, complete, and runnable from where it lands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, out: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two wheels of two copies of the tree, whose files have different times."""
    found = []
    for n in range(2):
        copy = tmp_path_factory.mktemp(f"tree{n}") / "sockpid"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in tracked.decode().split("\0"):
            if name and (ROOT / name).exists():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy / name)
        found.append(build(copy, copy / "dist"))
    return found


def test_two_builds_give_identical_bytes(wheels: list[Path]) -> None:
    assert wheels[0].read_bytes() == wheels[1].read_bytes()


def test_wheel_holds_code_tables_and_images(wheels: list[Path]) -> None:
    names = set(zipfile.ZipFile(wheels[0]).namelist())
    runtime = {f"sockpid/{p.name}" for p in (ROOT / "runtime/sockpid").glob("*.py")}
    tables = {f"sockpid/_data/offsets/{p.relative_to(ROOT / 'offsets')}" for p in (ROOT / "offsets").glob("*/*.json")}
    images = {f"sockpid/_data/bpf_bytecode/sockpid.{order}.json" for order in ("bpfel", "bpfeb")}
    assert runtime | tables | images <= names
    assert not [name for name in names if name.endswith((".c", ".h")) or "/tests/" in name]


def test_wheel_finds_its_data_from_inside_a_zip(wheels: list[Path]) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sockpid import data, tracer; "
        "print(tracer.load_image('big').byte_order, len(data.read('offsets/x86_64/6.1.json')) > 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(wheels[0])], capture_output=True, text=True, check=True
    )
    assert done.stdout == "big True\n"


def test_runtime_needs_no_package() -> None:
    metadata = (ROOT / "pyproject.toml").read_text()
    assert "dependencies = []" in metadata
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "runtime"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("sockpid ")


@pytest.mark.parametrize("old", ["python3.7", "python3.8", "python3.9"])
def test_runtime_starts_on_old_pythons(old: str) -> None:
    if subprocess.run([old, "--version"], capture_output=True, check=False).returncode if shutil.which(old) else True:
        pytest.skip(f"{old} is not installed here; vermin holds the floor")
    done = subprocess.run(
        [old, "-I", "-S", str(ROOT / "runtime"), "run", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "INTERRUPTED" in done.stdout
