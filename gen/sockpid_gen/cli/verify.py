"""The command `verify`: two descriptions of one kernel, or more, must agree in every field."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Dict, Iterator, List, Optional

import typer
from rich.markup import escape

from sockpid.errors import ConflictError, SourceError, UsageError
from sockpid_gen.extraction.difference import words

from .shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, err, out, progress_of

if TYPE_CHECKING:
    from sockpid_gen.extraction.entry import KernelEntry
    from sockpid_gen.table.table import Table
    from sockpid_gen.verify.sampling import Fetch, Sampled
    from sockpid_gen.verify.verify import Verdict, Witness

DEFAULT_STATE = Path(".cache/apt")


@app.command()
def verify(
    sources: Annotated[
        Optional[List[Path]], typer.Argument(metavar="[SOURCE]...", help="Packages, vmlinux or BTF files of a kernel.")
    ] = None,
    selftest: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="What `sockpid selftest --json` printed; - for stdin.")
    ] = None,
    sample: Annotated[
        Optional[int], typer.Option(metavar="N", min=1, help="Fetch debug packages of N kernels of the table.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Which N kernels; the same S, the same kernels.")] = 1,
    report: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Put what --sample finds into this page, and JSON beside it."),
    ] = None,
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where --sample keeps package indices.")] = DEFAULT_STATE,
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    as_json: Json = False,
) -> None:
    """Hold everything that describes a kernel against each other.

    BTF against DWARF of the same build, both against the table, and the table
    against what a running kernel gave back. A disagreement names the field,
    both values and both sources; the exit status is then 5.

    [bold]Examples[/bold]

      [dim]# a package against the table[/dim]

      sockpid-gen verify linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb

      [dim]# BTF of the image, DWARF of the debug package, and the table[/dim]

      sockpid-gen verify linux-image-6.1.0-56-cloud-amd64_*.deb linux-image-6.1.0-56-cloud-amd64-dbg_*.deb

      [dim]# the table against the kernel that runs on another host[/dim]

      ssh host sudo sockpid selftest --json | sockpid-gen verify --selftest -

      [dim]# 20 Debian kernels, spread over architectures and series, against their DWARF[/dim]

      sockpid-gen verify --sample 20 --seed 1 --report verify.md
    """
    from sockpid_gen import Table
    from sockpid_gen.kernel.source import NOTHING_GIVEN
    from sockpid_gen.verify import verify as verifying

    if not sources and selftest is None and sample is None:
        raise UsageError("give a SOURCE, --selftest FILE or --sample N")
    if report is not None and sample is None:
        raise UsageError("--report is for what --sample finds")
    table = Table.load(offsets, create=bool(sources))
    verdicts: List[Verdict] = []
    found: List[Witness] = []
    for path in sources or ():
        with progress_of(path, as_json) as tick:
            found += verifying.witnesses(path, NOTHING_GIVEN, table, tick)
    verdicts += verifying.verify_all(found)
    if selftest is not None:
        verdicts.append(verifying.verify_selftest(table, _report(selftest)))
    if sample is not None:
        verdicts += _sampled(table, sample, seed, state, report, as_json)
    if as_json:
        print(json.dumps([verdict_json(verdict) for verdict in verdicts], indent=1))
    else:
        for verdict in verdicts:
            print_verdict(verdict)
    if any(verdict.disagreements for verdict in verdicts):
        raise typer.Exit(ConflictError.exit_code)


def _sampled(table: Table, count: int, seed: int, state: Path, report: Optional[Path], quiet: bool) -> List[Verdict]:
    """Verdicts on a sample. Raises SourceError if there are not as many as asked for."""
    from sockpid_gen.verify import report as verify_report
    from sockpid_gen.verify import sampling

    fetcher = sampling.Fetcher(state)
    available = list(fetcher.available(table))
    rows = [] if report is None else verify_report.kept(report, table)
    known = {row["build_id"] for row in rows}
    verdicts: List[Verdict] = []
    wanted = max(0, count - len(rows))
    for sampled in verify_some([k for k in available if k.build_id not in known], wanted, seed, fetcher, quiet):
        rows.append(verify_report.row_of(sampled, seed))
        if sampled.verdict is not None:
            verdicts.append(sampled.verdict)
        if report is not None:  # after each: it took minutes
            verify_report.write(report, verify_report.document(rows, len(table), len(available)))
    if len(verdicts) < wanted:
        raise SourceError(f"only {len(verdicts)} of {wanted} kernels could be verified; the reasons are above")
    return verdicts


def verify_some(kernels: List[KernelEntry], count: int, seed: int, fetch: Fetch, quiet: bool) -> Iterator[Sampled]:
    """What comes of `count` of the kernels, fewer if debug packages fail; those that do are told on stderr."""
    from sockpid_gen.verify import sampling

    with err.status("") if err.is_terminal and not quiet else contextlib.nullcontext() as status:
        for sampled in sampling.verify_sample(sampling.sample(kernels, seed), count, fetch):
            if status is not None:
                status.update(escape(sampled.kernel.identity))
            if sampled.reason is not None:
                err.print(f"not verified: {escape(sampled.kernel.identity)}: {escape(sampled.reason)}")
            yield sampled


def print_verdict(verdict: Verdict) -> None:
    """One kernel, for people."""
    good = "[red]DISAGREE[/red]" if verdict.disagreements else "[green]agree[/green]"
    out.print(f"{good} {escape(verdict.kernel.identity)}: {verdict.fields} facts, {len(verdict.witnesses)} witnesses")
    for name in verdict.witnesses:
        out.print(f"  [dim]{escape(name)}[/dim]")
    for d in verdict.disagreements:
        out.print(f"  [bold]{escape(d.field)}[/bold]")
        out.print(f"    {escape(words(d.value))}  [dim]{escape(d.source)}[/dim]")
        out.print(f"    {escape(words(d.other_value))}  [dim]{escape(d.other_source)}[/dim]")


def verdict_json(verdict: Verdict) -> Dict[str, Any]:
    """One kernel, for programs."""
    kernel = verdict.kernel
    return {
        "arch": kernel.arch,
        "release": kernel.release,
        "build_id": kernel.build_id,
        "agree": not verdict.disagreements,
        "facts": verdict.fields,
        "independent": verdict.independent,
        "witnesses": list(verdict.witnesses),
        "disagreements": [
            {
                "field": d.field,
                "value": words(d.value),
                "source": d.source,
                "other_value": words(d.other_value),
                "other_source": d.other_source,
            }
            for d in verdict.disagreements
        ],
    }


def _report(path: Path) -> Any:
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: no JSON: {error}") from None
