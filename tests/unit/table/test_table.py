"""The reader of the offset table, against damaged, foreign and ambiguous shards."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, Optional

import pytest

from sockpid.errors import SchemaError, TableError
from sockpid.table import table, writer
from sockpid.table.layout import Enum, Field, Struct
from tests.shard_lines import digest, render

SOCK: Dict[str, Any] = {
    "name": "struct sock",
    "size": 768,
    "fields": {
        "sk_protocol": {"offset": 540, "size": 2},
        "sk_kern_sock": {"bit_offset": 4289, "bit_size": 1},
        "sk_err": {"offset": 600, "size": 4, "signed": True},
        "gone": None,
    },
}
STATE: Dict[str, Any] = {"name": "enum tcp_ca_state", "size": 4, "values": {"TCP_CA_Open": 0, "TCP_CA_Gone": None}}
LAYOUT = {"struct sock": table.row_id(SOCK), "enum tcp_ca_state": table.row_id(STATE), "struct gone": None}


def kernel(
    build_id: Optional[str], release: str = "6.1.0-1", banner: str = "Linux version 6.1.0-1 (x) #1"
) -> Dict[str, Any]:
    return {
        "build_id": build_id,
        "release": release,
        "banner": banner,
        "distribution": "debian",
        "layout": table.row_id(LAYOUT),
        "btf_ids": [1234, None],
        "provenance": {"kind": "btf", "source": "vmlinux", "sha256": "0" * 64, "tools": {}},
    }


def document(*kernels: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "schema": "3.0",
        "producer": "sockpid-gen 0.1.0",
        "arch": "x86_64",
        "series": "6.1",
        "functions": ["tcp_connect", "tcp_sendpage"],
        "structs": {table.row_id(SOCK): copy.deepcopy(SOCK), table.row_id(STATE): copy.deepcopy(STATE)},
        "layouts": {table.row_id(LAYOUT): dict(LAYOUT)},
        "kernels": list(kernels or (kernel("aa"),)),
    }


def parse(value: Dict[str, Any]) -> table.Shard:
    return table.parse_shard(render(value), "6.1.json")


def test_written_form_is_what_the_format_says() -> None:
    value = document(kernel("aa"), kernel("bb", "6.1.0-2"))
    layout = parse(value).layout(parse(value).entries[0])
    written = writer.empty("x86_64", "6.1", "sockpid-gen 0.1.0")
    for build_id, release in (("bb", "6.1.0-2"), ("aa", "6.1.0-1")):
        entry = {**kernel(build_id, release), "btf_ids": {"tcp_connect": 1234}}
        writer.add(written, {k: v for k, v in entry.items() if k != "layout"}, layout)
    for one in value["kernels"]:
        one["btf_ids"] = [1234]
    content = writer.encode(written)
    value["functions"] = ["tcp_connect"]
    assert content == render(value)
    for one in value["kernels"]:
        one["digest"] = digest(value, one)
    assert json.loads(content) == value


def test_a_kernel_known_by_its_release_alone_is_never_found() -> None:
    nameless = {**kernel(None), "banner": None}
    shard = parse(document(nameless))
    assert [(e.release, e.banner) for e in shard.entries] == [("6.1.0-1", None)]
    for build_id in (None, "aa"):
        for banner in ("", "null", "None", "Linux version 6.1.0-1 (x) #1"):
            assert shard.find(build_id, "6.1.0-1", banner) is None


def test_only_what_is_asked_for_is_decoded() -> None:
    content = render(document(kernel("aa"), kernel("bb", "6.1.0-2")))
    damaged = content.replace(b'"build_id": "bb"', b'"build_id": bb')
    assert damaged != content
    shard = table.parse_shard(damaged, "6.1.json")
    assert shard.find("aa", "", "") is not None
    with pytest.raises(TableError, match=r"6\.1\.json: truncated, or no JSON"):
        _ = shard.entries


def test_text_that_json_escapes_is_found() -> None:
    odd = 'Linux version 6.1.0-1 (\u00fc "x" \\) #1'
    shard = parse(document(kernel(None, "6.1.0-1\u00fc", odd)))
    assert shard.find("cc", "6.1.0-1\u00fc", odd) is not None


def test_a_layout_comes_back_as_it_was_written() -> None:
    shard = parse(document())
    (entry,) = shard.entries
    assert (entry.build_id, entry.distribution, entry.btf_ids) == ("aa", "debian", {"tcp_connect": 1234})
    assert shard.layout(entry) == {
        "struct sock": Struct(
            "struct sock",
            768,
            {
                "sk_protocol": Field(540 * 8, 16),
                "sk_kern_sock": Field(4289, 1, bitfield=True),
                "sk_err": Field(4800, 32, signed=True),
                "gone": None,
            },
        ),
        "enum tcp_ca_state": Enum("enum tcp_ca_state", 4, {"TCP_CA_Open": 0, "TCP_CA_Gone": None}),
        "struct gone": None,
    }


def test_row_ids_are_what_the_format_says() -> None:
    # printf '%s' '{"a":[null,"\u00e9"],"b":1}' | sha256sum
    assert table.row_id({"b": 1, "a": [None, "é"]}) == "b73e2138dd7c689a"


def test_build_id_decides() -> None:
    shard = parse(document(kernel("aa"), kernel("bb")))
    found = shard.find("bb", "6.1.0-1", "Linux version 6.1.0-1 (x) #1")
    assert found is not None
    assert found.build_id == "bb"


def test_a_build_id_that_the_banner_contradicts_is_not_believed() -> None:
    nameless = {**kernel("cc", "6.1.0-3"), "banner": None}
    shard = parse(document(kernel("aa"), kernel("bb", "6.1.0-2", "Linux version 6.1.0-2 (x) #1"), nameless))
    assert shard.find("bb", "6.1.0-1", "Linux version 6.1.0-1 (x) #1") is None
    assert shard.find("bb", "6.1.0-2", "Linux version 6.1.0-2 (x) #2") is None
    # What uname says can be changed by whoever starts the process (setarch); /proc/version cannot.
    assert shard.find("bb", "2.6.61", "Linux version 6.1.0-2 (x) #1") is not None
    assert shard.find("bb", "6.1.0-2", "") is not None
    assert shard.find("cc", "6.1.0-3", "Linux version 6.1.0-3 (x) #1") is not None
    assert shard.find("cc", "6.1.0-4", "Linux version 6.1.0-4 (x) #1") is None


def test_other_build_of_the_same_release_is_not_found() -> None:
    shard = parse(document(kernel("aa")))
    assert shard.find("cc", "6.1.0-1", "Linux version 6.1.0-1 (x) #1") is None


@pytest.mark.parametrize(("in_table", "running"), [(None, "cc"), ("aa", None), (None, None)])
def test_release_and_banner_where_a_build_id_is_missing(in_table: Optional[str], running: Optional[str]) -> None:
    shard = parse(document(kernel(in_table)))
    assert shard.find(running, "6.1.0-1", "Linux version 6.1.0-1 (x) #1 \n") is not None
    assert shard.find(running, "6.1.0-1", "Linux version 6.1.0-1 (x) #2") is None
    assert shard.find(running, "6.1.0-2", "Linux version 6.1.0-1 (x) #1") is None


def test_ambiguous_banner_needs_equal_layouts() -> None:
    twins = document(kernel("aa"), kernel("bb"))
    assert parse(twins).find(None, "6.1.0-1", "Linux version 6.1.0-1 (x) #1") is not None
    twins["kernels"][1]["layout"] = "0" * 16
    assert parse(twins).find(None, "6.1.0-1", "Linux version 6.1.0-1 (x) #1") is None


@pytest.mark.parametrize("schema", ["2.1", "3.1", "4.0", "1.0", "0.9"])
def test_other_schemas_are_refused_by_name(schema: str) -> None:
    with pytest.raises(SchemaError, match=rf"6\.1\.json: offset table of schema {schema}, .* reads 2\.0 and 3\.0"):
        parse({**document(), "schema": schema})


@pytest.mark.parametrize(
    "schema", ["02.00", "3.00", "3." + "0" * 5000, "3." + "1" * 5000, "9" * 5000 + ".0", "3", "3.0."]
)
def test_schemas_that_are_no_versions(schema: str) -> None:
    with pytest.raises(TableError, match=r"6\.1\.json: schema '.{1,99}' is no version"):
        parse({**document(), "schema": schema})


def test_older_minor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "READ", {3: 3})
    assert parse(document()).entries
    with pytest.raises(SchemaError, match=r"reads 3\.0 to 3\.3"):
        parse({**document(), "schema": "3.4"})


def test_older_schema_has_no_digests() -> None:
    old = {**document(), "schema": "2.0"}
    assert parse(old).layout(parse(old).entries[0])
    old["kernels"][0]["digest"] = "0" * 16
    with pytest.raises(TableError, match="kernel 1 has unknown keys: 'digest'"):
        _ = parse(old).entries


@pytest.mark.parametrize(
    "change",
    [
        {"build_id": "bb"},
        {"build_id": None},
        {"release": "6.1.0-2"},
        {"banner": "Linux version 6.1.0-1 (x) #2"},
        {"banner": None},
        {"distribution": None},
        {"layout": "0" * 16},
        {"btf_ids": [1235, None]},
        {"btf_ids": [None, 1234]},
        {"btf_ids": None},
        {"provenance": {"kind": "dwarf", "source": "vmlinux", "sha256": "0" * 64, "tools": {}}},
        {"provenance": {"kind": "btf", "source": "vmlinux", "sha256": "0" * 64, "tools": {}, "note": "concluded"}},
    ],
)
def test_every_part_of_an_entry_is_in_its_digest(change: Dict[str, Any]) -> None:
    value = document()
    value["kernels"][0]["digest"] = digest(value, value["kernels"][0])
    assert table.parse_shard(render(value, sealed=False), "x").entries
    value["kernels"][0].update(change)
    with pytest.raises(TableError, match="was altered: its digest is"):
        _ = table.parse_shard(render(value, sealed=False), "x").entries


def test_an_entry_is_bound_to_its_shard() -> None:
    for change in ({"arch": "aarch64"}, {"functions": ["tcp_connect", "tcp_sendmsg"]}):
        value = document(kernel("aa"))
        value["kernels"][0].update(btf_ids=[1, 2])
        value["kernels"][0]["digest"] = digest(value, value["kernels"][0])
        value.update(change)
        with pytest.raises(TableError, match="was altered"):
            _ = table.parse_shard(render(value, sealed=False), "x").entries


def test_exchanged_layouts_are_noticed_by_whoever_asks_for_the_kernel() -> None:
    """Two builds of one shard, each with the other's layout: rows and ids of rows are all right."""
    value = document(kernel("aa"), kernel("bb", "6.1.0-2"))
    other = {"struct gone": None}
    value["layouts"][table.row_id(other)] = other
    value["kernels"][1]["layout"] = table.row_id(other)
    lines = render(value).decode()
    one, two = (f'"layout": "{kernel["layout"]}"' for kernel in value["kernels"])
    shard = table.parse_shard(two.join(part.replace(two, one) for part in lines.split(one)).encode(), "x")
    for build_id in ("aa", "bb"):
        with pytest.raises(TableError, match=rf"kernel 6\.1\.0-\d \({build_id}\) was altered"):
            shard.find(build_id, "", "")


