"""The archive: whole structs in, any field out, equal to a reading of the kernel itself."""

from __future__ import annotations

import copy
import json
import lzma
from pathlib import Path
from typing import Any, Dict, List

import pytest

from sockpid import data
from sockpid.arch import ARCHES, Arch
from sockpid.btf.btf import Btf
from sockpid.errors import BtfError, ConflictError, SchemaError, TableError
from sockpid.image import hooks
from sockpid.image.image import Image, Relocation, parse_image
from sockpid.table import table
from sockpid.table.layout import Wanted
from sockpid_gen import Table
from sockpid_gen.archive import archive, record, refresh
from sockpid_gen.archive import names as archive_names
from sockpid_gen.archive.rows import Archived, members
from sockpid_gen.archive.types import describe, describe_btf, shared_names
from sockpid_gen.btf import finder
from sockpid_gen.extraction import extraction, wanted
from sockpid_gen.kernel import source
from sockpid_gen.table import shard
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

X86_64 = ARCHES["x86_64"]
ROOTS = ("struct sock", "enum state", "struct gone", "struct forward")
PATHS = frozenset(
    (
        "__sk_common",
        "__sk_common.skc_family",
        "__sk_common.skc_daddr",
        "__sk_common.skc_addrpair",
        "__sk_common.skc_nothing",
        "sk_bits",
        "sk_kern",
        "sk_err",
        "sk_socket",
        "sk_socket.file",
        "sk_ids",
        "sk_ids[0]",
        "sk_ids[2].number",
        "sk_ids[3]",
        "sk_grid[5]",
        "sk_tail",
        "sk_tail[7]",
        "sk_owned",
        "sk_both",
        "sk_word",
        "sk_low",
        "sk_named.low",
        "sk_state",
        "nothing",
    )
)


def types(byte_order: str = "little") -> Btf:
    """One of everything that C can say: anonymous levels, unions, bit fields old and new, arrays, pointers, enums."""
    b = BtfBuilder(byte_order)
    u8, u16, u32, s32 = (b.integer(n, size, n[0] == "s") for n, size in (("u8", 1), ("u16", 2), ("u32", 4), ("s32", 4)))
    old_bits = b.integer("unsigned int", 4, bits=3, offset=1)
    pair = b.struct("", 8, ("skc_daddr", u32, 0), ("skc_rcv_saddr", u32, 32))
    either = b.struct("", 8, ("skc_addrpair", u32, 0), ("", pair, 0), kind=5)
    common = b.struct("sock_common", 12, ("", either, 0), ("skc_family", u16, 64))
    state = b.enum("state", ("OPEN", 0), ("ODD", -1), signed=True)
    number = b.struct("upid", 8, ("pad", u32, 0), ("number", s32, 32))
    low = b.struct("", 4, ("low", u16, 0), ("high", u16, 16))
    word = b.struct("", 4, ("sk_word", u32, 0), ("", b.struct("", 4, ("sk_low", u16, 0)), 0), kind=5)
    socket = b.struct("socket", 8, ("file", u32, 0))
    held = b.struct("slock_owned", 8, ("sk_owned", s32, 0))  # a type with a name, a member without one
    b.record(7, "forward", 0)
    b.bitfield_struct(
        "sock",
        128,
        ("__sk_common", common, 0, 0),
        ("sk_bits", old_bits, 96, 0),
        ("sk_kern", u8, 129, 1),
        ("sk_err", b.record(8, "sk_t", s32), 160, 0),
        ("sk_socket", b.pointer(socket), 192, 0),
        ("sk_ids", b.array(number, 3), 256, 0),
        ("sk_grid", b.array(u16, 6), 448, 0),
        ("", word, 544, 0),
        ("sk_named", low, 576, 0),
        ("sk_state", state, 608, 0),
        ("", b.struct("", 8, ("", held, 0), ("sk_both", s32, 0), kind=5), 640, 0),
        ("sk_tail", b.array(u32, 0), 704, 0),
    )
    b.record(12, "tcp_connect", b.record(13, "", 0))
    return Btf(b.build())


@pytest.mark.parametrize("arch", ARCHES.values(), ids=lambda arch: arch.name)
def test_archived_rows_answer_as_the_kernel_does(arch: Arch) -> None:
    btf, pointer_size = types(arch.byte_order), arch.pointer_size
    rows = describe_btf(finder.BtfTypes(btf.data, arch).prog, btf, pointer_size, ROOTS)
    assert {"struct sock", "struct sock_common", "struct upid", "enum state"} <= rows.keys()
    assert "struct socket" not in rows  # behind a pointer
    assert rows["struct gone"] is None
    assert "struct forward" not in rows  # only declared: nobody can tell
    wanted_fields: Wanted = {
        "struct sock": PATHS,
        "struct gone": frozenset({"a"}),
        "enum state": frozenset({"OPEN", "ODD", "GONE"}),
    }
    again = json.loads(json.dumps(rows))
    assert Archived(again).extract(wanted_fields, pointer_size) == btf.extract(wanted_fields, pointer_size)


