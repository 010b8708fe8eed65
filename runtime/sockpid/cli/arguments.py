"""Options as data, and a reading of plain command lines.

To import argparse and tell it of all options takes as long as to load the probe. So a command that has to be quick has
its options declared, and argparse is asked only for what `read` does not understand: help, mistakes, abbreviations.
"""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any, Dict, Iterable, Mapping, Optional, Sequence
else:

    class Namespace:
        """What a command line asks for, an attribute for each option: argparse's, which would have to be imported."""

        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)


class Argument(NamedTuple):
    """An option: its flag ("--max-sockets"), and what argparse's add_argument() is told of it."""

    flag: str
    told: Mapping[str, Any]

    @property
    def dest(self) -> str:
        return self.flag[2:].replace("-", "_")

    @property
    def default(self) -> Any:
        return self.told.get("default", False if self.told.get("action") == "store_true" else None)


def argument(flag: str, **told: Any) -> Argument:
    return Argument(flag, told)


def add(parser: Any, declared: Iterable[Argument]) -> None:
    """Tells argparse of options. parser: one of its parsers or groups."""
    for one in declared:
        parser.add_argument(one.flag, **one.told)


def read(words: Sequence[str], declared: Sequence[Argument]) -> Optional[Dict[str, Any]]:
    """The values as argparse would find them, by name; None where it has to be asked."""
    by_flag = {one.flag: one for one in declared}
    values = {one.dest: one.default for one in declared}
    rest = list(reversed(words))
    while rest:
        flag, equals, value = rest.pop().partition("=")
        one = by_flag.get(flag)
        if one is None or (equals and value in ("", "--")):  # of which versions of argparse make different things
            return None
        action, nargs = one.told.get("action"), one.told.get("nargs")
        if action == "store_true":
            if equals:
                return None
            values[one.dest] = True
            continue
        if not equals:
            if rest and not rest[-1].startswith("-"):
                value = rest.pop()
            elif nargs == "?":
                values[one.dest] = one.told["const"]
                continue
            else:
                return None
        try:
            found = one.told.get("type", str)(value)
        except ValueError:
            return None
        if found not in one.told.get("choices", (found,)):
            return None
        values[one.dest] = [*(values[one.dest] or []), found] if action == "append" else found
    return values


__all__ = ["Argument", "Namespace", "add", "argument", "read"]
