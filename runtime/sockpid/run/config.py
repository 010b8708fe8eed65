"""Options of a command from a file: TOML, or JSON where Python has no TOML reader (before 3.11). Keys are the names of
the options; what the command line says wins.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
from typing import Any, Dict, List, Optional, Sequence

from sockpid.errors import UsageError

DIRECTORY = "/etc/sockpid"
NAMES = ("config.toml", "config.json")


def place(directory: str = DIRECTORY) -> Optional[str]:
    """The file that is there. Raises UsageError if there are two: which one is meant?"""
    found = [path for path in (os.path.join(directory, name) for name in NAMES) if os.path.exists(path)]
    if len(found) > 1:
        raise UsageError(f"there are {' and '.join(found)}; take one of them away")
    return found[0] if found else None


def read(path: str) -> Dict[str, Any]:
    """What a file says, by its ending. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            content = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if path.endswith(".json"):
        try:
            document: Any = json.loads(content)
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None
    else:
        document = _toml(path, content)
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no object of options")
    return document  # pyright: ignore[reportUnknownVariableType] # of whatever the file says


def _toml(path: str, content: str) -> Any:
    try:
        tomllib: Any = importlib.import_module("tomllib")
    except ImportError:
        raise UsageError(
            f"{path}: this Python reads no TOML (3.11 and later do); write it as JSON, in a file that ends in .json"
        ) from None
    try:
        return tomllib.loads(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def merge(parser: argparse.ArgumentParser, words: Sequence[str], path: str, never: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command: `words` of its command line, then what the file says, then the defaults.

    never: names of options that a file cannot hold. Raises UsageError.
    """
    arguments, given = parser.parse_args(words), _given(parser, words)
    for dest, value in _values(parser, read(path), path, never).items():
        if dest not in given:
            setattr(arguments, dest, value)
    return arguments


def _given(parser: argparse.ArgumentParser, words: Sequence[str]) -> List[str]:
    """What the command line says itself: parsed once more, with no default to be taken for it."""
    defaults = [(action, action.default) for action in parser._actions]
    try:
        for action, _ in defaults:
            action.default = argparse.SUPPRESS
        return list(vars(parser.parse_args(words)))
    finally:
        for action, default in defaults:
            action.default = default


def _values(
    parser: argparse.ArgumentParser, document: Dict[str, Any], path: str, never: Sequence[str]
) -> Dict[str, Any]:
    """The values by their names in the parser's result."""
    known = {
        flag[2:]: action
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag[2:] not in (*never, "help")
    }
    values: Dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise UsageError(f"{path}: unknown option {key!r}{hint} (`sockpid run --help` lists them)")
        if value is not False:  # as if it were not there
            values[known[key].dest] = _value(known[key], value, f"{path}: {key}")
    return values


def _value(action: argparse.Action, value: Any, what: str) -> Any:
    """The value as the parser would have made it. Raises UsageError if it is none for this option."""
    if value is True and action.nargs in (0, "?"):
        return action.const
    if isinstance(value, bool) or action.nargs == 0:
        wanted = "true or false" if action.nargs == 0 else "a value"
        raise UsageError(f"{what} = {json.dumps(value, default=str)}: {wanted} is wanted")
    if action.type in (int, float):
        if not isinstance(value, (int, float)) or (action.type is int and value != int(value)):
            raise UsageError(f"{what} = {json.dumps(value, default=str)}: a number is wanted")
        return value
    several = isinstance(value, list)
    texts: List[Any] = value if several else [value]
    many = isinstance(action, argparse._AppendAction)
    if not all(isinstance(text, str) for text in texts) or (several and not many and "," not in str(action.metavar)):
        raise UsageError(f"{what} = {json.dumps(value, default=str)}: text is wanted")
    if action.choices is not None and value not in action.choices:
        raise UsageError(f"{what} = {json.dumps(value)}: none of {', '.join(map(str, action.choices))}")
    return texts if many else ",".join(texts)
