"""The command line: what is done with what was asked, and how errors leave."""

from __future__ import annotations

import os
import sys

from sockpid.errors import BundleError, SockpidError, UsageError

from . import run as cli_run
from .arguments import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional


def _demand_signature(keyring: str) -> None:
    from sockpid import data
    from sockpid.bundle import signature
    from sockpid.host.process import run

    archive, content = data.archive(), data.content()
    if _standalone():
        archive = sys.executable
        with open(archive, "rb") as file:
            content = file.read()
    if archive is None or content is None:
        raise BundleError("--require-signature: sockpid does not run from a bundle, so there is nothing that is signed")
    signature.verify(archive, content, keyring, run)


def _standalone() -> bool:
    """Whether this is a program with a Python of its own (`sockpid-gen bundle --standalone`)."""
    return bool(getattr(sys, "frozen", False))


def _install(arguments: Namespace) -> int:
    from sockpid.deploy import install
    from sockpid.manual.commands import commands

    from .parser import parser

    if _standalone():
        raise UsageError(
            f"{arguments.command} is for bundles, run by the host's Python; a standalone program is one file to copy"
        )
    root = os.path.abspath(arguments.root)
    python = "/usr/bin/python3"
    if arguments.command == "install":
        python = arguments.python or (root == "/" and sys.executable) or python
    place = install.Place(root, "/" + arguments.prefix.strip("/"), python)
    if arguments.command == "uninstall":
        return install.uninstall(place)
    return install.install(place, commands(parser()), arguments.start)


def _request(as_codes: bool) -> int:
    from .survey import survey

    text = survey().text
    if not as_codes:
        print(text, end="")
        return 0
    import shutil

    from sockpid.request.codes import codes

    if "utf" not in (sys.stdout.encoding or "").lower():
        raise UsageError(f"--qr: QR codes take a UTF-8 terminal, and this one is {sys.stdout.encoding} (see LC_ALL)")
    print("\n".join(codes(text, shutil.get_terminal_size((120, 60)).columns, sys.stdout.isatty())))
    print("sockpid: what is read of all codes goes into one file, for `sockpid-gen fulfil`", file=sys.stderr)
    return 0


def _command_at(words: List[str]) -> int:
    """Where among the words of the command line `run` stands as a command: not as the name of a keyring."""
    at = words.index("run")
    if at and words[at - 1].startswith("--r") and "=" not in words[at - 1]:
        at = words.index("run", at + 1)
    return at


def _arguments(words: List[str]) -> Namespace:
    """`run`, which has to be quick, is read without argparse where its words are plain."""
    found = cli_run.read(words[1:]) if words[:1] == ["run"] else None
    if found is not None:
        return found
    from .parser import parser

    return parser().parse_args(words)


def main(argv: Optional[List[str]] = None) -> int:
    """Runs a command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _arguments(words)
    try:
        if arguments.require_signature is not None:
            _demand_signature(arguments.require_signature)
        if arguments.command in ("install", "uninstall"):
            return _install(arguments)
        if arguments.command == "lookup":
            from sockpid.pins.lookup import lookup
            from sockpid.pins.pin import DIRECTORY

            ends = arguments.source, arguments.destination
            return lookup(*ends, arguments.netns, arguments.pin or DIRECTORY, arguments.all, arguments.json)
        if arguments.command == "status":
            from sockpid.pins import status

            return status.execute(arguments)
        if arguments.command == "graph":
            from .graph import graph

            if arguments.max_edges < 1:
                raise UsageError("--max-edges must be at least 1")
            return graph(arguments.events, arguments.output, arguments.format, arguments.json, arguments.max_edges)
        if arguments.command == "run":
            return cli_run.execute(arguments, words[_command_at(words) + 1 :])
        if arguments.command == "top":
            from . import top

            return top.execute(arguments)
        from . import shared

        options = shared.options(arguments)
        if arguments.command == "calibrate":
            from sockpid.calibrate.calibrate import calibrate

            return calibrate(options, arguments.output, arguments.json)
        if arguments.command == "selftest":
            from sockpid.selfcheck.selftest import selftest

            return selftest(options, arguments.offsets, arguments.json)
        if arguments.qr and not arguments.request:
            raise UsageError("--qr is for --request: sockpid doctor --request --qr")
        if arguments.request:
            return _request(arguments.qr)
        from .doctor import doctor

        return doctor(options, arguments.offsets, arguments.json)
    except SockpidError as error:
        print(f"sockpid: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone; Python would complain of it at exit
        return 0
    except OSError as error:  # output: a full disk
        import contextlib

        with contextlib.suppress(OSError):
            sys.stdout.close()  # else Python tries again at exit
        print(f"sockpid: {error}", file=sys.stderr)
        return 1
