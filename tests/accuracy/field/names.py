"""Tuples that are hard to tell apart."""

from __future__ import annotations

from . import processes, sockets
from .processes import me, rename
from .scenario import Run, Skip, scenario


def enter_network() -> None:
    try:
        processes.own_network()
    except OSError as error:
        raise Skip(str(error)) from None


@scenario("the same tuples in two network namespaces at once", sockets=60)
def two_networks(run: Run) -> None:
    ready = processes.Gate()

    def there(comm: str) -> None:
        enter_network()
        rename(comm)
        peer = sockets.listener(address=("127.0.0.1", 5000))
        opened = [sockets.connect(peer.getsockname(), local=("127.0.0.1", 6000 + i)) for i in range(run.sockets // 2)]
        ready.wait()
        for each in opened:
            run.tell(each, [me()])
            sockets.send_two(each)
        run.rest()
        for each in opened:
            run.count(each)

    _probe_network(run)
    run.spawn(there, "acc-net-one")
    run.spawn(there, "acc-net-two")
    ready.open(2)
    run.wait()


def _probe_network(run: Run) -> None:
    """Finds out in a child whether namespaces can be had. Raises Skip."""
    gate = processes.Gate()

    def attempt() -> None:
        try:
            processes.own_network()
        except OSError:
            gate.open()

    child = run.spawn(attempt)
    run.join(child)
    if gate.opened():
        raise Skip("no network namespaces")


@scenario("an IPv6 address whose last bytes are the port, in either byte order", sockets=16)
def address_is_port(run: Run) -> None:
    """Of ::1 the last two bytes are port 1; read in the other order, 256."""
    enter_network()
    rename("acc-port-1")
    peers = [sockets.listener("inet6", address=("::1", port)) for port in (1, 256)]
    opened = []
    for i in range(run.sockets // 2):
        opened += [sockets.connect(peer.getsockname(), "inet6", local=("::1", 1000 + i)) for peer in peers]
    for each in opened:
        run.tell(each, [me()])
        sockets.send_two(each)
    run.rest()
