"""A relocate() with a mistake in it does not pass every program on every kind of machine.

One kind of relocation of one field is off by a step, in turn; then whole rules are: the other byte order's shift, the
other register, the size of a neighbour. What is not noticed stands here with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import SockpidError
from sockpid.image import image, insn, relocate
from sockpid.image.image import PROBE_CTX, SETTING, Relocation
from sockpid.table.layout import Field, Struct
from tests.bpf import programs
from tests.bpf.every_program import Kind, play
from tests.bpf.memory import Fault
from tests.unit.image.test_layouts import kinds

UNSIGNED = "what is read is a number of 64 bits without sign, whatever the kernel's type says"
FEW_BITS = "bits beyond those that are read are shifted out again"
FIRST = "of the byte and its neighbour the first is used; a kernel in which the field has two is refused by its size"
ITS_HALF = "the flags that are looked at are in the half that comes first"
HARMLESS: dict[tuple[str, str, str], str] = {
    ("signed", "", ""): UNSIGNED,
    ("byte_sz", "struct inet_connection_sock.icsk_ca_state", "little"): FEW_BITS,
    ("byte_sz", "struct sock.sk_kern_sock", "little"): FEW_BITS,
    ("byte_sz", "struct inet_connection_sock.icsk_pending", ""): FIRST,
    ("byte_sz", "struct sock.__sk_common.skc_state", ""): FIRST,
    ("byte_sz", "struct sock.sk_allocation", "little"): ITS_HALF,
    ("byte_sz", "struct task_struct.flags", "big"): ITS_HALF,
    ("byte_sz", "struct socket_alloc.vfs_inode.i_ino", "little 64"): "inodes of sockets have 32 bits",
}
"""Kind of relocation, field ("": any), machines ("": any) -> why nobody could notice."""


def newest(arch: str) -> Kind:
    """Of an architecture, a kernel of the series with the most."""
    return max((kind for kind in kinds()[0] if kind.arch.name == arch), key=lambda kind: len(kind.releases))


def noticed(kind: Kind) -> bool:
    try:
        play(kind)
    except (AssertionError, Fault, SockpidError, KeyError):
        return True
    return False


def keys(kind: Kind) -> Iterator[tuple[str, str, str]]:
    """Kind, type and path of every relocation that speaks of what the kernel has."""
    order = kind.arch.byte_order
    for program in kind.image.programs.values():
        for r in program.relocations:
            if r.type not in (PROBE_CTX, SETTING) and relocate._value(program, r, kind.layout, order)[0] is not None:
                yield r.kind, r.type, r.path


def off_by_a_step(key: tuple[str, str, str]) -> Callable[..., Any]:
    right: Any = relocate._value

    def wrong(program: Any, r: Relocation, layout: Any, byte_order: str) -> Any:
        value, field = right(program, r, layout, byte_order)
        if (r.kind, r.type, r.path) != key:
            return value, field
        if r.kind in ("signed", "field_exists", "type_exists", "enumval_exists"):
            return 1 - value, field
        if r.kind == "byte_sz":
            return (value // 2 if value > 1 else 2), field
        return value + 1, field

    return wrong


def unnoticed(
    kind: Kind, tried: Iterable[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str]]:
    """Kind and field of the relocations that may be off by a step."""
    assert not noticed(kind)
    passed = []
    for key in tried:
        with monkeypatch.context() as patch:
            patch.setattr(relocate, "_value", off_by_a_step(key))
            if not noticed(kind):
                passed.append((key[0], f"{key[1]}.{key[2]}"))
    return passed


def reasons(what: str, name: str, arch: str) -> list[tuple[str, str, str]]:
    """The entries of HARMLESS that speak of a relocation."""
    order = ARCHES[arch].byte_order
    machines = "", order, f"{order} {8 * ARCHES[arch].pointer_size}"
    return [key for field in (name, "") for machine in machines if (key := (what, field, machine)) in HARMLESS]


@pytest.mark.parametrize("arch", ["x86_64", "arm", "s390x"])
def test_every_relocation_that_is_off_by_a_step_is_noticed(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = sorted(set(keys(newest(arch))))
    assert len(every) > 90
    passed = unnoticed(newest(arch), every, monkeypatch)
    assert [one for one in passed if not reasons(*one, arch)] == []
    needed = {key for one in passed for key in reasons(*one, arch)}
    spoken = {key for what, name, path in every for key in reasons(what, f"{name}.{path}", arch)}
    assert needed == spoken, "what is said to be harmless is noticed"


@pytest.mark.parametrize("arch", ["aarch64", "ppc64le", "riscv64"])
def test_steps_of_each_kind_are_noticed_on_the_other_machines(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = sorted(set(keys(newest(arch))))
    some = every[:: 4 + sorted(ARCHES).index(arch) % 3]
    some += [key for key in every if key[0] in ("lshift_u64", "rshift_u64")]
    assert {what for what, _, _ in some} == {what for what, _, _ in every}
    assert [one for one in unnoticed(newest(arch), some, monkeypatch) if not reasons(*one, arch)] == []


def test_steps_are_noticed_where_type_and_protocol_are_fields_of_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.6. What comes before the bits is read too, and shifted out, on machines that are little-endian."""
    old = [kind for kind in kinds()[0] if (field := place(kind, "struct sock", "sk_protocol")) and field.bitfield]
    assert {kind.arch.name for kind in old} == {"aarch64", "x86_64"}
    paths = ("sk_type", "sk_protocol", "icsk_ca_state", "icsk_ulp_ops", "name")
    for kind in old[::3]:
        some = [key for key in sorted(set(keys(kind))) if key[2] in paths]
        passed = unnoticed(kind, some, monkeypatch)
        assert [one for one in passed if one[0] not in ("byte_sz", "signed")] == []


