"""Outputs of `run` without a kernel: specifications, queues, lines, rotation, and what is dropped."""

from __future__ import annotations

import collections
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid.errors import OutputError, UsageError
from sockpid.outputs import Gone, Output, Outputs, Record
from sockpid.outputs import table as table_output
from sockpid.outputs.arguments import Arguments
from sockpid.outputs.file import File
from sockpid.outputs.sink import Sink
from sockpid.outputs.spec import KINDS, open_output
from sockpid.outputs.spool import Spool
from sockpid.outputs.unix import Unix
from tests.streams import document, unknown
from tests.terminal import Tmux


class Collecting(Output):
    """Keeps what it is given. While `gate` is closed it hangs; while `refusals` are left it refuses."""

    tells_gaps = True

    def __init__(self) -> None:
        super().__init__("collecting")
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.refusals = 0
        self.got: list[dict[str, Any]] = []
        self.reopened = 0

    def write(self, pending: collections.deque[Record]) -> None:
        self.entered.set()
        self.gate.wait()
        while pending:
            if self.refusals:
                self.refusals -= 1
                raise OSError("full")
            self.got.append(pending.popleft().document)

    def reopen(self) -> None:
        self.reopened += 1

    def stop(self) -> None:
        self.gate.set()


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [document(seq=number) for number in numbers]


@pytest.fixture
def said() -> list[str]:
    return []


def test_everything_is_delivered_in_order(said: list[str]) -> None:
    outputs = [Collecting(), Collecting()]
    every = Outputs([(output, 100) for output in outputs], said.append)
    every.start()
    for number in range(5):
        every.offer(numbered(number))
    every.close()
    for output in outputs:
        assert [d["seq"] for d in output.got] == [0, 1, 2, 3, 4]
    assert every.report() == [{"output": "collecting", "offered": 5, "written": 5, "dropped": 0}] * 2
    assert not said


def test_a_consumer_that_hangs_holds_up_nobody(said: list[str]) -> None:
    slow, fast = Collecting(), Collecting()
    slow.gate.clear()
    every = Outputs([(slow, 3), (fast, 100)], said.append)
    every.start()
    every.offer(numbered(0))
    assert slow.entered.wait(10)  # it has taken one, and hangs
    for number in range(1, 11):
        every.offer(numbered(number))
    slow.gate.set()
    every.close()
    assert [d["seq"] for d in fast.got] == list(range(11))
    assert [d["seq"] for d in slow.got] == [0, 1, 2, 3]
    assert every.report()[0] == {"output": "collecting", "offered": 11, "written": 4, "dropped": 7}


def test_a_gap_is_told_where_it_is(said: list[str]) -> None:
    output = Collecting()
    output.gate.clear()
    sink = Sink(output, 2, said.append)
    sink.start()
    sink.offer([Record(d) for d in numbered(0)])
    assert output.entered.wait(10)
    sink.offer([Record(d) for d in numbered(1, 2, 3, 4, 5)])
    output.gate.set()
    while len(output.got) < 3:
        output.entered.clear()
        output.entered.wait(0.01)
    sink.offer([Record(d) for d in numbered(6)])
    sink.close(5)
    assert [d.get("seq", d.get("dropped")) for d in output.got] == [0, 1, 2, 3, 6]
    assert output.got[3]["dropped"] == 3
    assert output.got[3]["host"] == os.uname().nodename
    assert (sink.offered, sink.written, sink.dropped) == (7, 4, 3)


def test_what_was_refused_is_offered_again(said: list[str]) -> None:
    output = Collecting()
    output.refusals = 2
    sink = Sink(output, 100, said.append)
    sink.start()
    sink.offer([Record(d) for d in numbered(0, 1)])
    while len(output.got) < 2:
        output.entered.clear()
        output.entered.wait(0.05)
    sink.close(5)
    assert [d["seq"] for d in output.got] == [0, 1]
    assert said == ["output collecting: full; trying again", "output collecting: works again"]


def test_what_is_left_at_the_end_is_dropped(said: list[str]) -> None:
    output = Collecting()
    output.refusals = 10**9
    sink = Sink(output, 100, said.append)
    sink.start()
    sink.offer([Record(d) for d in numbered(0, 1, 2)])
    sink.close(5)
    assert (sink.offered, sink.written, sink.dropped) == (3, 0, 3)


