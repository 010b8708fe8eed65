"""`sockpid doctor`: what the kernel is, what it offers, what is used of it and why not more."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Dict, List, Optional

from sockpid import uapi
from sockpid.bpf.features import Features
from sockpid.errors import CapabilityError, SockpidError, UnsupportedArchError
from sockpid.host import capability, kernel
from sockpid.offsets import age, offsets
from sockpid.probe.collection import Collection, Options
from sockpid.probe.tracer import Tracer, find_offsets, load_image
from sockpid.selfcheck import observed, selfcheck

CAPABILITIES = {
    "CAP_SYS_ADMIN": uapi.CAP_SYS_ADMIN,
    "CAP_BPF": uapi.CAP_BPF,
    "CAP_PERFMON": uapi.CAP_PERFMON,
    "CAP_SYS_RESOURCE": uapi.CAP_SYS_RESOURCE,
    "CAP_NET_ADMIN": uapi.CAP_NET_ADMIN,
    "CAP_SYS_PTRACE": uapi.CAP_SYS_PTRACE,
    "CAP_DAC_READ_SEARCH": uapi.CAP_DAC_READ_SEARCH,
}


def doctor(options: Options, offsets_path: Optional[str], as_json: bool) -> int:
    """Tells as much as can be found out, also where `run` would refuse; the exit status is what `run` would give."""
    identity = kernel.identify()
    have = kernel.effective_capabilities()
    document: Dict[str, Any] = {
        "schema": 1,
        "arch": identity.arch.name,
        "release": identity.release,
        "build_id": identity.build_id,
        "banner": identity.banner,
        "linux_version_code": kernel.version_code(),
        "capabilities": {name: bool(have >> bit & 1) for name, bit in CAPABILITIES.items()},
        "lockdown": kernel.lockdown(),
        "realtime": kernel.realtime(),
        "preemptible": kernel.preemptible(),
        "features": [],
        "table": None,
        "offsets": None,
        "hooks": [],
        "maps": [],
        "max_sockets": options.max_sockets,
        "flaws": [],
        "capabilities_kept": None,
        "capabilities_dropped": None,
        "unproven": {},
        "not_checked": [],
        "error": None,
    }
    status = 0
    features = Features(options.deny)
    stack = contextlib.ExitStack()
    try:
        document["table"] = _table(identity)
        image = load_image(identity.arch.byte_order)
        found = find_offsets(options, image, identity, offsets_path)
        document["offsets"] = {"origin": found.origin, "source": found.source, "agree_with": None}
        if document["table"] is not None:
            document["table"]["newer_would_change"] = age.NEWER[found.origin]
        document["offsets"]["agree_with"] = offsets.against_btf(image, identity.arch, found, options.deny)
        features = Features(options.deny, found.btf_id)
        collection = stack.enter_context(contextlib.closing(Collection.attach(image, found, options, features)))
        document["hooks"] = [
            {
                "hook": a.hook.name,
                "what": a.hook.what,
                "attached": f"{a.link.mechanism} {a.link.target}" if a.link else None,
                "seen_to_run": a.seen,
                "refused": [{"mechanism": where, "reason": reason} for where, reason in a.refused],
            }
            for a in collection.hooks
        ]
        document["maps"] = [
            {"map": name, "max_entries": m.spec.max_entries, "bytes": m.memory()} for name, m in collection.maps.items()
        ]
        document["max_sockets"] = options.max_sockets
        document["flaws"] = collection.flaws()
        needed = capability.for_run(sharers=True, environ=False, summary=False)  # what the second witness needs
        needed |= capability.for_maps(lambda: collection.counter(0))
        kept = kernel.capability_sets().permitted & sum(1 << number for number in needed)
        document["capabilities_kept"] = capability.names(kept)
        document["capabilities_dropped"] = capability.names(kernel.capability_sets().permitted & ~kept)
        results = selfcheck.run(Tracer(identity, found, collection))
        for each, attached in zip(document["hooks"], collection.hooks):
            if attached.hook.raises and attached.link is not None and collection.fired(attached.hook):
                each["seen_to_run"] = True  # of these the self-check is the occasion
        told = observed.fields(identity.arch, found.layout, results, collection.mechanisms())
        document["unproven"] = observed.unproven(found.layout, told)
        document["not_checked"] = selfcheck.demand(results, found.needs_proof)
    except UnsupportedArchError:
        raise
    except SockpidError as error:
        document["error"] = str(error)
        status = error.exit_code
    finally:
        stack.close()
    with contextlib.suppress(CapabilityError):  # which is told already
        document["features"] = features.report()
    print(json.dumps(document, indent=1) if as_json else "\n".join(_lines(document)))
    return status


def _table(identity: kernel.Identity) -> Optional[Dict[str, Any]]:
    """What the table that travels along has of this kernel's series, and how old that is; None: nothing."""
    shard = offsets.shard_of(identity)
    if shard is None:
        return None
    has_this = shard.find(identity.build_id, identity.release, identity.banner) is not None
    found = age.age(shard, has_this, identity.banner)
    return {**found._asdict(), "newer_would_change": age.NEWER["table" if has_this else None]}


