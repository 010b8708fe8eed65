"""The tools that sockpid is compared with, out of Debian's packages, and how each is asked for the same job."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.vm import cache, packages, unpack
from tests.vm.newc import PROGRAM, Entry, archive

from . import machine, owner_c

TOOLS = ("bpfcc-tools", "bpftrace", "libbpf-tools", "linux-perf", "trace-cmd", "libc6-dev")
PLY = ("ply", "libc6")
"""ply came to Debian with trixie, whose C library it needs: that is brought along for it alone."""
LEFT_OUT = (
    r"gcc-12|cpp-12|perl(-.*)?|binutils(-.*)?|tar|dpkg|wget"
    r"|lib(asan|tsan|lsan|ubsan|gprofng|isl|cc1-|itm|quadmath|gomp|atomic).*"
)
"""Packages that depend on each other, but that none of the tools uses at run time."""
WANTED = (
    r"(usr/)?(s?bin/(bpftrace|perf|trace-cmd|ply|tcp(retrans-bpfcc|top|states|life|connlat|retrans\.bt))"
    r"|lib(64)?/.*\.so(\.[\d.]+)?|lib/(modules|linux-kbuild|python3/dist-packages)/.*|src/.*|include/.*)"
)
NOT_WANTED = r".*/(python3\.\d+|traceevent|perl|gconv|gcc|bfd-plugins)/.*"
OWN_LIBRARY = "usr/lib/trixie"

OWNER_BT = """
kprobe:tcp_sendmsg { @owner[arg0] = pid; }
tracepoint:tcp:tcp_retransmit_skb { printf("%d %d %d\\n", @owner[(uint64)args->skaddr], args->sport, args->dport); }
"""
COUNT_BT = "kprobe:tcp_sendmsg { @[pid] = count(); }"
FENTRY_BT = "kfunc:tcp_sendmsg { @owner[args->sk] = pid; }"
PLY_COMMAND = [f"/{OWN_LIBRARY}/ld-linux-x86-64.so.2", "--library-path", f"/{OWN_LIBRARY}", "/usr/sbin/ply"]
OWNER_PLY = """
kprobe:tcp_sendmsg { o[arg0] = pid; }
tracepoint:tcp/tcp_retransmit_skb { print(o[data->skaddr], data->sport, data->dport); }
"""
OWNER_BCC = ["python3", "/run/owner_bcc.py"]
OWNER_C = ["/run/owner"]
KPROBE_EVENTS = "/sys/kernel/tracing/kprobe_events"
_PROBED = f"echo 'p:owner/send tcp_sendmsg sk=%di:x64' > {KPROBE_EVENTS}; "
OWNER_PERF = ["sh", "-c", f"{_PROBED}exec perf trace -e owner:send -e tcp:tcp_retransmit_skb"]
_TRIGGER = "/sys/kernel/tracing/events/owner/send/trigger"
OWNER_FTRACE = [
    "sh", "-c", f"{_PROBED}echo 'hist:keys=sk:pid=common_pid' > {_TRIGGER}; "
    f"trap \"echo '!hist:keys=sk:pid=common_pid' > {_TRIGGER}; echo > {KPROBE_EVENTS}; exit\" INT; "
    "while :; do sleep 0.2; done",
]  # fmt: skip


class Peer(NamedTuple):
    """A tool: its command. perf: it attaches by perf events without programs. settle: seconds after which it is
    attached, where nothing tells."""

    command: list[str]
    perf: bool = False
    settle: float | None = None


RETRANSMITS: Mapping[str, Peer] = {
    "bcc tcpretrans": Peer(["/usr/sbin/tcpretrans-bpfcc"]),
    "bpftrace tcpretrans.bt": Peer(["bpftrace", "/usr/sbin/tcpretrans.bt"]),
    "libbpf-tools tcpstates": Peer(["/usr/sbin/tcpstates"]),
    "perf trace": Peer(["perf", "trace", "-e", "tcp:tcp_retransmit_skb"], perf=True),
}
"""Who traces retransmits. libbpf-tools has nothing that does; tcpstates is alike: a tracepoint, a line an event."""

OWNERS: Mapping[str, Peer] = {
    "C with libbpf, owner map": Peer(OWNER_C),
    "bcc owner map": Peer(OWNER_BCC),
    "bpftrace owner map": Peer(["bpftrace", "-e", OWNER_BT]),
    "ply owner map": Peer([*PLY_COMMAND, OWNER_PLY]),
}
"""Who keeps the owner of every sending socket, and tells it with a retransmit."""

STARTING: Mapping[str, Peer] = {**RETRANSMITS, "libbpf-tools tcptop": Peer(["/usr/sbin/tcptop"]), **OWNERS}
SENDING: Mapping[str, Peer] = {
    "bpftrace kprobe, count by pid": Peer(["bpftrace", "-e", COUNT_BT]),
    "bpftrace fentry, owner map": Peer(["bpftrace", "-e", FENTRY_BT]),
    "libbpf-tools tcptop": Peer(["/usr/sbin/tcptop"]),
    "perf trace": Peer(OWNER_PERF, perf=True),
    "ftrace hist, pid by socket": Peer(OWNER_FTRACE, settle=1.0),
    **OWNERS,
}


@functools.cache
def versions() -> Mapping[str, str]:
    """Version of each tool's package."""
    found = {}
    for name in (*TOOLS, "ply"):
        suite = "trixie" if name == "ply" else "bookworm"
        found[name] = packages.fetch(name, suite, "amd64").name.split("_")[1].replace("%3a", ":")
    return found


