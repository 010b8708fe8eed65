"""What all processes have open, in one pass: sockets, and network namespaces.

It is a pass over every descriptor of the host, so whatever it can tell is taken from the same one.
"""

from __future__ import annotations

import os

from sockpid.namedtuple import NamedTuple
from sockpid.uapi import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE

from . import kernel, netns, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import AbstractSet, Dict, List, Set, Tuple

    Holders = Tuple[proc.Holder, ...]

TCP = {"TCP", "TCPv6", "MPTCP", "MPTCPv6", "SMC", "SMC6"}
"""Names of struct proto: what the kernel calls a socket that is a TCP one, or has one below it."""

ASKED_MAX = 4096
"""So many sockets are asked for their namespace at most."""


def missing_capabilities() -> List[str]:
    """What we lack to see what processes of other users have open."""
    ours = kernel.effective_capabilities()
    reads = ours >> CAP_DAC_OVERRIDE & 1 or ours >> CAP_DAC_READ_SEARCH & 1
    return ([] if ours >> CAP_SYS_PTRACE & 1 else ["CAP_SYS_PTRACE"]) + ([] if reads else ["CAP_DAC_READ_SEARCH"])


class Opened(NamedTuple):
    """holders: who has a socket open, by its inode, the oldest first. places: one descriptor of it, by inode: path.
    namespaces: network namespaces that somebody has a descriptor of: inode -> path."""

    holders: Dict[int, Holders]
    places: Dict[int, str]
    namespaces: Dict[int, str]


def look() -> Opened:
    """Passes over all processes. Those that end meanwhile or may not be looked into are passed over, see
    missing_capabilities()."""
    found: Dict[int, List[proc.Holder]] = {}
    places: Dict[int, str] = {}
    namespaces: Dict[int, str] = {}
    for pid in proc.pids():
        sockets: Set[int] = set()
        for path, link in proc.links(pid):
            if link.startswith("socket:["):
                inode = int(link[8:-1])
                sockets.add(inode)
                places.setdefault(inode, path)
            elif link.startswith("net:["):
                namespaces.setdefault(int(link[5:-1]), path)
        if not sockets:
            continue
        name, ticks = proc.comm(pid), proc.start_ticks(pid)
        if name is None or ticks is None:
            continue
        holder = proc.Holder(pid, name, ticks)
        for inode in sockets:
            found.setdefault(inode, []).append(holder)
    shared: Dict[Holders, Holders] = {}  # most sockets of a process have the same holders
    holders: Dict[int, Holders] = {}
    for inode, by in found.items():
        of_inode = tuple(sorted(by, key=lambda holder: (holder.start_ticks, holder.pid)))
        holders[inode] = shared.setdefault(of_inode, of_inode)
    return Opened(holders, places, namespaces)


def namespaces_of(
    opened: Opened, listed: AbstractSet[int], known: AbstractSet[int]
) -> Tuple[List[Tuple[netns.Namespace, int]], int]:
    """Where the open TCP sockets are that no namespace has listed: namespaces but those `known`, each with a descriptor
    of ours that the caller closes when it is done with it. And how many sockets could not be asked: before Linux 5.6
    all of them."""
    found: List[Tuple[netns.Namespace, int]] = []
    asked = silent = 0
    seen = set(known)
    for inode, path in opened.places.items():
        if inode in listed or not _is_tcp(path):
            continue
        parts = path.split("/")
        asked += 1
        if asked > ASKED_MAX or len(parts) != 5:  # a thread's own table: only newer kernels can be asked for that
            silent += 1
            continue
        try:
            namespace, fd = netns.of_socket(int(parts[2]), int(parts[4]))
        except OSError:
            silent += 1
            continue
        if namespace in seen:
            os.close(fd)
        else:
            seen.add(namespace)
            found.append((netns.Namespace(namespace, [], f"/proc/self/fd/{fd}"), fd))
    return found, silent


def _is_tcp(path: str) -> bool:
    try:
        name = os.getxattr(path, "system.sockprotoname")
    except OSError:
        return False
    return name.rstrip(b"\0").decode("ascii", "replace") in TCP
