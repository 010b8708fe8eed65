"""Builds that agree, builds that do not, and which are asked at all."""

from __future__ import annotations

from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import ConsensusError, UnknownKernelError
from sockpid.offsets import offsets
from sockpid.offsets.consensus import agree
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


def test_two_builds_that_agree() -> None:
    found, builds = agree(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "dwarf")), IMAGE, ARCH, PLAIN)
    assert (found, builds) == (layout(), 2)


def test_one_field_that_differs_is_named_with_both_kernels() -> None:
    builds = [(layout(), PLAIN, "btf")] * 5 + [(moved("struct sock", "sk_socket"), PLAIN, "btf")]
    with pytest.raises(ConsensusError) as caught:
        agree(shard(*builds), IMAGE, ARCH, PLAIN)
    assert caught.value.field == "struct sock.sk_socket"
    assert "6.1.0-50" in str(caught.value)
    assert "6.1.0-55" in str(caught.value)
    assert "400, 8 bytes" in str(caught.value)
    assert isinstance(caught.value, UnknownKernelError)
    assert caught.value.exit_code == 4


def test_a_field_that_the_image_does_not_read_may_differ() -> None:
    rows = dict(layout())
    row = rows["struct net"]
    assert isinstance(row, Struct)
    rows["struct net"] = row._replace(size=8192, fields={**row.fields, "net_cookie": Field(0, 64)})
    assert agree(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")), IMAGE, ARCH, PLAIN)[1] == 2


def test_one_build_is_no_consensus() -> None:
    with pytest.raises(ConsensusError, match=r"1 build of 6\.1 without PREEMPT_RT; a consensus takes at least 2"):
        agree(shard((layout(), PLAIN, "btf")), IMAGE, ARCH, PLAIN)


def test_realtime_kernels_are_asked_about_realtime_kernels_alone() -> None:
    other = moved("struct sock", "sk_socket")
    builds = shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), (other, RT, "btf"), (other, RT, "btf"))
    assert agree(builds, IMAGE, ARCH, PLAIN)[0] == layout()
    assert agree(builds, IMAGE, ARCH, RT)[0] == other
    with pytest.raises(ConsensusError, match="0 builds"):
        agree(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf")), IMAGE, ARCH, RT)


def test_what_was_itself_found_by_trying_is_no_witness() -> None:
    with pytest.raises(ConsensusError, match="1 build "):
        agree(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "calibrated")), IMAGE, ARCH, PLAIN)


def test_a_build_that_does_not_speak_of_a_field_agrees_on_nothing() -> None:
    rows = dict(layout())
    row = rows["struct sock"]
    assert isinstance(row, Struct)
    rows["struct sock"] = row._replace(fields={k: v for k, v in row.fields.items() if k != "sk_protocol"})
    with pytest.raises(ConsensusError, match=r"does not speak of struct sock\.sk_protocol"):
        agree(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")), IMAGE, ARCH, PLAIN)


def test_an_absent_field_differs_from_one_that_is_there() -> None:
    rows = {**layout(), "struct tcp_ulp_ops": None}
    with pytest.raises(ConsensusError, match="struct tcp_ulp_ops"):
        agree(shard((layout(), PLAIN, "btf"), (rows, PLAIN, "btf")), IMAGE, ARCH, PLAIN)


def test_what_was_concluded_is_no_witness() -> None:
    note = {"provenance": {"kind": "btf", "note": "equal on both sides"}}
    with pytest.raises(ConsensusError, match="1 build "):
        agree(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), e51=note), IMAGE, ARCH, PLAIN)


@pytest.mark.parametrize(
    "twin",
    [
        {"build_id": None, "release": "6.1.0-50", "banner": PLAIN.format(50, 50)},
        {"release": "6.1.0-50", "banner": PLAIN.format(50, 50)},
        {"build_id": f"{50:040x}", "release": "6.1.0-50", "banner": None},
        {"build_id": None, "release": "6.1.0-50", "banner": None},
    ],
)
def test_one_build_that_is_there_twice_is_one_witness(twin: dict[str, Any]) -> None:
    with pytest.raises(ConsensusError, match=r"has 1 build of 6\.1 "):
        agree(shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), e51=twin), IMAGE, ARCH, PLAIN)


def test_kernels_that_only_their_release_tells_apart_count_once_each() -> None:
    alone = {"build_id": None, "banner": None}
    three = [(layout(), PLAIN, "btf")] * 3
    assert agree(shard(*three, e50=alone, e51=alone, e52=alone), IMAGE, ARCH, PLAIN)[1] == 3


def test_a_concluded_entry_has_to_be_proven_where_it_is_used() -> None:
    note = {"provenance": {"kind": "btf", "note": "equal on both sides"}}
    builds = shard((layout(), PLAIN, "btf"), (layout(), PLAIN, "btf"), e51=note)
    for entry, origin in zip(builds.entries, ("table", "consensus"), strict=True):
        found = offsets._of(builds, entry, frozenset())
        assert (found.origin, found.needs_proof) == (origin, origin != "table")
