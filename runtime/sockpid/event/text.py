"""An event for people and for stores of flat fields."""

from __future__ import annotations

import functools
import operator

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Mapping, Tuple


class Shape:
    """Which keys of a flat document have values, by their type. Most events of a run have the same shape, so whatever
    depends on it alone - names, templates - is made once. Templates take the values in the order of `names`."""

    def __init__(self, keys: Iterable[str], types: Iterable[type]) -> None:
        pairs = list(zip(keys, types))
        self.strings, self.integers, self.flags = (tuple(k for k, t in pairs if t is kind) for kind in (str, int, bool))
        self.names = self.strings + self.integers + self.flags
        self._get_strings, self._get_integers = _getter(self.strings), _getter(self.integers)

    def values(self, document: Mapping[str, Any]) -> Values:
        flags = tuple(["true" if document[name] else "false" for name in self.flags])
        return Values(self._get_strings(document), self._get_integers(document), flags)


class Values(NamedTuple):
    strings: Tuple[str, ...]
    integers: Tuple[int, ...]
    flags: Tuple[str, ...]


def flat(document: Mapping[str, Any]) -> Dict[str, Any]:
    """Without objects: a key within one is joined to the object's by "_"."""
    found = dict(document)
    for key in [key for key, value in document.items() if type(value) is dict]:
        found.update({f"{key}_{name}": value for name, value in flat(found.pop(key)).items()})
    return found


def shape(document: Mapping[str, Any]) -> Shape:
    """The shape of a flat document. Keys without a value, and lists, are not in it."""
    return _shape(tuple(document), tuple(map(type, document.values())))


@functools.lru_cache(maxsize=256)
def _shape(keys: Tuple[str, ...], types: Tuple[type, ...]) -> Shape:
    return Shape(keys, types)


def _getter(names: Tuple[str, ...]) -> Callable[[Mapping[str, Any]], Tuple[Any, ...]]:
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda document: tuple(document[name] for name in names)


def sentence(document: Mapping[str, Any]) -> str:
    """One line: what happened, between whom, and whose the socket is or why that is not known."""
    local, remote = end(document["saddr"], document["sport"]), end(document["daddr"], document["dport"])
    return f"{document['kind']} retransmit {local} -> {remote} of {owner(document)}"


def owner(document: Mapping[str, Any]) -> str:
    if document["pid"] is not None:
        doubt = f" (uncertain: {document['doubt']})" if document.get("doubt") else ""
        return f"{printable(document['comm'])}[{document['pid']}]{doubt}"
    return "the kernel" if document["how"] == "kernel" else f"an unknown owner ({document['reason']})"


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(name: str) -> str:
    """A process's name without what a terminal would obey: a process names itself as it likes."""
    return name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
