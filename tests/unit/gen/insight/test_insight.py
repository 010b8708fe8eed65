"""diff, cover and explain: over the published table, and over small ones where every answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import UsageError
from sockpid.image.insn import CALL, Insn
from sockpid.image.relocate import POISON
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen import KernelEntry, Table
from sockpid_gen.extraction.wanted import image_for, wanted_fields
from sockpid_gen.insight import cover, diff, disasm, explain, uses
from tests.unit.gen.cli.test_cli import Tool

ROOT = Path(__file__).parents[4]
MOVED = "struct sock.sk_protocol"
AT_540 = Field(540 * 8, 16)


def kernel(release: str, build_id: str, protocol: Optional[Field] = AT_540, arch: str = "x86_64") -> KernelEntry:
    """A kernel with every field the images want; all but sk_protocol in the same place."""
    rows: Dict[str, Any] = {}
    for name, paths in wanted_fields(ARCHES[arch]).items():
        rows[name] = Struct(name, 768, {path: Field(0, 64) for path in paths})
    sizes = {r.type + "." + r.path: r.size for p in image_for(ARCHES[arch]).programs.values() for r in p.relocations}
    where: Layout = {
        name: row._replace(fields={p: Field(0, 8 * sizes.get(f"{name}.{p}", 8) or 64) for p in row.fields})
        for name, row in rows.items()
    }
    sock = where["struct sock"]
    assert isinstance(sock, Struct)
    where = {**where, "struct sock": sock._replace(fields={**sock.fields, "sk_protocol": protocol})}
    provenance = {"kind": "btf", "source": f"{build_id}.deb", "sha256": "0" * 64, "tools": {"drgn": "0.3.0"}}
    return KernelEntry(arch, build_id, release, f"Linux version {release} (x) #1", "debian", None, provenance, where)


OLD = kernel("6.1.0-1-amd64", "aa01")
SAME = kernel("6.1.0-2-amd64", "aa02")
UPDATE = kernel("6.1.0-3-amd64", "aa03", Field(544 * 8, 16))
CLOUD = kernel("6.1.0-3-cloud-amd64", "aa04")
NEW = kernel("6.12.1-amd64", "aa05", Field(544 * 8, 16))
GONE = kernel("7.3-amd64", "aa06", None)


@pytest.fixture
def table() -> Table:
    made = Table()
    for one in (OLD, SAME, UPDATE, CLOUD, NEW, GONE):
        made.add(one)
    return made


def test_diff_names_what_moved_and_who_notices() -> None:
    found = diff.diff(OLD, UPDATE)
    (move,) = found.moves
    assert move.difference == (MOVED, Field(540 * 8, 16), Field(544 * 8, 16))
    assert {use.program for use in move.uses} == {"tcp_set_state", "tcp_use"}
    assert found.programs["tcp_use"] == len({u.insn for u in move.uses if u.program == "tcp_use"})
    assert (found.only_one, found.only_other) == ((), ())
    assert diff.diff(OLD, SAME).moves == ()


def test_instructions_are_those_that_differ_once_patched() -> None:
    patched = diff.instructions(OLD, UPDATE)
    assert {p.program for p in patched} == set(diff.diff(OLD, UPDATE).programs)
    for p in patched:
        assert (p.one.rpartition(" ")[2], p.other.rpartition(" ")[2], p.fields) == ("540", "544", (MOVED,))
    assert diff.instructions(OLD, SAME) == []


def test_an_absent_field_is_poison() -> None:
    patched = {p.insn: p for p in diff.instructions(NEW, GONE) if p.program == "tcp_use"}
    offset = next(u for u in uses.uses(image_for(ARCHES["x86_64"]), ARCHES["x86_64"])[MOVED] if u.program == "tcp_use")
    assert patched[offset.insn].one == "r1 = 544"
    assert patched[offset.insn].other.startswith("poisoned (helper ")


def test_architectures_are_compared_as_far_as_they_can_be() -> None:
    found = diff.diff(OLD, kernel("6.1.0-1-s390x", "bb01", arch="s390x"))
    assert found.only_one == ("struct pt_regs.di", "struct pt_regs.dx", "struct pt_regs.si")
    assert found.only_other == ("struct pt_regs.gprs[2]", "struct pt_regs.gprs[3]", "struct pt_regs.gprs[4]")
    with pytest.raises(UsageError, match="different byte orders"):
        diff.instructions(found.one, found.other)


def test_every_relocation_is_the_use_of_a_field_that_a_table_has() -> None:
    for arch in ARCHES.values():
        fields = {f"{name}.{path}" for name, paths in wanted_fields(arch).items() for path in paths}
        assert uses.uses(image_for(arch), arch).keys() == fields


def test_cover_counts_and_finds_the_steps(table: Table) -> None:
    found = cover.cover(table)
    assert (found.kernels, [(s.series, s.kernels, s.layouts) for s in found.shards]) == (
        6,
        [("6.1", 4, 2), ("6.12", 1, 1), ("7.3", 1, 1)],
    )
    assert [(len(row.kernels), row.kernels[0].release) for row in found.layouts] == [
        (3, "6.1.0-1-amd64"),
        (2, "6.1.0-3-amd64"),
        (1, "7.3-amd64"),
    ]
    by_field = {row.field: row for row in found.fields}
    moved = by_field.pop(MOVED)
    assert moved.values == {Field(540 * 8, 16): 3, Field(544 * 8, 16): 2, None: 1}
    assert [(s.flavour, s.before.release, s.after.release, s.within_series) for s in moved.steps] == [
        ("generic", "6.1.0-2-amd64", "6.1.0-3-amd64", True),
        ("generic", "6.12.1-amd64", "7.3-amd64", False),
    ]
    assert all(len(row.values) == 1 and not row.steps for row in by_field.values())
    assert (found.structs["struct sock"], found.structs["struct net"]) == (3, 1)


def test_explain_tells_who_has_the_same_and_what_hangs_on_it(table: Table) -> None:
    found = explain.explain(table, table.find("aa03"), "sk_protocol")
    assert (found.field, found.value) == (MOVED, Field(544 * 8, 16))
    assert [k.release for k in found.same] == ["6.1.0-3-amd64", "6.12.1-amd64"]
    assert found.others == {Field(540 * 8, 16): 3, None: 1}
    assert len(found.uses) == len(uses.uses(image_for(ARCHES["x86_64"]), ARCHES["x86_64"])[MOVED])
    shard, entry = table.locate(found.kernel)
    assert (found.shard, found.layout) == (shard.name, entry.layout)
    assert found.struct in shard.structs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "does not speak of nonsense .`sockpid-gen show"),
        ("start_time", "near: struct task_struct.real_start_time"),
        ("size", "does not speak of size"),
    ],
)
def test_unknown_fields_are_met_with_near_ones(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain.find_field(OLD, text)


def test_instructions_in_words() -> None:
    cases: List[Any] = [
        (Insn(0x61, 1, 6, 540, 0), "r1 = *(u32 *)(r6 +540)"),
        (Insn(0x7B, 10, 1, -8, 0), "*(u64 *)(r10 -8) = r1"),
        (Insn(0x72, 10, 0, -1, 7), "*(u8 *)(r10 -1) = 7"),
        (Insn(0xB7, 1, 0, 0, 540), "r1 = 540"),
        (Insn(0x0F, 1, 2, 0, 0), "r1 += r2"),
        (Insn(0x84, 3, 0, 0, 0), "w3 = -w3"),
        (Insn(0xDC, 3, 0, 0, 16), "r3 = be16 r3"),
        (Insn(0x15, 1, 0, 5, 6), "if r1 == 6 goto pc+5"),
        (Insn(0x05, 0, 0, -3, 0), "goto pc-3"),
        (Insn(0x95, 0, 0, 0, 0), "exit"),
        (Insn(CALL, 0, 0, 0, 14), "call 14"),
        (Insn(CALL, 0, 0, 0, POISON + 3), f"poisoned (helper {POISON + 3})"),
    ]
    for byte_order in ("little", "big"):
        for insn, expected in cases:
            assert disasm.text(insn.pack(byte_order), 0, byte_order) == expected
        wide = Insn(0x18, 2, 0, 0, -1).pack(byte_order) + Insn(0, 0, 0, 0, 1).pack(byte_order)
        assert disasm.text(wide, 0, byte_order) == "r2 = 0x1ffffffff ll"


@pytest.fixture
def published(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    """The command, in the project itself: over its own table."""
    monkeypatch.chdir(ROOT)
    return Tool(capfd, monkeypatch)


def pair(table: Table) -> List[str]:
    """Two kernels of one architecture and different series."""
    kernels = [f"{k.arch}/{k.release}" if k.build_id is None else k.build_id for k in table if k.arch == "x86_64"]
    return [kernels[0], kernels[-1]]


def test_commands_over_the_published_table(published: Tool) -> None:
    table = Table.load(ROOT / "offsets")
    two = pair(table)
    told = published("diff", *two, "--insns")
    assert (told.status, "instructions depend on what differs" in told.out) == (0, True)
    document = json.loads(published("diff", *two, "--insns", "--json").out)
    assert document["moves"]
    assert document["instructions"]
    assert {i["program"] for i in document["instructions"]} <= document["programs"].keys()
    told = published("cover")
    assert (told.status, f"{len(table)} kernels have" in told.out) == (0, True)
    document = json.loads(published("cover", "--json").out)
    assert (document["kernels"], sum(len(row["kernels"]) for row in document["layouts"])) == (len(table),) * 2
    told = published("explain", two[0], "sk_protocol")
    first = table.find(two[0])
    for part in (first.provenance["sha256"], first.banner or "not known", "tcp_use: instructions "):
        assert part in told.out
    document = json.loads(published("explain", two[0], "sk_protocol", "--json").out)
    assert len(document["same"]) + sum(o["kernels"] for o in document["others"]) + document["silent"] == len(table)


@pytest.mark.parametrize("command", ["diff", "cover", "explain", "verify"])
def test_help_is_by_example(published: Tool, command: str) -> None:
    told = published(command, "--help")
    assert (told.status, told.out.count(f"sockpid-gen {command}") >= 2) == (0, True)
