"""Commands that look into tables: diff, cover, explain, atlas."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Dict, List

import typer
from rich.markup import escape
from rich.table import Table as View

from .cli_shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, out

Kernel = Annotated[
    str, typer.Argument(metavar="KERNEL", help="[ARCH/]RELEASE, or the start of a build-id, of a kernel of the table.")
]
_SHOWN = 6


@app.command()
def diff(
    one: Kernel,
    other: Kernel,
    insns: Annotated[bool, typer.Option("--insns", help="Also every instruction that is patched differently.")] = False,
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Show which fields moved between two kernels, and which programs notice.

    [bold]Examples[/bold]

      sockpid-gen diff 6.1.0-56-cloud-amd64 6.12.117+deb13-cloud-amd64

      [dim]# instruction by instruction, patched for one and for the other[/dim]

      sockpid-gen diff 6.1.0-56-cloud-amd64 6.12.117+deb13-cloud-amd64 --insns

      sockpid-gen diff 3b43fad5 eeee0422   [dim]# by build-id; across architectures too[/dim]
    """
    from . import Table
    from . import diff as differ
    from .cover import plain
    from .difference import words

    table = Table.load(offsets)
    found = differ.diff(table.find(one), table.find(other))
    patched = differ.instructions(found.one, found.other) if insns else []
    if as_json:
        document: Dict[str, Any] = {
            "one": _identity(found.one),
            "other": _identity(found.other),
            "same": found.same,
            "moves": [
                {
                    "field": move.difference.field,
                    "one": _json(move.difference.one, plain),
                    "other": _json(move.difference.other, plain),
                    "uses": [use._asdict() for use in move.uses],
                }
                for move in found.moves
            ],
            "only_one": found.only_one,
            "only_other": found.only_other,
            "programs": found.programs,
        }
        if insns:
            document["instructions"] = [insn._asdict() for insn in patched]
        print(json.dumps(document, indent=1))
        return
    out.print(f"[bold]one[/bold]    {escape(found.one.identity)}\n[bold]other[/bold]  {escape(found.other.identity)}\n")
    view = View("field", "one", "other", "relocations", "programs", box=None, pad_edge=False)
    for move in found.moves:
        programs = Counter(use.program for use in move.uses)
        told = escape(", ".join(programs)) or "[dim]none reads it[/dim]"
        cells = (move.difference.field, words(move.difference.one), words(move.difference.other))
        view.add_row(*map(escape, cells), str(len(move.uses)), told)
    if found.moves:
        out.print(view)
    moved = sum(bool(move.uses) for move in found.moves)
    out.print(f"\n{moved} fields that programs read differ, {found.same} facts are the same")
    for name, only in ((one, found.only_one), (other, found.only_other)):
        if only:
            out.print(f"only {escape(name)} speaks of: {escape(', '.join(only))}")
    for program, count in found.programs.items():
        out.print(f"  {program}: {count} instructions depend on what differs")
    if insns:
        listing = View("program", "insn", "one", "other", "because of", box=None, pad_edge=False)
        for p in patched:
            listing.add_row(p.program, str(p.insn), escape(p.one), escape(p.other), escape(", ".join(p.fields)))
        out.print()
        out.print(listing)


