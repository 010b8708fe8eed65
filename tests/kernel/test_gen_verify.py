"""The table against this kernel while it runs: a right entry is confirmed, a wrong one is found out field by field."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen import KernelEntry, Table, extract
from sockpid_gen.kernel.source import LIVE
from sockpid_gen.verify import verify
from tests.kernel.conftest import RUNTIME


def selftest(*options: str) -> Any:
    done = subprocess.run(
        [*RUNTIME, "selftest", "--json", *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 8), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def entry() -> KernelEntry:
    if not LIVE.exists():
        pytest.skip("this kernel has no BTF")
    return extract(LIVE)


def moved(entry: KernelEntry, name: str, path: str, by: int) -> KernelEntry:
    row = entry.layout[name]
    assert isinstance(row, Struct)
    field = row.fields[path]
    assert field is not None
    wrong = Field(field.bit_offset + by * 8, field.bit_size)
    layout: Layout = {**entry.layout, name: row._replace(fields={**row.fields, path: wrong})}
    return entry._replace(layout=layout)


def table_of(entry: KernelEntry) -> Table:
    table = Table()
    table.add(entry)
    return table


def test_this_kernel_confirms_its_entry(entry: KernelEntry) -> None:
    verdict = verify.verify_selftest(table_of(entry), selftest())
    assert verdict.disagreements == ()
    assert verdict.fields > 20


def test_a_wrong_entry_is_contradicted_by_what_was_used(entry: KernelEntry) -> None:
    verdict = verify.verify_selftest(table_of(moved(entry, "struct sock", "sk_protocol", 8)), selftest())
    assert [d.field for d in verdict.disagreements] == ["struct sock.sk_protocol"]


def test_a_wrong_entry_in_use_is_contradicted_by_what_came_back(entry: KernelEntry, tmp_path: Path) -> None:
    wrong = table_of(moved(entry, "struct tcp_sock", "snd_cwnd", 4))
    (file,) = wrong.save(tmp_path)
    verdict = verify.verify_selftest(wrong, selftest("--offsets", str(file), "--deny", "live-btf"))
    (d,) = (d for d in verdict.disagreements if d.field != "self-check")
    assert d.field == "struct tcp_sock.snd_cwnd"
    assert d.other_value.startswith("read back wrong: inet: snd_cwnd: ")
    assert d.other_source == f"live kernel, offsets from {file}"
