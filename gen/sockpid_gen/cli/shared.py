"""What the commands of the generator share: the application, its consoles, options, and how progress is shown."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Dict, Generator

import typer
from rich.console import Console
from rich.markup import escape

import sockpid
from sockpid_gen.files.stream import Tick

if TYPE_CHECKING:
    from sockpid_gen.extraction.entry import KernelEntry

app = typer.Typer(
    name="sockpid-gen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
# Tables for people are cut to the terminal's width, those for pipes are not.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 400)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DEFAULT_OFFSETS = Path("offsets")
INSTALLED_OFFSETS = Path(sockpid.__file__).parent / "_data/offsets"
"""The tables that came along with a wheel; a checkout has its own in DEFAULT_OFFSETS."""


def _readable(offsets: Path) -> Path:
    """What a command that only reads takes where there are no tables in the current directory."""
    return INSTALLED_OFFSETS if offsets == DEFAULT_OFFSETS and not offsets.is_dir() else offsets


Offsets = Annotated[
    Path, typer.Option("--offsets", metavar="DIR", help="Directory of the offset tables.", envvar="SOCKPID_OFFSETS")
]
ReadOffsets = Annotated[
    Path,
    typer.Option(
        "--offsets",
        metavar="DIR",
        help="Directory of the offset tables; where there is no such directory, those that came with sockpid.",
        envvar="SOCKPID_OFFSETS",
        callback=_readable,
    ),
]
Kernel = Annotated[
    str, typer.Argument(metavar="KERNEL", help="[ARCH/]RELEASE, or the start of a build-id, of a kernel of the table.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def identity(kernel: KernelEntry) -> Dict[str, Any]:
    """What JSON calls a kernel by."""
    return {"arch": kernel.arch, "release": kernel.release, "build_id": kernel.build_id}


@contextlib.contextmanager
def progress_of(path: Path, quiet: bool) -> Generator[Tick, None, None]:
    """Shows how much of a package has been read, on a terminal only."""
    if quiet or not err.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    size = path.stat().st_size if path.is_file() else 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(escape(path.name), total=size or None)
        yield lambda count: progress.advance(task, count)