def test_an_output_that_is_gone_ends_the_run(said: list[str]) -> None:
    class Closed(Output):
        def write(self, pending: collections.deque[Record]) -> None:
            raise Gone("closed")

    every = Outputs([(Closed("closed"), 10)], said.append)
    every.start()
    every.offer(numbered(0))
    every._sinks[0]._thread.join(10)
    with pytest.raises(Gone):
        every.offer(numbered(1))
    every.close()
    (report,) = every.report()
    assert report["written"] == 0
    assert report["dropped"] == report["offered"]


def test_reopening_reaches_the_thread(said: list[str]) -> None:
    output = Collecting()
    every = Outputs([(output, 10)], said.append)
    every.start()
    every.reopen()
    every.close()
    assert output.reopened == 1


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("pipe", "'pipe' is none of table, json"),
        ("file", "needs a place"),
        ("json:x", "takes no place"),
        ("file:/x,size", "not of the form key=value"),
        ("file:/x,size=10Q", "size=10Q is not a number"),
        ("file:/x,colour=red", "unknown key 'colour'; file knows age, keep, mode, queue, size"),
        ("json,queue=0", "queue=0 is not a number of at least 1"),
        ("unix:/x,mode=rw", "not a mode"),
        ("syslog,facility=nope", "is none of kern"),
        ("prometheus:9469", "not of the form ADDRESS:PORT"),
        ("prometheus,labels=colour", "labels=colour is none of kind"),
        ("otlp:gopher://x", "not an http or https URL"),
        ("otlp,signals=traces", "is none of logs, metrics"),
    ],
)
def test_mistakes_are_told_by_name(spec: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_output(spec, 10)


def test_every_kind_opens_without_arguments_or_asks_for_a_place(tmp_path: Path) -> None:
    for kind in KINDS:
        spec = f"{kind}:{tmp_path / kind}" if kind in ("file", "unix") else kind
        output, limit = open_output(f"{spec},queue=7", 10)
        assert limit == 7
        output.close()


def test_units() -> None:
    arguments = Arguments("x:p,a=2K,b=1.5h,c=10,d=7d")
    assert (arguments.size("a", "1"), arguments.seconds("b", "1"), arguments.number("c", 1)) == (2048, 5400.0, 10)
    assert arguments.seconds("d", "1") == 7 * 86400
    arguments.done()


def test_only_one_output_can_have_stdout(said: list[str]) -> None:
    with pytest.raises(UsageError, match="table and json both want standard output"):
        Outputs.open(["table", "json"], said.append)


def fill(output: File, *numbers: int) -> None:
    output.write(collections.deque(Record(d) for d in numbered(*numbers)))


def sequence(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def test_file_rotates_by_size_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    size = 3 * len(Record(document(seq=100)).line)
    output = File(str(path), size, 0, keep=2, mode=0o640)
    fill(output, *range(100, 105))
    fill(output, *range(105, 110))
    output.close()
    assert sequence(path) == [109]
    assert sequence(tmp_path / "events.jsonl.1") == [106, 107, 108]
    assert sequence(tmp_path / "events.jsonl.2") == [103, 104, 105]
    assert not (tmp_path / "events.jsonl.3").exists()
    assert path.stat().st_mode & 0o777 == 0o640


def test_file_rotates_by_age(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(Record(document(seq=1)).line)
    os.utime(path, (1, 1))
    output = File(str(path), 1 << 20, 60, keep=1, mode=0o640)
    output.tick()
    fill(output, 2)
    output.tick()
    output.close()
    assert (sequence(tmp_path / "events.jsonl.1"), sequence(path)) == ([1], [2])


def test_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    output = File(str(path), 1 << 20, 0, keep=1, mode=0o640)
    fill(output, 1)
    path.rename(tmp_path / "moved")
    fill(output, 2)
    output.reopen()
    fill(output, 3)
    output.close()
    assert (sequence(tmp_path / "moved"), sequence(path)) == ([1, 2], [3])


def test_a_broken_last_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"schema": 1, "ts')
    output = File(str(path), 1 << 20, 0, keep=1, mode=0o640)
    fill(output, 1)
    output.close()
    assert path.read_bytes() == b'{"schema": 1, "ts\n' + Record(document(seq=1)).line


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    output = File(str(path), 1 << 20, 0, keep=1, mode=0o640)
    fill(output, 1)
    write, calls = os.write, iter([10, 0])

    def short(fd: int, data: bytes) -> int:
        room = next(calls)
        if not room:
            raise OSError(28, "No space left on device")
        return write(fd, data[:room])

    monkeypatch.setattr(os, "write", short)
    pending = collections.deque(Record(d) for d in numbered(2, 3))
    with pytest.raises(OSError, match="No space"):
        output.write(pending)
    monkeypatch.undo()
    assert sequence(path) == [1]
    assert len(pending) == 2
    output.write(pending)
    output.close()
    assert sequence(path) == [1, 2, 3]


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        File(str(tmp_path / "no/such"), 1, 0, 1, 0o640)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError):
        File(str(tmp_path / "link"), 1, 0, 1, 0o640)


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[Callable[..., Unix]]:
    made: list[Unix] = []

    def make(buffer: int = 1 << 20) -> Unix:
        output = Unix(str(tmp_path / "events.sock"), 0o600, buffer)
        output.start()
        made.append(output)
        return output

    yield make
    for output in made:
        output.close()


def connect(path: Path) -> socket.socket:
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    reader.settimeout(10)
    reader.connect(str(path))
    return reader


def lines(reader: socket.socket, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    with reader.makefile("rb") as file:
        got: list[dict[str, Any]] = []
        while not until(got):
            line = file.readline()
            assert line.endswith(b"\n")
            got.append(json.loads(line))
        return got


def accepted(output: Unix, readers: int) -> None:
    for _ in range(1000):
        if len(output._readers) == readers:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(output._readers)} readers, not {readers}")


def test_many_readers_follow_a_socket(tmp_path: Path, unix: Callable[..., Unix]) -> None:
    output = unix()
    readers = [connect(tmp_path / "events.sock") for _ in range(20)]
    accepted(output, 20)
    output.write(collections.deque(Record(d) for d in numbered(*range(50))))
    for reader in readers:
        assert [d["seq"] for d in lines(reader, lambda got: len(got) == 50)] == list(range(50))
        reader.close()
    output.write(collections.deque(Record(d) for d in numbered(1)))
    accepted(output, 0)
    assert (tmp_path / "events.sock").stat().st_mode & 0o777 == 0o600


def test_a_slow_reader_is_told_what_it_missed_and_disturbs_nobody(
    tmp_path: Path, unix: Callable[..., Unix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sockpid.outputs.unix.LAST_SECONDS", 60)
    output = unix(buffer=64 << 10)
    with connect(tmp_path / "events.sock") as slow, connect(tmp_path / "events.sock") as fast:
        accepted(output, 2)
        total = 3000
        got: list[dict[str, Any]] = []
        with fast.makefile("rb") as file:
            for start in range(0, total, 10):
                output.write(collections.deque(Record(d) for d in numbered(*range(start, start + 10))))
                got += [json.loads(file.readline()) for _ in range(10)]
        assert [d["seq"] for d in got] == list(range(total))
        # The slow one begins to read; once there is room, the next event is preceded by the number of those lost.
        with slow.makefile("rb") as reading:
            seen = [json.loads(reading.readline())]
            number = total
            while not any("dropped" in d for d in seen):
                output.write(collections.deque(Record(d) for d in numbered(number)))
                number += 1
                seen.append(json.loads(reading.readline()))
                assert number < 3 * total
            # The last one may have found no room again: that is told with the next event, or at the end.
            fast.close()
            closing = threading.Thread(target=output.close)
            closing.start()
            seen += [json.loads(line) for line in reading]
            closing.join(60)
    assert [d["seq"] for d in seen if "seq" in d] == sorted({d["seq"] for d in seen if "seq" in d})
    assert sum(d.get("dropped", 1) for d in seen) == number
    assert "dropped" not in seen[0]


def test_readers_get_what_waits_for_them_at_the_end(
    tmp_path: Path, unix: Callable[..., Unix], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a socket's buffer holds, and more than ours: the rest, and how many are missing, come at the end."""
    monkeypatch.setattr("sockpid.outputs.unix.LAST_SECONDS", 60)
    output = unix(buffer=1 << 20)
    reader = connect(tmp_path / "events.sock")
    accepted(output, 1)
    for start in range(0, 5000, 100):
        output.write(collections.deque(Record(d) for d in numbered(*range(start, start + 100))))
    got: list[dict[str, Any]] = []
    with reader.makefile("rb") as file:
        reading = threading.Thread(target=lambda: got.extend(json.loads(line) for line in file))
        closing = threading.Thread(target=output.close)
        closing.start()
        reading.start()
        reading.join(60)
        closing.join(60)
    reader.close()
    assert not reading.is_alive()
    assert sum(d.get("dropped", 1) for d in got) == 5000
    assert "dropped" in got[-1]


def test_a_socket_in_use_is_not_taken_away(tmp_path: Path, unix: Callable[..., Unix]) -> None:
    output = unix()
    with pytest.raises(OutputError, match="in use"):
        Unix(str(tmp_path / "events.sock"), 0o600, 1)
    output.close()
    assert not (tmp_path / "events.sock").exists()


def test_a_socket_left_behind_is_replaced(tmp_path: Path, unix: Callable[..., Unix]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "events.sock"))
    output = unix()
    connect(tmp_path / "events.sock").close()
    assert output.name.startswith("unix:")


def test_spool_survives_and_is_bounded(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "q"), 100)
    assert spool.push(b"a" * 40, 4) == 0
    assert spool.push(b"b" * 40, 5) == 0
    assert spool.push(b"c" * 40, 6) == 4
    assert spool.push(b"d" * 101, 7) == 7
    with pytest.raises(OutputError, match="in use"):
        Spool(str(tmp_path / "q"), 100)
    spool.close()
    (tmp_path / "q/000000000009-3.json.tmp").write_bytes(b"half")
    again = Spool(str(tmp_path / "q"), 100)
    contents = []
    while (oldest := again.oldest()) is not None:
        contents.append((again.read(oldest), oldest.events))
        again.remove(oldest)
    assert contents == [(b"b" * 40, 5), (b"c" * 40, 6)]
    assert again.push(b"e", 1) == 0
    again.close()
    assert os.listdir(tmp_path / "q") == ["000000000004-1.json"]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 132, 160, 250])
def test_table_fits_the_terminal(columns: int) -> None:
    widths = table_output.fit(columns)
    long = document(saddr="2001:db8:1111:2222:3333:4444:5555:6666", daddr="2001:db8:1111:2222:3333:4444:5555:7777")
    for line in (
        table_output.header(widths),
        *(table_output.row(d, widths, shorten=True) for d in (document(), unknown(), long)),
    ):
        assert len(line) <= max(columns, 44), line
    assert widths[2]
    assert widths[5]  # who and where to are never left out


def test_table_is_aligned_and_whole_where_there_is_no_terminal() -> None:
    widths = table_output.fit(None)
    head = table_output.header(widths)
    line = table_output.row(document(), widths)
    assert line[head.index("COMM") :].startswith("python3 ")
    assert line[head.index("REMOTE") :].startswith("10.0.0.2:9000 ")
    v6 = document(saddr="2001:db8:1111:2222:3333:4444:5555:6666")
    assert "[2001:db8:1111:2222:3333:4444:5555:6666]:40034" in table_output.row(v6, widths)


def test_table_shows_no_control_characters_and_labels() -> None:
    labels = {"env": {"RANK": "3\x07", "NONE": None}, "unit": "x.service", "reason": None}
    made = document(comm="a\x1b[2Jb", labels=labels)
    line = table_output.row(made, table_output.fit(None))
    assert "a?[2Jb" in line
    assert line.endswith("  RANK=3? unit=x.service")
    assert "\x1b" not in line
    assert "\x1b[31m" in table_output.row(made, table_output.fit(None), colour=True)


def test_table_marks_an_uncertain_owner_within_its_column() -> None:
    widths = table_output.fit(None)
    head = table_output.header(widths)
    line = table_output.row(document(certain=False, doubt="missed", pid=4194304), widths)
    assert line[: head.index("COMM")].endswith(" 4194304? ")
    assert line[head.index("COMM") :].startswith("python3 ")
    for certain in (True, None):
        assert "?" not in table_output.row(document(certain=certain), widths)
    marked = "\x1b[33m   4711?\x1b[0m"
    assert marked in table_output.row(document(certain=False), widths, colour=True)
    assert marked not in table_output.row(document(certain=True), widths, colour=True)


TABLE = """
import sys, time
sys.path[:0] = [{root!r}, {root!r} + "/runtime"]
from sockpid.outputs import Outputs
from tests.streams import document
from tests.terminal import Tmux
outputs = Outputs.open(["table"], print)
outputs.start()
for _ in range(600):
    outputs.offer([document()])
    time.sleep(0.05)
"""


def test_table_on_a_real_terminal() -> None:
    """Coloured, unless NO_COLOR is set, and fitted to the window, also once that is narrower."""
    program = [sys.executable, "-c", TABLE.format(root=str(Path(__file__).parents[3]))]

    def narrow(text: str) -> bool:
        rows = [line for line in text.splitlines() if "python3" in line]
        return len(rows) > 5 and all("10.0.0.2:9000" in line and len(line) <= 70 for line in rows[-3:])

    with Tmux(130, 20) as terminal:
        terminal.command(*program)
        terminal.wait(lambda text: text.count("10.0.0.2:9000") > 5)
        assert "INTERRUPTED" in terminal("capture-pane", "-p", "-S", "-")
        assert "\x1b[3" in terminal.coloured()
        assert not narrow(terminal.text())
        terminal.resize(70, 20)
        terminal.wait(narrow)
        terminal.type("C-c")
    with Tmux(130, 20) as terminal:
        terminal.command("env", "NO_COLOR=1", *program)
        terminal.wait(lambda text: text.count("10.0.0.2:9000") > 5)
        assert "\x1b[3" not in terminal.coloured()


def test_outputs_are_replaced_while_events_go_on(said: list[str], tmp_path: Path) -> None:
    """Each event is in the outputs of its time, none is lost, and what stays is opened anew."""
    a, b, c = (f"file:{tmp_path}/{name}" for name in "abc")
    every = Outputs.open([a, b], said.append)
    every.start()
    every.offer(numbered(0))
    every.replace([b, c])
    every.offer(numbered(1))
    every.replace([f"{c},keep=9", "unix:" + str(tmp_path / "s")])  # the same file, with another key
    every.offer(numbered(2))
    every.close()
    found = {name: [json.loads(line)["seq"] for line in (tmp_path / name).read_text().splitlines()] for name in "abc"}
    assert found == {"a": [0], "b": [0, 1], "c": [1, 2]}
    assert all(row["offered"] == row["written"] for row in every.report())
    assert sum(row["written"] for row in every.report()) == 6
    assert not said


def test_a_gap_says_whose_it_is(said: list[str], tmp_path: Path) -> None:
    """By the name that events bear, also in outputs that were opened since."""
    names = ("a", "b")
    specs = [f"unix:{tmp_path}/{name},buffer=1" for name in names]  # room for no event
    every = Outputs.open(specs[:1], said.append)
    every.name_host("node-7")
    every.start()
    every.replace(specs)
    readers = [connect(tmp_path / name) for name in names]
    for sink in every._sinks:
        assert isinstance(sink.output, Unix)
        accepted(sink.output, 1)
    every.offer(numbered(0, 1))
    every.close()
    for reader in readers:
        with reader, reader.makefile("rb") as file:
            gaps = [json.loads(line) for line in file]
        assert sum(gap["dropped"] for gap in gaps) == 2
        assert {gap["host"] for gap in gaps} == {"node-7"}


@pytest.mark.parametrize("wrong", ["file:/no/such/directory/x", "pipe", "unix:{0},mode=x", "file:{0}/a,keep=x"])
def test_outputs_that_cannot_be_opened_change_nothing(said: list[str], tmp_path: Path, wrong: str) -> None:
    every = Outputs.open([f"file:{tmp_path}/a"], said.append)
    every.start()
    every.offer(numbered(0))
    with pytest.raises((UsageError, OutputError)):
        every.replace([f"file:{tmp_path}/b", wrong.format(tmp_path)])
    every.offer(numbered(1))
    every.close()
    assert [json.loads(line)["seq"] for line in (tmp_path / "a").read_text().splitlines()] == [0, 1]
