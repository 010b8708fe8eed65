"""sockpid, in a process that says how much memory its Python objects take: `counted.py SOCKET run ...`.

Whoever connects to the Unix socket is told how many blocks the allocator has given out (sys.getallocatedblocks()), once
what nobody can reach any more has been collected.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "runtime"))


def tell(listening: socket.socket) -> None:
    while True:
        with listening.accept()[0] as asking:
            gc.collect()
            asking.sendall(b"%d\n" % sys.getallocatedblocks())


if __name__ == "__main__":
    from sockpid.cli.cli import main

    place = socket.socket(socket.AF_UNIX)
    place.bind(sys.argv.pop(1))
    place.listen()
    threading.Thread(target=tell, args=(place,), daemon=True).start()
    sys.exit(main())