def test_types_that_were_not_archived_are_no_absent_types() -> None:
    with pytest.raises(TableError, match="the archive does not have struct socket"):
        Archived({"struct sock": None}).extract({"struct socket": frozenset()}, 8)


def test_a_name_of_several_types_gets_no_row_but_is_spelled_out() -> None:
    b = BtfBuilder()
    u32 = b.integer("u32", 4)
    one = b.struct("twin", 4, ("a", u32, 0))
    other = b.struct("twin", 8, ("a", u32, 32))
    b.struct("sock", 12, ("first", one, 0), ("second", other, 32))
    btf = Btf(b.build())
    first_seen = describe(finder.BtfTypes(btf.data, X86_64).prog, ("struct sock", "struct twin"))
    assert shared_names(btf, first_seen, 8) == {"struct twin"}
    rows = describe_btf(finder.BtfTypes(btf.data, X86_64).prog, btf, 8, ("struct sock", "struct twin"))
    assert rows.keys() == {"struct sock"}
    fields = {"struct sock": frozenset({"first.a", "second.a", "second"})}
    assert Archived(rows).extract(fields, 8) == btf.extract(fields, 8)


def test_types_that_pahole_did_not_unite_are_one() -> None:
    b = BtfBuilder()
    u32 = b.integer("u32", 4)
    twins = [b.struct("twin", 4, ("a", u32, 0)) for _ in range(2)]
    b.struct("sock", 8, ("first", twins[0], 0), ("second", twins[1], 32))
    btf = Btf(b.build())
    rows = describe_btf(finder.BtfTypes(btf.data, X86_64).prog, btf, 8, ("struct sock", "struct twin"))
    assert rows.keys() == {"struct sock", "struct twin"}


def test_names_that_the_preprocessor_numbered_make_no_other_type() -> None:
    b = BtfBuilder()
    u32 = b.integer("u32", 4)
    for number in (11, 12):
        hidden = b.struct("", 4, ("old", u32, 0))
        either = b.struct("", 4, ("new", u32, 0), (f"__UNIQUE_ID_rh_kabi_hide{number}", hidden, 0), kind=5)
        b.struct("task_struct", 8, ("flags", u32, 0), ("", either, 32))
    btf = Btf(b.build())
    rows = describe_btf(finder.BtfTypes(btf.data, X86_64).prog, btf, 8, ("struct task_struct",))
    assert list(members(rows["struct task_struct"])) == ["flags", "new"]
    fields = {"struct task_struct": frozenset({"flags", "new", "old"})}
    assert Archived(rows).extract(fields, 8) == btf.extract(fields, 8)


def test_two_readers_have_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    btf = types()
    rows = describe(finder.BtfTypes(btf.data, X86_64).prog, ("struct sock",))
    row: Any = rows["struct sock"]
    assert [name for name in members(row) if "sk_low" in name or "word" in name] == ["sk_word", "sk_low"]
    row["members"][3][1] += 8
    monkeypatch.setattr("sockpid_gen.archive.types.describe", lambda *_: rows)
    with pytest.raises(BtfError, match="two readers of BTF disagree about struct sock"):
        describe_btf(finder.BtfTypes(btf.data, X86_64).prog, btf, 8, ("struct sock",))


@pytest.fixture
def kernel(tmp_path: Path) -> archive.Kernel:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.elf())
    with source.open_source(path) as opened:
        return record.record_of(opened)


def test_a_file_gives_back_what_was_put_in(kernel: archive.Kernel, tmp_path: Path) -> None:
    path = archive.path_of(tmp_path / "archive", "x86_64", "6.1")
    assert archive.read(path) == []
    other = {**copy.deepcopy(kernel), "build_id": "ff", "functions": None}
    content = archive.encode("x86_64", "6.1", [kernel, other])
    assert content == archive.encode("x86_64", "6.1", [other, kernel])
    assert archive.save(path, content)
    assert not archive.save(path, content)
    assert sorted(archive.read(path), key=lambda k: k["build_id"]) == [kernel, other]
    assert len(json.loads(content)["layouts"]) == 1
    assert list(archive.sources_of(tmp_path / "archive")) == [kernel["sources"][0][1]] * 2


