"""Programs of an image for this kernel: relocated for the place where each is to hang, and loaded."""

from __future__ import annotations

import errno

from sockpid import syscall, uapi
from sockpid.bpf import prog
from sockpid.bpf.features import Features
from sockpid.bpf.link import MECHANISMS, Mechanism
from sockpid.bpf.map import Map
from sockpid.errors import ProgError, RelocationError, SyscallError, VerifierError
from sockpid.host import kernel
from sockpid.image.hooks import Hook, Target, numbers
from sockpid.image.image import Image, context_layout, record_context
from sockpid.image.insn import BPF_PSEUDO_MAP_FD, unpack
from sockpid.image.relocate import Relocated, Resolved, place, replace_calls, resolve
from sockpid.offsets.source import Offsets
from sockpid.table.layout import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Mapping, Optional, Tuple

    ProgKey = Tuple[str, int, str, FrozenSet[str]]
    """Name of the hook, type, the one place it is for ("": any), settings of the place."""


class Loader:
    """Loads programs when they are asked for, once for all places that need the same one. close() frees them.

    settings: of the image's enum setting, those that are not about a hook or its place.
    """

    def __init__(
        self,
        image: Image,
        found: Offsets,
        features: Features,
        maps: Mapping[str, Map],
        settings: Tuple[Tuple[str, int], ...],
    ) -> None:
        """maps: of the programs, by name; they need not be there yet."""
        self.settings = settings
        self._image = image
        self._layout = found.layout
        self._id_of = found.btf_id
        self._features = features
        self._maps = maps
        self._progs: Dict[ProgKey, prog.Prog] = {}
        self._calls: Dict[str, Optional[int]] = {}
        self._resolved: Dict[str, Resolved] = {}
        self._no_settings = dict.fromkeys(image.settings(), 0)
        self._task_btf = self._arg_btf = features.has("task_btf")
        self._numbers = numbers()
        self._prunes = False
        self._proved: Dict[Tuple[int, str], int] = {}

    def replace_calls(self) -> None:
        """Finds what to call instead of the helpers that this kernel does not have."""
        array = self._maps["events"].spec.type == "BPF_MAP_TYPE_PERF_EVENT_ARRAY"
        self._calls["bpf_ringbuf_output" if array else "bpf_perf_event_output"] = None
        if not self._features.has("probe_read_kernel"):
            missing = self._features.missing("probe_read")
            if missing is not None:
                lockdown = kernel.lockdown()
                why = f" in a kernel locked down for {lockdown} (man 7 kernel_lockdown)" if lockdown else ""
                raise ProgError(
                    f"BPF programs may not read kernel memory{why}: bpf_probe_read_kernel(): "
                    f"{self._features.missing('probe_read_kernel')}; bpf_probe_read(): {missing}"
                )
            self._calls["bpf_probe_read_kernel"] = uapi.BPF_FUNC["bpf_probe_read"]
        for feature, helper in (("cgroup_id", "bpf_get_current_cgroup_id"), ("task_btf", "bpf_get_current_task_btf")):
            if not self._features.has(feature):
                self._calls[helper] = None

    def load(self, hook: Hook, mechanism: str, target: Target) -> prog.Prog:
        """The program of a hook for a way of attaching. Raises SyscallError where the place or its BTF id is not there,
        RelocationError, ProgError.
        """
        how = MECHANISMS[mechanism]
        btf_id, where = 0, ""
        if how.by_btf_id:
            where = target.name
            btf_id = self._btf_id(target.name, how)
        arch = syscall.machine()
        if how.context == "record":
            from sockpid.bpf import tracefs

            where = target.name
            try:
                context = record_context(tracefs.Tracepoint(target.name).fields, target.fields)
            except RelocationError as error:
                raise SyscallError("read the format", errno.ENOENT, str(error)) from None
        else:
            context = context_layout(arch, self._layout, how.context, target.arguments)
        key = (hook.name, how.prog_type, where, target.settings)
        if key not in self._progs:
            settings = {
                **self._no_settings,
                **dict(hook.settings),
                **dict.fromkeys(target.settings, 1),
                "SETTING_RETURN": how.returns,
                "SETTING_TASK_BTF": int(self._task_btf),
                "SETTING_ARG_BTF": int(self._arg_btf and how.by_btf_id),
                "SETTING_HOOK": self._numbers[hook.name],
                "SETTING_SETTLED_MASK": self._maps["settled"].spec.max_entries - 1,
                **dict(self.settings),
            }
            ready = self._relocated(hook.source or hook.prog, context, settings)
            try:
                self._progs[key] = self._loaded(hook, how, btf_id, ready)
            except VerifierError:
                if not (self._task_btf or self._arg_btf):
                    raise
                # The verifier knows where fields of a task and of a socket are. Offsets that are wrong come to the
                # self-check, which says so, once a helper reads them.
                before = self._task_btf, self._arg_btf
                self._task_btf = self._arg_btf = False
                try:
                    return self.load(hook, mechanism, target)
                except VerifierError:
                    self._task_btf, self._arg_btf = before
                    raise
        return self._progs[key]

    def _loaded(self, hook: Hook, how: Mechanism, btf_id: int, ready: Relocated) -> prog.Prog:
        """As it is, or, if the kernel refuses that, without what cannot be reached: old verifiers look at that, too."""

        def load(insns: bytes) -> prog.Prog:
            named = self._features.has("obj_name")
            license, poison = self._image.license, ready.poison
            return prog.load(hook.prog, how.prog_type, insns, license, poison, btf_id, named, how.attach_type)

        if not self._prunes:
            try:
                return load(ready.insns)
            except (VerifierError, RelocationError):
                if how.by_btf_id:
                    raise
        from sockpid.image.prune import prune  # for old kernels alone

        pruned = load(prune(ready.insns, self._image.byte_order))
        self._prunes = True
        return pruned

    def _btf_id(self, name: str, how: Mechanism) -> int:
        """The BTF id of a function, which the kernel has said to be that function's. Raises SyscallError."""
        key = how.prog_type, name
        if key not in self._proved:
            btf_id = self._id_of(name)
            if not btf_id:
                raise SyscallError("look up the BTF id", errno.ENOENT, f"neither offsets nor BTF have one for {name}")
            found = prog.function_of(how.prog_type, how.attach_type, btf_id)
            if found != name:
                raise SyscallError(
                    "prove the BTF id",
                    errno.EINVAL,
                    f"{btf_id} is not that of {name}, as the offsets say: to this kernel it is "
                    f"{found + '()' if found else 'none'}",
                )
            self._proved[key] = btf_id
        return self._proved[key]

    def _relocated(self, name: str, context: Struct, settings: Mapping[str, int]) -> Relocated:
        """A program as it is loaded. What depends on the kernel alone is resolved once."""
        order = self._image.byte_order
        if name not in self._resolved:
            program = self._image.programs[name]
            resolved = resolve(program, order, self._layout, syscall.machine().pointer_size)
            insns = bytearray(resolved.insns)
            replace_calls(insns, program, order, self._calls)
            self._resolved[name] = resolved._replace(insns=self._map_fds(insns, program.maps))
        return place(self._resolved[name], order, context, settings)

    def _map_fds(self, insns: bytearray, maps: Tuple[Tuple[int, str], ...]) -> bytes:
        order = self._image.byte_order
        for index, name in maps:
            patched = unpack(insns, index, order)._replace(src=BPF_PSEUDO_MAP_FD, imm=self._maps[name].fd)
            insns[index * 8 : index * 8 + 8] = patched.pack(order)
        return bytes(insns)

    def forget(self, name: str) -> None:
        """Frees the programs of this hook; what is attached stays so."""
        for key in [key for key in self._progs if key[0] == name]:
            self._progs.pop(key).close()

    def close(self) -> None:
        for loaded in self._progs.values():
            loaded.close()
