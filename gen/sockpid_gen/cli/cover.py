"""The command that tells what a table covers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, Iterable, List

from rich.markup import escape
from rich.table import Table as View

from .shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, identity, out

if TYPE_CHECKING:
    from sockpid_gen.insight.cover import Cover, FieldRow, Shard

_SHOWN = 6


@app.command()
def cover(offsets: ReadOffsets = DEFAULT_OFFSETS, as_json: Json = False) -> None:
    """Show what the table covers: kernels, layouts, and which fields ever move.

    [bold]Examples[/bold]

      sockpid-gen cover

      sockpid-gen cover --json | jq '.fields[] | select(.steps | length > 0) | .field'

      [dim]# fields that an update within a series moved[/dim]

      sockpid-gen cover --json | jq '.fields[].steps[] | select(.within_series)'
    """
    from sockpid_gen import Table
    from sockpid_gen.insight import cover as covering

    found = covering.cover(Table.load(offsets))
    if as_json:
        print(json.dumps(_document(found), indent=1))
    else:
        _tell(found)


def _document(found: Cover) -> Dict[str, Any]:
    from sockpid_gen.insight.cover import plain

    return {
        "kernels": found.kernels,
        "shards": [shard._asdict() for shard in found.shards],
        "layouts": [
            {"id": row.id, "arch": row.arch, "kernels": [identity(kernel) for kernel in row.kernels]}
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


def _tell(found: Cover) -> None:
    by_arch: Dict[str, List[Shard]] = {}
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
    out.print()
    out.print(_moving(found.fields))
    still = [field.field for field in found.fields if len(field.values) == 1]
    out.print(f"\n[bold]{len(still)} fields never move[/bold]: {escape(', '.join(still))}")


def _moving(fields: Iterable[FieldRow]) -> View:
    from sockpid_gen.extraction.difference import words

    view = View("field that moves", "values", "steps", "of them in updates of a series", box=None, pad_edge=False)
    for field in fields:
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
    return view
