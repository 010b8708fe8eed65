"""`sockpid selftest`: the self-check with its findings told."""

from __future__ import annotations

from sockpid.offsets import offsets
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.subjects import deaf

from . import observed, selfcheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional


def selftest(options: Options, offsets_path: Optional[str], as_json: bool) -> int:
    """Attaches, checks all families, reports.

    Returns 0 if all that the host can do is right, 8 if a field is wrong, 1 if nothing could be tried.
    """
    with Tracer.open(options, offsets_path) as tracer:
        agreed = offsets.against_btf(tracer.collection.image, tracer.kernel.arch, tracer.offsets, options.deny)
        results = selfcheck.run(tracer)
        document: Dict[str, Any] = {
            "schema": 1,
            "ok": any(r.ok for r in results) and not any(_failed(r) for r in results),
            "arch": tracer.kernel.arch.name,
            "release": tracer.kernel.release,
            "build_id": tracer.kernel.build_id,
            "banner": tracer.kernel.banner,
            "offsets": tracer.offsets.origin,
            "offsets_source": tracer.offsets.source,
            "offsets_agree_with": agreed,
            "hooks": tracer.collection.mechanisms(),
            "lost": tracer.lost(),
            "flaws": tracer.collection.flaws(),
            "families": {
                r.family: {
                    "ok": r.ok,
                    "mismatches": r.mismatches,
                    "skipped": r.skipped if r.late is None else r.late,
                    "events": [tracer.json(e) for e in r.events],
                }
                for r in sorted(results, key=lambda r: selfcheck.RESULTS.index(r.family))
            },
            "fields": observed.fields(
                tracer.kernel.arch, tracer.offsets.layout, results, tracer.collection.mechanisms()
            ),
        }
        document["unproven"] = observed.unproven(tracer.offsets.layout, document["fields"])
    if as_json:
        import json

        print(json.dumps(document, indent=1))
    else:
        print("\n".join(_lines(document)))
    if any(_failed(r) for r in results):
        return 8
    return 0 if document["ok"] else 1


def _failed(result: selfcheck.Result) -> bool:
    return bool(result.mismatches) or (result.late is not None and result.family in deaf.FAMILIES)


def _lines(document: Dict[str, Any]) -> List[str]:
    lines = [
        f"kernel    {document['arch']} {document['release']} (build-id {document['build_id']})",
        f"offsets   {document['offsets']}: {document['offsets_source']}",
    ]
    lines += [f"hook      {name:<15} {link or 'none'}" for name, link in document["hooks"].items()]
    lines += [f"flaw      {flaw}" for flaw in document["flaws"]]
    for family, result in document["families"].items():
        verdict = "ok" if result["ok"] else "skipped: " + result["skipped"] if result["skipped"] else "WRONG"
        lines.append(f"{family:<9} {verdict}")
        for e in result["events"]:
            owner = f"pid {e['pid']} {e['comm']}" if e["pid"] else f"unknown ({e['reason']})"
            lines.append(
                f"  {e['kind']:<4} {e['saddr']}:{e['sport']} > {e['daddr']}:{e['dport']} {e['state']}: owner {owner}; "
                f"interrupted was {e['interrupted_pid']}"
            )
        lines += [f"  {line}" for line in result["mismatches"]]
    lines += [f"unproven  {name}: {reason}" for name, reason in document["unproven"].items()]
    lines.append("all right" if document["ok"] else "NOT right")
    return lines
