"""What goes wrong ends in its own error and exit status, before any event is printed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid import errors
from sockpid.host import kernel
from sockpid.probe import tracer
from sockpid.table import layout, table
from tests import generator
from tests.kernel.conftest import Ran, sockpid
from tests.shard_lines import render

BTF = Path("/sys/kernel/btf/vmlinux")
UNPROVED = {
    ("struct task_struct", "real_start_time"): "this kernel has its successor; the program never asks",
    ("struct inet_connection_sock", "icsk_ulp_data"): "what is 0 there is found through the struct socket as well",
    ("struct mptcp_subflow_context", "conn"): "as above",
    ("struct sock", "sk_allocation"): "what says as much of a process's socket in its place costs a doubt, as below",
    ("struct sock", "sk_user_data"): "what is empty in its place costs a doubt, and names nobody else",
    ("struct socket", "sk"): "the other way to an MPTCP socket: what is at no socket's address is in no map",
}
"""Fields that need not be right for every value that is wrong to be found out, and why no wrong process is named."""


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
        assert run_with(document, tmp_path).status in (0, errors.SelfCheckError.exit_code)
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
                far = 4 * field["size"] if field["size"] < 16 else 32
                field["offset"] += far if field["offset"] + far + field["size"] <= row["size"] else -far
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
    # What an earlier start has read of it is kept, and would be enough.
    shell = 'mount -t tmpfs none /var && mount --bind "$0" /sys/kernel/btf/vmlinux && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", shell, str(short))
    refused(sockpid("run", before=before), errors.BtfError, "BTF")


def test_unknown_kernel() -> None:
    identity = kernel.identify()
    forgetful = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /var && exec "$0" "$@"')
    refused(
        sockpid("run", "--deny", "live-btf", "--no-consensus", before=forgetful),
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
    from sockpid.offsets import offsets

    identity = kernel.identify()
    image = tracer.load_image(identity.arch.byte_order)
    tabled = offsets.find(image, identity, str(made)).layout
    live: layout.Layout = offsets.from_btf(image, identity.arch).layout
    assert dict(tabled) == dict(live)


def with_etc(tmp_path: Path, prepare: str, *arguments: str) -> Ran:
    """Runs with an /etc/sockpid/offsets.d of its own, which a script fills: $1 is a table of this kernel."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    shell = f"""set -e
        mount --bind "$0" /etc; mkdir -p /etc/sockpid/offsets.d; cd /etc/sockpid/offsets.d; {prepare}
        shift; cd /; exec "$@" """
    before = ("unshare", "--mount", "sh", "-c", shell, str(tmp_path / "etc"), str(tmp_path / "table.json"))
    return sockpid(*arguments, before=before, timeout=30)


def test_a_file_of_the_administrators_that_contradicts_the_kernel(document: dict[str, Any], tmp_path: Path) -> None:
    """`run` proves what it takes by itself; who is asked names both sources."""
    move(document, "struct sock", "__sk_common.skc_dport")
    (tmp_path / "table.json").write_bytes(render(document))
    for command in ("selftest", "doctor"):
        ran = with_etc(tmp_path, 'cp "$1" a.json', command)
        assert ran.status == errors.ConflictError.exit_code, ran
        for word in ("/etc/sockpid/offsets.d/a.json", str(BTF), "struct sock.__sk_common.skc_dport"):
            assert word in ran.stdout + ran.stderr


def test_two_files_that_contradict_one_another(made: Path, document: dict[str, Any], tmp_path: Path) -> None:
    move(document, "struct sock", "__sk_common.skc_dport")
    (tmp_path / "table.json").write_bytes(render(document))
    ran = with_etc(tmp_path, f'cp "$1" b.json; cp {made} a.json', "run", "--duration", "0.1", "--deny", "live-btf")
    refused(ran, errors.ConflictError, "offsets.d/a.json", "offsets.d/b.json", "struct sock.__sk_common.skc_dport")


def test_a_field_that_a_table_does_not_know_is_asked_of_the_kernel(document: dict[str, Any], tmp_path: Path) -> None:
    for row in document["structs"].values():
        if "icsk_ulp_ops" in row["fields"]:
            row["fields"]["icsk_ulp_ops"] = None
    renumber(document)
    (tmp_path / "table.json").write_bytes(render(document))
    ran = with_etc(tmp_path, 'cp "$1" a.json', "run", "--duration", "0.1")
    assert ran.status == 0, ran
    assert f"offsets from {BTF}" in ran.stderr


@pytest.mark.parametrize(
    ("prepare", "word"),
    [
        ("mkfifo a.json", "not a regular file"),
        ("mkdir a.json", "a.json: Is a directory"),
        ("mknod a.json c 1 5", "not a regular file"),
        ('ln -s "$1" a.json', "a symbolic link"),
        ('cp "$1" a.json; chmod 777 .', "/etc/sockpid/offsets.d: others than root may put files there"),
        ('cp "$1" a.json; chmod 777 ..', "/etc/sockpid: others than root may put files there"),
        ('cp "$1" a.json; chown 65534 .', "/etc/sockpid/offsets.d: others than root may put files there"),
        ('cp "$1" a.json; chown 65534 a.json', "a.json: others than root may write it"),
    ],
)
def test_what_may_not_be_trusted_is_not_read(made: Path, tmp_path: Path, prepare: str, word: str) -> None:
    shutil.copy(made, tmp_path / "table.json")
    refused(with_etc(tmp_path, prepare, "run", "--duration", "0.1"), errors.TableError, word)


def test_setarch_hides_no_version() -> None:
    """An old version for programs that cannot bear a new one: the table, and a request, are for the real one."""
    ran = sockpid("doctor", "--json", before=("setarch", "--uname-2.6"))
    assert json.loads(ran.stdout)["release"] == kernel.identify().release
    assert not kernel.identify().release.startswith("2.6")


def test_a_banner_that_is_not_the_kernels(tmp_path: Path) -> None:
    fake = tmp_path / "version"
    fake.write_text("Linux version 5.15.0-1-generic (root@host) (gcc) #1 SMP\n")
    before = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/version && exec "$@"', str(fake))
    refused(sockpid("run", before=before), errors.UnknownKernelError, "5.15.0-1-generic", kernel.identify().release)


def test_a_user_namespace_is_named() -> None:
    ran = sockpid("run", "--duration", "0.1", before=("unshare", "--user", "--map-root-user"))
    refused(ran, errors.CapabilityError, "user namespace")
    assert "RLIMIT_MEMLOCK" not in ran.stderr


@pytest.mark.parametrize(("number", "word"), [(1, "all of bpf(2) is refused"), (38, "built without bpf(2)")])
def test_a_seccomp_filter_is_named(number: int, word: str) -> None:
    """As container engines install one: bpf(2) ends in EPERM, or, as if the kernel had none, in ENOSYS."""
    ran = sockpid("run", "--duration", "0.1", before=(sys.executable, "-c", FILTER, str(number)))
    refused(ran, errors.SyscallError, word, "seccomp filter")
    assert "RLIMIT_MEMLOCK" not in ran.stderr


FILTER = f"""
import ctypes, os, struct, sys
insns = [(0x20, 0, 0, 0), (0x15, 0, 1, {kernel.identify().arch.bpf}), (6, 0, 0, 0x50000 | int(sys.argv[1])),
         (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *insn) for insn in insns))
program = ctypes.create_string_buffer(struct.pack("@HP", len(insns), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, program)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with SECCOMP_MODE_FILTER: SECCOMP_RET_ERRNO for one system call."""
