"""What argparse is told of the whole command line: for help, and where the words are not plain."""

from __future__ import annotations

import argparse

from sockpid import __version__
from sockpid.pins import status

from . import run, top
from .parents import Help, common

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

GRAPH_EPILOG = """\
examples:
  sockpid run --json --duration 60 > node-1.jsonl      on each host
  sockpid graph node-*.jsonl -o graph.html             one page, to be opened in a browser
  sockpid graph a=host-a.jsonl b=host-b.jsonl.gz       hosts by other names
  sockpid graph events.jsonl -o graph.dot; dot -Tsvg graph.dot

Where addresses are translated on the way (NAT) the two ends of a connection do not find each other."""


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
    run.add(commands, parent)
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
