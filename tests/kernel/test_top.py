"""`sockpid top` with real retransmits on a real terminal."""

from __future__ import annotations

import json
import os
import subprocess

from sockpid.subjects.deaf import Pair
from tests.kernel.conftest import RUNTIME, sockpid
from tests.terminal import Tmux


def test_it_shows_who_retransmits_now() -> None:
    pairs = [Pair("inet"), Pair("inet6")]
    try:
        with Tmux(140, 30) as terminal:
            terminal.command("sh", "-c", f"echo pid $$; exec {' '.join(RUNTIME)} top --pid {os.getpid()}")
            terminal.wait("no retransmit so far", 60)
            for pair in pairs:
                pair.send()
            shown = terminal.wait(lambda text: f" {os.getpid()} " in text and "retransmits" in text)
            assert "LIVE" in shown
            terminal.type("Enter")
            for pair in pairs:
                address = pair.tuple.saddr if pair.family == "inet" else f"[{pair.tuple.saddr}]"
                assert "ESTABLISHED" in terminal.wait(f"{address}:{pair.tuple.sport}")
            terminal.type("Enter")
            shown = terminal.wait("has no part in this")
            assert f"[{os.getpid()}], learnt by " in shown
            terminal.type("q")
            terminal.wait(lambda text: "sockpid top" not in text)
    finally:
        for pair in pairs:
            pair.close()


def test_snapshots_without_a_terminal() -> None:
    pair = Pair("inet")
    try:
        command = [*RUNTIME, "top", "--json", "--interval", "0.5", "--duration", "3", "--pid", str(os.getpid())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as top:
            assert top.stderr is not None
            said = ""
            while "offsets from" not in said:
                said = top.stderr.readline()
                assert said
            pair.send()
            shown, _ = top.communicate(timeout=30)
        snapshots = [json.loads(line) for line in shown.splitlines()]
        assert top.returncode == 0
        assert len(snapshots) >= 4
        (owner,) = snapshots[-1]["owners"]
        assert (owner["pid"], owner["events"]) == (os.getpid(), snapshots[-1]["events"])
        assert owner["events"] >= 2
        assert any(snapshot["per_second"] > 0 for snapshot in snapshots)
    finally:
        pair.close()


def test_help_teaches_by_example() -> None:
    ran = sockpid("top", "--help")
    assert ran.status == 0
    assert "sockpid top --events events.jsonl" in ran.stdout
