"""Every field that the programs read, moved and resized: refused, or shown to make no difference, and why."""

from __future__ import annotations

import time

import pytest

from sockpid import errors
from sockpid.host import kernel
from sockpid.offsets import offsets
from sockpid.offsets.source import Offsets
from sockpid.probe import tracer
from tests.kernel import mutations
from tests.kernel.mutations import SIZES, Mutation

IDENTITY = kernel.identify()
IMAGE = tracer.load_image(IDENTITY.arch.byte_order)
PLACE_ALONE = "of a struct no program reads more than where it begins: its size is not asked for"
DOUBTS = ("sk_allocation", "sk_user_data")
A_DOUBT = "what is empty beside it names nobody else: one doubt about an owner is not told"


def is_awake() -> bool:
    """Has the machine never been suspended?"""
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return asleep < 0.001


def harmless() -> dict[Mutation, str]:
    places = (
        "struct request_sock.__req_common",
        "struct sock.__sk_common.skc_v6_daddr",
        "struct sock.__sk_common.skc_v6_rcv_saddr",
    )
    reasons: dict[Mutation, str] = {}
    for place in places:
        name, _, path = place.partition(".")
        reasons.update({Mutation(name, path, f"{size} bits"): PLACE_ALONE for size in SIZES})
    for shift in mutations.SHIFTS:
        for field in DOUBTS:
            reasons[Mutation("struct sock", field, f"{shift:+}")] = A_DOUBT
    if is_awake():
        # Kernel: copy_process() notes the start by two clocks at once, CLOCK_MONOTONIC and CLOCK_BOOTTIME.
        before = Mutation("struct task_struct", "start_boottime", "-64")
        reasons[before] = "start_time is the same to the tick until the machine sleeps; then the self-check tells"
    return reasons


@pytest.fixture(scope="module")
def found() -> Offsets:
    try:
        return offsets.from_btf(IMAGE, IDENTITY.arch)
    except errors.SyscallError as error:
        pytest.skip(f"no BTF to start from: {error}")


@pytest.fixture(scope="module")
def verdicts(found: Offsets) -> dict[Mutation, str]:
    return mutations.verdicts(IDENTITY, IMAGE, found)


def test_what_is_right_is_accepted_beside_others(found: Offsets) -> None:
    """Otherwise whatever comes below is refused for another reason."""
    with mutations.pool() as pool:
        results = list(pool.map(lambda _: mutations.verdict(IDENTITY, IMAGE, found), range(2 * mutations.AT_ONCE)))
    assert results == [""] * len(results)


def test_every_field_is_mutated(verdicts: dict[Mutation, str]) -> None:
    wanted = {f"{name}.{path}" for name, paths in IMAGE.wanted(IDENTITY.arch).items() for path in paths}
    seen = {mutation.field for mutation in verdicts}
    rest = {field for field in wanted - seen if not field.startswith("struct pt_regs.")}
    assert rest <= {"struct task_struct.real_start_time", "struct task_struct.start_boottime"}, "absent in this kernel"
    assert len(rest) < 2


def test_every_mutation_is_refused_or_harmless(verdicts: dict[Mutation, str]) -> None:
    accepted = {mutation for mutation, verdict in verdicts.items() if not verdict}
    reasons = harmless()
    assert accepted <= set(reasons)
    assert {mutation for mutation, why in reasons.items() if why != A_DOUBT and mutation in verdicts} <= accepted


def test_none_is_refused_for_want_of_time(verdicts: dict[Mutation, str]) -> None:
    """That would be no proof."""
    late = {mutation: verdict for mutation, verdict in verdicts.items() if "came to no end" in verdict}
    assert late == {}


def test_sizes_of_structs_change_no_instruction(found: Offsets) -> None:
    """The reason for what is accepted: what is loaded is the same, bit by bit."""
    from sockpid.image.relocate import resolve

    order, word = IDENTITY.arch.byte_order, IDENTITY.arch.pointer_size
    for mutation, field in mutations.all_of(IMAGE, IDENTITY, found.layout):
        if harmless().get(mutation) == PLACE_ALONE:
            changed = mutations.mutated(found.layout, mutation, field)
            for program in IMAGE.programs.values():
                assert resolve(program, order, changed, word).insns == resolve(program, order, found.layout, word).insns


def test_the_field_behind_a_doubt_is_read_for_nothing_else() -> None:
    """What these offsets named was right all the same: the self-check has looked at the owners."""
    readers = {
        program.name
        for program in IMAGE.programs.values()
        if any(r.type == "struct sock" and r.path in DOUBTS for r in program.relocations)
    }
    assert readers == {"tcp_use"}


@pytest.mark.skipif(not is_awake(), reason="this machine has slept: then the self-check itself refuses")
def test_the_kernels_btf_tells_one_start_from_the_other(found: Offsets) -> None:
    """What `doctor` and `selftest` do, and the self-check cannot."""
    mutation = Mutation("struct task_struct", "start_boottime", "-64")
    field = dict(mutations.all_of(IMAGE, IDENTITY, found.layout))[mutation]
    table = found._replace(origin="table", source="x.json", layout=mutations.mutated(found.layout, mutation, field))
    with pytest.raises(errors.ConflictError, match=r"x\.json") as conflict:
        offsets.against_btf(IMAGE, IDENTITY.arch, table, frozenset())
    assert [line.partition(":")[0] for line in conflict.value.conflicts] == [mutation.field]
