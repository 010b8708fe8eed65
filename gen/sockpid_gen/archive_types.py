"""Whole structs as data: all members of a type and of all that lies in it. From them any field can be answered later.

A row is JSON: `{"name": "struct sock", "size": 776, "members": [[name, bit offset, width, type], ...]}`. The width is
that of a bit field, else 0; the name of an anonymous member is "". A type is

* "u4", "i8": an integer, boolean, enum or float of so many bytes, unsigned or signed; "p": a pointer;
* "struct NAME", "union NAME": another row, by name;
* {"size": ..., "members": ...}: a struct without a name, or with one that several types share; "union": true if it is
  one;
* [N, type]: an array, of 0 elements if it is flexible. Arrays of arrays are flattened, as pahole does it for BTF.

A row of an enum has "values" instead of members.
"""

from __future__ import annotations

from typing import Any, Collection, Dict, FrozenSet, Iterable, Iterator, List, Mapping, Optional, Tuple

import drgn

from sockpid.btf import KEYWORDS, Btf
from sockpid.errors import BtfError, TableError
from sockpid.layout import Enum, Field, Layout, Struct, Type, Wanted, parse_path

Row = Dict[str, Any]
Rows = Dict[str, Optional[Row]]
"""Rows by type name. None: looked for, and the kernel has none of that name."""

ROOTS: Tuple[str, ...] = (
    # What a socket is made of, in each of its lives: who owns it, where it goes, what state it is in.
    "struct sock",
    "struct sock_common",
    "struct inet_sock",
    "struct inet_connection_sock",
    "struct tcp_sock",
    "struct request_sock",
    "struct inet_request_sock",
    "struct tcp_request_sock",
    "struct inet_timewait_sock",
    "struct tcp_timewait_sock",
    "struct mptcp_sock",
    "struct mptcp_subflow_context",
    "struct proto",
    "struct proto_ops",
    "struct tcp_ulp_ops",
    "struct tcp_congestion_ops",
    # What is sent.
    "struct sk_buff",
    "struct skb_shared_info",
    "struct tcp_skb_cb",
    "struct tcphdr",
    "struct iphdr",
    "struct ipv6hdr",
    "struct msghdr",
    "struct dst_entry",
    # From a socket to its file, from there to who holds it.
    "struct socket",
    "struct socket_alloc",
    "struct socket_wq",
    "struct file",
    "struct inode",
    # Whose it is: process, container, user.
    "struct task_struct",
    "struct signal_struct",
    "struct pid",
    "struct upid",
    "struct pid_namespace",
    "struct nsproxy",
    "struct ns_common",
    "struct net",
    "struct user_namespace",
    "struct cred",
    "struct css_set",
    "struct cgroup",
    "struct cgroup_subsys_state",
    "struct kernfs_node",
    "struct mm_struct",
    "struct linux_binprm",
    # What a program is given: registers, and the records of tracepoints.
    "struct pt_regs",
    "struct trace_entry",
    "struct trace_event_raw_tcp_event_sk_skb",
    "struct trace_event_raw_tcp_event_sk",
    "struct trace_event_raw_tcp_event_skb",
    "struct trace_event_raw_tcp_retransmit_skb",
    "struct trace_event_raw_tcp_retransmit_synack",
    "struct trace_event_raw_tcp_probe",
    "struct trace_event_raw_tcp_send_reset",
    "struct trace_event_raw_tcp_sendmsg_locked",
    "struct trace_event_raw_inet_sock_set_state",
    "struct trace_event_raw_inet_sk_error_report",
    "struct trace_event_raw_sock_msg_length",
    "struct trace_event_raw_sched_process_exec",
    # Numbers that have moved, and which BPF features the kernel has.
    "enum tcp_ca_state",
    "enum tcp_chrono",
    "enum sk_rst_reason",
    "enum skb_drop_reason",
    "enum sock_flags",
    "enum sock_type",
    "enum pid_type",
    "enum bpf_func_id",
    "enum bpf_map_type",
    "enum bpf_prog_type",
    "enum bpf_attach_type",
    "enum bpf_link_type",
)
"""What is archived, with everything that lies in it by value. The images read a tenth of it today."""

