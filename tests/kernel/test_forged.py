"""Tables for this kernel, sealed as they should be, that say something else: refused, or no event is another for it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from sockpid import errors
from sockpid.host import kernel
from sockpid.offsets import agreement, offsets
from sockpid.offsets.source import MPTCP, Offsets
from sockpid.probe import tracer
from sockpid.probe.collection import Options
from sockpid.table import table
from sockpid.table.layout import Layout, Struct
from tests.kernel import forged, mutations
from tests.kernel.forged import SAME, Forgery

IDENTITY = kernel.identify()
IMAGE = tracer.load_image(IDENTITY.arch.byte_order)
SEED = 20261201
TRIED = None if os.environ.get("SOCKPID_FORGE_ALL") else 80
"""How many forgeries by exchange, of those that only the self-check can tell, are tried."""

SIGN = "of an unsigned bit field whose highest bit is 0, or of one bit, which is told from 0 alone"
NO_KPROBE = "registers are read by kprobes alone, and none is attached here"


def harmless(forgery: Forgery) -> str | None:
    """Why it makes no difference that a forgery was taken."""
    if forgery.how == "is signed":
        return SIGN
    if forgery.what.startswith("struct pt_regs"):
        return NO_KPROBE
    return None


def by_exchange(forgery: Forgery) -> bool:
    return forgery.how.startswith(("of ", "exchanged with "))


@pytest.fixture(scope="module")
def right() -> Layout:
    try:
        return offsets.from_btf(IMAGE, IDENTITY.arch).layout
    except errors.SyscallError as error:
        pytest.skip(f"no BTF to start from: {error}")


@pytest.fixture(scope="module")
def all_read(right: Layout, tmp_path_factory: pytest.TempPathFactory) -> dict[Forgery, str | Offsets]:
    """What reading alone says of every forgery."""
    path = tmp_path_factory.mktemp("forged") / "table.json"
    return {
        forgery: forged.read(IDENTITY, IMAGE, right, path, layout)
        for forgery, layout in forged.all_of(IDENTITY.arch, right).items()
    }


@pytest.fixture(scope="module")
def verdicts(all_read: dict[Forgery, str | Offsets]) -> dict[Forgery, str]:
    """What is said of those that were tried."""
    rest = {forgery: found for forgery, found in all_read.items() if isinstance(found, Offsets)}
    exchanged = [forgery for forgery in rest if by_exchange(forgery)]
    chosen = set(random.Random(SEED).sample(exchanged, min(TRIED or len(exchanged), len(exchanged))))
    chosen |= rest.keys() - set(exchanged)
    with mutations.pool() as pool:
        tried = pool.map(lambda forgery: (forgery, mutations.verdict(IDENTITY, IMAGE, rest[forgery])), sorted(chosen))
        judged = dict(tried)
    return {**{forgery: said for forgery, said in all_read.items() if isinstance(said, str)}, **judged}


def test_what_is_right_is_the_same(right: Layout, tmp_path: Path) -> None:
    """Otherwise whatever comes below is refused for another reason."""
    assert forged.read(IDENTITY, IMAGE, right, tmp_path / "table.json", right) == SAME


def test_every_forgery_that_is_taken_makes_no_difference(verdicts: dict[Forgery, str]) -> None:
    taken = {forgery for forgery, said in verdicts.items() if not said}
    assert {forgery for forgery in taken if harmless(forgery) is None} == set()
    assert len(verdicts) >= 390
    assert SIGN in {harmless(forgery) for forgery in taken}


def test_none_is_refused_for_want_of_time(verdicts: dict[Forgery, str]) -> None:
    """That would be no proof."""
    late = {forgery: said for forgery, said in verdicts.items() if "came to no end" in said}
    assert late == {}


def test_what_is_refused_is_named(verdicts: dict[Forgery, str]) -> None:
    """The file, the type or field, or the values that were read back."""
    for forgery, said in verdicts.items():
        names = (forgery.what.partition(".")[2] or forgery.what, forgery.how.rpartition(" ")[2])
        named = ("table.json", *names, "the self-check read back wrong values", "no event, though", "was refused")
        assert said in ("", SAME) or forgery.what == "everything" or any(one in said for one in named), (forgery, said)


def test_registers_are_those_of_the_ways_of_attaching(right: Layout) -> None:
    """The reason for what is taken: nothing that was attached reads one."""
    with tracer.Tracer.open(Options()) as probe:
        used = {how.split()[0] for how in probe.collection.mechanisms().values() if how is not None}
    if used & {"kprobe-pmu", "kprobe-tracefs"}:
        pytest.skip("kprobes are attached here: then registers are proved by the self-check")
    assert used


def test_no_field_that_is_read_signed_has_its_highest_bit_set(right: Layout) -> None:
    """The reason for what is taken: values of bit fields that programs read by their sign."""
    fields = {
        (r.type, r.path) for program in IMAGE.programs.values() for r in program.relocations if r.kind == "signed"
    }
    highest = {"icsk_ca_state": 4, "sk_protocol": 262, "sk_type": 10, "sk_kern_sock": 0}
    assert {path for _, path in fields} == set(highest)
    for kind, path in fields:
        row = right[kind]
        assert isinstance(row, Struct)
        field = row.fields[path]
        assert field is not None
        assert highest[path] < 1 << (field.bit_size - 1)


@pytest.mark.parametrize("name", [*agreement.EVERYWHERE, *agreement.OF_MPTCP])
def test_denied_fields_are_refused_by_name(verdicts: dict[Forgery, str], name: str) -> None:
    said = verdicts[Forgery(name, "is none")]
    if name in agreement.OF_MPTCP and not os.path.exists(MPTCP):
        pytest.skip("this kernel has no MPTCP")
    assert said.startswith("TableError: ")
    assert f"says that this kernel has no {name}" in said


# What is said beside the offsets.


def changed(right: Layout, tmp_path: Path, **changes: object) -> Offsets:
    """The offsets in a sealed table that has other things to say of this kernel."""
    path = tmp_path / "table.json"
    path.write_bytes(forged.entry(IDENTITY, right, **changes))
    return offsets.find(IMAGE, IDENTITY, str(path), frozenset(["live-btf"]))


@pytest.mark.parametrize(
    "changes",
    [{"build_id": "0" * 40}, {"release": IDENTITY.release + "1", "banner": None}, {"banner": "Linux version 1"}],
    ids=["build_id", "release", "banner"],
)
def test_of_another_kernel_it_is_not_used(right: Layout, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(errors.OtherKernelError, match=r"table\.json is for other kernels"):
        changed(right, tmp_path, **changes)


def test_where_it_is_from_is_told_with_less_confidence_only(right: Layout, tmp_path: Path) -> None:
    """Of two kinds that are both measured, no event says which; what was not measured must be proved."""
    assert changed(right, tmp_path, provenance={"kind": "dwarf"}).origin == "table"
    for provenance in ({"kind": "btf", "note": "concluded"}, {"kind": "calibrated"}):
        assert changed(right, tmp_path, provenance=provenance).needs_proof
    with pytest.raises(errors.TableError, match=r"table\.json: kernel .* is from 'guess'"):
        changed(right, tmp_path, provenance={"kind": "guess"})


def test_ids_of_functions_are_asked_of_the_kernel(right: Layout, tmp_path: Path) -> None:
    """What they are is in the hands of the verifier: see prog.function_of()."""
    found = changed(right, tmp_path, btf_ids={"tcp_connect": 1, "tcp_recvmsg": 2**32 - 1})
    assert [found.btf_id(name) for name in ("tcp_connect", "tcp_recvmsg")] == [1, 2**32 - 1]
    assert mutations.verdict(IDENTITY, IMAGE, found) == ""


def test_a_table_of_another_architecture_or_series_is_not_used(right: Layout, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    other = IDENTITY._replace(arch=IDENTITY.arch._replace(name="s390x"))
    path.write_bytes(forged.entry(other, right))
    with pytest.raises(errors.OtherKernelError):
        offsets.find(IMAGE, IDENTITY, str(path))
    series = table.series_of(IDENTITY.release)
    path.write_bytes(forged.entry(IDENTITY, right).replace(f'"series": "{series}"'.encode(), b'"series": "1.0"'))
    with pytest.raises(errors.TableError, match=r"does not belong to series 1\.0"):
        offsets.find(IMAGE, IDENTITY, str(path))
