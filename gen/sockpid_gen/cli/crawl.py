"""Commands that make whole tables: crawl, refresh."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generator, List, Optional, Set

import typer
from rich.markup import escape

from sockpid.errors import ConflictError, SourceError, TableError, UsageError

from .shared import DEFAULT_OFFSETS, Json, Offsets, app, err, out
from .verify import print_verdict, verdict_json, verify_some

if TYPE_CHECKING:
    from sockpid_gen.verify.verify import Verdict

ARCHITECTURES = ("amd64", "arm64", "armhf", "ppc64el", "riscv64", "s390x")
"""As Debian spells those that sockpid knows."""

Archive = Annotated[Path, typer.Option("--archive", metavar="DIR", help="Directory of the archive of whole structs.")]
DEFAULT_ARCHIVE = Path("archive")


@app.command()
def crawl(
    places: Annotated[
        Optional[List[str]],
        typer.Argument(metavar="[PLACE]...", help="Packages, BTF files or vmlinux; directories of them; addresses."),
    ] = None,
    suites: Annotated[
        Optional[List[str]], typer.Option("--suite", metavar="SUITE", help="Suite of the mirror; repeatable.")
    ] = None,
    arches: Annotated[
        Optional[List[str]], typer.Option("--arch", metavar="ARCH", help="amd64, arm64, ...; repeatable; all six.")
    ] = None,
    offsets: Offsets = DEFAULT_OFFSETS,
    archived: Archive = DEFAULT_ARCHIVE,
    state_directory: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="What an interrupted crawl has read, and failures.")
    ] = Path(".cache/crawl"),
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, show_default="one for each CPU", help="Kernels read at the same time.")
    ] = os.cpu_count() or 1,
    limit: Annotated[
        Optional[int], typer.Option(metavar="N", min=0, help="Read no more than N kernels, newest first.")
    ] = None,
    keep: Annotated[
        Optional[Path], typer.Option("--keep-packages", metavar="DIR", help="Keep fetched packages here.")
    ] = None,
    scheduler: Annotated[
        Optional[str], typer.Option(metavar="ADDRESS", help="Read on this dask.distributed cluster instead.")
    ] = None,
    verify: Annotated[
        int, typer.Option(metavar="N", min=0, help="Hold N kernels that were read against their debug packages.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Read every kernel of a repository into archive and tables.

    What the archive has is not fetched again. A crawl may be interrupted, and
    goes on where it was. Packages that cannot be read are named at the end,
    and tried again the next time. Equal inputs give equal files, in whatever
    order they are read.

    With --verify, some of the new kernels are read once more, from the DWARF
    of their debug packages. A disagreement names the field, both values and
    both sources; the exit status is then 5.

    [bold]Examples[/bold]

      [dim]# nightly: what is new in these suites, for all six architectures[/dim]

      sockpid-gen crawl --suite trixie --suite trixie-security --verify 3

      sockpid-gen crawl --suite bookworm --arch amd64 --limit 10

      sockpid-gen crawl /srv/kernels   [dim]# every package and BTF file below[/dim]

      sockpid-gen crawl --suite sid --scheduler tcp://10.0.0.1:8786
    """
    from sockpid_gen.archive import archive
    from sockpid_gen.archive import refresh as refresher
    from sockpid_gen.crawl import crawl as crawler
    from sockpid_gen.crawl import plan

    if not places and not suites:
        raise UsageError("give a PLACE or a --suite to read from (`sockpid-gen crawl --help` has examples)")
    for arch in arches or ():
        if arch not in ARCHITECTURES:
            raise UsageError(f"--arch {arch}: this is not one of {', '.join(ARCHITECTURES)}")
    state = crawler.State(state_directory)
    with state.locked():
        lists = [plan.of_places(places or [])]
        for arch in arches or (ARCHITECTURES if suites else ()):
            lists.append(plan.of_suites(suites or [], arch, state_directory / "apt", err.print))
        planned = list(plan.interleave(lists))
        tasks = crawler.todo(planned, state.done() | set(archive.sources_of(archived)))
        tasks = list(itertools.islice(tasks, limit))
        kept = None if keep is None else str(keep)
        with _crawling(len(tasks), as_json) as report:
            if scheduler is None:
                crawler.run(tasks, state, jobs, kept, report)
            else:
                crawler.run_on_cluster(tasks, state, scheduler, kept, report)
        folded = crawler.fold(state, archived)
        refreshed = refresher.refresh(archived, offsets)
        new = {name for kernel in state.kernels() for name, _ in kernel["sources"]}
        state.clear()
        checked = _checked(verify, new, offsets, places or [], suites or [], state_directory / "apt", as_json)
    failures = [(name, reason) for name, reason in state.failures(planned)] + [
        ("conflict", text) for text in folded.refused
    ]
    result = {
        "planned": len(planned),
        "read": len(tasks),
        "kernels": sum(r.archived for r in refreshed),
        "written": [str(path) for path in folded.written] + [str(r.path) for r in refreshed if r.changed],
        "verified": [verdict_json(verdict) for verdict in checked],
        "failures": [{"source": name, "reason": reason} for name, reason in failures],
    }
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        for name, reason in failures:
            out.print(f"[red]not read[/red] {escape(name)}: {escape(reason)}")
        out.print(
            f"{len(planned)} kernels offered, {len(tasks)} read now, {len(failures)} failed; the table has "
            f"{result['kernels']} out of {escape(str(archived))}"
        )
        for verdict in checked:
            print_verdict(verdict)
    _lacking(refreshed, as_json)
    if any(verdict.disagreements for verdict in checked):
        raise typer.Exit(ConflictError.exit_code)
    if failures:
        raise typer.Exit(SourceError.exit_code)


