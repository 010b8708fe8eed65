"""What a source says of the running kernel, and when a file is one that may be believed."""

from __future__ import annotations

import errno
import os
import stat

from sockpid.errors import BtfError, SyscallError, TableError
from sockpid.host.kernel import Identity
from sockpid.image import hooks
from sockpid.namedtuple import NamedTuple
from sockpid.table import table
from sockpid.table.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Mapping, Optional

    from sockpid.btf.btf import Btf

MPTCP = "/proc/sys/net/mptcp"
"""There in kernels with MPTCP."""


class Offsets(NamedTuple):
    """The offsets in use. source: the file, for people.

    origin, as events say it: "table" (read from that kernel's own debug information), "btf" (the running kernel's),
    "consensus" (another build's, proved on this host) or "calibrated" (found by trying).
    btf_id: gives the BTF id of a function, 0 for one that is not known; asked only where a program needs it. It may be
    wrong: see prog.function_of().
    """

    layout: Layout
    origin: str
    source: str
    btf_id: Callable[[str], int]
    is_new: bool = False
    """It took long to find out, and is worth keeping for the next start, once it is proved."""

    @property
    def needs_proof(self) -> bool:
        """Nobody has seen this very kernel's debug information: the self-check must not be without a result."""
        return self.origin in ("consensus", "calibrated")


def no_id(_function: str) -> int:
    """Of a source that knows no BTF ids."""
    return 0


def function_ids(known: Mapping[str, int], live: Optional[Callable[[], Btf]]) -> Callable[[str], int]:
    """The ids in `known`, and of other functions those in the kernel's own BTF, which `live` gives, looked up once."""
    ids = dict(known)
    sources = [live] if live is not None else []

    def btf_id(function: str) -> int:
        if function not in ids and sources:
            try:
                ids.update({**sources.pop()().func_ids(hooks.functions()), **ids})
            except (BtfError, SyscallError):
                return 0
        return ids.get(function, 0)

    return btf_id


def unused() -> List[str]:
    """Fields of calibrated tables that may be missing, because this host has no use for what they tell."""
    from .calibration import BESIDE, IPV6, ULP

    names: List[str] = [*BESIDE]
    if not os.path.exists(MPTCP):
        names += ULP
    if not os.path.exists("/proc/net/if_inet6"):
        names += IPV6
    return names


def shard_name(kernel: Identity) -> str:
    """Where the part of the table that has a kernel's series lies."""
    return f"offsets/{kernel.arch.name}/{table.series_of(kernel.release)}.json"


def is_trusted(directory: str) -> bool:
    """May only root and ourselves put files there? Raises OSError."""
    status = os.stat(directory)
    return not status.st_mode & 0o022 and status.st_uid in (0, os.geteuid())


def read(path: str, trusted: bool = False) -> table.Shard:
    """A table file. trusted: it must be a plain file that only root or ourselves may write. Raises TableError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK | os.O_NOFOLLOW if trusted else 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if trusted and not stat.S_ISREG(status.st_mode):
                raise TableError(f"{path}: not a regular file")
            if trusted and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
                raise TableError(f"{path}: others than root may write it; `chown root:root` and `chmod 644` it")
            return table.parse_shard(file.read(), path)
    except OSError as error:
        if trusted and error.errno == errno.ELOOP:
            raise TableError(f"{path}: a symbolic link, where only plain files are taken") from None
        raise TableError(f"the table of offsets cannot be read, {path}: {error.strerror}") from None
