"""typing.NamedTuple as it is written and checked, made in less time.

typing compiles the annotation of every field, which was a tenth of all that `sockpid run` did until it was attached.
Modules that it imports until then take theirs from here.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, Dict, Tuple

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Meta(type):
        def __new__(cls, name: str, _bases: Tuple[type, ...], body: Dict[str, Any]) -> type:
            fields = body.pop("__annotations__")
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body.pop("__module__"))
            for attribute, value in body.items():
                setattr(made, attribute, value)
            return made

    NamedTuple = type.__new__(_Meta, "NamedTuple", (), {})

__all__ = ["NamedTuple"]
