"""Crawls over small packages: what is planned, what fails, what is killed, and that the bytes are always the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from sockpid.errors import SourceError
from sockpid_gen.archive import archive, refresh
from sockpid_gen.crawl import apt, crawl, plan
from sockpid_gen.crawl import task as crawl_task
from sockpid_gen.crawl.plan import File, Task
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder
from tests.dying import Dying
from tests.unit.gen.dwarf import test_dwarf as test_gen_dwarf

KILLS = int(os.environ.get("SOCKPID_TEST_KILLS", "3"))


def kernel(release: str, number: int, shift: int = 0, types: bool = True) -> bytes:
    """A vmlinux of its own banner and build-id, and BTF with a struct that `shift` moves (or none)."""
    banner = f"\0Linux version {release} (builder@example.invalid) (gcc 12) #1 SMP 2024\n\0".encode()
    sections = {".rodata": banner, ".notes": make.build_id_note(build_id=f"{number:040x}")}
    return make.elf({**sections, ".BTF": sock(shift)} if types else sections)


def sock(shift: int) -> bytes:
    """BTF with a struct that `shift` moves, and a function."""
    b = BtfBuilder()
    u16 = b.integer("unsigned short", 2)
    b.struct("sock", 64, ("sk_protocol", u16, 16 * shift), ("sk_type", u16, 16 * shift + 16))
    b.record(12, "tcp_connect", b.record(13, "", 0))
    make.others(b)
    return b.build()


def package(directory: Path, release: str, number: int, suffix: str = "", **options: Any) -> Path:
    content = make.deb({f"./boot/vmlinuz-{release}": kernel(release, number, **options), "./z": suffix.encode()})
    path = directory / f"linux-image-{release}{suffix}_1_amd64.deb"
    path.write_bytes(content)
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Twelve kernels of two series, four layouts; a signed and an unsigned package of the last; two bad packages."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    for number in range(12):
        package(directory, f"6.{1 + number % 2}.0-{number}", number + 1, shift=number % 4)
    package(directory, "6.2.0-11", 12, "-unsigned", shift=3)
    (directory / "linux-image-6.1.0-bad_1_amd64.deb").write_bytes(b"!<arch>\ngarbage")
    (directory / "linux-image-6.1.0-none_1_amd64.deb").write_bytes(
        make.deb({"./boot/vmlinuz-6": kernel("6.1.0-x", 99, types=False)})
    )
    (directory / "busybox_1_amd64.deb").write_bytes(b"no kernel by its name")
    return directory


def tree(*directories: Path) -> Dict[str, bytes]:
    return {
        f"{d.name}/{p.relative_to(d)}": p.read_bytes() for d in directories for p in sorted(d.rglob("*")) if p.is_file()
    }


class AtOnce(Executor):
    """Does everything in this process, and hands the results over last come, first served."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def crawled(tasks: List[Task], place: Path) -> Dict[str, bytes]:
    """What archive and tables have after these tasks, in the order given."""
    state = crawl.State(place / "state")
    assert crawl.drive(AtOnce(), tasks, state, 3, None, lambda *_: None) == []
    crawl.fold(state, place / "archive")
    refresh.refresh(place / "archive", place / "offsets")
    return tree(place / "archive", place / "offsets")


def test_order_makes_no_difference(mirror: Path, tmp_path: Path) -> None:
    tasks = plan.of_places([str(mirror)])
    assert len(tasks) == 15
    first = crawled(tasks, tmp_path / "a")
    assert first.keys() == {
        f"{what}/x86_64/6.{minor}.{suffix}"
        for minor in (1, 2)
        for what, suffix in (("archive", "json.xz"), ("offsets", "json"), ("offsets", "sources"))
    }
    assert first == crawled(tasks[::-1], tmp_path / "b")
    shuffled = random.Random(1).sample(tasks, len(tasks))
    crawled(shuffled[:5], tmp_path / "c")
    assert first == crawled(shuffled, tmp_path / "c")
    kernels = [k for ks in archive.read_all(tmp_path / "a/archive").values() for k in ks]
    assert len(kernels) == 12
    (twice,) = [k for k in kernels if k["release"] == "6.2.0-11"]
    assert [name for name, _ in twice["sources"]] == [
        "linux-image-6.2.0-11-unsigned_1_amd64.deb",
        "linux-image-6.2.0-11_1_amd64.deb",
    ]


