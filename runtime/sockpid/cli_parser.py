"""What argparse is told of the whole command line: for help, and where the words are not plain."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from typing import Any

from . import __version__, arguments, cli_run, cli_shared, status
from .top import command as top

DESCRIPTION = """\
Says which process really owns a TCP socket when the kernel retransmits for it.

In softirq context the current process is whatever the timer interrupted; common tools print that. sockpid remembers who
used the socket and looks it up; where it does not know, it says so and why."""

EPILOG = """\
examples:
  sockpid run                       print retransmits with their owners until Ctrl-C
  sockpid run --json --duration 60  one JSON object a line, for a minute
  sockpid top                       the same on a screen: who, how often, to whom
  sockpid selftest                  prove on this host that every field and PID is right
  sockpid lookup 10.0.0.1:80        who owns this end? (from a running `sockpid run --pin`)
  sockpid status                    how does the running instance do?
  sockpid graph *.jsonl -o g.html   who retransmits to whom, over many hosts, and who stands out
  sockpid doctor                    what this kernel offers, and what sockpid uses of it
  sockpid doctor --request          what a connected machine must know to make offsets for this kernel
  sockpid calibrate                 find the offsets here, where that is not possible
  sockpid install --start           from a bundle: install it, and run it as a service

exit status:
  0 fine   2 usage   3 capability missing   4 kernel unknown   5 table damaged   6 schema unknown   7 BTF damaged
  8 self-check mismatch   9 program refused   10 nothing to attach to   11 architecture unknown   12 image damaged
  13 table of another kernel   16 bundle damaged   17 not installed   18 output not opened
  19 offsets not found by calibration   1 anything else that the kernel refused"""

RUN_EPILOG = """\
examples:
  sockpid run
  sockpid run --json | jq 'select(.pid == 4711)'
  sockpid run --labels --label-env RANK,LOCAL_RANK
  sockpid run --output table --output file:/var/log/sockpid.jsonl,size=100M,keep=7
  sockpid run --output prometheus:127.0.0.1:9469,labels=kind+comm+env.RANK --label-env RANK
  sockpid run --output otlp:http://127.0.0.1:4318,queue-dir=/var/lib/sockpid/otlp
  sockpid run --offsets ./my-kernel.json --duration 10
  sockpid run --config                    as a service does: options from /etc/sockpid/config.toml (docs/operation.md)

outputs (any number; docs/outputs.md says more):
  table | json                  on standard output (default: table, with --json: json)
  file:PATH                     JSON lines; size=64M age=7d keep=5 mode=0640; SIGHUP opens it anew
  unix:PATH                     JSON lines to all readers of a socket; mode=0600 buffer=4M
  syslog[:/dev/log]             RFC 5424; facility=daemon
  journald[:SOCKET]             fields SOCKPID_PID=...
  prometheus[:ADDRESS:PORT]     GET /metrics (127.0.0.1:9469); labels=kind+comm series=1000
  otlp[:URL]                    OTLP/HTTP in JSON (http://127.0.0.1:4318); signals=logs+metrics labels=kind+comm
                                interval=15s queue-dir=DIR queue-size=64M compress=gzip ca=FILE timeout=10s
  each: queue=65536             events that may wait for it; more are dropped, and counted per output

The column INTERRUPTED is the process that happened to run when the kernel retransmitted: what a tool without an owner
map would have printed."""

GRAPH_EPILOG = """\
examples:
  sockpid run --json --duration 60 > node-1.jsonl      on each host
  sockpid graph node-*.jsonl -o graph.html             one page, to be opened in a browser
  sockpid graph a=host-a.jsonl b=host-b.jsonl.gz       hosts by other names
  sockpid graph events.jsonl -o graph.dot; dot -Tsvg graph.dot

Where addresses are translated on the way (NAT) the two ends of a connection do not find each other."""


class Help(argparse.RawDescriptionHelpFormatter):
    """As its base, but for the width: argparse asks shutil for it at each option, which imports compressors.

    Sentences are wrapped; examples, which are indented, stay as they are.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        lines = (textwrap.wrap(line, width) if line[:1].isupper() else [line] for line in text.splitlines())
        return "\n".join(indent + part for whole in lines for part in whole)


@functools.lru_cache(None)
def _columns() -> int:
    """Of the terminal, as shutil.get_terminal_size() would have it."""
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
        if columns > 0:
            return columns
    with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or no terminal
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr] # suppressed
    return 80


def common() -> argparse.ArgumentParser:
    """Of every command that attaches the probe; a parent for its parser."""
    parent = argparse.ArgumentParser(add_help=False, formatter_class=Help)
    arguments.add(parent, cli_shared.COMMON)
    return parent


