"""The pictures of docs/bench.md: small, and the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .targets import Json, added, right

OURS, THEIRS = "#c0392b", "#7f8c8d"


def draw(vm: Json, directory: Path) -> None:
    start = {name: row["cpu_s"] * 1000 for name, row in vm.get("start", {}).items() if "cpu_s" in row}
    _bars(
        directory / "start.svg",
        "million instructions from exec until attached",
        sorted(start.items(), key=_value),
        log=True,
    )
    send = {name: cost for name in vm.get("send", {}) if (cost := added(vm, name, "cork")) is not None}
    _bars(directory / "send.svg", "instructions added to a write of 64 bytes", sorted(send.items(), key=_value))
    tools = dict.fromkeys(tool for play in vm.get("pids", {}).values() for tool in play.get("tools", {}))
    shares = {tool: share for tool in tools if (share := right(vm, tool)) is not None}
    _bars(
        directory / "pids.svg",
        "right PIDs, % of events over all scenarios",
        sorted(shares.items(), key=_value, reverse=True),
    )


_value: Callable[[tuple[str, float]], float] = lambda item: item[1]  # noqa: E731 - a key


def _bars(path: Path, title: str, rows: Sequence[tuple[str, float]], log: bool = False) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "sockpid", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 0.4 + 0.28 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        names = [name for name, _ in rows]
        colours = [OURS if name.startswith("sockpid") else THEIRS for name in names]
        bars = axes.barh(names, [value for _, value in rows], color=colours)
        axes.bar_label(bars, labels=[f"{value:,.0f}" for _, value in rows], padding=2)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
        if log:
            axes.set_xscale("log")
        figure.savefig(path, metadata={"Date": None})
