"""The command that tells two kernels apart."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Dict, List, Optional

import typer
from rich.markup import escape
from rich.table import Table as View

from .shared import DEFAULT_OFFSETS, Json, Kernel, ReadOffsets, app, identity, out

if TYPE_CHECKING:
    from sockpid_gen.insight.diff import Diff, Patched


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
    from sockpid_gen import Table
    from sockpid_gen.insight import diff as differ

    table = Table.load(offsets)
    found = differ.diff(table.find(one), table.find(other))
    patched = differ.instructions(found.one, found.other) if insns else None
    if as_json:
        print(json.dumps(_document(found, patched), indent=1))
        return
    _tell(found, one, other)
    if patched is not None:
        listing = View("program", "insn", "one", "other", "because of", box=None, pad_edge=False)
        for p in patched:
            listing.add_row(p.program, str(p.insn), escape(p.one), escape(p.other), escape(", ".join(p.fields)))
        out.print()
        out.print(listing)


def _document(found: Diff, patched: Optional[List[Patched]]) -> Dict[str, Any]:
    document: Dict[str, Any] = {
        "one": identity(found.one),
        "other": identity(found.other),
        "same": found.same,
        "moves": [
            {
                "field": move.difference.field,
                "one": _side(move.difference.one),
                "other": _side(move.difference.other),
                "uses": [use._asdict() for use in move.uses],
            }
            for move in found.moves
        ],
        "only_one": found.only_one,
        "only_other": found.only_other,
        "programs": found.programs,
    }
    if patched is not None:
        document["instructions"] = [insn._asdict() for insn in patched]
    return document


def _side(value: Any) -> Any:
    """A side of a difference: a whole type stands for that it is there."""
    from sockpid_gen.insight.cover import plain

    return {"size": value.size} if hasattr(value, "fields") or hasattr(value, "values") else plain(value)


def _tell(found: Diff, one: str, other: str) -> None:
    """one, other: what the user called them."""
    from sockpid_gen.extraction.difference import words

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
