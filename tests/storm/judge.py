"""Holds the events of a storm against its history. Pure: logs and events in, a verdict out.

Whoever may have been the last to use the socket, at the time of the event, is right. So is who had it open, where the
probe says that it looked that up (how: "seed", "holder") and nobody is known to have used it since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .history import History
from .lives import NEVER, Life, Phase, Program, Socket, Use
from .verdict import Verdict

Json = dict[str, Any]

SLACK = 3_000_000
"""Nanoseconds by which the time of an event may be off: it is told by a clock that is compared now and then."""
LATER = 5_000_000_000
"""So long after an event the probe may still look at what is open, and who lives: it may not keep up."""
BEHIND = 60_000_000_000
"""The same, of a probe that is starting, or that has lost events; and so long after an event, or longer where it may be
later, it may say what a process is now: whether it lives, and its name."""
BELIEVED = 1_200_000_000
"""So long the probe believes what it has seen of a process."""
PATIENCE = 3_000_000_000
"""So long after its end a process may be taken for alive."""
USERS_MAX = 6
HIDDEN = frozenset(
    (
        "schema",
        "ts_ns",
        "family",
        "tid",
        "offsets",
        "cgroup_id",
        "seq",
        "end_seq",
        "srtt_us",
        "snd_cwnd",
        "total_retrans",
    )
)
HIDDEN |= {"retransmits", "ns_pid", "cgroup", "labels", "sharers", "host", "err"}
"""What is not told of an event in an example."""


class Judge:
    """max_sockets: what the probe is told to remember."""

    def __init__(self, history: History, max_sockets: int, slack: int = SLACK, later: int = LATER) -> None:
        self.history = history
        self.verdict = Verdict()
        self._max_sockets = max_sockets
        self._slack = slack
        self.later = later
        self._crowded: dict[int, bool] = {}

    def events(self, number: int, events: Iterable[Json]) -> None:
        """Judges what the probe said in its run of that number."""
        phase = self.history.phases[number]
        for event in events:
            if "dropped" not in event:
                self._event(phase, event)

    def _event(self, phase: Phase, event: Json) -> None:
        at = self.history.monotonic(event["ts_ns"])
        since, until = at - self._slack, at + self._slack
        if event["kind"] == "synack":
            self._synack(phase, event, since, until)
            return
        key = tuple(event[name] for name in ("netns", "family", "saddr", "sport", "daddr", "dport"))
        if key not in self.history.lives:
            self.verdict.strangers += 1
            return
        lives = list(self.history.alive(key, since, until))
        if event["inode"]:
            lives = [life for life in lives if life.socket.inode == event["inode"]]
        if len({life.device for life in lives}) > 1 and "ifindex" in event:
            lives = [life for life in lives if life.device == event["ifindex"]]
        if not lives:
            self.verdict.unjudged += 1
            return
        self.verdict.events += 1
        self.verdict.kinds[event["kind"]] += 1
        self.verdict.how[str(event["how"])] += 1
        case = Case(self, phase, event, [life.socket for life in lives], since, until)
        case.judge()
        case.socket_itself(lives)

    def _synack(self, phase: Phase, event: Json, since: int, until: int) -> None:
        listening = self.history.listening.get((event["netns"], event["saddr"], event["sport"]), [])
        sockets = [socket for socket in listening if socket.uses[0].begin <= until and socket.end >= since]
        if event["inode"]:
            sockets = [socket for socket in sockets if socket.inode == event["inode"]]
        if not sockets:
            self.verdict.strangers += 1
            return
        self.verdict.events += 1
        self.verdict.kinds["synack"] += 1
        self.verdict.how[str(event["how"])] += 1
        Case(self, phase, event, sockets, since, until).judge()

    def crowded(self, until: int) -> bool:
        """May more sockets than the probe remembers have been there until then? Counted in steps of a second."""
        step = until // 10**9
        if step not in self._crowded:
            end = (step + 1) * 10**9
            begun = sum(1 for socket in self.history.sockets.values() if socket.uses and socket.uses[0].begin <= end)
            self._crowded[step] = begun > self._max_sockets
        return self._crowded[step]


class Case:
    """One event, and the sockets that it may be of: one, but for twins that only their inode tells apart."""

    def __init__(self, court: Judge, phase: Phase, event: Json, sockets: list[Socket], since: int, until: int) -> None:
        self.court, self.verdict = court, court.verdict
        self.phase, self.event, self.sockets = phase, event, sockets
        self.since, self.until = since, until
        self.behind = max(BEHIND, court.later)
        self.later = until + (court.later if since > phase.ready else self.behind)
        phases = court.history.phases
        known = phases[: phases.index(phase) + 1] if phase.keep else [phase]
        self.known = known
        """The runs of the probe whose knowledge it has."""
        self.uses = [use for socket in sockets for use in socket.users(since, until)]
        self.users = {use.program for use in self.uses}

    def _told(self) -> str:
        uses = ", ".join(map(str, self.uses[-4:]))
        holders = {program for socket in self.sockets for program in socket.surely_hold(self.since, self.until)}
        event = " ".join(
            f"{name}={value}" for name, value in self.event.items() if name not in HIDDEN and value is not None
        )
        at = (self.since + self.until) // 2
        return f"at {at}: may have been used by [{uses}], is held by {sorted(map(str, holders))}: {event}"

    def judge(self) -> None:
        event = self.event
        certain, doubt = event.get("certain"), event.get("doubt")
        self.verdict.naive += event["interrupted_pid"] in {program.pid for program in self.users}
        if certain is False:
            self.verdict.doubted[str(doubt)] += 1
        elif certain:
            self.verdict.certain += 1
        if event["pid"] is None:
            self._unknown(event["reason"] or f"how={event['how']}")
            return
        programs = self._programs()
        if not programs:
            self._wrong("wrong", "names a process that is none of the storm's")
            return
        if self.users & programs:
            self._right(self.users & programs, certain)
        elif event["how"] in ("seed", "holder") and self._looked_up(programs, certain):
            self.verdict.held += 1
            self._comm(programs, self.phase.spawn)
        else:
            sockmap = ", by a sockmap" if programs & self.court.history.through_sockmaps else ""
            self._wrong(f"wrong{sockmap}", f"names {sorted(map(str, programs))}")
            return
        if certain is False and doubt == "not-held":
            self._contradicted(programs)
        self._exited(programs)
        self._users()
        self._opener()

    def _programs(self) -> set[Program]:
        """Who may be meant."""
        import os

        ticks = self.event["start_ns"] * os.sysconf("SC_CLK_TCK") // 10**9
        return set(self.court.history.named(self.event["pid"], ticks))

    def _wrong(self, what: str, text: str) -> None:
        if self.event.get("certain") is False:
            self.verdict.doubted_wrong[str(self.event.get("doubt"))] += 1
        else:
            self._fault(what, text)

    def _fault(self, what: str, text: str) -> None:
        """A fault; of those that were raised while the probe was starting, it is told."""
        starting = ", while starting" if self.since < self.phase.ready else ""
        self.verdict.fault(f"{what}{starting}", f"{text}; {self._told()}")

    def _right(self, programs: set[Program], certain: bool | None) -> None:
        """One that may be the last user, by what is known."""
        mine = [use for use in self.uses if use.program in programs]
        latest = max(use.end for use in mine)
        others = {use.program for use in self.uses if use.begin > latest and use.end < self.since} - programs
        holding = self._surely_hold(self.since, self.later)
        if self.event["kind"] == "synack":  # whoever has the listener serves it
            others |= holding
        if others & holding and not programs & self._may_hold(self.since, self.until):
            self.verdict.stale += 1
            # A guest's probe may be minutes behind, and has no time to look who has the socket.
            if certain and self.court.later <= LATER:
                self._fault("stale but certain", f"{sorted(map(str, programs))}")
            return
        self.verdict.right += 1
        self._comm(programs, min(use.begin for use in mine))

    def _looked_up(self, programs: set[Program], certain: bool | None) -> bool:
        """Is it right to name who had it open?"""
        begin = self.phase.spawn if self.event["how"] == "seed" else self.since
        if not programs & self._may_hold(begin, self.later):
            return False
        seen = [use for socket in self.sockets for use in socket.used_for_sure(self.phase.ready, self.since)]
        if any(use.program not in programs for use in seen) and self.event["how"] == "seed":
            return False
        others = self._surely_hold(self.since, self.later) - programs
        return not (certain and others)

    def _may_hold(self, since: int, until: int) -> set[Program]:
        return {program for socket in self.sockets for program in socket.may_hold(since, until)}

    def _surely_hold(self, since: int, until: int) -> set[Program]:
        return {program for socket in self.sockets for program in socket.surely_hold(since, until)}

    def _unknown(self, reason: str) -> None:
        self.verdict.unknown[reason] += 1
        if len(self.sockets) > 1:
            return
        (socket,) = self.sockets
        begun = min(socket.begins[0] if socket.begins else socket.uses[0].begin, socket.waited_since)
        if reason == "lent":
            if socket.lent_since > self.until:
                self._fault("reason", f"{reason}, though in no sockmap")
        elif reason == "evicted":
            if not self.court.crowded(self.until):
                self._fault("evicted", "though there was room")
        elif reason == "missed":  # by the kernel's own count of what it passed over
            return
        elif (seen := self._seen(socket)) and not (reason == "older-than-probe" and self.court.crowded(self.until)):
            self._fault("missed", f"{reason}, though seen: {seen[-1]}")
        elif reason == "older-than-probe":
            if self.phase.ready < begun:  # that a former run did not see it either is another matter
                self._fault("reason", f"{reason}, though it began later")
        elif reason == "no-hook":
            # How old one is that no process has open, in a namespace that nothing else holds, cannot be told.
            orphan = not self.event["inode"]
            if not orphan and not any(run.spawn < begun < run.ended for run in self.known):
                self._fault("reason", f"{reason}, though it is older")
        else:
            self._fault("reason", f"{reason}")

    def _seen(self, socket: Socket, since: int = 0) -> list[Use]:
        """What a hook saw of a socket before the event."""
        windows = [(max(since, run.ready), min(run.stop, self.since)) for run in self.known]
        return [use for begin, end in windows for use in socket.used_for_sure(begin, end)]

    def _contradicted(self, programs: set[Program]) -> None:
        if programs & self._surely_hold(self.since, self.later):
            self._fault("contradicted", "not held, it says")

    def _comm(self, programs: set[Program], since: int) -> None:
        """The name is one that the process had when it used the socket last, or later. Or when it began to use it, for
        a hook need not look again at a process that it knows; or a moment ago, for neither need the describer."""
        comm = self.event["comm"]
        if any(comm in program.comms(since, self.until + self.behind) for program in programs):
            return
        uses = [use.begin for socket in self.sockets for use in socket.uses if use.program in programs]
        before = min([*uses, self.since - BELIEVED])
        if any(comm in program.comms(before, self.until) for program in programs):
            self.verdict.old_names += 1
        else:
            self._fault("name", f"{comm!r}")

    def _exited(self, programs: set[Program]) -> None:
        exited = self.event.get("exited")
        if exited and all(program.lives > self.until + self.behind for program in programs):
            self._fault("exited", "though it lives")
        if exited is False and all(program.gone + PATIENCE < self.since for program in programs):
            self._fault("exited", "false, though it is gone")

    def _users(self) -> None:
        """How many processes are said to have used it: no fewer than a hook saw, no more than there were."""
        if len(self.sockets) > 1 or self.event.get("doubt") == "missed":
            return
        (socket,) = self.sockets
        begun = max((begin for begin in socket.begins if begin <= self.until), default=0)
        begun_before = begun if begun >= self.since else begun - 1
        seen = self._seen(socket, begun_before)
        fewest = min(len({use.program for use in seen}), USERS_MAX)
        told = self.event["ambiguous"]
        if told < fewest and not self.court.crowded(self.until):
            self._fault("ambiguous, too few", f"{told} of {fewest}")
        most = {use.program for use in socket.uses if use.begin <= self.until}
        most |= socket.may_hold(0, self.later)
        if told > max(len(most), 1):
            self._fault("ambiguous, too many", f"{told} of {len(most)}")

    def _opener(self) -> None:
        pid = self.event.get("opener_pid")
        if pid is None or self.event["how"] == "holder":
            return  # beside a holder, it is the one that was seen to use it
        first: set[Program] = set()
        for socket in self.sockets:
            begins = [0, *(begin for begin in socket.begins if begin <= self.until)]
            for begun in begins:
                uses = [use for use in socket.uses if use.begin >= begun]
                end = min((use.end for use in uses if use.hard), default=NEVER)
                first |= {use.program for use in uses if use.begin <= end}
        if not any(program.pid == pid for program in first):
            begun = min(use.begin for socket in self.sockets for use in socket.uses)
            late = not any(run.ready < begun < run.stop for run in self.known)
            what = "opener, of an older socket" if late else "opener"
            self._fault(what, f"{pid}, truly {sorted(map(str, first))}")

    def socket_itself(self, lives: list[Life]) -> None:
        """What does not depend on the owner."""
        event = self.event
        if "ifindex" in event and event["ifindex"] not in {life.device for life in lives}:
            self._fault("ifindex", f"{event['ifindex']}")
        if (event["state"] == "SYN_SENT") != (event["kind"] == "syn") and event["kind"] != "failed":
            self._fault("kind", f"{event['kind']} in {event['state']}")
        if not event["inode"] and len(self.sockets) == 1 and self._surely_hold(self.since, self.until):
            self._fault("inode", "0, though it is open")
