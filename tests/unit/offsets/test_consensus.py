"""Which layouts a kernel that no table knows may have, and in which order they are tried."""

from __future__ import annotations

from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.offsets import offsets
from sockpid.offsets.consensus import candidates
from sockpid.table import table, writer
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen.extraction.wanted import image_for

ARCH = ARCHES["x86_64"]
IMAGE = image_for(ARCH)
PLAIN = "Linux version 6.1.0-{} (a@b) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.1.{}-1 (2026-01-01)"
RT = PLAIN.replace("PREEMPT_DYNAMIC", "PREEMPT_RT")


def layout() -> Layout:
    wanted = IMAGE.wanted(ARCH)
    return {
        name: Struct(name, 4096, {path: Field(64 * n, 64) for n, path in enumerate(sorted(paths))})
        for name, paths in wanted.items()
    }


def moved(name: str, path: str) -> Layout:
    rows = dict(layout())
    row = rows[name]
    assert isinstance(row, Struct)
    rows[name] = row._replace(fields={**row.fields, path: Field(3200, 64)})
    return rows


def shard(*builds: tuple[Layout, str, str], **changes: Any) -> table.Shard:
    """changes: of the entry with this number, "e51"."""
    document = writer.empty("x86_64", "6.1", "sockpid-gen 0")
    for number, (rows, banner, kind) in enumerate(builds, 50):
        entry: dict[str, Any] = {
            "build_id": f"{number:040x}",
            "release": f"6.1.0-{number}",
            "banner": banner.format(number, number),
            "distribution": "debian",
            "btf_ids": None,
            "provenance": {"kind": kind, "source": "x.deb", "sha256": "0" * 64, "tools": {}},
        }
        writer.add(document, {**entry, **changes.get(f"e{number}", {})}, rows)
    return table.parse_shard(writer.encode(document), "offsets/x86_64/6.1.json")


def found(of: table.Shard, release: str = "6.1.0-60", banner: str = PLAIN) -> list[tuple[Layout, str, int]]:
    return [(c.layout, c.release, c.builds) for c in candidates(of, IMAGE, ARCH, release, banner)]


def test_builds_that_are_alike_are_one_candidate() -> None:
    assert found(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "dwarf"))) == [(layout(), "6.1.0-51", 2)]


def test_the_nearest_release_comes_first() -> None:
    other = moved("struct sock", "sk_socket")
    builds = shard((layout(), PLAIN, "btf"), (other, PLAIN, "btf"), (layout(), PLAIN, "btf"))
    assert found(builds) == [(layout(), "6.1.0-52", 2), (other, "6.1.0-51", 1)]
    assert found(builds, "6.1.0-51") == [(other, "6.1.0-51", 1), (layout(), "6.1.0-50", 2)]


def test_the_same_flavour_comes_before_what_is_nearer() -> None:
    other = moved("struct sock", "sk_socket")
    names = {"e50": {"release": "6.1.0-40-cloud"}, "e51": {"release": "6.1.0-60-big"}}
    builds = shard((layout(), PLAIN, "btf"), (other, PLAIN, "btf"), **names)
    assert [release for _, release, _ in found(builds, "6.1.0-60-cloud")] == ["6.1.0-40-cloud", "6.1.0-60-big"]


def test_a_field_that_the_image_does_not_read_makes_no_other_candidate() -> None:
    rows = dict(layout())
    row = rows["struct net"]
    assert isinstance(row, Struct)
    rows["struct net"] = row._replace(size=8192, fields={**row.fields, "net_cookie": Field(0, 64)})
    assert [builds for *_, builds in found(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")))] == [2]


def test_nor_does_a_sign_that_one_source_tells() -> None:
    rows = dict(layout())
    row = rows["struct sock"]
    assert isinstance(row, Struct)
    signed = {path: field and field._replace(signed=True) for path, field in row.fields.items()}
    rows["struct sock"] = row._replace(fields=signed)
    assert [builds for *_, builds in found(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")))] == [2]


def test_realtime_kernels_are_candidates_for_realtime_kernels_alone() -> None:
    other = moved("struct sock", "sk_socket")
    builds = shard((layout(), PLAIN, "btf"), (other, RT, "btf"))
    assert [one for one, *_ in found(builds)] == [layout()]
    assert [one for one, *_ in found(builds, banner=RT)] == [other]
    assert found(shard((layout(), PLAIN, "btf")), banner=RT) == []


def test_what_was_itself_found_by_trying_or_concluded_is_no_candidate() -> None:
    note = {"provenance": {"kind": "btf", "note": "equal on both sides"}}
    assert found(shard((layout(), PLAIN, "calibrated"), (layout(), PLAIN, "btf"), e51=note)) == []


def test_a_build_that_does_not_speak_of_a_field_is_no_candidate() -> None:
    rows = dict(layout())
    row = rows["struct sock"]
    assert isinstance(row, Struct)
    rows["struct sock"] = row._replace(fields={k: v for k, v in row.fields.items() if k != "sk_protocol"})
    assert [release for _, release, _ in found(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")))] == ["6.1.0-50"]


def test_an_absent_field_makes_another_candidate() -> None:
    rows = {**layout(), "struct tcp_ulp_ops": None}
    assert len(found(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")))) == 2


@pytest.mark.parametrize(
    "twin",
    [
        {"build_id": None, "release": "6.1.0-50", "banner": PLAIN.format(50, 50)},
        {"release": "6.1.0-50", "banner": PLAIN.format(50, 50)},
        {"build_id": f"{50:040x}", "release": "6.1.0-50", "banner": None},
        {"build_id": None, "release": "6.1.0-50", "banner": None},
    ],
)
def test_one_build_that_is_there_twice_counts_once(twin: dict[str, Any]) -> None:
    assert [n for *_, n in found(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), e51=twin))] == [1]


def test_kernels_that_only_their_release_tells_apart_count_once_each() -> None:
    alone = {"build_id": None, "banner": None}
    three = [(layout(), PLAIN, "btf")] * 3
    assert [n for *_, n in found(shard(*three, e50=alone, e51=alone, e52=alone))] == [3]


def test_a_concluded_entry_has_to_be_proven_where_it_is_used() -> None:
    note = {"provenance": {"kind": "btf", "note": "equal on both sides"}}
    builds = shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), e51=note)
    for entry, origin in zip(builds.entries, ("table", "consensus"), strict=True):
        found = offsets._of(builds, entry, frozenset())
        assert (found.origin, found.needs_proof) == (origin, origin != "table")