_INVENTED = "__UNIQUE_ID_"
"""How names start that the preprocessor made (__UNIQUE_ID() in include/linux/compiler.h). The number in them differs
from one object file to the next, so one type has many of them, and no code says any. Red Hat's kernels keep former
members under such names."""

_PREFIX = {drgn.TypeKind.STRUCT: "struct", drgn.TypeKind.UNION: "union"}


def describe(prog: drgn.Program, roots: Iterable[str] = ROOTS, shared: Collection[str] = ()) -> Rows:
    """Rows of `roots` and of all named types in them by value, according to the types of `prog`, BTF or DWARF.

    `shared`: type names that several types have. They get no row; where one lies in another type, it is spelled out.
    """
    rows: Rows = {}
    walk = _Walk(rows, frozenset(shared))
    for name in roots:
        if name in shared:
            continue
        try:
            found = prog.type(name)
        except LookupError:
            rows.setdefault(name, None)
            continue
        if not found.is_complete():
            rows.setdefault(name, None)
        elif found.kind == drgn.TypeKind.ENUM:
            values = {e.name: e.value for e in found.enumerators or ()}
            rows[name] = {"name": name, "size": drgn.sizeof(found), "values": values}
        else:
            walk.type(found)
    return rows


def shared_names(btf: Btf, rows: Rows, pointer_size: int) -> FrozenSet[str]:
    """Names of rows that several types of a BTF have whose members lie differently: nothing tells which one is meant.

    (Where pahole could not unite the types of all object files, there are many of equal layout.)
    """
    shared = set()
    for keyword, kinds in KEYWORDS.items():
        tags = [name.partition(" ")[2] for name in rows if name.startswith(keyword + " ")]
        for tag, ids in btf.find(tags, kinds).items():
            name = f"{keyword} {tag}"
            if len(ids) > 1:
                try:
                    btf.extract({name: frozenset(members(rows[name]))}, pointer_size)
                except BtfError:
                    shared.add(name)
    return frozenset(shared)


def describe_btf(prog: drgn.Program, btf: Btf, pointer_size: int, roots: Iterable[str] = ROOTS) -> Rows:
    """Rows out of a BTF, read by drgn; the other reader must place every member of every row alike.

    `prog`: a program whose types are those of `btf`. Raises BtfError, naming the field, if the two disagree.
    """
    roots = tuple(roots)
    # Found all at once they cost no more than one; drgn asks for one after the other.
    btf.find({name.partition(" ")[2] for name in roots}, frozenset().union(*KEYWORDS.values()))
    shared: FrozenSet[str] = frozenset()
    rows = describe(prog, roots)
    more = shared_names(btf, rows, pointer_size)
    while more:
        shared |= more
        rows = describe(prog, roots, shared)
        more = shared_names(btf, rows, pointer_size)
    wanted = {name: frozenset(members(row)) for name, row in rows.items()}
    mine, theirs = Archived(rows).extract(wanted, pointer_size), btf.extract(wanted, pointer_size)
    for name, row in mine.items():
        if row != theirs[name]:
            raise BtfError(f"two readers of BTF disagree about {name}: {row}; {theirs[name]}")
    return rows


def members(row: Optional[Row]) -> Iterator[str]:
    """Names of the members of a row as C code says them, through anonymous ones; of an enum, its enumerators."""
    if row is None:
        return
    yield from row.get("values", ())
    for name, _, _, kind in row.get("members", ()):
        if name and not name.startswith(_INVENTED):
            yield name
        elif not name and isinstance(kind, dict):
            yield from members(kind)


