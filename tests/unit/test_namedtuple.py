"""Our NamedTuple makes what typing's makes."""

from __future__ import annotations

import pickle
import typing
from collections.abc import Callable
from typing import Any, Optional

import pytest

from sockpid import namedtuple
from sockpid.table import layout


def classes(base: Any) -> Any:
    class Point(base):  # type: ignore[misc] # of a base that is given
        """A place."""

        x: int
        y: Optional[str] = None
        z: list[int] = []

        @property
        def far(self) -> bool:
            return bool(self.x > 10)

        def __bool__(self) -> bool:
            return bool(self.x)

    return Point


@pytest.mark.parametrize("make", [lambda c: c(1), lambda c: c(20, "a"), lambda c: c(x=0, z=[1])._replace(y="b")])
def test_values_are_the_same(make: Any) -> None:
    ours, theirs = make(classes(namedtuple.NamedTuple)), make(classes(typing.NamedTuple))
    assert ours == theirs
    assert (repr(ours), ours._asdict(), ours.far, bool(ours)) == (
        repr(theirs),
        theirs._asdict(),
        theirs.far,
        bool(theirs),
    )


def test_classes_are_the_same() -> None:
    ours, theirs = classes(namedtuple.NamedTuple), classes(typing.NamedTuple)
    for what in ("__doc__", "__name__", "__module__", "_fields", "_field_defaults", "__match_args__"):
        assert getattr(ours, what) == getattr(theirs, what), what
    wrongs: tuple[Callable[[Any], object], ...] = (
        lambda c: c(),
        lambda c: c(1, 2, 3, 4),
        lambda c: c(1, x=1),
        lambda c: c(1, w=1),
        lambda c: c._make([1]),
    )
    for wrong in wrongs:
        for each in (ours, theirs):
            with pytest.raises(TypeError):
                wrong(each)
    for each in (ours, theirs):
        with pytest.raises((TypeError, ValueError)):
            each(1)._replace(w=1)
        with pytest.raises(AttributeError):
            each(1).w = 1
        assert each._make([1, 2, 3]) == (1, 2, 3)


def test_values_can_be_pickled() -> None:
    """The generator's workers send them to each other."""
    field = layout.Field(8, 16, signed=True)
    assert pickle.loads(pickle.dumps(field)) == field
