"""A kernel that nobody has seen, on a host with nothing: the request and its answer, the consensus, the calibration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sockpid import errors
from sockpid.offsets.calibration import BESIDE
from sockpid.table import table, writer
from sockpid.table.layout import Field, Struct
from sockpid_gen.crawl.fulfil import DEBIAN
from sockpid_gen.table import shard as shards
from tests import bundles
from tests.calibrated import differences

from . import tables
from .kernels import FURTHER, KERNELS, Guest
from .qemu import Result
from .test_bundle import SCRIPT, WORKLOAD, demand_right
from .test_sockpid import SOCKPID

LOCAL = "/etc/sockpid/offsets.d/this.json"
DENY = ["--deny", "live-btf"]  # the lab covers /sys/kernel/btf; bpf(2) would still give it


def series_path(guest: Guest) -> str:
    (arch,) = (ours for ours, debian in DEBIAN.items() if debian == guest.kernel.arch)
    return f"offsets/{arch}/{table.series_of(guest.kernel.package.release)}.json"


def without(guest: Guest, *builds: dict[str, Any]) -> dict[str, bytes]:
    """The guest's shard, as if its kernel had never been seen; with other builds in it."""
    name = series_path(guest)
    document = writer.empty(name.split("/")[1], Path(name).stem, "sockpid-gen 0")
    layout = tables.layout(guest.kernel)
    for number, build in enumerate(builds or [{}], 1):
        release = f"{Path(name).stem}.0-{number}-other"
        entry = {
            "build_id": f"{number:02x}" * 20,
            "release": release,
            "banner": f"Linux version {release} (a@b) (gcc) #1 SMP Debian",
            "distribution": "debian",
            "btf_ids": None,
            "provenance": {"kind": "btf"},
        }
        writer.add(document, entry, {**layout, **build})
    return {f"/sockpid/{name}": writer.encode(document)}


def run(guest: Guest, files: dict[str, bytes], *arguments: str) -> Result:
    return guest.run([*SOCKPID, *arguments], timeout=120, files=files)


