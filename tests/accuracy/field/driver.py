"""Runs scenarios beside the probe. What both say goes to files; it is judged elsewhere.

DIRECTORY/truth.jsonl holds what the scenarios say, events.N.jsonl and probe.N.log what the probe printed, doctor.json
how it attached itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Sequence

from .catalogue import CATALOGUE
from .processes import fork
from .scenario import Run, Scenario, Skip

LIMIT = 180
READY = "sockpid: offsets from"
RUNTIME = os.environ.get("SOCKPID_RUNTIME") or os.path.join(sys.path[0], "runtime")
COMMAND = (sys.executable, "-I", "-S", os.path.abspath(RUNTIME))


class Probe:
    """`sockpid run --json`, once it says that it is ready."""

    def __init__(self, output: str, number: int, arguments: Sequence[str], nice: int = 0) -> None:
        """nice: of the probe, to be set. Raises RuntimeError with what the probe said if it does not come up."""
        self._log = os.path.join(output, f"probe.{number}.log")
        with open(os.path.join(output, f"events.{number}.jsonl"), "wb") as events, open(self._log, "wb") as log:
            self._process = subprocess.Popen([*COMMAND, "run", "--json", *arguments], stdout=events, stderr=log)
        if nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
        end = time.monotonic() + LIMIT
        while READY not in self.said():
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                raise RuntimeError(f"the probe did not come up: {self.said()}")
            time.sleep(0.05)

    def said(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def close(self) -> None:
        """Ends the probe. Raises RuntimeError if it did not end well."""
        self._process.terminate()
        try:
            status = self._process.wait(LIMIT)
        finally:
            self._process.kill()
        if status:
            raise RuntimeError(f"the probe ended with status {status}: {self.said()}")


class Stage:
    """Where scenarios are played: the file of truth and how much of each is wanted."""

    def __init__(self, output: str, scale: float, own_machine: bool) -> None:
        self.output = output
        self._path = os.path.join(output, "truth.jsonl")
        self._truth = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        self._scale = scale
        self._own_machine = own_machine

    def say(self, what: str, scenario: Optional[Scenario], **other: Any) -> None:
        line = {"what": what, "scenario": scenario.name if scenario else None, **other}
        os.write(self._truth, (json.dumps(line) + "\n").encode())

    def start(self, scenario: Scenario) -> int:
        """Plays a scenario in a process of its own, whose pid is returned."""
        print(f"{time.strftime('%H:%M:%S')} {scenario.name}", file=sys.stderr, flush=True)
        return fork(lambda: self._play(scenario))

    def _play(self, scenario: Scenario) -> None:
        def overdue(*_: object) -> None:
            raise TimeoutError(f"{scenario.name} took more than {LIMIT} s")

        signal.signal(signal.SIGALRM, overdue)
        signal.alarm(LIMIT)
        wanted = round(scenario.sockets * self._scale)
        run = Run(scenario, wanted, self._truth, self._own_machine)
        started = time.monotonic()
        parent = os.getpid()
        try:
            scenario.body(run)
        except Skip as reason:
            self.say("skip", scenario, reason=str(reason))
        except Exception as error:  # this scenario is lost, the others are not
            self.say("error", scenario, reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            if os.getpid() == parent:
                run.close()
        self.say("played", scenario, seconds=round(time.monotonic() - started, 1))

    def finish(self, child: int) -> None:
        os.waitpid(child, 0)

    def wait_for(self, scenario: Scenario) -> None:
        """Waits until a scenario that begins before the probe has said whose its sockets are."""
        for _ in range(200):
            with open(self._path, encoding="utf-8") as file:
                if (
                    sum(json.loads(line)["scenario"] == scenario.name for line in file)
                    >= scenario.sockets * self._scale
                ):
                    return
            time.sleep(0.1)


def play(stage: Stage, chosen: List[Scenario], arguments: List[str]) -> None:
    """Plays all scenarios: those that can share a probe beside one, the others each beside its own."""
    for number, special in enumerate(dict.fromkeys(scenario.probe for scenario in chosen)):
        mine = [scenario for scenario in chosen if scenario.probe == special]
        early = {scenario: stage.start(scenario) for scenario in mine if scenario.before}
        for scenario in early:
            stage.wait_for(scenario)
        try:
            probe = Probe(stage.output, number, [*arguments, *special])
        except RuntimeError as error:
            stage.say("error", None, reason=str(error))
            probe = None
        if probe is not None:
            for scenario in mine:
                if not scenario.before:
                    stage.finish(stage.start(scenario))
        for child in early.values():
            stage.finish(child)
        if probe is not None:
            time.sleep(0.5)
            try:
                probe.close()
            except RuntimeError as error:
                stage.say("error", None, reason=str(error))


def doctor(arguments: List[str]) -> Dict[str, Any]:
    """What the probe says of its hooks."""
    done = subprocess.run(
        [*COMMAND, "doctor", "--json", *arguments], stdout=subprocess.PIPE, timeout=LIMIT, check=False
    )
    document: Dict[str, Any] = json.loads(done.stdout or b"{}")
    return document


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/accuracy/field", description=__doc__)
    parser.add_argument("--output", required=True, help="directory of the files that are written")
    parser.add_argument("--scenario", action="append", choices=list(CATALOGUE), help="may be repeated; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of sockets")
    parser.add_argument("--own-machine", action="store_true", help="nobody else minds what happens to this machine")
    parser.add_argument("--probe", action="append", default=[], help="argument for sockpid; may be repeated")
    arguments = parser.parse_args()
    os.makedirs(arguments.output, exist_ok=True)
    with open(os.path.join(arguments.output, "doctor.json"), "w", encoding="utf-8") as file:
        json.dump(doctor(arguments.probe), file)
    stage = Stage(arguments.output, arguments.scale, arguments.own_machine)
    play(stage, [CATALOGUE[name] for name in arguments.scenario or CATALOGUE], arguments.probe)
    return 0
