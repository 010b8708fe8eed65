"""One kernel of the matrix: a boot in which sockpid runs by each way of attaching, and what came of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sockpid import arch
from tests import truth

from . import cache, packages, tables
from .image import ImageError
from .kernels import MACHINE, Guest, Kernel
from .qemu import GuestError

Json = dict[str, Any]

SCRIPT = Path(__file__).parent / "guest" / "matrix.py"
WORKLOAD = cache.CHECKOUT / "tests" / "workload.py"
CONSOLES = cache.CHECKOUT / "build" / "lab"
SECONDS_PER_WAY = 180  # 32-bit ARM takes 60 in emulation on an idle host


class Way(NamedTuple):
    """A way to run sockpid. attach: the mechanism to prefer, "" for the best; deny: capabilities to do without."""

    attach: str = ""
    deny: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        without = f"without {' and '.join(self.deny)}" if self.deny else ""
        return " ".join(filter(None, (self.attach, without))) or "default"

    @property
    def options(self) -> str:
        """The guest's BTF is covered, and denied; the table alone answers."""
        deny = ",".join(("live-btf", *self.deny))
        return f"--deny {deny}" + (f" --attach {self.attach}" if self.attach else "")


MECHANISMS = ("fentry", "raw_tp", "kprobe-pmu", "kprobe-tracefs")
STANDARD = (*(Way(mechanism) for mechanism in MECHANISMS), Way(deny=("ringbuf",)))


def inputs(kernel: Kernel) -> Json:
    """Everything that a result depends on. A result whose inputs are the same need not be had again."""
    image = cache.CHECKOUT / "bpf_bytecode" / _image_name(kernel)
    return {
        "package": f"{kernel.package.name} {kernel.package.version}",
        "image": hashlib.sha256(image.read_bytes()).hexdigest()[:16],
        "runtime": _digest(sorted((cache.CHECKOUT / "runtime").glob("**/*.py"))),
        "lab": _digest([SCRIPT, WORKLOAD, Path(truth.__file__)]),
    }


def run(kernel: Kernel, ways: Sequence[Way], *, memory: int | None = None) -> Json:
    """Boots `kernel` once and returns what the result file keeps of it. Raises nothing that a kernel can cause."""
    document: Json = {"arch": kernel.arch, "series": kernel.series, "flavour": kernel.flavour, "suite": kernel.suite}
    names = {f"way{number}": way for number, way in enumerate(ways)}
    try:
        kernel = kernel.deliverable()
        document |= {
            "package": kernel.package.name,
            "version": kernel.package.version,
            "release": kernel.package.release,
        }
        content, document["table"] = offsets(kernel)
        files = {
            f"/sockpid/offsets/{kernel.shard}": content,
            "/sockpid/tests/workload.py": WORKLOAD.read_bytes(),
            "/run/ways": "".join(f"{name} {way.options}\n" for name, way in names.items()).encode(),
            "/run/matrix.py": SCRIPT.read_bytes(),
        }
        result = Guest(kernel).run(
            ["python3", "-I", "-S", "/run/matrix.py"], timeout=SECONDS_PER_WAY * len(ways), files=files, memory=memory
        )
    except (GuestError, packages.PackageError, ImageError, AssertionError, OSError) as error:
        reason = _short(str(error).splitlines()[-1 if isinstance(error, packages.PackageError) else 0])
        if isinstance(error, GuestError):
            keep_console(kernel, error.console)
        return {**document, "ways": {way.name: {"verdict": "failed", "reason": reason} for way in ways}}
    document |= {
        "memory_mib": memory or kernel.memory,
        "boot_seconds": round(result.boot, 1),
        "seconds": round(result.seconds, 1),
    }
    document["ways"] = {way.name: judge(way, name, result.files) for name, way in names.items()}
    if any(found["verdict"] == "failed" for found in document["ways"].values()):
        keep_console(kernel, result.console + result.stdout + result.stderr)
    return document


