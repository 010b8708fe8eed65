"""Does the probe see what is true? Sockets of our own, whose every property we know, made to retransmit.

What is wrong is told apart from what is late, lost or evicted on a busy host, and from a hook that does not run.
"""

from __future__ import annotations

import errno
import os
import time

from sockpid import uapi
from sockpid.errors import CapabilityError, SelfCheckError
from sockpid.event import event
from sockpid.host import kernel
from sockpid.namedtuple import NamedTuple
from sockpid.probe.collection import NOT_RUNNING
from sockpid.probe.exercise import switched_off
from sockpid.probe.tracer import Tracer
from sockpid.subjects.deaf import FAMILIES, MPTCP, Pair
from sockpid.subjects.half_open import Request
from sockpid.table.layout import Struct

from .compare import compare, expected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional

    from sockpid.event.socket_owner import SocketOwner

TIMEOUT = 3.0
PATIENCE = 5  # so many times as long, while all that was seen is right
ATTEMPTS = 3
FORGETTING = 0.5
"""Seconds that the end of a socket takes to be seen, and more."""
SYNACK = "synack"
"""What the result of the connection request is called, after its hook."""
RESULTS = (*FAMILIES, MPTCP, SYNACK)
"""All that there can be results of. The last two are only tried where there are such; nothing waits for them."""


DEVICE = "struct sock.__sk_common.skc_bound_dev_if"
UNDO_MARKER = "struct tcp_sock.undo_marker"


class Result(NamedTuple):
    """What became of one family. mismatches: "field: got, expected"; skipped: why it could not be tried, or None; late:
    why nothing is proved though nothing was wrong, or None."""

    family: str
    events: List[event.Event]
    mismatches: List[str]
    skipped: Optional[str]
    late: Optional[str] = None

    @property
    def ok(self) -> bool:
        return not self.mismatches and self.skipped is None and self.late is None


