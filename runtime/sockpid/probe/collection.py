"""A running set of maps, programs and links: the image, loaded for this kernel (loader.py) and attached.

For each hook the targets and mechanisms are tried in order; the first that the kernel accepts wins, and what it
answered to the others is kept for `sockpid doctor`.
"""

from __future__ import annotations

import errno
import os

from sockpid.bpf import prog
from sockpid.bpf.features import Features, read_argument
from sockpid.bpf.link import MECHANISMS, OF_TARGET, Link
from sockpid.bpf.map import Map, cpus, lru_entries
from sockpid.bpf.ringbuf import RingBuffer
from sockpid.errors import AttachError, ProgError, SockpidError, SyscallError, VerifierError
from sockpid.host import kernel
from sockpid.image import image
from sockpid.image.hooks import HOOKS, Hook, Target, numbers
from sockpid.image.image import Image
from sockpid.namedtuple import NamedTuple
from sockpid.offsets.source import Offsets

from .exercise import Exercise, switched_off
from .loader import Loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple, Union

    from sockpid.bpf.perfbuf import PerfBuffer
    from sockpid.bpf.prog import Prog
    from sockpid.errors import UnknownKernelError
    from sockpid.host.kernel import Identity


# enum counter (bpf_bytecode/sockpid.h)
COUNTER_FIRED = 8

NOT_RUNNING = "attached, and does not run"
RING_SHARE = 64
"""The part of the memory that events may wait in: with all else, sockpid then fits into 112 MiB beside a kernel."""


class Options(NamedTuple):
    """deny: capabilities to do without, by name. attach: the mechanism to prefer for hooks that learn owners.

    max_sockets: entries of the two socket maps. counting: the counts map will be used. settings: of the image's enum
    setting, those that are not about the place a program hangs on: filters and the like. prove: gives offsets that
    it has proved on a kernel of which no source tells them, or raises that error or one that says more; None: without.
    take_signals: called before anything is made that would stay behind if a signal ended the process.
    """

    deny: FrozenSet[str] = frozenset()
    attach: Optional[str] = None
    max_sockets: int = 8192
    counting: bool = False
    settings: Tuple[Tuple[str, int], ...] = ()
    prove: Optional[Callable[[Options, Image, Identity, UnknownKernelError], Offsets]] = None
    take_signals: Optional[Callable[[], None]] = None


