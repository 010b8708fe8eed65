"""Our constants and record sizes against what this kernel's own BTF says of its interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from sockpid import uapi
from sockpid.btf import record
from sockpid.btf.btf import Btf

BTF = Path("/sys/kernel/btf/vmlinux")
ENUMS = {
    "bpf_cmd": ("BPF_MAP_", "BPF_PROG_LOAD", "BPF_OBJ_", "BPF_RAW_", "BPF_BTF_", "BPF_ENABLE_"),
    "bpf_map_type": ("BPF_MAP_TYPE_",),
    "bpf_prog_type": ("BPF_PROG_TYPE_",),
    "tcp_ca_state": ("TCP_CA_",),
    "perf_type_id": ("PERF_TYPE_",),
    "perf_sw_ids": ("PERF_COUNT_SW_",),
    "perf_event_sample_format": ("PERF_SAMPLE_",),
    "perf_event_type": ("PERF_RECORD_",),
}


@pytest.fixture(scope="module")
def values() -> dict[str, dict[str, int]]:
    if not BTF.exists():
        pytest.skip("this kernel has no BTF")
    btf = Btf(BTF.read_bytes())
    kinds = frozenset((record.BTF_KIND_ENUM, record.BTF_KIND_ENUM64))
    found = btf.find([*ENUMS, "bpf_func_id"], kinds)
    return {name: dict(btf.type(ids[0]).values) for name, ids in found.items()}


@pytest.mark.parametrize("enum", ENUMS)
def test_constants(enum: str, values: dict[str, dict[str, int]]) -> None:
    ours = {name: value for name, value in vars(uapi).items() if name in values[enum]}
    assert ours == {name: values[enum][name] for name in ours}
    assert ours, f"no constant of ours is in enum {enum}"


def test_every_bpf_constant_is_the_kernels(values: dict[str, dict[str, int]]) -> None:
    known = {name for enum in values.values() for name in enum}
    prefixes = tuple(p for group in ENUMS.values() for p in group)
    ours = {n for n, v in vars(uapi).items() if n.startswith(prefixes) and isinstance(v, int)}
    assert ours - known == {"BPF_OBJ_NAME_LEN"}


def test_helpers(values: dict[str, dict[str, int]]) -> None:
    for name, number in uapi.BPF_FUNC.items():
        assert values["bpf_func_id"]["BPF_FUNC_" + name[len("bpf_") :]] == number, name
