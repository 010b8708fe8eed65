"""The send hook of one tool: its own time per call, and what it adds to each write of 64 bytes.

The kernel counts a program's time only with statistics on, which costs time itself: the two are measured apart. What a
write costs without the tool is measured in the same guest, before and after, for it depends on what the kernel's
caches of memory hold, which the tool changes, too.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

if TYPE_CHECKING:
    from tests.bench.guest import bpf_objects
else:  # in the guest
    import bpf_objects

WRITES = "/run/writes"
PATIENCE = 120.0
COUNTED = "counted"
RETRANSMITTED = 2000
"""One retransmit in so many writes may be: it adds less than a hundredth. perf's reader, beside it, causes some."""
LIMITS = {"/proc/sys/fs/file-max": "4000000", "/proc/sys/net/ipv4/tcp_mem": "4000000 4000000 4000000"}
"""TCP counts a page for each socket with data, and drops segments where those are a tenth of the memory."""


class Case(NamedTuple):
    """So many writes through so many sockets. processes: who write in turn, on "own" sockets or on "shared" ones."""

    sockets: int = 1
    writes: int = 20000
    processes: int = 1
    sharing: str = "own"
    modes: Sequence[str] = ("cork", COUNTED)

    @property
    def name(self) -> str:
        who = "" if self.processes == 1 else f", {self.processes} processes {self.sharing}"
        return f"{self.sockets}{who}"

    def run(self, modes: Sequence[str]) -> Dict[str, float]:
        """Per mode the ns of one write. Raises SystemExit if that is not all it was: a retransmit takes time, too."""
        writes = max(self.writes, self.sockets)
        before = retransmitted()
        command = [WRITES, str(self.sockets), str(writes), str(self.processes), self.sharing]
        done = subprocess.run([*command, *modes], stdout=subprocess.PIPE, check=True)
        more = retransmitted() - before
        if more > writes * len(modes) // RETRANSMITTED:
            raise SystemExit(f"{self.name} sockets: {more} segments were retransmitted meanwhile")
        return {mode: float(ns) for mode, ns in (line.split() for line in done.stdout.decode().splitlines())}

    def bare(self) -> Dict[str, float]:
        """The same without a tool, that is without a program to be counted."""
        return self.run([mode for mode in self.modes if mode != COUNTED])


def retransmitted() -> int:
    """RetransSegs of TCP since the guest is up."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


@contextlib.contextmanager
def attached(
    command: Sequence[str], perf: bool = False, settle: Optional[float] = None, output: Any = subprocess.DEVNULL
) -> Iterator[Any]:
    """A tool while it is attached. settle: seconds after which one that shows nothing to be counted is taken for it."""
    attachments = bpf_objects.Attachments(perf)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        started = changed = time.monotonic()
        last = 0
        while process.poll() is None:
            now = time.monotonic()
            found = attachments.count(process.pid) if settle is None else 0
            if found != last:
                last, changed = found, now
            if now - (changed if last else started) > (settle or (2.0 if last else PATIENCE)):
                break
            time.sleep(0.02)
        if process.poll() is not None or not (last or settle):
            raise SystemExit(f"{' '.join(command)}: was not attached")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(
    command: Sequence[str],
    cases: Sequence[Sequence[Any]],
    programs: Sequence[str] = (),
    perf: bool = False,
    settle: Optional[float] = None,
) -> Dict[str, Any]:
    """Per case: ns of one write without the tool and with it, by mode, and by how much the former moved from before to
    after; and of the programs with these names (if none is named, all new ones) the time per call. cases: the fields
    of Case."""
    chosen = [Case(*case) for case in cases]
    for path, value in LIMITS.items():
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    Case().bare()  # what only the first one pays
    earlier = [case.bare() for case in chosen]
    figures: Dict[str, Any] = {}
    before = set(bpf_objects.ids(bpf_objects.PROG_GET_NEXT_ID))
    with attached(command, perf, settle):
        for case in chosen:
            start = bpf_objects.programs()
            row: Dict[str, Any] = {"with": case.run(case.modes)}
            row["programs"] = called(before, start, programs)
            figures[case.name] = row
    for case, first in zip(chosen, earlier):
        second = case.bare()
        figures[case.name]["without"] = {mode: (first[mode] + second[mode]) / 2 for mode in first}
        figures[case.name]["moved"] = {mode: second[mode] - first[mode] for mode in first}
    return figures


def called(before: Any, start: Dict[int, bpf_objects.Run], names: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """Calls, and time per call, of each program that has come since `before`, counted since `start`."""
    rows: List[Dict[str, Any]] = []
    for key, run in bpf_objects.programs().items():
        ns, calls = run.ns, run.calls
        if key in start:
            ns, calls = ns - start[key].ns, calls - start[key].calls
        if key in before or not calls or (names and run.name not in names):
            continue
        row = {"program": run.name, "calls": calls, "ns": ns / calls, "xlated": run.xlated // 8, "jited": run.jited}
        rows.append(row)
    return rows
