"""The pinned map: ours to make, anyone's to read, and never outdated without that showing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid import syscall, uapi
from sockpid.bpf import link, prog
from sockpid.bpf.map import Map
from sockpid.errors import CapabilityError, PinError, SyscallError, UsageError
from sockpid.event import socket_owner, socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel
from sockpid.image import image
from sockpid.pins import lookup, pin, pinned
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer
from sockpid.subjects.deaf import FAMILIES, Pair
from tests import truth
from tests.kernel.conftest import ROOT, RUNTIME, sockpid

KEY_SIZE, VALUE_SIZE = 48, 88
SPEC = image.Map("socket_to_pid", "BPF_MAP_TYPE_LRU_HASH", KEY_SIZE, VALUE_SIZE, 128)
WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]
PYTHON = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'runtime')!r})\n"]


@pytest.fixture(scope="module")
def running(bpffs: Path) -> Iterator[str]:
    """The directory in which an attached probe has pinned its map."""
    directory = str(bpffs / "running")
    with pin.Pins(directory) as pins, Tracer.open(Options()) as tracer:
        pins.pin(tracer.collection.maps["socket_to_pid"])
        yield directory


@pytest.fixture
def created() -> Iterator[Map]:
    made = Map.create(SPEC)
    yield made
    made.close()


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, running: str) -> Iterator[Pair]:
    made = Pair(request.param)
    made.send()
    yield made
    made.close()


def ends(of: SocketTuple) -> tuple[str, str]:
    a, b = ((f"[{x}]" if ":" in x else x) for x in (of.saddr, of.daddr))
    return f"{a}:{of.sport}", f"{b}:{of.dport}"


def ask(
    capsys: pytest.CaptureFixture[str],
    source: str | None,
    destination: str | None,
    netns: str | None,
    directory: str,
    show_all: bool,
) -> tuple[int, list[dict[str, Any]]]:
    status = lookup.lookup(source, destination, netns, directory, show_all, True)
    return status, truth.parse_lines(capsys.readouterr().out)


def key_of(found: dict[str, Any]) -> SocketTuple:
    return SocketTuple(*(found[name] for name in SocketTuple._fields))


def test_lookup_names_us_whichever_end_comes_first(
    pair: Pair, running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, destination = ends(pair.tuple)
    for asked in ((source, destination), (destination, source)):
        status, found = ask(capsys, *asked, None, running, False)
        assert status == 0
        assert pair.tuple in [key_of(entry) for entry in found]
        for entry in found:
            assert (entry["pid"], entry["tid"]) == (os.getpid(), os.getpid())
            assert entry["comm"] == Path("/proc/self/comm").read_text().rstrip("\n")
            assert entry["exited"] is False
            assert 0 <= entry["age_ns"] < 10**10


def test_one_end_and_all(pair: Pair, running: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = ends(pair.tuple)
    inode = str(pair.tuple.netns)
    for arguments in (
        (source, None, None, running, False),
        (destination, None, f"pid:{os.getpid()}", running, False),
        (None, None, None, running, True),
        (None, None, inode, running, True),
    ):
        status, found = ask(capsys, *arguments)
        assert status == 0
        assert pair.tuple in [key_of(entry) for entry in found], arguments


def test_socket_that_listens_on_a_v4_mapped_address(running: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::ffff:127.9.9.9", 0))
        listening.listen()
        port = listening.getsockname()[1]
        for text in (f"127.9.9.9:{port}", f"[::ffff:127.9.9.9]:{port}"):
            status, found = ask(capsys, text, None, None, running, False)
            assert (status, [entry["pid"] for entry in found], found[0]["how"]) == (0, [os.getpid()], "listen")


def test_table_for_people(pair: Pair, running: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lookup.lookup(*ends(pair.tuple), None, running, False, False) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["PID", "TID", "COMM", "LOCAL", "REMOTE", "NETNS", "HOW", "AGE", "STARTED", "PROCESS"]
    (line,) = [line for line in lines if " ".join(line.split()).count(" ".join(ends(pair.tuple)))]
    assert line.split()[:2] == [str(os.getpid())] * 2
    assert line.split()[-4] == "0s"
    began = (
        time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + kernel.process_start_ticks() / os.sysconf("SC_CLK_TCK")
    )
    shown = time.mktime(time.strptime(" ".join(line.split()[-3:-1]), "%Y-%m-%d %H:%M:%S"))
    assert abs(shown - began) < 2
    assert line.endswith(" running")


def test_owner_is_said_to_be_unknown(running: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = Pair("inet")
    other.send()
    source, destination = ends(other.tuple)
    assert lookup.lookup(source, destination, "1", running, False, True) == 1  # in another namespace
    assert ask(capsys, source, destination, None, running, False)[0] == 0
    other.close()
    assert lookup.lookup(source, destination, None, running, False, True) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"the owner of {source} - {destination} is not known" in printed.err


def test_modes(running: str) -> None:
    path = pin.path_of(running, "socket_to_pid")
    modes = [stat.S_IMODE(os.stat(p).st_mode) for p in (running, os.path.dirname(path), path)]
    assert modes == [0o700, 0o700, 0o600]
    assert os.listdir(os.path.dirname(path)) == ["socket_to_pid"]


def test_readers_cannot_write(running: str) -> None:
    opened = pinned.open_pinned(pin.path_of(running, "socket_to_pid"), KEY_SIZE, VALUE_SIZE)
    assert opened.spec[1:4] == SPEC[1:4]
    with pytest.raises(SyscallError, match="BPF_MAP_UPDATE_ELEM"):
        opened.update(bytes(KEY_SIZE), bytes(VALUE_SIZE))
    opened.close()


def test_one_instance_at_a_time(running: str, bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "LOCK_SECONDS", 0.05)
    with pytest.raises(PinError, match="in use by another sockpid"):
        pin.Pins(running)
    with pin.Pins(str(bpffs / "another")):
        pass


def test_an_end_in_good_order_leaves_nothing_that_could_mislead(bpffs: Path, created: Map) -> None:
    directory = str(bpffs / "orderly")
    with pin.Pins(directory) as pins:
        path = pins.pin(created)
        created.update(bytes(KEY_SIZE), b"\1" * VALUE_SIZE)
        held = pinned.open_pinned(path, KEY_SIZE, VALUE_SIZE)
        assert list(held.keys()) == [bytes(KEY_SIZE)]
    assert not os.path.exists(path)
    assert list(held.keys()) == []
    held.close()
    with pytest.raises(PinError, match="no sockpid runs"):
        lookup.lookup(None, None, None, directory, True, True)
    with pin.Pins(directory), pytest.raises(PinError, match="still starting"):
        lookup.lookup(None, None, None, directory, True, True)


def test_what_a_killed_instance_leaves_is_refused_and_replaced(bpffs: Path, created: Map) -> None:
    directory = str(bpffs / "killed")
    code = (
        "from sockpid.bpf.map import Map; from sockpid.image import image; from sockpid.pins import pin\n"
        "import os, signal\n"
        f"made = Map.create(image.Map{tuple(SPEC)!r})\n"
        f"made.update(bytes({KEY_SIZE}), b'1' * {VALUE_SIZE})\n"
        "pins = pin.Pins(sys.argv[1]); pins.pin(made)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([*PYTHON[:-1], PYTHON[-1] + code, directory], check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    path = pin.path_of(directory, "socket_to_pid")
    stale = pinned.open_pinned(path, KEY_SIZE, VALUE_SIZE)
    assert stale.lookup(bytes(KEY_SIZE)) is not None
    with pytest.raises(PinError, match="no sockpid runs"):
        lookup.lookup(None, None, None, directory, True, True)
    with pin.Pins(directory) as pins:
        pins.pin(created)
        created.update(b"\2" * KEY_SIZE, bytes(VALUE_SIZE))
        assert list(stale.keys()) == []
        fresh = pin.open_running(directory, "socket_to_pid", KEY_SIZE, VALUE_SIZE)
        assert list(fresh.keys()) == [b"\2" * KEY_SIZE]
        fresh.close()
    stale.close()


def obj_pin(fd: int, path: str) -> None:
    name = bytearray(path.encode() + b"\0")
    attr = struct.pack("=QII", syscall.address(name), fd, 0)
    syscall.bpf("BPF_OBJ_PIN", uapi.BPF_OBJ_PIN, bytearray(attr))


def test_map_of_another_shape(bpffs: Path, created: Map) -> None:
    directory = str(bpffs / "shape")
    other = Map.create(SPEC._replace(value_size=VALUE_SIZE - 8))
    with pin.Pins(directory) as pins:
        path = pin.path_of(directory, "socket_to_pid")
        obj_pin(other.fd, path)
        for attempt in (lambda: lookup.lookup(None, None, None, directory, True, True), lambda: pins.pin(created)):
            with pytest.raises(PinError, match="48 and values of 80 bytes, not 48 and 88"):
                attempt()
        os.unlink(path)
        pins.pin(created)
    other.close()


def test_not_a_map(bpffs: Path) -> None:
    directory = str(bpffs / "program")
    with pin.Pins(directory):
        path = pin.path_of(directory, "socket_to_pid")
        insns = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
        loaded = prog.load("nothing", uapi.BPF_PROG_TYPE_SOCKET_FILTER, insns, "GPL")
        obj_pin(loaded.fd, path)
        loaded.close()
        with pytest.raises(PinError, match="not a map"):
            pinned.open_pinned(path, KEY_SIZE, VALUE_SIZE)
        os.unlink(path)


def test_another_version(bpffs: Path, created: Map) -> None:
    directory = str(bpffs / "version")
    with pin.Pins(directory):
        os.mkdir(f"{directory}/v1", 0o700)
        obj_pin(created.fd, f"{directory}/v1/socket_to_pid")
        with pytest.raises(PinError, match=r"of version v2 .* has v1"):
            lookup.lookup(None, None, None, directory, True, True)


def test_what_another_version_left_is_emptied_and_taken_away(bpffs: Path) -> None:
    """Who reads it would take what it says for true, for ever."""
    directory = str(bpffs / "left")
    former = Map.create(SPEC._replace(key_size=44, value_size=56))
    with pin.Pins(directory):
        os.mkdir(f"{directory}/v1", 0o700)
        os.mkdir(f"{directory}/vault", 0o700)
        for name in ("v1", "vault"):
            obj_pin(former.fd, f"{directory}/{name}/socket_to_pid")
        former.update(bytes(44), bytes(56))
    with pin.Pins(directory):
        assert list(former.keys()) == []
        assert sorted(os.listdir(directory)) == ["own", "v2", "vault"]
    shutil.rmtree(f"{directory}/vault")
    former.close()


def test_directory_that_others_may_write_to(bpffs: Path) -> None:
    """The root of a bpffs is open to all: anyone may have made the directory before us."""
    theirs = bpffs / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(PinError, match="belongs to user 65534"):
        pin.Pins(str(theirs))
    with pytest.raises(PinError, match="belongs to user 65534"):
        lookup.lookup(None, None, None, str(theirs), True, True)
    os.chown(theirs, 0, 0)
    theirs.chmod(0o770)
    with pytest.raises(PinError, match="0770"):
        pin.Pins(str(theirs))
    (bpffs / "elsewhere").symlink_to(theirs)
    with pytest.raises(PinError, match="not a directory"):
        pin.Pins(str(bpffs / "elsewhere"))


def test_not_on_a_bpf_file_system(tmp_path: Path, bpffs: Path) -> None:
    for attempt in (pin.Pins, pin.bpffs, lambda d: lookup.lookup(None, None, None, d, True, True)):
        with pytest.raises(UsageError, match=f"not on a bpf file system.*{bpffs}"):
            attempt(str(tmp_path / "pins"))
    with pytest.raises(UsageError, match="there is no"):
        pin.Pins(str(bpffs / "not" / "there"))
    assert not (tmp_path / "pins").exists()


def test_no_bpf_file_system_at_all(tmp_path: Path) -> None:
    code = (
        "from sockpid.pins import pin; from sockpid import errors\n"
        "try: pin.Pins(sys.argv[1])\nexcept errors.UsageError as error: print(error)"
    )
    shell = 'umount -a -t bpf; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", shell, "sh", *PYTHON[:-1], PYTHON[-1] + code, str(tmp_path / "pins")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "mount -t bpf bpf /sys/fs/bpf" in done.stdout, done


def test_not_root(running: str) -> None:
    code = (
        "from sockpid import errors; from sockpid.pins import lookup\n"
        "try: lookup.lookup(None, None, None, sys.argv[1], True, True)\n"
        "except errors.CapabilityError as error: print(error); sys.exit(error.exit_code)"
    )
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*nobody, *PYTHON[:-1], PYTHON[-1] + code, running]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == CapabilityError.exit_code, done
    assert "CAP_BPF" in done.stdout
    assert "run it as root" in done.stdout


def test_descriptors_are_given_back(running: str, bpffs: Path, created: Map) -> None:
    before = os.listdir("/proc/self/fd")
    lookup.lookup(None, None, None, running, True, True)
    with pin.Pins(str(bpffs / "descriptors")) as pins:
        pins.pin(created)
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture(scope="module")
def found_by_another(running: str, bpffs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Map]:
    """The map of tests/kernel/independent.bpf.c, attached: compiled by clang, loaded by bpftool with the pinned map."""
    clang = shutil.which("clang-14") or shutil.which("clang")
    if clang is None or shutil.which("bpftool") is None:
        pytest.skip("needs clang and bpftool")
    triple = subprocess.run([clang, "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    built = tmp_path_factory.mktemp("independent") / "independent.bpf.o"
    source = ROOT / "tests/kernel/independent.bpf.c"
    include = [f"-I{ROOT / 'bpf_bytecode'}", f"-I/usr/include/{triple}"]
    warn = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run([clang, "-g", "-O2", "-target", "bpf", *warn, *include, "-c", source, "-o", built], check=True)
    program, maps = bpffs / "independent", bpffs / "independent_maps"
    reuse = ["map", "name", "socket_to_pid", "pinned", pin.path_of(running, "socket_to_pid")]
    command = ["bpftool", "prog", "load", str(built), str(program), *reuse, "pinmaps", str(maps)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    name = bytearray(os.fsencode(program) + b"\0")
    attr = struct.pack("=QII", syscall.address(name), 0, 0)
    fd = syscall.bpf("BPF_OBJ_GET", uapi.BPF_OBJ_GET, bytearray(attr))
    attached = link.attach_raw_tp("tcp_retransmit_skb", lambda: prog.Prog("on_retransmit", 0, fd))
    found = pinned.open_pinned(str(maps / "found"), KEY_SIZE, VALUE_SIZE + 8)
    yield found
    found.close()
    attached.close()
    os.close(fd)
    program.unlink()
    shutil.rmtree(maps)


def test_a_program_that_is_not_ours_finds_the_owners(found_by_another: Map) -> None:
    """In softirq context, by a key that it built itself, through libbpf's relocations."""
    command = [*WORKLOAD, "--processes", "8", "--seconds", "2", "--name", "owner", "--hogs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    right = naive = 0
    for true in truth.parse_lines(done.stdout):
        key = SocketTuple(*(true[name] for name in SocketTuple._fields))
        value = found_by_another.lookup(socket_tuple.pack(key))
        assert value is not None, f"no retransmit of {key} seen"
        found = socket_owner.unpack(socket_tuple.pack(key), value[:VALUE_SIZE])
        assert found is not None, key
        owner = found.latest
        assert (owner.pid, owner.comm) == (true["pid"], true["comm"])
        right += 1
        naive += struct.unpack_from("=Q", value, VALUE_SIZE)[0] >> 32 == true["pid"]
    assert right == 24
    assert naive < right / 2  # the program did run where `current` is somebody else


def rustc() -> str:
    """A compiler that knows what the examples use, offset_of!() being the newest."""
    found = shutil.which("rustc")
    if found is None:
        pytest.skip("needs rustc 1.77 or later")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if tuple(map(int, told.split(".")[:2])) < (1, 77):
        pytest.skip(f"needs rustc 1.77 or later, not {told}")
    return found


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("clang-14")
    if compiler is None:
        pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("c") / "socket_to_pid"
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'bpf_bytecode'}"]
    source = str(ROOT / "docs/examples/socket_to_pid.c")
    subprocess.run([compiler, *flags, source, "-lbpf", "-o", str(built)], check=True)
    return built


