"""What is shipped: the same bytes from the same tree, complete, and runnable from where it lands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from sockpid import __version__
from tests import bundles

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
        "import sys; sys.path.insert(0, sys.argv[1]); from sockpid import data; "
        "from sockpid.probe import tracer; "
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


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9"])
def test_runtime_starts_on_old_pythons(version: str) -> None:
    old = bundles.interpreter(version)
    if old is None:
        pytest.skip(f"Python {version} is not installed here; vermin holds the floor")
    done = subprocess.run(
        [old, "-I", "-S", str(ROOT / "runtime"), "run", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "INTERRUPTED" in done.stdout


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes of this tree."""
    directory = tmp_path_factory.mktemp("dist") / "dist"
    command = ["make", "-s", "-C", str(ROOT), "dist", f"DIST={directory}", f"VENV={sys.prefix}"]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.mark.download
def test_a_distribution_is_complete_and_has_its_digests(distribution: Path) -> None:
    found = {path.name.replace(__version__, "*") for path in distribution.iterdir()}
    versioned = {"sockpid-*-py3-none-any.whl", "sockpid-*.tar.gz", "sockpid_*_all.deb"}
    assert found == versioned | {"sockpid.pyz", "sockpid-gen.1", "wheelhouse", "SHA256SUMS"}
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=distribution, check=True, capture_output=True).stdout == b""
    files = [path for path in distribution.rglob("*") if path.is_file()]
    assert len((distribution / "SHA256SUMS").read_text().splitlines()) == len(files) - 1


@pytest.mark.download
def test_the_wheelhouse_is_all_that_a_machine_without_network_needs(distribution: Path, tmp_path: Path) -> None:
    """In a network namespace without so much as loopback, with no setting of this machine's pip."""
    alone = ["unshare", "--map-root-user", "--net", "env", "-i", "PATH=/usr/bin:/bin", "PIP_CONFIG_FILE=/dev/null"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")

    def run(*command: str) -> str:
        done = subprocess.run([*alone, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout

    assert [line.split(":")[0].strip() for line in run("cat", "/proc/net/dev").splitlines()[2:]] == ["lo"]
    venv.create(tmp_path / "venv")
    install = ["install", "--no-index", "--find-links", str(distribution / "wheelhouse"), "sockpid[gen,diag]"]
    run(sys.executable, "-m", "pip", "--python", "venv/bin/python", *install)
    assert run("venv/bin/sockpid", "--version").startswith("sockpid ")
    assert "bad" not in run("venv/bin/sockpid-gen", "check")
    known = json.loads(run("venv/bin/sockpid-gen", "list", "--json"))
    shards = (ROOT / "offsets").glob("*/*.json")
    assert len(known) == sum(len(json.loads(path.read_bytes())["kernels"]) for path in shards) > 500
    run("venv/bin/sockpid-gen", "bundle", "-o", "made.pyz", "--arch", "x86_64", "--series", "6.1")
    assert run("venv/bin/python", "-I", "-S", "made.pyz", "--version").startswith("sockpid ")
