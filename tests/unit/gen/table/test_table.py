"""Tables as a whole: loaded, added to, merged, saved; kernels in order, and found as people name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest

import sockpid_gen
from sockpid.errors import ConflictError, TableError, UsageError
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen import KernelEntry, Table
from sockpid_gen.kernel import release


def layout(offset: int = 540, **more: Optional[Field]) -> Layout:
    return {"struct sock": Struct("struct sock", 768, {"sk_protocol": Field(offset * 8, 16), **more})}


LAYOUT = layout()


def kernel(
    build_id: Optional[str] = "aabb01",
    version: str = "6.1.0-1-amd64",
    arch: str = "x86_64",
    source: str = "a.deb",
    where: Layout = LAYOUT,
    banner: Optional[str] = None,
) -> KernelEntry:
    provenance = {"kind": "btf", "source": source, "sha256": source[0] * 64, "tools": {"drgn": "0.3.0"}}
    text = banner or f"Linux version {version} (x) #1"
    return KernelEntry(arch, build_id, version, text, "debian", {"tcp_connect": 7}, provenance, where)


def table(*kernels: KernelEntry) -> Table:
    made = Table()
    for one in kernels:
        assert made.add(one)
    return made


TWO = (kernel(), kernel("cc01dd", "5.10.0-2-s390x", "s390x"))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = table(*TWO).save(tmp_path)
    assert saved == [tmp_path / "s390x/5.10.json", tmp_path / "x86_64/6.1.json"]
    loaded = Table.load(tmp_path)
    assert sorted(loaded) == sorted(TWO)
    assert len(loaded) == 2


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    table(*TWO).save(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.glob("*/*.json")}
    loaded = Table.load(tmp_path)
    assert loaded.save(tmp_path) == []
    assert not loaded.add(kernel(source="b.deb"))
    assert loaded.add(kernel("aabb02"))
    assert loaded.save(tmp_path) == [tmp_path / "x86_64/6.1.json"]
    assert {p: p.stat().st_ino for p in before}[tmp_path / "s390x/5.10.json"] == before[tmp_path / "s390x/5.10.json"]
    elsewhere = tmp_path / "elsewhere"
    assert len(loaded.save(elsewhere)) == 2
    assert sorted(Table.load(elsewhere)) == sorted(loaded)


def test_no_table_is_an_error_unless_one_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no offset tables"):
        Table.load(tmp_path)
    assert list(Table.load(tmp_path, create=True)) == []


def test_a_shard_in_another_ones_place_is_refused(tmp_path: Path) -> None:
    table(kernel()).save(tmp_path)
    (tmp_path / "x86_64/6.1.json").rename(tmp_path / "x86_64/6.2.json")
    with pytest.raises(TableError, match=r"is for x86_64 6\.1, not for x86_64 6\.2"):
        Table.load(tmp_path)


def test_merging_takes_what_is_new() -> None:
    ours, theirs = table(TWO[0]), table(kernel(source="b.deb"), TWO[1])
    assert ours.merge(theirs) == 1
    assert sorted(ours) == sorted(TWO)
    assert ours.merge(theirs) == 0


def test_merging_a_conflict_cites_both_sources_and_changes_nothing() -> None:
    ours = table(kernel(), kernel("ee0001", "6.1.0-2-amd64"))
    bad = kernel(source="b.deb", where=layout(544))
    theirs = table(
        kernel("ff0001", "6.1.0-9-amd64"), bad, kernel("ee0001", "6.1.0-2-amd64", "x86_64", "c.deb", layout(0))
    )
    before = list(ours)
    with pytest.raises(ConflictError) as caught:
        ours.merge(theirs)
    assert len(caught.value.conflicts) == 2
    message = str(caught.value)
    for part in ("6.1.0-1-amd64", "aabb01", "struct sock.sk_protocol", "540 (2 bytes)", "544 (2 bytes)"):
        assert part in message
    for source in ("a.deb", "b.deb", "c.deb"):
        assert f"BTF of {source} (sha256 {source[0] * 64})" in message
    assert list(ours) == before


def test_one_build_id_for_two_kernels_is_a_conflict() -> None:
    ours = table(kernel())
    with pytest.raises(ConflictError, match=r"another banner: .*#1' from .*#2' from"):
        ours.add(kernel(banner="Linux version 6.1.0-1-amd64 (x) #2"))
    with pytest.raises(ConflictError, match=r"6\.2\.0-1.* has the build-id of 6\.1\.0-1"):
        ours.merge(table(kernel(version="6.2.0-1-amd64")))


def test_merging_keeps_the_wider_entry() -> None:
    narrow, wide = kernel(source="narrow.deb"), kernel(source="wide.deb", where=layout(sk_type=None))
    for ours, theirs, changed in ((narrow, wide, 1), (wide, narrow, 0)):
        merged = table(ours)
        assert merged.merge(table(theirs)) == changed
        assert list(merged) == [wide]
    other = kernel(source="other.deb", where=layout(sk_state=None))
    with pytest.raises(
        ConflictError, match=r"wide\.deb.* lacks struct sock\.sk_state, .*other\.deb.* lacks struct sock\.sk_type"
    ):
        table(wide).merge(table(other))
    disagreeing = kernel(source="b.deb", where={"struct sock": Struct("struct sock", 768, {"sk_protocol": None})})
    with pytest.raises(ConflictError, match=r"absent from BTF of b\.deb"):
        table(wide).merge(table(disagreeing))


def test_kernels_are_found_as_people_name_them() -> None:
    known = table(*TWO, kernel("aabb02", "6.1.0-10-amd64"), kernel("dd0001", "6.1.0-1-amd64", "aarch64"))
    assert known.find("x86_64/6.1.0-1-amd64") == TWO[0]
    assert known.find("CC01") == TWO[1]
    for text, message in (
        ("6.1.0-1-amd64", "is several kernels: 6.1.0-1-amd64 .aarch64, build-id dd0001., 6.1.0-1-amd64 .x86_64"),
        ("aabb", "is several kernels"),
        ("x86_64/6.1.0-10", "the table has no kernel x86_64/6.1.0-10; it has 6.1.0-10-amd64 "),
        ("2.6", "the table has no kernel 2.6 "),
        ("aa", "has no kernel aa "),
    ):
        with pytest.raises(UsageError, match=message):
            known.find(text)


def test_kernels_come_from_old_to_new() -> None:
    versions = ["6.9.1", "6.12.0-9-amd64", "6.12.0-10-amd64", "7.3-rc7-amd64", "7.3-amd64", "7.3.1-amd64"]
    known = table(*(kernel(f"aa000{n}", version) for n, version in enumerate(reversed(versions))))
    assert [k.release for k in known] == versions


def test_candidates_come_before_their_version() -> None:
    versions = ["6.1", "6.1.1", "6.2", "6.10", "7.3~rc1-1", "7.3~rc2-1", "7.3-1"]
    mixed = versions[::2] + versions[1::2]
    assert sorted(mixed, key=release.sort_key) == versions


@pytest.mark.parametrize(
    ("version", "flavour"),
    [
        ("6.1.0-56-cloud-amd64", "cloud"),
        ("6.1.0-56-amd64", "generic"),
        ("6.12.117+deb13-rt-arm64", "rt"),
        ("6.12.117+deb13-arm64-16k", "16k"),
        ("5.10.0-46-armmp-lpae", "armmp-lpae"),
        ("7.3-rc7-powerpc64le", "generic"),
        ("7.3-rc7-cloud-amd64", "cloud"),
        ("7.3-rc7", "generic"),
        ("6.8.0-31-generic", "generic"),
        ("6.8.0-1008-aws", "aws"),
        ("4.18.0-147.5.1.el8_1.aarch64", "generic"),
        ("4.19.90-2107.6.0.0248.35.oe1.bclinux.x86_64", "generic"),
        ("6.18.5", "generic"),
    ],
)
def test_flavours(version: str, flavour: str) -> None:
    assert release.flavour(version) == flavour


def test_the_library_names_what_it_has() -> None:
    for name in sockpid_gen.__all__:
        assert getattr(sockpid_gen, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        sockpid_gen.nonsense  # noqa: B018 - looking is the test


def test_a_release_alone_makes_no_two_kernels_the_same() -> None:
    bare = kernel(None)._replace(banner=None)
    assert kernel().is_same_kernel(kernel(None))
    assert not bare.is_same_kernel(kernel(None))
    assert not bare.is_same_kernel(bare)
    assert not kernel().is_same_kernel(kernel("ff"))


NOTE = "no package of this build was found; the builds before and after it are equal in every field"


def concluded(one: KernelEntry) -> KernelEntry:
    return one._replace(btf_ids=None, provenance={**one.provenance, "note": NOTE})


def calibrated(one: KernelEntry) -> KernelEntry:
    return one._replace(btf_ids=None, provenance={"kind": "calibrated", "source": "running kernel", "sha256": None})


@pytest.mark.parametrize("how", ["add", "merge"])
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"btf_ids": {"tcp_connect": 8}},
            r"another BTF id of tcp_connect: 7 from BTF of a\.deb .*; 8 from BTF of b\.deb",
        ),
        ({"btf_ids": {"tcp_close": 7}}, "BTF ids of other functions alone: tcp_connect from .*; tcp_close from"),
        ({"release": "6.1.0-2-amd64"}, "another release: '6.1.0-1-amd64' from .*; '6.1.0-2-amd64' from"),
        ({"banner": None}, "another banner: 'Linux version .*; None from"),
        ({"distribution": "ubuntu"}, "another distribution: 'debian' from .*; 'ubuntu' from"),
        ({"layout": layout(544)}, r"other offsets; first difference in struct sock\.sk_protocol: 540 .*; 544"),
        ({"layout": {"struct sock": None}}, r"other offsets; first difference in struct sock: there .*; absent"),
    ],
)
def test_whatever_two_sources_differ_in_is_a_conflict(how: str, changes: Dict[str, Any], what: str) -> None:
    ours = table(kernel())
    theirs = kernel(source="b.deb")._replace(**changes)
    with pytest.raises(ConflictError, match=what):
        ours.merge(table(theirs)) if how == "merge" else ours.add(theirs)
    assert list(ours) == [kernel()]


def test_one_kernel_with_and_without_build_id_must_agree() -> None:
    ours = table(kernel())
    with pytest.raises(ConflictError, match=r"first difference in struct sock\.sk_protocol"):
        ours.add(kernel(None, source="b.deb", where=layout(544)))
    assert ours.add(kernel(None, source="b.deb"))
    assert len(ours) == 2


def test_function_ids_are_joined_where_they_agree() -> None:
    ours = table(kernel()._replace(btf_ids={"tcp_connect": 7, "tcp_close": 9}))
    assert ours.add(kernel()._replace(btf_ids={"tcp_connect": 7, "tcp_sendmsg": 5}))
    assert next(iter(ours)).btf_ids == {"tcp_connect": 7, "tcp_close": 9, "tcp_sendmsg": 5}


@pytest.mark.parametrize("mark", [concluded, calibrated])
def test_what_was_not_measured_stays_so(mark: Callable[[KernelEntry], KernelEntry], tmp_path: Path) -> None:
    """Through saving, loading, merging, and without the file of sources, which no host has."""
    believed = mark(kernel())
    table(believed).save(tmp_path)
    again = Table.load(tmp_path)
    assert list(again) == [believed]
    merged = table(kernel("aabb02"))
    merged.merge(again)
    merged.save(tmp_path / "merged")
    for path in (tmp_path, tmp_path / "merged"):
        (path / "x86_64/6.1.sources").unlink()
        (found,) = (k for k in Table.load(path) if k.build_id == "aabb01")
        assert not found.measured
        assert found.provenance.get("note") == believed.provenance.get("note")


@pytest.mark.parametrize("mark", [concluded, calibrated])
def test_what_was_measured_takes_its_place_and_never_the_other_way_round(
    mark: Callable[[KernelEntry], KernelEntry],
) -> None:
    for first, second, changed in ((mark(kernel()), kernel(), True), (kernel(), mark(kernel()), False)):
        added, merged = table(first), table(first)
        assert added.add(second) is changed
        assert merged.merge(table(second)) == changed
        assert list(added) == list(merged) == [kernel()]
    wider = mark(kernel(where=layout(sk_type=None)))
    for entry in (kernel(), wider):
        ours = table(entry)
        ours.merge(table(wider if entry is not wider else kernel()))
        assert list(ours) == [kernel()]
