"""Commands about tables: add, list, show, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, List, Optional

import typer
from rich.markup import escape
from rich.table import Table as View

from sockpid.errors import TableError, UsageError
from sockpid.table import table
from sockpid.table.layout import Field, Struct

from .shared import DEFAULT_OFFSETS, Json, Offsets, ReadOffsets, app, out, progress_of


@app.command()
def add(
    sources: Annotated[
        List[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Package, vmlinux, vmlinuz, BTF file, archive or directory of these, or /sys/kernel/btf/vmlinux.",
        ),
    ],
    offsets: Offsets = DEFAULT_OFFSETS,
    arch: Annotated[Optional[str], typer.Option(metavar="MACHINE", help="As `uname -m` says it; for bare BTF.")] = None,
    release: Annotated[Optional[str], typer.Option(metavar="RELEASE", help="As `uname -r` says it.")] = None,
    banner: Annotated[
        Optional[str], typer.Option(metavar="TEXT", help="As /proc/version says it; for bare BTF.")
    ] = None,
    build_id: Annotated[Optional[str], typer.Option(metavar="HEX", help="GNU build-id of the kernel.")] = None,
    distribution: Annotated[Optional[str], typer.Option(metavar="NAME", help="Who built it: debian, fedora.")] = None,
    find: Annotated[
        Optional[List[str]],
        typer.Option(metavar="WHERE", help="Where to find DWARF if there is none: standard, debuginfod; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add kernels to the tables, or bring their entries up to date.

    What identifies a kernel is read from the kernel itself. All descriptions
    of it (BTF and DWARF, two readers, the entry that is there already) must
    agree in every field.

    [bold]Examples[/bold]

      [dim]# Debian: linux-image-*, from 7.2 on linux-binary-*[/dim]

      sockpid-gen add linux-binary-7.3-cloud-amd64_7.3-1_amd64.deb

      [dim]# a kernel without BTF: its debug package[/dim]

      sockpid-gen add linux-image-6.1.0-56-armmp-dbg_6.1.192-2_armhf.deb

      [dim]# a kernel of your own, with BTF or DWARF[/dim]

      sockpid-gen add vmlinux

      [dim]# all in a directory or archive[/dim]

      sockpid-gen add mirror/ kernels.tar.xz

      [dim]# no BTF in it: take the DWARF from /usr/lib/debug or a debuginfod server[/dim]

      sockpid-gen add vmlinuz --find standard --find debuginfod

      [dim]# bare BTF does not say which kernel it describes[/dim]

      sockpid-gen add kernel.btf --arch x86_64 --banner "$(cat version)" --build-id 3b43fad503487449
    """
    from sockpid_gen import Table, extract_all
    from sockpid_gen.kernel import source

    given = source.Given(arch, release, banner, build_id, distribution)
    if any(given) and (len(sources) > 1 or sources[0].is_dir()):
        raise UsageError("--arch, --release, --banner, --build-id and --distribution are for one SOURCE")
    known = Table.load(offsets, create=True)
    results: List[Any] = []
    for path in sources:
        with progress_of(path, as_json) as tick:
            for kernel in extract_all(path, given, tick=tick, finders=find or ()):
                changed = known.add(kernel)
                known.save(offsets)
                result = {
                    "source": str(path),
                    "arch": kernel.arch,
                    "release": kernel.release,
                    "build_id": kernel.build_id,
                    "kind": kernel.provenance["kind"],
                    "file": str(offsets / kernel.arch / f"{table.series_of(kernel.release)}.json"),
                    "changed": changed,
                }
                results.append(result)
                if not as_json:
                    verb = "[green]added[/green]" if changed else "[dim]unchanged[/dim]"
                    what = f"{kernel.release} ({kernel.arch}, {result['kind']})"
                    out.print(f"{verb} {what} in {escape(str(result['file']))}")
    if as_json:
        print(json.dumps(results, indent=1))


@app.command("list")
def list_kernels(offsets: ReadOffsets = DEFAULT_OFFSETS, as_json: Json = False) -> None:
    """List the kernels that the tables have."""
    from sockpid_gen import Table

    rows = [(shard, entry) for shard in Table.load(offsets).shards() for entry in shard.entries]
    if as_json:
        print(json.dumps([_as_json(shard, entry) for shard, entry in rows], indent=1))
        return
    view = View("arch", "release", "distribution", "build-id", "from", "layout", box=None, pad_edge=False)
    for shard, entry in rows:
        cells = (shard.arch, entry.release, entry.distribution or "-", (entry.build_id or "-")[:16])
        view.add_row(*map(escape, (*cells, str(entry.provenance.get("kind")), entry.layout)))
    out.print(view)


@app.command()
def show(
    kernel: Annotated[str, typer.Argument(metavar="KERNEL", help="Release, or the start of a build-id.")],
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Show one kernel: where its offsets come from, and every field.

    [bold]Examples[/bold]

      sockpid-gen show 6.1.0-56-cloud-amd64

      sockpid-gen show 3b43fad5   [dim]# by build-id[/dim]
    """
    from sockpid_gen import Table

    known = Table.load(offsets)
    shard, entry = known.locate(known.find(kernel))
    layout = shard.layout(entry)
    if as_json:
        rows = {name: None if row is None else shard.structs[row] for name, row in shard.layouts[entry.layout].items()}
        print(json.dumps({**_as_json(shard, entry), "types": rows}, indent=1))
        return
    for key, value in _as_json(shard, entry).items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        out.print(f"[bold]{key}[/bold] {escape(text)}")
    view = View("field", "at", "size", "", box=None, pad_edge=False)
    for name, row in sorted(layout.items()):
        if row is None:
            view.add_row(name, "absent", "", "")
            continue
        view.add_row(f"[bold]{name}[/bold]", "", str(row.size), "")
        if isinstance(row, Struct):
            for path, field in sorted(row.fields.items()):
                view.add_row(f"  {escape(path)}", *_cells(field))
        else:
            for enumerator, number in sorted(row.values.items()):
                view.add_row(f"  {enumerator}", "absent" if number is None else f"= {number}", "", "")
    out.print(view)


@app.command()
def check(offsets: ReadOffsets = DEFAULT_OFFSETS, as_json: Json = False) -> None:
    """Check the tables: schema, canonical form byte for byte, ids, and that the bytecode finds every field it reads."""
    from sockpid_gen.table import check as checks

    checked = list(checks.check(offsets))
    if as_json:
        print(
            json.dumps([{"file": str(c.path), "kernels": c.kernels, "problems": c.problems} for c in checked], indent=1)
        )
    else:
        for c in checked:
            if not c.problems:
                out.print(f"[green]ok[/green]  {escape(str(c.path))}: {c.kernels} kernels")
            for problem in c.problems:
                out.print(f"[red]bad[/red] {escape(f'{c.path}: {problem}')}")
    if any(c.problems for c in checked):
        raise typer.Exit(TableError.exit_code)


def _as_json(shard: table.Shard, entry: table.Entry) -> Any:
    return {"arch": shard.arch, "series": shard.series, **entry._asdict()}


def _cells(field: Optional[Field]) -> List[str]:
    if field is None:
        return ["absent", "", ""]
    signed = "signed" if field.signed else ""
    if field.bitfield:
        return [f"bit {field.bit_offset}", f"{field.bit_size} bits", signed]
    return [str(field.offset), str(field.size), signed]
