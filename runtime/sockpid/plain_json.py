"""JSON as json.loads() and json.dumps() have it, without importing json where the Python is CPython.

json imports re, and that enum and functools: a tenth of all that `sockpid run` did until it was attached. What parses
and writes for it is C that needs none of these: `_json`, which the json of every CPython so far (2.7 to 3.14) takes
from there in this way. Where it is not to be had in this way - PyPy, a CPython to come - json is imported. For what is
no JSON, too, so that the error is json's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Settings:
    """What _json wants to be told, as json's decoder has it by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(name)  # NaN and the like: json decides


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_scan: Any
_encode: Any
_encode_spaced: Any
try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Settings)  # type: ignore[arg-type] # it asks for attributes, of whatever
    _encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", True, False, True)
    _encode_spaced = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", True, False, True)
except (ImportError, AttributeError, TypeError):
    _scan = _encode = _encode_spaced = None


def loads(text: bytes) -> Any:
    """The value of a JSON document in UTF-8. Raises ValueError and RecursionError, as json.loads()."""
    if _scan is not None:
        try:
            decoded = text.decode().strip(" \t\n\r")
            value, end = _scan(decoded, 0)
        except (ValueError, StopIteration, SystemError):
            pass  # the last is how the scanner ends where it has found an error, and no json to take one from
        else:
            if end == len(decoded):
                return value
    import json

    return json.loads(text)


def canonical(value: object) -> str:
    """Keys sorted, ASCII, no blanks: what the ids of a table's rows are made of."""
    if _encode is not None:
        return "".join(_encode(value, 0))
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def spaced(value: object) -> str:
    """As canonical(), with a blank after each comma and colon: how tables have it in their lines."""
    if _encode_spaced is not None:
        return "".join(_encode_spaced(value, 0))
    import json

    return json.dumps(value, sort_keys=True)
