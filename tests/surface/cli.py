"""The command lines of both programs: commands, options, what they take and what they are without."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from sockpid.cli.parser import parser
from sockpid.cli.shared import LABELS
from sockpid.manual.commands import Option, commands
from sockpid.outputs.spec import KINDS
from sockpid_gen.cli import man
from sockpid_gen.cli.cli import load


def sockpid() -> Iterator[str]:
    """Of `sockpid`."""
    whole = parser()
    parsers = [whole]
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    for command, its in zip(commands(whole), parsers, strict=True):
        name = f"sockpid {command.name}".rstrip()
        actions = [action for action in its._actions if not isinstance(action, argparse._SubParsersAction)]
        yield f"{name} command"
        yield from _options(name, command.options, [_of_argparse(action) for action in actions])
    for kind in KINDS:
        yield f"sockpid run --output {kind}"
    for label in LABELS:
        yield f"sockpid run --labels {label}"


def sockpid_gen() -> Iterator[str]:
    """Of `sockpid-gen`. Typer has its own click inside, so its types have no public names."""
    group: Any = typer.main.get_command(load())
    shown = [group, *(command for command in group.commands.values() if not command.hidden)]
    for command, its in zip(man.commands(), shown, strict=True):
        name = f"sockpid-gen {command.name}".rstrip()
        parameters = its.get_params(its.context_class(its, info_name=name))
        yield f"{name} command"
        yield from _options(name, command.options, [_of_click(parameter) for parameter in parameters])


def _options(command: str, options: tuple[Option, ...], more: list[list[str]]) -> Iterator[str]:
    """more: of each option, what Option does not say of it."""
    arguments = 0
    for option, facts in zip(options, more, strict=True):
        value = "CHOICE" if option.choices else option.value
        if option.flags:
            place = f"{command} {', '.join(option.flags)}"
        else:
            arguments += 1
            place = f"{command} argument {arguments}:"
        yield ", ".join([" ".join([place, *([value] if value else [])]), *facts])
        for choice in option.choices:
            yield f"{place} {choice}"


def _of_argparse(action: argparse.Action) -> list[str]:
    # Of arguments that may be left out, versions of Python say different things.
    required = action.required if action.option_strings else action.nargs not in ("?", "*")
    facts = _required(required, bool(action.option_strings))
    if action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction):
        facts.append("repeatable")
    return facts + _default(action.default)


def _of_click(parameter: Any) -> list[str]:
    facts = _required(parameter.required, parameter.param_type_name == "option")
    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        facts.append("repeatable")
    if parameter.envvar:
        facts.append(f"environment {parameter.envvar}")
    # What depends on the machine is told in words.
    told = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    return facts + _default(told)


def _required(required: bool, is_option: bool) -> list[str]:
    """Said where it is not what is usual."""
    if is_option:
        return ["required"] if required else []
    return [] if required else ["optional"]


def _default(value: object) -> list[str]:
    """Nothing is said of an option that without a value is as if there were none."""
    is_plain = isinstance(value, (str, int, float, Path)) and value not in ("", False, argparse.SUPPRESS)
    return [f"default {value}"] if is_plain else []