def _ring_size(memory: int) -> int:
    """The most that a ring buffer takes on a host of so many bytes: a power of two, and at least a page of any size."""
    return max(1 << 16, 1 << (memory // RING_SHARE).bit_length() - 1)


def _because() -> str:
    why = switched_off()
    return f": {why}" if why else ""


class Attached(NamedTuple):
    """How a hook ended: its link (None: no mechanism was accepted), and (mechanism and target, reason) of others.

    target: where it is attached. seen: it was seen to run; None: there was no occasion to see it.
    """

    hook: Hook
    link: Optional[Link]
    refused: Tuple[Tuple[str, str], ...]
    target: Optional[Target] = None
    seen: Optional[bool] = None


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
        self.max_sockets = options.max_sockets
        self.image = image
        self._options = options
        self._preemptible = kernel.preemptible()
        self._numbers = numbers()
        self._exercise = Exercise()
        self._reader: Union[RingBuffer, PerfBuffer, None] = None
        # Four places for each socket, so that few share one.
        self._settled = 1 << (4 * options.max_sockets - 1).bit_length()
        self._loader = Loader(image, found, features, self.maps, options.settings)

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
        collection = cls(image, found, options, features or Features(options.deny, found.btf_id), given or {})
        try:
            collection._create_maps()
            collection._open_reader()
            if given:
                collection.inherited = collection.reader.drain()
                collection.base = {index: collection.counter(index) for index in range(2)}
            collection._loader.replace_calls()
            for hook in HOOKS:
                collection.hooks.append(collection._attach(hook))
        except BaseException:
            collection.close()
            raise
        return collection

    def _create_maps(self) -> None:
        for name, wanted in self.image.maps.items():
            if name in self.maps:
                continue
            spec = self._spec(wanted)
            try:
                self.maps[name] = Map.create(spec, self.features.has("obj_name"))
            except SyscallError as error:
                if error.errno in (errno.EPERM, errno.ENOSYS):  # a right or a limit of this process, not the map
                    raise
                raise ProgError(f"map {name}: {error}") from None

    def _spec(self, spec: image.Map) -> image.Map:
        """The map that this kernel can do, with as many entries as are asked for."""
        if spec.type == "BPF_MAP_TYPE_RINGBUF" and not self.features.has("ringbuf"):
            return spec._replace(
                type="BPF_MAP_TYPE_PERF_EVENT_ARRAY", key_size=4, value_size=4, max_entries=max(cpus("possible")) + 1
            )
        if spec.type == "BPF_MAP_TYPE_RINGBUF":
            return spec._replace(max_entries=min(spec.max_entries, _ring_size(kernel.memory())))
        if spec.name == "counts" and not self._options.counting:
            return spec._replace(max_entries=1)
        if spec.name == "settled":
            return spec._replace(max_entries=self._settled)
        if spec.type in ("BPF_MAP_TYPE_LRU_HASH", "BPF_MAP_TYPE_HASH"):
            spec = spec._replace(max_entries=self._options.max_sockets)
        if spec.type == "BPF_MAP_TYPE_LRU_HASH" and self.features.has("lru_hash"):
            spec = spec._replace(max_entries=lru_entries(self._options.max_sockets))
        if spec.type == "BPF_MAP_TYPE_LRU_HASH" and not self.features.has("lru_hash"):
            spec = spec._replace(type="BPF_MAP_TYPE_HASH")
        return spec

    def _open_reader(self) -> None:
        """Before any program is attached: a perf buffer takes nothing until it is read."""
        array = self.maps["events"]
        if array.spec.type == "BPF_MAP_TYPE_RINGBUF":
            self._reader = RingBuffer(array)
        else:
            from sockpid.bpf.perfbuf import PerfBuffer

            self._reader = PerfBuffer(array, self.image.abi["struct event"]["size"])

    def fall_back(self, name: str) -> None:
        """Attaches a hook, which was found not to run, to what comes next. Raises AttachError for a mandatory one."""
        for index, attached in enumerate(self.hooks):
            link = attached.link
            if attached.hook.name == name and link is not None:
                link.close()
                where = f"{link.mechanism} {link.target}"
                refused = (*attached.refused, (where, f"{NOT_RUNNING}{_because()}"))
                self.hooks[index] = attached._replace(link=None, refused=refused)
                self.hooks[index] = self._attach(attached.hook, refused)

    def _attach(self, hook: Hook, before: Tuple[Tuple[str, str], ...] = ()) -> Attached:
        """before: where it was refused already, and why."""
        refused: List[Tuple[str, str]] = list(before)
        if hook.needs is not None and not os.path.exists(hook.needs):
            return Attached(hook, None, (("any", f"there is no {hook.needs}: not needed"),))
        if hook.preemptible and not self._preemptible:
            return Attached(hook, None, (("any", "this kernel preempts no program: not needed"),))
        if any(a.hook.name == hook.spared_by and a.target is not None and a.target.general for a in self.hooks):
            return Attached(hook, None, (("any", f"{hook.spared_by} sees it too: not needed"),))
        for target, mechanism in self._candidates(hook):
            where = f"{mechanism} {target.name}"
            if any(where == other for other, _ in before):
                continue
            if mechanism in self._options.deny:
                refused.append((where, "denied by option"))
                continue
            parts = kernel.parts_of(target.name) if target.whole else []
            if parts:
                refused.append((where, f"the compiler split the function: {', '.join(parts)}"))
                continue

            def load(mechanism: str = mechanism, target: Target = target) -> Prog:
                return self._loader.load(hook, mechanism, target)

            try:
                if target.least:  # to try that takes a tenth of what it takes to load the program in vain
                    read_argument(target.name, target.least - 1)
                if MECHANISMS[mechanism].outlives and self._options.take_signals is not None:
                    self._options.take_signals()
                link = MECHANISMS[mechanism].attach(target.name, load)
                seen = self._is_seen(hook, link)
                if seen is not False:
                    return Attached(hook, link, tuple(refused), target, seen)
                refused.append((where, f"{NOT_RUNNING}{_because()}"))
            except ProgError as error:
                # What the verifier has not looked at is of a type that the kernel does not know.
                if isinstance(error, VerifierError) and not MECHANISMS[mechanism].by_btf_id:
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
        pairs.sort(key=lambda pair: self._rank(hook, pair[1]))
        preferred = self._options.attach if hook.learns or hook.name == "destroy" else None
        yield from (pair for pair in pairs if pair[1] == preferred)
        yield from (pair for pair in pairs if pair[1] != preferred)

    def _rank(self, hook: Hook, mechanism: str) -> int:
        """What comes first, truth before cost.

        Where the kernel can take a task off its CPU inside a program, the program is passed over for the next task
        there; a perf program is more rarely; what security modules are asked never is.
        """
        if mechanism == "lsm":
            return 0 if self._preemptible else 2
        return 0 if not (self._preemptible and hook.learns) or mechanism.startswith("kprobe") else 1

    def _is_seen(self, hook: Hook, link: Link) -> Optional[bool]:
        """Is the program of a link seen to run? None where there is no occasion. A link that is not is closed."""
        before = self.fired(hook)
        try:
            if not self._exercise.make(hook.name):
                return None
            if self.fired(hook) > before:
                return True
        except BaseException:
            link.close()
            raise
        link.close()
        return False

    def attach_again(self, index: int) -> Optional[str]:
        """Attaches a hook that does not fire any more by what does, if there is something. Returns how, or None.

        Raises SockpidError where that is not permitted any more.
        """
        before = self.hooks[index]
        attached = self._attach(before.hook)
        if attached.link is None:
            return None
        self.hooks[index] = attached
        if before.link is not None:
            before.link.close()
        return f"{attached.link.mechanism} {attached.link.target}"

    def fired(self, hook: Hook) -> int:
        """How often the program of a hook ran for what it is there for."""
        return self.counter(COUNTER_FIRED + self._numbers[hook.name])

    def misses(self) -> int:
        """How often a program that learns owners, or their end, was passed over, and no other saw the same."""
        never_skipped = {a.hook.name for a in self.hooks if a.link is not None and a.link.mechanism == "lsm"}
        return sum(
            prog.misses(attached.link.prog) or 0
            for attached in self.hooks
            if attached.link is not None
            and (attached.hook.learns or attached.hook.name == "destroy")
            and attached.hook.behind not in never_skipped
        )

    def unsettle(self) -> None:
        """Makes the next use of every socket take the slow path, which brings its owner up to date.

        A kernel that cannot do so in one call does not count misses either: there each 64th use takes it.
        """
        try:
            self.maps["settled"].zero()
        except SyscallError:
            return

    def replace_events(self, settings: Tuple[Tuple[str, int], ...]) -> None:
        """Attaches the programs that raise events anew, with other settings; the new ones first, then the old ones go.

        In between an event may be raised twice.
        """
        self._loader.settings = settings
        for index, attached in enumerate(self.hooks):
            if attached.hook.raises and attached.link is not None:
                old = attached.link
                self._loader.forget(attached.hook.name)
                self.hooks[index] = self._attach(attached.hook, self._not_running(attached))
                old.close()

    @staticmethod
    def _not_running(attached: Attached) -> Tuple[Tuple[str, str], ...]:
        return tuple(each for each in attached.refused if NOT_RUNNING in each[1])

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
        value = self.maps["counters"].lookup(index.to_bytes(4, self.image.byte_order))  # type: ignore[arg-type]
        data = memoryview(value or b"").cast("Q")
        return sum(data)

    def close(self) -> None:
        """Detaches and frees everything, in the reverse order; a failing detach does not stop the others."""
        for attached in reversed(self.hooks):
            if attached.link is not None:
                try:
                    attached.link.close()
                except SockpidError:
                    continue
        self._loader.close()
        if self._reader is not None:
            self._reader.close()
        for created in self.maps.values():
            created.close()
