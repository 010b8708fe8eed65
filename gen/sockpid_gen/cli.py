"""The command line of the generator. Its commands are in modules cli_*, by what they are about."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, List

import typer
from rich.markup import escape

from sockpid import __version__
from sockpid.errors import SockpidError, UsageError

from . import cli_bundle, cli_crawl, cli_fulfil, cli_insight, cli_table, cli_verify
from .cli_shared import app, err

__all__ = ["app", "main"]

GROUPS = (cli_bundle, cli_crawl, cli_fulfil, cli_insight, cli_table, cli_verify)
"""Modules that register commands as they are imported."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sockpid-gen {__version__}")
        raise typer.Exit()


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction] - typer calls it
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make the offset tables that sockpid needs on hosts without BTF.

    A kernel is added once, on a machine that can get its package.
    The tables then travel to the hosts.

    [bold]Examples[/bold]

      sockpid-gen add linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb

      sockpid-gen add /sys/kernel/btf/vmlinux   [dim]# the kernel that runs here[/dim]

      sockpid-gen list   [dim]# what the tables have[/dim]

      sockpid-gen show 6.1.0-56-cloud-amd64   [dim]# one kernel, field by field[/dim]

      sockpid-gen fulfil host.req   [dim]# an entry for a host that asked[/dim]

      sockpid-gen check   [dim]# before tables are committed[/dim]

      sockpid-gen bundle -o sockpid.pyz   [dim]# all that a host needs, in one file[/dim]
    """


@app.command()
def image(
    object_file: Annotated[Path, typer.Argument(metavar="OBJECT", help="What clang made of the BPF C sources.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The image to write.")],
    source: Annotated[List[Path], typer.Option(metavar="FILE", help="A source of OBJECT, for the digest; repeatable.")],
) -> None:
    """Link a BPF object into a bytecode image, with relocations by name.

    [bold]Example[/bold]

      sockpid-gen image sockpid.bpf.o -o sockpid.bpfel.json --source sockpid.bpf.c --source kernel.h
    """
    from . import image as linker
    from . import shard

    try:
        content = linker.build(object_file, source)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    shard.write(output, content)


def main() -> None:
    """Runs a command. Errors that users can do something about are one line on stderr and an exit code of their own."""
    try:
        app()
    except SockpidError as error:
        err.print(f"[bold red]sockpid-gen:[/bold red] {escape(str(error))}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        err.print(f"[bold red]sockpid-gen:[/bold red] {escape(f'{error.filename}: {error.strerror}')}")
        sys.exit(SockpidError.exit_code)
