"""Programs without what they cannot reach: old verifiers take them, and they do what they did."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Literal

import pytest

from sockpid.arch import ARCHES
from sockpid.bpf.prog import Prog
from sockpid.errors import VerifierError
from sockpid.image import insn as bpf
from sockpid.image.hooks import HOOKS, Hook, Target
from sockpid.image.image import Map
from sockpid.image.prune import prune
from sockpid.probe.loader import Loader
from tests.bpf.layouts import NEW_ABSENT, OLD_ABSENT
from tests.bpf.machine import Cpu, Machine, finish
from tests.bpf.memory import Memory
from tests.bpf.programs import KINDS, OLD_CALLS, Programs
from tests.bpf.translate import translate
from tests.bpf.verifier import Refused, verify
from tests.bpf.world import programs_of
from tests.unit.image.test_relocate import images

ORDERS = ("little", "big")
MAPS = dict(enumerate(images()["little"].maps[name] for name in sorted(images()["little"].maps)))
LAYOUTS = {
    "4.9": (OLD_ABSENT, True),
    "no mptcp": ((*NEW_ABSENT, "struct mptcp_subflow_context"), False),
    "no ulp": (
        (*NEW_ABSENT, "struct inet_connection_sock.icsk_ulp_ops", "struct inet_connection_sock.icsk_ulp_data"),
        False,
    ),
    "no kern": ((*NEW_ABSENT, "struct sock.sk_kern_sock"), True),
    "no netns, no IPv6": (
        (
            *OLD_ABSENT,
            "struct sock.__sk_common.skc_net.net",
            "struct sock.__sk_common.skc_v6_daddr",
            "struct sock.__sk_common.skc_v6_rcv_saddr",
        ),
        True,
    ),
    "all": (NEW_ABSENT, False),
}
PLACES = [
    pytest.param(hook, target, mechanism, id=f"{hook.name}-{target.name.replace('/', '.')}-{mechanism}")
    for hook in HOOKS
    for target in hook.targets
    for mechanism in {"func": ("fentry", "kprobe-pmu", "kprobe-tracefs")}.get(target.kind, (KINDS[target.kind],))
]
MADE = {
    (arch, name): programs_of(images()["big" if arch == "s390x" else "little"], arch, 5, absent=absent, old=old)
    for arch in ("x86_64", "arm", "s390x")
    for name, (absent, old) in LAYOUTS.items()
}
WANTED = sorted(
    f"{name}.{path}"
    for name, paths in images()["little"].wanted(ARCHES["x86_64"]).items()
    for path in paths
    if name != "struct pt_regs" and f"{name}.{path}" not in OLD_ABSENT
)
DONE_WITHOUT = {
    "struct mptcp_subflow_context.conn", "struct sock.__sk_common.skc_bound_dev_if",
    "struct sock.__sk_common.skc_net.net", "struct sock.__sk_common.skc_v6_daddr", "struct sock.sk_allocation",
    "struct sock.sk_lock.owned", "struct sock.sk_user_data", "struct tcp_sock.undo_marker", "struct tcp_ulp_ops.name",
}  # fmt: skip
OLD = {key: Programs(one.image, one.arch, one.layout, OLD_CALLS) for key, one in MADE.items()}


@pytest.mark.parametrize(("hook", "target", "mechanism"), PLACES)
def test_the_verifier_of_4_9_takes_every_program_everywhere(hook: Hook, target: Target, mechanism: str) -> None:
    for (arch, name), programs in OLD.items():
        if arch == "arm" and name not in ("4.9", "all"):
            continue
        for more in ({}, {"COUNT": 1, "FILTER_PID": 1, "FILTER_NETNS": 1, "FILTER_PORT": 1})[: 1 + hook.raises]:
            made = programs.make(hook, target, mechanism, **more)
            try:
                verify(prune(made.insns, programs.order), programs.order, MAPS)
            except Refused as error:
                pytest.fail(f"{arch}, {name}, {sorted(more)}: {error}")


@pytest.mark.parametrize("field", WANTED)
def test_a_field_that_is_not_there_is_done_without_or_named(field: str) -> None:
    """By the verifier of 4.9, whatever it is that refuses the program."""
    made = programs_of(images()["little"], "x86_64", 5, absent=(*OLD_ABSENT, field), old=True)
    programs = Programs(made.image, made.arch, made.layout, OLD_CALLS)
    named = set()
    for hook in HOOKS:
        target = next((target for target in hook.targets if target.kind in ("func", "kprobe")), hook.targets[0])
        if target.kind == "lsm":
            continue
        ready = programs.make(hook, target, {"func": "kprobe-pmu"}.get(target.kind, KINDS[target.kind]))
        try:
            verify(prune(ready.insns, "little"), "little", MAPS)
        except Refused as error:
            number = str(error).rpartition("invalid func ")[2]
            named.add(ready.relocated.poison.get(int(number) if number.isdigit() else 0, f"{hook.name}: {error}"))
    assert named <= {field}
    assert bool(named) == (field not in DONE_WITHOUT)


def test_without_that_it_walks_into_what_the_kernel_does_not_have() -> None:
    for arch, hook, why in (
        ("x86_64", "send", "invalid mem access"),  # a load of what the verifier knows no type of
        ("s390x", "retransmit", "R1 type=unknown expected=fp"),  # a pointer plus a register
    ):
        programs = OLD[arch, "4.9"]
        with pytest.raises(Refused, match=why):
            verify(programs.attach(hook, "kprobe").insns, programs.order, MAPS)
    programs = OLD["x86_64", "all"]
    with pytest.raises(Refused, match="invalid func 1958960"):  # poison
        verify(programs.attach("exec").insns, programs.order, MAPS)


def test_the_loader_does_so_once_a_kernel_has_refused_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that has the modelled verifier. What it takes as it is stays so, until then."""
    programs = OLD["x86_64", "4.9"]
    offered: list[int] = []

    def load(name: str, prog_type: int, insns: bytes, *others: object) -> Prog:
        assert others[3] is False, "it has no names either"
        offered.append(len(insns) // 8)
        try:
            verify(insns, "little", MAPS)
        except Refused as error:
            raise VerifierError(f"program {name} was refused", str(error)) from None
        return Prog(name, prog_type, -1)

    monkeypatch.setattr("sockpid.bpf.prog.load", load)
    monkeypatch.setattr("sockpid.syscall.machine", lambda: programs.arch)
    lacking = {"task_btf", "probe_read_kernel", "cgroup_id", "obj_name"}
    features = SimpleNamespace(
        has=lambda name: name not in lacking, missing=lambda name: "not there" if name == "probe_read_kernel" else None
    )
    specs = {**programs.image.maps, "events": Map("events", "BPF_MAP_TYPE_PERF_EVENT_ARRAY", 4, 4, 0)}
    maps = {name: SimpleNamespace(fd=n, spec=specs[name]) for n, name in enumerate(sorted(specs))}
    found = SimpleNamespace(layout=programs.layout, btf_id=lambda _: 0)
    loader = Loader(programs.image, found, features, maps, ())  # type: ignore[arg-type]
    loader.replace_calls()
    whole = {name: len(program.insns) // 8 for name, program in programs.image.programs.items()}
    for name, tries in (("destroy", 1), ("send", 2), ("receive", 1), ("retransmit", 1)):
        hook = next(hook for hook in HOOKS if hook.name == name)
        target = next(target for target in hook.targets if target.kind in ("func", "kprobe"))
        offered.clear()
        loader.load(hook, "kprobe-pmu", target)
        assert len(offered) == tries, name
        assert (offered[0] == whole[hook.source or hook.prog]) == (name in ("destroy", "send")), name


def assembled(order: str, *code: bpf.Insn) -> bytes:
    return b"".join(one.pack(order) for one in code)


MOV_0, MOV_1 = bpf.Insn(bpf.MOV64, 0, 0, 0, 0), bpf.Insn(bpf.MOV64, 0, 0, 0, 1)
END = bpf.Insn(bpf.EXIT, 0, 0, 0, 0)
LOAD = bpf.Insn(bpf.LDX_DW, 2, 1, 0, 0)
JEQ, JNE, JA = 0x15, 0x55, 0x05


@pytest.mark.parametrize("order", ORDERS)
def test_a_decided_branch_goes_and_what_it_does_not_take(order: str) -> None:
    wide = bpf.Insn(bpf.LD_IMM64, 3, 0, 0, 7), bpf.Insn(0, 0, 0, 0, 0)
    for code, taken in ((JEQ, False), (JNE, True)):
        insns = assembled(order, *wide, bpf.Insn(code, 3, 0, 2, 0), MOV_0, END, MOV_1, END)
        left = assembled(order, *wide, MOV_1 if taken else MOV_0, END)
        assert prune(insns, order) == left
    unknown = assembled(order, LOAD, bpf.Insn(JEQ, 2, 0, 2, 0), MOV_0, END, MOV_1, END)
    assert prune(unknown, order) == unknown


@pytest.mark.parametrize("order", ORDERS)
def test_what_two_ways_bring_differently_is_not_known(order: str) -> None:
    head = LOAD, MOV_0, bpf.Insn(JEQ, 2, 0, 1, 0)
    for other in (MOV_1, MOV_0):
        insns = assembled(order, *head, other, bpf.Insn(JEQ, 0, 0, 2, 0), MOV_1, END, MOV_0, END)
        assert (prune(insns, order) == insns) == (other == MOV_1)


@pytest.mark.parametrize("order", ORDERS)
def test_a_call_and_a_load_leave_nothing_known(order: str) -> None:
    for kills in (bpf.Insn(bpf.CALL, 0, 0, 0, 5), bpf.Insn(bpf.LDX_DW, 0, 10, -8, 0)):
        insns = assembled(order, MOV_0, kills, bpf.Insn(JEQ, 0, 0, 2, 0), MOV_1, END, MOV_0, END)
        assert prune(insns, order) == insns


ARITHMETIC = [op | kind | 7 for op in (0x00, 0x10, 0x20, 0x40, 0x50, 0xA0, 0xB0) for kind in (0, bpf.BPF_X)]
SHIFTS = [0x67, 0x77, 0xC7]
CONDITIONS = [op | kind | 5 for op in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70) for kind in (0, bpf.BPF_X)]


def drawn(draw: random.Random, order: str) -> bytes:
    """A program of arithmetic and jumps forward, over constants and two words of its context."""
    code = [bpf.Insn(bpf.MOV64, r, 0, 0, draw.choice((0, 1, -1, 7, -(1 << 31)))) for r in range(6) if r != 1]
    length = draw.randrange(10, 60)
    for n in range(length):
        kind, dst, src = draw.random(), draw.choice((0, 2, 3, 4, 5)), draw.choice((0, 2, 3, 4, 5))
        if kind < 0.1:
            code.append(bpf.Insn(bpf.LDX_DW, dst, 1, draw.choice((0, 8)), 0))
        elif kind < 0.4:
            off = draw.randrange(length - n)
            code.append(bpf.Insn(draw.choice(CONDITIONS), dst, src, off, draw.choice((0, 1, -1, 7))))
        elif kind < 0.45:
            code.append(bpf.Insn(JA, 0, 0, draw.randrange(length - n), 0))
        elif kind < 0.6:
            code.append(bpf.Insn(draw.choice(SHIFTS), dst, 0, 0, draw.randrange(64)))
        else:
            code.append(bpf.Insn(draw.choice(ARITHMETIC), dst, src, 0, draw.choice((0, 1, -1, 12345))))
    return assembled(order, *code, END)


@pytest.mark.parametrize("order", ORDERS)
def test_drawn_programs_do_what_they_did(order: Literal["little", "big"]) -> None:
    shorter = 0
    for seed in range(300):
        draw = random.Random(seed)
        insns = drawn(draw, order)
        left = prune(insns, order)
        verify(left, order, {})
        shorter += len(left) < len(insns)
        for words in ((0, 0), (1, 1 << 63), (draw.getrandbits(64), draw.getrandbits(64))):
            results = []
            for one in (insns, left):
                machine = Machine(Memory(order), {}, {})
                context = b"".join(word.to_bytes(8, order) for word in words)
                results.append(finish(Cpu(machine, 0, 0).run(translate("drawn", one, order), context)))
            assert results[0] == results[1], seed
    assert shorter > 200
