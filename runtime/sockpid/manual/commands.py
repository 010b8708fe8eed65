"""The command line as data, read from its parser: what the man page and the shells' completions are made of."""

from __future__ import annotations

import argparse
import re
from typing import List, NamedTuple, Optional, Tuple


class Option(NamedTuple):
    """flags: "--json"; none for a positional argument. value: what follows it ("FILE"), None if nothing does."""

    flags: Tuple[str, ...]
    value: Optional[str]
    help: str
    choices: Tuple[str, ...]


class Command(NamedTuple):
    """name: "" for the program itself. summary: one line; about and examples: as --help has them."""

    name: str
    summary: str
    about: str
    usage: str
    examples: str
    options: Tuple[Option, ...]


def commands(parser: argparse.ArgumentParser) -> List[Command]:
    """The program itself, then its commands, as --help tells of them."""
    found = [_command(parser, "", "")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found += [_command(sub, name, summaries.get(name, "")) for name, sub in action.choices.items()]
    return found


def _command(parser: argparse.ArgumentParser, name: str, summary: str) -> Command:
    plain = re.sub("\x1b\\[[0-9;]*m", "", parser.format_usage())  # Python 3.14 colours it on a terminal
    usage = " ".join(plain.partition(": ")[2].split())
    options = [_option(parser, a) for a in parser._actions if not isinstance(a, argparse._SubParsersAction)]
    return Command(name, summary, parser.description or "", usage, parser.epilog or "", tuple(options))


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> Option:
    flags = tuple(action.option_strings)
    value = None
    if action.nargs != 0:
        value = str(action.metavar or (action.dest.upper() if flags else action.dest))
        if action.choices is not None and action.metavar is None:
            value = "|".join(str(choice) for choice in action.choices)
        if action.nargs == "?" and flags:
            value = f"[{value}]"
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return Option(flags, value, " ".join(text.split()), tuple(str(choice) for choice in action.choices or ()))
