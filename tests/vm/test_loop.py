"""A kernel that nobody has seen, on a host with nothing: the request and its answer, the proof, the calibration."""

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
from sockpid.selfcheck import observed
from sockpid.table import table, writer
from sockpid.table.layout import Field, Struct
from sockpid_gen.crawl.fulfil import DEBIAN
from sockpid_gen.table import shard as shards
from tests import bundles, truth
from tests.calibrated import differences

from . import tables
from .kernels import FURTHER, KERNELS, Guest
from .qemu import Result
from .test_bundle import SCRIPT, WORKLOAD, demand_right
from .test_sockpid import SOCKPID, shard

__all__ = ["shard"]  # the fixture

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
    one file, and no known build has the same offsets."""
    for name, content in without(guest, moved(guest, "struct sock", "sk_socket", 8)).items():
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


def moved(guest: Guest, name: str, path: str, by: int) -> dict[str, Any]:
    """A row of the kernel's layout in which one field lies elsewhere."""
    row = tables.layout(guest.kernel)[name]
    assert isinstance(row, Struct)
    field = row.fields[path]
    assert field is not None
    return {name: row._replace(fields={**row.fields, path: Field(field.bit_offset + by * 8, field.bit_size)})}


PROVED = """
    mkdir -p /var/lib
    $sockpid selftest --json --deny live-btf >/run/result/selftest 2>/run/result/said || exit 10
    $sockpid run --json --deny live-btf >/run/events 2>/run/ready & probe=$!
    for i in $(seq 400); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
    python3 -I -S /sockpid/tests/workload.py --processes 4 --seconds 2 >/run/result/truth
    kill $probe; wait $probe; status=$?
    cp /run/events /run/ready /run/result
    $sockpid run --json --duration 0.1 --deny live-btf 2>/run/result/again >/dev/null || exit 11
    ls -l /var/lib/sockpid/offsets
    exit $status
"""


@pytest.mark.guests("6.12/amd64", "6.12/arm64", "6.12/armhf", "6.12/ppc64el", "6.12/riscv64", "6.12/s390x")
def test_a_build_that_nobody_has_seen_works_by_proof(guest: Guest) -> None:
    """Its nearest build has other offsets, another build its own: that one is found, and owners are right."""
    files = {**without(guest, {}, moved(guest, "struct sock", "sk_socket", 8)), **WORKLOAD}
    script = f"sockpid='{' '.join(SOCKPID)}'\n{PROVED}"
    result = guest.run(["sh", "-c", script], timeout=400, files=files, memory=768)
    assert result.status == 0, result
    report = json.loads(result.files["selftest"])
    assert (report["ok"], report["offsets"]) == (True, "consensus")
    assert all(report["families"][family]["ok"] for family in ("inet", "inet6", "mapped"))
    assert set(report["unproven"]) <= set(observed.UNSEEN)
    said = result.files["said"].decode().splitlines()
    assert [line for line in said if "-1-other (1 build alike), each of them proved on this host" in line]
    events, told = (truth.parse_lines(result.files[name].decode()) for name in ("events", "truth"))
    verdict = truth.judge(events, told)
    assert (verdict.wrong, verdict.unknown) == ([], [])
    assert (verdict.right >= 12, verdict.owners) == (True, 4)
    assert b'"offsets": "consensus"' in result.files["events"]
    # The next start has it from the first one, in a file of root's.
    assert result.files["again"].startswith(b"sockpid: offsets from /var/lib/sockpid/offsets/")
    (kept,) = (line for line in result.stdout.splitlines() if line.endswith(".json"))
    assert kept.startswith("-rw-r--r--")


@pytest.mark.guests("6.12/amd64")
def test_no_consensus_forbids_it(guest: Guest) -> None:
    asked = run(guest, without(guest, {}), "run", "--duration", "1", "--no-consensus", *DENY)
    assert asked.status == errors.UnknownKernelError.exit_code, asked
    assert asked.stdout == ""
    assert "has only 6.12.0-1-other" in asked.stderr


CANDIDATES = Path(__file__).with_name("guest") / "candidates.py"


@pytest.mark.guests("6.12/amd64")
def test_one_field_that_is_wrong_in_all_candidates_is_refused_by_name(guest: Guest, shard: tuple[str, bytes]) -> None:
    """Each field in turn; and where one candidate has it right, that one is taken."""
    files = {"/run/candidates.py": CANDIDATES.read_bytes(), shard[0]: shard[1]}
    result = guest.run(["python3", "-I", "-S", "/run/candidates.py"], timeout=400, files=files, memory=512)
    assert result.status == 0, result
    (_, right, _), *told = (json.loads(line) for line in result.stdout.splitlines())
    assert right == "0.0-other (1 build alike), proved on this host"
    assert len(told) > 38
    for name, refused, other in told:
        assert refused.startswith("refused: struct "), (name, refused)
        candidates = [line for line in refused.splitlines() if "-other (1 build alike):" in line]
        assert len(candidates) == 2, refused
        assert all(name in line for line in candidates), (name, candidates)
        assert other in ("", "1.0-other (1 build alike), proved on this host")
    assert [name for name, _, other in told if other] == ["struct sock.__sk_common.skc_dport"]


@pytest.mark.guests("6.12/amd64")
def test_what_is_kept_is_believed_if_only_root_can_have_written_it(guest: Guest) -> None:
    command = " ".join([*SOCKPID, "run", "--duration", "0.1", *DENY])
    script = f"""
        mkdir -p /var/lib; {command}; {command}
        chmod 777 /var/lib/sockpid/offsets; {command}; chmod 755 /var/lib/sockpid/offsets
        for file in /var/lib/sockpid/offsets/*.json; do echo >>$file; done; {command}; {command}
    """
    result = guest.run(["sh", "-c", script], timeout=240, files=without(guest, {}))
    sources = [line.split()[3] for line in result.stderr.splitlines() if line.startswith("sockpid: offsets from ")]
    kept = [source.startswith("/var/lib/sockpid/offsets/") for source in sources]
    assert kept == [False, True, False, False, True], result


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
