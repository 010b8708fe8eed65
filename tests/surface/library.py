"""What Python programs may import: names, signatures, and the first sentence of what is said of them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, ForwardRef

import sockpid_gen
from sockpid import errors as tree
from sockpid import graph as graphs
from sockpid.graph.model import Node
from sockpid.graph.suspects import Suspect
from sockpid.table.layout import Enum, Field, Struct

PROTOCOLS = ("__call__", "__contains__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__")
"""Of what Python itself calls, what makes a difference to who uses a class."""

STARS: Mapping[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}

QUALIFIED = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])")
"""The module in front of a type, which may move."""


def generator() -> Iterator[str]:
    """sockpid_gen, and what is in what it gives."""
    for name in sockpid_gen.__all__:
        yield from lines(f"sockpid_gen.{name}", getattr(sockpid_gen, name))
    for given in (Field, Struct, Enum):
        yield from lines(given.__name__, given)


def graph() -> Iterator[str]:
    """sockpid.graph, and what is in what it gives."""
    for name in graphs.__all__:
        yield from lines(f"sockpid.graph.{name}", getattr(graphs, name))
    for given in (Suspect, Node):
        yield from lines(given.__name__, given)


def errors() -> Iterator[str]:
    """The tree of errors."""
    for each in _errors():
        name = f"sockpid.errors.{each.__name__}"
        yield f"{name} is {', '.join(base.__name__ for base in each.__bases__)}"
        yield from lines(name, each)


def exit_statuses() -> Iterator[str]:
    """What the programs exit with, two digits each, and the errors that stand for it."""
    yield "00 no error"
    for each in _errors():
        yield f"{each.exit_code:02} {each.__name__}"


def _errors() -> list[type[tree.SockpidError]]:
    found = [value for value in vars(tree).values() if isinstance(value, type) and issubclass(value, tree.SockpidError)]
    assert tree.SockpidError in found
    return found


def lines(name: str, value: Any) -> Iterator[str]:
    """Of a function or class and all that is public in it. name: by which it is imported."""
    if not isinstance(value, type):
        yield _described(f"{name}{signature(value)}", value.__doc__)
        return
    yield _described(f"{name}{_constructor(value)}", vars(value).get("__doc__"))
    for member, found in sorted(_members(value).items()):
        if isinstance(found, str):
            yield f"{name}.{member}{found}"
        elif isinstance(found, (classmethod, staticmethod)):
            what = "class" if isinstance(found, classmethod) else "static"
            yield _described(f"{name}.{member}{signature(found.__func__, what == 'class')} [{what}]", found.__doc__)
        elif isinstance(found, property):
            result = inspect.signature(_getter(found)).return_annotation
            yield _described(f"{name}.{member}: {bare(result)}", found.__doc__)
        elif isinstance(found, FunctionType):
            yield _described(f"{name}.{member}{signature(found, True)}", found.__doc__)


def signature(function: Callable[..., Any], is_bound: bool = False) -> str:
    """As in the source, but for modules in front of types. is_bound: without its first parameter, self or cls."""
    told = inspect.signature(function)
    words: list[str] = []
    last = None
    for parameter in list(told.parameters.values())[is_bound:]:
        if parameter.kind is parameter.KEYWORD_ONLY and last not in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL):
            words.append("*")
        last = parameter.kind
        star = STARS.get(parameter.kind, "")
        words.append(star + _parameter(parameter.name, parameter.annotation, parameter.default))
    result = "" if told.return_annotation is told.empty else f" -> {bare(told.return_annotation)}"
    return f"({', '.join(words)}){result}"


def bare(annotation: object) -> str:
    """A type as it is written where it is used, without the modules that it is from."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, type):
        annotation = annotation.__name__
    return QUALIFIED.sub("", str(annotation))


def _parameter(name: str, annotation: object, default: object) -> str:
    kind = "" if annotation is inspect.Parameter.empty else f": {bare(annotation)}"
    if default is inspect.Parameter.empty:
        return name + kind
    is_plain = default is None or isinstance(default, (bool, int, float, str)) or default == ()
    return f"{name}{kind} = {repr(default) if is_plain else '...'}"  # a function's repr has its address


def _constructor(made: Any) -> str:
    if hasattr(made, "_fields"):
        annotations = made.__annotations__
        missing = inspect.Parameter.empty
        fields = [_parameter(each, annotations[each], made._field_defaults.get(each, missing)) for each in made._fields]
        return f"({', '.join(fields)})"
    own = next((base for base in made.__mro__ if "__init__" in vars(base)), object)
    if isinstance(vars(own)["__init__"], FunctionType):
        return signature(vars(own)["__init__"], True).removesuffix(" -> None")
    return "(*args)" if issubclass(made, Exception) else "()"


def _members(made: Any) -> dict[str, Any]:
    """By name: functions, properties and such, and as text what is known of the type of a mere value."""
    found: dict[str, Any] = {}
    for base in reversed([base for base in made.__mro__ if base.__module__.startswith("sockpid")]):
        own = vars(base)
        for name, value in own.items():
            if name in PROTOCOLS or not name.startswith("_"):
                found[name] = f" = {value!r}" if isinstance(value, (bool, int, float, str)) else value
        if isinstance(own.get("__init__"), FunctionType):
            found.update(_attributes(own["__init__"]))
    if hasattr(made, "_fields"):
        found.update({name: f": {bare(made.__annotations__[name])}" for name in made._fields})
    return found


def _attributes(init: FunctionType) -> Iterator[tuple[str, str]]:
    """The public attributes that __init__ sets, and their types, where they are said."""
    body = ast.parse(textwrap.dedent(inspect.getsource(init)))
    annotated = {id(node.target): node.annotation for node in ast.walk(body) if isinstance(node, ast.AnnAssign)}
    for node in ast.walk(body):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not node.attr.startswith("_"):
            kind = annotated.get(id(node))
            yield node.attr, f": {bare(ast.unparse(kind))}" if kind is not None else ""


def _getter(found: property) -> Callable[[Any], Any]:
    assert found.fget is not None
    return found.fget


def _described(line: str, said: str | None) -> str:
    """A line with the first sentence of a docstring."""
    paragraph = " ".join((said or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=\.) ", paragraph)[0]
    return f"{line}  # {sentence}" if sentence else line