def place(kind: Kind, name: str, path: str) -> Field | None:
    row = kind.layout[name]
    return row.fields.get(path) if isinstance(row, Struct) else None


def shifted_as_on_the_other_machine(r: Relocation, field: Field, byte_order: str) -> int:
    return RIGHT_VALUE(r, field, "big" if byte_order == "little" else "little")


def exchanged(arch: Any, layout: Any, kind: str, count: int = 12) -> Any:
    found = RIGHT_CONTEXT(arch, layout, kind, count)
    return found._replace(fields={**found.fields, "arg0": found.fields["arg1"], "arg1": found.fields["arg0"]})


def another_third(arch: Any, layout: Any, kind: str, count: int = 12) -> Any:
    found = RIGHT_CONTEXT(arch, layout, kind, count)
    return found._replace(fields={**found.fields, "arg2": found.fields["arg1"]})


RIGHT_VALUE, RIGHT_CONTEXT = relocate._field_value, image.context_layout
FOUR, EIGHT = (insn.SIZE_CODES[size] for size in (4, 8))
RULES: dict[str, tuple[Any, str, Any]] = {
    "shift": (relocate, "_field_value", shifted_as_on_the_other_machine),
    "unit": (relocate, "unit", lambda field: (field.offset + 1, field.size)),
    "registers": (programs, "context_layout", exchanged),
    "third": (programs, "context_layout", another_third),
    "loads": (insn, "SIZE_CODES", {**insn.SIZE_CODES, 4: EIGHT, 8: FOUR}),
}
HARMLESS_RULES = {
    (
        "loads",
        "little",
        8,
    ): "states and errors are loaded from a tracepoint's record, and their upper halves thrown away",
}
"""Rule, byte order, bytes of a pointer -> why nobody could notice."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("arch", sorted(ARCHES))
def test_a_rule_that_is_wrong_is_noticed(arch: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = RULES[rule]
    monkeypatch.setattr(where, name, wrong)
    assert noticed(newest(arch)) == ((rule, ARCHES[arch].byte_order, ARCHES[arch].pointer_size) not in HARMLESS_RULES)


@pytest.mark.parametrize("what", ["OFF", "IMM"])
@pytest.mark.parametrize("arch", sorted(ARCHES))
def test_what_is_written_in_the_other_byte_order_is_noticed(
    arch: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in the right one: else the damaged image would be refused."""
    names = [f"_LE_{what}", f"_BE_{what}"]
    right, wrong = (getattr(relocate, name) for name in sorted(names, reverse=ARCHES[arch].byte_order == "little"))
    mixed = SimpleNamespace(unpack_from=right.unpack_from, pack_into=wrong.pack_into)
    monkeypatch.setattr(relocate, names[ARCHES[arch].byte_order == "big"], mixed)
    assert noticed(newest(arch))
