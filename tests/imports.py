"""Who imports whom: the wings of both packages, read from the sources.

    python -m tests.imports          the wings from top to bottom, and who imports whom
    python -m tests.imports --write  the same into docs/architecture.md

A wing may import from the wings above its own line, types included; what is in no wing is the ground.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GROUND = "(ground)"
PACKAGES = {"sockpid": ROOT / "runtime/sockpid", "sockpid_gen": ROOT / "gen/sockpid_gen"}
WINGS = {
    "sockpid": (
        *(GROUND, "table", "btf", "image", "event", "graph", "request", "bundle", "manual"),
        *("host", "bpf", "offsets", "subjects", "probe", "selfcheck", "owner", "outputs", "pins", "run"),
        *("top", "calibrate", "deploy", "cli"),
    ),
    "sockpid_gen": (
        *(GROUND, "files", "btf", "dwarf", "kernel", "extraction", "table", "archive", "image", "insight", "crawl"),
        *("verify", "bundle", "cli"),
    ),
}
"""From the ground up."""

PURE = ("table", "btf", "image", "event", "graph", "request", "bundle", "manual")
"""Wings of sockpid that ask no kernel and open no file. The generator uses these and the ground's, and no other."""

HALF_GROUND = {"syscall", "data", "whole_file", "__main__"}
"""Of the ground, what is not pure."""

GROUNDS = {
    "sockpid": "What everything stands on: errors, architectures, the seam to the kernel, files that travel along.",
    "sockpid_gen": "The library's names (docs/api.md).",
}
OFFSET = (
    *("sockpid_gen.kernel.source", "sockpid_gen.btf.finder", "sockpid_gen.dwarf.dwarf"),
    *("sockpid_gen.extraction.extraction", "sockpid_gen.archive.archive", "sockpid_gen.archive.refresh"),
    *("sockpid_gen.table.table", "sockpid.table.table", "sockpid.offsets.offsets", "sockpid.image.relocate"),
    *("sockpid.probe.loader", "sockpid.bpf.prog", "sockpid.selfcheck.selfcheck"),
)
"""The way of an offset, module by module: from a kernel's package to the proof on a host."""

EVENT = (
    *("sockpid.bpf.ringbuf", "sockpid.event.event", "sockpid.probe.tracer", "sockpid.owner.certainty"),
    *("sockpid.owner.witness", "sockpid.owner.describe", "sockpid.run.session", "sockpid.event.lines"),
    *("sockpid.outputs.fanout", "sockpid.outputs.sink"),
)
"""The way of an event, from the kernel's buffer to whoever wants it."""

PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- python -m tests.imports --write -->\n", "<!-- end -->\n"


class Module(NamedTuple):
    """name: below its package, "event.text"; "" for the package itself, "event" for a wing's __init__."""

    package: str
    name: str
    path: Path

    @property
    def wing(self) -> str:
        head, dot, _ = self.name.partition(".")
        return head if dot or (self.path.name == "__init__.py" and head) else GROUND

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


class Import(NamedTuple):
    """One module that names of another are taken from. names: these; none for the module as a whole."""

    of: Module
    by: Module
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.by} takes {', '.join(self.names) or 'all'} from {self.of}"


@lru_cache(None)
def modules(package: str) -> dict[str, Module]:
    """All modules of a package, by name."""
    found = {}
    for path in sorted(PACKAGES[package].rglob("*.py")):
        parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(package, name, path)
    return found