@pytest.mark.parametrize("kind", ["guess", "consensus", "", None, 1])
def test_a_provenance_that_is_not_known_is_an_error(kind: Any) -> None:
    value = document()
    value["kernels"][0]["provenance"]["kind"] = kind
    with pytest.raises(
        TableError, match=r"kernel 6\.1\.0-1 \(aa\) is from .*; this sockpid knows btf, dwarf, calibrated"
    ):
        parse(value).find("aa", "", "")


def test_lines_in_another_form_are_refused_by_whoever_asks() -> None:
    """Doubled keys, other white space, other escapes, a mark before all: the value may be the same, or one of two."""
    content = render(document())
    for old, new in (
        (b'{"banner": ', b'{"banner": null, "banner": '),
        (b'"build_id": "aa"', b'"build_id": "bb", "build_id": "aa"'),
        (b'"build_id": "aa"', b'"build_id":  "aa"'),
        (b'"build_id": "aa"', b'"build_id": "a\\u0061"'),
        (b'"distribution": "debian", "layout"', b'"layout": "0", "distribution": "debian", "layout"'),
    ):
        assert old in content
        with pytest.raises(TableError, match="not in the form in which sockpid-gen writes it"):
            table.parse_shard(content.replace(old, new), "x").find("aa", "", "")
    for old, new in ((b'{"fields": ', b'{"fields": {}, "fields": '), (b'"offset": 540', b'"offset": 1, "offset": 540')):
        assert old in content
        shard = table.parse_shard(content.replace(old, new), "x")
        with pytest.raises(TableError, match=r"struct row .* is not in the form"):
            shard.layout(shard.entries[0])
    for damaged in (
        b"\xef\xbb\xbf" + content,
        content.replace(b'{"arch": ', b'{"arch": "arm", "arch": '),
        content.replace(b"\n", b"\r\n"),
    ):
        with pytest.raises(TableError, match="not in the form in which sockpid-gen writes it"):
            table.parse_shard(damaged, "x")


