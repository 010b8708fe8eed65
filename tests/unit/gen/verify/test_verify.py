"""Descriptions of one kernel held against each other: what agrees, what does not, and that both sides are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import SourceError, UsageError
from sockpid.selfcheck import observed
from sockpid.selfcheck.selfcheck import Result
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen import KernelEntry, Table, extract
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.verify import verify
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

WANTED = {"struct sock": frozenset(("sk_protocol", "state", "gone"))}


@pytest.fixture(autouse=True)
def images_want_what_the_test_kernels_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "wanted_fields", lambda _: WANTED)


def other_btf() -> bytes:
    """As make.btf(), with sk_protocol elsewhere."""
    b = BtfBuilder()
    b.struct("sock", 4, ("sk_protocol", b.integer("unsigned short", 2), 16))
    return b.build()


def vmlinux(path: Path, btf: Optional[bytes] = None, build_id: str = make.BUILD_ID) -> Path:
    notes = make.build_id_note(build_id=build_id)
    path.write_bytes(make.elf({".rodata": make.BANNERS, ".notes": notes, ".BTF": btf or make.btf()}))
    return path


def test_two_files_of_one_kernel_agree(tmp_path: Path) -> None:
    files = vmlinux(tmp_path / "one"), vmlinux(tmp_path / "two")
    (verdict,) = verify.verify_all(w for file in files for w in verify.witnesses(file))
    assert verdict.disagreements == ()
    assert verdict.fields == 4  # struct sock, sk_protocol, state, gone
    assert [name.partition(",")[0] for name in verdict.witnesses] == ["BTF read by sockpid", "BTF read by drgn"] * 2
    assert not verdict.independent


def test_a_disagreement_names_field_values_and_sources(tmp_path: Path) -> None:
    files = vmlinux(tmp_path / "one"), vmlinux(tmp_path / "two", other_btf())
    (verdict,) = verify.verify_all(w for file in files for w in verify.witnesses(file))
    by_field = {d.field: d for d in verdict.disagreements if "drgn" not in d.other_source}
    assert str(by_field["struct sock.sk_protocol"]) == (
        "struct sock.sk_protocol: 0 (2 bytes) (BTF read by sockpid, in one); 2 (2 bytes) (BTF read by sockpid, in two)"
    )
    assert by_field["struct sock.state"].other_value is None


def test_two_readers_of_one_file_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = vmlinux(tmp_path / "one")
    table = Table()
    table.add(extract(path, wanted=WANTED))
    wrong: Layout = {"struct sock": Struct("struct sock", 4, {"sk_protocol": Field(8, 16)})}
    monkeypatch.setattr(drgn_layout, "extract", lambda *_: wrong)
    (verdict,) = verify.verify_all(verify.witnesses(path, table=table))
    (d,) = verdict.disagreements
    assert (d.field, d.other_source) == ("struct sock.sk_protocol", "BTF read by drgn, in one")
    assert d.source.startswith("table, from BTF of one (sha256 ")


def test_what_the_table_has_and_the_images_no_longer_read_is_held_too(tmp_path: Path) -> None:
    path = vmlinux(tmp_path / "one")
    table = Table()
    table.add(extract(path, wanted={**WANTED, "struct more": frozenset("x")}))
    (verdict,) = verify.verify_all(verify.witnesses(path, table=table))
    assert verdict.fields == 5


def test_one_description_is_nothing_to_compare(tmp_path: Path) -> None:
    files = vmlinux(tmp_path / "one"), vmlinux(tmp_path / "two", build_id="ee" * 20)
    with pytest.raises(UsageError, match=r"^6\.1\.0-1-test .* has no description but BTF read by sockpid, in one"):
        verify.verify_all(w for file in files for w in verify.witnesses(file))


def test_another_banner_under_one_build_id_is_a_disagreement(tmp_path: Path) -> None:
    table = Table()
    table.add(extract(vmlinux(tmp_path / "one"), wanted=WANTED)._replace(build_id="ab"))
    other = next(iter(table))._replace(banner=make.BANNER + " again", provenance={"kind": "btf", "source": "x"})
    verdict = verify.verify([verify.Witness("a", "table", next(iter(table))), verify.Witness("b", "btf", other)])
    assert [d.field for d in verdict.disagreements] == ["banner"]


def test_dwarf_of_another_build_is_no_witness(tmp_path: Path) -> None:
    path = vmlinux(tmp_path / "one")
    entry = extract(path, wanted=WANTED)
    with pytest.raises(SourceError, match="no DWARF in it"):
        verify.verify_dwarf(entry, path)


def kernel(offset: int = 540) -> KernelEntry:
    where: Layout = {"struct sock": Struct("struct sock", 768, {"sk_protocol": Field(offset * 8, 16)})}
    provenance = {"kind": "btf", "source": "a.deb", "sha256": "0" * 64, "tools": {}}
    return KernelEntry("x86_64", "aabb", "6.1.0-1", "Linux version 6.1.0-1 (x) #1", "debian", None, provenance, where)


def table_of(entry: KernelEntry) -> Table:
    table = Table()
    table.add(entry)
    return table


def report(offset: int = 540, wrong: Optional[str] = None) -> Dict[str, Any]:
    """As `sockpid selftest --json` prints it, of a kernel with one field."""
    mismatches = [] if wrong is None else [wrong]
    told = {
        "place": Field(offset * 8, 16)._asdict(),
        "seen_as": ["owner", "pid"],
        "ok": wrong is None or not wrong.startswith("pid: "),
        "wrong": [f"inet: {line}" for line in mismatches if line.startswith("pid: ")],
    }
    document = {
        "arch": "x86_64",
        "release": "6.1.0-1",
        "build_id": "aabb",
        "banner": "Linux version 6.1.0-1 (x) #1",
        "offsets_source": "/sys/kernel/btf/vmlinux",
        "families": {"inet": {"mismatches": mismatches}},
        "fields": {"struct sock.sk_protocol": told},
    }
    printed: Dict[str, Any] = json.loads(json.dumps(document))
    return printed


def test_a_live_kernel_confirms_the_table() -> None:
    verdict = verify.verify_selftest(table_of(kernel()), report())
    assert (verdict.disagreements, verdict.fields, verdict.independent) == ((), 1, True)


def test_a_live_kernel_contradicts_the_table() -> None:
    (d,) = verify.verify_selftest(table_of(kernel()), report(544)).disagreements
    assert str(d) == (
        f"struct sock.sk_protocol: 540 (2 bytes) (table, from BTF of a.deb (sha256 {'0' * 64})); "
        "544 (2 bytes) (live kernel, offsets from /sys/kernel/btf/vmlinux)"
    )
    (d,) = verify.verify_selftest(table_of(kernel()), report(wrong="pid: 1, expected 2")).disagreements
    assert (d.field, d.value) == ("struct sock.sk_protocol", Field(540 * 8, 16))
    assert d.other_value == "read back wrong: inet: pid: 1, expected 2"
    (d,) = verify.verify_selftest(table_of(kernel()), report(wrong="no event")).disagreements
    assert (d.field, d.other_value) == ("self-check", "inet: no event")


@pytest.mark.parametrize("change", [{"fields": 1}, {"families": None}, {"fields": {"x": {}}}])
def test_what_is_no_report_is_refused(change: Dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not what `sockpid selftest --json` prints"):
        verify.verify_selftest(table_of(kernel()), {**report(), **change})


def test_a_report_of_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the table has no kernel 6\.1\.0-1 \(x86_64, build-id ffff\)"):
        verify.verify_selftest(table_of(kernel()), {**report(), "build_id": "ffff"})


@pytest.mark.parametrize("name", ARCHES)
def test_every_field_is_observed_or_has_a_reason_why_not(name: str) -> None:
    wanted = wanted_fields(ARCHES[name])
    fields = {f"{t}.{path}" for t, paths in wanted.items() if t != "struct pt_regs" for path in paths}
    assert fields == observed.SEEN_AS.keys() | observed.UNSEEN.keys()
    assert not observed.SEEN_AS.keys() & observed.UNSEEN.keys()


def test_observed_fields_follow_what_was_tried() -> None:
    arch = ARCHES["x86_64"]
    rows: Dict[str, Any] = {}
    for name, paths in wanted_fields(arch).items():
        rows[name] = Struct(name, 64, dict.fromkeys(paths, Field(0, 32)))
    rows["struct task_struct"].fields["real_start_time"] = None
    event: Any = object()
    ran = [
        Result("inet", [event], ["snd_cwnd: 0, expected 10"], None),
        Result("inet6", [], [], "no such sockets on loopback"),
    ]
    told = observed.fields(arch, rows, ran, {"retransmit": "raw_tp tcp_retransmit_skb", "connect": None})
    assert told["struct sock.__sk_common.skc_daddr"]["ok"]
    assert told["struct tcp_sock.snd_cwnd"]["wrong"] == ["inet: snd_cwnd: 0, expected 10"]
    assert [name for name, t in told.items() if not t["ok"]] == ["struct tcp_sock.snd_cwnd"]
    for absent in ("struct sock.__sk_common.skc_v6_daddr", "struct task_struct.real_start_time", "struct pt_regs.di"):
        assert absent not in told
    told = observed.fields(arch, rows, ran, {"retransmit": "kprobe-pmu tcp_retransmit_skb"})
    assert {"struct pt_regs.di", "struct pt_regs.si"} <= told.keys()
    assert observed.fields(arch, rows, ran[1:], {}) == {}
