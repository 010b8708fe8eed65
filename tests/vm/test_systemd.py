"""What the Debian package and `sockpid install` do under systemd: start, restart, another kernel, no room, removal.

Guests with the same root follow each other, as if one host were booted anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sockpid.errors import UnknownKernelError
from tests import bundles, generator, truth

from . import catalogue, systemd
from .kernels import Guest
from .qemu import Result

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOCKPID_AIRGAP"), reason="boots guests with systemd, takes minutes: make airgap"
)
TIMEOUT = 900

SHELL = """
trap 'journalctl -b -u sockpid >/lab/result/whole-journal' EXIT
ready() {  # until so many starts of this boot have attached
    for i in $(seq 60); do
        journalctl -b -u sockpid -o cat >/run/journal
        [ $(grep -c 'offsets from' /run/journal) -ge $1 ] && return 0
        systemctl -q is-failed sockpid && return 1
        sleep 2
    done
    return 1
}
everything() {
    find / -xdev ! -path '/lab/*' ! -path '/var/log/journal*' ! -path '/var/lib/dpkg/*' ! -path '/var/tmp*' |
        grep -v '^/var/log/dpkg.log$' | sort
}
workload() { python3 -I -S /sockpid/tests/workload.py --processes 4 --seconds 2 >$1; }
journal() { journalctl -b -u sockpid -o cat >$1; }
phase() { echo "$(cut -d' ' -f1 /proc/uptime) $1"; }
"""
FIRST = """
everything >/run/before
phase package
/usr/bin/dpkg -i /lab/sockpid.deb || exit 10
sockpid --version || exit 11
systemctl start sockpid || exit 12
ready 1 || exit 13
workload truth-package
phase upgrade
/usr/bin/dpkg -i /lab/sockpid.deb || exit 14  # starts it anew
ready 2 || exit 15
journal package
systemctl is-active sockpid || exit 16
phase purge
/usr/bin/dpkg --purge sockpid || exit 17
systemctl -q is-active sockpid && exit 18
everything >/run/after
diff /run/before /run/after >left
ls -d /sys/fs/bpf/sockpid /run/sockpid >>left

phase install
journalctl --rotate --vacuum-size=1 2>/dev/null
python3 -I -S /lab/sockpid.pyz install --start || exit 20
ready 1 || exit 21
workload truth-install
journal install
pid=$(systemctl show -P MainPID sockpid)
grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/$pid/status >rights
systemd-analyze security sockpid --no-pager | tail -1 >security
phase kill
kill -KILL $pid  # it comes back by itself
ready 2 || exit 22
systemctl show sockpid -p NRestarts -p ActiveState >restarted

phase full
systemctl stop sockpid
mount -t tmpfs -o size=16k tmpfs /var/log/sockpid
mount -t tmpfs -o size=4k tmpfs /var/lib/sockpid
dd if=/dev/zero of=/var/lib/sockpid/filler bs=4k count=2 2>/dev/null
mkdir -p /etc/default
echo 'SOCKPID_OPTIONS="--output file:/var/log/sockpid/events.jsonl"' >/etc/default/sockpid
systemctl reset-failed sockpid; systemctl start sockpid || exit 30
ready 3 || exit 31
workload truth-full; workload truth-full2; workload truth-full3
systemctl show sockpid -p NRestarts -p ActiveState >full-state
cp /var/log/sockpid/events.jsonl full-file
systemctl stop sockpid
journal full
umount /var/log/sockpid; umount /var/lib/sockpid
mkdir -p /etc/sockpid /var/lib/sockpid
echo 'SOCKPID_OPTIONS="--deny live-btf"' >/etc/default/sockpid
""" + systemd.keep(["/usr/local", "/etc/systemd/system", "/etc/sockpid", "/etc/default", "/var/lib/sockpid"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for two kernels, made from their packages."""
    directory = tmp_path_factory.mktemp("systemd")
    for name in ("6.1/amd64", "6.12/amd64"):
        shard = generator.add(catalogue.find(name).deb(), directory / name)
        target = directory / "offsets" / shard.parent.name / shard.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shard.rename(target)
    return bundles.make(directory / "sockpid.pyz", "--offsets", str(directory / "offsets"), "--without-pyroute2")


