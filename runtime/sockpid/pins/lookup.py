"""`sockpid lookup`: whose socket is it? Asks the map that a running `sockpid run --pin` keeps, and who has it open.

What neither tells is said to be unknown, never guessed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import struct
import sys
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

from sockpid.bpf.map import Map
from sockpid.errors import UsageError
from sockpid.event import event, socket_owner, socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.event.text import end, printable
from sockpid.host import kernel, proc

from . import pin
from .present import Entry, Present

NAME = "socket_to_pid"
KEY = "=" + socket_tuple.TUPLE

COLUMNS = "{:>8} {:>8} {:<16} {:<26} {:<26} {:>10} {:<8} {:>7} {:<19} {}"
HEADER = COLUMNS.format("PID", "TID", "COMM", "LOCAL", "REMOTE", "NETNS", "HOW", "AGE", "STARTED", "PROCESS")


class Endpoint(NamedTuple):
    """One end of a connection: "inet" or "inet6", the address as the kernel writes it, the port."""

    family: str
    address: str
    port: int


def lookup(
    source: Optional[str],
    destination: Optional[str],
    netns: Optional[str],
    directory: str,
    show_all: bool,
    as_json: bool,
) -> int:
    """Prints the owners of a connection whose ends are given in either order; returns 0 if there is one, else 1.

    Both ends of a connection may be on this host: then there are two owners. With one end alone, or with show_all, the
    entries are read one by one; show_all returns 0 in any case and covers all network namespaces unless one is named.
    Raises UsageError, CapabilityError, and PinError if no sockpid runs there.
    """
    if show_all == (source is not None) or (source is None and destination is not None):
        raise UsageError("lookup takes one or two endpoints, such as 10.0.0.1:80 and [2001:db8::1]:443, or --all")
    ends = [endpoint(text) for text in (source, destination) if text is not None]
    if len({end.family for end in ends}) > 1:
        raise UsageError(f"{source} and {destination} are of different address families")
    inode = None if show_all and netns is None else netns_inode(netns)
    with_map = pin.open_running(directory, NAME, struct.calcsize(KEY), socket_owner.VALUE_SIZE)
    try:
        found = list(_entries(with_map, ends, inode))
    finally:
        with_map.close()
    if as_json:
        for entry in found:
            print(json.dumps(document(entry)))
    elif found or show_all:
        print(HEADER)
        for entry in found:
            print(row(entry))
    if not found and not show_all:
        print(
            f"sockpid: the owner of {' - '.join(text for text in (source, destination) if text)} is not known: no such "
            f"socket of network namespace {inode} has been seen in use or is open, or it was evicted",
            file=sys.stderr,
        )
    return 0 if found or show_all else 1


def endpoint(text: str) -> Endpoint:
    """Reads "10.0.0.1:80" or "[::1]:80". A v4-mapped address is an IPv4 one; an interface ("%eth0") is dropped.

    Raises UsageError.
    """
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        parsed = ipaddress.ip_address(address[1:-1].partition("%")[0] if bracketed else address)
        if not colon or bracketed != (parsed.version == 6) or not (port.isdecimal() and int(port) < 1 << 16):
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is no endpoint; write 10.0.0.1:80 or [2001:db8::1]:443") from None
    return Endpoint(*_fold(parsed), int(port))


def _fold(address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]) -> Tuple[str, str]:
    """Family and text of an address; a v4-mapped one is an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return "inet6", str(address)
        address = address.ipv4_mapped
    return "inet", str(address)


def netns_inode(text: Optional[str]) -> int:
    """The inode of a network namespace: a number itself, a path, "pid:N", or a name below /run/netns; ours for None.

    Raises UsageError.
    """
    if text is not None and text.isdecimal():
        return int(text)
    if text is None:
        path = "/proc/self/ns/net"
    elif text.startswith("pid:") and text[4:].isdecimal():
        path = f"/proc/{text[4:]}/ns/net"
    else:
        path = text if "/" in text else f"/run/netns/{text}"
    try:
        found = os.stat(path)
        if found.st_dev == os.stat("/proc/self/ns/net").st_dev:
            return found.st_ino
    except OSError as error:
        if text is None:  # no CONFIG_NET_NS: as in the map
            return 0
        raise UsageError(f"--netns {text}: {path}: {error.strerror}") from None
    raise UsageError(f"--netns {text}: {path} is not a network namespace")


