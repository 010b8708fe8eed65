"""A running set of maps, programs and links: the image, relocated for this kernel, loaded and attached.

For each hook the targets and mechanisms are tried in order; the first that the kernel accepts wins, and what it
answered to the others is kept for `sockpid doctor`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from typing import TYPE_CHECKING, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple, Union

from . import image, kernel, prog, syscall, tracefs, uapi
from .errors import AttachError, ProgError, RelocationError, SockpidError, SyscallError, VerifierError
from .features import Features, read_argument
from .hooks import HOOKS, Hook, Target
from .image import Image
from .insn import BPF_PSEUDO_MAP_FD, unpack
from .layout import Struct
from .link import MECHANISMS, OF_TARGET, Link
from .map import Map, cpus
from .named import NamedTuple
from .offsets import Offsets
from .relocate import Relocated, Resolved, context_layout, place, record_context, replace_calls, resolve
from .ringbuf import RingBuffer

if TYPE_CHECKING:
    from .perfbuf import PerfBuffer


class Options(NamedTuple):
    """deny: capabilities to do without, by name. attach: the mechanism to prefer for hooks that learn owners.

    max_sockets: entries of the two socket maps. counting: the counts map will be used. settings: of the image's enum
    setting, those that are not about the place a program hangs on: filters and the like. consensus: see offsets.find().
    """

    deny: FrozenSet[str] = frozenset()
    attach: Optional[str] = None
    max_sockets: int = 8192
    counting: bool = False
    settings: Tuple[Tuple[str, int], ...] = ()
    consensus: bool = False


class Attached(NamedTuple):
    """How a hook ended: its link (None: no mechanism was accepted), and (mechanism and target, reason) of others.

    target: where it is attached.
    """

    hook: Hook
    link: Optional[Link]
    refused: Tuple[Tuple[str, str], ...]
    target: Optional[Target] = None


ProgKey = Tuple[str, int, str, FrozenSet[str]]
"""Program name, type, the one place it is for ("": any), settings of the place."""


class Collection:
    """Maps by name, attached hooks in order. Everything ends with close()."""

    def __init__(
        self, image: Image, found: Offsets, options: Options, features: Features, given: Mapping[str, Map]
    ) -> None:
        self.maps: Dict[str, Map] = dict(given)
        self.inherited: List[bytes] = []
        """Records that waited in a map that was given."""
        self.base: Dict[int, int] = {}
        """Of enum counter, what stood in it when it was given."""
        self.hooks: List[Attached] = []
        self.features = features
        self._image = image
        self._layout = found.layout
        self._options = options
        self._btf_ids = found.btf_ids
        # To find the ids in the kernel's whole BTF takes longer than everything else: only where nothing else works.
        self._dear_ids = found.origin == "btf"
        self._progs: Dict[ProgKey, prog.Prog] = {}
        self._calls: Dict[str, Optional[int]] = {}
        self._resolved: Dict[str, Resolved] = {}
        self._no_settings = dict.fromkeys(image.settings(), 0)
        self._reader: Union[RingBuffer, PerfBuffer, None] = None
        # Four places for each socket, so that few share one.
        self._settled = 1 << (4 * options.max_sockets - 1).bit_length()
        self._task_btf = features.has("task_btf")

    @classmethod
    def attach(
        cls,
        image: Image,
        found: Offsets,
        options: Options,
        features: Optional[Features] = None,
        given: Optional[Mapping[str, Map]] = None,
    ) -> Collection:
        """Creates maps, loads programs, attaches hooks. Raises what they raise, having undone everything.

        given: maps to go on with instead of creating them; they are the collection's from here on.
        """
        collection = cls(image, found, options, features or Features(options.deny, found.btf_ids), given or {})
        try:
            collection._create_maps()
            collection._open_reader()
            if given:
                collection.inherited = collection.reader.drain()
                collection.base = {index: collection.counter(index) for index in range(2)}
            collection._replace_calls()
            for hook in HOOKS:
                collection.hooks.append(collection._attach(hook))
        except BaseException:
            collection.close()
            raise
        return collection

    def _create_maps(self) -> None:
        for name, wanted in self._image.maps.items():
            if name in self.maps:
                continue
            spec = self._spec(wanted)
            try:
                self.maps[name] = Map.create(spec, self.features.has("obj_name"))
            except SyscallError as error:
                if error.errno == errno.EPERM:  # a right or a limit of this process, not the map
                    raise
                raise ProgError(f"map {name}: {error}") from None

    def _spec(self, spec: image.Map) -> image.Map:
        """The map that this kernel can do, with as many entries as are asked for."""
        if spec.type == "BPF_MAP_TYPE_RINGBUF" and not self.features.has("ringbuf"):
            return spec._replace(
                type="BPF_MAP_TYPE_PERF_EVENT_ARRAY", key_size=4, value_size=4, max_entries=max(cpus("possible")) + 1
            )
        if spec.name == "counts" and not self._options.counting:
            return spec._replace(max_entries=1)
        if spec.name == "settled":
            return spec._replace(max_entries=self._settled)
        if spec.type in ("BPF_MAP_TYPE_LRU_HASH", "BPF_MAP_TYPE_HASH"):
            spec = spec._replace(max_entries=self._options.max_sockets)
        if spec.type == "BPF_MAP_TYPE_LRU_HASH" and not self.features.has("lru_hash"):
            spec = spec._replace(type="BPF_MAP_TYPE_HASH")
        return spec

    def _open_reader(self) -> None:
        """Before any program is attached: a perf buffer takes nothing until it is read."""
        array = self.maps["events"]
        if array.spec.type == "BPF_MAP_TYPE_RINGBUF":
            self._reader = RingBuffer(array)
        else:
            from .perfbuf import PerfBuffer

            self._reader = PerfBuffer(array, self._image.abi["struct event"]["size"])

    def _replace_calls(self) -> None:
        """Finds what to call instead of the helpers that this kernel does not have."""
        array = self.maps["events"].spec.type == "BPF_MAP_TYPE_PERF_EVENT_ARRAY"
        self._calls["bpf_ringbuf_output" if array else "bpf_perf_event_output"] = None
        if not self.features.has("probe_read_kernel"):
            missing = self.features.missing("probe_read")
            if missing is not None:
                lockdown = kernel.lockdown()
                why = f" in a kernel locked down for {lockdown} (man 7 kernel_lockdown)" if lockdown else ""
                raise ProgError(
                    f"BPF programs may not read kernel memory{why}: bpf_probe_read_kernel(): "
                    f"{self.features.missing('probe_read_kernel')}; bpf_probe_read(): {missing}"
                )
            self._calls["bpf_probe_read_kernel"] = uapi.BPF_FUNC["bpf_probe_read"]
        for feature, helper in (("cgroup_id", "bpf_get_current_cgroup_id"), ("task_btf", "bpf_get_current_task_btf")):
            if not self.features.has(feature):
                self._calls[helper] = None

    def _attach(self, hook: Hook) -> Attached:
        refused: List[Tuple[str, str]] = []
        if hook.needs is not None and not os.path.exists(hook.needs):
            return Attached(hook, None, (("any", f"there is no {hook.needs}: not needed"),))
        for target, mechanism in self._candidates(hook):
            where = f"{mechanism} {target.name}"
            if mechanism in self._options.deny:
                refused.append((where, "denied by option"))
                continue
            parts = kernel.parts_of(target.name) if target.whole else []
            if parts:
                refused.append((where, f"the compiler split the function: {', '.join(parts)}"))
                continue
            try:
                if target.least:  # to try that takes a tenth of what it takes to load the program in vain
                    read_argument(target.name, target.least - 1)
                load = functools.partial(self._load, hook, mechanism, target)
                link = MECHANISMS[mechanism].attach(target.name, load)
                return Attached(hook, link, tuple(refused), target)
            except ProgError as error:
                if not MECHANISMS[mechanism].by_btf_id:
                    raise
                refused.append((where, str(error)))
            except SyscallError as error:
                refused.append((where, str(error)))
        if hook.mandatory:
            lines = "".join(f"\n  {where}: {reason}" for where, reason in refused)
            raise AttachError(f"nothing to attach {hook.prog} ({hook.what}) to:{lines}", refused)
        return Attached(hook, None, tuple(refused))

    def _candidates(self, hook: Hook) -> Iterator[Tuple[Target, str]]:
        """Targets and mechanisms in the order to try; a preferred mechanism comes first where the hook has it."""
        pairs = [(target, mechanism) for target in hook.targets for mechanism in OF_TARGET[target.kind]]
        if self._dear_ids:
            pairs.sort(key=lambda pair: MECHANISMS[pair[1]].by_btf_id)
        preferred = self._options.attach if hook.learns or hook.name == "destroy" else None
        yield from (pair for pair in pairs if pair[1] == preferred)
        yield from (pair for pair in pairs if pair[1] != preferred)

    def _load(self, hook: Hook, mechanism: str, target: Target) -> prog.Prog:
        """The program for a way of attaching; loaded once for all targets that need the same one."""
        how = MECHANISMS[mechanism]
        btf_id, where = 0, ""
        if how.by_btf_id:
            where = target.name
            btf_id = self._btf_ids().get(target.name, 0)
            if not btf_id:
                raise SyscallError("look up the BTF id", errno.ENOENT, f"the offsets have none for {target.name}")
        arch = syscall.machine()
        if how.context == "record":
            where = target.name
            try:
                context = record_context(tracefs.Tracepoint(target.name).fields, target.fields)
            except RelocationError as error:
                raise SyscallError("read the format", errno.ENOENT, str(error)) from None
        else:
            context = context_layout(arch, self._layout, how.context, target.arguments)
        key = (hook.prog, how.prog_type, where, target.settings)
        if key not in self._progs:
            settings = {
                **self._no_settings,
                **dict(hook.settings),
                **dict.fromkeys(target.settings, 1),
                "SETTING_RETURN": how.returns,
                "SETTING_TASK_BTF": int(self._task_btf),
                "SETTING_SETTLED_MASK": self._settled - 1,
                **dict(self._options.settings),
            }
            ready = self._relocated(hook.source or hook.prog, context, settings)
            try:
                self._progs[key] = prog.load(
                    hook.prog,
                    how.prog_type,
                    ready.insns,
                    self._image.license,
                    ready.poison,
                    btf_id,
                    self.features.has("obj_name"),
                )
            except VerifierError:
                if not self._task_btf:
                    raise
                # The verifier knows where fields of a task are. Offsets that are wrong come to the self-check, which
                # says so, once a helper reads them.
                self._task_btf = False
                try:
                    return self._load(hook, mechanism, target)
                except VerifierError:
                    self._task_btf = True
                    raise
        return self._progs[key]

    def _relocated(self, name: str, context: Struct, settings: Mapping[str, int]) -> Relocated:
        """A program as it is loaded. What depends on the kernel alone is resolved once."""
        order = self._image.byte_order
        if name not in self._resolved:
            program = self._image.programs[name]
            resolved = resolve(program, order, self._layout)
            insns = bytearray(resolved.insns)
            replace_calls(insns, program, order, self._calls)
            self._resolved[name] = resolved._replace(insns=self._map_fds(insns, program.maps))
        return place(self._resolved[name], order, context, settings)

    def _map_fds(self, insns: bytearray, maps: Tuple[Tuple[int, str], ...]) -> bytes:
        order = self._image.byte_order
        for index, name in maps:
            patched = unpack(insns, index, order)._replace(src=BPF_PSEUDO_MAP_FD, imm=self.maps[name].fd)
            insns[index * 8 : index * 8 + 8] = patched.pack(order)
        return bytes(insns)

    def replace_events(self, settings: Tuple[Tuple[str, int], ...]) -> None:
        """Attaches the programs that raise events anew, with other settings; the new ones first, then the old ones go.

        In between an event may be raised twice.
        """
        self._options = self._options._replace(settings=settings)
        for index, attached in enumerate(self.hooks):
            if attached.hook.raises and attached.link is not None:
                old = attached.link
                for key in [key for key in self._progs if key[0] == attached.hook.prog]:
                    self._progs.pop(key).close()
                self.hooks[index] = self._attach(attached.hook)
                old.close()

    def silence(self) -> None:
        """Detaches the programs that raise events, so that what is read afterwards is all there will be."""
        for attached in self.hooks:
            if attached.hook.raises and attached.link is not None:
                attached.link.close()

    @property
    def reader(self) -> Union[RingBuffer, PerfBuffer]:
        """Of the events map; there from before the first event until close()."""
        assert self._reader is not None, "attach() opens it"
        return self._reader

    def mechanisms(self) -> Mapping[str, Optional[str]]:
        """Hook -> "mechanism target", or None."""
        return {a.hook.name: f"{a.link.mechanism} {a.link.target}" if a.link is not None else None for a in self.hooks}

    def flaws(self) -> List[str]:
        """What the attached hooks do not see, a line each."""
        lines: List[str] = []
        for attached in self.hooks:
            target = attached.target
            if target is not None:
                by = f"{attached.hook.name} by way of {target.name}"
                lines += [f"{by}: {target.flaw}"] if target.flaw else []
                lines += [f"{by}: attempts that fail are reported too"] if target.entry else []
        return lines

    def learns(self) -> bool:
        """At least one hook that learns owners is attached."""
        return any(a.link is not None and a.hook.learns for a in self.hooks)

    def counter(self, index: int) -> int:
        """Sum over all CPUs of one of enum counter."""
        value = self.maps["counters"].lookup(index.to_bytes(4, self._image.byte_order))  # type: ignore[arg-type]
        data = memoryview(value or b"").cast("Q")
        return sum(data)

    def close(self) -> None:
        """Detaches and frees everything, in the reverse order; a failing detach does not stop the others."""
        for attached in reversed(self.hooks):
            if attached.link is not None:
                with contextlib.suppress(SockpidError):
                    attached.link.close()
        for loaded in self._progs.values():
            loaded.close()
        if self._reader is not None:
            self._reader.close()
        for created in self.maps.values():
            created.close()