@pytest.mark.guests("6.1/amd64", "6.12/arm64")
def test_the_loop_across_the_air_gap(guest: Guest, tmp_path: Path) -> None:
    """Unknown kernel, request carried out, package found, answer carried in: then everything is right. The host has the
    one file."""
    for name, content in without(guest).items():
        path = tmp_path / name.removeprefix("/sockpid/")
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    bundle = bundles.make(tmp_path / "sockpid.pyz", "--offsets", str(tmp_path / "offsets"), "--without-pyroute2")
    files, command = {**WORKLOAD, "/sockpid.pyz": bundle.read_bytes()}, ["python3", "-I", "-S", "/sockpid.pyz"]
    unknown = guest.run([*command, "run", "--duration", "1", *DENY], timeout=120, files=files)
    assert unknown.status == errors.UnknownKernelError.exit_code, unknown
    assert "sockpid-gen fulfil" in unknown.stderr
    asked = guest.run([*command, "doctor", "--request"], timeout=120, files=files)
    assert asked.status == 0, asked
    (tmp_path / "host.req").write_text(asked.stdout)
    fulfil = [sys.executable, "-m", "sockpid_gen", "fulfil", str(tmp_path / "host.req"), "--no-apt"]
    fulfil += ["--offsets", str(tmp_path / "none"), "-o", str(tmp_path / "host.json")]
    fulfil += ["--from", str(guest.kernel.deb().parent)]
    done = subprocess.run(fulfil, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done
    answer = (tmp_path / "host.json").read_bytes()
    script = f"python='python3 -I -S' pyz=/sockpid.pyz\n{SCRIPT}"
    result = guest.run(["sh", "-c", script], timeout=240, files={**files, LOCAL: answer})
    demand_right(result)
    assert json.loads(result.files["selftest"])["offsets_source"] == LOCAL


@pytest.mark.guests("6.1/amd64")
def test_a_file_that_others_may_write_is_not_believed(guest: Guest) -> None:
    (content,) = without(guest).values()
    script = f"chmod 666 {LOCAL}; exec {' '.join([*SOCKPID, 'run', '--duration', '1', *DENY])}"
    result = guest.run(["sh", "-c", script], timeout=90, files={LOCAL: content})
    assert result.status == errors.TableError.exit_code, result
    assert "others than root may write it" in result.stderr


@pytest.mark.guests("6.12/amd64")
def test_consensus_where_all_builds_agree(guest: Guest) -> None:
    files = without(guest, {}, {})
    result = run(guest, files, "selftest", "--json", "--consensus", *DENY)
    assert result.status == 0, result
    report = json.loads(result.stdout)
    assert report["offsets"] == "consensus"
    assert {e["offsets"] for f in report["families"].values() for e in f["events"]} == {"consensus"}
    asked = run(guest, files, "run", "--duration", "1", *DENY)
    assert asked.status == errors.UnknownKernelError.exit_code, asked
    assert "--consensus would use what 2 builds" in asked.stderr


def moved(guest: Guest, name: str, path: str, by: int) -> dict[str, Any]:
    """A row of the kernel's layout in which one field lies elsewhere."""
    row = tables.layout(guest.kernel)[name]
    assert isinstance(row, Struct)
    field = row.fields[path]
    assert field is not None
    return {name: row._replace(fields={**row.fields, path: Field(field.bit_offset + by * 8, field.bit_size)})}


@pytest.mark.guests("6.12/amd64")
def test_consensus_where_one_build_disagrees(guest: Guest) -> None:
    files = without(guest, {}, moved(guest, "struct sock", "sk_socket", 8), {})
    result = run(guest, files, "run", "--duration", "1", "--consensus", *DENY)
    assert result.status == errors.ConsensusError.exit_code, result
    assert "no consensus on struct sock.sk_socket" in result.stderr
    assert "-1-other" in result.stderr
    assert "-2-other" in result.stderr
    assert result.stdout == ""


@pytest.mark.guests("6.12/amd64")
def test_a_wrong_consensus_is_found_out_by_the_self_check(guest: Guest) -> None:
    """All known builds agree, and this one is different from them."""
    other = moved(guest, "struct sock", "__sk_common.skc_dport", 2)
    result = run(guest, without(guest, other, other), "run", "--duration", "1", "--consensus", *DENY)
    assert result.status == errors.SelfCheckError.exit_code, result
    assert result.stdout == ""


EVERY = (*KERNELS, *FURTHER) if os.environ.get("SOCKPID_CALIBRATE_ALL") else ()


@pytest.mark.guests(*(EVERY or ("6.1/amd64", "6.12/arm64")))
def test_a_calibration_finds_what_the_package_says(guest: Guest) -> None:
    demand_found(guest, DENY)


@pytest.mark.guests(*([name for name in EVERY if "riscv64" not in name] or ("6.1/amd64",)))  # which has no kprobes
def test_a_calibration_by_kprobes_alone(guest: Guest) -> None:
    """As before Linux 4.17, which has no raw tracepoints and no kprobe PMU."""
    demand_found(guest, ["--deny", "live-btf,fentry,raw_tp,tracepoint,kprobe-pmu"])


def demand_found(guest: Guest, deny: list[str]) -> None:
    """Nothing is known of the kernel, and every field is found where its debug information has it."""
    script = f"""
        {" ".join([*SOCKPID, "calibrate", "--json", "-o", "/run/result/calibrated.json", *deny])} || exit
        {" ".join([*SOCKPID, "run", "--json", "--duration", "1", "--offsets", "/run/result/calibrated.json", *deny])}
    """
    result = guest.run(["sh", "-c", script], timeout=240, files=without(guest))
    assert result.status == 0, result.stderr
    content = result.files["calibrated.json"]
    shards.validate(json.loads(content), "calibrated.json")
    compared, wrong = differences(content, tables.layout(guest.kernel))
    report = json.loads(result.stdout.splitlines()[0])
    assert [line for line in wrong if not line.startswith(tuple(report["not_found"]))] == []
    assert compared - len(report["not_found"]) >= 30
    ulp = {"struct inet_connection_sock.icsk_ulp_ops", "struct tcp_ulp_ops"}
    assert set(report["not_found"]) <= {*ulp, *BESIDE, "struct mptcp_subflow_context"}
    assert report["not_checked"] == []
    # With `make calibration`, for docs/unknown-kernels.md:
    print(f"{guest.kernel.name}: {guest.kernel.package.release}, {compared} compared, not found {report['not_found']}")