def foreign(module: Module) -> Iterator[str]:
    """What a module imports that is of neither package, wherever in it."""
    for node in ast.walk(ast.parse(module.path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        yield from (name for name in names if name.partition(".")[0] not in PACKAGES)


def imports(module: Module) -> Iterator[Import]:
    """What a module imports of the two packages, wherever in it: for types, or when it is needed, too."""
    is_package = module.path.name == "__init__.py"
    here = [module.package, *filter(None, module.name.split("."))]
    for node in ast.walk(ast.parse(module.path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, name = alias.name.partition(".")
                if package in PACKAGES:
                    yield Import(modules(package)[name], module, ())
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".")
            if node.level:
                assert node.level == 1, f"{module}: a package above is imported by its name"
                base = (here if is_package else here[:-1]) + [part for part in base if part]
            package, name = base[0], ".".join(base[1:])
            if package not in PACKAGES:
                continue
            for alias in node.names:
                inside = modules(package).get(f"{name}.{alias.name}".lstrip("."))
                yield Import(inside or modules(package)[name], module, () if inside else (alias.name,))


def together(found: Iterator[Import]) -> list[Import]:
    """One for each two modules, with all names."""
    names: dict[tuple[Module, Module], list[str]] = {}
    for each in found:
        names.setdefault((each.of, each.by), []).extend(each.names)
    return [Import(of, by, tuple(dict.fromkeys(taken))) for (of, by), taken in names.items()]


@lru_cache(None)
def within(package: str) -> list[Import]:
    """The imports between modules of a package. The package's own __init__ stands for no wing, nor does __main__."""
    every = (each for module in modules(package).values() for each in imports(module))
    return [
        each
        for each in together(every)
        if each.of.package == package and each.of.name and each.by.name not in ("", "__main__") and each.of != each.by
    ]


def upward(package: str) -> list[Import]:
    """Imports of a wing that stands above the one that imports."""
    order = WINGS[package].index
    return [each for each in within(package) if order(each.of.wing) > order(each.by.wing)]


def circle(package: str) -> list[Import]:
    """A way through imports that comes back to where it began; empty if there is none."""
    ways: dict[Module, list[Import]] = {}
    for each in within(package):
        ways.setdefault(each.by, []).append(each)
    done: set[Module] = set()

    def follow(module: Module, way: list[Import]) -> list[Import]:
        for each in ways.get(module, ()):
            passed = [step.by for step in way]
            if each.of in passed:
                return [*way[passed.index(each.of) :], each]
            if each.of not in done and (found := follow(each.of, [*way, each])):
                return found
        done.add(module)
        return []

    return next((found for module in list(ways) if module not in done and (found := follow(module, []))), [])


def is_pure(module: Module) -> bool:
    if module.wing == GROUND:
        return module.name not in HALF_GROUND
    return module.package == "sockpid" and module.wing in PURE


def picture(package: str) -> list[str]:
    """Markdown: the wings from top to bottom, what each says of itself, and which steps of the two ways it takes."""

    def steps(way: tuple[str, ...], wing: str) -> str:
        taken = [(number, step) for number, step in enumerate(way, 1) if step.startswith(f"{package}.{wing}.")]
        return ", ".join(f"{number} {step.rpartition('.')[2]}" for number, step in taken)

    rows = [["wing", "what it is", "an offset's way", "an event's way"], ["---"] * 4]
    for wing in reversed(WINGS[package]):
        path = PACKAGES[package] / wing / "__init__.py"
        text = ast.get_docstring(ast.parse(path.read_text())) if wing != GROUND else GROUNDS[package]
        rows.append([wing, " ".join(str(text).partition("\n\n")[0].split()), steps(OFFSET, wing), steps(EVENT, wing)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def table(package: str) -> list[str]:
    """Markdown: how many imports each wing (a row) has of each other (a column)."""
    wings = WINGS[package]
    counts = Counter((each.by.wing, each.of.wing) for each in within(package))
    used = [wing for wing in wings if any(counts[by, wing] for by in wings if by != wing)]
    rows = [["", *used], ["---", *["---"] * len(used)]]
    for by in wings:
        rows.append([by, *("·" if by == of else str(counts[by, of] or "") for of in used)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def report() -> str:
    lines = []
    for package in PACKAGES:
        lines += [f"`{package}`, from top to bottom:", "", *picture(package), ""]
    for package in PACKAGES:
        lines += [f"`{package}`: a row imports from a column so many times.", "", *table(package), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.imports", description="The wings, and who imports whom.")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    if not parser.parse_args().write:
        print(report())
        return
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{report()}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