@app.command()
def refresh(offsets: Offsets = DEFAULT_OFFSETS, archived: Archive = DEFAULT_ARCHIVE, as_json: Json = False) -> None:
    """Make the tables anew out of the archive.

    After a change of the bytecode: fields that it reads now, and the tables do
    not have, come out of the archive. No package is read.
    """
    from sockpid_gen.archive import refresh as refresher

    refreshed = refresher.refresh(archived, offsets)
    if not refreshed:
        raise TableError(f"{archived} is no archive; make one with `sockpid-gen crawl`, or give --archive DIR")
    if as_json:
        rows = [{**r._asdict(), "path": str(r.path)} for r in refreshed]
        print(json.dumps(rows, indent=1))
    else:
        for r in refreshed:
            verb = "[green]written[/green]" if r.changed else "[dim]unchanged[/dim]"
            others = f", {r.others} that the archive does not have" if r.others else ""
            out.print(f"{verb} {escape(str(r.path))}: {r.archived} kernels{others}")
    _lacking(refreshed, as_json)


def _checked(
    count: int, new: Set[str], offsets: Path, places: List[str], suites: List[str], state: Path, quiet: bool
) -> List[Verdict]:
    """Verdicts on some of the kernels that this crawl has read, by the names of their files."""
    if not count:
        return []
    from sockpid_gen import Table
    from sockpid_gen.verify import sampling

    kernels = [kernel for kernel in Table.load(offsets) if kernel.provenance["source"] in new]
    files = [file for place in places for file in (Path(place), *sorted(Path(place).rglob("*.deb")))]
    verdicts: List[Verdict] = []
    for fetch in (sampling.Beside(files), sampling.Fetcher(state, suites)):
        done = {verdict.kernel.key for verdict in verdicts}
        available = list(fetch.available(kernel for kernel in kernels if kernel.key not in done))
        if available and len(verdicts) < count:
            found = verify_some(available, count - len(verdicts), 1, fetch, quiet)
            verdicts += [sampled.verdict for sampled in found if sampled.verdict is not None]
    if len(verdicts) < min(count, len(kernels)) and not quiet:
        err.print(f"{len(verdicts)} of {len(kernels)} new kernels were verified, {count} were asked for")
    return verdicts


def _lacking(refreshed: List[Any], quiet: bool) -> None:
    lacking = {name for r in refreshed for name in r.lacking}
    if lacking:
        if not quiet:
            err.print(f"[red]not archived[/red]: {', '.join(sorted(lacking))}; read the packages again")
        raise typer.Exit(TableError.exit_code)


@contextlib.contextmanager
def _crawling(total: int, quiet: bool) -> Generator[Any, None, None]:
    """Shows how many kernels are read, and the names of those that are being read, on a terminal only."""
    if quiet or not err.is_terminal:
        yield _say_nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("crawl", total=total)

        def report(task: Any, outcome: Any) -> None:
            if outcome is None:
                progress.update(bar, description=escape(task.file.name[:60]))
                return
            progress.advance(bar)
            if outcome.error is not None:
                progress.console.print(f"[red]not read[/red] {escape(outcome.error)}")

        yield report


def _say_nothing(_task: Any, _outcome: Any) -> None:
    """For pipes."""
