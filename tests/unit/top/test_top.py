"""`sockpid top` without a kernel: what it counts, what keys change, what a screen of a size shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from sockpid.cli import top
from sockpid.top import columns, state, view
from sockpid.top.model import LEVELS, Model, Owner, document
from sockpid.top.screen import decode
from sockpid.top.state import State
from tests import browser, streams
from tests.terminal import Tmux

ROOT = Path(__file__).parents[3]
TOP = [sys.executable, "-I", "-S", str(ROOT / "runtime"), "top"]
NOW = view.Now("12:00:00", streams.START_NS + 10**9, 1.0, "live", "node-1")


def event(pid: int = 1, *, sport: int = 1000, daddr: str = "10.0.0.2", **changes: object) -> dict[str, object]:
    at = {"pid": pid, "start_ns": pid * 7, "comm": f"p{pid}", "sport": sport, "daddr": daddr, "ts_ns": streams.START_NS}
    return streams.document(**{**at, **changes})


def filled(*events: dict[str, object], **settings: int) -> Model:
    model = Model(**settings)
    for one in events:
        model.add(one)
    return model


def screen(model: Model, chosen: State, width: int = 120, height: int = 30) -> list[str]:
    place = chosen.place
    rows = chosen.arrange(model.rows(place.level, NOW.ns, place.owner, place.peer))
    lines = view.screen(model, chosen, rows, NOW, width, height)
    return ["".join(text for text, _ in line) for line in lines]


def press(model: Model, chosen: State, *keys: str) -> None:
    for key in keys:
        place = chosen.place
        chosen.press(key, chosen.arrange(model.rows(place.level, NOW.ns, place.owner, place.peer)), 10)


def test_sums_are_the_same_on_every_level() -> None:
    events = [event(pid, sport=1000 + n, daddr=f"10.0.1.{n % 3}") for pid in (1, 2) for n in range(5)]
    model = filled(*events, *events[:3], streams.unknown(), {"schema": 1, "ts_ns": 1, "dropped": 4})
    assert (model.events, model.unknown, model.missing) == (14, 1, 4)
    for level in ("owners", "sockets", "peers"):
        rows = model.rows(level, NOW.ns)
        assert sum(row.events for row in rows) == 14
        assert all(sum(row.kinds) == row.events for row in rows)
    by_pid = {row.pid: row for row in model.rows("owners", NOW.ns)}
    assert {pid: (row.events, row.sockets, row.peers) for pid, row in by_pid.items()} == {
        1: (8, 5, 3), 2: (5, 5, 3), None: (1, 1, 1),
    }  # fmt: skip
    assert by_pid[1].octets == 8 * 1448
    one = model.rows("sockets", NOW.ns, owner=Owner("node-1", 1, 7, ""))
    assert sorted(row.events for row in one) == [1, 1, 2, 2, 2]
    assert sum(row.events for row in model.rows("sockets", NOW.ns, peer="10.0.1.0")) == 5


def test_a_reused_pid_is_another_owner() -> None:
    model = filled(event(1), event(1, start_ns=8), event(1, host="node-2"))
    assert len(model.rows("owners", NOW.ns)) == 3


@pytest.mark.parametrize("starts", [(50_000_000, 51_234_567, 50_000_000), (51_234_567, 50_000_000, 51_234_567)])
def test_a_start_to_the_tick_and_the_exact_one_are_of_one_owner(starts: tuple[int, ...]) -> None:
    model = filled(*(event(1, start_ns=start) for start in starts), event(1, start_ns=60_000_000))
    assert sorted(row.events for row in model.rows("owners", NOW.ns)) == [1, 3]


def test_an_uncertain_owner_is_marked() -> None:
    made = event(1, certain=False, doubt="missed")
    shown = screen(filled(made), State())
    assert any(" 1? " in line for line in shown)
    assert not any("? " in line.split("LABELS")[0] for line in screen(filled(event(1)), State())[6:-1])
    socket = State()
    press(filled(made), socket, "tab", "enter")
    assert any("p1[1] (uncertain: missed)" in line for line in screen(filled(made), socket))


def test_memory_is_bounded_and_sums_stay_right() -> None:
    model = filled(*(event(n % 50, sport=n % 60000, ts_ns=streams.START_NS + n) for n in range(5000)), max_sockets=100)
    rows = model.rows("owners", NOW.ns)
    assert len(model._flows) <= 200
    assert sum(row.events for row in rows) + model.forgotten == model.events == 5000
    assert len(rows) == 50


def test_old_events_weigh_less() -> None:
    model = filled(*(event(1) for _ in range(10)), event(2, ts_ns=streams.START_NS + 30 * 10**9))
    rates = {row.pid: row.per_second for row in model.rows("owners", streams.START_NS + 30 * 10**9)}
    assert rates[1] < 0.01
    assert rates[2] > 0.1


@pytest.mark.parametrize("name", state.SORTS)
def test_every_sort_orders_by_its_column(name: str) -> None:
    events = [
        event(n, sport=9000 + n, srtt_us=n * 10, end_seq=100 + n, ts_ns=streams.START_NS + n) for n in range(1, 6)
    ]
    model = filled(*(e for n, e in enumerate(events) for _ in range(n + 1)))
    chosen = State()
    press(model, chosen, state.SORTS[name].key)
    if name == "rate":  # it was chosen already: the key turned it round
        assert chosen.reverse
        press(model, chosen, "s")
    values = [state.SORTS[name].value(row) for row in chosen.arrange(model.rows("owners", NOW.ns))]
    assert values == sorted(values, reverse=not state.SORTS[name].up)
    press(model, chosen, "r")
    assert [state.SORTS[name].value(row) for row in chosen.arrange(model.rows("owners", NOW.ns))] == values[::-1]


def test_the_lists_of_the_command_line_are_those_of_the_screen() -> None:
    assert tuple(state.SORTS) == top.SORTS
    assert top.LEVELS == LEVELS


def test_down_into_an_owner_and_back_with_the_cursor_where_it_was() -> None:
    model = filled(*(event(pid, sport=n) for pid in (1, 2, 3) for n in range(1, pid * 2)))
    chosen = State(sort="pid")
    press(model, chosen, "down", "enter")
    assert chosen.place.owner == Owner("node-1", 2, 14, "")
    shown = screen(model, chosen)
    assert any("p2 [2]:" in line for line in shown)
    assert sum("10.0.0.1:" in line for line in shown) == 3
    press(model, chosen, "tab")
    assert sum("10.0.0.2 " in line for line in screen(model, chosen)) == 1
    press(model, chosen, "enter", "enter")
    shown = screen(model, chosen)
    assert any("connection" in line and "10.0.0.1:" in line for line in shown)
    assert any("interrupted" in line and "no part in this" in line for line in shown)
    press(model, chosen, "escape", "escape", "escape")
    screen(model, chosen)
    assert (chosen.place.owner, chosen.cursor) == (None, 1)


def test_the_cursor_stays_on_its_row_when_others_overtake() -> None:
    model = filled(event(1), event(1), event(2))
    chosen = State()
    press(model, chosen, "down")
    for _ in range(5):
        model.add(event(2))
    rows = chosen.arrange(model.rows("owners", NOW.ns))
    assert (rows[chosen.cursor].pid, chosen.cursor) == (2, 0)


def test_a_filter_is_typed_applied_and_taken_away() -> None:
    model = filled(event(1, comm="train"), event(2, comm="nginx", labels={"env": {"RANK": "3"}}), streams.unknown())
    chosen = State()
    press(model, chosen, "/", "n", "g", "x", "backspace")
    assert screen(model, chosen)[-1].startswith(" filter: ng_")
    press(model, chosen, "enter")
    assert [row.pid for row in chosen.arrange(model.rows("owners", NOW.ns))] == [2]
    for words, pids in (("rank=3", [2]), ("10.0.0.2 TRAIN", [1]), ("older-than", [None]), ("nothing", [])):
        chosen.filter = words
        assert [row.pid for row in chosen.arrange(model.rows("owners", NOW.ns))] == pids
    assert any("nothing meets the filter" in line for line in screen(model, chosen))
    press(model, chosen, "escape")
    assert len(chosen.arrange(model.rows("owners", NOW.ns))) == 3


def test_q_quits_but_not_while_a_filter_is_typed() -> None:
    model, chosen = filled(event()), State()
    press(model, chosen, "/", "q")
    assert (chosen.editing, chosen.done) == ("q", False)
    press(model, chosen, "escape", "?", "q")
    assert chosen.done


@pytest.mark.parametrize("size", [(20, 8), (40, 10), (80, 24), (100, 30), (132, 50), (300, 100)])
@pytest.mark.parametrize("keys", [[], ["tab"], ["tab", "tab"], ["enter"], ["enter", "enter"], ["?"], ["/"], ["p"]])
def test_every_screen_has_its_size(size: tuple[int, int], keys: list[str]) -> None:
    v6 = {"saddr": "2001:db8:1111:2222:3333:4444:5555:6666", "daddr": "2001:db8::1", "family": "inet6"}
    model = filled(*(event(n, sport=n, **v6) for n in range(1, 120)), streams.unknown())
    chosen = State()
    press(model, chosen, *keys)
    lines = screen(model, chosen, *size)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]


def test_help_is_whole_on_a_small_terminal() -> None:
    chosen = State()
    press(filled(), chosen, "?")
    shown = screen(filled(), chosen, 80, 24)
    assert [line.strip() for line in shown[5:-1]][: len(view.HELP.splitlines())] == [
        line.strip() for line in view.HELP.splitlines()
    ]


def test_columns_that_have_no_room_are_left_out_whole() -> None:
    model = filled(event(4711, comm="trainer"))
    titles = {width: next(line for line in screen(model, State(), width) if "OWNER" in line) for width in (60, 80, 140)}
    assert "RETR/S" in titles[60]
    assert "PEERS" in titles[140]
    assert "PEERS" not in titles[60]
    row = next(line for line in screen(model, State(), 60) if "trainer" in line)
    assert "4711" in row


def test_labels_are_whole_or_not_there() -> None:
    """What tells the ranks of a job apart goes before less common numbers."""
    plain, labelled = filled(event(1)), filled(event(1, labels={"env": {"RANK": "17", "JOB": "train"}}))
    for width in range(40, 200):
        shown = "\n".join(screen(labelled, State(), width))
        assert ("RANK" in shown) == ("LABELS" in shown) == ("RANK=17 JOB=train" in shown)
        assert "LABELS" not in "\n".join(screen(plain, State(), width))
    assert "RANK=17" in "\n".join(screen(labelled, State(), 110))
    assert "OTHER" in "\n".join(screen(plain, State(), 120))


def test_what_a_process_calls_itself_does_not_reach_the_terminal() -> None:
    evil = "\x1b[31mroot"
    model = filled(event(1, comm=evil, labels={"env": {"RANK": "\x1b]0;x\x07"}}))
    for keys in ([], ["enter"], ["enter", "enter"]):
        chosen = State()
        press(model, chosen, *keys)
        assert not any("\x1b" in line or "\x07" in line for line in screen(model, chosen))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.421, "0.42"),
        (17.32, "17.3"),
        (4711, "4711"),
        (12345, "12.3k"),
        (999_600, "1.00M"),
        (1.2e9, "1.20G"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert columns.number(value) == shown


def test_keys_of_terminals() -> None:
    assert decode("q\x1b[A\x1bOB\x1b[5~\r\t\x7fé\x1b") == [
        "q", "up", "down", "pageup", "enter", "tab", "backspace", "é", "escape",
    ]  # fmt: skip
    assert decode("\x1b[1;5Cx") == ["x"]  # one that means nothing here


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("top") / "events.jsonl"
    events = streams.Cluster(1, ranks=4).events(300, seconds=30)
    path.write_text("".join(json.dumps(one) + "\n" for one in events) + "no event\n")
    return path


def run(*arguments: str, status: int = 0, stdin: bytes | None = None) -> tuple[str, str]:
    done = subprocess.run([*TOP, *arguments], input=stdin, capture_output=True, check=False, timeout=30)
    assert done.returncode == status, done
    return done.stdout.decode(), done.stderr.decode()


def test_without_a_terminal_a_recording_becomes_lines(recorded: Path) -> None:
    shown, _ = run("--events", str(recorded), "--interval", "10", "--rows", "2")
    snapshots = [line for line in shown.splitlines() if " retransmits, " in line]
    assert len(snapshots) == 3
    assert "300 retransmits" in snapshots[-1]
    assert "1 lines are no events" in snapshots[-1]
    assert shown.count("OWNER") == 3
    assert "\x1b" not in shown


def test_snapshots_as_json(recorded: Path) -> None:
    for level in top.LEVELS:
        shown, _ = run("--events", str(recorded), "--interval", "10", "--json", "--by", level, "--rows", "1000")
        snapshots = [json.loads(line) for line in shown.splitlines()]
        assert [s["schema"] for s in snapshots] == [1, 1, 1]
        assert sum(row["events"] for row in snapshots[-1][level]) == snapshots[-1]["events"] == 300
        assert abs(snapshots[-1]["per_second"] - 10) < 0.5


def test_from_standard_input(recorded: Path) -> None:
    shown, _ = run("--events", "-", "--interval", "60", stdin=recorded.read_bytes())
    assert "300 retransmits" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--events", "/no/such/file"], "No such file"),
        (["--events", "/dev/null"], "no events in /dev/null"),
        (["--events", "/dev/null", "--pid", "1"], "use --filter"),
        (["--speed", "2"], "--speed is for --events"),
        (["--interval", "0"], "at least 0.1"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    assert said in run(*arguments, status=2)[1]


def test_snapshot_document_has_a_schema() -> None:
    model = filled(event())
    model.tick()
    told = document(model.rows("sockets", NOW.ns), "sockets", model, NOW.ns, 2.0)
    assert (told["per_second"], told["sockets"][0]["dport"], told["sockets"][0]["pid"]) == (0.5, 9000, 1)


@pytest.fixture
def terminal() -> Iterator[Tmux]:
    with Tmux(130, 30) as made:
        yield made


def test_on_a_real_terminal(chromium: Browser, terminal: Tmux, recorded: Path, tmp_path: Path) -> None:
    """Keys, resizing, pause and end; afterwards the terminal is as it was."""
    terminal.command("echo", "before")
    terminal.command("sh", "-c", f"stty -g > {tmp_path}/before")
    terminal.command(*TOP, "--events", str(recorded), "--speed", "10")
    shown = terminal.wait("THE END")
    assert "300 retransmits" in shown
    assert "before" not in shown  # another screen
    for rank in range(4):
        assert f"RANK={rank}" in shown
    terminal.type("/")
    terminal.command("rank=2")
    terminal.wait(lambda text: "RANK=2" in text and "RANK=1" not in text)
    terminal.type("Enter")
    shown = terminal.wait("REMOTE")
    assert "python3 [4002]:" in shown
    terminal.type("Escape")
    terminal.wait(lambda text: "OWNER" in text and "filter: rank=2" in text)
    terminal.type("Escape")
    terminal.wait("RANK=1")
    terminal.resize(60, 15)
    narrow = terminal.wait(lambda text: "SOCKETS" not in text and "OWNER" in text)
    assert max(map(len, narrow.splitlines())) <= 60
    terminal.resize(130, 30)
    terminal.wait("SOCKETS")
    terminal.type("p")
    terminal.wait("PAUSED")
    terminal.type("?")
    terminal.wait("a timer ran out")
    terminal.type("x")
    with browser.open_page(chromium, terminal.page(tmp_path / "top.html")) as page:
        assert page.locator("pre").inner_text().count("python3") >= 4
    terminal.type("q")
    terminal.wait("before")
    terminal.command("sh", "-c", f"stty -g > {tmp_path}/after; echo done")
    terminal.wait("done\n")
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text() != ""


def test_a_kill_and_a_stop_leave_the_terminal_as_it_was(terminal: Tmux, recorded: Path) -> None:
    terminal.command("echo", "before")
    terminal.command(*TOP, "--events", str(recorded))
    terminal.wait("retransmits")
    terminal.type("C-z")
    terminal.wait("before")
    terminal.command("fg")
    terminal.wait("retransmits")
    terminal.type("C-c")
    terminal.wait("before")
    assert terminal("display-message", "-p", "#{cursor_flag} #{alternate_on}").split() == ["1", "0"]
