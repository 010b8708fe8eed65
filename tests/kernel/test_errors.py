"""What goes wrong ends in its own error and exit status, before any event is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid import errors, kernel, layout, table, tracer
from tests import generator
from tests.kernel.conftest import Ran, sockpid
from tests.shard_lines import render

BTF = Path("/sys/kernel/btf/vmlinux")
UNPROVED = {
    ("struct task_struct", "real_start_time"): "this kernel has its successor; the program never asks",
    ("struct inet_connection_sock", "icsk_ulp_ops"): "a name for people: plain sockets have none to compare",
    ("struct tcp_ulp_ops", "name"): "as above",
    ("struct sock", "sk_kern_sock"): "decides about the wording of an unknown owner alone",
    ("struct socket", "sk"): "of MPTCP subflows; a wrong address is in no map",
    ("struct request_sock", "__req_common"): "the tuple of a SYN-ACK; its owner is the listening socket's",
}
"""Fields that the self-check of plain TCP sockets cannot exercise, and why that never names a wrong process."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard for the running kernel, made by the generator."""
    if not BTF.exists():
        pytest.skip("this kernel has no BTF to make a table from")
    return generator.add(BTF, tmp_path_factory.mktemp("offsets"))


@pytest.fixture
def document(made: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(made.read_text())
    return read


def run_with(document: dict[str, Any], tmp_path: Path) -> Ran:
    path = tmp_path / "table.json"
    path.write_bytes(render(document))
    return sockpid("run", "--json", "--duration", "0.5", "--offsets", str(path))


def refused(ran: Ran, error: type[errors.SockpidError], *words: str) -> None:
    """One clear message, the documented status, no event and no traceback."""
    assert ran.status == error.exit_code, ran
    assert ran.stdout == ""
    assert ran.stderr.startswith("sockpid: ")
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in ran.stderr, ran.stderr


def test_the_untouched_table_is_accepted(made: Path) -> None:
    ran = sockpid("selftest", "--json", "--offsets", str(made), "--deny", "live-btf")
    assert ran.status == 0, ran
    assert json.loads(ran.stdout)["offsets"] == "table"


def fields() -> Iterator[tuple[str, str]]:
    image = tracer.load_image(kernel.identify().arch.byte_order)
    for name, paths in sorted(image.wanted(kernel.identify().arch).items()):
        if name != "struct pt_regs":  # raw tracepoints read no registers; the VM tests corrupt these
            yield from ((name, path) for path in sorted(paths))


@pytest.mark.parametrize(("name", "path"), list(fields()), ids=lambda value: str(value).replace("struct ", ""))
def test_one_wrong_offset_is_found_by_the_self_check(
    name: str, path: str, document: dict[str, Any], tmp_path: Path
) -> None:
    """The table is in order otherwise: ids recomputed, so that nothing but the live kernel can tell."""
    move(document, name, path)
    if (name, path) in UNPROVED:
        assert run_with(document, tmp_path).status == 0
        return
    refused(run_with(document, tmp_path), errors.SelfCheckError, "self-check")


def move(document: dict[str, Any], name: str, path: str) -> None:
    """Shifts one field and recomputes all ids."""
    for row in document["structs"].values():
        if row["name"] == name and path in row["fields"]:
            field = row["fields"][path]
            if field is None:
                row["fields"][path] = {"offset": 8, "size": 8}
            elif "bit_offset" in field:
                field["bit_offset"] += 64
            else:
                field["offset"] += 4 * field["size"] if field["size"] < 16 else 32
    renumber(document)


def renumber(document: dict[str, Any]) -> None:
    """Gives every row and layout the id that its content asks for."""
    renamed = {old: table.row_id(row) for old, row in document["structs"].items()}
    document["structs"] = {renamed[old]: row for old, row in document["structs"].items()}
    layouts = {
        old: {n: renamed.get(row_id) if row_id else None for n, row_id in value.items()}
        for old, value in document["layouts"].items()
    }
    ids = {old: table.row_id(value) for old, value in layouts.items()}
    document["layouts"] = {ids[old]: value for old, value in layouts.items()}
    for entry in document["kernels"]:
        entry["layout"] = ids[entry["layout"]]


def test_a_row_that_is_not_what_its_id_says(document: dict[str, Any], tmp_path: Path) -> None:
    row = next(r for r in document["structs"].values() if r["name"] == "struct sock")
    row["fields"]["__sk_common.skc_dport"]["offset"] += 2
    refused(run_with(document, tmp_path), errors.TableError, "table.json")


def test_table_of_another_kernel(document: dict[str, Any], tmp_path: Path) -> None:
    for entry in document["kernels"]:
        entry.update(build_id="00" * 20, release=f"{document['series']}.0-other")
    refused(run_with(document, tmp_path), errors.OtherKernelError, ".0-other", kernel.identify().build_id or "")


def test_schema_from_the_future(document: dict[str, Any], tmp_path: Path) -> None:
    for future in ("4.0", "2.99"):
        document["schema"] = future
        refused(run_with(document, tmp_path), errors.SchemaError, future, "2.0")


def test_truncated_table(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.json"
    path.write_bytes(made.read_bytes()[:-200])
    refused(sockpid("run", "--offsets", str(path)), errors.TableError, "short.json")


def test_table_lacks_a_field(document: dict[str, Any], tmp_path: Path) -> None:
    for row in document["structs"].values():
        row["fields"].pop("sk_protocol", None)
    renumber(document)
    refused(run_with(document, tmp_path), errors.RelocationError, "struct sock.sk_protocol")


def test_truncated_btf(tmp_path: Path) -> None:
    short = tmp_path / "vmlinux"
    short.write_bytes(BTF.read_bytes()[: BTF.stat().st_size * 2 // 3])
    shell = 'mount --bind "$0" /sys/kernel/btf/vmlinux && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", shell, str(short))
    refused(sockpid("run", before=before), errors.BtfError, "BTF")


def test_unknown_kernel() -> None:
    identity = kernel.identify()
    refused(
        sockpid("run", "--deny", "live-btf"),
        errors.UnknownKernelError,
        identity.release,
        identity.build_id or "",
        "fulfil",
        "calibrate",
    )


def test_missing_capability() -> None:
    assert shutil.which("setpriv"), "util-linux is part of every Debian"
    before = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    refused(sockpid("run", before=before), errors.CapabilityError, "CAP_BPF")


def test_nothing_to_attach_to() -> None:
    ran = sockpid("run", "--deny", "raw_tp,tracepoint,kprobe-pmu,kprobe-tracefs")
    refused(ran, errors.AttachError, "tcp_destroy", "denied by option")


def test_usage() -> None:
    refused(sockpid("run", "--deny", "gravity"), errors.UsageError, "gravity", "live-btf")


def test_every_error_has_a_documented_status() -> None:
    documented = errors.__doc__ or ""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.SockpidError):
            assert name in documented
            assert f"{error.exit_code} " in readme


def test_layout_is_what_the_live_kernel_says(made: Path) -> None:
    """Our table, made through drgn, against the runtime's own reader of the same BTF."""
    from sockpid import offsets

    identity = kernel.identify()
    image = tracer.load_image(identity.arch.byte_order)
    tabled = offsets.find(image, identity, str(made)).layout
    live: layout.Layout = offsets.from_btf(image, identity.arch).layout
    assert dict(tabled) == dict(live)