@app.command()
def cover(offsets: ReadOffsets = DEFAULT_OFFSETS, as_json: Json = False) -> None:
    """Show what the table covers: kernels, layouts, and which fields ever move.

    [bold]Examples[/bold]

      sockpid-gen cover

      sockpid-gen cover --json | jq '.fields[] | select(.steps | length > 0) | .field'

      [dim]# fields that an update within a series moved[/dim]

      sockpid-gen cover --json | jq '.fields[].steps[] | select(.within_series)'
    """
    from . import Table
    from . import cover as covering
    from .cover import plain
    from .difference import words

    found = covering.cover(Table.load(offsets))
    if as_json:
        document = {
            "kernels": found.kernels,
            "shards": [shard._asdict() for shard in found.shards],
            "layouts": [
                {"id": row.id, "arch": row.arch, "kernels": [_identity(kernel) for kernel in row.kernels]}
                for row in found.layouts
            ],
            "structs": found.structs,
            "fields": [
                {
                    "field": row.field,
                    "values": [{"value": plain(value), "kernels": count} for value, count in row.values.items()],
                    "steps": [
                        {
                            "arch": step.arch,
                            "flavour": step.flavour,
                            "before": step.before.release,
                            "after": step.after.release,
                            "value": plain(step.value),
                            "other_value": plain(step.other_value),
                            "within_series": step.within_series,
                        }
                        for step in row.steps
                    ],
                }
                for row in found.fields
            ],
        }
        print(json.dumps(document, indent=1))
        return
    by_arch: Dict[str, List[covering.Shard]] = {}
    for shard in found.shards:
        by_arch.setdefault(shard.arch, []).append(shard)
    view = View("arch", "kernels", "layouts", "series (kernels/layouts)", box=None, pad_edge=False)
    for arch, shards in by_arch.items():
        told = "  ".join(f"{s.series} ({s.kernels}/{s.layouts})" for s in shards)
        kernels = sum(s.kernels for s in shards)
        view.add_row(arch, str(kernels), str(len({row.id for row in found.layouts if row.arch == arch})), told)
    out.print(view)
    distinct = len({row.id for row in found.layouts})
    out.print(f"\n[bold]{found.kernels} kernels have {distinct} layouts[/bold]; most kernels to a layout:")
    for row in found.layouts[:_SHOWN]:
        ends = dict.fromkeys((row.kernels[0].release, row.kernels[-1].release))
        out.print(f"  {row.id}  {len(row.kernels):>4}  {row.arch}: {escape(' to '.join(ends))}")
    rows = ", ".join(f"{name} {count}" for name, count in found.structs.items())
    out.print(f"\n[bold]different rows by type[/bold]: {escape(rows)}")
    view = View("field that moves", "values", "steps", "of them in updates of a series", box=None, pad_edge=False)
    for field in found.fields:
        if len(field.values) > 1:
            inside = [step for step in field.steps if step.within_series]
            told = "; ".join(
                f"{s.before.release} to {s.after.release}: {words(s.value)} to {words(s.other_value)}"
                for s in inside[:2]
            ) + (f"; and {len(inside) - 2} more" if len(inside) > 2 else "")
            counts = str(len(field.values)), str(len(field.steps))
            view.add_row(
                escape(field.field), *counts, escape(f"{len(inside)}: {told}") if inside else "[dim]none[/dim]"
            )
    out.print()
    out.print(view)
    still = [field.field for field in found.fields if len(field.values) == 1]
    out.print(f"\n[bold]{len(still)} fields never move[/bold]: {escape(', '.join(still))}")


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
    from . import Table
    from . import explain as explaining
    from .cover import plain
    from .difference import words

    table = Table.load(offsets)
    e = explaining.explain(table, table.find(kernel), field)
    if as_json:
        document = {
            "kernel": _identity(e.kernel),
            "field": e.field,
            "value": plain(e.value),
            "provenance": e.kernel.provenance,
            "shard": e.shard,
            "layout": e.layout,
            "struct": e.struct,
            "same": [_identity(other) for other in e.same],
            "others": [{"value": plain(value), "kernels": count} for value, count in e.others.items()],
            "silent": e.silent,
            "uses": [use._asdict() for use in e.uses],
        }
        print(json.dumps(document, indent=1))
        return
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


@app.command()
def atlas(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML page to write.")],
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Draw the table: one page that shows where fields move from version to version.

    The page is complete in itself: any browser shows it, without a network.

    [bold]Examples[/bold]

      sockpid-gen atlas -o atlas.html

      sockpid-gen atlas -o mine.html --offsets my-offsets
    """
    from . import Table, shard
    from . import atlas as drawing

    table = Table.load(offsets)
    content = drawing.page(table)
    shard.write(output, content)
    if as_json:
        print(json.dumps({"file": str(output), "kernels": len(table), "bytes": len(content)}))
    else:
        out.print(f"[green]drawn[/green] {len(table)} kernels in {escape(str(output))} ({len(content):,} bytes)")


def _identity(kernel: Any) -> Dict[str, Any]:
    return {"arch": kernel.arch, "release": kernel.release, "build_id": kernel.build_id}


def _json(value: Any, plain: Any) -> Any:
    """A side of a difference: a whole type stands for that it is there."""
    return {"size": value.size} if hasattr(value, "fields") or hasattr(value, "values") else plain(value)
