"""The archive: per kernel all members of the structs that we may ever need, from which tables are made and remade.

One file per architecture and series, `archive/<arch>/<series>.json.xz`. Rows and layouts are content-addressed as in a
table, so that equal structs are stored once. What a file says follows from the kernels alone, not from their order.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import sockpid
from sockpid import hooks
from sockpid.arch import Arch, of_machine
from sockpid.btf import Btf
from sockpid.errors import BtfError, SchemaError, SourceError, TableError
from sockpid.table import row_id, series_of

from . import wanted
from .archive_types import Archived, Rows, describe, describe_btf
from .difference import compare, words
from .nameless import Nameless
from .shard import write
from .source import KernelSource

SCHEMA = "1.0"

FUNCTIONS: Tuple[str, ...] = tuple(
    sorted(
        hooks.functions()
        | {
            "__inet_accept",
            "__mptcp_retrans",
            "__tcp_retransmit_skb",
            "__tcp_send_ack",
            "do_exit",
            "fd_install",
            "inet6_recvmsg",
            "inet6_sendmsg",
            "inet_accept",
            "inet_bind",
            "inet_csk_accept",
            "inet_csk_clone_lock",
            "inet_csk_complete_hashdance",
            "inet_csk_destroy_sock",
            "inet_recvmsg",
            "inet_release",
            "inet_rtx_syn_ack",
            "inet_sendmsg",
            "inet_shutdown",
            "inet_stream_connect",
            "mptcp_recvmsg",
            "mptcp_retransmit_timer",
            "mptcp_subflow_create_socket",
            "reqsk_timer_handler",
            "security_socket_post_create",
            "security_socket_sendmsg",
            "sk_psock_backlog",
            "sock_sendmsg",
            "sock_recvmsg",
            "tcp_ack",
            "tcp_check_req",
            "tcp_close",
            "tcp_conn_request",
            "tcp_create_openreq_child",
            "tcp_done",
            "tcp_enter_loss",
            "tcp_enter_recovery",
            "tcp_fastopen_create_child",
            "tcp_fin",
            "tcp_keepalive_timer",
            "tcp_read_sock",
            "tcp_reset",
            "tcp_retransmit_timer",
            "tcp_send_active_reset",
            "tcp_send_fin",
            "tcp_send_loss_probe",
            "tcp_send_probe0",
            "tcp_splice_read",
            "tcp_time_wait",
            "tcp_v4_connect",
            "tcp_v4_rcv",
            "tcp_v6_connect",
            "tcp_v6_rcv",
            "tcp_write_err",
            "tcp_write_timer_handler",
            "tcp_write_xmit",
            "tcp_xmit_retransmit_queue",
            "tcp_zerocopy_receive",
            "tls_push_sg",
            "tls_sw_sendmsg",
            "unix_stream_sendmsg",
            "wake_up_new_task",
        }
    )
)
"""Functions whose BTF ids are archived: those that hooks name, and others that hooks may name one day."""

Kernel = Dict[str, Any]
"""A kernel as the archive has it, its rows resolved: see record_of."""

Document = Dict[str, Any]
"""A file of the archive as JSON has it."""


def record_of(kernel: KernelSource) -> Kernel:
    """Everything about one kernel that is kept: identity, sources, rows of all types, BTF ids of functions.

    Raises SourceError, BtfError if its types cannot be read or two readers disagree about them.
    """
    identity = {
        "release": kernel.release,
        "banner": kernel.banner,
        "build_id": kernel.build_id,
        "distribution": kernel.distribution,
        "sources": [[kernel.file, kernel.sha256]],
    }
    if kernel.btf is not None:
        return _of_btf(identity, kernel.arch, kernel.btf, kernel.file)
    import drgn

    from . import dwarf
    from .extraction import dwarf_program

    if kernel.dwarf is not None and dwarf.is_split(kernel.dwarf):
        raise SourceError(f"{kernel.file}: its DWARF is split, so types may be missing from it unnoticed")
    try:
        rows = describe(dwarf_program(kernel))
    except drgn.FaultError as error:
        raise SourceError(f"{kernel.file}: DWARF cannot be read: {error}") from None
    return {**identity, "arch": kernel.arch.name, "kind": "dwarf", "tools": _tools(), "functions": None, "types": rows}


def record_of_nameless(kernel: Nameless, file: str, sha256: str) -> Kernel:
    """As record_of, of a kernel of which the release is all that is known. Its BTF ids are of no use to anybody."""
    identity = {
        "release": kernel.release,
        "banner": None,
        "build_id": None,
        "distribution": kernel.distribution,
        "sources": [[file, sha256]],
    }
    return {**_of_btf(identity, kernel.arch, kernel.btf, file), "functions": None}


def _of_btf(identity: Mapping[str, Any], arch: Arch, content: bytes, file: str) -> Kernel:
    from . import btf_finder

    try:
        btf = Btf(content)
        rows = describe_btf(btf_finder.program(btf, arch), btf, arch.pointer_size)
        functions = btf.func_ids(FUNCTIONS)
    except BtfError as error:
        raise BtfError(f"{file}: {error}") from None
    return {**identity, "arch": arch.name, "kind": "btf", "tools": _tools(), "functions": functions, "types": rows}


def _tools() -> Dict[str, str]:
    import drgn

    return {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__)}


def intern(kernel: Kernel, rows: Dict[str, Any]) -> Kernel:
    """The same kernel, but rows that are equal to one in `rows` are that one, so that thousands of kernels fit into
    memory; new ones are added."""
    types = {name: row and rows.setdefault(row_id(row), row) for name, row in kernel["types"].items()}
    return {**kernel, "types": types}


def path_of(directory: Path, arch: str, series: str) -> Path:
    """The file of the archive below `directory` that a kernel belongs into."""
    return directory / arch / f"{series}.json.xz"


def read(path: Path) -> List[Kernel]:
    """The kernels in a file of the archive; none if there is no such file. Raises TableError, SchemaError."""
    try:
        document: Document = json.loads(lzma.decompress(path.read_bytes()))
        if document["schema"] != SCHEMA:
            raise SchemaError(f"{path}: archive of schema {document['schema']}, but this sockpid-gen reads {SCHEMA}")
        rows, layouts = document["rows"], document["layouts"]
        for row, value in [*rows.items(), *layouts.items()]:
            if row_id(value) != row:
                raise TableError(f"{path}: row {row} was altered: its content has id {row_id(value)}")
        types = {
            layout: {name: None if row is None else rows[row] for name, row in names.items()}
            for layout, names in layouts.items()
        }
        names = document["functions"]
        return [
            {
                **{key: value for key, value in kernel.items() if key != "layout"},
                "arch": document["arch"],
                "functions": None
                if kernel["functions"] is None
                else {name: n for name, n in zip(names, kernel["functions"], strict=True) if n is not None},
                "types": types[kernel["layout"]],
            }
            for kernel in document["kernels"]
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except (lzma.LZMAError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: damaged, or no archive: {error!r}") from None


def read_all(directory: Path) -> Dict[Path, List[Kernel]]:
    """The kernels of every file of an archive."""
    return {path: read(path) for path in sorted(directory.glob("*/*.json.xz"))}


def merge(kernels: Iterable[Kernel]) -> List[Kernel]:
    """Kernels in the archive's order, each once, with all sources it was found in.

    Of a kernel that was read in several ways, BTF counts more than DWARF. Raises TableError, naming both sources, if
    two say different things about a field that the images read: one of them is not what it says it is.
    """
    found: Dict[Tuple[str, ...], Kernel] = {}
    for kernel in sorted(kernels, key=lambda k: (k["kind"], k["sources"])):
        key = (kernel["build_id"],) if kernel["build_id"] else (kernel["release"], kernel["banner"] or "")
        known = found.get(key)
        if known is None:
            found[key] = kernel
            continue
        if known["types"] is not kernel["types"] and known["types"] != kernel["types"]:
            _agree(known, kernel)
        sources = sorted({tuple(source) for source in known["sources"] + kernel["sources"]})
        found[key] = {**known, "sources": [list(source) for source in sources]}
    return sorted(found.values(), key=lambda k: (k["release"], k["build_id"] or "", k["banner"] or ""))


def _agree(one: Kernel, other: Kernel) -> None:
    arch = of_machine(one["arch"])
    left, right = (layout_of(kernel["types"], arch.name)[0] for kernel in (one, other))
    differences = compare(left, right)
    if differences:
        field, value, other_value = differences[0].field, words(differences[0].one), words(differences[0].other)
        raise TableError(
            f"kernel {one['release']} (build-id {one['build_id']}) is described in two ways, first in {field}: {value} "
            f"in {one['sources'][0][0]} (sha256 {one['sources'][0][1]}), {other_value} in {other['sources'][0][0]} "
            f"(sha256 {other['sources'][0][1]})"
        )


def layout_of(types: Rows, arch_name: str) -> Tuple[Mapping[str, Any], List[str]]:
    """The fields that the image for an architecture reads, and the names of wanted types that were not archived."""
    arch = of_machine(arch_name)
    fields = wanted.wanted_fields(arch)
    known = {name: paths for name, paths in fields.items() if name in types}
    return Archived(types).extract(known, arch.pointer_size), sorted(fields.keys() - known.keys())


def encode(arch: str, series: str, kernels: Iterable[Kernel]) -> bytes:
    """The content of a file of the archive, before compression."""
    rows: Dict[str, Any] = {}
    layouts: Dict[str, Dict[str, Optional[str]]] = {}
    entries: List[Document] = []
    ids: Dict[int, str] = {}
    merged = merge(kernels)
    for kernel in merged:
        names: Dict[str, Optional[str]] = {}
        for name, row in kernel["types"].items():
            if row is not None and id(row) not in ids:
                ids[id(row)] = row_id(row)
                rows[ids[id(row)]] = row
            names[name] = None if row is None else ids[id(row)]
        layout = row_id(names)
        layouts[layout] = names
        functions = kernel["functions"]
        entries.append(
            {
                **{key: value for key, value in kernel.items() if key not in ("types", "arch")},
                "layout": layout,
                "functions": None if functions is None else [functions.get(name) for name in FUNCTIONS],
            }
        )
    document = {
        "schema": SCHEMA,
        "arch": arch,
        "series": series,
        "functions": FUNCTIONS,
        "rows": rows,
        "layouts": layouts,
        "kernels": entries,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def save(path: Path, content: bytes) -> bool:
    """Writes a file of the archive if it has other content; whole or not at all. Returns whether it had."""
    try:
        if lzma.decompress(path.read_bytes()) == content:
            return False
    except (OSError, lzma.LZMAError, EOFError):
        pass
    write(path, lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return True


def group(kernels: Iterable[Kernel]) -> Dict[Tuple[str, str], List[Kernel]]:
    """Kernels by architecture and series."""
    groups: Dict[Tuple[str, str], List[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel["arch"], series_of(kernel["release"])), []).append(kernel)
    return groups


def sources_of(directory: Path) -> Iterator[str]:
    """SHA-256 of every file whose kernel the archive has."""
    for kernels in read_all(directory).values():
        for kernel in kernels:
            for _, sha256 in kernel["sources"]:
                yield sha256
