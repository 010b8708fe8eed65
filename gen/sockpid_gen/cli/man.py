"""Manual pages of both programs from what their --help says: `python -m sockpid_gen.cli.man DIRECTORY`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, List

import typer.main
from rich.text import Text

from sockpid import __version__
from sockpid.manual.commands import Command, Option
from sockpid.manual.manual import page
from sockpid_gen.table.shard import write

from . import cli

SUMMARY = "makes the offset tables and bundles that sockpid needs on hosts without BTF"


def commands() -> List[Command]:
    """The program itself, then its commands. Typer has its own click inside, so its types have no public names."""
    group: Any = typer.main.get_command(cli.load())
    context = group.context_class(group, info_name="sockpid-gen")
    found = [_command(group, context, "")]
    for name, command in group.commands.items():
        if not command.hidden:
            found.append(_command(command, command.context_class(command, info_name=name, parent=context), name))
    return found


def _command(command: Any, context: Any, name: str) -> Command:
    about, _, examples = Text.from_markup(command.help or "").plain.partition("\nExample")
    examples = re.sub(r"\n\s*\n", "\n", examples.lstrip("s")).strip("\n")
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    options = tuple(_option(parameter) for parameter in command.get_params(context))
    return Command(name, command.get_short_help_str(), about, usage, examples, options)


def _option(parameter: Any) -> Option:
    text, value = str(getattr(parameter, "help", None) or ""), parameter.metavar or parameter.name.upper()
    if parameter.param_type_name != "option":
        return Option((), value, text, ())
    flags = (*parameter.opts, *parameter.secondary_opts)
    return Option(flags, None if parameter.is_flag else value, text, ())


def main() -> None:
    """Writes sockpid-gen.1 into a directory."""
    directory = Path(sys.argv[1])
    write(directory / "sockpid-gen.1", page("sockpid-gen", 1, __version__, SUMMARY, commands(), {}).encode())


if __name__ == "__main__":
    main()
