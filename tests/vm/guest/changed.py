"""HOW-MANY MECHANISM...: table files of this kernel with one number changed, and what a probe that reads them does.

Every file is what a generator with a mistake in it would write: all digests are right. Where nothing refuses it,
sockets pass from process to process, and what events say of them is held against what they say with the right table.
HOW-MANY: 0 for every number that can be changed, else so many of each kind. Prints a line of JSON for each mechanism.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Set, Tuple

sys.path.insert(0, "/sockpid/runtime")
sys.path.insert(0, "/run")

from tests.kernel import mutations

from sockpid.bpf import kernel_btf
from sockpid.bpf.prog import Prog
from sockpid.errors import SockpidError
from sockpid.event.event import Event
from sockpid.host import kernel
from sockpid.image import hooks
from sockpid.image.image import Image
from sockpid.image.relocate import resolve
from sockpid.offsets import offsets
from sockpid.offsets.source import Offsets
from sockpid.probe.collection import Options
from sockpid.probe.loader import Loader
from sockpid.probe.tracer import Tracer, load_image
from sockpid.selfcheck import selfcheck
from sockpid.subjects import deaf
from sockpid.table import table, writer
from sockpid.table.layout import Layout

AT_ONCE = 6
SECONDS = 1.2
DEADLINE = 60.0
"""Instead, while something is not heard yet: a retransmit that comes late is soon followed by another."""
NOTED_ANEW = 0.02
"""Seconds after which a further use by the same process is noted: RENEW_NS (bpf_bytecode/sockpid.bpf.c), twice."""
TIMEOUT = 6.0
ATTEMPTS = 3
"""Of a self-check that comes to no end."""
BASELINES = 3
ROUNDS = 3
"""So often a change is tried again of which something odd is told, but never the same."""
OTHERS = {
    "lsm": (),
    "fentry": ("lsm",),
    "kprobe-pmu": ("lsm", "fentry", "kprobe-tracefs"),
    "kprobe-tracefs": ("lsm", "fentry", "kprobe-pmu"),
    "raw_tp": ("lsm", "fentry", "kprobe-pmu", "kprobe-tracefs"),
}
"""What is denied, so that this mechanism is what hooks are attached by."""

UNACKED = 24
"""Where tcpi_unacked is in struct tcp_info."""

ALWAYS = ("di +64 for destroy", "is that of inet_csk_listen_start", "skc_dport +16", "icsk_ulp_data +64")
"""How the names of changes end that are tried also where only some are: of each mechanism one that only the self-check
can tell."""

Told = FrozenSet[Tuple[object, ...]]


class Change(NamedTuple):
    """One number of the table. ids: the BTF ids. only: the one hook for which it is changed; "": for all."""

    name: str
    layout: Layout
    ids: Dict[str, int]
    only: str = ""

    @property
    def kind(self) -> str:
        return "id" if self.name.startswith("id of ") else "size" if self.name.endswith(" bits") else "offset"


_alone: Dict[int, Change] = {}
"""By thread, what it tries."""


def load(loader: Loader, hook: hooks.Hook, mechanism: str, target: hooks.Target) -> Prog:
    """In place of Loader.load(): with what is changed for one hook."""
    change = _alone.get(threading.get_ident())
    if change is None or change.only != hook.name:
        return _load(loader, hook, mechanism, target)
    right, shared = loader._layout, loader._progs
    loader._layout, loader._progs = change.layout, {}
    try:
        return _load(loader, hook, mechanism, target)
    finally:
        shared.update({(f"{key[0]}, changed", *key[1:]): made for key, made in loader._progs.items()})
        loader._layout, loader._progs = right, shared


_load, Loader.load = Loader.load, load  # type: ignore[method-assign,assignment]


class Verdict(NamedTuple):
    """refused: by whom, and with which words; "" for by nobody. told: what events said of sockets; None: not asked.
    links: what hooks were attached to."""

    refused: str
    told: Optional[Told]
    links: List[Optional[str]]


class Lab:
    def __init__(self, mechanism: str) -> None:
        self.mechanism = mechanism
        self.kernel = kernel.identify()
        self.image: Image = load_image(self.kernel.arch.byte_order)
        name = f"/sockpid/offsets/{self.kernel.arch.name}/{table.series_of(self.kernel.release)}.json"
        with open(name, "rb") as file:
            shard = table.parse_shard(file.read(), name)
        entry = shard.find(self.kernel.build_id, self.kernel.release, self.kernel.banner)
        assert entry is not None, "the table of the lab knows its kernels"
        self.entry = entry
        ids = {**kernel_btf.read()[0].func_ids(hooks.functions()), **(entry.btf_ids or {})}
        self.right = Change("", shard.layout(entry), ids)  # the table may be older than some hooks
        self.options = Options(attach=mechanism, deny=frozenset((*OTHERS[mechanism], "live-btf")))
        self._fork = threading.Lock()
        with Tracer.open_with(self.options, self.kernel, self.image, self.found(self.right)) as tracer:
            self.hooks = dict(tracer.collection.mechanisms())

    def changes(self) -> Iterator[Change]:
        registers = self.mechanism.startswith("kprobe")
        for mutation, field in mutations.all_of(self.image, self.kernel, self.right.layout, registers):
            layout = mutations.mutated(self.right.layout, mutation, field)
            change = self.right._replace(name=f"{mutation.field} {mutation.how}", layout=layout)
            yield change
            if mutation.type == "struct pt_regs" and mutation.how in ("+64", "-64"):
                for hook in (hook.name for hook in hooks.HOOKS):
                    yield change._replace(name=f"{change.name} for {hook}", only=hook)
        if self.mechanism not in ("lsm", "fentry"):
            return
        names = sorted(name for name in hooks.functions() if name in self.right.ids)
        for index, name in enumerate(names):
            its = self.right.ids[name]
            for other in (names[index - 1], names[(index + 1) % len(names)]):
                yield self._with_id(name, self.right.ids[other], f"is that of {other}")
            yield self._with_id(name, its + 1, "+1")
            yield self._with_id(name, 1, "is a type's")

    def _with_id(self, name: str, number: int, how: str) -> Change:
        return self.right._replace(name=f"id of {name} {how}", ids={**self.right.ids, name: number})

    def is_the_same(self, change: Change) -> bool:
        """Is what is loaded the same, bit by bit?"""
        if change.ids != self.right.ids or change.layout["struct pt_regs"] != self.right.layout["struct pt_regs"]:
            return False
        order, word = self.kernel.arch.byte_order, self.kernel.arch.pointer_size
        return all(
            resolve(program, order, change.layout, word).insns == resolve(program, order, self.right.layout, word).insns
            for program in self.image.programs.values()
        )

    def found(self, change: Change) -> Offsets:
        """The offsets as `sockpid run --offsets FILE` has them."""
        document = writer.empty(self.kernel.arch.name, table.series_of(self.kernel.release), "a lab")
        entry = {key: value for key, value in self.entry._asdict().items() if key != "layout"}
        writer.add(document, {**entry, "btf_ids": change.ids}, change.layout)
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(writer.encode(document))
            file.flush()
            return offsets.find(self.image, self.kernel, file.name, self.options.deny)

    def verdict(self, change: Change) -> Verdict:
        """A busy machine is no reason to refuse: what came to no end begins again."""
        for _ in range(ATTEMPTS):
            verdict = self._verdict(change)
            if "came to no end" not in verdict.refused:
                break
        return verdict

    def _verdict(self, change: Change) -> Verdict:
        try:
            if change.name and self.is_the_same(change):
                return Verdict("not used: the programs are the same", None, [])
            found = self.found(change._replace(layout=self.right.layout) if change.only else change)
            _alone[threading.get_ident()] = change
            with Tracer.open_with(self.options, self.kernel, self.image, found) as tracer:
                selfcheck.demand(selfcheck.run(tracer, timeout=TIMEOUT), must_pass=True)
                hooked = tracer.collection.mechanisms()
                if change.only and hooked[change.only] != self.hooks[change.only]:
                    return Verdict(f"not used: {change.only} has another place", None, [])
                return Verdict("", self._played(tracer), list(hooked.values()))
        except SockpidError as error:
            return Verdict(f"{type(error).__name__}: {error}", None, [])

    def _played(self, tracer: Tracer) -> Told:
        """Sockets that go from hand to hand; what the events of each say, but for what chance has a part in."""
        who: Dict[int, str] = {os.getpid(): "parent"}
        plays: Dict[Tuple[int, int], str] = {}
        begun: Dict[str, int] = {}
        kept: List[socket.socket] = []

        def child(act: Any) -> None:
            with self._fork:
                pid = os.fork()
            if pid == 0:
                try:
                    act()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            who[pid] = "child"
            begun[list(plays.values())[-2]] = begun[list(plays.values())[-1]] = time.monotonic_ns()

        def acknowledged(sends: socket.socket) -> None:
            """Waits until nothing is left that would be sent again: acknowledgements may come late."""
            while struct.unpack_from("=I", sends.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), UNACKED)[0]:
                time.sleep(0.001)

        def pair(play: str, family: int = socket.AF_INET) -> Tuple[socket.socket, socket.socket]:
            listener = socket.socket(family)
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen(4)
            client = socket.create_connection(listener.getsockname()[:2])
            server = listener.accept()[0]
            kept.extend((listener, client, server))
            name = f"{play}, {'IPv4' if family == socket.AF_INET else 'IPv6'}"
            plays[client.getsockname()[1], server.getsockname()[1]] = name
            plays[server.getsockname()[1], client.getsockname()[1]] = name + ", accepted"
            return client, server

        for family in (socket.AF_INET, socket.AF_INET6):
            client, server = pair("sends", family)
            deaf.drop_everything(server)
            time.sleep(NOTED_ANEW)
            client.send(b"x")
            client, server = pair("child sends", family)
            client.send(b"x")
            server.recv(1)
            acknowledged(client)
            deaf.drop_everything(server)
            child(lambda sends=client: sends.send(b"y"))
            client, server = pair("child has accepted", family)
            child(lambda sends=server: sends.send(b"z"))
            client.recv(1)
            acknowledged(server)
            deaf.drop_everything(client)
            server.send(b"x")
            client, server = pair("child receives", family)
            server.send(b"x")
            acknowledged(server)
            deaf.drop_everything(server)
            client.send(b"x")
            child(lambda receives=client: receives.recv(1))
            client, server = pair("child shuts down", family)
            deaf.drop_everything(server)
            child(lambda shuts=client: shuts.shutdown(socket.SHUT_WR))
        try:
            return self._heard(tracer, plays, begun, who)
        finally:
            for each in kept:
                each.close()

    @staticmethod
    def _heard(tracer: Tracer, plays: Dict[Tuple[int, int], str], begun: Dict[str, int], who: Dict[int, str]) -> Told:
        """begun: what is told of a play before it came so far (CLOCK_MONOTONIC) is no part of it."""
        told: Set[Tuple[object, ...]] = set()

        def name(pid: Optional[int]) -> Optional[str]:
            return None if pid is None else who.get(pid, f"stranger {pid}")

        def note(seen: Event) -> None:
            play = plays.get((seen.tuple.sport, seen.tuple.dport))
            if play is not None and seen.ts_ns > begun.get(play, 0):
                owner, first = seen.owner, seen.first
                told.add(
                    (
                        *(play, seen.kind, seen.state, seen.tuple.family, seen.tuple.saddr, seen.tuple.daddr),
                        name(owner.pid if owner else None),
                        *((owner.how, owner.comm) if owner else ()),
                        name(first.pid if first else None),
                        *((first.how,) if first else ()),
                        *(seen.found, seen.users, seen.kern, seen.ulp, seen.lent, seen.err),
                    )
                )

        # One end of each connection sends again: that which a child used, else the client's.
        wanted = {name for name in plays.values() if name.endswith("accepted") == name.startswith("child has accepted")}
        start = time.monotonic()
        spent = 0.0
        while spent < SECONDS or (spent < DEADLINE and not wanted <= plays_of(frozenset(told))):
            for seen in tracer.events(0.05):
                note(seen)
            spent = time.monotonic() - start
        return frozenset(told)


def plays_of(told: Told) -> Set[object]:
    return {line[0] for line in told}


def tried(lab: Lab, changes: List[Change]) -> Dict[str, Any]:
    verdicts: Dict[str, Verdict] = {}
    differing: Dict[str, List[str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = pool.map(lab.verdict, [lab.right] * BASELINES + changes)
        right = [next(begun) for _ in range(BASELINES)]
        for change in changes:
            verdicts[change.name] = verdict = next(begun)
            print(change.name, "|", verdict.refused or "accepted", file=sys.stderr, flush=True)
        allowed = frozenset().union(*(each.told or () for each in right))

        def odd(told: Optional[Told]) -> Set[str]:
            """What is told by no right table, and what is not heard; nothing where nothing was asked."""
            if told is None:
                return set()
            return {*map(str, told - allowed), *(f"not heard: {play}" for play in plays_of(allowed) - plays_of(told))}

        for change in changes:
            former: Set[str] = set()
            told = verdicts[change.name].told
            for _ in range(ROUNDS):
                if not odd(told):
                    break
                # Chance, or the change? What the change does is told again.
                former |= odd(told)
                again = list(pool.map(lab.verdict, [change] + [lab.right] * BASELINES))
                allowed = allowed.union(*(each.told or () for each in again[1:]))
                told = again[0].told
                if odd(told) & former:
                    break
            if odd(told):
                differing[change.name] = sorted(odd(told))
    refused = {name: verdict.refused for name, verdict in verdicts.items() if verdict.refused}
    unused = [name for name, why in refused.items() if why.startswith("not used")]
    return {
        "mechanism": lab.mechanism,
        "hooks": lab.hooks,
        "right": [verdict.refused for verdict in right],
        "heard": sorted(plays_of(allowed)),
        "changes": [change.name for change in changes],
        "refused": {name: why for name, why in refused.items() if name not in unused},
        "unused": unused,
        "accepted": {name: verdict.links for name, verdict in verdicts.items() if not verdict.refused},
        "differing": differing,
    }


def some(changes: List[Change], many: int, turn: int) -> List[Change]:
    """So many of each kind, evenly spread, others in each turn; and those that are tried always."""
    chosen = {change.name for change in changes if change.name.endswith(ALWAYS)}
    for kind in ("offset", "size", "id"):
        names = [change.name for change in changes if change.kind == kind]
        step = max(len(names) // many, 1)
        chosen.update(names[turn * step // len(OTHERS) :: step][:many])
    return [change for change in changes if change.name in chosen]


def main() -> None:
    many, mechanisms = int(sys.argv[1]), sys.argv[2:]
    for number, mechanism in enumerate(mechanisms):
        lab = Lab(mechanism)
        changes = list(lab.changes())
        if many:
            changes = some(changes, many, number)
        print(json.dumps(tried(lab, changes)), flush=True)


main()
