"""`sockpid calibrate`: finds the offsets of the running kernel by looking at objects of our own whose values are known.

The last resort, where there is no table, no BTF and nobody who could make either. Each step makes objects, has their
memory copied (peek.py) and notes as samples what is known of them; calibration.py looks for the one place that fits all
samples. What C guarantees is used: struct sock begins with struct sock_common, so does struct request_sock; struct
tcp_skb_cb begins with seq; struct pt_regs is part of the user space interface.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Callable, Dict, Optional

from sockpid import __version__, whole_file
from sockpid.errors import CalibrationError, UsageError
from sockpid.host import kernel, proc
from sockpid.offsets import calibration, kept, offsets
from sockpid.offsets.source import Offsets, no_id, unused
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer, load_image
from sockpid.selfcheck import selfcheck
from sockpid.subjects import workers
from sockpid.subjects.peek import Peek
from sockpid.table import table, writer
from sockpid.table.layout import Layout

from .findings import Findings
from .kern import find_kern
from .sock import Sockets
from .task import find_task
from .tcp import find_retransmitting, find_segment


def calibrate(options: Options, output: Optional[str], as_json: bool) -> int:
    """Finds all that the image reads, proves it by the self-check, and writes a table file.

    Raises CalibrationError naming what was not found, SelfCheckError if the finding is wrong; nothing is written then.
    """
    identity = kernel.identify()
    path = output or f"{identity.release}-calibrated.json"
    image = load_image(identity.arch.byte_order)
    if not proc.in_initial_pid_namespace():
        raise UsageError("a calibration needs the host's process ids; start it outside of the container")

    def say(line: str) -> None:
        if not as_json and sys.stderr.isatty():
            print(f"sockpid: {line}", file=sys.stderr)

    findings = Findings(identity.arch)
    if options.take_signals is not None:
        options.take_signals()
    with Peek(options.deny) as peek:
        run(findings, peek, say)
    found = findings.layout()
    layout = calibration.complete(found, unused())
    calibration.demand(image, identity.arch, layout, findings.problems)
    say("self-check")
    with Tracer.open_with(options, identity, image, Offsets(layout, "calibrated", path, no_id)) as tracer:
        skipped = selfcheck.demand(selfcheck.run(tracer), True)
    content = encode(identity, found)
    write(path, content)
    kept.write(image, identity, found, {"kind": "calibrated", "source": "running kernel"})
    absent = sorted(set(image.missing(identity.arch, found)))
    fields = sum(len(getattr(row, "fields", ())) for row in found.values())
    if as_json:
        document: Dict[str, Any] = {"schema": 1, "file": path, "release": identity.release, "fields": fields}
        print(json.dumps({**document, "not_found": absent, "not_checked": skipped}))
        return 0
    print(f"wrote {path}: {fields} fields found, and proven by the self-check")
    for name in absent:
        print(f"not found, and not needed on this host: {name}")
    print(f"use it with `sockpid run --offsets {path}`, or put it into {offsets.LOCAL}/")
    return 0


def run(findings: Findings, peek: Peek, say: Callable[[str], None] = lambda _: None) -> None:
    """All steps. Raises CalibrationError if the host does not let us make the objects."""
    with contextlib.ExitStack() as stack:
        children = workers.children(stack, 2)
        thread = workers.Thread()  # after the forks, which copy no thread
        stack.callback(thread.close)
        sockets = Sockets(findings, peek)
        try:
            say("looking at sockets")
            sockets.run(stack, children)
            find_kern(findings, sockets, children, stack)
            say("looking at tasks")
            find_task(findings, peek, children, thread)
            say("looking at retransmits")
            find_retransmitting(findings, peek, sockets.connect)
            find_segment(findings, peek, sockets.connect)
        except OSError as error:
            raise CalibrationError(f"the sockets to look at could not be made: {error}", []) from error


def encode(identity: kernel.Identity, layout: Layout) -> bytes:
    """The table file of what was found."""
    entry = {
        "build_id": identity.build_id,
        "release": identity.release,
        "banner": identity.banner.rstrip(),
        "distribution": None,
        "btf_ids": None,
        "provenance": {
            "kind": "calibrated",
            "source": "running kernel",
            "sha256": None,
            "tools": {"sockpid": __version__},
        },
    }
    document = writer.empty(identity.arch.name, table.series_of(identity.release), f"sockpid {__version__}")
    writer.add(document, entry, layout)
    return writer.encode(document)


def write(path: str, content: bytes) -> None:
    """Replaces a file whole. Raises UsageError where it cannot be written."""
    try:
        whole_file.write(path, content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