class Watch:
    """What the probe has counted since an attempt began."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._hooks = {a.hook.name: a.hook for a in tracer.collection.hooks if a.link is not None}
        self._fired = {name: tracer.collection.fired(self._hooks[name]) for name in self._raising()}
        self._lost = tracer.lost()
        self._forgotten = tracer.forgotten()

    def _raising(self) -> List[str]:
        return [name for name, hook in self._hooks.items() if hook.raises]

    def reads(self, field: str) -> bool:
        """Do the offsets know where this field of a kernel struct is? Calibrated ones do without some."""
        name, _, path = field.partition(".")
        row = self._tracer.offsets.layout.get(name)
        return isinstance(row, Struct) and row.fields.get(path) is not None

    def has(self, hook: str) -> bool:
        return hook in self._hooks

    def connects(self) -> bool:
        return "connect" in self._hooks

    def fired(self, hook: str) -> bool:
        return hook in self._fired and self._tracer.collection.fired(self._hooks[hook]) > self._fired[hook]

    def lost(self) -> int:
        return self._tracer.lost() - self._lost

    def unread(self) -> int:
        """Events that were raised, and not read yet."""
        return max(0, self._tracer.raised() - self._tracer.delivered - self._tracer.lost())

    def forgot(self) -> int:
        return self._tracer.forgotten() - self._forgotten

    def crowded(self) -> bool:
        """The maps have evicted owners of living sockets: ours may be among them."""
        return self._tracer.evicted() > 0


def _not_permitted() -> CapabilityError:
    lacks = "" if kernel.effective_capabilities() >> uapi.CAP_NET_ADMIN & 1 else ": this process lacks CAP_NET_ADMIN"
    return CapabilityError(
        f"attach a filter to the sockets of the self-check (SO_ATTACH_FILTER): Operation not permitted{lacks}; without "
        f"the self-check no offset is proved. Run it as root, or with CAP_NET_ADMIN (given up once attached)",
        "CAP_NET_ADMIN",
    )


def run(tracer: Tracer, others: Optional[List[event.Event]] = None, timeout: float = TIMEOUT) -> List[Result]:
    """Makes all families retransmit and compares. Events of other sockets go to `others`.

    A host on which this process does not run for seconds, or whose events come faster than they are read, gets another
    attempt: retransmits are further and further apart, so what was late once stays late. What was wrong is wrong at
    once. A hook that does not run is attached in another way, where there is one.

    Raises CapabilityError where this process may not make the sockets deaf: nothing would be proved then; AttachError
    where no way of attaching makes the retransmit hook run.
    """
    strangers: List[event.Event] = []
    former: List[Pair] = []
    results: List[Result] = []
    for _ in range(ATTEMPTS):
        watch = Watch(tracer)
        results = _attempt(tracer, watch, strangers, former, timeout)
        while _fall_back(tracer, watch, results):
            watch = Watch(tracer)
            results = _attempt(tracer, watch, strangers, former, timeout)
        if not any(result.late for result in results if result.family in FAMILIES):
            break
    if others is not None:
        others.extend(strangers)
    return [_with_blind(tracer, results[0]), *results[1:]]


def _with_blind(tracer: Tracer, result: Result) -> Result:
    """The result, and as mismatches of it the beginnings of connections of which nothing was learnt at a tracepoint: it
    cannot be switched off as functions can, so the program ran, and took its socket for another."""
    blind = [
        f"owned: of {attached.hook.name}, {where} does not learn what it must"
        for attached in tracer.collection.hooks
        if attached.hook.name in ("connect", "listen") and attached.link is None
        for where, reason in attached.refused
        if where.startswith(("raw_tp", "tracepoint")) and NOT_RUNNING in reason
    ]
    return result._replace(mismatches=[*result.mismatches, *blind])


def _fall_back(tracer: Tracer, watch: Watch, results: List[Result]) -> bool:
    """Attaches what did not run in another way. False if everything ran, or there was no occasion."""
    silent = {SYNACK if r.family == SYNACK else "retransmit" for r in results if r.late is not None and not r.events}
    for hook in sorted(silent):
        # Of a SYN-ACK we cannot know whether the kernel has sent it again.
        if watch.has(hook) and not watch.fired(hook) and (hook != SYNACK or switched_off() is not None):
            tracer.collection.fall_back(hook)
            return True
    return False


def _attempt(
    tracer: Tracer, watch: Watch, strangers: List[event.Event], former: List[Pair], timeout: float
) -> List[Result]:
    """One attempt with new sockets.

    Events of other sockets go to `strangers`, but for those of `former` attempts; the sockets are added to these.
    """
    pairs: List[Pair] = []
    results: List[Result] = []
    request: Optional[Request] = None
    mptcp = [MPTCP] if os.path.exists("/proc/sys/net/mptcp") and tracer.sees_mptcp else []
    for family in (*FAMILIES, *mptcp):
        try:
            pairs.append(Pair(family, watch.reads(DEVICE)))
            pairs[-1].info()
        except OSError as error:
            if error.errno == errno.EPERM:
                for pair in pairs:
                    pair.close()
                raise _not_permitted() from None
            if family == MPTCP:  # switched off, or too old to say anything of its connections
                if pairs and pairs[-1].family == MPTCP:
                    pairs.pop().close()
                continue
            results.append(
                Result(family, [], [], f"{'no IPv6 here' if family != 'inet' else 'no such sockets'}: {error.strerror}")
            )
    uncounted = sum(
        a.target is not None and a.target.entry for a in tracer.collection.hooks if a.hook.name == "retransmit"
    )
    try:
        known = expected()
        if watch.has("synack"):
            request = _requested()
        for pair in pairs:
            pair.send()
        start = time.monotonic()
        plain = [pair for pair in pairs if pair.family in FAMILIES]
        while not all(pair.complete() for pair in plain) or _passed_over(pairs, start, timeout):
            spent = time.monotonic() - start
            # A slow host sees all that it has to, but late.
            if spent > timeout and (spent > PATIENCE * timeout or not _promising(plain, known, watch)):
                break
            for seen in tracer.events(0.05):
                mine = [pair for pair in pairs if pair.is_of(seen)]
                if mine:
                    mine[0].take(seen, uncounted)
                elif request is not None and request.likeness(seen) > 1:
                    request.event = seen
                elif not any(pair.is_of(seen) for pair in former):
                    strangers.append(seen)
        results += [_judge(tracer, watch, pair, strangers, known) for pair in pairs]
        if request is not None:
            results.append(_judge_request(request, strangers, known))
    finally:
        for pair in pairs:
            pair.close()
        if request is not None:
            request.close()
    former += pairs
    # The last of their events may be on their way.
    for t in [pair.tuple for pair in pairs] + ([request.tuple] if request is not None else []):
        tracer.own += [t, t._replace(sport=t.dport, dport=t.sport, saddr=t.daddr, daddr=t.saddr)]
    _check_forgotten(tracer, watch, pairs, results)
    return results


def _passed_over(pairs: List[Pair], start: float, timeout: float) -> bool:
    """Was the one retransmit of an MPTCP socket that is seen by this time not seen, so that the next is worth waiting
    for? A kprobe's program is passed over where the timer interrupts another program."""
    silent = [pair for pair in pairs if pair.family == MPTCP and not pair.events]
    return time.monotonic() - start < timeout and any(pair.info().total_retrans > 0 for pair in silent)


