"""`sockpid status`: how the instance does that pins in a directory."""

from __future__ import annotations

import argparse
import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

NOT_RUNNING = 1

EPILOG = """\
examples:
  sockpid status
  sockpid status --json | jq .lost
  sockpid status --pin /sys/fs/bpf/other

It asks the instance that runs with --pin (or --keep) in this directory; the service does.

exit status: 0 it runs, 1 it does not, 15 the directory is not to be trusted, else as `sockpid --help` says"""


def add(commands: Any, formatter: Any) -> None:
    """Adds the command to the parser of all. formatter: of its help."""
    status = commands.add_parser(
        "status",
        formatter_class=formatter,
        help="tell how the running instance does",
        description="Tells whether an instance runs, since when, with which hooks; its events, losses and outputs, and "
        "what was not seen at its last restart.",
        epilog=EPILOG,
    )
    status.add_argument("--pin", metavar="DIR", help="where the instance pins (default: as `run --pin`)")
    status.add_argument("--json", action="store_true", help="machine-readable output, keys stable between releases")


def execute(arguments: argparse.Namespace) -> int:
    from . import instance, pin

    directory = arguments.pin or pin.DIRECTORY
    running = pin.is_locked(directory)
    record = instance.read(directory)
    if arguments.json:
        print(json.dumps({"schema": instance.SCHEMA, "running": running, "directory": directory, **(record or {})}))
    else:
        print("\n".join(_lines(directory, running, record)))
    return 0 if running else NOT_RUNNING


def _lines(directory: str, running: bool, record: Optional[Dict[str, Any]]) -> List[str]:
    if record is None:
        return [f"starting       in {directory}" if running else f"not running    nothing pins in {directory}"]
    if not running:
        how = "ended" if record["state"] == "ended" else "was killed"
        kept = "owners are kept for the next" if record["kept"] else "no owner is kept"
        return [f"not running    pid {record['pid']} {how} {_ago(record['beat'])} ago; {kept}"]
    lines = [
        f"running        pid {record['pid']}, since {_moment(record['since'])} ({_ago(record['since'])}), sockpid "
        f"{record['version']}",
        f"last sign      {_ago(record['beat'])} ago",
        f"kernel         {record['kernel']}, build-id {record['build_id'] or '(none)'}",
        f"offsets        {record['offsets']['origin']}: {record['offsets']['source']}",
    ]
    for name, mechanism in (record["hooks"] or {}).items():
        lines.append(f"hook           {name:<10} {mechanism or 'not attached'}")
    if "told" in record:
        last = record["last_event_ns"]
        lines += [
            f"events         {record['told']} told, {record['unknown']} with unknown owner, last "
            f"{_ago(last / 1e9) + ' ago' if last else 'never'}",
            f"losses         {record['lost']} of {record['raised']} lost, {record['evicted']} owners evicted",
        ]
    if "confirmed" in record:
        lines += [
            f"checked        {record['confirmed']} owners confirmed, {record['contradicted']} contradicted, "
            f"{record['unchecked']} not checked",
            f"doubts         {record['uncertain']} owners uncertain, {record['missed']} runs of hooks passed over",
        ]
    for row in record.get("outputs") or []:
        lines.append(f"output         {row['output']}: {row['written']} written, {row['dropped']} dropped")
    lines.append(f"owners         {record['owners']} sockets, room for {record['max_sockets']}")
    why = record["why_not_kept"]
    anew = f"looks owners up anew: {why}" if why else "looks owners up anew (no --keep)"
    lines.append(f"restart        {'keeps owners' if record['kept'] else anew}")
    gap = record["gap"]
    if gap:
        told = f"{gap['unseen']} retransmits not seen, {gap['waiting']} told late"
        lines.append(f"last gap       {gap['seconds']} s before the start: {told}")
    return lines


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _ago(since: float) -> str:
    from .lookup import duration

    return duration(max(0, round(time.time() - since)))
