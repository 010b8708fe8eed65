"""Manual pages in man(7) macros, made of what a program's --help says."""

from __future__ import annotations

import re
from typing import List, Mapping, Sequence

from .commands import Command


def page(
    name: str, section: int, version: str, summary: str, commands: Sequence[Command], more: Mapping[str, str]
) -> str:
    """The page of a program. commands: the program itself first; more: further sections, by title."""
    first = commands[0]
    lines = [
        f'.TH {name.upper()} {section} "" "{name} {version}" ""',
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary)}",
        ".SH SYNOPSIS",
    ]
    for command in commands:
        lines += [".PP", _text(command.usage)]
    lines += [".SH DESCRIPTION", *_paragraphs(first.about), ".SH OPTIONS", *_options(first)]
    if len(commands) > 1:
        lines.append(".SH COMMANDS")
    for command in commands[1:]:
        lines += [f".SS {name} {command.name}", *_paragraphs(command.about or command.summary), *_options(command)]
        lines += _examples(command.examples)
    if first.examples:
        lines += [".SH NOTES", *_examples(first.examples)]
    for title, text in more.items():
        lines += [f".SH {title.upper()}", *_paragraphs(text)]
    return "\n".join(lines) + "\n"


def _options(command: Command) -> List[str]:
    lines: List[str] = []
    for option in command.options:
        names = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in option.flags)
        value = f"\\fI{_text(option.value)}\\fR" if option.value else ""
        lines += [".TP", " ".join(part for part in (names, value) if part), _text(option.help)]
    return lines


def _examples(text: str) -> List[str]:
    """Text whose line breaks stay."""
    return [".PP", ".nf", *(_text(line) or "\\&" for line in text.splitlines()), ".fi"] if text else []


def _paragraphs(text: str) -> List[str]:
    lines: List[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _text(text: str) -> str:
    """Text that the formatter takes as it stands."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith((".", "\\(aq")) else text
