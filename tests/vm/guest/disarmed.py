"""[OPTION...]: disarms all kprobes while a probe runs, and arms them again. Prints what it said, as a line of JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

# As the program, but that it looks every other second.
CODE = """
import sys
sys.path.insert(0, "/sockpid/runtime")
from sockpid.probe import hook_watch
from sockpid.cli.cli import main
hook_watch.EVERY_SECONDS = 2.0
sys.exit(main())
"""
ENABLED = "/sys/kernel/debug/kprobes/enabled"


def wait(text: str) -> None:
    for _ in range(600):
        if text in open("/run/said").read():
            return
        time.sleep(0.1)
    sys.exit(f"not said: {text}: {open('/run/said').read()}")


def main() -> None:
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    command = [sys.executable, "-I", "-S", "-c", CODE, "run", "--json", *sys.argv[1:]]
    with open("/run/events", "wb") as out, open("/run/said", "wb") as err:
        probe = subprocess.Popen(command, stdout=out, stderr=err)
    wait("offsets from")
    time.sleep(5)
    with open(ENABLED, "w") as file:
        file.write("0")
    wait("does not fire any more")
    time.sleep(5)
    with open(ENABLED, "w") as file:
        file.write("1")
    wait("fires again")
    time.sleep(1)
    said = open("/run/said").read().splitlines()
    probe.send_signal(signal.SIGINT)
    probe.wait()
    print(json.dumps({"said": said, "events": open("/run/events").readlines()}))


main()
