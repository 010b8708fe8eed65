"""The search of a calibration: one place or none, and never one that only happens to fit."""

from __future__ import annotations

import contextlib
import struct
from types import SimpleNamespace
from typing import Literal

import pytest

from sockpid import uapi
from sockpid.arch import ARCHES
from sockpid.calibrate import findings, kern
from sockpid.errors import CalibrationError
from sockpid.image.image import Image, Map
from sockpid.image.insn import unpack
from sockpid.offsets import calibration
from sockpid.offsets.calibration import Sample, complete, search, search_bits
from sockpid.subjects import peek, peek_prog
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen.extraction.wanted import image_for
from tests.bpf.verifier import verify

ORDERS = ("little", "big")


def memory(order: str, *values: int) -> bytes:
    """16-bit values in a row."""
    return struct.pack(("<" if order == "little" else ">") + f"{len(values)}H", *values)


@pytest.mark.parametrize("order", ORDERS)
def test_one_place_fits_all_samples(order: str) -> None:
    samples = [Sample(memory(order, 7, 500, 9), {"port": {500}}), Sample(memory(order, 7, 600, 9), {"port": {600}})]
    assert search(samples, "port", 2, order).field == Field(16, 16)


def test_two_places_are_refused_and_named() -> None:
    samples = [Sample(memory("little", p, 1, p), {"port": {p}}) for p in (500, 600, 700)]
    found = search(samples, "port", 2, "little")
    assert found.field is None
    assert found.problem == "2 places fit all 3 samples: 0, 4"


def test_a_port_that_is_found_within_an_address_is_refused_until_another_tells_them_apart() -> None:
    # 10.1.2.3 and port 0x0201: little-endian, its bytes are those in the middle of the address.
    trap = Sample(b"\x0a\x01\x02\x03\x00\x00\x01\x02", {"port": {0x0201}})
    other = Sample(b"\x0a\x04\x05\x03\x00\x00\x04\x05", {"port": {0x0504}})
    ambiguous = search([trap, other], "port", 2, "little", align=1)
    assert ambiguous.field is None
    assert "1, 6" in ambiguous.problem
    clear = Sample(b"\x0a\x01\x02\x03\x00\x00\x07\x08", {"port": {0x0807}})
    assert search([trap, other, clear], "port", 2, "little", align=1).field == Field(48, 16)


@pytest.mark.parametrize("values", [(500, 500), (0, 0), (0, 500)])
def test_values_that_repeat_prove_nothing(values: tuple[int, int]) -> None:
    samples = [Sample(memory("little", v, 0xAAAA), {"port": {v}}) for v in values]
    found = search(samples, "port", 2, "little")
    assert found.field is None
    assert "not observed" in found.problem


def test_memory_that_could_not_be_read_proves_nothing() -> None:
    samples = [Sample(bytes(64), {"count": {0}}) for _ in range(9)]
    assert search(samples, "count", 4, "little").field is None


def test_a_value_that_is_nowhere() -> None:
    samples = [Sample(memory("little", 1, 2), {"port": {p}}) for p in (500, 600)]
    assert "nowhere" in search(samples, "port", 2, "little").problem


def test_fields_that_were_found_are_not_found_again() -> None:
    samples = [Sample(memory("big", p, p), {"port": {p}}) for p in (500, 600)]
    assert search(samples, "port", 2, "big").field is None
    assert search(samples, "port", 2, "big", taken=[Field(0, 16)]).field == Field(16, 16)


def test_ranges_and_samples_that_say_nothing() -> None:
    samples = [Sample(memory("little", v, 3), {"rtt": range(v & ~7, (v & ~7) + 8)}) for v in (803, 1605)]
    samples.append(Sample(memory("little", 0, 0), {"other": {1}}))
    assert search(samples, "rtt", 2, "little").field == Field(0, 16)


def test_a_search_stays_within_its_limits() -> None:
    samples = [Sample(memory("little", p, 1, p), {"port": {p}}) for p in (500, 600)]
    assert search(samples, "port", 2, "little", within=range(2, 6)).field == Field(32, 16)


@pytest.mark.parametrize("order", ORDERS)
def test_bit_fields_count_from_the_byte_orders_end(order: str) -> None:
    """Five bits declared first: the lowest ones on little-endian, the highest ones on big-endian machines."""
    samples = [
        Sample(bytes([0xFF, state | 0x20 if order == "little" else state << 3 | 0x04]), {"state": {state}})
        for state in (0, 3, 4)
    ]
    assert search_bits(samples, "state", 5, order).field == Field(8, 5, True)
    assert calibration.bits(samples[2].memory, 8, 5, order) == 4
    assert calibration.bits(samples[2].memory, 13, 1, order) == 1


