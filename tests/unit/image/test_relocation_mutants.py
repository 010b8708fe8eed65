"""A relocate() with a mistake in it does not pass every program on every kind of machine.

One kind of relocation of one field is off by a step, in turn; then whole rules are: the other byte order's shift, the
other register, the size of a neighbour. What is not noticed stands here with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import SockpidError
from sockpid.image import image, relocate
from sockpid.image.image import PROBE_CTX, SETTING, Relocation
from sockpid.table.layout import Field
from tests.bpf import programs
from tests.bpf.every_program import Kind, play
from tests.bpf.memory import Fault
from tests.unit.image.test_layouts import kinds

UNSIGNED = "what is read is a number of 64 bits without sign, whatever the kernel's type says"
FEW_BITS = "bits beyond those that are read are shifted out again"
FIRST = "of the byte and its neighbour the first is used; a kernel in which the field has two is refused by its size"
HARMLESS: dict[tuple[str, str, str], str] = {
    ("signed", "", ""): UNSIGNED,
    ("byte_sz", "struct inet_connection_sock.icsk_ca_state", "x86_64"): FEW_BITS,
    ("byte_sz", "struct inet_connection_sock.icsk_ca_state", "arm"): FEW_BITS,
    ("byte_sz", "struct sock.sk_kern_sock", "x86_64"): FEW_BITS,
    ("byte_sz", "struct sock.sk_kern_sock", "arm"): FEW_BITS,
    ("byte_sz", "struct inet_connection_sock.icsk_pending", ""): FIRST,
    ("byte_sz", "struct sock.__sk_common.skc_state", ""): FIRST,
    ("byte_sz", "struct sock.sk_allocation", "x86_64"): "the flags that are looked at are in the half that comes first",
    ("byte_sz", "struct sock.sk_allocation", "arm"): "the flags that are looked at are in the half that comes first",
    ("byte_sz", "struct task_struct.flags", "s390x"): "the flag that is looked at is in the half that comes first",
    ("byte_sz", "struct socket_alloc.vfs_inode.i_ino", "x86_64"): "inodes of sockets have 32 bits",
}
"""Kind of relocation, field ("": any), architecture ("": any) -> why nobody could notice."""


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


@pytest.mark.parametrize("arch", ["x86_64", "arm", "s390x"])
def test_every_relocation_that_is_off_by_a_step_is_noticed(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = newest(arch)
    assert not noticed(kind)
    passed: list[tuple[str, str, str]] = []
    every = sorted(set(keys(kind)))
    for key in every:
        with monkeypatch.context() as patch:
            patch.setattr(relocate, "_value", off_by_a_step(key))
            if not noticed(kind):
                passed.append((key[0], f"{key[1]}.{key[2]}", arch))
    assert len(every) > 90
    assert [(what, name) for what, name, _ in passed if not harmless(what, name, arch)] == []


def harmless(what: str, name: str, arch: str) -> bool:
    return any((what, field, machine) in HARMLESS for field in (name, "") for machine in (arch, ""))


def shifted_as_on_the_other_machine(r: Relocation, field: Field, byte_order: str) -> int:
    return RIGHT_VALUE(r, field, "big" if byte_order == "little" else "little")


def without_alignment(field: Field) -> tuple[int, int]:
    return (field.offset, field.size) if not field.bitfield else (field.bit_offset // 8, 1)


def exchanged(arch: Any, layout: Any, kind: str, count: int = 12) -> Any:
    found = RIGHT_CONTEXT(arch, layout, kind, count)
    return found._replace(fields={**found.fields, "arg0": found.fields["arg1"], "arg1": found.fields["arg0"]})


RIGHT_VALUE, RIGHT_CONTEXT = relocate._field_value, image.context_layout
RULES: dict[str, tuple[Any, str, Any]] = {
    "shift": (relocate, "_field_value", shifted_as_on_the_other_machine),
    "unit": (relocate, "unit", lambda field: (field.offset + 1, field.size)),
    "registers": (programs, "context_layout", exchanged),
    "immediates": (relocate, "_LE_IMM", relocate._BE_IMM),
    "offsets": (relocate, "_LE_OFF", relocate._BE_OFF),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("arch", sorted(ARCHES))
def test_a_rule_that_is_wrong_is_noticed(arch: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = RULES[rule]
    if ARCHES[arch].byte_order == "big" and name.startswith("_LE"):
        name, wrong = name.replace("_LE", "_BE"), getattr(relocate, name)
    monkeypatch.setattr(where, name, wrong)
    assert noticed(newest(arch))