def _requested() -> Optional[Request]:
    """None without CAP_NET_ADMIN, where nobody chooses sequence numbers."""
    try:
        request = Request()
    except OSError:
        return None
    try:
        request.send()
    except OSError:  # it is looked for all the same
        return request
    return request


def _differences(pair: Pair, known: Dict[str, object], watch: Watch) -> List[str]:
    crowded, connects = watch.crowded(), watch.connects() and pair.family in FAMILIES
    return [
        line
        for seen, info in zip(pair.events, pair.infos)
        for line in compare(pair, seen, info, known, crowded, connects, watch.reads(UNDO_MARKER))
    ]


def _promising(pairs: List[Pair], known: Dict[str, object], watch: Watch) -> bool:
    """Every pair has events, and nothing in them is wrong."""
    return all(pair.events and not _differences(pair, known, watch) for pair in pairs)


def _judge(tracer: Tracer, watch: Watch, pair: Pair, strangers: List[event.Event], known: Dict[str, object]) -> Result:
    mismatches = _differences(pair, known, watch)
    retransmitted = pair.info().total_retrans
    late = None
    if not pair.events and not retransmitted:
        return Result(pair.family, [], [], "the kernel retransmitted nothing")
    if not pair.events:
        times = f"the kernel retransmitted {retransmitted} times"
        lost, unread = watch.lost(), watch.unread()
        near = [seen for seen in strangers if pair.likeness(seen) and not (lost + unread and _is_others(seen, known))]
        if near:
            mismatches += sorted((compare(pair, seen, pair.info(), known) for seen in near), key=len)[0]
        elif not watch.fired("retransmit"):
            late = f"{times}, and the program for it did not run{_because()}"
        elif lost or unread:
            missing = f"{lost} events were lost" if lost else f"{unread} events are not read yet"
            late = f"{times}, and {missing}: they come faster than they are read"
        else:
            mismatches.append(f"no event, though {times}")
    elif not mismatches and not any(seen.owner for seen in pair.events):
        late = "its owner was evicted before it was looked up: give --max-sockets a higher number"
    elif not pair.complete():
        kinds = ", ".join(f"{e.kind} in {e.state}" for e in pair.events)
        late = f"seen were only {kinds}; expected two rto, the later in FIN_WAIT1 and compared before the next"
    else:
        mismatches += _check_sequence(pair) + _check_map(tracer, pair, watch)
    mismatches = list(dict.fromkeys(mismatches))
    return Result(pair.family, pair.events, mismatches, None, None if mismatches else late)


def _is_others(seen: event.Event, known: Dict[str, object]) -> bool:
    """Another process was seen to use the socket: of whose it is, no offset tells. Where ours may be among what is
    missing, it is not taken for ours that is read wrong."""
    return seen.owner is not None and "pid" in known and seen.owner.pid != known["pid"]


def _check_sequence(pair: Pair) -> List[str]:
    """What must hold from one event to the next."""
    probes, timeouts = ([e for e in pair.events if e.kind == kind] for kind in ("tlp", "rto"))
    if pair.family == MPTCP or not timeouts:
        return []
    wrong = []
    if probes and (probes[0].seq - timeouts[0].seq) % 2**32 != 1:
        wrong.append(f"seq: {probes[0].seq} in the probe of the last segment, {timeouts[0].seq} of the first")
    if timeouts[-1].retransmits <= timeouts[0].retransmits:
        wrong.append(f"retransmits: {timeouts[0].retransmits}, then {timeouts[-1].retransmits}")
    return wrong


def _judge_request(request: Request, strangers: List[event.Event], known: Dict[str, object]) -> Result:
    if request.event is not None:
        return Result(SYNACK, [request.event], request.compare(request.event, known), None)
    near = [seen for seen in strangers if seen.kind == "synack" and request.likeness(seen)]
    mismatches = min((request.compare(seen, known) for seen in near), key=len, default=[])
    late = None if mismatches else f"no event of a SYN-ACK that was to be sent again{_because()}"
    return Result(SYNACK, [], mismatches, None, late)


