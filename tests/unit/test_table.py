"""The reader of the offset table, against damaged, foreign and ambiguous shards."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, Optional

import pytest

from sockpid import table
from sockpid.errors import SchemaError, TableError
from sockpid.layout import Enum, Field, Struct

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
        "btf_ids": {"tcp_connect": 1234},
        "provenance": {"kind": "btf", "source": "vmlinux", "sha256": "0" * 64, "tools": {}},
    }


def document(*kernels: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "schema": "1.0",
        "producer": "sockpid-gen 0.1.0",
        "arch": "x86_64",
        "series": "6.1",
        "structs": {table.row_id(SOCK): copy.deepcopy(SOCK), table.row_id(STATE): copy.deepcopy(STATE)},
        "layouts": {table.row_id(LAYOUT): dict(LAYOUT)},
        "kernels": list(kernels or (kernel("aa"),)),
    }


def parse(value: object) -> table.Shard:
    return table.parse_shard(json.dumps(value).encode(), "6.1.json")


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
    shard = parse(document(kernel("aa"), kernel("bb", "6.1.0-2", "Linux version 6.1.0-2 (x) #1")))
    found = shard.find("bb", "6.1.0-1", "Linux version 6.1.0-1 (x) #1")
    assert found is not None
    assert found.build_id == "bb"


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


@pytest.mark.parametrize("schema", ["1.1", "2.0", "0.9"])
def test_other_schemas_are_refused_by_name(schema: str) -> None:
    with pytest.raises(SchemaError, match=rf"6\.1\.json: offset table of schema {schema}, .* reads 1\.0 to 1\.0"):
        parse({**document(), "schema": schema})


def test_older_minor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SCHEMA", (1, 3))
    assert parse(document()).entries


def test_every_truncation_is_an_error() -> None:
    data = json.dumps(document()).encode()
    for size in range(0, len(data) - 1, 7):
        with pytest.raises(TableError, match=r"^6\.1\.json: truncated"):
            table.parse_shard(data[:size], "6.1.json")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"{}x"])
def test_no_json(data: bytes) -> None:
    with pytest.raises(TableError, match="truncated, or no JSON"):
        table.parse_shard(data, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("schema"), "the shard lacks 'schema'"),
        (lambda d: d.pop("kernels"), "the shard lacks 'kernels'"),
        (lambda d: d.update(schema=1), "'schema' of the shard is not a string"),
        (lambda d: d.update(schema="one"), "schema 'one' is no version"),
        (lambda d: d.update(kernels={}), "'kernels' of the shard is not an array"),
        (lambda d: d.update(kernels=[1]), "kernel 1 is not an object"),
        (lambda d: d.update(structs=[]), "'structs' of the shard is not an object"),
        (lambda d: d.update(layouts={"a": 1}), "'layouts' of the shard is not an object of objects"),
        (lambda d: d["kernels"][0].pop("banner"), "kernel 1 lacks 'banner'"),
        (lambda d: d["kernels"][0].update(build_id=7), "'build_id' of kernel 1 is not a string"),
        (lambda d: d["kernels"][0].update(btf_ids={"a": "b"}), "'btf_ids' of kernel 1 is not an integer"),
        (lambda d: d["kernels"][0].update(btf_ids={"a": True}), "'btf_ids' of kernel 1 is not an integer"),
    ],
)
def test_malformed_shards(change: Any, message: str) -> None:
    damaged = document()
    change(damaged)
    with pytest.raises(TableError, match=rf"^6\.1\.json: .*{message}"):
        parse(damaged)


def test_no_object_at_all() -> None:
    with pytest.raises(TableError, match="the shard is not an object"):
        parse([])


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
