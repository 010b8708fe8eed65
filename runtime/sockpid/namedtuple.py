"""typing.NamedTuple as it is written and checked, made in less time.

typing compiles the annotation of every field, and collections.namedtuple a function for every class: together a fifth
of all that `sockpid run` did until it was attached, with what the two import. Modules of a plain run take theirs from
here. What these make is no less: fields with defaults, `_fields`, `_make`, `_replace`, `_asdict`, a repr, pickling.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, NamedTuple, Tuple
else:
    try:
        from _collections import _tuplegetter as field  # as collections itself: a field read by C, CPython since 3.8
    except ImportError:
        from operator import itemgetter

        def field(index: int, doc: str) -> property:
            return property(itemgetter(index), doc=doc)

    class _Named(tuple):
        """What all have in common."""

        __slots__ = ()
        _fields: Tuple[str, ...] = ()
        _field_defaults: Dict[str, Any] = {}

        def __new__(cls, *values: Any, **by_name: Any) -> Any:
            if by_name or len(values) != len(cls._fields):
                values = cls._complete(values, by_name)
            return tuple.__new__(cls, values)

        @classmethod
        def _complete(cls, values: Tuple[Any, ...], by_name: Dict[str, Any]) -> Tuple[Any, ...]:
            left = cls._fields[len(values) :]
            for name in by_name:
                if name not in left:
                    raise TypeError(f"{cls.__name__}() takes {', '.join(cls._fields)}, once each: not {name}")
            if len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__}() takes {len(cls._fields)} values, not {len(values)}")
            given = {**cls._field_defaults, **by_name}
            try:
                return values + tuple([given[name] for name in left])
            except KeyError as error:
                raise TypeError(f"{cls.__name__}() lacks {error}") from None

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__}() takes {len(cls._fields)} values, not {len(made)}")
            return made

        def _replace(self, **changes: Any) -> Any:
            values = [changes.pop(name, value) for name, value in zip(self._fields, self)]
            if changes:
                raise ValueError(f"{type(self).__name__} has no field {', '.join(changes)}")
            return tuple.__new__(type(self), values)

        def _asdict(self) -> Dict[str, Any]:
            return dict(zip(self._fields, self))

        def __repr__(self) -> str:
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self) -> Tuple[Any, ...]:
            return tuple(self)

    class _Meta(type):
        def __new__(cls, name: str, _bases: Tuple[type, ...], body: Dict[str, Any]) -> type:
            fields = tuple(body["__annotations__"])
            body["_field_defaults"] = {each: body[each] for each in fields if each in body}
            body.update({each: field(index, each) for index, each in enumerate(fields)})
            return type(name, (_Named,), {**body, "__slots__": (), "_fields": fields, "__match_args__": fields})

    NamedTuple = type.__new__(_Meta, "NamedTuple", (), {})

__all__ = ["NamedTuple"]
