"""Which programs depend on a kernel field, and at which of their instructions: read from the image's relocations."""

from __future__ import annotations

from typing import Dict, List, NamedTuple

from sockpid.arch import Arch
from sockpid.image.image import PROBE_CTX, PT_REGS, SETTING, Image, Relocation, argument


class Use(NamedTuple):
    """One relocation: program, index of the instruction it patches, its kind ("byte_off", "byte_sz", ...)."""

    program: str
    insn: int
    kind: str


def uses(image: Image, arch: Arch) -> Dict[str, List[Use]]:
    """The relocations behind every field, named as sockpid_gen.difference does, in the order of programs."""
    found: Dict[str, List[Use]] = {}
    for name, program in sorted(image.programs.items()):
        for relocation in program.relocations:
            if relocation.type != SETTING:
                found.setdefault(field_of(relocation, arch), []).append(Use(name, relocation.insn, relocation.kind))
    return found


def field_of(relocation: Relocation, arch: Arch) -> str:
    """The field that a relocation speaks of; an argument of the probe is the register that holds it at a kprobe."""
    if relocation.type == PROBE_CTX:
        return f"{PT_REGS}.{arch.args[argument(relocation.path)]}"
    if relocation.kind == "type_size":
        return f"sizeof({relocation.type})"
    return f"{relocation.type}.{relocation.path}" if relocation.path else relocation.type
