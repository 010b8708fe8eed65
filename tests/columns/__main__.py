"""python -m tests.columns: plays every column that is not played yet, and writes docs/accuracy.md when all are.

What is done stays done, in build/accuracy, one directory for each runtime and judge; a run that was interrupted or
killed is gone on with. Columns of this machine are played alone, the others several at a time.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests import place
from tests.vm import cache, qemu

from . import report
from .catalogue import ALONE, TOGETHER, Job, Storms
from .job import play
from .store import ChangedError, Store, faults

REPORT = place.ROOT / "docs/accuracy.md"
STORE = place.ROOT / "build/accuracy"
EXAMPLES = """\
examples:
  python -m tests.columns                            all that is missing, then the document
  python -m tests.columns --list                     the columns, and how much of each is done
  python -m tests.columns --column '*s390x*'         one column
  python -m tests.columns --column '*s390x*' --again what was played of it is thrown away first
  python -m tests.columns --short 15                 does every column run? A storm of 15 s each, for no document"""


def main() -> int:
    """0 if all is played and nothing is wrong."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store = Store(STORE / "short" if options.short else STORE)
    alone, together = (
        [_shortened(job, options.short) for job in jobs if fnmatch.fnmatch(job.name, options.column)]
        for jobs in (ALONE, TOGETHER)
    )
    if options.again:
        for job in (*alone, *together):
            store.forget(job)
    if options.list:
        _list([*alone, *together], store)
        return 0
    if not options.write:
        run = Run(store, [*alone, *together])
        try:
            run.all(alone, 1)
            run.all(together, options.jobs)
        except (KeyboardInterrupt, ChangedError) as error:
            print(f"{str(error) or 'interrupted'}; {store.directory} has what was done", file=sys.stderr)
            return 130
    return _conclude([*alone, *together], store, options.write)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.columns",
        description=__doc__.partition("\n\n")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="name the columns, play none")
    parser.add_argument("--column", default="*", metavar="PATTERN", help="only columns whose names match")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="guests at a time (default: 2)")
    parser.add_argument("--again", action="store_true", help="begin these columns anew")
    parser.add_argument("--short", type=float, metavar="SECONDS", help="one storm of so many seconds for each column")
    parser.add_argument("--write", action="store_true", help="play nothing, write the document of what there is")
    return parser.parse_args()


def _shortened(job: Job, seconds: float | None) -> Job:
    if not seconds:
        return job
    return replace(job, events=1, seconds=seconds, cost=60.0) if isinstance(job, Storms) else replace(job, scale=0.1)


def _list(jobs: Sequence[Job], store: Store) -> None:
    for job in jobs:
        print(f"{store.share(job):4.0%} {job.name}")
    left = sum(job.cost * (1 - store.share(job)) for job in jobs)
    print(f"{len(jobs)} columns of runtime {store.runtime}; about {left / 60:.0f} minutes of guests are left")


def _conclude(jobs: Sequence[Job], store: Store, anyway: bool) -> int:
    """Says what is wrong, and writes the document if every column is played, or anyway."""
    summed = {job: store.summed(job) for job in jobs}
    found = {job.name: wrong for job, each in summed.items() if each and (wrong := faults(job, each))}
    missing = [job.name for job in jobs if store.share(job) < 1]
    for name in missing:
        print(f"not played: {name}")
    for name, wrong in found.items():
        print(f"{name}: {wrong}")
    whole = {*jobs} >= {*ALONE, *TOGETHER}
    if whole and (anyway or not missing):
        _write(summed, store)
        print(f"{REPORT} is written")
    return 1 if missing or found else 0


def _write(summed: dict[Job, place.Json | None], store: Store) -> None:
    document: place.Json = {"runtime": store.runtime, "judges": store.judges, "storms": {}, "scenarios": {}}
    for job, found in summed.items():
        document["storms" if isinstance(job, Storms) else "scenarios"][job.where.name] = found
    cache.write(REPORT.with_suffix(".json"), (json.dumps(document, indent=1) + "\n").encode())
    cache.write(REPORT, report.markdown(document).encode())


class Run:
    """Columns being played, and how far they are."""

    def __init__(self, store: Store, jobs: Sequence[Job]) -> None:
        self._store = store
        self._jobs = jobs
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._first = self._left()

    def _left(self) -> float:
        """Seconds that are left, on an idle machine and one column at a time."""
        return sum(job.cost * (1 - self._store.share(job)) for job in self._jobs)

    def estimate(self, jobs: int) -> str:
        """How long it takes from now on: by what was done in this run, or as it took before."""
        left = self._left()
        done = self._first - left
        seconds = left * (time.monotonic() - self._began) / done if done > 0.1 * self._first else left / jobs
        return f"about {seconds / 60:.0f} min left"

    def all(self, jobs: Sequence[Job], at_once: int) -> None:
        """Plays them, so many at once. A column of which nothing came is told of, and does not stop the others."""
        console = Console(stderr=True)
        bars = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with (
            Progress(*bars, console=console, disable=not console.is_terminal) as progress,
            concurrent.futures.ThreadPoolExecutor(at_once) as pool,
        ):
            tell = _teller(progress.console)
            whole = progress.add_task(self.estimate(at_once), total=self._first)

            def work(job: Job) -> None:
                task = progress.add_task(job.name, total=1.0)

                def told(text: str) -> None:
                    progress.update(task, completed=self._store.share(job))
                    progress.update(whole, completed=self._first - self._left(), description=self.estimate(at_once))
                    tell(f"{job.name}: {text}")

                try:
                    play(job, self._store, told, self._stop)
                    if not self._stop.is_set():
                        told(f"done; {self.estimate(at_once)}")
                except ChangedError:
                    raise
                except Exception as error:  # of one column; the others are not the worse for it
                    if not self._stop.is_set():
                        told(f"NOT PLAYED: {type(error).__name__}: {error}")
                finally:
                    progress.remove_task(task)

            longest_first = sorted(jobs, key=lambda job: -job.cost)
            running = [pool.submit(work, job) for job in longest_first if self._store.share(job) < 1]
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                while not all(each.done() for each in running):  # one may just be starting
                    qemu.kill_all()
                    place.kill_all()
                    time.sleep(0.2)
                raise


def _teller(console: Console) -> Callable[[str], None]:
    def tell(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
