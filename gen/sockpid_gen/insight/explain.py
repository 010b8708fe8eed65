"""One field of one kernel: its value, how that was learnt, which kernels have the same, and what hangs on it."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from sockpid.arch import ARCHES
from sockpid.errors import UsageError
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.extraction.wanted import image_for
from sockpid_gen.table.table import Table

from .cover import value_of, values
from .uses import Use, uses


class Explanation(NamedTuple):
    """All that is known of a field of a kernel.

    value: a Field, an enumerator's number, or None if it was looked for and is absent. shard, layout, struct: file and
    content ids of the rows it stands in (struct: None if the type is absent). same: kernels with that value; others:
    how many kernels have each other value; silent: how many kernels are not known to have or lack it.
    """

    kernel: KernelEntry
    field: str
    value: Any
    shard: str
    layout: str
    struct: Optional[str]
    same: Tuple[KernelEntry, ...]
    others: Dict[Any, int]
    silent: int
    uses: Tuple[Use, ...]


def find_field(kernel: KernelEntry, text: str) -> str:
    """The full name of the field that a person means: "sk_protocol" for "struct sock.sk_protocol".

    Raises UsageError if the kernel's entry has no such field, or several.
    """
    names = [name for name, _ in values(kernel.layout)]
    if text in names:
        return text
    found = [name for name in names if name.endswith((f".{text}", f" {text}"))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text} is several fields: {', '.join(found)}")
    near = [name for name in names if text.rpartition(".")[2].lower() in name.lower()]
    hint = f"; near: {', '.join(near[:8])}" if near else f" (`sockpid-gen show {kernel.release}` lists what it has)"
    raise UsageError(f"the entry of {kernel.identity} does not speak of {text}{hint}")


def explain(table: Table, kernel: KernelEntry, text: str) -> Explanation:
    """Explains a field of one of the table's kernels. Raises UsageError as find_field() does."""
    field = find_field(kernel, text)
    value = value_of(kernel.layout, field)
    same: List[KernelEntry] = []
    others: Dict[Any, int] = {}
    silent = 0
    for other in table:
        try:
            its = value_of(other.layout, field)
        except KeyError:
            silent += 1
            continue
        if its == value:
            same.append(other)
        else:
            others[its] = others.get(its, 0) + 1
    shard, entry = table.locate(kernel)
    struct = shard.layouts[entry.layout].get(field.partition(".")[0])
    arch = ARCHES[kernel.arch]
    found = uses(image_for(arch), arch).get(field, [])
    return Explanation(
        kernel, field, value, shard.name, entry.layout, struct, tuple(same), others, silent, tuple(found)
    )
