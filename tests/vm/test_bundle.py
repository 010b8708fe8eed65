"""The one file alone on hosts that have almost nothing: no network, no BTF, no compiler, another Python or libc."""

from __future__ import annotations

import json
import shutil

import pytest

from tests import bundles, generator, truth

from . import packages, userland
from .kernels import Guest
from .qemu import Result

WORKLOAD = {"/sockpid/tests/workload.py": (bundles.ROOT / "tests/workload.py").read_bytes()}
SCRIPT = """
    mkdir /truth; mv /sockpid /truth/  # of the checkout the workload alone is used
    [ "$(ls /sys/class/net)" = lo ] && [ ! -e /sys/kernel/btf/vmlinux ] || exit 9
    $python $pyz selftest --json --deny live-btf >/run/result/selftest || exit 10
    $python $pyz run --json --deny live-btf >/run/events 2>/run/ready & probe=$!
    for i in $(seq 200); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
    python3 -I -S /truth/sockpid/tests/workload.py --processes 4 --seconds 2 >/run/result/truth
    kill $probe; wait $probe; status=$?
    cp /run/events /run/ready /run/result
    exit $status
"""


@pytest.fixture(scope="session")
def bundle(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle for the guest's kernel alone, whose entry the generator makes from its package."""
    directory = tmp_path_factory.mktemp("bundle")
    generator.add(guest.kernel.deb(), directory / "offsets")
    made = bundles.make(directory / "sockpid.pyz", "--offsets", str(directory / "offsets"), "--without-pyroute2")
    return made.read_bytes()


def demand_right(result: Result) -> None:
    assert result.status == 0, (result, result.files["selftest"].decode())
    report = json.loads(result.files["selftest"])
    assert (report["ok"], report["offsets"]) == (True, "table")
    assert all(report["families"][family]["ok"] for family in ("inet", "inet6", "mapped"))
    verdict = truth.judge(*(truth.parse_lines(result.files[name].decode()) for name in ("events", "truth")))
    assert (verdict.wrong, verdict.unknown) == ([], [])
    assert (verdict.right >= 12, verdict.owners) == (True, 4)
    assert b" 0 lost" in result.files["ready"]


@pytest.mark.guests("6.1/amd64", "6.12/arm64", "5.10/amd64")
def test_a_bundle_needs_nothing_but_python(guest: Guest, bundle: bytes) -> None:
    script = f"python='python3 -I -S' pyz=/sockpid.pyz\n{SCRIPT}"
    demand_right(guest.run(["sh", "-c", script], timeout=150, files={**WORKLOAD, "/sockpid.pyz": bundle}))


@pytest.mark.guests("6.1/amd64")
@pytest.mark.parametrize("name", userland.USERLANDS)
def test_the_same_file_runs_in_other_user_lands(guest: Guest, bundle: bytes, name: str) -> None:
    if name == "musl" and shutil.which("musl-gcc") is None:
        pytest.skip("musl-gcc is not installed here")
    try:
        more = userland.archive_of(name)
    except packages.PackageError as error:
        pytest.skip(str(error))
    files = {**WORKLOAD, f"/{userland.ROOT}/sockpid.pyz": bundle}
    script = f"pyz=/sockpid.pyz\n{userland.enter(name)}{SCRIPT}"
    demand_right(guest.run(["sh", "-c", script], timeout=240, files=files, more=more, memory=768))