def boot(name: str, script: str, files: dict[str, Path], left: bytes = b"") -> Result:
    files = {"/sockpid/tests/workload.py": bundles.ROOT / "tests/workload.py", **files}
    given = {path: file.read_bytes() for path, file in files.items()}
    result = systemd.run(Guest(catalogue.find(name)), SHELL + script, timeout=TIMEOUT, files=given, left=left)
    # For who reads a failure:
    texts = [result.files[name].decode() for name in ("whole-journal", "left", "security") if name in result.files]
    print(result.stdout, result.stderr, *texts, f"{result.seconds:.0f} s")
    return result


@pytest.fixture(scope="module")
def first(bundle: Path) -> Result:
    """What a guest with 6.1 said: the package came and went, the bundle was installed, the disk was full; and left."""
    command = [sys.executable, str(bundles.ROOT / "packaging/deb.py"), str(bundle), str(bundle.parent)]
    subprocess.run(command, check=True, capture_output=True)
    (deb,) = bundle.parent.glob("*.deb")
    result = boot("6.1/amd64", FIRST, {"/lab/sockpid.pyz": bundle, "/lab/sockpid.deb": deb})
    assert result.status == 0, (result.stdout, result.stderr)
    return result


def demand_right(result: Result, journal: str, truth_file: str) -> None:
    said = {name: truth.parse_lines(result.files[name].decode()) for name in (journal, truth_file)}
    verdict = truth.judge(said[journal], said[truth_file])
    assert (verdict.wrong, verdict.unknown, verdict.owners) == ([], [], 4)


def test_the_debian_package_runs_and_leaves_nothing(first: Result) -> None:
    demand_right(first, "package", "truth-package")
    assert first.files["left"].decode() == ""


def test_the_installed_unit_gives_up_its_rights_and_comes_back(first: Result) -> None:
    demand_right(first, "install", "truth-install")
    assert b"self-check" not in first.files["install"]  # nothing was skipped for want of a right
    rights = dict(line.split() for line in first.files["rights"].decode().splitlines())
    assert (int(rights["CapPrm:"], 16), int(rights["CapEff:"], 16)) == (0, 0)
    assert (rights["NoNewPrivs:"], rights["Seccomp:"]) == ("1", "2")
    assert set(first.files["restarted"].split()) == {b"NRestarts=1", b"ActiveState=active"}
    exposure = float(first.files["security"].decode().rpartition(": ")[2].split()[0])
    assert exposure <= 3.0, exposure


def test_a_full_disk_costs_counted_events_and_no_more(first: Result) -> None:
    assert set(first.files["full-state"].split()) == {b"NRestarts=0", b"ActiveState=active"}
    journal = first.files["full"].decode()
    assert 1 <= journal.count("No space left on device") < 10  # said, not repeated for every event
    assert "events dropped" in journal
    assert all(json.loads(line) for line in first.files["full-file"].decode().splitlines())
    demand_right(first, "full", "truth-full")  # the journal still has all


def test_after_a_boot_into_another_kernel_it_takes_that_ones_entry(first: Result) -> None:
    result = boot(
        "6.12/amd64", "ready 1; status=$?; workload truth; journal it; exit $status", {}, first.files["left.tar"]
    )
    assert result.status == 0
    assert b"offsets from " in result.files["it"]
    assert b"offsets/x86_64/6.12.json" in result.files["it"]
    demand_right(result, "it", "truth")


def test_a_kernel_that_no_table_has_is_refused_once(first: Result) -> None:
    script = """
        ready 1 && exit 10
        sleep 12  # longer than RestartSec
        systemctl show sockpid -p NRestarts -p ActiveState -p ExecMainStatus >state
        journal it
    """
    result = boot("5.10/amd64", script, {}, first.files["left.tar"])
    assert result.status == 0
    state = dict(line.split("=") for line in result.files["state"].decode().split())
    refused = str(UnknownKernelError.exit_code)
    assert state == {"NRestarts": "0", "ActiveState": "failed", "ExecMainStatus": refused}
    said = result.files["it"].decode()
    assert catalogue.find("5.10/amd64").package.release in said
    assert "sockpid doctor --request" in said
