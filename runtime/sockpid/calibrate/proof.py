"""A kernel that no source speaks of: which of the layouts that its series has is its own, proved field by field.

Each candidate is attached and held against sockets of our own. One is used if every field that programs read was shown
right on this host, and no other candidate that nothing here tells apart from it says anything else.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional

from sockpid.errors import CapabilityError, ConsensusError, SockpidError, UnknownKernelError
from sockpid.host import kernel, proc
from sockpid.image.image import Image
from sockpid.offsets import agreement, calibration, consensus, offsets, source
from sockpid.offsets.source import Offsets, no_id
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.run.start import say
from sockpid.selfcheck import observed, selfcheck
from sockpid.subjects.deaf import MPTCP
from sockpid.table.layout import Field, Layout, Struct

from . import kern

MOST = 8
"""Candidates to try: no series of the table has more."""


class Verdict(NamedTuple):
    """problem: why a candidate is not proved, a line or more; "" if it is. fields: those that are wrong or unproved."""

    problem: str
    fields: List[str]


def find(options: Options, image: Image, identity: kernel.Identity, unknown: UnknownKernelError) -> Offsets:
    """The offsets of a candidate that is proved on this host; events will call them "consensus".

    unknown: what is known of why nothing else serves. Raises it, if there is no candidate, and ConsensusError naming
    each candidate and what speaks against it, if none is proved; CapabilityError where this process may not try.
    """
    shard = offsets.shard_of(identity)
    if shard is None:
        raise unknown
    found = consensus.candidates(shard, image, identity.arch, identity.release, identity.banner)
    return choose(options, image, identity, unknown, found[:MOST])


def choose(
    options: Options,
    image: Image,
    identity: kernel.Identity,
    unknown: UnknownKernelError,
    found: List[consensus.Candidate],
) -> Offsets:
    """The same among given candidates."""
    if not found:
        raise unknown
    absent = _absent()
    refused: Dict[str, Verdict] = {}
    for candidate in found:
        what = f"{candidate.release} ({candidate.builds} build{'' if candidate.builds == 1 else 's'} alike)"
        layout = _without(candidate.layout, absent)
        proved = Offsets(layout, "consensus", f"{what}, proved on this host", no_id, True)
        verdict = _proved(options, image, identity, proved)
        if not verdict.problem:
            _demand_alone(image, identity, layout, [_without(c.layout, absent) for c in found], what)
            say(f"no source speaks of this kernel: it has the offsets of {what}, each of them proved on this host")
            return proved
        refused[what] = verdict
    raise _refusal(unknown, refused)


def _refusal(unknown: UnknownKernelError, refused: Dict[str, Verdict]) -> ConsensusError:
    lines = [str(unknown), "  of the known builds of its series none was proved to have the same offsets:"]
    for what, verdict in refused.items():
        lines.append(f"    {what}: {', '.join(verdict.fields) or 'no field can be named'}")
        lines += [f"      {line.strip()}" for line in verdict.problem.splitlines()]
    first = next(iter(refused.values()))
    return ConsensusError("\n".join(lines), first.fields[0] if first.fields else None)


def _absent() -> List[str]:
    """Fields that nothing on this host could show, because it has no use for what they tell."""
    names: List[str] = []
    if not os.path.exists(source.MPTCP):
        names += [*calibration.ULP, *agreement.OF_MPTCP]
    if not os.path.exists("/proc/net/if_inet6"):
        names += calibration.IPV6
    return names


def _without(layout: Layout, absent: List[str]) -> Layout:
    """A layout in which these fields are absent."""
    rows = dict(layout)
    for name in absent:
        kind, _, path = name.partition(".")
        row = rows.get(kind)
        if isinstance(row, Struct):
            rows[kind] = row._replace(fields={**row.fields, path: None})
    return rows


def _proved(options: Options, image: Image, identity: kernel.Identity, candidate: Offsets) -> Verdict:
    """Attaches with the offsets of a candidate, and looks what of them is right."""
    try:
        with Tracer.open_with(options, identity, image, candidate) as tracer:
            results = selfcheck.run(tracer)
            told = observed.fields(identity.arch, candidate.layout, results, tracer.collection.mechanisms())
    except CapabilityError:  # of us, whatever the offsets
        raise
    except SockpidError as error:
        return Verdict(str(error), [])
    wrong = [name for name, field in told.items() if not field["ok"]]
    wrong += sorted(observed.UNSEEN) if wrong else []
    try:
        selfcheck.demand(results, True)
    except SockpidError as error:
        return Verdict(str(error), wrong)
    return _unproved(options, identity, candidate.layout, results, told)


def _unproved(
    options: Options,
    identity: kernel.Identity,
    layout: Layout,
    results: List[selfcheck.Result],
    told: Dict[str, Any],
) -> Verdict:
    """What was not seen to be wrong, but not seen to be right either."""
    left = {name: why for name, why in observed.unproven(layout, told).items() if name not in observed.UNSEEN}
    row = layout.get("struct request_sock")
    request = row.fields.get("__req_common") if isinstance(row, Struct) else None
    if request is not None and request.bit_offset == 0:  # as in C: a request begins as a socket does
        left.pop("struct request_sock.__req_common", None)
    if not any(result.family == MPTCP and result.ok for result in results):
        # Of plain sockets the bit is 0, as many others are: one of the kernel's own has to show it.
        problem = _kern_problem(options, identity, layout)
        if problem is not None:
            left[kern.KERN] = problem
    return Verdict("\n".join(f"{name}: {why}" for name, why in left.items()), list(left))


def _kern_problem(options: Options, identity: kernel.Identity, layout: Layout) -> Optional[str]:
    row = layout.get("struct sock")
    place = row.fields.get("sk_kern_sock") if isinstance(row, Struct) else None
    if place is None:
        return None
    if not proc.in_initial_pid_namespace():
        return "only the host's own process ids show it; start sockpid outside of the container"
    try:
        found = kern.look(identity.arch, layout, options.deny)
    except (SockpidError, OSError) as error:
        return f"sockets of the kernel's own cannot be looked at: {error}"
    if found.field is None:
        return f"sockets of the kernel's own do not show it: {found.problem}"
    if found.field[:3] != place[:3]:
        return (
            f"{agreement.place(place)} in the candidate, {agreement.place(found.field)} in sockets of the kernel's own"
        )
    return None


def _demand_alone(image: Image, identity: kernel.Identity, layout: Layout, others: List[Layout], what: str) -> None:
    """Raises ConsensusError where another candidate says the same but of what a plain socket shows as zero."""
    wanted = image.wanted(identity.arch)
    mine = consensus.values(layout, wanted)
    for other in others:
        differ = [name for name, value in consensus.values(other, wanted).items() if not _same(value, mine[name])]
        if differ and set(differ) <= observed.SHOWN_BY_ZERO:
            raise ConsensusError(
                f"{what} is not the only candidate that this host bears out: another differs from it in "
                f"{', '.join(differ)} alone",
                differ[0],
            )


def _same(one: object, other: object) -> bool:
    if isinstance(one, Field) and isinstance(other, Field):  # not every source tells what is signed
        return one[:3] == other[:3]
    return one == other
