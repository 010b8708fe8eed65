"""Reads many kernels into an archive: in worker processes or on a cluster, through interruptions and bad packages.

Every finished task is a file in the state directory, written whole or not at all. The archive is made of the files that
are there, so it depends on what was read, never on the order or on how often the crawl was killed.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from sockpid.errors import SockpidError

from . import archive, crawl_task
from .crawl_plan import Task
from .crawl_task import Outcome
from .shard import write

Report = Callable[[Task, Optional[Outcome]], None]
"""Called when a task starts (without outcome) and when it has ended."""


class State:
    """The state directory: one file per task, with the kernel or the reason why there is none."""

    def __init__(self, directory: Path) -> None:
        self._outcomes = directory / "outcomes"

    def save(self, task: Task, outcome: Outcome) -> None:
        """Notes what became of a task, in place of what became of it earlier."""
        document = {"source": task.file.name, "kernel": outcome.kernel, "error": outcome.error}
        write(self._outcomes / f"{outcome.key}.json", json.dumps(document, sort_keys=True).encode() + b"\n")

    def load(self) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """Key and content of all that is noted; damaged files are as good as none."""
        for path in sorted(self._outcomes.glob("*.json")):
            try:
                yield path.stem, json.loads(path.read_bytes())
            except ValueError:
                continue

    def done(self) -> Set[str]:
        """Keys and SHA-256 sums of everything that was read with success."""
        keys: Set[str] = set()
        for key, document in self.load():
            if document["kernel"] is not None:
                keys.add(key)
                keys.update(sha256 for _, sha256 in document["kernel"]["sources"])
        return keys

    def failures(self) -> List[Tuple[str, str]]:
        """Name and reason of every task that failed the last time."""
        return sorted((d["source"], d["error"]) for _, d in self.load() if d["error"] is not None)

    def kernels(self) -> Iterator[archive.Kernel]:
        """All kernels that were read."""
        for _, document in self.load():
            if document["kernel"] is not None:
                yield document["kernel"]

    def clear(self) -> None:
        """Forgets the kernels, once they are in the archive; failures stay."""
        for key, document in self.load():
            if document["kernel"] is not None:
                (self._outcomes / f"{key}.json").unlink()


class Folded(NamedTuple):
    """What went into an archive: its files that changed, and kernels that were refused, with the reason."""

    written: List[Path]
    refused: List[str]


def todo(tasks: Iterable[Task], done: Set[str]) -> List[Task]:
    """The tasks none of whose files was read before."""
    return [
        task for task in tasks if task.key not in done and done.isdisjoint(f.sha256 for f in task.files if f.sha256)
    ]


def run(tasks: Iterable[Task], state: State, jobs: int, keep: Optional[str], report: Report) -> None:
    """Does the tasks in worker processes, `jobs` at a time.

    When a worker dies, with its memory for example, those it was working beside are done once more, alone.
    """
    context = multiprocessing.get_context("forkserver")
    pending: List[Task] = list(tasks)
    alone: List[Task] = []
    while pending or alone:
        if alone:
            batch, alone, width = alone[:1], alone[1:], 1
        else:
            batch, pending, width = pending, [], jobs
        with ProcessPoolExecutor(width, mp_context=context, initializer=_end_with_parent) as pool:
            try:
                left = drive(pool, batch, state, width + 1, keep, report)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        pending.extend(task for task, started in left if not started)
        for task in (task for task, started in left if started):
            if width > 1:
                alone.append(task)
                continue
            outcome = Outcome(task.key, None, f"{task.file.name}: the process that read it died")
            state.save(task, outcome)
            report(task, outcome)


def drive(
    pool: Executor, tasks: List[Task], state: State, ahead: int, keep: Optional[str], report: Report
) -> List[Tuple[Task, bool]]:
    """Keeps `ahead` tasks in the hands of an executor until all are done.

    Returns those that are not because the executor broke, each with whether it had been handed over.
    """
    waiting, running = iter(tasks), dict[Future[Outcome], Task]()
    broken: List[Tuple[Task, bool]] = []
    while True:
        while len(running) < ahead and not broken:
            task = next(waiting, None)
            if task is None:
                break
            report(task, None)
            try:
                running[pool.submit(crawl_task.run, task, keep)] = task
            except BrokenProcessPool:
                broken.append((task, True))
        if not running:
            return broken + [(task, False) for task in waiting]
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            try:
                outcome = future.result()
            except BrokenProcessPool:
                broken.append((task, True))
                continue
            state.save(task, outcome)
            report(task, outcome)


def _end_with_parent() -> None:
    """Makes this worker end when the crawl does, even by SIGKILL: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def fold(state: State, directory: Path) -> Folded:
    """Puts the kernels of a state directory into an archive. Doing it twice, or half and then whole, changes nothing.

    A kernel that is there with other fields is refused; the others go in.
    """
    rows: Dict[str, Any] = {}
    folded = Folded([], [])
    for (arch, series), kernels in sorted(archive.group(archive.intern(k, rows) for k in state.kernels()).items()):
        path = archive.path_of(directory, arch, series)
        known = [archive.intern(kernel, rows) for kernel in archive.read(path)]
        try:
            merged = archive.merge([*known, *kernels])
        except SockpidError:
            merged = known
            for kernel in sorted(kernels, key=lambda k: (k["kind"], k["sources"])):
                try:
                    merged = archive.merge([*merged, kernel])
                except SockpidError as error:
                    folded.refused.append(str(error))
        if archive.save(path, archive.encode(arch, series, merged)):
            folded.written.append(path)
    return folded
