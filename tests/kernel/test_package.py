"""What is shipped, on this machine: the bundle where nothing can be written, the package in a copy of the root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bundles

SCRIPT = """
mount -t tmpfs tmpfs $1 && cd $1 && mkdir up work root || exit 9
mount -t overlay overlay -o lowerdir=/,upperdir=$PWD/up,workdir=$PWD/work root || exit 9
for d in proc sys dev; do mount --rbind /$d root/$d || exit 9; done
mkdir -p root/mnt && cp $2 root/mnt/sockpid.deb
inside() { chroot root "$@" >&2 || exit 8; }
inside dpkg --no-triggers -i /mnt/sockpid.deb
inside sockpid selftest
mkdir -p root/etc/sockpid/offsets.d root/var/lib/sockpid && echo x >root/var/lib/sockpid/state
inside dpkg --no-triggers --purge sockpid
# A character device stands for what is gone, and was there outside, of an earlier run.
find up -iname '*sockpid*' ! -type c ! -path 'up/mnt/*'
find up ! -type d ! -type c ! -path 'up/mnt/*' ! -path 'up/var/lib/dpkg/*' ! -path 'up/var/log/*'
"""


def test_the_package_runs_and_purged_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    bundle = bundles.make(tmp_path / "sockpid.pyz", "--arch", os.uname().machine, "--without-pyroute2")
    subprocess.run(
        [sys.executable, str(bundles.ROOT / "packaging/deb.py"), str(bundle), str(tmp_path)],
        check=True,
        capture_output=True,
    )
    (deb,) = tmp_path.glob("*.deb")
    copy = tmp_path / "deb"
    copy.mkdir()
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(copy), str(deb)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 9:
        pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, ""), done
    assert "all right" in done.stderr


def test_the_bundle_runs_where_nothing_can_be_written(tmp_path: Path) -> None:
    """No home, no directory for temporary files, no environment."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    bundle = bundles.make(tmp_path / "sockpid.pyz", "--arch", os.uname().machine)
    done = bundles.run_where_nothing_can_be_written(bundle, "selftest", "run --json --duration 1 --sharers")
    assert done.returncode == 0, done.stderr
    assert "all right" in done.stdout
    assert " 0 lost" in done.stderr
