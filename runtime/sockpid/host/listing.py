"""The TCP sockets of network namespaces, from whichever source this host has.

From sock_diag where pyroute2 and the kernel have it, else from /proc/net/tcp, which costs more where many sockets are
in TIME_WAIT and does not tell what device a socket is bound to.
"""

from __future__ import annotations

import time

from sockpid.errors import SyscallError

from . import netns, proc_net, sock_diag
from .inet_sock import TCP_SYN_RECV, InetSock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional, Set

    Source = Callable[[netns.Namespace], Iterable[InetSock]]

SLOW_SECONDS = 1.0
"""Most hosts have no pyroute2 and read /proc/net/tcp in some milliseconds: no word of it, unless it takes so long."""


class Listing:
    """Lists sockets, and keeps in mind what could not be read and why."""

    def __init__(self) -> None:
        self._sources: List[Source] = [sock_diag.tcp, proc_net.tcp]
        self._given_up: List[str] = []
        self._unread: Dict[str, List[int]] = {}
        self._seconds = 0.0

    def sockets(self, namespaces: Iterable[netns.Namespace]) -> Iterator[InetSock]:
        """The TCP sockets of these namespaces. One that is gone meanwhile has none.

        A socket in SYN_RECV is a request that the listening socket answers for, unless a file belongs to it.
        """
        for namespace in namespaces:
            started = time.monotonic()
            found = self._read(namespace)
            self._seconds += time.monotonic() - started
            for sock in found:
                if sock.inode or sock.state != TCP_SYN_RECV:
                    yield sock

    def unread(self) -> Set[int]:
        """The namespaces that could not be read."""
        return {inode for inodes in self._unread.values() for inode in inodes}

    def warnings(self, matter: Optional[Set[int]] = None) -> List[str]:
        """A line for each thing that the user should know; none for what costs nothing. matter: the namespaces in which
        somebody is known to have sockets; None: any may be such."""
        lines = list(self._given_up)
        for why, unread in self._unread.items():
            inodes = [inode for inode in unread if matter is None or inode in matter]
            which = ", ".join(map(str, inodes[:3])) + (", ..." if len(inodes) > 3 else "")
            if inodes:
                number = "network namespace" if len(inodes) == 1 else f"{len(inodes)} network namespaces:"
                lines.append(f"{number} {which} cannot be read, so older sockets there may stay unknown: {why}")
        if len(self._sources) == 1 and not lines and self._seconds >= SLOW_SECONDS:
            lines.append(
                f"to list the sockets that were there took {self._seconds:.1f} s; it takes less with pyroute2 installed"
            )
        return lines

    def _read(self, namespace: netns.Namespace) -> List[InetSock]:
        """The sockets of a namespace, from the first source that gives them. One that cannot is not asked again."""
        refusal = None
        for source in list(self._sources):
            try:
                return list(source(namespace))
            except ProcessLookupError:  # it is gone, and what was in it
                return []
            except (ImportError, OSError) as error:
                refusal = error
                if len(self._sources) > 1 and not _is_of_namespace(error):
                    self._sources.remove(source)
                    if not isinstance(error, ModuleNotFoundError) or error.name != "pyroute2":
                        self._given_up.append(
                            f"sockets are listed by /proc/net/tcp, slower and without their devices: {error}"
                        )
        unread = self._unread.setdefault(str(refusal), [])
        if namespace.inode not in unread:
            unread.append(namespace.inode)
        return []


def _is_of_namespace(error: Exception) -> bool:
    """Was it the way into the namespace that failed, and not the source?"""
    return isinstance(error, SyscallError) and error.name == "setns"
