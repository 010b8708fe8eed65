"""Runs in a guest: one boot, all ways of attaching. Each line of /run/ways is a name and options of sockpid.

For each way a self-test, and a workload beside `sockpid run`; what they said goes to /run/result/NAME.*. Starting
Python is what takes time in emulation, so each command is a fork of this process, which has imported sockpid already.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback

sys.path[:0] = ["/sockpid/runtime", "/sockpid/tests"]

# Imported here so that no child has to.
from sockpid.cli import cli  # noqa: E402
from sockpid.selfcheck import selfcheck, selftest  # noqa: E402,F401

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List

    from tests import workload
else:
    import workload  # where sys.path says

READY = "offsets from"
JIT = "net.core.bpf_jit_enable"


def start(main: Callable[[], int], name: str, suffix: str) -> int:
    """Runs main() in a child, its outputs in files. Returns the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for descriptor, path in ((1, f"{name}.{suffix}"), (2, f"{name}.errors")):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
        status = main()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child: int, name: str, suffix: str) -> int:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(f"{name}.{suffix}", "w") as file:
        file.write(str(status))
    return status


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def ready(child: int, name: str) -> None:
    """Waits until `sockpid run` says that it is attached, or has ended."""
    deadline = time.monotonic() + 60
    while READY not in read(f"{name}.errors") and time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.05)


def follow_advice(name: str, command: Callable[[], int]) -> int:
    """Switches the JIT on, keeps what the refusal was, and tries again."""
    with open(f"/proc/sys/{JIT.replace('.', '/')}", "w") as file:
        file.write("1")
    os.rename(f"{name}.errors", f"{name}.advice")
    os.unlink(f"{name}.selftest")
    return wait(start(command, name, "selftest"), name, "status")


def try_way(name: str, options: List[str]) -> None:
    def sockpid(command: str) -> Callable[[], int]:
        return lambda: cli.main([command, "--json", *options])

    status = wait(start(sockpid("selftest"), name, "selftest"), name, "status")
    if status and f"sysctl {JIT}=1" in read(f"{name}.errors"):
        status = follow_advice(name, sockpid("selftest"))
    if status:
        return
    if "--attach" in options:
        wanted = options[options.index("--attach") + 1]
        connect = json.loads(read(f"{name}.selftest"))["hooks"]["connect"]
        if not connect or connect.split()[0] != wanted:
            # What the kernel answered to the mechanism asked for.
            os.waitpid(start(sockpid("doctor"), name, "doctor"), 0)
            return
    probe = start(lambda: cli.main(["run", "--json", "--no-seed", *options]), name, "events")
    while not os.path.exists(f"{name}.errors"):
        time.sleep(0.01)
    ready(probe, name)
    sys.argv[1:] = ["--processes", "3", "--seconds", "1", "--name", "owner"]
    os.waitpid(start(workload.main, name, "truth"), 0)
    os.kill(probe, signal.SIGTERM)
    wait(probe, name, "run")


os.chdir("/run/result")
for line in read("/run/ways").splitlines():
    way, *words = line.split()
    try_way(way, words)
