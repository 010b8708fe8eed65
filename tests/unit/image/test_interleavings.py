"""The programs against one another: whatever comes between two steps, no owner is named who did not use the socket.

Programs run on several CPUs, and on one they preempt each other anywhere (LSM and fentry programs, softirq). The maps
here reuse an element the moment it is free, as the kernel's LRU maps may.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf.kernel import TCP_CLOSE, Socket, Task
from tests.bpf.programs import Programs
from tests.bpf.schedule import at_random, nested, one_after_the_other, pairs
from tests.bpf.translate import Run
from tests.bpf.world import World, finish, programs_of
from tests.unit.image.test_relocate import images

STRIDE = int(os.environ.get("SOCKPID_TEST_STRIDE", "5"))
"""1: every order of two programs. By default one of so many, squared: all of them take a quarter of an hour."""
LATER = 20_000_000
"""Nanoseconds after which an owner is written anew even for the process that is the latest."""
USES = 256
"""So many uses of a settled socket pass before its owner is looked up again."""
ENTRIES = {"owner_by_sock": 3, "socket_to_pid": 3}
OTHER: dict[str, Any] = {"sport": 50000, "saddr": "10.0.0.9"}


@functools.cache
def programs(one_place: bool = False) -> Programs:
    made = programs_of(images()["little"], "x86_64")
    return Programs(made.image, made.arch, made.layout, settled_mask=0) if one_place else made


class Scene:
    """Three processes and two sockets; the sockets are new."""

    def __init__(self, one_place: bool = False) -> None:
        self.world = World(programs(one_place), dict(ENTRIES))
        kernel = self.world.kernel
        self.a, self.b, self.c = (kernel.task(100 * n, 5000 + n, name) for n, name in enumerate(("a", "b", "c"), 1))
        self.idle = kernel.task(0, 0, "swapper")
        self.world.tasks = (self.a, self.b, self.c)
        self.x, self.y = kernel.socket(), kernel.socket(**OTHER)

    def uses(self, task: Task, sock: Socket, hook: str = "send", kind: str = "fentry") -> Run:
        return self.world.use(task, sock, hook, kind)

    def used(self, task: Task, sock: Socket, hook: str = "send") -> None:
        finish(self.uses(task, sock, hook))

    def evict(self, *sockets: Socket) -> Run:
        return self.world.evict("owner_by_sock", *(self.world.key(sock) for sock in sockets))


Start = Callable[[], tuple[Scene, tuple[Run, ...]]]


def holds(order: str, scene: Scene, *sockets: Socket) -> None:
    try:
        scene.world.check(*sockets)
    except AssertionError as error:
        raise AssertionError(f"{order}: {error}") from None


def after_that_each_is_the_latest(order: str, scene: Scene, sock: Socket, *tasks: Task) -> None:
    """At once, and when the owner has grown old."""
    users = 0
    for task in (*tasks, *tasks):
        finish(scene.uses(task, sock))
        owner = scene.world.owner(sock)
        if owner is None:  # evicted, with the word for this process still there
            assert scene.world.settled(sock, task), order
            for _ in range(USES):
                finish(scene.uses(task, sock))
            owner = scene.world.owner(sock)
        assert owner is not None, order
        assert owner.tgid == task.tgid, f"{order}: {task} used it, the owner is {owner}"
        users = owner.users
    assert users == len(tasks), order
    scene.world.machine.now += LATER
    finish(scene.uses(tasks[0], sock))
    again = scene.world.owner(sock)
    assert again is not None
    assert again.tgid == tasks[0].tgid, order


@pytest.mark.parametrize("hooks", [("send", "send"), ("accept", "send"), ("connect", "connect")])
@pytest.mark.parametrize("before", ["nobody", "one", "both"])
@pytest.mark.parametrize("one_place", [False, True])
def test_two_processes_use_one_socket_at_once(hooks: tuple[str, str], before: str, one_place: bool) -> None:
    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene(one_place)
        if before != "nobody":
            scene.used(scene.a, scene.x)
        if before == "both":
            scene.used(scene.b, scene.x)
            scene.used(scene.a, scene.x)
        return scene, (use(scene, scene.a, hooks[0]), use(scene, scene.b, hooks[1]))

    def use(scene: Scene, task: Task, hook: str) -> Run:
        return scene.uses(task, scene.x, hook, "fentry" if hook == "send" else "func")

    for order, scene in pairs(start, STRIDE):
        holds(order, scene, scene.x)
        owner = scene.world.owner(scene.x)
        assert owner is not None
        assert owner.tgid in (scene.a.tgid, scene.b.tgid), order
        after_that_each_is_the_latest(order, scene, scene.x, scene.a, scene.b)


def other_uses(scene: Scene) -> Run:
    """Elements of x go, and are given to y, to x again, and to y."""
    return one_after_the_other(
        scene.evict(scene.x), scene.uses(scene.b, scene.y), scene.uses(scene.c, scene.x), scene.uses(scene.a, scene.y)
    )


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("one_place", [False, True])
def test_elements_are_given_to_other_sockets_while_an_owner_is_learnt(known: bool, one_place: bool) -> None:
    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene(one_place)
        if known:
            scene.used(scene.a, scene.x)
        scene.used(scene.b, scene.x)
        return scene, (scene.uses(scene.a, scene.x), other_uses(scene))

    for order, scene in pairs(start, STRIDE):
        holds(order, scene, scene.x, scene.y)
        assert {key: owner and owner.sk for key, owner in scene.world.public().items()}.keys() <= names(scene)


def names(scene: Scene) -> set[bytes]:
    """The keys that there can be."""
    found = Scene()
    for sock in (found.x, found.y):
        found.used(found.a, sock)
    return set(found.world.public())


@pytest.mark.parametrize("again", [False, True], ids=["evicted", "superseded"])
def test_elements_are_given_to_other_sockets_while_an_event_looks_an_owner_up(again: bool) -> None:
    """The owner is named, or a later one, or none: never that of the socket whose value came there."""

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        scene.used(scene.a, scene.x)
        change = (
            one_after_the_other(
                scene.uses(scene.c, scene.x), scene.uses(scene.b, scene.y), scene.uses(scene.a, scene.x)
            )
            if again
            else other_uses(scene)
        )
        return scene, (scene.world.retransmit(scene.x, scene.idle), change)

    named = 0
    for order, scene in pairs(start, STRIDE):
        holds(order, scene)
        (event,) = scene.world.events()
        assert event.fields["found"] in ((0, 1)), order
        assert (event.owner is not None) == bool(event.fields["found"]), order
        assert not event.fields["stale"], f"{order}: a value of another socket is not one of an earlier one here"
        named += event.owner is not None
    assert named


def copy_out(scene: Scene, name: str, key: bytes, into: list[bytes]) -> Run:
    """What another program, or a process with the map open, does: looks up and copies, a word at a time."""
    memory, found = scene.world.machine.memory, scene.world.machine.hashes[name]
    address = found.lookup(key)
    yield "looked up"
    words: list[bytes] = []
    for offset in range(0, found.spec.value_size if address else 0, 8):
        words.append(memory.read(address + offset, 8))
        yield "a word"
    into.append(b"".join(words))
    return 0


def test_a_torn_copy_of_a_public_owner_is_never_whole() -> None:
    torn = 0
    copies: list[bytes] = []

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        copies.clear()
        scene.used(scene.a, scene.x)
        (key,) = scene.world.public()
        change = one_after_the_other(
            scene.uses(scene.b, scene.x),
            scene.world.evict("socket_to_pid", key),
            scene.uses(scene.c, scene.y),
            scene.uses(scene.a, scene.y),
        )
        return scene, (copy_out(scene, "socket_to_pid", key, copies), change)

    key = next(iter(names(Scene())))
    for order, scene in pairs(start, min(STRIDE, 2)):
        (value,) = copies
        if value:
            owner = scene.world.unseal_public(sorted(names(scene))[0], value)
            torn += owner is None
            if owner is not None:
                assert (owner.sk, owner.inode, owner.tgid) in scene.world.used, order
                assert owner.sk == scene.x.address, order
    assert torn, key


@pytest.mark.parametrize("forgotten", [True, False], ids=["destroyed", "end-not-seen"])
@pytest.mark.parametrize("settled", [False, True])
def test_the_address_of_a_socket_is_given_to_another(forgotten: bool, settled: bool) -> None:
    """A had a socket there, of another inode; nobody, and then B, has used the one that is there now."""

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        scene.used(scene.a, scene.x)
        if settled:
            scene.used(scene.a, scene.x)
        if forgotten:
            finish(scene.world.destroy(scene.x, scene.a))
        scene.x = scene.world.kernel.socket(scene.x.address, sport=41000)
        others = one_after_the_other(scene.uses(scene.a, scene.y), scene.uses(scene.c, scene.y))
        events = one_after_the_other(
            scene.world.retransmit(scene.x, scene.idle), others, scene.world.retransmit(scene.x, scene.idle)
        )
        return scene, (scene.uses(scene.b, scene.x), events)

    for order, scene in pairs(start, STRIDE):
        holds(order, scene, scene.x, scene.y)
        assert {event.owner.tgid for event in scene.world.events() if event.owner} <= {scene.b.tgid}, order
        after_that_each_is_the_latest(order, scene, scene.x, scene.b)


def test_an_orphan_at_the_address_of_another_is_not_taken_for_it() -> None:
    """With no inode to tell by, the name tells."""
    scene = Scene()
    scene.used(scene.a, scene.x)
    scene.x = scene.world.kernel.socket(scene.x.address, held=False, sport=41000)
    finish(scene.world.retransmit(scene.x, scene.idle))
    (event,) = scene.world.events()
    assert event.owner is None
    assert event.fields["stale"] == 1


def test_a_socket_is_destroyed_while_elements_move() -> None:
    """Its own entries go, and those of no other socket."""

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        scene.used(scene.a, scene.x)
        others = one_after_the_other(
            scene.uses(scene.b, scene.y),
            scene.evict(scene.x),
            scene.uses(scene.c, scene.y),
            scene.uses(scene.b, scene.y),
        )
        return scene, (scene.world.destroy(scene.x, scene.idle), others)

    for order, scene in pairs(start, STRIDE):
        holds(order, scene, scene.y)
        assert scene.world.owner(scene.x) is None, order
        assert not scene.world.settled(scene.x, scene.a), order
        assert scene.world.owner(scene.y) is not None, order
        assert scene.y.address in {owner.sk for owner in scene.world.public().values() if owner}, order


def test_a_closed_socket_leaves_its_name_to_the_next() -> None:
    """A asks to send while the connection is reset; B connects from the same port at once. The public map never says A.

    The program for the end runs before the state is stored; no whole learning fits between the two.
    """

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        scene.used(scene.b, scene.x)

        def reset() -> Run:
            yield from scene.world.closes(scene.x, scene.idle)
            scene.x = scene.world.kernel.change(scene.x, state=TCP_CLOSE)
            yield "closed"
            scene.y = scene.world.kernel.socket()  # of the same name
            yield from scene.uses(scene.c, scene.y)
            return 0

        scene.world.machine.stops_at_reads = True
        return scene, (scene.uses(scene.a, scene.x, "send", "lsm"), reset())

    for order, scene in pairs(start, STRIDE):
        holds(order, scene, scene.y)
        for owner in scene.world.public().values():
            assert owner is not None
            assert owner.sk == scene.y.address, f"{order}: the name is still that of the closed one: {owner}"


@pytest.mark.parametrize("one_place", [False, True])
def test_many_at_once(one_place: bool) -> None:
    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene(one_place)
        world, x, y = scene.world, scene.x, scene.y
        scene.used(scene.a, x)
        runs = (
            one_after_the_other(scene.uses(scene.a, x), scene.uses(scene.a, y)),
            one_after_the_other(scene.uses(scene.b, y), scene.uses(scene.b, x)),
            one_after_the_other(scene.evict(x), scene.uses(scene.c, x, "accept", "func"), scene.evict(y, x)),
            one_after_the_other(world.retransmit(x, scene.idle), world.retransmit(y, scene.idle)),
        )
        return scene, runs

    for order, scene in at_random(start, 3000 // STRIDE**2):
        holds(order, scene, scene.x, scene.y)
        scene.world.machine.now += LATER
        after_that_each_is_the_latest(order, scene, scene.y, scene.a, scene.b, scene.c)


def test_helpers_that_are_refused_leave_nobody_settled() -> None:
    """An update fails when its CPU holds the bucket's lock, and so does a deletion: who was there stays there."""

    def start() -> tuple[Scene, tuple[Run, ...]]:
        scene = Scene()
        scene.used(scene.a, scene.x)
        scene.world.machine.hashes["owner_by_sock"].refusals = [16]
        return scene, (scene.uses(scene.b, scene.x), scene.uses(scene.c, scene.x))

    for order, scene in nested(start):
        holds(order, scene, scene.x)
        after_that_each_is_the_latest(order, scene, scene.x, scene.a, scene.b, scene.c)
