"""Which capability is there is decided by what the kernel answers, asked once, and by nothing else."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sockpid import syscall, uapi
from sockpid.bpf import features
from sockpid.bpf.deniable import FEATURES
from sockpid.bpf.features import Features
from sockpid.errors import CapabilityError, SyscallError
from sockpid.host import kernel


class Kernel:
    """bpf(2) that refuses what it is told to; every descriptor it gives out is of /dev/null."""

    def __init__(self, refuse_map: dict[int, int] | None = None, refuse_prog: int = 0) -> None:
        self.refuse_map = refuse_map or {}
        self.refuse_prog = refuse_prog
        self.asked: list[int] = []

    def __call__(self, name: str, cmd: int, attr: bytearray) -> int:
        self.asked.append(cmd)
        (kind,) = struct.unpack_from("=I", attr)
        if cmd == uapi.BPF_MAP_CREATE and kind in self.refuse_map:
            raise SyscallError(name, self.refuse_map[kind])
        if cmd == uapi.BPF_PROG_LOAD and self.refuse_prog:
            raise SyscallError(name, self.refuse_prog)
        return os.open(os.devnull, os.O_RDONLY)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], Kernel]:
    def answer(made: Kernel) -> Kernel:
        monkeypatch.setattr(syscall, "bpf", made)
        monkeypatch.setattr(kernel, "realtime", lambda: False)
        return made

    return answer


def test_what_is_there_is_asked_for_once(answering: Callable[[Kernel], Kernel]) -> None:
    asked = answering(Kernel()).asked
    found = Features()
    assert found.has("ringbuf")
    assert found.has("ringbuf")
    assert asked == [uapi.BPF_MAP_CREATE]


def test_what_is_denied_is_not_asked_for(answering: Callable[[Kernel], Kernel]) -> None:
    asked = answering(Kernel()).asked
    found = Features(frozenset(FEATURES))
    assert {row["state"] for row in found.report()} == {"denied"}
    assert asked == []


@pytest.mark.parametrize(
    ("name", "map_type"),
    [("ringbuf", uapi.BPF_MAP_TYPE_RINGBUF), ("lru_hash", uapi.BPF_MAP_TYPE_LRU_HASH), ("obj_name", 2)],
)
def test_a_refused_map(name: str, map_type: int, answering: Callable[[Kernel], Kernel]) -> None:
    answering(Kernel({map_type: errno.EINVAL}))
    assert "Invalid argument" in (Features().missing(name) or "")


@pytest.mark.parametrize("name", ["probe_read_kernel", "probe_read", "cgroup_id"])
def test_a_refused_helper(name: str, answering: Callable[[Kernel], Kernel]) -> None:
    answering(Kernel(refuse_prog=errno.EINVAL))
    assert "Invalid argument" in (Features().missing(name) or "")


def test_a_refusal_for_want_of_rights_tells_nothing_of_the_kernel(
    answering: Callable[[Kernel], Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(Kernel({uapi.BPF_MAP_TYPE_RINGBUF: errno.EPERM}, errno.EPERM))
    monkeypatch.setattr(kernel, "effective_capabilities", lambda: 0)
    for name in ("ringbuf", "cgroup_id"):
        with pytest.raises(CapabilityError, match="CAP_BPF"):
            Features().missing(name)


@pytest.mark.parametrize(("raw_lock", "present"), [(True, True), (False, False)])
def test_ring_buffer_of_a_real_time_kernel(
    raw_lock: bool, present: bool, answering: Callable[[Kernel], Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel with user ring buffers is young enough for a lock that does not sleep."""
    answering(Kernel({} if raw_lock else {uapi.BPF_MAP_TYPE_USER_RINGBUF: errno.EINVAL}))
    monkeypatch.setattr(kernel, "realtime", lambda: True)
    assert Features().has("ringbuf") is present


def test_every_capability_has_a_trial() -> None:
    assert features._TRIALS.keys() == FEATURES.keys()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none integrity [confidentiality]\n", "confidentiality"),
        ("none [integrity] confidentiality\n", "integrity"),
        ("[none] integrity confidentiality\n", None),
        ("quiet lockdown=integrity panic=-1\n", "integrity"),
        ("quiet panic=-1\n", None),
    ],
)
def test_lockdown(text: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lockdown"
    path.write_text(text)
    monkeypatch.setattr(kernel, "LOCKDOWN", (str(tmp_path / "not mounted"), str(path)))
    assert kernel.lockdown() == found
