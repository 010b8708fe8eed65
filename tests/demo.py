"""`make run`: this kernel's offsets from its BTF, then real retransmits on loopback with their owners beside them.

Where this host cannot load BPF, the same happens in a virtual machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "build/offsets"
BTF = Path("/sys/kernel/btf/vmlinux")
RUNTIME = [sys.executable, "-I", "-S", str(ROOT / "runtime")]
WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py"), "--processes", "4", "--seconds", "2"]
WORKLOAD += ["--name", "trainer", "--hogs", "2", "--families", "inet,inet6"]


def say(text: str) -> None:
    print(f"\n>>> {text}", flush=True)


def main() -> int:
    doctor = subprocess.run([*RUNTIME, "doctor"], capture_output=True, text=True, check=False)
    if doctor.returncode != 0:
        say("this host cannot run the probe:")
        print(doctor.stdout + doctor.stderr)
        return in_vm()
    offsets: list[str] = []
    if BTF.exists():
        say(f"taking this kernel's offsets from {BTF}: sockpid-gen add {BTF} --offsets {TABLE.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "sockpid_gen", "add", str(BTF), "--offsets", str(TABLE)], check=True)
        shard = max(TABLE.glob("*/*.json"), key=lambda path: path.stat().st_mtime)
        offsets = ["--offsets", str(shard)]
    say("sockpid run, beside 4 processes whose peers never answer, and 2 that only burn CPU:")
    with subprocess.Popen([*RUNTIME, "run", *offsets], stderr=subprocess.PIPE, text=True) as probe:
        assert probe.stderr is not None
        line = "-"
        while line and "offsets from" not in line:
            line = probe.stderr.readline()
            print(line, end="", file=sys.stderr, flush=True)
        if line:
            done = subprocess.run(WORKLOAD, stdout=subprocess.PIPE, text=True, check=False)
            probe.terminate()
            say(f"the truth: {done.stdout.count(chr(10))} sockets, each of the process that the column PID names")
        rest = probe.communicate()[1]
        print(rest, end="", file=sys.stderr)
    if probe.returncode == 0:
        say("INTERRUPTED is what a tool without an owner map would have printed.")
    return probe.returncode


def in_vm() -> int:
    """The same on a Debian kernel in QEMU, with offsets that `sockpid-gen` takes from its package."""
    from tests.vm import demo

    say("so here is the same in a virtual machine:")
    return demo.main()


if __name__ == "__main__":
    sys.exit(main())