def test_a_single_bit_needs_both_values() -> None:
    zero, one = Sample(b"\x0c", {"kern": {0}}), Sample(b"\x0e", {"kern": {1}})
    assert search_bits([zero, one], "kern", 1, "little", variety=1).field == Field(1, 1, True)
    assert search_bits([zero, zero], "kern", 1, "little", variety=1).field is None
    assert search_bits([zero, Sample(b"\x0f", {"kern": {1}})], "kern", 1, "little", variety=1).field is None


def found_all(image: Image) -> Layout:
    """A layout with every field of the image, found somewhere."""
    wanted = image.wanted(ARCHES["x86_64"])
    return {name: Struct(name, 8, {path: Field(0, 8) for path in paths}) for name, paths in wanted.items()}


def test_what_is_missing_is_named_with_its_reason() -> None:
    image, arch = image_for(ARCHES["x86_64"]), ARCHES["x86_64"]
    layout = dict(found_all(image))
    calibration.demand(image, arch, layout, {})
    del layout["struct socket"]
    with pytest.raises(CalibrationError) as caught:
        calibration.demand(image, arch, layout, {"struct socket.sk": "2 places fit"})
    assert caught.value.fields == ["struct socket.sk: 2 places fit"]
    assert caught.value.exit_code == 19


def test_only_what_the_host_has_no_use_for_may_be_missing() -> None:
    image, arch = image_for(ARCHES["x86_64"]), ARCHES["x86_64"]
    layout = dict(found_all(image))
    del layout["struct tcp_ulp_ops"]
    completed = complete(layout, calibration.ULP)
    calibration.demand(image, arch, completed, {})
    row, known = completed["struct tcp_ulp_ops"], completed["struct inet_connection_sock"]
    assert isinstance(row, Struct)
    assert row.fields == {"name": None}
    assert isinstance(known, Struct)
    assert known.fields["icsk_ulp_ops"] is not None, "what was found stays"


@pytest.mark.parametrize("name", ARCHES)
def test_the_registers_are_those_that_the_image_asks_for(name: str) -> None:
    arch = ARCHES[name]
    row = calibration.pt_regs(arch)
    wanted = image_for(arch).wanted(arch)["struct pt_regs"]
    assert wanted <= set(row.fields)
    assert all(f is not None and f.offset + f.size <= row.size for f in row.fields.values())


def test_findings_become_rows() -> None:
    found = findings.Findings(ARCHES["s390x"])
    found.found["struct sock.__sk_common.skc_num"] = Field(14 * 8, 16)
    found.found["struct task_struct.start_boottime"] = Field(800, 64)
    layout = found.layout()
    request, task = layout["struct request_sock"], layout["struct task_struct"]
    assert isinstance(request, Struct)
    assert request.fields["__req_common"] == Field(0, 128)
    assert isinstance(task, Struct)
    assert task.fields["real_start_time"] is None
    assert task.size == 108


@pytest.mark.parametrize("order", ORDERS)
def test_every_jump_of_the_program_stays_in_it(order: str) -> None:
    code = peek_prog.assemble([0, 8, 16], 8, 113, (3, 4), order)
    count = len(code) // 8
    jumps = [(n, unpack(code, n, order)) for n in range(count)]
    targets = [n + 1 + i.off for n, i in jumps if i.code & 7 == 5 and i.code not in (0x85, 0x95)]
    assert len(targets) >= 6
    assert all(0 < target < count for target in targets)
    assert unpack(code, count - 1, order).code == 0x95
    assert count < 4096, "the limit before Linux 5.2"


