"""Samples of a table: spread, repeatable, one package at a time, and honest about what could not be verified."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Sequence

import pytest

from sockpid.errors import SourceError, UsageError
from sockpid.table.layout import Field, Struct
from sockpid.table.table import series_of
from sockpid_gen import KernelEntry, Table
from sockpid_gen.cli import crawl
from sockpid_gen.crawl import apt
from sockpid_gen.verify import report as verify_report
from sockpid_gen.verify import sampling, verify
from tests.unit.gen.table.test_table import kernel

ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x"}


def kernels() -> List[KernelEntry]:
    """Three architectures; nine in ten kernels are x86_64's 6.1."""
    made = [
        kernel(f"ee{n:04}", f"6.1.0-{n}-amd64", source=f"linux-image-6.1.0-{n}-amd64_6.1.{n}-1_amd64.deb")
        for n in range(90)
    ]
    for arch, debian in ARCHES.items():
        for series in ("5.10", "6.12", "7.3"):
            release = f"{series}.1-{debian}"
            file = f"linux-image-{release}_{series}.1-1%7e1_{debian}.deb"
            made.append(kernel(f"{arch}{series}", release, arch, file))
    return made


def test_a_sample_is_spread_evenly_and_can_be_drawn_again() -> None:
    chosen = sampling.sample(kernels(), 1)
    assert sorted(chosen) == sorted(kernels())
    assert Counter(k.arch for k in chosen[:9]) == dict.fromkeys(ARCHES, 3)
    for arch in ("aarch64", "s390x"):
        assert {series_of(k.release) for k in chosen[:9] if k.arch == arch} == {"5.10", "6.12", "7.3"}
    assert {series_of(k.release) for k in chosen[:12] if k.arch == "x86_64"} == {"5.10", "6.1", "6.12", "7.3"}
    assert sampling.sample(reversed(kernels()), 1) == chosen
    assert sampling.sample(kernels(), 2) != chosen
    gone = chosen[4]
    same = [k for k in sampling.sample((k for k in kernels() if k != gone), 1) if k.arch != gone.arch]
    assert same == [k for k in chosen if k.arch != gone.arch]


def test_the_debug_package_is_of_the_same_version() -> None:
    (one,) = [k for k in kernels() if k.build_id == "s390x7.3"]
    package = sampling.debug_package(one)
    assert package == ("linux-image-7.3.1-s390x-dbg", "7.3.1-1~1", "s390x")
    assert package.file == "linux-image-7.3.1-s390x-dbg_7.3.1-1~1_s390x.deb"
    with pytest.raises(SourceError, match="vmlinux is no Debian package"):
        sampling.debug_package(kernel(source="vmlinux"))


def test_what_cannot_be_verified_is_said_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    places: List[Path] = []

    def fetch(package: sampling.DebugPackage, path: Path) -> None:
        places.append(path)
        if package.arch == "arm64":
            raise SourceError(f"{package.name} is gone")
        path.write_bytes(b"")

    def judge(entry: KernelEntry, path: Path) -> verify.Verdict:
        assert path.exists()
        assert [p for p in places if p.exists()] == [path]
        wrong = (verify.Disagreement("struct sock.sk_protocol", 1, "table", 2, "DWARF"),)
        witnesses = ("table", f"DWARF read by drgn, in {path.name}")
        return verify.Verdict(entry, witnesses, 7, True, wrong if entry.arch == "s390x" else ())

    monkeypatch.setattr(sampling, "verify_dwarf", judge)
    found = list(sampling.verify_sample(sampling.sample(kernels(), 1), 6, fetch))
    assert sum(s.verdict is not None for s in found) == 6
    assert {s.kernel.arch for s in found if s.reason} == {"aarch64"}
    assert not any(p.exists() for p in places)
    report = verify_report.document([verify_report.row_of(s, 1) for s in found], 99, 50)
    page = verify_report.page(report)
    for part in ("**6 kernels of 2 architectures", "disagree.**", "is gone", "--sample 6 --report FILE", "(drgn)"):
        assert part in page
    assert "* struct sock.sk_protocol: 1 (table); 2 (DWARF)" in page


def test_a_report_keeps_what_still_holds(tmp_path: Path) -> None:
    one, other, *_ = kernels()
    path = tmp_path / "verify.md"
    assert verify_report.kept(path, [one]) == []
    good = verify.Verdict(one, ("table", "DWARF read by drgn, in x"), 7, True, ())
    wrong = good._replace(disagreements=(verify.Disagreement("struct sock.sk_protocol", 1, "table", 2, "DWARF"),))
    sampled = [
        sampling.Sampled(one, "x", good, None),
        sampling.Sampled(other, "y", wrong, None),
        sampling.Sampled(other, "y", None, "gone"),
    ]
    rows = [verify_report.row_of(s, 3) for s in sampled]
    verify_report.write(path, verify_report.document(rows, 99, 50))
    assert verify_report.kept(path, [one, other]) == rows[:1]
    assert verify_report.kept(path, [other]) == []
    moved = Struct("struct sock", 8, {"sk_protocol": Field(8, 16)})
    assert verify_report.kept(path, [one._replace(layout={"struct sock": moved})]) == []
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(UsageError, match=r"verify\.json is no report"):
        verify_report.kept(path, [one])


