"""What /proc says of real processes, held against what we know of them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid import syscall
from sockpid.errors import SyscallError
from sockpid.host import cgroup, kernel, proc

# The first thread ends by itself (SYS_exit of this architecture), the second holds a socket until its input ends.
LEADERLESS = """
import ctypes, os, socket, sys, threading
held = socket.socket()
print(os.fstat(held.fileno()).st_ino, flush=True)
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()
ctypes.CDLL(None).syscall({exit})
"""
EXIT = {"x86_64": 60, "aarch64": 93, "riscv64": 93, "s390x": 1, "ppc64le": 1}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        time.sleep(0.05)  # until it has become sleep
        yield child
        child.kill()


def start_ns(pid: int) -> int:
    ticks = proc.start_ticks(pid)
    assert ticks is not None
    return proc.ns_of(ticks)


def test_start_and_name(sleeper: subprocess.Popen[bytes]) -> None:
    assert proc.start_ticks(os.getpid()) == kernel.process_start_ticks()
    assert proc.comm(sleeper.pid) == "sleep"
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - start_ns(sleeper.pid) / 10**9
    assert 0 <= age < 30


def test_no_such_process() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert proc.start_ticks(child.pid) is None
    assert proc.comm(child.pid) is None
    assert proc.namespace_pid(child.pid) is None
    assert proc.socket_inodes(child.pid) == set()


def test_is_exited(sleeper: subprocess.Popen[bytes]) -> None:
    started = start_ns(sleeper.pid)
    assert proc.is_exited(sleeper.pid, started) is False
    assert proc.is_exited(sleeper.pid, started + 9_999_999) is False  # the same clock tick
    assert proc.is_exited(sleeper.pid, started - 10**9) is True  # another process had this id
    os.kill(sleeper.pid, 9)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert proc.is_exited(sleeper.pid, started) is True  # a zombie
    sleeper.wait()
    assert proc.is_exited(sleeper.pid, started) is True


def test_a_process_lives_on_without_its_first_thread() -> None:
    code = LEADERLESS.format(exit=EXIT[os.uname().machine])
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        inode = int(child.stdout.readline())
        deadline = time.monotonic() + 5
        while "Z" not in Path(f"/proc/{child.pid}/stat").read_text().split() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert proc.is_exited(child.pid, start_ns(child.pid)) is False
        assert [holder.pid for holder in proc.holders({inode})[inode]] == [child.pid]
        child.communicate(b"\n", timeout=10)


# A thread takes a table of its own, opens a socket that only it has, and closes the one that the others have.
OWN_TABLE = """
import ctypes, os, socket, threading
held, opened, done = socket.socket(), threading.Event(), threading.Event()
def separate():
    assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
    own = socket.socket()
    os.close(held.fileno())
    inodes.append(os.fstat(own.fileno()).st_ino)
    opened.set()
    done.wait()
inodes = [os.fstat(held.fileno()).st_ino]
waiting = [threading.Thread(target=done.wait) for _ in range(3)]
for thread in [*waiting[:2], threading.Thread(target=separate), waiting[2]]:
    thread.start()
opened.wait()
print(*inodes, flush=True)
os.read(0, 1)
done.set()
"""


@pytest.mark.parametrize("compares", [True, False], ids=["kcmp", "no-kcmp"])
def test_a_thread_with_a_table_of_its_own(compares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compares:
        monkeypatch.setattr(syscall, "kcmp", lambda *_: (_ for _ in ()).throw(SyscallError("kcmp", errno.ENOSYS)))
    command = [sys.executable, "-c", OWN_TABLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        inodes = {int(inode) for inode in child.stdout.readline().split()}
        assert len(inodes) == 2
        assert proc.socket_inodes(child.pid) == inodes
        found = proc.holders(inodes)
        assert {inode: [holder.pid for holder in found[inode]] for inode in inodes} == {i: [child.pid] for i in inodes}
        if compares:
            assert len(list(proc._tables(child.pid))) == 2  # of five threads
        child.communicate(b"\n", timeout=10)


def test_another_pid_namespace_cannot_be_told() -> None:
    code = "import os; from sockpid.host import proc; print(proc.in_initial_pid_namespace(), proc.is_exited(1, 0))"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(proc.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert done.stdout.split() == ["False", "None"]


def test_namespace_pid() -> None:
    assert proc.namespace_pid(os.getpid()) == os.getpid()
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as child:
        inner: list[str] = []
        deadline = time.monotonic() + 5
        while not inner and time.monotonic() < deadline:
            inner = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert proc.namespace_pid(int(inner[0])) == 1
        child.kill()


def test_start_in_a_time_namespace() -> None:
    """There /proc adds an offset to each start, which the kernel's own number does not have."""
    ours = start_ns(os.getpid())
    code = f"from sockpid.host import proc; print(proc.ns_of(proc.start_ticks({os.getpid()})))"
    command = ["unshare", "--time", "--boottime", "1000", "--fork", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(proc.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
    if done.returncode:
        pytest.skip(f"no time namespaces: {done.stderr}")
    assert int(done.stdout) == ours


def test_holders_of_a_shared_socket() -> None:
    with socket.socket() as held, socket.socket() as other:
        inode = os.fstat(held.fileno()).st_ino
        held.set_inheritable(True)
        with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
            time.sleep(0.05)
            try:
                found = proc.holders({inode, os.fstat(other.fileno()).st_ino, 1})
            finally:
                child.kill()
        assert [(h.pid, h.comm) for h in found[inode]] == [(os.getpid(), kernel.comm()), (child.pid, "sleep")]
        assert [h.pid for h in found[os.fstat(other.fileno()).st_ino]] == [os.getpid()]
        assert 1 not in found


def test_holders_while_processes_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with socket.socket() as held:
            inode = os.fstat(held.fileno()).st_ino
            for _ in range(20):
                assert os.getpid() in [h.pid for h in proc.holders({inode})[inode]]
    finally:
        stop.set()
        thread.join()


def test_signal_0_tells_a_hidden_process_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_stat", lambda _pid: None)
    assert proc.is_exited(os.getpid(), 0) is None
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert proc.is_exited(child.pid, 0) is True


def test_a_cgroup_that_is_made_later_is_found() -> None:
    paths = cgroup.CgroupPaths()
    if paths.mount is None:
        pytest.skip("no cgroup v2 mount")
    assert paths.path(os.stat(paths.mount).st_ino) == "/"
    assert paths.path(0) is None
    made = Path(paths.mount) / f"sockpid-test-{os.getpid()}" / "inner"
    made.mkdir(parents=True)
    try:
        inode = made.stat().st_ino
        assert paths.path(inode) is None  # looked a moment ago
        paths._scanned -= cgroup.RESCAN_SECONDS
        assert paths.path(inode) == f"/sockpid-test-{os.getpid()}/inner"
        assert cgroup.CgroupPaths(paths.mount).path(inode | 7 << 32) == f"/sockpid-test-{os.getpid()}/inner"
    finally:
        made.rmdir()
        made.parent.rmdir()
    assert paths.path(inode) is not None  # its events may still be on their way


def test_mount_points_with_blanks() -> None:
    assert proc._unescape("/a\\040b\\134c") == "/a b\\c"
    assert any(mount.path == "/proc" and mount.fstype == "proc" for mount in proc.mounts())


def test_ticks_and_nanoseconds_are_each_others_reverse() -> None:
    for ticks in (0, 1, 77, 123_456_789):
        assert proc.ticks_of(proc.ns_of(ticks)) == ticks
