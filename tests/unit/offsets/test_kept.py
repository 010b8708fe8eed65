"""What one start keeps for the next, and when it is not believed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.host.kernel import Identity
from sockpid.offsets import kept
from sockpid.offsets.source import Offsets, function_ids
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen.extraction.wanted import image_for

ARCH = ARCHES["x86_64"]
IMAGE = image_for(ARCH)


def identity(**changes: Any) -> Identity:
    banner = "Linux version 6.1.0-99 (a@b) (gcc) #1 SMP"
    values: dict[str, Any] = {"arch": ARCH, "release": "6.1.0-99", "build_id": "ab" * 20, "banner": banner, **changes}
    known: Any = {name: values.get(name) for name in Identity._fields}
    return Identity(**known)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root keeps anything")
    found = tmp_path / "sockpid/offsets"
    monkeypatch.setattr(kept, "DIRECTORY", str(found))
    monkeypatch.setattr(kept, "ABOVE", (str(tmp_path / "sockpid"), str(tmp_path)))
    return found


def layout() -> Layout:
    wanted = IMAGE.wanted(ARCH)
    return {
        name: Struct(name, 4096, {path: Field(64 * n, 64) for n, path in enumerate(sorted(paths))})
        for name, paths in wanted.items()
    }


def offsets(origin: str) -> Offsets:
    return Offsets(layout(), origin, "somewhere", function_ids({"tcp_connect": 7}, None), True)


@pytest.mark.parametrize("origin", ["btf", "consensus", "calibrated"])
def test_what_is_kept_is_found_again(directory: Path, origin: str) -> None:
    assert kept.find(IMAGE, identity()) is None
    path = kept.keep(IMAGE, identity(), offsets(origin))
    assert path is not None
    assert [os.path.basename(path)] == os.listdir(directory)
    found = kept.find(IMAGE, identity())
    assert found is not None
    assert (found.layout, found.origin, found.source, found.is_new) == (layout(), origin, path, False)
    assert found.btf_id("tcp_connect") == (7 if origin == "btf" else 0)
    assert found.needs_proof is (origin != "btf")


@pytest.mark.parametrize(
    "other",
    [{"build_id": "cd" * 20}, {"banner": "Linux version 6.1.0-99 (a@b) (gcc) #2 SMP"}, {"build_id": None}],
)
def test_another_kernel_finds_nothing(other: dict[str, Any]) -> None:
    assert kept.keep(IMAGE, identity(), offsets("btf"))
    assert kept.find(IMAGE, identity(**other)) is None


def test_a_kernel_without_build_id_is_not_recognised() -> None:
    assert kept.keep(IMAGE, identity(build_id=None), offsets("btf")) is None


def test_another_image_or_table_finds_it_out_anew_and_replaces_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept.keep(IMAGE, identity(), offsets("btf"))
    newer = IMAGE._replace(content="0" * 64)
    assert kept.find(newer, identity()) is None
    assert kept.keep(newer, identity(), offsets("btf"))
    assert len(os.listdir(directory)) == 1
    monkeypatch.setattr("sockpid.data.read", lambda _path: b"another table")
    assert kept.find(newer, identity()) is None


def test_what_others_may_have_written_is_not_believed(directory: Path) -> None:
    path = kept.keep(IMAGE, identity(), offsets("btf"))
    assert path is not None
    for changed, mode in ((directory, 0o755), (directory.parent, 0o755), (Path(path), 0o644)):
        changed.chmod(mode | 0o022)
        assert kept.find(IMAGE, identity()) is None, changed
        changed.chmod(mode)
        assert kept.find(IMAGE, identity()) is not None
    os.chown(path, 12345, 0)
    assert kept.find(IMAGE, identity()) is None
    os.unlink(path)
    os.symlink("/dev/zero", path)
    assert kept.find(IMAGE, identity()) is None


def test_nothing_is_written_where_others_may_write(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    assert kept.keep(IMAGE, identity(), offsets("btf")) is None
    assert os.listdir(directory) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 4096])
def test_what_is_damaged_is_found_out_again(damage: bytes) -> None:
    path = kept.keep(IMAGE, identity(), offsets("btf"))
    assert path is not None
    Path(path).write_bytes(damage)
    assert kept.find(IMAGE, identity()) is None
    assert kept.keep(IMAGE, identity(), offsets("btf")) == path
    assert kept.find(IMAGE, identity()) is not None


def test_nothing_is_left_of_it_when_it_is_forgotten(directory: Path) -> None:
    kept.forget()
    assert kept.keep(IMAGE, identity(), offsets("btf"))
    queue = directory.parent / "otlp"
    queue.mkdir()
    kept.forget()
    assert not directory.exists()
    assert queue.exists()
    queue.rmdir()
    assert kept.keep(IMAGE, identity(), offsets("btf"))
    kept.forget()
    assert not directory.parent.exists()