def _told(table: Dict[str, Any]) -> List[str]:
    """The same for people."""
    line = f"table         {table['kernels']} kernels of {table['series']}, "
    line += f"this one {'is' if table['has_this'] else 'is not'} among them"
    if table["newest"]:
        line += f"; the newest is {table['newest']}, built {table['built']}"
    if table["days"] is not None and table["days"]:
        line += f", {abs(table['days'])} days {'before' if table['days'] > 0 else 'after'} this one"
    return [line, f"              a newer table would change: {table['newer_would_change']}"]


def _lines(document: Dict[str, Any]) -> List[str]:
    code = document["linux_version_code"]
    lines = [
        f"kernel        {document['arch']} {document['release']}",
        f"build-id      {document['build_id'] or '(none)'}",
        f"version code  {code >> 16}.{code >> 8 & 255}.{code & 255}" if code else "version code  (no vDSO note)",
        "capabilities  " + ", ".join(f"{n}: {'yes' if v else 'no'}" for n, v in document["capabilities"].items()),
    ]
    lines += [f"locked down   for {document['lockdown']}"] if document["lockdown"] else []
    lines += ["real time     PREEMPT_RT"] if document["realtime"] else []
    lines += ["preemption    tasks can be taken off their CPU inside a program"] if document["preemptible"] else []
    for f in document["features"]:
        state = f["state"] if f["state"] == "present" else f"{f['state']}, so {f['without']}: {f['reason']}"
        lines.append(f"{f['name']:<17} {state} ({f['what']})")
    lines += _told(document["table"]) if document["table"] else ["table         no kernel of this series"]
    if document["offsets"]:
        other = document["offsets"]["agree_with"]
        lines.append(f"offsets       {document['offsets']['origin']}: {document['offsets']['source']}")
        lines += [f"              which agrees with {other}"] if other else []
    for hook in document["hooks"]:
        unseen = ", not seen to run: no occasion" if hook["attached"] and hook["seen_to_run"] is None else ""
        lines.append(f"{hook['hook']:<14} {hook['attached'] or 'NOT attached'} ({hook['what']}{unseen})")
        lines += [f"              not {r['mechanism']}: {r['reason']}" for r in hook["refused"]]
    if document["maps"]:
        lines.append(
            f"room          for {document['max_sockets']} sockets; CPUs keep some entries of a map to themselves"
        )
    for m in document["maps"]:
        size = "" if m["bytes"] is None else f", {m['bytes'] / 2**20:.1f} MiB"
        lines.append(f"{m['map']:<13} {m['max_entries']} entries{size}")
    lines += [f"flaw: {flaw}" for flaw in document["flaws"]]
    if document["capabilities_kept"] is not None:
        kept, dropped = document["capabilities_kept"], document["capabilities_dropped"]
        lines.append(
            f"after attaching, run keeps {', '.join(kept) or 'no capability'} and gives up {len(dropped)} more"
        )
        lines.append("  (with --summary: what that needs as well; with --no-witness: none)")
    lines += [f"not proven on this host: {name}: {why}" for name, why in document["unproven"].items()]
    lines += [f"not checked: {line}" for line in document["not_checked"]]
    lines.append(f"error: {document['error']}" if document["error"] else "ready to run")
    return lines