def command(mirror: Path, place: Path, *more: str) -> List[str]:
    directories = [f"--{name}={place / name}" for name in ("offsets", "archive", "state")]
    return [sys.executable, "-m", "sockpid_gen", "crawl", str(mirror), "--jobs=2", "--json", *directories, *more]


def run(mirror: Path, place: Path, *more: str) -> Tuple[int, Any]:
    done = subprocess.run(command(mirror, place, *more), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 14), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_bad_packages_are_named_and_tried_again(mirror: Path, tmp_path: Path) -> None:
    status, result = run(mirror, tmp_path / "x")
    assert (status, result["planned"], result["read"], result["kernels"]) == (14, 15, 15, 12)
    reasons = {f["source"]: f["reason"] for f in result["failures"]}
    assert reasons.keys() == {"linux-image-6.1.0-bad_1_amd64.deb", "linux-image-6.1.0-none_1_amd64.deb"}
    assert "damaged" in reasons["linux-image-6.1.0-bad_1_amd64.deb"]
    assert "neither BTF nor DWARF" in reasons["linux-image-6.1.0-none_1_amd64.deb"]
    before = tree(tmp_path / "x/offsets", tmp_path / "x/archive")

    _, result = run(mirror, tmp_path / "x")
    assert (result["read"], result["written"], len(result["failures"])) == (2, [], 2)

    (mirror / "linux-image-6.1.0-bad_1_amd64.deb").unlink()
    (mirror / "linux-image-6.1.0-none_1_amd64.deb").unlink()
    package(mirror, "6.1.0-none", 99)
    status, result = run(mirror, tmp_path / "x", "--limit=1")
    assert (result["read"], result["kernels"]) == (1, 13)
    assert tree(tmp_path / "x/offsets", tmp_path / "x/archive").keys() == before.keys()


