"""The lab's kernels and their entries on any day of the mirrors, without a guest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sockpid.table import table
from sockpid_gen.extraction.entry import KernelEntry, extract
from sockpid_gen.table import shard as shards
from tests import generator
from tests import kernel_files as make
from tests.vm import catalogue, packages, tables
from tests.vm.kernels import KERNELS, Kernel

KERNEL = Kernel("bookworm", "amd64", "test", "6.1")
VERSION = "6.1.1-1"
DEB = "linux-image-6.1.0-1-test_6.1.1_amd64.deb"


@pytest.fixture
def elf() -> bytes:
    """A kernel as the mirror has it today."""
    banner = make.BANNER.replace("#1 SMP 2024", f"#1 SMP PREEMPT_DYNAMIC Debian {VERSION} (2026-01-01)")
    sections = {".rodata": f"\0{banner}\n\0".encode(), ".notes": make.build_id_note(), ".BTF": make.btf()}
    return make.elf(sections)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elf: bytes) -> Path:
    """An empty published table, and a mirror with one kernel."""
    deb = tmp_path / DEB
    deb.write_bytes(make.deb({"./boot/vmlinux-6.1.0-1-test": elf}))
    package = packages.KernelPackage("linux-image-6.1.0-1-test", VERSION, "6.1.0-1-test", "6.1", "test")
    monkeypatch.setattr(packages, "find_kernel", lambda *_: package)
    monkeypatch.setattr(packages, "fetch", lambda *_: deb)
    monkeypatch.setattr(tables, "PUBLISHED", tmp_path / "offsets")
    monkeypatch.setattr(tables, "ORIGINS", {})
    monkeypatch.setenv("SOCKPID_CACHE", str(tmp_path / "cache"))
    tables.entries.cache_clear()
    tables.completed.cache_clear()
    return tmp_path / "offsets"


def publish(directory: Path, found: KernelEntry) -> None:
    document = shards.empty("x86_64", "6.1")
    shards.merge(document, found, "6.1.json")
    shards.save(directory / "x86_64/6.1.json", document)


def test_a_kernel_that_the_published_table_knows_needs_nothing(published: Path) -> None:
    generator.add(published.parent / DEB, published)
    assert tables.of_guest(KERNEL) == {}
    assert {"6.1/amd64/test": f"6.1.0-1-test ({VERSION}), in the published table"} == tables.ORIGINS


@pytest.mark.parametrize("others", [True, False])
def test_a_kernel_newer_than_the_published_table_gets_its_entry_beside_the_others(
    published: Path, others: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if others:
        found = extract(published.parent / DEB)
        publish(published, found._replace(build_id="ff" * 20, banner=str(found.banner).replace(VERSION, "6.1.0-9")))
    ((path, content),) = tables.of_guest(KERNEL).items()
    assert path == "/sockpid/offsets/x86_64/6.1.json"
    shards.validate(json.loads(content), path)
    shard = table.parse_shard(content, path)
    assert {entry.build_id for entry in shard.entries} == {make.BUILD_ID} | ({"ff" * 20} if others else set())
    assert "entry made from its package" in tables.ORIGINS["6.1/amd64/test"]
    assert "6.1.0-1-test is not in the published table" in caplog.text


OFFERED = {series: Kernel("sid", "amd64", "cloud-amd64", series) for series in ("6.12", "7.3", "7.9", "8.0")}


@pytest.mark.parametrize(
    ("gone", "known", "instead"),
    [
        ("7.2", ["7.3", "7.9"], "7.3"),
        ("7.2", ["7.9"], "7.9"),
        ("7.2", [], "7.3"),
        ("8.1", ["7.3"], "8.0"),
    ],
)
def test_what_stands_in_for_a_series_that_is_gone(published: Path, gone: str, known: list[str], instead: str) -> None:
    for series in known:
        (published / "x86_64").mkdir(parents=True, exist_ok=True)
        (published / "x86_64" / f"{series}.json").touch()
    other = Kernel("sid", "amd64", "rt-amd64", "7.2")
    wanted = Kernel("sid", "amd64", "cloud-amd64", gone)
    assert catalogue.stand_in(wanted, [other, *OFFERED.values()]) == OFFERED[instead]
    assert catalogue.stand_in(wanted, [other]) is None


def test_a_suite_that_moved_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    name = "7.2/amd64"
    elsewhere = Kernel("forky", "amd64", "cloud-amd64", "7.2")
    series = ["6.12"]
    monkeypatch.setattr(
        packages,
        "kernels",
        lambda *_: [[packages.KernelPackage("p", "1", f"{s}-cloud-amd64", s, "cloud-amd64")] for s in series],
    )
    monkeypatch.setattr(Kernel, "deliverable", lambda kernel: kernel)
    monkeypatch.setattr(catalogue, "discover", lambda _: [*OFFERED.values(), elsewhere])
    assert catalogue.find(name) == elsewhere
    monkeypatch.setattr(catalogue, "discover", lambda _: list(OFFERED.values()))
    assert catalogue.find(name).name == "7.3/amd64"
    assert "no suite offers 7.2/amd64 any more; 7.3/amd64 stands in" in caplog.text
    with pytest.raises(packages.PackageError, match=r"no kernel is called 7\.1/amd64"):
        catalogue.find("7.1/amd64")
    series.append("7.2")
    assert catalogue.find(name) == KERNELS[name]


def test_the_published_table_has_each_series_of_the_lab() -> None:
    """Of the newest build the mirror may know before the table does."""
    assert [name for name, kernel in KERNELS.items() if not (tables.PUBLISHED / kernel.shard).exists()] == []
