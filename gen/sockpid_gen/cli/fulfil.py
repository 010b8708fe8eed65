"""The command that answers requests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, List, Optional

import typer
from rich.markup import escape

from sockpid.errors import UsageError
from sockpid.request import codes, request

from .shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, err, out, progress_of


@app.command()
def fulfil(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST", help="What `sockpid doctor --request` printed, or what was read of its QR codes."
        ),
    ],
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", metavar="FILE", help="Default: RELEASE.json, here.")
    ] = None,
    paths: Annotated[
        Optional[List[Path]],
        typer.Option("--from", metavar="PATH", help="A package or vmlinux, or a directory of packages; repeatable."),
    ] = None,
    apt: Annotated[bool, typer.Option(help="Ask apt for the package, in every suite.")] = True,
    suite: Annotated[Optional[List[str]], typer.Option(metavar="NAME", help="Suites for apt; repeatable.")] = None,
    cache: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Keeps apt's index (default: ~/.cache/sockpid-gen).")
    ] = None,
    debuginfod: Annotated[
        Optional[List[str]],
        typer.Option(metavar="URL", help="Server of debug information; repeatable.", envvar="DEBUGINFOD_URLS"),
    ] = None,
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Answer a host's request: find its kernel's package and make a table file of that one kernel.

    Looked at, in this order: the tables, --from, debuginfod, apt. Only a
    package with the kernel's build-id is taken, or one that is proven equal
    by the builds on both sides of it.

    [bold]Examples[/bold]

      [dim]# on the host[/dim]

      sockpid doctor --request > host.req

      [dim]# on a connected machine[/dim]

      sockpid-gen fulfil host.req -o host.json

      sockpid-gen fulfil scanned.txt   [dim]# the texts of all QR codes of `doctor --request --qr`[/dim]

      [dim]# on the host[/dim]

      sockpid run --offsets host.json   [dim]# or put it into /etc/sockpid/offsets.d/[/dim]
    """
    from sockpid_gen.crawl import fulfil as fulfilment
    from sockpid_gen.crawl.apt import SUITES
    from sockpid_gen.table import shard

    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        asked = request.parse(codes.join(text, str(file)) if codes.is_scanned(text) else text, str(file))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    state = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sockpid-gen"
    urls = [url for given in debuginfod or [] for url in given.split()]
    suites = suite or SUITES
    places = fulfilment.Places(offsets, paths or [], state if apt else None, suites, urls)

    def say(line: str) -> None:
        if err.is_terminal and not as_json:
            err.print(f"[dim]{escape(line)}[/dim]")

    with progress_of(Path(asked.release), as_json) as tick:
        answer = fulfilment.fulfil(asked, places, say, tick)
    target = output or Path(f"{asked.release}.json")
    shard.write(target, answer.content)
    if as_json:
        result = {"file": str(target), "release": asked.release, "build_id": asked.build_id, "arch": asked.arch}
        print(json.dumps({**result, "source": answer.source, "note": answer.note}, indent=1))
        return
    out.print(
        f"[green]wrote[/green] {escape(str(target))}: {asked.release} ({asked.arch}) from {escape(answer.source)}"
    )
    if answer.note:
        out.print(f"[yellow]note[/yellow] {escape(answer.note)}")
    out.print(f"on the host: sockpid run --offsets {escape(target.name)}, or copy it to /etc/sockpid/offsets.d/")