def _because() -> str:
    why = switched_off()
    return f": {why}" if why is not None else ""


def _check_map(tracer: Tracer, pair: Pair, watch: Watch) -> List[str]:
    """socket_to_pid must name us for our end, and for the end that we accepted if that is hooked."""
    owner = next((seen.owner for seen in pair.events if seen.owner), None)
    if owner is None:
        return []
    mapped = tracer.owner_of(pair.tuple)
    wrong = []
    crowded = watch.crowded() or (mapped is None and tracer.is_public_full())
    if not (mapped is None and (crowded or pair.family == MPTCP)) and (mapped is None or mapped.pid != owner.pid):
        wrong.append(f"socket_to_pid: {mapped}, expected {owner}")
    if watch.has("accept") and not crowded:
        t = pair.tuple
        accepted = tracer.owner_of(t._replace(sport=t.dport, dport=t.sport, saddr=t.daddr, daddr=t.saddr, ifindex=0))
        if accepted is None or (accepted.pid, accepted.how) != (owner.pid, "accept"):
            wrong.append(f"socket_to_pid, accepted end: {accepted}, expected pid {owner.pid} by accept")
    if not crowded:
        pair.others = [found for found in map(tracer.public, pair.other_tuples()) if found is not None and found.sk]
    # Without an entry of its own the socket must still be found, and later forgotten, by its tuple: as one that was
    # seeded. This makes it such a one.
    tracer.forget(pair.events[0].sk)
    return wrong


def _check_forgotten(tracer: Tracer, watch: Watch, pairs: List[Pair], results: List[Result]) -> None:
    """A destroyed socket must not leave an owner behind: the next one may get its address.

    Of the sender its name alone is left, which is taken back when it closes. Of its listener and of the accepted end
    what goes by their addresses is there, too, which nothing takes back but their end, or who gets the address.
    """
    by_family = {result.family: result for result in results}
    others: List[SocketOwner] = []
    for pair in pairs:
        if pair.family == MPTCP:  # where only functions can be traced, nothing tells the end of such a socket
            continue
        others += pair.others
        deadline = time.monotonic() + FORGETTING
        while tracer.owner_of(pair.tuple) is not None:
            if time.monotonic() > deadline:
                by_family[pair.family].mismatches.append("the destroyed socket still has an owner")
                break
            time.sleep(0.01)
    deadline = time.monotonic() + 2 * FORGETTING  # a listener waits for readers of the table that it was in
    while others and (watch.forgot() == 0 or any(tracer.knows(other.sk, other.inode) for other in others)):
        if time.monotonic() > deadline:
            how = tracer.collection.mechanisms()["destroy"]
            results[0].mismatches.append(f"destroy: {how} forgets no socket that is destroyed")
            break
        time.sleep(0.01)


def demand(results: List[Result], must_pass: bool = False) -> List[str]:
    """Raises SelfCheckError if anything differs, if nothing could be compared that was tried, or, if it `must_pass`, if
    not all that was tried could be.

    Returns the reasons of what could not be tried.
    """
    wrong = [f"{r.family}: {line}" for r in results for line in r.mismatches]
    if wrong:
        # Before Linux 5.13 a kernel locked down for confidentiality let programs load, and read nothing but zeros.
        locked = kernel.lockdown() == "confidentiality"
        why = "the kernel is locked down for confidentiality" if locked else "the offsets are not those of this kernel"
        raise SelfCheckError(f"the self-check read back wrong values: {why}\n  " + "\n  ".join(wrong), wrong)
    plain = [r for r in results if r.family in FAMILIES]
    late = [f"{r.family}: {r.late}" for r in plain if r.late is not None]
    if late and (must_pass or not any(r.ok for r in plain)):
        raise SelfCheckError(
            "the self-check came to no end, and found nothing wrong so far:\n  " + "\n  ".join(late), late
        )
    skipped = [f"{r.family}: {r.skipped}" for r in results if r.skipped is not None]
    if must_pass and not any(r.ok for r in plain):
        lines = "".join(f"\n  {line}" for line in skipped)
        raise SelfCheckError(f"the self-check has to prove these offsets, and could not be made:{lines}", skipped)
    return skipped + late
