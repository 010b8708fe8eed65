"""What there is on this host, as far as this process may see: who has what open, network namespaces, TCP sockets."""

from __future__ import annotations

import os
import time

from . import descriptors, netns
from .listing import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional

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
        self.looked_ns = time.monotonic_ns()
        self._namespaces = [each for each in netns.find(self.opened.namespaces) if only in (None, each.inode)]
        self._searched = False

    def sockets(self) -> List[InetSock]:
        """The TCP sockets there are now but those in TIME_WAIT, see Listing."""
        found = list(self._listing.sockets(self._namespaces))
        if not self._searched and (self._only is None or not self._namespaces):
            self._searched = True
            known = {each.inode for each in self._namespaces}
            for namespace, fd in descriptors.namespaces_of(self.opened, {sock.inode for sock in found}, known):
                self._kept.append(fd)
                if self._only in (None, namespace.inode):
                    self._namespaces.append(namespace)
                    found += self._listing.sockets([namespace])
        return found

    def warnings(self) -> List[str]:
        return self._listing.warnings()

    def close(self) -> None:
        while self._kept:
            os.close(self._kept.pop())

    def __enter__(self) -> Sight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