def test_killed_at_random_times_and_still_the_same_bytes(mirror: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    run(mirror, tmp_path / "whole")
    duration = time.monotonic() - started
    chance = random.Random(20240607)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        process = subprocess.Popen(command(mirror, killed), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(duration * chance.random())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert no_process_left(process.pid)
    run(mirror, killed)
    left = tree(killed / "offsets", killed / "archive")
    assert left == tree(tmp_path / "whole/offsets", tmp_path / "whole/archive")


def no_process_left(session: int) -> bool:
    """Whether all processes of a session end within some seconds: workers must not outlive a killed crawl."""
    for _ in range(300):
        if not any(_session(int(name)) == session for name in os.listdir("/proc") if name.isdigit()):
            return True
        time.sleep(0.1)
    return False


def _session(pid: int) -> Optional[int]:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def test_a_cluster_gives_the_same_bytes(mirror: Path, tmp_path: Path) -> None:
    import distributed

    run(mirror, tmp_path / "here")
    connect: Any = distributed.LocalCluster
    with connect(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        status, result = run(mirror, tmp_path / "there", f"--scheduler={cluster.scheduler_address}")
    assert (status, result["read"], result["kernels"], len(result["failures"])) == (14, 15, 12, 2)
    here, there = (tree(tmp_path / place / "offsets", tmp_path / place / "archive") for place in ("here", "there"))
    assert here == there


def test_a_worker_that_dies_costs_its_own_kernel_only(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = plan.of_places([str(mirror)])
    deadly = next(task for task in tasks if "6.1.0-4_" in task.file.name)
    monkeypatch.setattr("sockpid_gen.crawl.crawl.crawl_task.run", Dying(deadly.key))
    state = crawl.State(tmp_path)
    crawl.run(tasks, state, 2, None, lambda *_: None)
    assert (deadly.file.name, f"{deadly.file.name}: the process that read it died") in state.failures(tasks)
    assert len(state.failures([deadly])) == 1
    assert len(state.failures(tasks)) == 3
    assert len(list(state.kernels())) == 12  # 11 others, one of them in two packages


def test_two_crawls_do_not_share_a_state(mirror: Path, tmp_path: Path) -> None:
    with crawl.State(tmp_path / "x/state").locked():
        asked = command(mirror, tmp_path / "x")
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert "another crawl works in this directory" in done.stderr
    with crawl.State(tmp_path / "x/state").locked():
        pass


def test_damaged_state_is_as_good_as_none(mirror: Path, tmp_path: Path) -> None:
    state = crawl.State(tmp_path / "state")
    task = plan.of_places([str(mirror)])[0]
    state.save(task, crawl_task.run(task))
    assert crawl.todo([task], state.done()) == []
    (file,) = (tmp_path / "state").rglob("*.json")
    file.write_bytes(file.read_bytes()[:100])
    assert crawl.todo([task], state.done()) == [task]


def test_the_debug_package_is_read_if_the_image_has_no_types(tmp_path: Path) -> None:
    image = package(tmp_path, "6.1.0-1", 1, types=False)
    debug = package(tmp_path, "6.1.0-1", 1, "-dbg")
    (task,) = plan.of_places([str(tmp_path)])
    assert task == Task(plan.of_path(image), plan.of_path(debug))
    outcome = crawl_task.run(task)
    assert outcome.kernel is not None
    assert outcome.kernel["sources"] == [[debug.name, plan.sum_of(debug)]]
    assert crawl.todo([task], {plan.sum_of(debug)}) == []


def test_content_that_the_index_does_not_name_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, "6.1.0-1", 1)
    outcome = crawl_task.run(Task(File(str(path), "0" * 64)))
    assert outcome.error is not None
    assert f"its SHA-256 is {plan.sum_of(path)}, not 000" in outcome.error


def test_content_that_changed_since_it_was_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package(tmp_path, "6.1.0-1", 1)
    (task,) = plan.of_places([str(path)])
    with monkeypatch.context() as patched:  # once is enough as long as nothing has changed
        patched.setattr(crawl_task, "sum_of", lambda path: pytest.fail(f"{path} is summed up again"))
        assert crawl_task.run(task).kernel is not None
    package(tmp_path, "6.1.0-1", 2)
    assert f"not {task.file.sha256}" in str(crawl_task.run(task).error)


def test_apt_refuses_a_file_with_another_sum(tmp_path: Path) -> None:
    path = package(tmp_path, "6.1.0-1", 1)
    fetched = tmp_path / "fetched"
    apt.download(path.as_uri(), plan.sum_of(path), fetched)
    assert fetched.read_bytes() == path.read_bytes()
    with pytest.raises(SourceError, match="Hash Sum mismatch"):
        apt.download(path.as_uri(), "0" * 64, tmp_path / "other")


@pytest.mark.parametrize("shift", [1, 2])
def test_new_kernels_are_held_against_the_dwarf_of_their_debug_packages(tmp_path: Path, shift: int) -> None:
    """In the image's BTF the field has moved by `shift`, in the DWARF of the same build by 1."""
    source = "struct sock { short pad; unsigned short sk_protocol, sk_type, rest[29]; } sock;\n" + make.C_OTHERS
    vmlinux = test_gen_dwarf.build(tmp_path, "-gdwarf-5", f'{source} const char linux_banner[] = "BANNER";')
    release = "6.1.0-1-test"
    debug = make.deb({f"./usr/lib/debug/boot/vmlinux-{release}": vmlinux.read_bytes()})
    (tmp_path / "btf").write_bytes(sock(shift))
    subprocess.run(["objcopy", "--strip-debug", f"--add-section=.BTF={tmp_path / 'btf'}", vmlinux], check=True)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / f"linux-image-{release}_1_amd64.deb").write_bytes(
        make.deb({f"./boot/vmlinuz-{release}": vmlinux.read_bytes()})
    )
    (mirror / f"linux-image-{release}-dbg_1_amd64.deb").write_bytes(debug)
    asked = command(mirror, tmp_path / "x", "--verify=1")
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=300)
    (verdict,) = json.loads(done.stdout)["verified"]
    assert (done.returncode, verdict["agree"]) == ((0, True) if shift == 1 else (5, False))
    assert verdict["independent"]
    moved = {d["field"] for d in verdict["disagreements"]}
    assert moved == set() if shift == 1 else "struct sock.sk_protocol" in moved


@pytest.mark.parametrize("keep", [False, True])
def test_addresses_are_fetched_and_forgotten_or_kept(
    tmp_path: Path, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package(tmp_path, "6.1.0-1", 1)
    task = Task(File(f"https://mirror.invalid/pool/{path.name}", plan.sum_of(path)))
    kept = tmp_path / "kept"
    fetched = []

    def download(uri: str, _: Optional[str], to: Path) -> None:
        fetched.append(uri)
        to.write_bytes(path.read_bytes())

    monkeypatch.setattr(apt, "download", download)
    for _ in range(2):
        outcome = crawl_task.run(task, str(kept) if keep else None)
        assert outcome.kernel is not None
        assert outcome.kernel["release"] == "6.1.0-1"
    assert fetched == [task.file.uri] * (1 if keep else 2)
    assert [p.name for p in kept.glob("*")] == ([path.name] if keep else [])


def offered(name: str, version: str = "6.1.1-1", depends: str = "", size: int = 10) -> apt.Package:
    return apt.Package(
        name, version, depends, size, f"{name} {version}", f"https://mirror.invalid/{name}_{version}.deb"
    )


def test_an_index_gives_each_kernel_once_newest_first() -> None:
    index = [
        offered("linux-image-6.1.0-1-amd64"),
        offered("linux-image-6.1.0-1-amd64-unsigned"),
        offered("linux-image-6.1.0-1-amd64-dbg"),
        offered("linux-image-6.1.0-10-amd64", "6.1.10-1"),
        offered("linux-image-6.1.0-2-amd64", "6.1.2-1"),
        offered("linux-image-6.1.0-2-cloud-amd64-unsigned", "6.1.2-1"),
        offered("linux-image-amd64", "6.1.10-1", "linux-image-6.1.0-10-amd64 (= 6.1.10-1)"),
        offered(
            "linux-image-7.2.1+deb14-amd64", "7.2.1-1", "linux-base (= 1), linux-binary-7.2.1+deb14-amd64 (= 7.2.1-1)"
        ),
        offered("linux-binary-7.2.1+deb14-amd64", "7.2.1-1", "linux-base-7.2.1+deb14-amd64"),
        offered("linux-binary-unsigned-7.2.1+deb14-amd64", "7.2.1-1"),
        offered("linux-image-amd64-signed-template"),
        offered("linux-headers-6.1.0-1-amd64"),
    ]
    tasks = plan.of_index(index + index[:2], "amd64")
    assert [(t.file.name, t.debug and t.debug.name) for t in tasks] == [
        ("linux-binary-7.2.1+deb14-amd64_7.2.1-1.deb", None),
        ("linux-image-6.1.0-10-amd64_6.1.10-1.deb", None),
        ("linux-image-6.1.0-2-cloud-amd64-unsigned_6.1.2-1.deb", None),
        ("linux-image-6.1.0-2-amd64_6.1.2-1.deb", None),
        ("linux-image-6.1.0-1-amd64_6.1.1-1.deb", "linux-image-6.1.0-1-amd64-dbg_6.1.1-1.deb"),
    ]


def test_kernels_without_btf_are_read_from_their_debug_packages() -> None:
    index = [offered("linux-image-6.1.0-1-armmp"), offered("linux-image-6.1.0-1-armmp-dbg")]
    (task,) = plan.of_index(index, "armhf")
    assert (task.file.name, task.debug) == ("linux-image-6.1.0-1-armmp-dbg_6.1.1-1.deb", None)


def test_lists_are_read_in_turn() -> None:
    one, other = ([Task(File(f"{name}{number}")) for number in range(3)] for name in "ab")
    found = plan.interleave([one, other[:1], one])
    assert [task.file.uri for task in found] == ["a0", "b0", "a1", "a2"]
