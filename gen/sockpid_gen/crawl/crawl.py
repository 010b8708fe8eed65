"""Reads many kernels into an archive: in worker processes or on a cluster, through interruptions and bad packages.

Every finished task is a file in the state directory, written whole or not at all. The archive is made of the files that
are there, so it depends on what was read, never on the order or on how often the crawl was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from sockpid.errors import SockpidError, UsageError
from sockpid_gen.archive import archive
from sockpid_gen.table.shard import write

from . import task as crawl_task
from .plan import Task
from .task import Outcome

CLUSTER_TIMEOUT = 10
"""Seconds in which a cluster's scheduler has to answer."""

Report = Callable[[Task, Optional[Outcome]], None]
"""Called when a task starts (without outcome) and when it has ended."""


class State:
    """The state directory: one file per task, with the kernel or the reason why there is none."""

    def __init__(self, directory: Path) -> None:
        self._outcomes = directory / "outcomes"

    @contextlib.contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Holds the directory against other crawls, which would forget what this one has read. Raises UsageError."""
        self._outcomes.mkdir(parents=True, exist_ok=True)
        with (self._outcomes.parent / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"--state {self._outcomes.parent}: another crawl works in this directory") from None
            yield

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

    def failures(self, tasks: Iterable[Task]) -> List[Tuple[str, str]]:
        """Name and reason of every one of the tasks that failed the last time."""
        keys = {task.key for task in tasks}
        return sorted((d["source"], d["error"]) for key, d in self.load() if key in keys and d["error"] is not None)

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

    When a worker dies, for want of memory for example, nobody knows over which task. All that were in work are then
    done once more, each alone.
    """
    context = multiprocessing.get_context("forkserver")
    pending: List[Task] = list(tasks)
    suspects: List[Task] = []
    while pending or suspects:
        if suspects:
            batch, suspects, width = suspects[:1], suspects[1:], 1
        else:
            batch, pending, width = pending, [], jobs
        with ProcessPoolExecutor(width, mp_context=context, initializer=_end_with_parent) as pool:
            try:
                died = drive(pool, batch, state, width + 1, keep, report)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if len(batch) == 1:
            for task in died:
                _give_up(task, state, report)
        else:
            suspects = [task for task in batch if task in died]
            pending = batch[batch.index(suspects[-1]) + 1 :] if suspects else []


def run_on_cluster(tasks: Iterable[Task], state: State, scheduler: str, keep: Optional[str], report: Report) -> None:
    """Does the tasks on a dask.distributed cluster, whose workers fetch what they read; paths must be paths there, too.

    Raises UsageError if distributed is not installed or the scheduler does not answer.
    """
    try:
        import distributed
    except ImportError:
        raise UsageError("--scheduler needs dask.distributed: pip install 'sockpid[gen,dask]'") from None
    connect: Any = distributed.Client
    try:
        client = connect(scheduler, timeout=CLUSTER_TIMEOUT)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {scheduler}: no answer: {error}") from None
    pending = list(tasks)
    with client, client.get_executor(pure=False) as pool:
        while pending:
            died = drive(pool, pending, state, 2 * sum(client.nthreads().values()) + 1, keep, report)
            for task in died:
                _give_up(task, state, report)
            pending = pending[pending.index(died[-1]) + 1 :] if died else []


def drive(
    pool: Executor, tasks: List[Task], state: State, ahead: int, keep: Optional[str], report: Report
) -> List[Task]:
    """Keeps `ahead` tasks in the hands of an executor until all are done, or workers die.

    Returns those that were in work then; tasks after the last of them have not been started.
    """
    waiting, running = iter(tasks), dict[Future[Outcome], Task]()
    died: List[Task] = []
    while True:
        while len(running) < ahead and not died:
            task = next(waiting, None)
            if task is None:
                break
            report(task, None)
            try:
                running[pool.submit(crawl_task.run, task, keep)] = task
            except BrokenProcessPool:
                died.append(task)
        if not running:
            return died
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            try:
                outcome = future.result()
            except Exception:  # crawl_task.run raises nothing: whoever ran it is gone
                died.append(task)
                continue
            state.save(task, outcome)
            report(task, outcome)


def _give_up(task: Task, state: State, report: Report) -> None:
    outcome = Outcome(task.key, None, f"{task.file.name}: the process that read it died")
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
