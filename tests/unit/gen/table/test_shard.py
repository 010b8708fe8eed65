"""Merging and writing of shards: canonical form, conflicts, interrupted writes, and the check command's findings."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, Mapping, Optional

import pytest

from sockpid import __version__
from sockpid.arch import ARCHES
from sockpid.errors import ConflictError, SchemaError, TableError
from sockpid.table import table
from sockpid.table.layout import Enum, Field, Layout, Struct
from sockpid_gen import KernelEntry
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.table import check, shard

NAME = "x86_64/6.1.json"


def layout(offset: int = 540, **more: Optional[Field]) -> Layout:
    fields = {"sk_protocol": Field(offset * 8, 16), "bits": Field(9, 2, bitfield=True, signed=True), **more}
    return {
        "struct sock": Struct("struct sock", 768, fields),
        "enum e": Enum("enum e", 4, {"A": 0, "B": None}),
        "struct no": None,
    }


LAYOUT = layout()


def entry(
    build_id: Optional[str] = "aa",
    release: str = "6.1.0-1",
    source: str = "a.deb",
    layout: Layout = LAYOUT,
    banner: Optional[str] = None,
    btf_ids: Optional[Mapping[str, int]] = MappingProxyType({"tcp_connect": 7}),
    arch: str = "x86_64",
) -> KernelEntry:
    provenance = {"kind": "btf", "source": source, "sha256": "0" * 64, "tools": {"drgn": "0.3.0"}}
    text = banner or f"Linux version {release} (x) #1"
    ids = None if btf_ids is None else dict(btf_ids)
    return KernelEntry(arch, build_id, release, text, "debian", ids, provenance, layout)


@pytest.fixture
def document(tmp_path: Path) -> shard.Document:
    return shard.read(tmp_path / "absent.json", "x86_64", "6.1")


def test_what_is_merged_is_what_is_read(document: shard.Document) -> None:
    assert shard.merge(document, entry(), NAME)
    shard.validate(json.loads(shard.canonical(document)), NAME)
    parsed = table.parse_shard(shard.canonical(document), NAME)
    found = parsed.find("aa", "", "")
    assert found is not None
    assert parsed.layout(found) == layout()


def test_same_again_changes_nothing(document: shard.Document) -> None:
    shard.merge(document, entry(), NAME)
    before = shard.canonical(document)
    assert not shard.merge(document, entry(source="other.deb"), NAME)
    assert shard.canonical(document) == before


def test_conflict_names_field_values_and_both_sources(document: shard.Document) -> None:
    shard.merge(document, entry(), NAME)
    with pytest.raises(ConflictError) as caught:
        shard.merge(document, entry(source="b.deb", layout=layout(offset=544)), NAME)
    for part in (NAME, "struct sock.sk_protocol", "540 (2 bytes)", "544 (2 bytes)", "a.deb", "b.deb"):
        assert part in str(caught.value)


def test_images_that_grew_update_the_entry(document: shard.Document) -> None:
    shard.merge(document, entry(), NAME)
    assert shard.merge(document, entry(layout=layout(new=None)), NAME)
    written = json.loads(shard.canonical(document))
    assert (len(written["kernels"]), len(written["layouts"]), len(written["structs"])) == (1, 1, 2)


def test_dwarf_keeps_btf_ids(document: shard.Document) -> None:
    shard.merge(document, entry(), NAME)
    assert not shard.merge(document, entry(btf_ids=None), NAME)
    assert document["kernels"][0]["btf_ids"] == {"tcp_connect": 7}


def test_kernels_without_build_id_are_told_apart_by_banner(document: shard.Document) -> None:
    shard.merge(document, entry(None), NAME)
    shard.merge(document, entry(None, banner="Linux version 6.1.0-1 (x) #2", layout=layout(offset=2)), NAME)
    assert len(document["kernels"]) == 2
    assert not shard.merge(document, entry(None), NAME)


def test_canonical_form_does_not_depend_on_order(document: shard.Document, tmp_path: Path) -> None:
    other = shard.read(tmp_path / "absent.json", "x86_64", "6.1")
    kernels = [entry("bb"), entry("aa", layout=layout(1)), entry(None, "6.1.0-0", layout=layout(2))]
    for one in kernels:
        shard.merge(document, one, NAME)
    for one in reversed(kernels):
        shard.merge(other, one, NAME)
    content = shard.canonical(document)
    assert content == shard.canonical(other) == shard.canonical(shard.decode(table.parse_shard(content, NAME)))
    assert [k["build_id"] for k in json.loads(content)["kernels"]] == [None, "aa", "bb"]


def test_canonical_form_to_the_letter(document: shard.Document) -> None:
    shard.merge(document, entry(layout={"struct é": None}), NAME)
    row = table.row_id({"struct é": None})
    content = json.dumps({**entry()._asdict(), "layout": row}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    assert shard.canonical(document).decode("ascii").replace(digest, "DIGEST") == (
        f'{{"arch": "x86_64", "functions": ["tcp_connect"], "producer": "sockpid-gen {__version__}", "schema": "3.0", '
        '"series": "6.1",\n"kernels": [\n'
        '{"banner": "Linux version 6.1.0-1 (x) #1", "btf_ids": [7], "build_id": "aa", "digest": "DIGEST", '
        f'"distribution": "debian", "layout": "{row}", "provenance": {{"kind": "btf", "sha256": "{"0" * 64}", '
        '"source": "a.deb", "tools": {"drgn": "0.3.0"}}, "release": "6.1.0-1"}\n'
        f'],\n"layouts": {{\n"{row}": {{"struct \\u00e9": null}}\n}},\n"structs": {{\n}}}}\n'
    )


def test_provenance_lies_beside_the_shard(document: shard.Document, tmp_path: Path) -> None:
    path = tmp_path / NAME
    shard.merge(document, entry(), NAME)
    shard.merge(document, entry(None, "6.1.0-2", "b.deb"), NAME)
    assert shard.save(path, document)
    assert not shard.save(path, document)
    for kernel in table.parse_shard(path.read_bytes(), NAME).entries:
        assert kernel.provenance == {"kind": "btf"}
    sources = {e["provenance"]["source"] for e in shard.read(path, "x86_64", "6.1")["kernels"]}
    assert sources == {"a.deb", "b.deb"}
    path.with_suffix(".sources").unlink()
    assert shard.read(path, "x86_64", "6.1")["kernels"][0]["provenance"] == {"kind": "btf"}
    path.with_suffix(".sources").write_text("{")
    with pytest.raises(TableError, match="sources: damaged"):
        shard.read(path, "x86_64", "6.1")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.update(extra=1), r"\$: "),
        (lambda d: d["kernels"][0].update(extra=1), r"\$\.kernels\[0\]"),
        (lambda d: d["kernels"][0].update(build_id="AA"), "build_id"),
        (lambda d: d["kernels"][0]["provenance"].update(source="/tmp/a.deb"), "source"),
        (lambda d: d["kernels"][0]["provenance"].update(kind="guess"), "kind"),
        (lambda d: d.update(arch="i386"), "arch"),
        (lambda d: next(iter(d["structs"].values())).update(size=-1), "structs"),
    ],
)
def test_schema_is_strict(document: shard.Document, change: Any, place: str) -> None:
    shard.merge(document, entry(), NAME)
    written = json.loads(shard.canonical(document))
    change(written)
    with pytest.raises(TableError, match=place):
        shard.validate(written, NAME)


def test_a_file_of_another_series_or_schema_is_not_written_to(document: shard.Document, tmp_path: Path) -> None:
    path = tmp_path / "6.1.json"
    shard.write(path, shard.canonical(document))
    with pytest.raises(TableError, match=r"is for x86_64 6\.1, not for x86_64 6\.2"):
        shard.read(path, "x86_64", "6.2")
    shard.write(path, shard.canonical({**document, "schema": "1.9"}))
    with pytest.raises(SchemaError):
        shard.read(path, "x86_64", "6.1")


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "x86_64" / "6.1.json"
    shard.write(path, b"old")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, call, interrupt)
        with pytest.raises(KeyboardInterrupt):
            shard.write(path, b"new")
    assert [p.name for p in path.parent.iterdir()] == ["6.1.json"]
    assert path.read_bytes() == b"old"
    shard.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A directory with one shard of one kernel that has every field the image wants."""
    found: Dict[str, Any] = {}
    for name, paths in wanted_fields(ARCHES["x86_64"]).items():
        if name.startswith("enum "):
            found[name] = Enum(name, 4, dict.fromkeys(paths, 1))
        else:
            found[name] = Struct(name, 64, dict.fromkeys(paths, Field(0, 8)))
    document = shard.read(tmp_path / NAME, "x86_64", "6.1")
    shard.merge(document, entry(layout=found), NAME)
    shard.write(tmp_path / NAME, shard.canonical(document))
    return tmp_path


