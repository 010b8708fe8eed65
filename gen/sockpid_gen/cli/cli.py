"""The command line of the generator. Its commands are in the modules beside it, by what they are about."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Dict, Optional

import typer
from rich.markup import escape

from sockpid import __version__
from sockpid.errors import SockpidError

from .shared import app, err

HOMES: Dict[str, str] = {
    "bundle": "bundle",
    "verify-bundle": "bundle",
    "crawl": "crawl",
    "refresh": "crawl",
    "fulfil": "fulfil",
    "diff": "diff",
    "cover": "cover",
    "explain": "explain",
    "atlas": "atlas",
    "add": "table",
    "list": "table",
    "show": "table",
    "check": "table",
    "verify": "verify",
    "image": "image",
}
"""The module that registers a command as it is imported. All of them are more than half of what a start costs."""

ENVIRONMENT: Dict[str, str] = {"OMP_NUM_THREADS": "1"}
"""Of the process, where the user says nothing else. drgn's threads wait for each other by spinning, a fifth of the CPU
time that DWARF takes on two cores; and a crawl has a process for each core."""


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


def load(command: Optional[str] = None) -> typer.Typer:
    """The application with the commands of the module that `command` is in; with all, if it is no command."""
    for module in dict.fromkeys(HOMES.values()) if command not in HOMES else (HOMES[command],):
        import_module(f".{module}", __package__)
    # In whatever order the modules were imported, help tells of them in this one.
    places = {name.replace("-", "_"): place for place, name in enumerate(HOMES)}
    app.registered_commands.sort(key=lambda info: places[str(info.name or getattr(info.callback, "__name__", ""))])
    return app


def main() -> None:
    """Runs a command. Errors that users can do something about are one line on stderr and an exit code of their own."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        load(next((word for word in sys.argv[1:] if not word.startswith("-")), None))()
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
