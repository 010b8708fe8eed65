"""A task of a crawl whose worker dies, in a module that workers can import."""

from __future__ import annotations

import os
import signal
from typing import Optional

from sockpid_gen.crawl import task as crawl_task
from sockpid_gen.crawl.plan import Task


class Dying:
    """crawl_task.run, but the process that gets the task with this key is killed."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, task: Task, keep: Optional[str]) -> crawl_task.Outcome:
        if task.key == self._key:
            os.kill(os.getpid(), signal.SIGKILL)
        return crawl_task.run(task, keep)