def judge(way: Way, name: str, files: Mapping[str, bytes]) -> Json:
    """What one way came to: "right", "absent" (the kernel does not have it, and says so) or "failed", with a reason."""

    def text(suffix: str) -> str:
        return files.get(f"{name}.{suffix}", b"").decode(errors="replace")

    status = text("status").strip()
    if status != "0":
        said = text("errors").strip() or "; ".join(_mismatches(text("selftest"))) or "nothing"
        return {"verdict": "failed", "reason": f"selftest ended with {status or 'no status'}: {_short(said)}"}
    report = json.loads(text("selftest"))
    if text("doctor"):
        return {"verdict": "absent", "reason": _refusal(way, json.loads(text("doctor")))}
    found: Json = {
        "verdict": "right",
        "hooks": report["hooks"],
        "offsets": report["offsets"],
        "families": [family for family in ("inet", "inet6", "mapped") if report["families"].get(family, {}).get("ok")],
    }
    if text("advice"):
        found["advice"] = _short(text("advice").strip())
    verdict = truth.judge(truth.parse_lines(text("events")), truth.parse_lines(text("truth")))
    found["accuracy"] = {
        "right": verdict.right,
        "wrong": len(verdict.wrong),
        "unknown": len(verdict.unknown),
        "naive_right": verdict.naive_right,
    }
    if text("run").strip() != "0":
        return {
            **found,
            "verdict": "failed",
            "reason": f"run ended with {text('run').strip()}: {_short(text('errors'))}",
        }
    if report["offsets"] != "table":
        return {**found, "verdict": "failed", "reason": f"offsets came from {report['offsets']}"}
    if verdict.wrong or verdict.unknown or verdict.owners != 3:
        why = (verdict.wrong + verdict.unknown or [f"events of {verdict.owners} of 3 owners"])[0]
        return {**found, "verdict": "failed", "reason": _short(why)}
    return found


def keep_console(kernel: Kernel, console: str) -> None:
    CONSOLES.mkdir(parents=True, exist_ok=True)
    (CONSOLES / f"{kernel.name.replace('/', '_')}.console").write_text(console, encoding="utf-8")


def offsets(kernel: Kernel) -> tuple[bytes, Json]:
    """The shard that the guest gets, and what is told of it: the committed one if it has this build."""
    entry, origin = tables.committed(kernel), "committed"
    path = cache.CHECKOUT / "offsets" / kernel.shard
    if entry is None:
        path, origin = tables.generated(kernel), "generated"
        entry = tables.entries(path)[0]
    return path.read_bytes(), {"origin": origin, "build_id": entry.build_id, "kind": entry.provenance["kind"]}


def committed_since(kernel: Kernel, told: Json) -> bool:
    """Whether a table that was generated for a run has come into the published one, unchanged. told: of offsets()."""
    now = tables.committed(kernel)
    if now is None or told["origin"] != "generated":
        return False
    (then,) = tables.entries(tables.generated(kernel))
    facts = (now.build_id, now.layout, now.btf_ids)
    return facts == (then.build_id, then.layout, then.btf_ids) and now.build_id == told["build_id"]


def _image_name(kernel: Kernel) -> str:
    order = arch.ARCHES[MACHINE[kernel.arch]].byte_order
    return {"little": "sockpid.bpfel.json", "big": "sockpid.bpfeb.json"}[order]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _mismatches(selftest: str) -> list[str]:
    try:
        families = json.loads(selftest)["families"]
    except (ValueError, KeyError):
        return []
    return [f"{family}: {line}" for family, result in families.items() for line in result["mismatches"]]


def _refusal(way: Way, doctor: Json) -> str:
    """What the kernel answered to the mechanism, for the hook on connect()."""
    for hook in doctor["hooks"]:
        if hook["hook"] == "connect":
            for refused in hook["refused"]:
                if refused["mechanism"].startswith(f"{way.attach} "):
                    return _short(refused["reason"])
    return "not among the ways of the hook on connect()"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}..."
