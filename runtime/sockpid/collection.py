"""A running set of maps, programs and links: the image, loaded for this kernel (loader.py) and attached.

For each hook the targets and mechanisms are tried in order; the first that the kernel accepts wins, and what it
answered to the others is kept for `sockpid doctor`.
"""

from __future__ import annotations

import errno
import os

from . import image, kernel
from .errors import AttachError, ProgError, SockpidError, SyscallError, VerifierError
from .features import Features, read_argument
from .hooks import HOOKS, Hook, Target
from .image import Image
from .link import MECHANISMS, OF_TARGET, Link
from .loader import Loader
from .map import Map, cpus
from .named import NamedTuple
from .offsets import Offsets
from .ringbuf import RingBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple, Union

    from .perfbuf import PerfBuffer
    from .prog import Prog


class Options(NamedTuple):
    """deny: capabilities to do without, by name. attach: the mechanism to prefer for hooks that learn owners.

    max_sockets: entries of the two socket maps. counting: the counts map will be used. settings: of the image's enum
    setting, those that are not about the place a program hangs on: filters and the like. consensus: see offsets.find().
    take_signals: called before anything is made that would stay behind if a signal ended the process.
    """

    deny: FrozenSet[str] = frozenset()
    attach: Optional[str] = None
    max_sockets: int = 8192
    counting: bool = False
    settings: Tuple[Tuple[str, int], ...] = ()
    consensus: bool = False
    take_signals: Optional[Callable[[], None]] = None


class Attached(NamedTuple):
    """How a hook ended: its link (None: no mechanism was accepted), and (mechanism and target, reason) of others.

    target: where it is attached.
    """

    hook: Hook
    link: Optional[Link]
    refused: Tuple[Tuple[str, str], ...]
    target: Optional[Target] = None


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
        self._options = options
        # To find the ids in the kernel's whole BTF takes longer than everything else: only where nothing else works.
        self._dear_ids = found.origin == "btf"
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
        collection = cls(image, found, options, features or Features(options.deny, found.btf_ids), given or {})
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

            def load(mechanism: str = mechanism, target: Target = target) -> Prog:
                return self._loader.load(hook, mechanism, target)

            try:
                if target.least:  # to try that takes a tenth of what it takes to load the program in vain
                    read_argument(target.name, target.least - 1)
                if MECHANISMS[mechanism].outlives and self._options.take_signals is not None:
                    self._options.take_signals()
                link = MECHANISMS[mechanism].attach(target.name, load)
                return Attached(hook, link, tuple(refused), target)
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
        if self._dear_ids:
            pairs.sort(key=lambda pair: MECHANISMS[pair[1]].by_btf_id)
        preferred = self._options.attach if hook.learns or hook.name == "destroy" else None
        yield from (pair for pair in pairs if pair[1] == preferred)
        yield from (pair for pair in pairs if pair[1] != preferred)

    def replace_events(self, settings: Tuple[Tuple[str, int], ...]) -> None:
        """Attaches the programs that raise events anew, with other settings; the new ones first, then the old ones go.

        In between an event may be raised twice.
        """
        self._loader.settings = settings
        for index, attached in enumerate(self.hooks):
            if attached.hook.raises and attached.link is not None:
                old = attached.link
                self._loader.forget(attached.hook.prog)
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
                try:
                    attached.link.close()
                except SockpidError:
                    continue
        self._loader.close()
        if self._reader is not None:
            self._reader.close()
        for created in self.maps.values():
            created.close()
