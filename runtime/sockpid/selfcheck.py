"""Does the probe see what is true? Sockets of our own, whose every property we know, made to retransmit.

Not exercised, and none of it decides about an owner: the name of the upper layer protocol, the way from an MPTCP
subflow to its MPTCP socket, the tuple of a connection request.
"""

from __future__ import annotations

import errno
import os
import time

from . import event, kernel, proc, uapi
from .deaf import FAMILIES, Info, Pair
from .errors import CapabilityError, SelfCheckError
from .named import NamedTuple
from .socket_tuple import SocketTuple
from .tracer import Tracer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

TIMEOUT = 3.0
PATIENCE = 5  # so many times as long, while all that was seen is right
ATTEMPTS = 2
STABLE_FLAGS = 0x00600140  # PF_RANDOMIZE | PF_KTHREAD | PF_SUPERPRIV | PF_FORKNOEXEC: these do not come and go


class Result(NamedTuple):
    """What became of one family. mismatches: "field: got, expected"; skipped: why it could not be tried, or None."""

    family: str
    events: List[event.Event]
    mismatches: List[str]
    skipped: Optional[str]

    @property
    def ok(self) -> bool:
        return not self.mismatches and self.skipped is None


def expected() -> Dict[str, object]:
    """What an event of ours must say of us, as far as /proc tells."""
    known: Dict[str, object] = {
        "comm": kernel.comm(),
        "flags": kernel.task_flags() & STABLE_FLAGS,
        "start_ticks": kernel.process_start_ticks(),
    }
    if proc.in_initial_pid_namespace():  # elsewhere our pid is not what the kernel calls us
        known["pid"] = os.getpid()
    return known


def compare(pair: Pair, seen: event.Event, info: Info, known: Dict[str, object]) -> List[str]:
    """Every field of an event that differs from what is known, as "field: got, expected"."""
    pairs: List[Any] = [(name, getattr(seen.tuple, name), getattr(pair.tuple, name)) for name in SocketTuple._fields]
    owner = seen.owner
    if owner is None:
        pairs.append(("owner", None, known.get("pid", "this process")))
    else:
        got: Dict[str, object] = {
            "pid": owner.pid,
            "comm": owner.comm,
            "flags": owner.flags & STABLE_FLAGS,
            "start_ticks": owner.start_ns * os.sysconf("SC_CLK_TCK") // 10**9 + kernel.time_namespace_ticks(),
        }
        pairs += [(name, got[name], value) for name, value in known.items()]
    pairs += [
        ("inode", seen.inode, pair.inode()),
        ("total_retrans", seen.total_retrans, info.total_retrans),
        ("kern", seen.kern, False),
        ("ulp", seen.ulp, None),
    ]
    if info.rtt is not None:
        pairs += [("srtt_us", seen.srtt_us, info.rtt), ("snd_cwnd", seen.snd_cwnd, info.snd_cwnd)]
    differ = [f"{name}: {a!r}, expected {b!r}" for name, a, b in pairs if a != b]
    if not 1 <= (seen.end_seq - seen.seq) % 2**32 <= 3:  # two bytes were sent, and the FIN
        differ.append(f"seq, end_seq: {seen.seq}, {seen.end_seq}, expected 1 to 3 apart")
    # tcp_retransmit_timer() counts a timeout after or, in some versions, before it retransmits.
    if (
        info.retransmits is not None
        and seen.kind == "rto"
        and seen.retransmits not in (info.retransmits, info.retransmits - 1)
    ):
        differ.append(f"retransmits: {seen.retransmits}, expected {info.retransmits - 1}")
    if seen.state not in ("ESTABLISHED", "FIN_WAIT1"):
        differ.append(f"state: {seen.state}, expected ESTABLISHED or FIN_WAIT1")
    if seen.kind not in ("tlp", "rto"):
        differ.append(
            f"kind: {seen.kind} (icsk_ca_state {seen.ca_state}, icsk_pending {seen.pending}), expected tlp or rto"
        )
    return differ