def test_all_sources_of_one_kernel_are_noted_and_btf_counts_more(kernel: archive.Kernel) -> None:
    dwarf = {**copy.deepcopy(kernel), "kind": "dwarf", "sources": [["a-dbg.deb", "0" * 64]]}
    for order in ([kernel, dwarf], [dwarf, kernel], [kernel, dwarf, kernel]):
        (merged,) = archive.merge(order)
        assert merged["kind"] == "btf"
        assert merged["sources"] == sorted(kernel["sources"] + dwarf["sources"])


def test_functions_that_were_not_looked_for_are_not_known_to_be_absent(kernel: archive.Kernel, tmp_path: Path) -> None:
    """A file from before a hook had that function: written again, it says no more of it; read anew, the kernel does."""
    known = dict(kernel["functions"])
    late = max(known)
    document = json.loads(archive.encode("x86_64", "6.1", [kernel]))
    at = document["functions"].index(late)
    for names in (document["functions"], document["kernels"][0]["functions"]):
        del names[at]
    path = tmp_path / "x.json.xz"
    path.write_bytes(lzma.compress(json.dumps(document).encode()))
    (old,) = archive.read(path)
    archive.save(path, archive.encode("x86_64", "6.1", [old]))
    (again,) = archive.read(path)
    assert again["functions"] == {name: number for name, number in known.items() if name != late}
    new = {**copy.deepcopy(kernel), "sources": [["b.deb", "0" * 64]]}
    for order in ([again, new], [new, again]):
        (merged,) = archive.merge(order)
        assert merged["functions"] == known


