"""Two sources about one kernel: what is a contradiction, and what is silence."""

from __future__ import annotations

import re

import pytest

from sockpid.errors import ConflictError, TableError
from sockpid.offsets import agreement
from sockpid.table.layout import Field, Layout, Struct, Type

WANTED = {"struct s": frozenset(("a", "b")), "struct t": frozenset(("c",))}


A = Field(0, 32)


def layout(a: Field | None = A, *, t: Type | None = None, **fields: Field | None) -> Layout:
    return {"struct s": Struct("struct s", 64, {"a": a, "b": Field(32, 8), **fields}), "struct t": t}


def test_what_is_equal_agrees_whatever_is_said_of_signs_and_of_more() -> None:
    agreement.demand(WANTED, ("one", layout()), ("other", layout(Field(0, 32, signed=True), x=Field(8, 8))))


def test_what_a_source_does_not_speak_of_it_does_not_contradict() -> None:
    only = {"struct s": Struct("struct s", 64, {"b": Field(32, 8)})}
    agreement.demand(WANTED, ("one", only), ("other", layout()))
    agreement.demand(WANTED, ("other", layout()), ("one", only))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (Field(64, 32), "32 bits at 8"),
        (Field(0, 16), "16 bits at 0"),
        (Field(3, 5, True), "5 bits at 0 and 3 bits"),
        (None, "none"),
    ],
)
def test_a_contradiction_names_both_sources_and_the_field(field: Field | None, said: str) -> None:
    with pytest.raises(ConflictError) as conflict:
        agreement.demand(WANTED, ("/a.json", layout()), ("/sys/btf", layout(field)))
    assert conflict.value.conflicts == [f"struct s.a: 32 bits at 0 in /a.json, {said} in /sys/btf"]
    assert "/a.json and /sys/btf" in str(conflict.value)


def test_what_one_says_is_not_there() -> None:
    here = layout(t=Struct("struct t", 8, {"c": Field(0, 8)}))
    for one, other in ((layout(), here), (here, layout())):
        with pytest.raises(ConflictError, match=r"struct t\.c"):
            agreement.demand(WANTED, ("one", one), ("other", other))
    agreement.demand(WANTED, ("one", layout()), ("other", here), silence=True)
    with pytest.raises(ConflictError, match=r"struct t\.c"):
        agreement.demand(WANTED, ("one", here), ("other", layout()), silence=True)


def test_many_contradictions_are_shown_in_part() -> None:
    wanted = {"struct s": frozenset(f"f{n:02}" for n in range(20))}
    one, other = (
        {"struct s": Struct("struct s", 64, {f"f{n:02}": Field(n * 8 + shift, 8) for n in range(20)})}
        for shift in (0, 8)
    )
    with pytest.raises(ConflictError, match="and 12 more") as conflict:
        agreement.demand(wanted, ("one", one), ("other", other))
    assert len(conflict.value.conflicts) == 20


def test_who_is_silent() -> None:
    wanted = {"struct task_struct": frozenset(agreement.STARTS), **WANTED}
    task: Layout = {
        "struct task_struct": Struct("struct task_struct", 8, {"start_boottime": Field(0, 64), "real_start_time": None})
    }
    full = {**layout(t=Struct("struct t", 8, {"c": Field(0, 8)})), **task}
    assert not agreement.is_silent(wanted, full)
    assert agreement.is_silent(wanted, {**full, "struct t": None})
    assert agreement.is_silent(wanted, {**full, **layout(None, t=Struct("struct t", 8, {"c": Field(0, 8)}))})
    assert agreement.is_silent(wanted, {**full, "struct task_struct": None})


@pytest.mark.parametrize("name", [*agreement.EVERYWHERE, *agreement.OF_MPTCP])
def test_what_every_kernel_has_cannot_be_denied(name: str) -> None:
    kind, _, path = name.partition(".")
    silent: Layout = {kind: Struct(kind, 8, {})}
    has: Layout = {kind: Struct(kind, 8, {path: Field(0, 64)})}
    denied: Layout = {kind: Struct(kind, 8, {path: None})}
    for fine in (silent, has, {}):
        agreement.demand_presence(("x.json", fine), mptcp=True)
    with pytest.raises(TableError, match=rf"x\.json says that this kernel has no {re.escape(name)}"):
        agreement.demand_presence(("x.json", denied), mptcp=True)
    with pytest.raises(TableError, match=rf"x\.json says that this kernel has no {kind}\."):
        agreement.demand_presence(("x.json", {kind: None}), mptcp=True)
    if name in agreement.OF_MPTCP:
        agreement.demand_presence(("x.json", denied), mptcp=False)