@pytest.fixture(scope="module")
def in_rust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("rust") / "lookup"
    flags = ["--edition", "2021", "-D", "warnings", "-o", str(built)]
    subprocess.run([rustc(), *flags, str(ROOT / "docs/examples/lookup.rs")], check=True, timeout=120)
    return built


def asked(example: Path, running: str, pair: Pair) -> list[str]:
    of, mapped = pair.tuple, "::ffff:" if pair.family == "mapped" else ""
    ends = [mapped + of.saddr, str(of.sport), mapped + of.daddr, str(of.dport)]
    return [str(example), pin.path_of(running, "socket_to_pid"), *ends]


@pytest.mark.parametrize("example", ["in_c", "in_rust"])
def test_the_examples_agree(example: str, pair: Pair, running: str, request: pytest.FixtureRequest) -> None:
    command = asked(request.getfixturevalue(example), running, pair)
    known = subprocess.run(command, capture_output=True, text=True, check=False)
    assert known.stdout == f"{os.getpid()} {Path('/proc/self/comm').read_text()}", known
    unknown = subprocess.run([*command[:-1], "1"], capture_output=True, text=True, check=False)
    assert (unknown.returncode, unknown.stderr) == (1, "not known\n")


@pytest.mark.parametrize("example", ["in_c", "in_rust"])
def test_the_examples_print_no_name_that_a_terminal_obeys(
    example: str, running: str, request: pytest.FixtureRequest
) -> None:
    own = Path("/proc/self/comm")
    named = own.read_text().rstrip("\n")
    try:
        own.write_text("\x1b[2Jinit\x7f")
        with contextlib.closing(Pair("inet")) as pair:
            pair.send()
            command = asked(request.getfixturevalue(example), running, pair)
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        own.write_text(named)
    assert told == f"{os.getpid()} ?[2Jinit?\n"