def problems(directory: Path) -> str:
    return "\n".join(problem for checked in check.check(directory) for problem in checked.problems)


def test_check_finds_nothing_wrong(complete: Path) -> None:
    assert problems(complete) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('": ', '":', 1), "not in the form in which sockpid-gen writes it"),
        (lambda text: text.replace('["tcp_connect"]', '["tcp_connect", "unused"]'), "1 BTF ids, but the shard names 2"),
        (lambda text: text + "\n", "not in the form in which sockpid-gen writes it"),
        (lambda text: text.replace('"size": 64', '"size": 65', 1), "altered"),
        (lambda text: text.replace('"x86_64"', '"aarch64"'), "which its path does not say"),
        (lambda text: text.replace("6.1.0-1", "6.2.0-1"), "does not belong to series 6.1"),
        (lambda text: text[:-3], "truncated"),
        (lambda text: text.replace('"distribution"', '"distro"'), "'distro' was unexpected"),
    ],
)
def test_check_finds(complete: Path, change: Any, message: str) -> None:
    path = complete / NAME
    path.write_text(change(path.read_text()))
    assert message in problems(complete)


def test_check_names_fields_that_the_image_wants_in_vain(complete: Path) -> None:
    document = shard.read(complete / NAME, "x86_64", "6.1")
    shard.merge(document, entry("bb", layout={"struct sock": Struct("struct sock", 1, {})}), NAME)
    shard.write(complete / NAME, shard.canonical(document))
    assert "struct sock.__sk_common.skc_daddr" in problems(complete)
    assert "add it again from its source" in problems(complete)