def _not_permitted() -> CapabilityError:
    lacks = "" if kernel.effective_capabilities() >> uapi.CAP_NET_ADMIN & 1 else ": this process lacks CAP_NET_ADMIN"
    return CapabilityError(
        f"attach a filter to the sockets of the self-check (SO_ATTACH_FILTER): Operation not permitted{lacks}; without "
        f"the self-check no offset is proved. Run it as root, or with CAP_NET_ADMIN (given up once attached)",
        "CAP_NET_ADMIN",
    )


def run(tracer: Tracer, others: Optional[List[event.Event]] = None, timeout: float = TIMEOUT) -> List[Result]:
    """Makes all families retransmit and compares. Events of other sockets go to `others`.

    A host on which this process does not run for seconds gets another attempt: retransmits are further and further
    apart, so what was late once stays late. What was wrong is wrong at once.

    Raises CapabilityError where this process may not make the sockets deaf: nothing would be proved then.
    """
    strangers: List[event.Event] = []
    former: List[Pair] = []
    results, late = _attempt(tracer, strangers, former, timeout)
    for _ in range(ATTEMPTS - 1):
        if not late:
            break
        results, late = _attempt(tracer, strangers, former, timeout)
    if others is not None:
        others.extend(strangers)
    return results


def _attempt(
    tracer: Tracer, strangers: List[event.Event], former: List[Pair], timeout: float
) -> Tuple[List[Result], bool]:
    """One attempt with new sockets, and whether all was right in it, but too late.

    Events of other sockets go to `strangers`, but for those of `former` attempts; the sockets are added to these.
    """
    pairs: List[Pair] = []
    results: List[Result] = []
    for family in FAMILIES:
        try:
            pairs.append(Pair(family))
        except OSError as error:
            if error.errno == errno.EPERM:
                for pair in pairs:
                    pair.close()
                raise _not_permitted() from None
            results.append(
                Result(family, [], [], f"{'no IPv6 here' if family != 'inet' else 'no such sockets'}: {error.strerror}")
            )
    uncounted = sum(
        a.target is not None and a.target.entry for a in tracer.collection.hooks if a.hook.name == "retransmit"
    )
    try:
        known = expected()
        for pair in pairs:
            pair.send()
        start = time.monotonic()
        while not all(pair.complete() for pair in pairs):
            spent = time.monotonic() - start
            # A slow host sees all that it has to, but late.
            if spent > timeout and (spent > PATIENCE * timeout or not _promising(pairs, known)):
                break
            for seen in tracer.events(0.05):
                mine = [pair for pair in pairs if pair.is_of(seen)]
                if mine:
                    mine[0].take(seen, uncounted)
                elif not any(pair.is_of(seen) for pair in former):
                    strangers.append(seen)
        late = not all(pair.complete() for pair in pairs) and _promising(pairs, known)
        results += [_judge(tracer, pair, strangers, known) for pair in pairs]
    finally:
        for pair in pairs:
            pair.close()
    former += pairs
    _check_forgotten(tracer, pairs, results)
    return results, late


def _promising(pairs: List[Pair], known: Dict[str, object]) -> bool:
    """Every pair has events, and nothing in them is wrong."""
    seen = [(pair, list(zip(pair.events, pair.infos))) for pair in pairs]
    return all(events and not any(compare(pair, e, info, known) for e, info in events) for pair, events in seen)