def _entries(pinned: Map, ends: List[Endpoint], netns: Optional[int]) -> Iterator[Entry]:
    """The sockets with all these ends, in this namespace (None: in any), in order."""
    present = Present(netns)
    names = {name for name in present.names if _matches(name, ends, netns)} if ends else set()
    names |= set(_pair(ends, netns or 0)) if len(ends) > 1 else set()
    if len(ends) < 2 or not (present.whole and present.devices_told):
        names |= _keys(pinned, ends, netns)
    for name in sorted(names):
        yield from present.entries(name, socket_owner.find(pinned.lookup, socket_tuple.pack(name)))


def _pair(ends: List[Endpoint], netns: int) -> Iterator[SocketTuple]:
    """The socket whose local end is the first one, and the one whose local end is the second, bound to no device."""
    for local, remote in (ends, ends[::-1]):
        yield SocketTuple(netns, local.family, local.port, remote.port, local.address, remote.address)


def _keys(pinned: Map, ends: List[Endpoint], netns: Optional[int]) -> Set[SocketTuple]:
    """The map's keys that match. It changes while it is read."""
    return {name for name in map(socket_tuple.unpack, list(pinned.keys())) if _matches(name, ends, netns)}


def _matches(name: SocketTuple, ends: List[Endpoint], netns: Optional[int]) -> bool:
    if netns not in (None, name.netns) or any(end.port not in (name.sport, name.dport) for end in ends):
        return False
    # A socket that listens on a v4-mapped address has no remote one to tell so: its key is an IPv6 one.
    local = Endpoint(*_fold(ipaddress.ip_address(name.saddr)), name.sport)
    remote = Endpoint(*_fold(ipaddress.ip_address(name.daddr)), name.dport)
    if len(ends) > 1:
        return [local, remote] in (ends, ends[::-1])
    return all(end in (local, remote) for end in ends)


def document(entry: Entry) -> Dict[str, event.Json]:
    """The JSON object of an entry; the keys mean what they mean in an event."""
    key, owner = entry.tuple, entry.owner
    named = owner if owner.how != "kernel" else None
    exited = proc.is_exited(named.pid, named.start_ns) if named else None
    return {
        "schema": event.SCHEMA,
        "family": key.family,
        "saddr": key.saddr,
        "sport": key.sport,
        "daddr": key.daddr,
        "dport": key.dport,
        "netns": key.netns,
        "pid": named.pid if named else None,
        "tid": named.tid if named else None,
        "comm": name_of(named, exited) if named else None,
        "start_ns": named.start_ns if named else None,
        "how": owner.how,
        "age_ns": kernel.monotonic_ns() - owner.when_ns,
        "exited": exited,
        "cgroup_id": named.cgroup_id if named else None,
        "ifindex": key.ifindex,
        "inode": entry.inode,
        "ambiguous": max(entry.users, len(entry.sharers or ()), 1) if named else None,
        "sharers": None
        if entry.sharers is None
        else [{"pid": holder.pid, "comm": holder.comm} for holder in entry.sharers],
    }


def row(entry: Entry) -> str:
    """One line of the table. No process owns a socket that only kernel threads use."""
    key, owner = entry.tuple, entry.owner
    age = duration((kernel.monotonic_ns() - owner.when_ns) // 10**9)
    device = f"%{key.ifindex}" if key.ifindex else ""
    ends = end(key.saddr + device, key.sport), end(key.daddr, key.dport)
    if owner.how == "kernel":
        return COLUMNS.format("-", "-", "(kernel)", *ends, key.netns, owner.how, age, "-", "-")
    since = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - owner.start_ns / 10**9)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    exited = proc.is_exited(owner.pid, owner.start_ns)
    state = {True: "exited", False: "running", None: "?"}[exited]
    others = max(entry.users, len(entry.sharers or ())) - 1
    name = printable(name_of(owner, exited)) + (f" +{others}" if others > 0 else "")
    return COLUMNS.format(owner.pid, owner.tid, name, *ends, key.netns, owner.how or "-", age, started, state)


def name_of(owner: event.Process, exited: Optional[bool]) -> str:
    """What a process is called: by now, if it is there, and else when it was seen."""
    return (proc.comm(owner.pid) if exited is False else None) or owner.comm


def duration(seconds: int) -> str:
    """Seconds as "59s", "59m", "47h" or "3d"."""
    for unit, length in (("d", 2 * 86400), ("h", 2 * 3600), ("m", 2 * 60)):
        if seconds >= length:
            return f"{seconds // (length // 2)}{unit}"
    return f"{seconds}s"