def test_check_finds_rows_that_nothing_uses(complete: Path) -> None:
    row = {"name": "struct unused", "size": 0, "fields": {}}
    content = (complete / NAME).read_bytes()
    start, rows = content[:-4].split(b'"structs": {\n')
    line = f'"{table.row_id(row)}": {json.dumps(row, sort_keys=True)}'.encode()
    lines = sorted([*rows.split(b",\n"), line])
    (complete / NAME).write_bytes(start + b'"structs": {\n' + b",\n".join(lines) + content[-4:])
    assert f"struct row {table.row_id(row)} is not in use" in problems(complete)


def test_check_of_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no offset tables"):
        list(check.check(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"arch"', '\ufeff{"arch"', "not in the form"),
        ('"schema": "3.0"', '"schema": "03.0"', "is no version"),
        ('"schema": "3.0"', '"schema": "3.' + "1" * 5000 + '"', "is no version"),
        ('"distribution": "debian"', '"distribution": "ubuntu"', "was altered: its digest is"),
        ('"btf_ids": [7]', '"btf_ids": [8]', "was altered: its digest is"),
        ('"btf_ids": [7]', '"btf_ids": [7], "btf_ids": [7]', "not in the form"),
        ('"kind": "btf"', '"kind": "guess"', "is from 'guess'"),
        ('"kind": "btf"', '"kind": "btf", "note": "concluded"', "was altered: its digest is"),
        ('"release": "6.1.0-1"', '"release": "6.2.0-1"', "does not belong to series 6.1"),
        ('"build_id": "aa"', '"build_id": "AA"', "bytes in lower-case hex"),
        ('"size": 64', '"size": 64, "size": 64', "not in the form"),
        ('"size": 64', '"size": 63', "was altered"),
        ('"digest": ', '"digest ": ', "lacks 'digest'"),
    ],
)
def test_runtime_and_check_refuse_the_same(complete: Path, old: str, new: str, message: str) -> None:
    path = complete / NAME
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert message in problems(complete)
    with pytest.raises(TableError) as caught:
        look_at_all(path.read_bytes())
    assert message in str(caught.value)


def look_at_all(content: bytes) -> None:
    """As the runtime does for the one kernel that it looks for."""
    parsed = table.parse_shard(content, NAME)
    for found in parsed.entries:
        parsed.layout(found)


def test_check_looks_at_the_sources(complete: Path) -> None:
    sources = (complete / NAME).with_suffix(".sources")
    head = '{"arch": "x86_64", "series": "6.1", "sources": {'
    for content, message in (
        ("{", "damaged"),
        (head.replace("6.1", "6.2") + "}}", "is for x86_64 6.2, which its path does not say"),
        (head + '"aa": 1}}', "aa has no provenance"),
        (head + '"aa": {"kind": "btf"}}}', "aa has no provenance"),
        (head + '"bb": {}}}', "6.1.sources has bb, which the shard does not have"),
        (head + '"aa": {}}}', ""),
    ):
        sources.write_text(content)
        assert message in problems(complete)
    assert problems(complete) == ""