def test_lines_out_of_order_or_twice_are_refused() -> None:
    value = document(kernel("aa"), kernel("bb"))
    for kernels in (value["kernels"][::-1], value["kernels"][:1] * 2):
        with pytest.raises(TableError, match="kernels 1 and 2 are one kernel, or not in their order"):
            parse({**value, "kernels": kernels})
    lines = render(value).split(b"\n")
    first = lines.index(b'"structs": {') + 1
    for one, other in ((lines[first + 1] + b",", lines[first][:-1]), (lines[first], lines[first][:-1])):
        changed = b"\n".join([*lines[:first], one, other, *lines[first + 2 :]])
        with pytest.raises(TableError, match=r"struct row .* is there twice, or not in its order"):
            table.parse_shard(changed, "x")
    with pytest.raises(TableError, match="'functions' of the shard is not an array of names in their order"):
        parse({**value, "functions": ["tcp_sendpage", "tcp_connect"]})
    with pytest.raises(TableError, match="build-id aa is there 2 times"):
        parse(document(kernel("aa"), kernel("aa", "6.1.0-2"))).find("aa", "", "")


def test_every_truncation_is_an_error() -> None:
    data = render(document())
    for size in range(len(data)):
        with pytest.raises(TableError, match=r"^6\.1\.json: (truncated|not in the form)"):
            table.parse_shard(data[:size], "6.1.json")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"{}x"])