def test_one_kernel_with_two_layouts_is_refused(kernel: archive.Kernel) -> None:
    other = copy.deepcopy(kernel)
    other["sources"] = [["b.deb", "0" * 64]]
    row = next(m for m in other["types"]["struct sock"]["members"] if m[0] == "sk_protocol")
    row[1] += 64
    with pytest.raises(TableError, match=r"described in two ways, first in struct sock\.sk_protocol: .* b\.deb"):
        archive.merge([kernel, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["rows"][min(d["rows"])].update(size=1), "was altered"),
        (lambda d: d["layouts"][min(d["layouts"])].update(x=None), "was altered"),
        (lambda d: d.pop("kernels"), "damaged, or no archive"),
        (lambda d: d["kernels"][0].update(layout="0"), "damaged, or no archive"),
        (lambda d: d["kernels"][0].update(functions=[1]), "damaged, or no archive"),
    ],
)
def test_damage_is_found(kernel: archive.Kernel, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "x.json.xz"
    document = json.loads(archive.encode("x86_64", "6.1", [kernel]))
    change(document)
    path.write_bytes(lzma.compress(json.dumps(document).encode()))
    with pytest.raises(TableError, match=message):
        archive.read(path)


def test_no_archive_at_all(kernel: archive.Kernel, tmp_path: Path) -> None:
    path = tmp_path / "x.json.xz"
    whole = lzma.compress(archive.encode("x86_64", "6.1", [kernel]))
    for content in (b"", b"{}", whole[:-9], lzma.compress(b"[1]")):
        path.write_bytes(content)
        with pytest.raises(TableError, match="damaged, or no archive"):
            archive.read(path)
    path.write_bytes(lzma.compress(b'{"schema": "9.0"}'))
    with pytest.raises(SchemaError, match=r"schema 9\.0"):
        archive.read(path)


def asking_for_more(image: Image, more: Dict[str, List[str]]) -> Image:
    """The image with a program whose relocations name more fields."""
    name, program = next(iter(image.programs.items()))
    extra = tuple(Relocation(0, "byte_off", type_name, path, 0, 4) for type_name, ps in more.items() for path in ps)
    doctored = program._replace(relocations=program.relocations + extra)
    return image._replace(programs={**image.programs, name: doctored})


def test_a_field_that_a_new_image_asks_for_comes_out_of_the_archive(
    kernel: archive.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived, offsets = tmp_path / "archive", tmp_path / "offsets"
    archive.save(archive.path_of(archived, "x86_64", "6.1"), archive.encode("x86_64", "6.1", [kernel]))
    (result,) = refresh.refresh(archived, offsets)
    assert (result.changed, result.archived, result.others) == (True, 1, 0)
    assert not refresh.refresh(archived, offsets)[0].changed

    more = {"struct sock": ["state", "never_was"], "enum bpf_map_type": ["BPF_MAP_TYPE_LRU_HASH"]}
    content = data.read("bpf_bytecode/sockpid.bpfel.json")
    assert content is not None
    doctored = asking_for_more(parse_image(content, "doctored"), more)
    monkeypatch.setattr(wanted, "image_for", lambda _: doctored)
    fields = wanted.wanted_fields(X86_64)
    assert {"state", "never_was"} <= fields["struct sock"]

    (result,) = refresh.refresh(archived, offsets)
    assert result.changed
    (entry,) = load(result.path)
    with source.open_source(tmp_path / "vmlinux") as opened:
        fresh = extraction.extract(opened, fields)
    assert entry == fresh.layout


def load(path: Path) -> List[Any]:
    parsed = table.parse_shard(path.read_bytes(), str(path))
    return [parsed.layout(entry) for entry in parsed.entries]


def test_types_that_the_archive_lacks_are_named(
    kernel: archive.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = tmp_path / "archive"
    archive.save(archive.path_of(archived, "x86_64", "6.1"), archive.encode("x86_64", "6.1", [kernel]))
    content = data.read("bpf_bytecode/sockpid.bpfel.json")
    assert content is not None
    doctored = asking_for_more(parse_image(content, "doctored"), {"struct unheard_of": ["a"]})
    monkeypatch.setattr(wanted, "image_for", lambda _: doctored)
    (result,) = refresh.refresh(archived, tmp_path / "offsets")
    assert result.lacking == {"struct unheard_of": ["vmlinux"]}


def test_kernels_that_only_the_table_has_stay_and_contradictions_are_errors(
    kernel: archive.Kernel, tmp_path: Path
) -> None:
    archived, offsets = tmp_path / "archive", tmp_path / "offsets"
    path = offsets / "x86_64/6.1.json"
    layout, _ = archive.layout_of(kernel["types"], "x86_64")
    document = shard.empty("x86_64", "6.1")
    own = refresh.entry_of(kernel, layout)._replace(build_id="ee")
    shard.merge(document, own, str(path))
    shard.save(path, document)
    archive.save(archive.path_of(archived, "x86_64", "6.1"), archive.encode("x86_64", "6.1", [kernel]))
    (result,) = refresh.refresh(archived, offsets)
    assert (result.archived, result.others) == (1, 1)
    kept = {k["build_id"]: k["provenance"] for k in shard.read(path, "x86_64", "6.1")["kernels"]}
    assert kept == {"ee": own.provenance, make.BUILD_ID: refresh.entry_of(kernel, layout).provenance}

    moved = copy.deepcopy(kernel)
    next(m for m in moved["types"]["struct sock"]["members"] if m[0] == "sk_protocol")[1] += 64
    archive.save(archive.path_of(archived, "x86_64", "6.1"), archive.encode("x86_64", "6.1", [moved]))
    before = path.read_bytes()
    with pytest.raises(ConflictError, match=r"struct sock\.sk_protocol"):
        refresh.refresh(archived, offsets)
    assert path.read_bytes() == before


def test_functions_of_hooks_are_archived() -> None:
    assert hooks.functions() <= set(archive_names.FUNCTIONS)


def test_records_of_one_kernel_that_number_a_function_differently(kernel: archive.Kernel) -> None:
    other = {**kernel, "sources": [["other.deb", "1" * 64]], "functions": {"tcp_connect": 99}}
    with pytest.raises(TableError, match=r"first in the BTF id of tcp_connect: 99 in other\.deb .*, 5 in vmlinux"):
        archive.merge([kernel, other])
    for changes in ({"release": "6.1.0-2-test"}, {"banner": make.BANNER + " x"}):
        with pytest.raises(TableError, match="is described in two ways, first in its"):
            archive.merge([kernel, {**kernel, **changes, "sources": [["other.deb", "1" * 64]]}])


def test_refreshing_keeps_what_was_concluded_and_refuses_other_numbers(kernel: archive.Kernel, tmp_path: Path) -> None:
    kept, offsets = tmp_path / "archive", tmp_path / "offsets"
    archive.save(archive.path_of(kept, "x86_64", "6.1"), archive.encode("x86_64", "6.1", [kernel]))
    refresh.refresh(kept, offsets)
    (read,) = Table.load(offsets)
    note = {**read.provenance, "note": "equal on both sides"}
    concluded = read._replace(build_id="ff", banner=f"{read.banner} x", btf_ids=None, provenance=note)
    table = Table.load(offsets)
    assert table.add(concluded)
    table.save(offsets)
    (offsets / "x86_64/6.1.sources").unlink()
    (refreshed,) = refresh.refresh(kept, offsets)
    assert (refreshed.archived, refreshed.others) == (1, 1)
    (again,) = (k for k in Table.load(offsets) if k.build_id == "ff")
    assert (again.measured, again.provenance["note"]) == (False, "equal on both sides")
    archive.save(
        archive.path_of(kept, "x86_64", "6.1"),
        archive.encode("x86_64", "6.1", [{**kernel, "functions": {"tcp_connect": 99}}]),
    )
    with pytest.raises(ConflictError, match=r"another BTF id of tcp_connect: 5 from .*; 99 from"):
        refresh.refresh(kept, offsets)
