"""The programs against one another: whatever comes between two steps, no owner is named who did not use the socket.

Programs run on several CPUs, and on one they preempt each other anywhere (LSM and fentry programs, softirq). The maps
here reuse an element the moment it is free, as the kernel's LRU maps may.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from tests.bpf.kernel import TCP_CLOSE, Socket, Task
from tests.bpf.programs import Programs
from tests.bpf.schedule import at_random, nested, one_after_the_other, pairs
from tests.bpf.translate import Run
from tests.bpf.world import World, finish, programs_of
from tests.unit.test_relocate import images

LATER = 20_000_000
"""Nanoseconds after which an owner is written anew even for the process that is the latest."""
ENTRIES = {"owner_by_sock": 3, "socket_to_pid": 3}
OTHER = {"sport": 50000, "saddr": "10.0.0.9"}


@functools.lru_cache(maxsize=None)
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
    for task in (*tasks, *tasks):
        finish(scene.uses(task, sock))
        owner = scene.world.owner(sock)
        assert owner is not None, order
        assert owner.tgid == task.tgid, f"{order}: {task} used it, the owner is {owner}"
    assert owner.users == len(tasks), f"{order}: {owner}"
    scene.world.machine.now += LATER
    finish(scene.uses(tasks[0], sock))
    again = scene.world.owner(sock)
    assert again is not None
    assert again.tgid == tasks[0].tgid, order


@pytest.mark.parametrize("hooks", [("send", "send"), ("send", "receive"), ("accept", "send"), ("connect", "connect")])
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
        return scene.uses(task, scene.x, hook, {"accept": "func", "connect": "func", "receive": "func"}.get(hook, "fentry"))

    for order, scene in pairs(start):
        holds(order, scene, scene.x)
        owner = scene.world.owner(scene.x)
        assert owner is not None
        assert owner.tgid in (scene.a.tgid, scene.b.tgid), order
        after_that_each_is_the_latest(order, scene, scene.x, scene.a, scene.b)