MAPS = {
    3: Map("peek_config", "BPF_MAP_TYPE_ARRAY", 4, struct.calcsize(peek_prog.CONFIG), 1),
    4: Map("peek_slots", "BPF_MAP_TYPE_ARRAY", 4, struct.calcsize(peek_prog.HEADER) + peek_prog.SIZE, peek.SLOTS),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("args", [[112], [0, 8], [112, 104, 96]])
def test_the_verifier_of_4_9_takes_the_program(args: list[int], order: Literal["little", "big"]) -> None:
    code = peek_prog.assemble(args, 8, uapi.BPF_FUNC["bpf_probe_read"], (3, 4), order)
    assert verify(code, order, MAPS) > 1000


def test_a_place_is_a_multiple_of_its_size_wherever_the_search_begins() -> None:
    samples = [Sample(b"\0" * 3 + b"\xff" + struct.pack("<H", value), {"type": {value}}) for value in (1, 3)]
    assert search(samples, "type", 2, "little", within=range(1, 6)).field == Field(32, 16)


def test_a_field_that_was_found_after_all_is_no_problem() -> None:
    looked = findings.Findings(ARCHES["x86_64"])
    samples = [Sample(bytes((0, value)), {"protocol": {value}}) for value in (6, 200)]
    assert looked.search(samples, "protocol", 2, range(2)) is None
    assert looked.search_bits(samples, "protocol", 8, range(2)) == Field(8, 8, True)
    assert looked.problems == {}


def kernel_sockets(old: bool, marked: bool, monkeypatch: pytest.MonkeyPatch) -> findings.Findings:
    """What is found of the mark of the kernel's own sockets. marked: they have one. old: too old for ULPs."""

    def memory(bits: int) -> bytes:
        return bytes(200) + bytes((bits,)) + bytes(100)

    looked = findings.Findings(ARCHES["x86_64"])
    said = [0]
    client = SimpleNamespace(setsockopt=lambda _level, _option, value: said.__setitem__(0, value))
    one = SimpleNamespace(memory=memory(0x80), sk=1, client=client)
    plain = SimpleNamespace(sockets=[one], peek=SimpleNamespace(read=lambda _sk: memory(0x80 | said[0] << 2)))
    monkeypatch.setattr(kern, "_subflows", lambda *_: [])
    monkeypatch.setattr(kern, "_tls", lambda *_: None if old else [])
    monkeypatch.setattr(kern, "_control_sockets", lambda *_: [memory(0x82 if marked else 0x80)])
    kern.find_kern(looked, plain, [], contextlib.ExitStack())  # type: ignore[arg-type]
    return looked


@pytest.mark.parametrize("old", [True, False])
def test_the_mark_of_the_kernels_own_sockets(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = kernel_sockets(old, True, monkeypatch)
    assert looked.found[kern.KERN] == Field(200 * 8 + 1, 1, True)
    assert not looked.absent


def test_a_kernel_that_is_older_than_the_mark_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = kernel_sockets(True, False, monkeypatch)
    row = looked.layout()["struct sock"]
    assert isinstance(row, Struct)
    assert row.fields["sk_kern_sock"] is None
    assert kern.KERN not in looked.problems


def test_a_mark_that_is_not_found_in_a_kernel_that_may_have_it_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = kernel_sockets(False, False, monkeypatch)
    assert "nowhere" in looked.problems[kern.KERN]
    assert not looked.absent


def test_the_current_task_of_a_32_bit_machine_is_an_address() -> None:
    """bpf_get_current_task() returns a long there, and the kernel's addresses have the sign bit set."""
    task = 0xC2A00000
    content = struct.pack(peek_prog.HEADER, 1, 2, 3, task | 0xFFFFFFFF << 32) + b"memory"
    assert peek.unpack(content, 4) == peek.Record((1, 2, 3), task, b"memory")
    assert peek.unpack(content, 8).task == task | 0xFFFFFFFF << 32


@pytest.mark.parametrize("neighbour", ["a socket like it", "a socket of another namespace", "none"])
def test_what_the_next_socket_in_memory_has_is_not_taken_for_ours(neighbour: str) -> None:
    """Sockets of one kind lie side by side, and what is read of one reaches into the next."""
    looked = findings.Findings(ARCHES["arm"])
    looked.found["struct sock.__sk_common.skc_family"] = Field(8 * 8, 16)
    looked.found["struct sock.__sk_common.skc_net.net"] = Field(28 * 8, 32)
    size, ops = 1984, 0xC1A00040
    one = bytearray(size)
    struct.pack_into("<H", one, 8, 2)
    struct.pack_into("<I", one, 28, 0xC2000000)
    struct.pack_into("<I", one, 992, ops)
    other = bytearray(size if neighbour == "none" else one)
    if neighbour == "a socket of another namespace":
        struct.pack_into("<I", other, 28, 0xC3000000)

    class Kernel:
        sockets: list[object] = []
        peek: Kernel

        def read(self, address: int, size: int = 0) -> bytes:
            return bytes(32) + b"mptcp".ljust(16, b"\0") if address == ops else bytes(size)

    plain = Kernel()
    plain.peek = plain
    kern._ulp_ops(looked, plain, [kern.Named(bytes(one + other), "mptcp")])  # type: ignore[arg-type] # all it asks
    if neighbour == "a socket of another namespace":
        assert "2 places fit all 1 sockets: [(992, 32), (2976, 32)]" in looked.problems[calibration.ULP[0]]
    else:
        assert looked.found[calibration.ULP[0]] == Field(992 * 8, 32)
        assert looked.found[calibration.ULP[1]] == Field(32 * 8, 128)
