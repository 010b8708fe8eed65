"""Bundles: the same bytes from the same inputs, runnable where there is little, and no byte that nobody looks at."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sockpid.arch import ARCHES
from sockpid.bundle import bundle
from sockpid.errors import BundleError
from sockpid.image.image import file_name
from sockpid.table import table
from sockpid_gen.bundle import standalone
from tests import bundles

ROOT = bundles.ROOT
SHARD = "sockpid/_data/offsets/x86_64/6.1.json"
IMAGE = "sockpid/_data/bpf_bytecode/sockpid.bpfel.json"
BARE = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.make(tmp_path_factory.mktemp("full") / "sockpid.pyz")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "sockpid.pyz"
    return bundles.make(path, "--arch", "x86_64", "--release", newest("x86_64", "6.1"), "--without-pyroute2")


def newest(arch: str, series: str) -> str:
    return table.parse_shard((ROOT / f"offsets/{arch}/{series}.json").read_bytes(), "").entries[-1].release


def start(path: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-I", "-S", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=BARE, cwd="/", timeout=60)


def repacked(path: Path, changes: dict[str, bytes | None]) -> bytes:
    """The bundle with members replaced, added or (None) taken away behind its manifest's back."""
    data = path.read_bytes()
    _, files = bundle.unpack(data, "")
    made = bundle.pack({**files, **{name: content for name, content in changes.items() if content is not None}}, {})
    honest = zipfile.ZipFile(path).read(bundle.MANIFEST)
    entries, body = b"", bytearray(bundle.SHEBANG)
    members = list(bundle._members(made, ""))
    for member in members:
        if changes.get(member.name, b"") is None:
            members = [m for m in members if m is not member]
            continue
        if member.name == bundle.MANIFEST:
            member = member._replace(content=honest, packed=honest, method=0)  # noqa: PLW2901
        moved = member._replace(offset=len(body))
        body += moved.header() + moved.packed
        entries += moved.entry()
    return bytes(body) + entries + bundle._end(len(members), len(entries), len(body))


def test_same_inputs_same_bytes(full: Path, tmp_path: Path) -> None:
    """Another clock, umask, language, home and order of directories."""
    tables = tmp_path / "tables"
    for path in sorted((ROOT / "offsets").glob("*/*.json"), reverse=True):
        (tables / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tables / path.parent.name / path.name)
    script = 'umask 077; exec "$@"'
    command = [sys.executable, "-m", "sockpid_gen", "bundle", "-o", str(tmp_path / "b.pyz"), "--offsets", str(tables)]
    environment = {**os.environ, "TZ": "Pacific/Auckland", "LC_ALL": "C", "HOME": "/nowhere", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run(["sh", "-c", script, "sh", *command], check=True, capture_output=True, env=environment, cwd="/")
    assert (tmp_path / "b.pyz").read_bytes() == full.read_bytes()
    assert (tmp_path / "b.pyz").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("version", bundles.PYTHONS)
def test_every_python_packs_alike_and_runs_it(full: Path, small: Path, version: str) -> None:
    python = bundles.interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sockpid.bundle import bundle\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "about, files = bundle.unpack(data, ''); del about['schema'], about['members']\n"
        "assert bundle.pack(files, about) == data; print('alike')"
    )
    done = subprocess.run([python, "-I", "-S", "-c", code, str(small)], capture_output=True, text=True, check=False)
    assert done.stdout == "alike\n", done.stderr
    for path in (small, full):
        done = start(path, "run", "--help", python=python)
        assert done.returncode == 0, done.stderr
        assert "INTERRUPTED" in done.stdout


def test_a_bundle_for_one_kernel_is_small_and_has_that_kernel_alone(small: Path, full: Path) -> None:
    assert small.stat().st_size < 500 * 1024
    manifest, files = bundle.unpack(small.read_bytes(), "")
    (shard,) = (name for name in files if "_data/offsets/" in name)
    (entry,) = table.parse_shard(files[shard], shard).entries
    assert table.parse_shard(files[shard], shard).layout(entry)
    assert (manifest["kernels"], entry.release) == (1, newest("x86_64", "6.1"))
    assert not [name for name in files if name.startswith("pyroute2")]
    assert [name for name in files if "sockpid.bpf" in name] == [IMAGE]
    assert {"LICENSE", "sockpid/_data/bpf_bytecode/LICENSE"} <= set(files)
    _, whole = bundle.unpack(full.read_bytes(), "")
    assert [name for name in whole if "pyroute2" in name and "LICENSE" in name]
    assert "pyroute2/netlink/diag/__init__.py" in whole
    assert {name.split("_data/")[1] for name in whole if "_data/offsets/" in name} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "offsets").glob("*/*.json")
    }