def test_the_example_in_rust_compiles(tmp_path: Path) -> None:
    """Its assertions on sizes and offsets are checked by the compiler."""
    source = str(ROOT / "docs/examples/socket_to_pid.rs")
    flags = ["--edition", "2021", "--crate-type", "lib", "-D", "warnings", "--out-dir", str(tmp_path)]
    subprocess.run([rustc(), *flags, source], check=True, timeout=120)


CALLS_OF_RUST = """
use std::io::Read;
use socket_to_pid::{SocketOwner, SocketTuple};

fn main() {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    for at in (0..bytes.len()).step_by(136) {
        let key = unsafe { std::ptr::read_unaligned(bytes[at..].as_ptr().cast::<SocketTuple>()) };
        let owner = unsafe { std::ptr::read_unaligned(bytes[at + 48..].as_ptr().cast::<SocketOwner>()) };
        println!("{} {:?}", owner.is_of(&key), owner.latest.pid());
    }
}
"""


def test_the_example_in_rust_tells_a_torn_value(pair: Pair, running: str, tmp_path: Path) -> None:
    main, built = tmp_path / "main.rs", tmp_path / "main"
    main.write_text(CALLS_OF_RUST)
    flags = ["--edition", "2021", "-D", "warnings", "--out-dir", str(tmp_path)]
    source = str(ROOT / "docs/examples/socket_to_pid.rs")
    subprocess.run([rustc(), *flags, "--crate-type", "lib", source], check=True, timeout=120)
    extern = f"socket_to_pid={tmp_path / 'libsocket_to_pid.rlib'}"
    subprocess.run([rustc(), *flags[:-2], "--extern", extern, "-o", str(built), str(main)], check=True, timeout=120)
    with contextlib.closing(pin.open_running(running, "socket_to_pid", KEY_SIZE, VALUE_SIZE)) as opened:
        key = socket_tuple.pack(pair.tuple)
        value = opened.lookup(key)
    assert value is not None
    other = socket_tuple.pack(pair.tuple._replace(ifindex=1))
    torn = value[:40] + b"another\0".ljust(16, b"\0") + value[56:]
    given = key + value + other + value + key + torn
    done = subprocess.run([str(built)], input=given, capture_output=True, check=True, timeout=30)
    pid = f"Some({os.getpid()})"
    assert done.stdout.decode().splitlines() == [f"true {pid}", f"false {pid}", f"false {pid}"]