def test_no_json(data: bytes) -> None:
    with pytest.raises(TableError, match="truncated, or no JSON"):
        table.parse_shard(data, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("schema"), "the shard lacks 'schema'"),
        (lambda d: d.pop("functions"), "the shard lacks 'functions'"),
        (lambda d: d.update(schema=1), "'schema' of the shard is not a string"),
        (lambda d: d.update(schema="one"), "schema 'one' is no version"),
        (lambda d: d.update(functions=["a"]), "a kernel has 2 BTF ids, but the shard names 1 functions"),
        (lambda d: d.update(kernels=[1]), "kernel 1 is not an object"),
        (lambda d: d["kernels"][0].pop("banner"), "kernel 1 lacks 'banner'"),
        (lambda d: d["kernels"][0].update(build_id=7), "'build_id' of kernel 1 is not a string"),
        (lambda d: d["kernels"][0].update(btf_ids=["b", 1]), "'btf_ids' of kernel 1 is not an integer"),
        (lambda d: d["kernels"][0].update(btf_ids=[True, 1]), "'btf_ids' of kernel 1 is not an integer"),
        (lambda d: d["kernels"][0].update(btf_ids=[-1, 1]), "'btf_ids' of kernel 1 is not an array of type ids"),
        (lambda d: d["kernels"][0].update(btf_ids=[1 << 32, 1]), "'btf_ids' of kernel 1 is not an array of type ids"),
        (lambda d: d["kernels"][0].update(build_id="AA"), "'build_id' of kernel 1 is not bytes in lower-case hex"),
        (lambda d: d["kernels"][0].update(build_id="abc"), "'build_id' of kernel 1 is not bytes in lower-case hex"),
        (lambda d: d["kernels"][0].update(banner="6.1"), "'banner' of kernel 1 is not a version banner"),
        (
            lambda d: d["kernels"][0].update(release="6.2.0-1"),
            r"kernel 6\.2\.0-1 \(aa\) does not belong to series 6\.1",
        ),
        (lambda d: d["kernels"][0].update(release="6.0" + "0" * 5000), "does not belong to series"),
        (lambda d: d["kernels"][0].update(extra=1), "kernel 1 has unknown keys: 'extra'"),
        (lambda d: d["kernels"][0]["provenance"].update(extra=1), "unknown keys in its provenance: extra"),
        (lambda d: d.update(extra=1), "the shard has unknown keys: 'extra'"),
    ],
)
def test_malformed_shards(change: Any, message: str) -> None:
    damaged = document()
    change(damaged)
    with pytest.raises(TableError, match=rf"^6\.1\.json: .*{message}"):
        _ = parse(damaged).entries