def test_bytecode_serves_its_python_and_the_others_take_the_source(small: Path, tmp_path: Path) -> None:
    choice = ("--arch", "x86_64", "--release", newest("x86_64", "6.1"), "--without-pyroute2")
    made = [bundles.make(tmp_path / name, *choice, "--precompile", sys.executable) for name in ("a.pyz", "b.pyz")]
    assert made[0].read_bytes() == made[1].read_bytes()
    _, plain = bundle.unpack(small.read_bytes(), "")
    _, files = bundle.unpack(made[0].read_bytes(), "")
    added = {name: content for name, content in files.items() if name not in plain}
    assert {name[:-1] for name in added} == {name for name in plain if name.endswith(".py")}
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sockpid.cli.cli; print(sockpid.cli.cli.__file__[-6:])"
    used = set()
    for version in bundles.PYTHONS:
        python = bundles.interpreter(version)
        if python is not None:
            assert start(made[0], "run", "--help", python=python).returncode == 0
            command = [python, "-I", "-S", "-c", code, str(made[0])]
            used.add(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(made[0])], capture_output=True, text=True, check=True
    )
    assert done.stdout == "li.pyc\n"
    assert used <= {"li.pyc\n", "cli.py\n"}
    damaged = tmp_path / "damaged.pyz"
    damaged.write_bytes(repacked(made[0], {"sockpid/probe/tracer.pyc": b"\0" + added["sockpid/probe/tracer.pyc"][1:]}))
    done = start(damaged, "run")
    assert (done.returncode, "sockpid/probe/tracer.pyc is not what the manifest says" in done.stderr) == (16, True)


@pytest.mark.parametrize("python", ["/nonexistent/python3", "false"])
def test_an_interpreter_that_cannot_compile_is_named(python: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sockpid_gen", "bundle", "-o", str(tmp_path / "x.pyz"), "--precompile", python]
    done = subprocess.run([*command, "--without-pyroute2"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, f"--precompile {python}" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


@functools.cache
def published() -> set[tuple[str, str, str, str]]:
    """Architecture, series, release and build-id of every kernel of the table."""
    found = set()
    for path in (ROOT / "offsets").glob("*/*.json"):
        shard = table.parse_shard(path.read_bytes(), str(path))
        found |= {(shard.arch, shard.series, entry.release, entry.build_id or "") for entry in shard.entries}
    return found


def one_id() -> str:
    return next(build_id for arch, series, _, build_id in sorted(published()) if (arch, series) == ("aarch64", "6.12"))


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        (["--series", "5.10"], lambda arch, series, release, build_id: series == "5.10"),
        (
            ["--arch", "x86_64", "--arch", "s390x", "--series", "6.1", "--series", "6.12"],
            lambda arch, series, release, build_id: arch in ("x86_64", "s390x") and series in ("6.1", "6.12"),
        ),
        (
            ["--release", "6.1.0-*-cloud-*"],
            lambda arch, series, release, build_id: re.match(r"6\.1\.0-.*-cloud-", release),
        ),
        (["--build-id", one_id()[:10].upper()], lambda arch, series, release, build_id: build_id == one_id()),
        (
            ["--arch", "aarch64", "--release", "*-rt-*"],
            lambda arch, series, release, build_id: arch == "aarch64" and "-rt-" in release,
        ),
    ],
    ids=["series", "archs and series", "release", "build-id", "arch and release"],
)
def test_a_bundle_has_the_kernels_that_were_asked_for_and_no_others(
    tmp_path: Path, arguments: list[str], fits: Callable[[str, str, str, str], bool]
) -> None:
    wanted = {kernel for kernel in published() if fits(*kernel)}
    assert 0 < len(wanted) < len(published())
    path = bundles.make(tmp_path / "some.pyz", "--without-pyroute2", *arguments)
    manifest, files = bundle.unpack(path.read_bytes(), "")
    shards = [table.parse_shard(content, name) for name, content in files.items() if "_data/offsets/" in name]
    found = {(shard.arch, shard.series, e.release, e.build_id or "") for shard in shards for e in shard.entries}
    assert found == wanted
    assert manifest["kernels"] == len(wanted)
    orders = {ARCHES[arch].byte_order for arch, *_ in wanted}
    assert [name for name in files if "sockpid.bpf" in name] == sorted(
        f"sockpid/_data/bpf_bytecode/{file_name(o)}" for o in orders
    )


def test_no_kernel_that_fits_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sockpid_gen", "bundle", "-o", str(tmp_path / "none.pyz"), "--release", "1.*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, (tmp_path / "none.pyz").exists()) == (2, False)
    assert "no kernel in offsets fits" in done.stderr


