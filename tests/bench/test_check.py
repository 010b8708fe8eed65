"""Nothing has become dearer without being noticed."""

from __future__ import annotations

import json

import pytest

from tests.vm.conftest import unavailable
from tests.vm.kernels import KERNELS

from . import check, machine


def test_costs_are_those_committed() -> None:
    assert check.exceeded(check.measure(), json.loads(check.COSTS.read_text())) == []


@pytest.mark.vm
def test_starting_costs_what_is_committed() -> None:
    missing = KERNELS[machine.KERNEL].missing()
    if missing:
        unavailable(missing)
    committed = json.loads(check.COSTS.read_text())
    worse = check.exceeded(check.in_guest(), committed)
    if worse:  # time counts instructions, but what the kernel does in it for itself may fall into it or not
        worse = check.exceeded(check.in_guest(), committed)
    assert worse == []


def test_a_dearer_program_is_noticed() -> None:
    committed = json.loads(check.COSTS.read_text())
    name = "instructions of tcp_use in sockpid.bpfel.json"
    assert check.exceeded({name: committed[name] * 2}, committed) == [
        f"{name}: {committed[name] * 2}, committed {committed[name]}"
    ]
    assert check.exceeded({"new": 1}, committed) == ["new: 1, committed None"]


def test_nothing_needless_is_imported_before_attaching() -> None:
    assert check.NEEDLESS & set(check.imported()) == set()
    assert check.NEVER & set(check.imported(afterwards=True)) == set()
