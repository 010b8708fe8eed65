"""The tools that sockpid is compared with, out of Debian's packages, and how each is asked for the same job."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.vm import cache, packages, unpack
from tests.vm.kernels import KERNELS
from tests.vm.newc import Entry, archive

from .machine import KERNEL

TOOLS = ("bpfcc-tools", "bpftrace", "libbpf-tools", "linux-perf", "trace-cmd", "libc6-dev")
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

OWNER_BT = """
kprobe:tcp_sendmsg { @owner[arg0] = pid; }
tracepoint:tcp:tcp_retransmit_skb { printf("%d %d %d\\n", @owner[(uint64)args->skaddr], args->sport, args->dport); }
"""
COUNT_BT = "kprobe:tcp_sendmsg { @[pid] = count(); }"
FENTRY_BT = "kfunc:tcp_sendmsg { @owner[args->sk] = pid; }"
OWNER_PLY = "kprobe:tcp_sendmsg { o[arg0] = pid; } kprobe:tcp_retransmit_skb { print(o[arg0]); }"


class Peer(NamedTuple):
    """A tool: its command. perf: it attaches by perf events without programs."""

    command: list[str]
    perf: bool = False


STARTING: Mapping[str, Peer] = {
    "bcc tcpretrans": Peer(["/usr/sbin/tcpretrans-bpfcc"]),
    "bpftrace tcpretrans.bt": Peer(["bpftrace", "/usr/sbin/tcpretrans.bt"]),
    "bpftrace owner map": Peer(["bpftrace", "-e", OWNER_BT]),
    "perf trace": Peer(["perf", "trace", "-e", "tcp:tcp_retransmit_skb"], perf=True),
    "libbpf-tools tcpstates": Peer(["/usr/sbin/tcpstates"]),
    "libbpf-tools tcptop": Peer(["/usr/sbin/tcptop"]),
    "ply owner map": Peer(["/usr/sbin/ply", OWNER_PLY]),
}
SENDING: Mapping[str, Peer] = {
    "bpftrace kprobe, count by pid": Peer(["bpftrace", "-e", COUNT_BT]),
    "bpftrace fentry, owner map": Peer(["bpftrace", "-e", FENTRY_BT]),
    "libbpf-tools tcptop": Peer(["/usr/sbin/tcptop"]),
    "ply owner map": Peer(["/usr/sbin/ply", OWNER_PLY]),
}


@functools.cache
def versions() -> Mapping[str, str]:
    """Version of each tool's package."""
    found = {}
    for name in (*TOOLS, "ply"):
        suite = "trixie" if name == "ply" else "bookworm"
        found[name] = packages.fetch(name, suite, "amd64").name.split("_")[1].replace("%3a", ":")
    return found


def _debs() -> list[Path]:
    release = KERNELS[KERNEL].package.release
    names = packages.with_dependencies([*TOOLS, f"linux-headers-{release}"], "bookworm", "amd64")
    names = [name for name in names if not re.fullmatch(LEFT_OUT, name)]
    found = packages.fetch_all([*names, "libperl5.36", "libbinutils"], "bookworm", "amd64")
    return [*dict.fromkeys(found), packages.fetch("ply", "trixie", "amd64")]


def userland() -> bytes:
    """The archive of all tools, to be unpacked over a guest's own files. Cached."""
    debs = _debs()
    recipe = hashlib.sha256("".join([WANTED, NOT_WANTED, *(deb.name for deb in debs)]).encode()).hexdigest()
    directory = cache.directory("peers")
    path = directory / f"{recipe[:16]}.cpio"
    with cache.locked(directory):
        if not path.exists():
            for stale in directory.glob("*.cpio"):
                stale.unlink()
            entries: dict[str, Entry] = {}
            for deb in debs:
                try:
                    entries.update(unpack.members(deb, rf"(?!{NOT_WANTED}){WANTED}"))
                except packages.PackageError:  # a package of documents, or of configuration
                    continue
            cache.write(path, archive(entries))
    return path.read_bytes()