class _Walk:
    """Turns drgn types into type descriptions, and puts the named ones into rows."""

    def __init__(self, rows: Rows, shared: FrozenSet[str]) -> None:
        self._rows, self._shared = rows, shared

    def type(self, kind: drgn.Type) -> Any:
        while kind.kind == drgn.TypeKind.TYPEDEF:
            kind = kind.type
        if kind.kind == drgn.TypeKind.POINTER:
            return "p"
        if kind.kind == drgn.TypeKind.ARRAY:
            element, count = self.type(kind.type), kind.length or 0
            return [count * element[0], element[1]] if isinstance(element, list) else [count, element]
        if kind.kind in _PREFIX:
            return self._struct(kind)
        if kind.kind == drgn.TypeKind.INT:
            signed = kind.is_signed
        else:
            signed = kind.kind == drgn.TypeKind.ENUM and kind.is_complete() and kind.type.is_signed
        return f"{'i' if signed else 'u'}{drgn.sizeof(kind)}"

    def _struct(self, kind: drgn.Type) -> Any:
        name = f"{_PREFIX[kind.kind]} {kind.tag}" if kind.tag else ""
        if not name or name in self._shared:
            union = {"union": True} if kind.kind == drgn.TypeKind.UNION else {}
            return {"size": kind.size, "members": self._members(kind), **union}
        if name not in self._rows:
            row: Row = {"name": name, "size": kind.size}
            self._rows[name] = row
            row["members"] = self._members(kind)
        return name

    def _members(self, kind: drgn.Type) -> List[List[Any]]:
        return [[m.name or "", m.bit_offset, m.bit_field_size or 0, self.type(m.type)] for m in kind.members or ()]


class Archived:
    """The types of one kernel out of its rows. Answers as a Btf does."""

    def __init__(self, rows: Mapping[str, Optional[Row]]) -> None:
        self._rows = rows

    def extract(self, wanted: Wanted, pointer_size: int) -> Layout:
        """Where the wanted fields lie; as Btf.extract. Raises TableError for a type that was not archived."""
        layout: Dict[str, Optional[Type]] = {}
        for name, paths in wanted.items():
            row = self._row(name)
            if row is None:
                layout[name] = None
            elif "values" in row:
                layout[name] = Enum(name, row["size"], {path: row["values"].get(path) for path in paths})
            else:
                fields = {path: self._field(row, path, pointer_size) for path in paths}
                layout[name] = Struct(name, row["size"], fields)
        return layout

    def _row(self, name: str) -> Optional[Row]:
        if name not in self._rows:
            raise TableError(f"the archive does not have {name}")
        return self._rows[name]

    def _field(self, kind: Any, path: str, pointer_size: int) -> Optional[Field]:
        bit_offset = width = 0
        for step in parse_path(path):
            if isinstance(step, int):
                if not isinstance(kind, list) or step >= kind[0] > 0:
                    return None
                kind, width = kind[1], 0
                bit_offset += step * self._bits(kind, pointer_size)
            else:
                member = self._member(kind, step)
                if member is None:
                    return None
                kind, offset, width = member
                bit_offset += offset
        signed = isinstance(kind, str) and kind[0] == "i"
        return Field(bit_offset, width or self._bits(kind, pointer_size), width > 0, signed)

    def _member(self, kind: Any, wanted: str) -> Optional[Tuple[Any, int, int]]:
        """Type, bit offset and width of a member, found through anonymous ones."""
        row = kind if isinstance(kind, dict) else self._row(kind) if " " in kind else None
        for name, bit_offset, width, inner in row["members"] if row else ():
            if name == wanted:
                return inner, bit_offset, width
            if not name and isinstance(inner, dict):
                found = self._member(inner, wanted)
                if found is not None:
                    return found[0], bit_offset + found[1], found[2]
        return None

    def _bits(self, kind: Any, pointer_size: int) -> int:
        if isinstance(kind, list):
            return int(kind[0]) and int(kind[0]) * self._bits(kind[1], pointer_size)
        if kind == "p":
            return pointer_size * 8
        row = kind if isinstance(kind, dict) else self._row(kind) if " " in kind else None
        return 8 * int(row["size"] if row else kind[1:])