def add_run(commands: Any, parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds `run` to the parser of all; returns its own."""
    run: argparse.ArgumentParser = commands.add_parser(
        "run",
        parents=[parent],
        formatter_class=Help,
        help="print retransmits with their owners",
        description="Prints each TCP retransmit with the process that owns the socket. Before the first line a "
        "self-check proves the offsets on sockets of its own; what happens meanwhile is kept.",
        epilog=RUN_EPILOG,
    )
    arguments.add(run, cli_run.RUN)
    add_filters(run)
    return run


def add_filters(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser.add_argument_group("filters", "only events that meet all of them"), cli_shared.FILTERS)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    raw = Help
    whole = argparse.ArgumentParser(prog="sockpid", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    whole.add_argument("--version", action="version", version=f"sockpid {__version__}")
    whole.add_argument(
        "--require-signature",
        metavar="KEYRING",
        help="refuse to run unless the bundle is signed (FILE.sig) by one of these allowed signers (see ssh-keygen(1))",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    parent = common()
    add_run(commands, parent)
    top.add(commands, parent)
    status.add(commands, raw)
    commands.add_parser(
        "selftest",
        parents=[parent],
        formatter_class=raw,
        help="prove that every field and PID is right on this host",
        description="Makes sockets of its own retransmit on loopback (IPv4, IPv6, v4-mapped) and compares every field "
        "and the owner with what is known of them.",
        epilog="examples:\n  sockpid selftest\n  sockpid selftest --json --attach kprobe-pmu --deny live-btf",
    )
    lookup = commands.add_parser(
        "lookup",
        formatter_class=raw,
        help="ask a running instance who owns a connection",
        description="Tells the owner of a connection from the map that `sockpid run --pin` shares. Both ends in either "
        "order, or one end, or --all.",
        epilog="examples:\n  sockpid lookup 10.0.0.1:40034 10.0.0.2:9000\n  sockpid lookup '[::1]:443' --json\n"
        "  sockpid lookup --all\n\nexit status: 0 found, 1 not known, else as `sockpid --help` says",
    )
    lookup.add_argument("source", nargs="?", metavar="ADDRESS:PORT", help="one end")
    lookup.add_argument("destination", nargs="?", metavar="ADDRESS:PORT", help="the other end")
    lookup.add_argument("--all", action="store_true", help="every entry, of all network namespaces")
    lookup.add_argument("--netns", metavar="INODE|PATH|pid:N", help="in this network namespace (default: ours)")
    lookup.add_argument("--pin", metavar="DIR", help="where the instance pins (default: as `run --pin`)")
    lookup.add_argument("--json", action="store_true", help="one JSON object a line")
    graph = commands.add_parser(
        "graph",
        formatter_class=raw,
        help="merge recorded events of many hosts and find who stands out",
        description="Reads events that `run --json` or `--output file:` wrote, on any number of hosts, and merges both "
        "ends of each connection. Says who has more retransmits than the others would let expect, and why; draws it.",
        epilog=GRAPH_EPILOG,
    )
    graph.add_argument("events", nargs="+", metavar="EVENTS", help="FILE, FILE.gz, - or HOST=FILE")
    graph.add_argument("-o", "--output", metavar="FILE", help="write the graph there; - is standard output")
    graph.add_argument("--format", choices=("html", "json", "dot", "graphml"), help="(default: by FILE's ending)")
    graph.add_argument("--max-edges", type=int, default=5000, metavar="N", help="draw the N largest (default: 5000)")
    graph.add_argument("--json", action="store_true", help="say as JSON what is found")
    doctor = commands.add_parser(
        "doctor",
        parents=[parent],
        formatter_class=raw,
        help="tell what this kernel offers and what is used of it",
        description="Attaches the probe, tells how each hook was attached and why the better mechanisms were not, and "
        "detaches.",
        epilog="examples:\n  sockpid doctor\n  sockpid doctor --json --deny raw_tp\n"
        "  sockpid doctor --request > host.req   for `sockpid-gen fulfil` on a connected machine\n"
        "  sockpid doctor --request --qr         the same, to be photographed",
    )
    doctor.add_argument("--request", action="store_true", help="print what makes a table entry for this kernel instead")
    doctor.add_argument(
        "--qr", action="store_true", help="print the request as QR codes, for hosts that have no way out"
    )
    calibrate = commands.add_parser(
        "calibrate",
        parents=[parent],
        formatter_class=raw,
        help="find the offsets of a kernel that nothing is known of",
        description="Looks for the offsets in the memory of sockets and tasks of its own, whose values are known. What "
        "fits at two places is not accepted, and the self-check has to pass. Takes some seconds; all traffic stays on "
        "loopback, and nothing of the host is changed.",
        epilog="examples:\n  sockpid calibrate\n  sockpid calibrate -o /etc/sockpid/offsets.d/this-kernel.json",
    )
    calibrate.add_argument(
        "-o", "--output", metavar="FILE", help="table file to write (default: RELEASE-calibrated.json, here)"
    )
    place = argparse.ArgumentParser(add_help=False, formatter_class=raw)
    place.add_argument("--root", metavar="DIR", default="/", help="below this directory, for images (default: /)")
    place.add_argument("--prefix", metavar="DIR", default="/usr/local", help="within the root (default: %(default)s)")
    install = commands.add_parser(
        "install",
        parents=[place],
        formatter_class=raw,
        help="put the bundle in place, with a systemd unit, completion and manual",
        description="Puts the bundle that it runs from in place, with a hardened systemd unit, completion for bash, "
        "zsh and fish, and the manual page. All of it or nothing. Files of others are never touched.",
        epilog="examples:\n  python3 sockpid.pyz install --start\n  python3 sockpid.pyz install --root ./image "
        "--prefix /usr",
    )
    install.add_argument(
        "--python", metavar="PATH", help="what runs it there (default: this Python, or /usr/bin/python3)"
    )
    install.add_argument("--start", action="store_true", help="enable and start the service")
    commands.add_parser(
        "uninstall",
        parents=[place],
        formatter_class=raw,
        help="remove what install put in place",
        description="Removes exactly what was installed. A file that was changed since stays, and is named.",
        epilog="examples:\n  sockpid uninstall",
    )
    return whole
