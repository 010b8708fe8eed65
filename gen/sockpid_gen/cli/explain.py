"""The command that explains one offset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Dict, List

import typer
from rich.markup import escape

from .shared import DEFAULT_OFFSETS, Json, Kernel, ReadOffsets, app, identity, out

if TYPE_CHECKING:
    from sockpid_gen.insight.explain import Explanation


@app.command()
def explain(
    kernel: Kernel,
    field: Annotated[
        str, typer.Argument(metavar="FIELD", help='"struct sock.sk_protocol", or its end: "sk_protocol".')
    ],
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Explain one offset: where it comes from, who has the same, what uses it.

    [bold]Examples[/bold]

      sockpid-gen explain 6.1.0-56-cloud-amd64 sk_protocol

      sockpid-gen explain 3b43fad5 "struct net.ns.inum" --json
    """
    from sockpid_gen import Table
    from sockpid_gen.insight import explain as explaining

    table = Table.load(offsets)
    found = explaining.explain(table, table.find(kernel), field)
    if as_json:
        print(json.dumps(_document(found), indent=1))
    else:
        _tell(found)


def _document(e: Explanation) -> Dict[str, Any]:
    from sockpid_gen.insight.cover import plain

    return {
        "kernel": identity(e.kernel),
        "field": e.field,
        "value": plain(e.value),
        "provenance": e.kernel.provenance,
        "shard": e.shard,
        "layout": e.layout,
        "struct": e.struct,
        "same": [identity(other) for other in e.same],
        "others": [{"value": plain(value), "kernels": count} for value, count in e.others.items()],
        "silent": e.silent,
        "uses": [use._asdict() for use in e.uses],
    }


def _tell(e: Explanation) -> None:
    from sockpid_gen.extraction.difference import words

    p = e.kernel.provenance
    tools = ", ".join(f"{name} {version}" for name, version in sorted(p.get("tools", {}).items()))
    out.print(f"[bold]{escape(e.field)}[/bold] of {escape(e.kernel.identity)}: [bold]{escape(words(e.value))}[/bold]\n")
    chain = (
        ("read in", f"{str(p.get('kind')).upper()} of {p.get('source')}"),
        ("sha256", str(p.get("sha256"))),
        ("read by", tools),
        ("banner", e.kernel.banner or "not known"),
        ("table", f"{e.shard}, layout {e.layout}, " + (f"struct row {e.struct}" if e.struct else "type absent")),
    )
    for name, text in chain:
        out.print(f"  {name:<8} {escape(text)}")
    by_arch: Dict[str, List[str]] = {}
    for other in e.same:
        by_arch.setdefault(other.arch, []).append(other.release)
    out.print(f"\n[bold]the same in {len(e.same)} kernels[/bold]")
    for arch, releases in by_arch.items():
        out.print(f"  {arch}: {len(releases)}, {escape(' to '.join(dict.fromkeys((releases[0], releases[-1]))))}")
    if e.others:
        rest = ", ".join(f"{words(v)} in {n}" for v, n in sorted(e.others.items(), key=lambda item: -item[1]))
        out.print(f"[bold]another value in {sum(e.others.values())}[/bold]: {escape(rest)}")
    if e.silent:
        out.print(f"{e.silent} kernels' entries do not speak of it")
    out.print(f"\n[bold]{len(e.uses)} relocations depend on it[/bold]")
    programs: Dict[str, List[str]] = {}
    for use in e.uses:
        programs.setdefault(use.program, []).append(f"{use.insn} ({use.kind})")
    for program, places in programs.items():
        out.print(f"  {program}: instructions {escape(', '.join(places))}")
