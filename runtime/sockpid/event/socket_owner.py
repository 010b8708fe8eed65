"""What the public map says of a socket: struct socket_owner of bpf_bytecode/sockpid.h, value of socket_to_pid. Pure.

An element of an LRU map is given to another key at once when it is evicted or deleted, also while somebody reads it. So
what was copied may be half of this and half of that, or all of it another socket's. The last word of a value tells: it
is a hash of the key and of all the rest.
"""

from __future__ import annotations

import struct

from sockpid.namedtuple import NamedTuple

from . import event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

OWNER = event.PROCESS + "QQIIQ"
"""latest, sk, inode, users, flags, seal, for struct, behind a byte order."""

VALUE_SIZE = struct.calcsize("=" + OWNER)

LATE = 1 << 0
"""The socket was not seen to begin: who used it before is not known."""

SHARED = 1 << 1
"""Another socket has, or had, the same key (SO_REUSEPORT)."""

LENT = 1 << 2
"""The kernel puts data of other sockets into this one: who was seen to send need not have it."""

SEAL_SEED = 0x9E3779B97F4A7C15
SEAL_FACTOR = 0xD6E8FEB86659FD93
MASK = (1 << 64) - 1

LOOKS = 5
"""So often a value is looked at that does not hold together. A torn one is whole again some nanoseconds later."""

NUMBER_OF_HOW = {name: number for number, name in event.HOW.items() if name}


class SocketOwner(NamedTuple):
    """latest: the process that used the socket last. sk: address of the struct sock, 0 for a seed. inode: of the
    socket, as in /proc/PID/fd; 0: not known. users: how many processes were seen to use it, or to hold it when sockpid
    started. flags: LATE, SHARED, LENT."""

    latest: event.Process
    sk: int
    inode: int
    users: int
    flags: int


def seal(data: bytes) -> int:
    """The hash over a key and the value behind it, as far as the seal: words of 64 bits in the machine's order."""
    result = SEAL_SEED
    for word in struct.unpack(f"={len(data) // 8}Q", data):
        result = (result + word) * SEAL_FACTOR & MASK
        result ^= result >> 32
    return result


def pack(key: bytes, value: SocketOwner) -> bytes:
    """The struct socket_owner of a value, for this key."""
    latest = value.latest
    packed = struct.pack(
        "=" + OWNER[:-1],
        latest.pid << 32 | latest.tid,
        latest.start_ns,
        latest.when_ns,
        latest.cgroup_id,
        NUMBER_OF_HOW.get(latest.how or "", 0),
        latest.flags,
        latest.comm.encode()[:15],
        value.sk,
        value.inode,
        value.users,
        value.flags,
    )
    return packed + struct.pack("=Q", seal(key + packed))


def unpack(key: bytes, value: bytes) -> Optional[SocketOwner]:
    """The value of a struct socket_owner that was found at `key`. None if it does not hold together."""
    fields = struct.unpack("=" + OWNER, value)
    latest = event.process(*fields[:7])
    if latest is None or fields[11] != seal(key + value[:-8]):
        return None
    return SocketOwner(latest, *fields[7:11])


def find(lookup: Callable[[bytes], Optional[bytes]], key: bytes) -> Optional[SocketOwner]:
    """What a map says of a key; `lookup` copies a value out. A value that does not hold together is looked at again."""
    for _ in range(LOOKS):
        value = lookup(key)
        if value is None:
            return None
        found = unpack(key, value)
        if found is not None:
            return found
    return None