@pytest.mark.parametrize(("data", "message"), [(b"[]", "the shard is not an object"), (b"{}", "lacks 'schema'")])
def test_no_shard_at_all(data: bytes, message: str) -> None:
    with pytest.raises(TableError, match=message):
        table.parse_shard(data, "x")


def test_another_form_of_the_same_json_is_refused() -> None:
    for data in (json.dumps(document()), json.dumps(document(), indent=1), render(document()).decode() + "\n"):
        with pytest.raises(TableError, match="not in the form in which sockpid-gen writes it"):
            table.parse_shard(data.encode(), "x")


def test_damaged_rows_are_refused_when_they_are_asked_for() -> None:
    content = render(document())
    for old in (table.row_id(LAYOUT), table.row_id(SOCK)):
        for new in (f'"{old}"x ', f'"{old}": [', f'"{old}": 1'):
            shard = table.parse_shard(content.replace(f'"{old}": {{'.encode(), new.encode()), "x")
            with pytest.raises(TableError, match="x: "):
                shard.layout(shard.entries[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["structs"][table.row_id(SOCK)]["fields"]["sk_protocol"].update(offset=541), "was altered"),
        (lambda d: d["layouts"][table.row_id(LAYOUT)].update({"struct new": None}), "was altered"),
        (lambda d: d["structs"].pop(table.row_id(SOCK)), "which is not there"),
        (lambda d: d["layouts"].clear(), "which is not there"),
    ],
)
def test_altered_rows_are_refused(change: Any, message: str) -> None:
    damaged = document()
    change(damaged)
    shard = parse(damaged)
    with pytest.raises(TableError, match=rf"^6\.1\.json: .*{message}"):
        shard.layout(shard.entries[0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "struct other", "size": 1, "fields": {}}, "is called 'struct other'"),
        ({"name": "struct sock", "fields": {}}, "malformed"),
        ({"name": "struct sock", "size": 1}, "malformed"),
        ({"name": "struct sock", "size": 1.5, "fields": {}}, "malformed"),
        ({"name": "struct sock", "size": 1, "fields": []}, "malformed"),
        ({"name": "struct sock", "size": 1, "fields": {"a": {"offset": 1}}}, "malformed"),
        ({"name": "struct sock", "size": 1, "fields": {"a": 1}}, "malformed"),
        ({"name": "struct sock", "size": 1, "values": {"a": "b"}}, "malformed"),
        ({"name": "struct sock", "size": 1, "fields": {}, "values": {}}, "malformed: its keys are"),
        ({"name": "struct sock", "size": 1, "values": {}}, "malformed: its keys are"),
        ({"name": "struct sock", "size": -1, "fields": {}}, "malformed: a size of -1 bytes"),
        ({"name": "struct sock", "size": 1 << 30, "fields": {}}, "malformed: a size of 1073741824 bytes"),
        ({"name": "struct sock", "size": 8, "fields": {"a": {"offset": 5, "size": 4}}}, "a does not lie in its struct"),
        (
            {"name": "struct sock", "size": 8, "fields": {"a": {"offset": -4, "size": 4}}},
            "a does not lie in its struct",
        ),
        (
            {"name": "struct sock", "size": 8, "fields": {"a": {"offset": 1 << 32, "size": 4}}},
            "does not lie in its struct",
        ),
        ({"name": "struct sock", "size": 8, "fields": {"a[9]": {"offset": 1 << 32, "size": 4}}}, "does not lie in its"),
        ({"name": "struct sock", "size": 8, "fields": {"a": {"offset": 8, "size": -4}}}, "does not lie in its struct"),
        ({"name": "struct sock", "size": 1, "fields": {"a": {"bit_offset": 7, "bit_size": 2}}}, "does not lie in its"),
        (
            {"name": "struct sock", "size": 99, "fields": {"a": {"bit_offset": 7, "bit_size": 65}}},
            "bit field of 65 bits",
        ),
        ({"name": "struct sock", "size": 99, "fields": {"a": {"bit_offset": 7, "bit_size": 0}}}, "bit field of 0 bits"),
        ({"name": "struct sock", "size": 8, "fields": {"a": {"offset": 0, "size": 4, "bit_size": 4}}}, "has the keys"),
        ({"name": "struct sock", "size": 8, "fields": {"a": {"offset": 0, "size": 4, "signed": False}}}, "is not true"),
        ({"name": "struct sock", "size": 8, "fields": {"a": {"offset": 0, "size": 4, "signed": 1}}}, "is not true"),
    ],
)
def test_malformed_rows_with_right_ids(row: Dict[str, Any], message: str) -> None:
    layout = {"struct sock": table.row_id(row)}
    damaged = document({**kernel("aa"), "layout": table.row_id(layout)})
    damaged["structs"] = {table.row_id(row): row}
    damaged["layouts"] = {table.row_id(layout): layout}
    shard = parse(damaged)
    with pytest.raises(TableError, match=message):
        shard.layout(shard.entries[0])


@pytest.mark.parametrize(
    ("release", "series"),
    [("6.1.0-50-cloud-amd64", "6.1"), ("7.3-rc7", "7.3"), ("4.18.0-147.5.1.el8_1.aarch64", "4.18"), ("6.12", "6.12")],
)
def test_series(release: str, series: str) -> None:
    assert table.series_of(release) == series


def test_no_series() -> None:
    with pytest.raises(TableError, match="does not start with a version"):
        table.series_of("mainline")


def test_a_flexible_array_lies_behind_its_struct() -> None:
    row = {
        "name": "struct sock",
        "size": 8,
        "fields": {"a": {"offset": 8, "size": 0}, "a[2].b": {"offset": 24, "size": 4}, "e": {"offset": 8, "size": 0}},
    }
    layout = {"struct sock": table.row_id(row)}
    value = document({**kernel("aa"), "layout": table.row_id(layout)})
    value["structs"], value["layouts"] = {table.row_id(row): row}, {table.row_id(layout): layout}
    found = parse(value).layout(parse(value).entries[0])["struct sock"]
    assert isinstance(found, Struct)
    assert found.fields["a[2].b"] == Field(192, 32)
