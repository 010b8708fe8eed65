"""A calibration of this machine's kernel against the kernel's own BTF, and calibrations that must fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from sockpid import syscall
from sockpid.calibrate import calibrate, kern
from sockpid.calibrate.findings import Findings
from sockpid.errors import CalibrationError, SyscallError
from sockpid.host import kernel
from sockpid.offsets import calibration, offsets
from sockpid.probe.tracer import load_image
from sockpid.subjects import provoke, subjects
from sockpid.subjects.deaf import drop_everything
from sockpid.subjects.peek import Peek
from sockpid.table.layout import Layout, Struct
from tests.calibrated import differences

from .conftest import RUNTIME, sockpid


@pytest.fixture(scope="module")
def btf() -> Layout:
    """What the kernel says of itself."""
    arch = syscall.machine()
    try:
        return offsets.from_btf(load_image(arch.byte_order), arch).layout
    except SyscallError as error:
        pytest.skip(f"this kernel has no BTF to compare with: {error}")


def calibrated() -> Findings:
    findings = Findings(syscall.machine())
    with Peek() as peek:
        calibrate.run(findings, peek)
    return findings


def test_every_field_is_where_btf_says(tmp_path: Path, btf: Layout) -> None:
    path = tmp_path / "calibrated.json"
    result = sockpid("calibrate", "--json", "-o", str(path))
    assert result.status == 0, result
    report = json.loads(result.stdout)
    assert report["not_checked"] == []
    compared, wrong = differences(path.read_bytes(), btf)
    assert wrong == []
    assert compared >= 35
    # What was found serves: another process reads the file, and its events say where the offsets are from.
    selftest = sockpid("selftest", "--json", "--offsets", str(path))
    assert selftest.status == 0, selftest
    document = json.loads(selftest.stdout)
    assert document["offsets"] == "calibrated"
    assert {e["offsets"] for f in document["families"].values() for e in f["events"]} == {"calibrated"}


def test_the_name_of_the_process_is_given_back() -> None:
    before = kernel.comm()
    calibrated()
    assert kernel.comm() == before


ANYWHERE = subjects.names


def in_the_address() -> subjects.Names:
    """Ports whose two bytes are also the last two of the address beside them."""
    name = ANYWHERE()
    ends = [[int(part) | 64 for part in address.split(".")] for address in (name.local, name.remote)]
    local, remote = (f"127.{end[1]}.{end[2]}.{end[3]}" for end in ends)
    return subjects.Names(local, remote, ends[0][2] << 8 | ends[0][3], ends[1][2] << 8 | ends[1][3])


def on_both_sides() -> subjects.Names:
    """One address for both ends, and all bytes of it equal."""
    name = ANYWHERE()
    byte = int(name.local.split(".")[1])
    address = f"127.{byte}.{byte}.{byte}"
    return subjects.Names(address, address, name.port, name.remote_port)


def always_the_same() -> subjects.Names:
    """The same addresses for all sockets."""
    name = ANYWHERE()
    return subjects.Names("127.71.72.73", "127.81.82.83", name.port, name.remote_port)


@pytest.mark.parametrize(
    ("names", "lost"),
    [(in_the_address, None), (on_both_sides, None), (always_the_same, "skc_daddr")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_values_that_collide_mislead_nobody(
    monkeypatch: pytest.MonkeyPatch, btf: Layout, names: Callable[[], subjects.Names], lost: str | None
) -> None:
    """What can be told apart nevertheless is right; what cannot is refused by name. Nothing is ever wrong."""
    monkeypatch.setattr(subjects, "names", names)
    findings = calibrated()
    for full, field in findings.found.items():
        name, _, path = full.partition(".")
        row = btf[name]
        assert isinstance(row, Struct)
        assert row.fields[path] == field._replace(signed=field.signed), full
    arch = syscall.machine()
    if lost is not None:
        full = f"struct sock.__sk_common.{lost}"
        assert full in findings.problems
        with pytest.raises(CalibrationError, match=lost):
            calibration.demand(load_image(arch.byte_order), arch, findings.layout(), findings.problems)


def test_without_namespaces_of_our_own_the_inode_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first namespace's inode, 0xf0000000 and a little, is a number that other memory holds, too."""

    def refuse(_flags: int) -> None:
        raise SyscallError("unshare", errno.EPERM)

    monkeypatch.setattr(syscall, "unshare", refuse)
    findings = calibrated()
    assert "struct net.ns.inum" not in findings.found
    assert "no network namespaces" in findings.problems["struct net.ns.inum"]


def test_nothing_is_written_where_something_is_missing(tmp_path: Path) -> None:
    """Without CAP_NET_RAW there are no raw sockets, and so no way to find sk_protocol."""
    path = tmp_path / "calibrated.json"
    command = [
        "setpriv",
        "--bounding-set",
        "-net_raw",
        "--inh-caps",
        "-net_raw",
        *RUNTIME,
        "calibrate",
        "-o",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == CalibrationError.exit_code, done
    assert "struct sock.sk_protocol: raw sockets need CAP_NET_RAW" in done.stderr
    assert not path.exists()


def test_a_container_is_told_to_use_the_hosts_process_ids(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", *RUNTIME, "calibrate", "-o", str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done
    assert "process ids" in done.stderr


def test_the_timer_of_one_socket_is_that_of_proc_net_tcp() -> None:
    connection = subjects.Connection()
    try:
        connection.listen()
        connection.connect()
        drop_everything(connection.accept())
        inode = os.fstat(connection.client.fileno()).st_ino
        for expected, step in ((0, lambda: None), (1, lambda: connection.client.send(b"x"))):
            step()
            seen = {(provoke._timer(connection.client), provoke._timer_of_inode(inode)) for _ in range(10)}
            assert (expected, expected) in seen
    finally:
        connection.close()


def test_found_fields_are_many(btf: Layout) -> None:
    """The image would have to stop reading fields for a calibration to have nothing to prove."""
    rows = [row for row in btf.values() if isinstance(row, Struct)]
    assert sum(len(row.fields) for row in rows) >= 35


def test_the_kernels_own_sockets_show_their_mark_where_all_else_is_known(btf: Layout) -> None:
    """Where no MPTCP socket shows it, that is what proves the field of a build that nobody has seen."""
    arch = kernel.identify().arch
    place = btf["struct sock"].fields["sk_kern_sock"]  # type: ignore[union-attr]
    found = kern.look(arch, btf, frozenset())
    assert (found.field, found.problem) == (place and place._replace(signed=False), "")