def test_a_sample_ends_even_if_nothing_can_be_had() -> None:
    def fetch(_package: Any, _path: Path) -> None:
        raise SourceError("no network")

    found = list(sampling.verify_sample(kernels(), 4, fetch))
    assert len(found) == 4 * sampling.TRIES
    assert {s.reason for s in found} == {"no network"}


class Repository(apt.Repository):
    """Stands in for apt.Repository: one suite has one version, another has no such architecture."""

    def age(self) -> float:
        return float("inf") if (self.suites, self.arch) == (("old",), "riscv64") else 0

    def update(self) -> None:
        if (self.suites, self.arch) == (("old",), "riscv64"):
            raise SourceError("no such architecture")

    def packages(self, prefix: str) -> Iterator[apt.Package]:
        version = {"old": "1-1", "new": "1-2"}[self.suites[0]]
        for name in (f"{prefix}1-dbg", "linux-x"):
            yield apt.Package(name, version, "", 1, f"hash{version}", f"uri{version}")


def test_packages_are_fetched_in_the_version_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: List[Any] = []
    monkeypatch.setattr(apt, "download", lambda *arguments: fetched.append(arguments))
    monkeypatch.setattr(apt, "Repository", Repository)
    fetcher = sampling.Fetcher(tmp_path, ("old", "new"))
    sources = ("linux-image-1_1-2_arm64.deb", "linux-image-1_1-3_arm64.deb", "vmlinux")
    kernels = [kernel(f"aabb{n}", "1", source=source) for n, source in enumerate(sources)]
    assert list(fetcher.available(kernels)) == kernels[:1]
    for arch, version in (("arm64", "1-1"), ("arm64", "1-2"), ("riscv64", "1-2")):
        fetcher(sampling.DebugPackage("linux-image-1-dbg", version, arch), tmp_path / "x")
        assert fetched.pop() == (f"uri{version}", f"hash{version}", tmp_path / "x")
    for package in (("linux-image-1-dbg", "1-3", "arm64"), ("linux-image-1-dbg", "1-1", "riscv64")):
        with pytest.raises(SourceError, match="is in none of old, new"):
            fetcher(sampling.DebugPackage(*package), tmp_path / "x")


def test_the_committed_report_is_of_the_published_table() -> None:
    """Twenty kernels or more of all architectures, each in the table, none of which differs from its DWARF."""
    root = Path(__file__).parents[4]
    text = (root / "docs/verify.json").read_text()
    report = json.loads(text)
    assert verify_report.page(report) == (root / "docs/verify.md").read_text()
    table = Table.load(root / "offsets")
    judged = [row for row in report["kernels"] if "facts" in row]
    assert len(judged) >= 20
    assert len({row["arch"] for row in judged}) == 6
    for row in judged:
        kernel = table.find(row["build_id"])
        assert (kernel.release, kernel.provenance["source"]) == (row["release"], row["table"]["source"])
        assert (row["disagreements"], row["independent"]) == ([], True)


def test_a_crawl_looks_at_each_new_kernel_once_and_fills_up_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One debug package of three is beside the kernels, one that is there is damaged, and apt has all three."""
    new = [
        kernel(f"{n:02}" * 20, f"6.1.0-{n}-amd64", source=f"linux-image-6.1.0-{n}-amd64_6.1.{n}-1_amd64.deb")
        for n in range(3)
    ]
    for n in (0, 1):
        (tmp_path / f"linux-image-6.1.0-{n}-amd64-dbg_6.1.{n}-1_amd64.deb").write_bytes(b"damaged" if n else b"")
    looked: List[str] = []

    class Apt:
        def __init__(self, state: Path, suites: Sequence[str]) -> None:
            assert (state, suites) == (tmp_path, ["trixie"])

        def available(self, kernels: Iterable[KernelEntry]) -> Iterator[KernelEntry]:
            return iter(kernels)

        def __call__(self, package: sampling.DebugPackage, path: Path) -> None:
            path.write_bytes(b"")

    def judge(entry: KernelEntry, path: Path) -> verify.Verdict:
        if path.read_bytes():
            raise SourceError("damaged")
        looked.append(entry.release)
        return verify.Verdict(entry, ("table", "DWARF"), 7, True, ())

    monkeypatch.setattr(sampling, "verify_dwarf", judge)
    monkeypatch.setattr(sampling, "Fetcher", Apt)
    monkeypatch.setattr(Table, "load", lambda _: new)
    names = {str(k.provenance["source"]) for k in new}
    verdicts = crawl._checked(3, names, tmp_path, [str(tmp_path)], ["trixie"], tmp_path, True)
    assert sorted(looked) == sorted(v.kernel.release for v in verdicts) == [k.release for k in new]
