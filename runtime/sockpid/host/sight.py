"""What there is on this host, as far as this process may see: who has what open, network namespaces, TCP sockets."""

from __future__ import annotations

import os

from . import descriptors, kernel, netns
from .listing import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Set

    from .inet_sock import InetSock


class Sight:
    """opened: what processes had open at looked_ns (CLOCK_MONOTONIC). Sockets can be listed several times.

    A namespace in which no process lives and that nothing refers to but a socket is found by that. Descriptors of such
    are kept until close().
    """

    def __init__(self, only: Optional[int] = None) -> None:
        """only: the inode of the one namespace to look at."""
        self._only = only
        self._listing = Listing()
        self._kept: List[int] = []
        self.opened = descriptors.look()
        self.looked_ns = kernel.monotonic_ns()
        self._namespaces = [each for each in netns.find(self.opened.namespaces) if only in (None, each.inode)]
        self._in_use: Optional[Set[int]] = set()
        """Namespaces in which somebody has sockets that are not listed; None: perhaps any."""
        self._searched = False

    def sockets(self) -> List[InetSock]:
        """The TCP sockets there are now but those in TIME_WAIT, see Listing."""
        found = list(self._listing.sockets(self._namespaces))
        if not self._searched and (self._only is None or not self._namespaces):
            self._searched = True
            found += self._search({sock.inode for sock in found})
        return found

    def _search(self, listed: Set[int]) -> List[InetSock]:
        unread = self._listing.unread()
        known = {each.inode for each in self._namespaces} - unread
        held, silent = descriptors.namespaces_of(self.opened, listed, known)
        self._in_use = None if silent else {namespace.inode for namespace, _ in held}
        self._kept += [fd for _, fd in held]
        more = [one for one, _ in held if one.inode not in unread and self._only in (None, one.inode)]
        self._namespaces += more
        return list(self._listing.sockets(more))

    def warnings(self) -> List[str]:
        return self._listing.warnings(self._in_use)

    def close(self) -> None:
        while self._kept:
            os.close(self._kept.pop())

    def __enter__(self) -> Sight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
