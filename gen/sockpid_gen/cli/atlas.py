"""The command that draws a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, out


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
    from sockpid_gen import Table
    from sockpid_gen.insight import atlas as drawing
    from sockpid_gen.table import shard

    table = Table.load(offsets)
    content = drawing.page(table)
    shard.write(output, content)
    if as_json:
        print(json.dumps({"file": str(output), "kernels": len(table), "bytes": len(content)}))
    else:
        out.print(f"[green]drawn[/green] {len(table)} kernels in {escape(str(output))} ({len(content):,} bytes)")