def test_ordinary_tools_read_it(full: Path) -> None:
    with zipfile.ZipFile(full) as archive:
        assert archive.testzip() is None
        digests = json.loads(archive.read(bundle.MANIFEST))["members"]
        assert set(archive.namelist()) == set(digests) | {bundle.MANIFEST}


def test_it_runs_without_home_and_tmp_from_a_file_system_that_cannot_be_written(small: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = bundles.run_where_nothing_can_be_written(small, "doctor --json")
    assert '"schema": 1' in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({SHARD: b"{}"}, f"{SHARD} is not what the manifest says"),
        ({IMAGE: b"{}"}, f"{IMAGE} is not what the manifest says"),
        ({"sockpid/run/run.py": b"print('mine')"}, "sockpid/run/run.py is not what the manifest says"),
        ({"sockpid/extra.py": b""}, "sockpid/extra.py is not in the manifest"),
        ({"json.py": b""}, "json.py is not in the manifest"),
        ({SHARD: None}, f"{SHARD} of the manifest is not there"),
    ],
)
def test_an_altered_member_is_refused_by_name(
    small: Path, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    path = tmp_path / "altered.pyz"
    path.write_bytes(repacked(small, changes))
    done = start(path, "--version")
    assert (done.returncode, done.stdout) == (BundleError.exit_code, "")
    assert message in done.stderr


def test_what_is_put_before_behind_or_between_is_refused(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    (directory,) = struct.unpack_from("<I", data, len(data) - 6)
    twice = tmp_path / "twice.pyz"
    shutil.copyfile(small, twice)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("sockpid/run/run.py", "print('mine')")
    for content, message in (
        (b"#!/bin/sh\nexit 0\n" + data, "something was put before it"),
        (data + b"\0", "something was put after it"),
        (data[:-1], "it was cut off"),
        (data[: len(data) // 2], "it was cut off"),
        (data[:directory] + b"hidden" + data[directory:], "the end of the archive was altered"),
        (twice.read_bytes(), "sockpid/run/run.py"),
    ):
        with pytest.raises(BundleError, match=message):
            bundle.unpack(content, "x.pyz")


def test_a_doubled_member_is_refused(small: Path) -> None:
    members = list(bundle._members(small.read_bytes(), ""))
    body, entries = bytearray(bundle.SHEBANG), b""
    for member in [*members, members[-1]]:
        moved = member._replace(offset=len(body))
        body += moved.header() + moved.packed
        entries += moved.entry()
    content = bytes(body) + entries + bundle._end(len(members) + 1, len(entries), len(body))
    with pytest.raises(BundleError, match=f"{members[-1].name} is there twice"):
        bundle.unpack(content, "x.pyz")


PARTS = {
    "first line": 23,
    "headers": 200,
    "manifest": 100,
    "code": 200,
    "image": 150,
    "table": 150,
    "licences": 50,
    "directory": 200,
    "end": 22,
}
"""Parts of a bundle, and how many of their bytes are flipped; together more than a thousand."""


NAMES = {"manifest": bundle.MANIFEST, "image": IMAGE, "table": SHARD}
"""Parts that are one member, whose name a refusal must tell."""


def part_of(name: str) -> str:
    ours = {member: part for part, member in NAMES.items()}
    return ours.get(name, "code" if name.endswith(".py") else "licences")


def places(data: bytes) -> dict[str, list[int]]:
    """The positions of all bytes of a bundle, by part."""
    members = list(bundle._members(data, ""))
    found: dict[str, list[int]] = {name: [] for name in PARTS}
    found["first line"] = [*range(len(bundle.SHEBANG))]
    for member in members:
        content = member.offset + len(member.header())
        found["headers"] += range(member.offset, content)
        found[part_of(member.name)] += range(content, content + len(member.packed))
    end = len(data) - bundle._END.size
    found["directory"] += range(end - sum(len(m.entry()) for m in members), end)
    found["end"] += range(end, len(data))
    return found


def test_the_parts_are_all_that_there_is(small: Path) -> None:
    data = small.read_bytes()
    assert sorted(place for part in places(data).values() for place in part) == [*range(len(data))]


@pytest.mark.parametrize("part", PARTS)
def test_flipped_bytes_are_refused_or_harmless(small: Path, part: str) -> None:
    """Refused: by the name of the member. Harmless: the bundle holds exactly what it held, as where deflate leaves bits
    unused.

    SOCKPID_TAMPER_ALL=1 flips every byte of the file in turn (make tamper).
    """
    data = bytearray(small.read_bytes())
    right = bundle.unpack(bytes(data), "")
    chosen = random.Random(part)
    there = places(bytes(data))[part]
    everything = os.environ.get("SOCKPID_TAMPER_ALL") == "1"
    harmless = 0
    for position in there if everything else chosen.sample(there, min(PARTS[part], len(there))):
        old = data[position]
        data[position] ^= chosen.randrange(1, 256)
        found, said = None, ""
        try:
            found = bundle.unpack(bytes(data), "x.pyz")
        except BundleError as error:
            said = str(error)
        assert found in (None, right), position
        assert found == right or NAMES.get(part, "x.pyz") in said, position
        harmless += found == right
        data[position] = old
    assert harmless <= len(there) // 100


def test_flips_in_the_code_that_looks_are_refused_or_harmless(small: Path, tmp_path: Path) -> None:
    """What Python has loaded before the check: it fails, or all that it goes on to run is undamaged."""
    data = small.read_bytes()
    version = start(small, "--version").stdout
    random.seed(4711)
    early = (
        "__main__.py",
        *(f"sockpid/{name}.py" for name in ("__init__", "bundle/__init__", "bundle/bundle", "errors")),
    )
    spans = [
        (m.offset, m.offset + 30 + len(m.name) + len(m.packed)) for m in bundle._members(data, "") if m.name in early
    ]
    assert len(spans) == len(early)
    places = [place for span in spans for place in range(*span)] + list(range(len(data) - 22, len(data)))
    path = tmp_path / "flipped.pyz"
    for place in random.sample(places, 60):
        flipped = bytearray(data)
        flipped[place] ^= random.randrange(1, 256)
        path.write_bytes(flipped)
        done = start(path, "--version")
        assert done.returncode != 0 or done.stdout == version, (place, done)


def test_signatures(small: Path, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed here")
    for name in ("mine", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    keyring, others = tmp_path / "allowed", tmp_path / "others"
    keyring.write_text(f'admin@example.org namespaces="sockpid" {(tmp_path / "mine.pub").read_text()}')
    others.write_text(f"admin@example.org {(tmp_path / 'other.pub').read_text()}")
    path = tmp_path / "sockpid.pyz"
    bundles.make(path, "--arch", "aarch64", "--without-pyroute2", "--sign", str(tmp_path / "mine"))
    demand = ["--require-signature=" + str(keyring), "lookup", "--help"]
    look = [sys.executable, "-m", "sockpid_gen", "verify-bundle", str(path), "--json", "--keyring"]
    done = subprocess.run([*look, str(keyring)], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["signer"] == "admin@example.org"
    done = subprocess.run([*look, str(others)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (BundleError.exit_code, "")
    demand = [f"--require-signature={keyring}", "lookup", "--all", "--pin", "/nowhere"]
    assert "signature" not in start(path, *demand).stderr  # it goes on to look for /nowhere
    demand[0] = f"--require-signature={others}"
    done = start(path, *demand)
    assert (done.returncode, "no signature of anybody in" in done.stderr) == (BundleError.exit_code, True), done
    shutil.copyfile(small, path)  # intact, but not what was signed
    demand[0] = f"--require-signature={keyring}"
    done = start(path, *demand)
    assert (done.returncode, "is not a signature of this file" in done.stderr) == (BundleError.exit_code, True), done
    Path(f"{path}.sig").unlink()
    assert start(path, *demand).returncode == BundleError.exit_code


def test_a_standalone_program_is_for_this_machine_alone(tmp_path: Path) -> None:
    other = "s390x" if os.uname().machine != "s390x" else "x86_64"
    command = [
        sys.executable,
        "-m",
        "sockpid_gen",
        "bundle",
        "-o",
        str(tmp_path / "it"),
        "--standalone",
        "--arch",
        other,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, f"not {other}" in done.stderr, (tmp_path / "it").exists()) == (2, True, False), done


def test_what_a_standalone_program_takes_is_found_in_it() -> None:
    """Against what objdump says: the newest of glibc's symbols, and what PyInstaller's own part takes besides glibc."""
    directory = importlib.util.find_spec("PyInstaller")
    assert directory is not None
    assert directory.origin is not None
    programs = [str(path) for path in Path(directory.origin).parent.glob("bootloader/*/run")]
    modules = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    packed = [sys.executable, *(path for path in modules if path.endswith(".so"))]
    listed, own = (
        subprocess.run(["objdump", "-p", *paths], capture_output=True, text=True, check=True).stdout
        for paths in (programs + packed, programs)
    )
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"\sGLIBC_([\d.]+)", listed)]
    others = set(re.findall(r"NEEDED\s+(\S+)", own)) - {"libc.so.6", "libdl.so.2", "libpthread.so.0"}
    expected = [f"glibc {'.'.join(map(str, max(versions)))} or later", *sorted(others)]
    assert standalone.takes(programs, packed) == ", ".join(expected)
    assert standalone.takes([__file__], []) == "a C library that was not recognised"
