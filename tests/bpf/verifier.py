"""The verifier of Linux 4.9, as far as it differs from what a program may do on any kernel.

Modelled on kernel/bpf/verifier.c of that release. It follows both ways of a branch, unless a register was set to the
very immediate that it is compared with, and takes the value of a wide load for unknown. It lets helpers read keys and
values from the stack alone, and write there alone. It knows no helper that came later, no call between functions, and
at most 4096 instructions, and refuses one that no way leads to. It forgets what a map's value is when that is tested
for NULL a second time.

Held against a 4.9.115 that was built for it: on 487 programs, all that there are for 64-bit machines there, as the
image has them and pruned, it took what this takes, and refused the same instructions in 123 of those that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sockpid import uapi
from sockpid.image import insn as bpf
from sockpid.image.image import Map

from .memory import Order
from .translate import STACK, decode, is_jump, width

BPF_MAXINSNS = 4096
COMPLEXITY = 65536
"""Instructions followed, over all ways: BPF_COMPLEXITY_LIMIT_INSNS of Linux 4.9 at its first."""
NEWEST = uapi.BPF_FUNC["bpf_get_current_task"]
JA, JEQ, JNE, MOV, ADD = 0x00, 0x10, 0x50, 0xB0, 0x00


class Refused(Exception):
    """What the verifier would say."""


class Register(NamedTuple):
    """kind: "none" (not set), "ctx", "stack", "map", "value", "value or null", "constant" or "unknown"; number: offset
    on the stack or in a value, or the constant; of: the map; id: of a look-up."""

    kind: str
    number: int = 0
    of: str = ""
    id: int = 0


NONE, UNKNOWN = Register("none"), Register("unknown")


class State(NamedTuple):
    """Registers, pointers that are kept on the stack (by offset from its beginning), and which of its bytes are set."""

    registers: tuple[Register, ...]
    spilled: tuple[tuple[int, Register], ...]
    set: int

    def covers(self, other: State) -> bool:
        """Whether what was proved from here holds for a state, too."""
        return (
            all(
                was == now or was.kind == "none" or (was.kind == "unknown" and now.kind != "none")
                for was, now in zip(self.registers, other.registers, strict=True)
            )
            and set(self.spilled) <= set(other.spilled)
            and not self.set & ~other.set
        )


def verify(insns: bytes, order: Order, maps: Mapping[int, Map]) -> int:
    """Raises Refused; the number of instructions followed. maps: by descriptor."""
    code = decode(insns, order)
    if len(insns) // 8 > BPF_MAXINSNS:
        raise Refused("program too large")
    _check_ways(code)
    return _Walk(code, insns, order, maps).walk()


def _check_ways(code: Mapping[int, bpf.Insn]) -> None:
    reached: set[int] = set()
    way = [0]
    while way:
        slot = way.pop()
        if slot in reached:
            continue
        if slot not in code:
            raise Refused(f"jump out of range: {slot}")
        reached.add(slot)
        one = code[slot]
        if is_jump(one):
            way.append(slot + 1 + one.off)
        if one.code != bpf.EXIT and not (is_jump(one) and one.code & 0xF0 == JA):
            way.append(slot + width(one))
    if reached != code.keys():
        raise Refused(f"unreachable insn {min(code.keys() - reached)}")


class _Walk:
    def __init__(self, code: Mapping[int, bpf.Insn], insns: bytes, order: Order, maps: Mapping[int, Map]) -> None:
        self._code, self._insns, self._order, self._maps = code, insns, order, maps
        self._targets = {slot + 1 + one.off for slot, one in code.items() if is_jump(one)}
        self._seen: dict[int, list[State]] = {}

    def walk(self) -> int:
        registers = [NONE] * 11
        registers[1], registers[10] = Register("ctx"), Register("stack", STACK)
        left = [(0, State(tuple(registers), (), 0))]
        followed = 0
        while left:
            slot, state = left.pop()
            while True:
                if slot in self._targets:
                    seen = self._seen.setdefault(slot, [])
                    if any(one.covers(state) for one in seen):
                        break
                    seen.append(state)
                followed += 1
                if followed > COMPLEXITY:
                    raise Refused(f"BPF program is too large. Processed {followed} insn")
                ways = self._step(slot, state)
                if not ways:
                    break
                left += ways[1:]
                slot, state = ways[0]
        return followed

    def _step(self, slot: int, state: State) -> list[tuple[int, State]]:
        one = self._code[slot]
        kind, following = one.code & 7, slot + width(one)
        if one.code == bpf.EXIT:
            self._read(slot, state, 0)
            return []
        if one.code == bpf.CALL:
            return [(following, self._call(slot, one, state))]
        if kind == bpf.BPF_JMP:
            return self._jump(slot, one, state)
        if one.code == bpf.LD_IMM64:
            value = Register("map", of=self._maps[one.imm].name) if one.src == bpf.BPF_PSEUDO_MAP_FD else UNKNOWN
            return [(following, _with(state, one.dst, value))]
        if kind in (bpf.BPF_ALU, bpf.BPF_ALU64):
            return [(following, _with(state, one.dst, self._calculate(slot, one, state)))]
        if kind == bpf.BPF_LDX:
            return [(following, _with(state, one.dst, self._load(slot, one, state)))]
        return [(following, self._store(slot, one, state))]

    def _read(self, slot: int, state: State, register: int) -> Register:
        found = state.registers[register]
        if found.kind == "none":
            raise Refused(f"{slot}: R{register} !read_ok")
        return found

    def _calculate(self, slot: int, one: bpf.Insn, state: State) -> Register:
        op = one.code & 0xF0
        wide = one.code & 7 == bpf.BPF_ALU64
        if one.code & bpf.BPF_X and op not in (0x80, 0xD0):
            other = self._read(slot, state, one.src)
        else:
            other = Register("constant", one.imm)
        if op == MOV:
            return other if wide else UNKNOWN
        was = self._read(slot, state, one.dst)
        if op == ADD and wide and not one.code & bpf.BPF_X and was.kind in ("stack", "value", "constant"):
            return was._replace(number=was.number + one.imm)
        return UNKNOWN

    def _at(self, slot: int, one: bpf.Insn, base: Register, size: int) -> int:
        """Where an access is: on the stack, or in a value. Raises Refused."""
        at = base.number + one.off
        limit = STACK if base.kind == "stack" else self._value_size(base) if base.kind == "value" else 0
        if base.kind not in ("stack", "value"):
            raise Refused(f"{slot}: invalid mem access '{base.kind}'")
        if not 0 <= at <= limit - size:
            raise Refused(f"{slot}: invalid access off={at} size={size}")
        return at

    def _value_size(self, base: Register) -> int:
        return next(one.value_size for one in self._maps.values() if one.name == base.of)

    def _load(self, slot: int, one: bpf.Insn, state: State) -> Register:
        base, size = self._read(slot, state, one.src), bpf.SIZES[one.code & 0x18]
        if base.kind == "ctx":
            return UNKNOWN
        at = self._at(slot, one, base, size)
        if base.kind == "value":
            return UNKNOWN
        if size == 8:
            for where, kept in state.spilled:
                if where == at:
                    return kept
        self._check_set(slot, state, at, size)
        return UNKNOWN

    def _check_set(self, slot: int, state: State, at: int, size: int) -> None:
        if at < 0 or at + size > STACK:
            raise Refused(f"{slot}: invalid stack access off={at} size={size}")
        if ~state.set >> at & ((1 << size) - 1):
            raise Refused(f"{slot}: invalid read from stack off {at} size {size}")

    def _store(self, slot: int, one: bpf.Insn, state: State) -> State:
        base, size = self._read(slot, state, one.dst), bpf.SIZES[one.code & 0x18]
        value = self._read(slot, state, one.src) if one.code & 7 == bpf.BPF_STX else UNKNOWN
        if one.code & 0xE0 == 0xC0 and one.imm:
            raise Refused(f"{slot}: BPF_XADD uses reserved fields")
        at = self._at(slot, one, base, size)
        if base.kind == "value":
            return state
        spilled = [(where, kept) for where, kept in state.spilled if where + 8 <= at or at + size <= where]
        if value.kind not in ("unknown", "constant", "none"):
            if size != 8 or at % 8:
                raise Refused(f"{slot}: invalid size of register spill")
            spilled.append((at, value))
        return State(state.registers, tuple(sorted(spilled)), state.set | ((1 << size) - 1) << at)

    def _jump(self, slot: int, one: bpf.Insn, state: State) -> list[tuple[int, State]]:
        op, target = one.code & 0xF0, slot + 1 + one.off
        if op == JA:
            return [(target, state)]
        by_register = bool(one.code & bpf.BPF_X)
        if by_register:
            self._read(slot, state, one.src)
        tested = self._read(slot, state, one.dst)
        if by_register or op not in (JEQ, JNE):
            return [(slot + 1, state), (target, state)]
        if tested.kind == "constant" and tested.number == one.imm:
            return [(target if op == JEQ else slot + 1, state)]
        equal = other = state
        if one.imm == 0 and tested.kind == "value or null":
            equal = _replaced(state, tested.id, UNKNOWN)
            other = _replaced(state, tested.id, Register("value", 0, tested.of, tested.id))
        elif tested.kind == "value":
            equal = other = _replaced(state, tested.id, UNKNOWN)
        elif tested.kind == "unknown":
            equal = _with(state, one.dst, UNKNOWN)
        return [(slot + 1, other), (target, equal)] if op == JEQ else [(slot + 1, equal), (target, other)]

    def _call(self, slot: int, one: bpf.Insn, state: State) -> State:
        if one.src:
            raise Refused(f"{slot}: BPF_CALL uses reserved fields")
        name = next((name for name, number in uapi.BPF_FUNC.items() if number == one.imm <= NEWEST), None)
        if name is None:
            raise Refused(f"{slot}: invalid func {one.imm}")
        result = UNKNOWN
        if name.startswith("bpf_map_"):
            found = self._read(slot, state, 1)
            if found.kind != "map":
                raise Refused(f"{slot}: R1 type={found.kind} expected=map_ptr")
            spec = next(each for each in self._maps.values() if each.name == found.of)
            self._on_stack(slot, state, 2, spec.key_size)
            if name == "bpf_map_update_elem":
                self._on_stack(slot, state, 3, spec.value_size)
                self._read(slot, state, 4)
            if name == "bpf_map_lookup_elem":
                result = Register("value or null", 0, spec.name, slot)
        elif name == "bpf_probe_read":
            size = self._constant(slot, state, 2)
            at = self._on_stack(slot, state, 1, size, written=True)
            self._read(slot, state, 3)
            kept = tuple((where, held) for where, held in state.spilled if where + 8 <= at or at + size <= where)
            state = State(state.registers, kept, state.set | ((1 << size) - 1) << at)
        elif name == "bpf_perf_event_output":
            if self._read(slot, state, 1).kind != "ctx" or self._read(slot, state, 2).kind != "map":
                raise Refused(f"{slot}: R1 or R2 is not what perf_event_output() takes")
            self._read(slot, state, 3)
            self._on_stack(slot, state, 4, self._constant(slot, state, 5))
        return state._replace(registers=(result, *(NONE,) * 5, *state.registers[6:]))

    def _constant(self, slot: int, state: State, register: int) -> int:
        found = self._read(slot, state, register)
        if found.kind != "constant" or found.number <= 0:
            raise Refused(f"{slot}: R{register} type={found.kind} expected=imm")
        return found.number

    def _on_stack(self, slot: int, state: State, register: int, size: int, written: bool = False) -> int:
        found = self._read(slot, state, register)
        if found.kind != "stack":
            raise Refused(f"{slot}: R{register} type={found.kind} expected=fp")
        if not 0 <= found.number <= STACK - size:
            raise Refused(f"{slot}: invalid stack type R{register} off={found.number} access_size={size}")
        if not written:
            self._check_set(slot, state, found.number, size)
        return found.number


def _with(state: State, register: int, value: Register) -> State:
    return state._replace(registers=(*state.registers[:register], value, *state.registers[register + 1 :]))


def _replaced(state: State, number: int, value: Register) -> State:
    """Every copy of what one look-up gave, in registers and on the stack."""

    def new(one: Register) -> Register:
        return value if one.id == number and one.kind in ("value", "value or null") else one

    spilled = tuple((where, new(one)) for where, one in state.spilled if new(one).kind != "unknown")
    return State(tuple(new(one) for one in state.registers), spilled, state.set)
