"""The committed programs, relocated and attached as the loader would, for a kernel of the test's choice."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sockpid import uapi
from sockpid.arch import Arch
from sockpid.bpf.link import MECHANISMS
from sockpid.image.hooks import HOOKS, Hook, Target, numbers
from sockpid.image.image import Image, context_layout, record_context
from sockpid.image.insn import BPF_PSEUDO_MAP_FD, unpack
from sockpid.image.prune import prune
from sockpid.image.relocate import Relocated, relocate, replace_calls
from sockpid.table.layout import Field, Layout, Struct

from .layouts import put
from .memory import Order
from .translate import Program, translate

RECORD = {
    name: Field(8 * (8 + 8 * n), 64 if name.endswith("addr") or name == "req" else 32)
    for n, name in enumerate(("skaddr", "skbaddr", "req", "oldstate", "newstate", "err"))
}
"""A tracepoint's record with every field that one of ours asks for."""
CONTEXT = 4096

_translated = functools.lru_cache(maxsize=None)(translate)


class Attached:
    """A program for one hook by one mechanism. insns: ready but for descriptors of maps, which are numbers here."""

    def __init__(self, name: str, insns: bytes, context: Struct, order: Order, relocated: Relocated) -> None:
        self.name, self.insns, self.order, self.relocated = name, insns, order, relocated
        self._context = context

    @property
    def program(self) -> Program:
        return _translated(self.name, self.insns, self.order)

    def context(self, *arguments: int) -> bytes:
        data = bytearray(CONTEXT)
        for n, value in enumerate(arguments):
            field = self._context.fields[f"arg{n}"]
            assert field is not None
            put(memoryview(data), field, value, self.order)
        return bytes(data)


class Programs:
    """Programs of one image for one kernel. maps: its maps' names, sorted, whose places are their descriptors."""

    def __init__(
        self,
        image: Image,
        arch: Arch,
        layout: Layout,
        calls: Mapping[str, int | None] | None = None,
        settled_mask: int | None = None,
        pruned: bool = False,
    ) -> None:
        """calls: as replace_calls() takes them; by default those of a kernel with ring buffers. settled_mask: 0 puts
        all sockets' words in one place. pruned: as for a kernel that refuses what cannot be reached."""
        self.image, self.arch, self.layout = image, arch, layout
        self.order: Order = "big" if arch.byte_order == "big" else "little"
        self._pruned = pruned
        self._calls = {"bpf_perf_event_output": None} if calls is None else calls
        self.settled_mask = image.maps["settled"].max_entries - 1 if settled_mask is None else settled_mask
        self._maps = {name: n for n, name in enumerate(sorted(image.maps))}
        self._numbers = numbers()
        self._made: dict[Any, Attached] = {}

    def attach(self, hook: str, kind: str = "", mechanism: str = "", **settings: int) -> Attached:
        """hook: its name. kind: of the target, by default the first. settings: more of the image's, without prefix."""
        key = hook, kind, mechanism, tuple(sorted(settings.items()))
        if key not in self._made:
            found = next(one for one in HOOKS if one.name == hook)
            target = next(t for t in found.targets if not kind or t.kind == kind)
            self._made[key] = self.make(found, target, mechanism or KINDS[target.kind], **settings)
        return self._made[key]

    def make(self, hook: Hook, target: Target, mechanism: str, **more: int) -> Attached:
        how = MECHANISMS[mechanism]
        if how.context == "record":
            context = record_context(RECORD, target.fields)
        else:
            context = context_layout(self.arch, self.layout, how.context, target.arguments)
        settings = {
            **dict.fromkeys(self.image.settings(), 0),
            **dict(hook.settings),
            **dict.fromkeys(target.settings, 1),
            "SETTING_RETURN": how.returns,
            "SETTING_HOOK": self._numbers[hook.name],
            "SETTING_SETTLED_MASK": self.settled_mask,
            **{f"SETTING_{name}": value for name, value in more.items()},
        }
        program = self.image.programs[hook.source or hook.prog]
        relocated = relocate(program, self.order, self.layout, context, settings)
        insns = bytearray(relocated.insns)
        replace_calls(insns, program, self.order, self._calls)
        for index, name in program.maps:
            loaded = unpack(insns, index, self.order)._replace(src=BPF_PSEUDO_MAP_FD, imm=self._maps[name])
            insns[index * 8 : index * 8 + 8] = loaded.pack(self.order)
        ready = prune(bytes(insns), self.order) if self._pruned else bytes(insns)
        return Attached(program.name, ready, context, self.order, relocated)


KINDS = {
    "lsm": "lsm",
    "raw_tp": "raw_tp",
    "tracepoint": "tracepoint",
    "fentry": "fentry",
    "func": "fentry",
    "kprobe": "kprobe-pmu",
}
"""A mechanism for each kind of target."""
OLD_CALLS = {
    "bpf_probe_read_kernel": uapi.BPF_FUNC["bpf_probe_read"],
    "bpf_ringbuf_output": None,
    "bpf_get_current_cgroup_id": None,
    "bpf_get_current_task_btf": None,
}
"""Of a kernel that has none of these."""
