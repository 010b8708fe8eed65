"""What one instance leaves for the next, so that a restart forgets no owner.

Maps stay because they are pinned. That alone would be wrong: a socket that is destroyed meanwhile would leave its
owner to the next one with its address. So the two programs that forget stay attached, their links pinned beside the
maps; they cost something at the end of a socket only. What is in the maps afterwards is of sockets that have lived on.
What nobody sees meanwhile is a new owner of a socket that passes from one process to another, and retransmits, which
are counted.

Links can be pinned since Linux kernel commit 70ed506c3bbc ("bpf: Introduce pinnable bpf_link abstraction") (in v5.7).
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from sockpid.bpf.map import Map
from sockpid.errors import PinError, SyscallError
from sockpid.host import kernel, netstat
from sockpid.image.image import Image
from sockpid.namedtuple import NamedTuple
from sockpid.offsets.source import Offsets
from sockpid.probe.collection import Collection, Options
from sockpid.table.layout import Layout, Struct

from . import instance, pin, pinned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Tuple

MAPS = ("owner_by_sock", "exec_names", "exited", "counters", "events")
"""Besides socket_to_pid, which has its place for all to see."""

HOOKS = ("destroy", "close")


class Gap(NamedTuple):
    """Between two instances: seconds in which no retransmit was seen, at most; what the kernel counted in our network
    namespace since the former one last looked; how many of these it raised all the same; how many of those it had taken
    but perhaps not told; how many waited in the ring buffer, and are told now."""

    seconds: float
    retransmits: int
    seen: int
    unsure: int
    waiting: int

    @property
    def unseen(self) -> int:
        return max(0, self.retransmits - self.seen)


def key(identity: kernel.Identity, image: Image, found: Offsets, options: Options) -> Dict[str, Any]:
    """What has to be the same for two instances to understand each other's maps."""
    return {
        "kernel": identity.build_id or identity.banner,
        "image": image.digest,
        "layout": _digest(found.layout),
        "max_sockets": options.max_sockets,
        "deny": sorted(options.deny),
    }


def _digest(layout: Layout) -> str:
    """Of what a layout says, in whatever order."""
    said: List[Tuple[str, Any]] = []
    for name, row in layout.items():
        members = None if row is None else row.fields if isinstance(row, Struct) else row.values
        said.append((name, None if members is None else sorted(members.items())))
    return hashlib.sha256(repr(sorted(said, key=lambda each: each[0])).encode()).hexdigest()


def retransmits() -> int:
    """RetransSegs of our network namespace."""
    with open("/proc/self/net/snmp", encoding="ascii") as file:
        return netstat.parse(file.read(), "Tcp", netstat.TCP)["RetransSegs"]


class Keeper:
    """For one run that pins: takes what was left, and leaves its own if `keep`."""

    def __init__(self, directory: str, keep: bool) -> None:
        """Only while the directory is locked."""
        self._directory, self._keep = directory, keep
        self._former = instance.read(directory)
        self._key: Dict[str, Any] = {}
        self._lines: List[str] = []
        self._why: Optional[str] = None
        self.adopted: Optional[Dict[str, Any]] = None
        """What the former instance said last, if its maps are ours now."""
        self.kept = False

    def _path(self, name: str) -> str:
        return f"{self._directory}/{pinned.OWN}/{name}"

    def inherit(self, identity: kernel.Identity, image: Image, found: Offsets, options: Options) -> Mapping[str, Map]:
        """The maps to go on with; none if that is not possible, which lines() tells."""
        self._key = key(identity, image, found, options)
        former = self._former
        if not self._keep or former is None:
            return {}
        why = self._refusal(former)
        if why is None:
            try:
                maps = self._open(image)
            except (PinError, SyscallError) as error:
                why = str(error)
            else:
                self.adopted = former
                return maps
        self._lines.append(f"owners of the instance before (pid {former.get('pid')}) are looked up anew: {why}")
        return {}

    def _refusal(self, former: Dict[str, Any]) -> Optional[str]:
        if not former.get("kept"):
            return str(former.get("why_not_kept") or "it kept none")
        names = {"kernel": "kernel", "image": "bytecode image", "layout": "offsets"}
        theirs = former.get("key", {})
        differ = [names.get(name, name) for name, value in self._key.items() if theirs.get(name) != value]
        return f"another {', '.join(differ)}" if differ else None

    def _open(self, image: Image) -> Dict[str, Map]:
        for hook in HOOKS:  # without them the maps may speak of sockets that are gone
            if not os.path.lexists(self._path(hook)):
                raise PinError(f"{self._path(hook)} is missing")
        opened: Dict[str, Map] = {}
        try:
            for name in (*MAPS, "socket_to_pid"):
                where = pin.path_of(self._directory, name) if name == "socket_to_pid" else self._path(name)
                if name == "events" and not os.path.lexists(where):
                    continue  # a perf buffer is nothing without its reader
                spec = image.maps[name]
                opened[name] = pinned.open_for_update(where, spec.key_size, spec.value_size, spec.type)
        except BaseException:
            for one in opened.values():
                one.close()
            raise
        return opened

    def put(self, collection: Collection) -> None:
        """After the proof: pins what the next instance shall find, in the place of what we found."""
        links = {a.hook.name: a.link for a in collection.hooks if a.hook.name in HOOKS}
        if self._keep:
            try:
                for name in MAPS:
                    if name != "events" or collection.maps[name].spec.type == "BPF_MAP_TYPE_RINGBUF":
                        pinned.pin_fd(collection.maps[name].fd, self._path(name))
                for name, link in links.items():
                    if link is None:
                        raise PinError(f"nothing is attached as {name}")
                    pinned.pin_fd(link.fd, self._path(name))
                self.kept = True
            except (PinError, SyscallError) as error:
                self._why = f"no such link can be pinned (raw tracepoints and fentry can, from Linux 5.7 on): {error}"
                self._lines.append(f"a restart will look up owners anew: {self._why}")
        if not self.kept:
            self.clear()

    def clear(self, all_of_it: bool = False) -> None:
        """Takes away what is kept: with it go programs that are still attached. all_of_it: and the record."""
        for name in (*HOOKS, *MAPS, *([instance.NAME] if all_of_it else [])):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def identity(self) -> Dict[str, Any]:
        """What our own record says of this."""
        return {"key": self._key, "kept": self.kept, "why_not_kept": self._why}

    def counts(self, raised: int, delivered: int) -> Dict[str, Any]:
        """What the next instance needs to know how much it missed."""
        now = kernel.monotonic_ns()
        return {"monotonic_ns": now, "retransmits": retransmits(), "raised": raised, "taken": delivered}

    def gap(self, collection: Collection) -> Optional[Gap]:
        """At once after attaching; None if there was no instance before, or it said nothing of it."""
        before = (self._former or {}).get("counts")
        if before is None:
            return None
        seen = waiting = unsure = 0
        if self.adopted is not None:
            waiting = len(collection.inherited)
            seen = collection.base.get(0, 0) - before["raised"]
            lost = collection.base.get(1, 0)
            unsure = max(0, collection.base.get(0, 0) - lost - waiting - before["taken"])
        seconds = (kernel.monotonic_ns() - before["monotonic_ns"]) / 1e9
        counted = retransmits() - before["retransmits"]
        ours = collection.counter(0) - collection.base.get(0, 0)
        return Gap(round(seconds, 3), max(0, counted - ours), seen, unsure, waiting)

    def former_pid(self) -> Optional[int]:
        return (self._former or {}).get("pid")

    def lines(self) -> List[str]:
        return self._lines