def _judge(tracer: Tracer, pair: Pair, strangers: List[event.Event], known: Dict[str, object]) -> Result:
    mismatches = [line for seen, info in zip(pair.events, pair.infos) for line in compare(pair, seen, info, known)]
    retransmitted = pair.info().total_retrans
    if not pair.events and not retransmitted:
        return Result(pair.family, [], [], "the kernel retransmitted nothing")
    if not pair.events:
        mine = [seen for seen in strangers if seen.owner is not None and seen.owner.pid == known.get("pid")]
        near = min((compare(pair, seen, pair.info(), known) for seen in mine or strangers), key=len, default=[])
        mismatches += near or [f"no event, though the kernel retransmitted {retransmitted} times"]
    elif not pair.complete():
        kinds = ", ".join(f"{e.kind} in {e.state}" for e in pair.events)
        late = "" if any(info.rtt is not None for info in pair.infos) else ", and one compared before the next"
        mismatches.append(f"kinds: {kinds}; expected two rto in FIN_WAIT1{late}")
    else:
        probes, timeouts = ([e for e in pair.events if e.kind == kind] for kind in ("tlp", "rto"))
        if probes and (probes[0].seq - timeouts[0].seq) % 2**32 != 1:
            mismatches.append(f"seq: {probes[0].seq} in the probe of the last segment, {timeouts[0].seq} of the first")
        if timeouts[-1].retransmits <= timeouts[0].retransmits:
            mismatches.append(f"retransmits: {timeouts[0].retransmits}, then {timeouts[-1].retransmits}")
        mismatches += _check_map(tracer, pair)
    return Result(pair.family, pair.events, list(dict.fromkeys(mismatches)), None)


def _check_map(tracer: Tracer, pair: Pair) -> List[str]:
    """socket_to_pid must name us for our end, and for the end that we accepted if that is hooked."""
    owner, mapped = pair.events[0].owner, tracer.owner_of(pair.tuple)
    wrong = []
    if mapped is None or owner is None or mapped.pid != owner.pid:
        wrong.append(f"socket_to_pid: {mapped}, expected {owner}")
    if tracer.collection.mechanisms()["accept"] is not None:
        t = pair.tuple
        accepted = tracer.owner_of(t._replace(sport=t.dport, dport=t.sport, saddr=t.daddr, daddr=t.saddr))
        if accepted is None or owner is None or (accepted.pid, accepted.how) != (owner.pid, "accept"):
            wrong.append(
                f"socket_to_pid, accepted end: {accepted}, expected pid {owner.pid if owner else '?'} by accept"
            )
    # Without an entry of its own the socket must still be found, and later forgotten, by its tuple: as one that was
    # seeded. This makes it such a one.
    tracer.forget(pair.events[0].sk)
    return wrong


def _check_forgotten(tracer: Tracer, pairs: List[Pair], results: List[Result]) -> None:
    """A destroyed socket must not leave an owner behind: the next one may get its address."""
    by_family = {result.family: result for result in results}
    for pair in pairs:
        deadline = time.monotonic() + 0.5
        while tracer.owner_of(pair.tuple) is not None:
            if time.monotonic() > deadline:
                by_family[pair.family].mismatches.append("the destroyed socket still has an owner")
                break
            time.sleep(0.01)


def demand(results: List[Result], must_pass: bool = False) -> List[str]:
    """Raises SelfCheckError if anything differs, or, if it `must_pass`, if no family could be tried.

    Returns the reasons of what could not be tried.
    """
    wrong = [f"{r.family}: {line}" for r in results for line in r.mismatches]
    if wrong:
        # Before Linux 5.13 a kernel locked down for confidentiality let programs load, and read nothing but zeros.
        locked = kernel.lockdown() == "confidentiality"
        why = "the kernel is locked down for confidentiality" if locked else "the offsets are not those of this kernel"
        raise SelfCheckError(f"the self-check read back wrong values: {why}\n  " + "\n  ".join(wrong), wrong)
    skipped = [f"{r.family}: {r.skipped}" for r in results if r.skipped is not None]
    if must_pass and not any(r.ok for r in results):
        lines = "".join(f"\n  {line}" for line in skipped)
        raise SelfCheckError(f"the self-check has to prove these offsets, and could not be made:{lines}", skipped)
    return skipped
