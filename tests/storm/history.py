"""What the logs of a storm say, put together: who may have used, and who may have held, each socket at each time.

All times are CLOCK_MONOTONIC in nanoseconds. An operation counts somewhere between its begin and its end; what was
under way when its process died may have counted, or not.
"""

from __future__ import annotations

import bisect
import collections
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .field import record
from .field.record import Record
from .lives import NEVER, Hold, Life, Phase, Program, Socket, Use

Json = dict[str, Any]
Key = tuple[Any, ...]
ORPHANED = 2_000_000_000
"""So long after its parent a process is surely gone, which is killed with it."""


class History:
    """Everything that the logs of one storm say."""

    def __init__(self, logs: Iterable[tuple[str, list[Record]]], phases: Iterable[Json], hard: Iterable[int]) -> None:
        """hard: the operations that the probe is said to see."""
        self._hard = frozenset(hard)
        self.programs: dict[str, Program] = collections.defaultdict(lambda: Program(""))
        self.sockets: dict[int, Socket] = {}
        self.lives: dict[Key, list[Life]] = collections.defaultdict(list)
        self.listening: dict[Key, list[Socket]] = collections.defaultdict(list)
        self.phases: list[Phase] = []
        self.errors: list[str] = []
        self.through_sockmaps: set[Program] = set()
        """Who wrote to a socket whose data leaves by another one."""
        self.offsets: list[tuple[int, int]] = []
        self.operations = 0
        self._read_phases(phases)
        each = list(logs)
        for name, records in each:
            self._meet(name, records)
        for name, records in each:
            if not self.programs[name].lives:
                self.programs[name].lives = self.programs[name].killed or max((one.end for one in records), default=0)
        for name in sorted(self.programs):
            parent, _, _ = name.rpartition("-")
            if parent and self.programs[name].gone == NEVER and self.programs[parent].gone < NEVER:
                self.programs[name].gone = self.programs[parent].gone + ORPHANED  # killed with its parent
        for name, records in each:
            self._follow(self.programs[name], records)
        self._finish()
        self.by_pid: dict[int, list[Program]] = collections.defaultdict(list)
        for program in self.programs.values():
            self.by_pid[program.pid].append(program)

    def monotonic(self, real: int) -> int:
        """The kernel's time of an event that is told by the time of day."""
        at = bisect.bisect_left(self.offsets, (real, 0))
        return real - self.offsets[min(at, len(self.offsets) - 1)][1]

    def _read_phases(self, lines: Iterable[Json]) -> None:
        times: dict[int, Json] = collections.defaultdict(dict)
        for line in lines:
            self.offsets.append((line["real"], line["real"] - line["mono"]))
            if line["what"] == "error":
                self.errors.append(line["reason"])
            else:
                times[line["number"]].update(
                    {line["what"]: line["mono"], "keep": line.get("keep", False)}
                    if (line["what"] == "spawn")
                    else {line["what"]: line["mono"]}
                )
        for _, found in sorted(times.items()):
            ready = found.get("ready", NEVER)
            self.phases.append(
                Phase(found["spawn"], ready, found.get("stop", NEVER), found.get("ended", NEVER), found["keep"])
            )

    def _meet(self, name: str, records: list[Record]) -> None:
        """Learns of a process and of its names."""
        program = self.programs[name]
        program.name = name
        for each in records:
            if each.operation == record.BORN:
                words = json.loads(each.more)
                program.pid, program.ticks, program.born = words["pid"], words["ticks"], each.begin
                program.names.append((each.begin, each.begin, words["comm"]))
            elif each.operation in (record.RENAME, record.EXEC):
                program.names.append((each.begin, each.end or NEVER, each.more.decode()))
            elif each.operation == record.EXIT:
                program.lives = each.begin
            elif each.operation == record.KILL:
                victim = self.programs[each.more.decode()]
                victim.killed = each.begin
            elif each.operation == record.REAPED:
                self.programs[each.more.decode()].gone = each.end or NEVER
        self.operations += len(records)

    def _follow(self, program: Program, records: list[Record]) -> None:
        """Learns what a process did with sockets."""
        held: dict[int, list[Hold]] = collections.defaultdict(list)

        def holds(inode: int, maybe: int, surely: int) -> None:
            hold = Hold(program, maybe, surely)
            held[inode].append(hold)
            self._socket(inode).holds.append(hold)

        for each in records:
            operation = each.operation
            if operation == record.INHERIT:
                for (inode,) in struct.iter_unpack("<Q", each.more):
                    holds(inode, each.begin, each.end or NEVER)
            elif operation == record.TAKE:
                holds(each.inode, each.begin, each.end or NEVER)
            elif operation == record.CLOSE:
                if held[each.inode]:
                    hold = held[each.inode].pop()
                    hold.until, hold.gone = each.begin, each.end or NEVER
            elif operation == record.LEND:
                self._socket(each.inode).lent_since = each.begin
            elif operation in _USES:
                if operation == record.ACCEPT:
                    holds(each.inode, each.begin, each.end or NEVER)
                self._use(program, each)
        for left in held.values():
            for hold in left:
                hold.until, hold.gone = program.lives, program.gone

    def _use(self, program: Program, each: Record) -> None:
        socket = self._socket(each.inode)
        user = self.programs[each.more.decode()] if each.operation == record.SEND and each.more else program
        if each.operation == record.SOCKMAP:
            self.through_sockmaps.add(user)
        done = bool(each.end) and not each.flags & record.FAILED
        end = each.end or max(program.gone, user.gone)
        hard = done and each.operation in self._hard
        socket.uses.append(Use(each.begin, end, user, each.operation, hard, each.argument or user.pid))
        if each.operation in (record.CONNECT, record.ACCEPT, record.LISTEN):
            netns, family, saddr, sport, daddr, dport, device = each.more.decode().split(" ")
            if each.operation == record.LISTEN:
                self.listening[int(netns), saddr, int(sport)].append(socket)
                return
            socket.begins.append(each.begin)
            key = (int(netns), family, saddr, int(sport), daddr, int(dport))
            failed = bool(each.flags & record.FAILED)
            self.lives[key].append(Life(each.begin, end, socket, int(device), failed))

    def _socket(self, inode: int) -> Socket:
        found = self.sockets.get(inode)
        if found is None:
            found = self.sockets[inode] = Socket(inode)
        return found

    def _finish(self) -> None:
        for socket in self.sockets.values():
            socket.uses.sort(key=lambda use: use.begin)
        for lives in self.lives.values():
            lives.sort(key=lambda life: life.begin)
        for key, lives in self.lives.items():
            netns, family, saddr, sport, daddr, dport = key
            callers = self.lives.get((netns, family, daddr, dport, saddr, sport), [])
            for life in lives:
                called = [caller.begin for caller in callers if caller.begin <= life.end]
                if called and life.socket.uses[0].operation == record.ACCEPT:
                    life.socket.waited_since = max(called)
        self.offsets.sort()

    def alive(self, key: Key, since: int, until: int) -> Iterator[Life]:
        """The sockets that may bear a tuple at some time between since and until."""
        lives = self.lives.get(key, [])
        for index, life in enumerate(lives):
            if life.begin > until:
                return
            following = next(
                (other for other in lives[index + 1 :] if not other.failed and other.device == life.device), None
            )
            if (following is None or following.end >= since) and (not life.failed or life.end >= since):
                yield life

    def named(self, pid: int, ticks: int | None) -> list[Program]:
        """The processes of that pid; with ticks, that began then."""
        return [found for found in self.by_pid.get(pid, []) if ticks is None or found.ticks == ticks]


_USES = frozenset(
    value
    for name, value in vars(record).items()
    if isinstance(value, int) and name.isupper() and 30 <= value <= 70 and value != record.DISCONNECT
)


def hard_operations(hooks: set[str], sendpage: bool) -> set[int]:
    """What the probe sees for sure, with these hooks. sendpage: sendfile() and splice() pass the hook of that name."""
    by_hook: Mapping[str, tuple[int, ...]] = {
        "connect": (record.CONNECT,),
        "accept": (record.ACCEPT,),
        "listen": (record.LISTEN,),
        "send": (record.SEND, record.ZEROCOPY, record.URING, record.TLS, *(() if sendpage else _FILES)),
        "sendpage": _FILES if sendpage else (),
        "mptcp": (record.MPTCP,),
        "receive": (record.RECEIVE,),
        "mptcp-receive": (record.RECEIVE_MPTCP,),
        "splice": (record.SPLICE_OUT,),
        "shutdown": (record.SHUTDOWN,),
    }
    return {operation for hook in hooks for operation in by_hook.get(hook, ())}


_FILES = (record.SENDFILE, record.SPLICE)
