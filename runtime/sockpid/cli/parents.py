"""What parsers of commands have in common: how help looks, and options that several of them share."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys

from . import arguments, shared


class Help(argparse.RawDescriptionHelpFormatter):
    """As its base, but for the width: argparse asks shutil for it at each option, which imports compressors.

    Sentences are wrapped; examples, which are indented, stay as they are.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        lines = (textwrap.wrap(line, width) if line[:1].isupper() else [line] for line in text.splitlines())
        return "\n".join(indent + part for whole in lines for part in whole)


@functools.lru_cache(None)
def _columns() -> int:
    """Of the terminal, as shutil.get_terminal_size() would have it."""
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
        if columns > 0:
            return columns
    with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or no terminal
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr] # suppressed
    return 80


def common() -> argparse.ArgumentParser:
    """Of every command that attaches the probe; a parent for its parser."""
    parent = argparse.ArgumentParser(add_help=False, formatter_class=Help)
    arguments.add(parent, shared.COMMON)
    return parent


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the group of options that choose events."""
    arguments.add(parser.add_argument_group("filters", "only events that meet all of them"), shared.FILTERS)