def debs() -> list[Path]:
    """The tools' packages and what they need, but for ply's."""
    release = machine.kernel().package.release
    names = packages.with_dependencies([*TOOLS, f"linux-headers-{release}"], "bookworm", "amd64")
    names = [name for name in names if not re.fullmatch(LEFT_OUT, name)]
    found = packages.fetch_all([*names, "libperl5.36", "libbinutils"], "bookworm", "amd64")
    return list(dict.fromkeys(found))


def _ply(debs: list[Path]) -> dict[str, Entry]:
    """ply, and trixie's C library where no other program finds it."""
    entries: dict[str, Entry] = {}
    for deb in debs:
        for path, entry in unpack.members(deb, r"(usr/)?(s?bin/ply|lib/.*\.so(\.[\d.]+)?)"):
            library = "/lib/" in f"/{path}" and "/gconv/" not in path
            if library or path.endswith("/ply"):
                entries[f"{OWN_LIBRARY}/{Path(path).name}" if library else path] = entry
    return entries


@functools.cache
def userland() -> bytes:
    """The archive of all tools, to be unpacked over a guest's own files. Cached."""
    found, ply = debs(), packages.fetch_all(PLY, "trixie", "amd64")
    names = [WANTED, NOT_WANTED, OWN_LIBRARY, *(deb.name for deb in (*found, *ply))]
    recipe = hashlib.sha256("".join(names).encode()).hexdigest()
    directory = cache.directory("peers")
    path = directory / f"{recipe[:16]}.cpio"
    with cache.locked(directory):
        if not path.exists():
            for stale in directory.glob("*.cpio"):
                stale.unlink()
            entries: dict[str, Entry] = {}
            for deb in found:
                try:
                    entries.update(unpack.members(deb, rf"(?!{NOT_WANTED}){WANTED}"))
                except packages.PackageError:  # a package of documents, or of configuration
                    continue
            cache.write(path, archive({**entries, **_ply(ply)}))
    ours = {
        "run/owner": Entry(PROGRAM, owner_c.program()),
        "run/owner_bcc.py": Entry(PROGRAM, (owner_c.SOURCES / "owner_bcc.py").read_bytes()),
    }
    return path.read_bytes() + archive(ours)