def test_documented_object(pair: Pair, running: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lookup.lookup(*ends(pair.tuple), None, running, False, True) == 0
    for line in capsys.readouterr().out.splitlines():
        assert list(json.loads(line)) == [
            "schema", "family", "saddr", "sport", "daddr", "dport", "netns", "pid", "tid", "comm", "start_ns", "how",
            "age_ns", "exited", "cgroup_id", "ifindex", "inode", "ambiguous", "sharers",
        ]  # fmt: skip


def test_from_the_command_line(bpffs: Path, tmp_path: Path) -> None:
    """Not running, known, not known, and gone again, each with its exit status; a second instance is turned away."""
    directory = str(bpffs / "commands")
    assert sockpid("lookup", "--all", "--pin", directory).status == PinError.exit_code
    command = [*RUNTIME, "run", "--json", "--pin", directory]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as probe:
        assert probe.stderr is not None
        try:
            line = ""
            while "offsets from" not in line:
                line = probe.stderr.readline()
                assert line, "the probe ended"
            made = Pair("mapped")
            made.send()
            source, destination = ends(made.tuple)
            known = sockpid("lookup", destination, source, "--json", "--pin", directory)
            mine = [entry for entry in truth.parse_lines(known.stdout) if key_of(entry) == made.tuple]
            assert (known.status, [entry["pid"] for entry in mine]) == (0, [os.getpid()]), known
            made.close()
            unknown = sockpid("lookup", source, destination, "--pin", directory)
            assert (unknown.status, unknown.stdout) == (1, ""), unknown
            assert "is not known" in unknown.stderr
            second = sockpid("run", "--pin", directory, "--duration", "0.1")
            assert second.status == PinError.exit_code, second
            assert "in use by another sockpid" in second.stderr
        finally:
            probe.terminate()
            probe.communicate(timeout=30)
    assert probe.returncode == 0
    assert not os.path.exists(pin.path_of(directory, "socket_to_pid"))
    refused = sockpid("run", "--pin", str(tmp_path / "pins"))
    assert (refused.status, refused.stdout) == (UsageError.exit_code, "")
