"""This kernel's BTF, by three readers: sockpid.btf, drgn over our type finder, and bpftool."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
from typer.testing import CliRunner

from sockpid import arch
from sockpid.btf.btf import Btf
from sockpid.btf.record import Record
from sockpid.errors import UsageError
from sockpid.host import kernel
from sockpid.table import table
from sockpid.table.layout import Struct
from sockpid_gen import Given, Table
from sockpid_gen import extract as extract_kernel
from sockpid_gen.btf import finder
from sockpid_gen.cli.cli import load
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.difference import compare
from sockpid_gen.extraction.extraction import extract
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.kernel.source import LIVE, open_source
from tests.kernel_wanted import wanted


@pytest.fixture(scope="module")
def btf() -> Btf:
    if not LIVE.exists():
        pytest.skip("this kernel has no BTF")
    return Btf(LIVE.read_bytes())


@pytest.fixture
def machine() -> arch.Arch:
    return arch.of_machine(os.uname().machine)


def test_our_reader_and_drgn_agree(btf: Btf, machine: arch.Arch) -> None:
    fields = wanted(machine)
    ours = btf.extract(fields, machine.pointer_size)
    assert compare(ours, drgn_layout.extract(finder.BtfTypes(btf.data, machine).prog, fields)) == []
    sock = ours["struct sock"]
    assert isinstance(sock, Struct)
    assert sock.fields["__sk_common.skc_daddr"] is not None
    assert sock.fields["sk_gone"] is None


def test_what_the_images_want_is_there(machine: arch.Arch) -> None:
    with open_source(LIVE) as source:
        found = extract(source, wanted_fields(machine))
    assert source.release == os.uname().release
    identity = kernel.identify()
    assert (source.build_id, source.banner) == (identity.build_id, identity.banner)
    assert found.layout["struct sock"] is not None
    assert found.btf_ids is not None
    assert "tcp_connect" in found.btf_ids


def test_every_record_agrees_with_bpftool(btf: Btf) -> None:
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    command = ["bpftool", "--json", "btf", "dump", "file", str(LIVE)]
    dump = subprocess.run(command, capture_output=True, check=True).stdout
    gc.disable()  # hundreds of thousands of objects, and no cycle
    try:
        types = json.loads(dump)["types"]
        assert len(types) == len(btf)
        wrong = [theirs for theirs in types if not same(btf.type(theirs["id"]), theirs)]
    finally:
        gc.enable()
    assert wrong == []


def same(ours: Record, theirs: Dict[str, Any]) -> bool:
    """Whether bpftool says the same of a record, as far as it says anything."""
    kind = theirs["kind"]
    if ours.name != theirs["name"].replace("(anon)", ""):
        return False
    if kind != "DATASEC" and ours.size_or_type != theirs.get("size", ours.size_or_type):
        return False
    if kind in ("STRUCT", "UNION"):
        return members_of(theirs) == [(m.name, m.type, m.bit_offset, m.bitfield_size) for m in ours.members]
    if kind in ("ENUM", "ENUM64"):
        # bpftool 7.1 prints unsigned values with a sign.
        mask = (1 << 8 * theirs["size"]) - 1
        return [(v["name"], v["val"] & mask) for v in theirs["values"]] == [(n, v & mask) for n, v in ours.values]
    if kind == "ARRAY":
        return ours.array is not None and (ours.array.type, ours.array.nelems) == (
            theirs["type_id"],
            theirs["nr_elems"],
        )
    return True


def members_of(struct: Dict[str, Any]) -> List[Any]:
    return [
        (m["name"].replace("(anon)", ""), m["type_id"], m["bits_offset"], m.get("bitfield_size", 0))
        for m in struct["members"]
    ]


def test_a_collection_of_btf_has_kernels_known_by_release_alone(btf: Btf, machine: arch.Arch, tmp_path: Path) -> None:
    """This kernel's BTF as RELEASE.btf.tar.xz: in the table with the same layout, but for no running kernel."""
    release = f"6.1.0-1.el9.{machine.name}"
    packed = tmp_path / f"{release}.btf.tar.xz"
    with tarfile.open(packed, "w:xz", preset=0) as tar:
        tar.add(LIVE.resolve(), f"./{release}.btf")
    places = [f"--{name}={tmp_path / name}" for name in ("offsets", "archive", "state")]
    done = CliRunner().invoke(load(), ["crawl", str(packed), "--jobs=1", "--json", *places])
    assert done.exit_code == 0, done.output
    (entry,) = Table.load(tmp_path / "offsets")
    known = (entry.release, entry.arch, entry.distribution, entry.build_id, entry.banner, entry.btf_ids)
    assert known == (release, machine.name, "el", None, None, None)
    assert compare(entry.layout, btf.extract(wanted_fields(machine), machine.pointer_size)) == []
    shard = table.parse_shard((tmp_path / f"offsets/{machine.name}/6.1.json").read_bytes(), "6.1.json")
    assert shard.find("00" * 20, release, f"Linux version {release} (x) #1") is None

    # Whoever knows what build it is adds it as such.
    with pytest.raises(UsageError, match="also give --arch and --banner"):
        extract_kernel(packed)
    banner = f"Linux version {release} (x) #1 SMP"
    named = extract_kernel(packed, Given(arch=machine.name, banner=banner, build_id="ab" * 20))
    assert (named.release, named.banner, named.build_id) == (release, banner, "ab" * 20)
    assert named.layout == entry.layout


def test_function_ids_are_those_of_bpftool(btf: Btf) -> None:
    ids = btf.func_ids(["tcp_connect", "tcp_sendmsg_locked", "no_such_function"])
    assert sorted(ids) == ["tcp_connect", "tcp_sendmsg_locked"]
    for name, type_id in ids.items():
        assert btf.type(type_id).name == name


def test_modules_continue_the_kernel(btf: Btf) -> None:
    modules = [path for path in Path("/sys/kernel/btf").iterdir() if path.name != "vmlinux"]
    if not modules:
        pytest.skip("no module with BTF is loaded")
    for path in modules:
        split = Btf(path.read_bytes(), btf)
        for type_id in split.ids():
            split.type(type_id)
