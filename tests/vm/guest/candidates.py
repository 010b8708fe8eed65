"""A kernel that no source speaks of, and candidates each of which has one and the same field elsewhere.

For each field in turn: prints a line of JSON with what the proof said of it, and whether it names the field.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, List, Tuple

sys.path.insert(0, "/sockpid/runtime")

from sockpid.calibrate import proof
from sockpid.errors import ConsensusError, UnknownKernelError
from sockpid.host import kernel
from sockpid.image.image import Image
from sockpid.offsets import consensus, offsets
from sockpid.probe.collection import Options
from sockpid.probe.tracer import load_image
from sockpid.table.layout import Field, Layout, Struct

AT_ONCE = 6
DENY = frozenset(["live-btf"])


def moved(image: Image, identity: kernel.Identity, right: Layout) -> Iterator[Tuple[str, Layout]]:
    """Every field in turn, moved by its size; a bit by one."""
    for name, paths in sorted(image.wanted(identity.arch).items()):
        row = right.get(name)
        for path in sorted(paths) if isinstance(row, Struct) and name != "struct pt_regs" else ():
            assert isinstance(row, Struct)
            field = row.fields.get(path)
            if field is not None:
                other = Field(field.bit_offset + field.bit_size, field.bit_size, field.bitfield)
                yield f"{name}.{path}", {**right, name: row._replace(fields={**row.fields, path: other})}


def main() -> None:
    identity = kernel.identify()
    image = load_image(identity.arch.byte_order)
    right = offsets.find(image, identity, None, DENY).layout
    unknown = UnknownKernelError("no offsets are known for this kernel", ())

    def tried(layouts: List[Layout]) -> str:
        found = [consensus.Candidate(one, f"{number}.0-other", 1) for number, one in enumerate(layouts)]
        try:
            return proof.choose(Options(DENY), image, identity, unknown, found).source
        except ConsensusError as error:
            return f"refused: {error.field}\n{error}"

    def of(each: Tuple[str, Layout]) -> Tuple[str, str, str]:
        name, layout = each
        return name, tried([layout, layout]), tried([layout, right]) if "skc_dport" in name else ""

    print(json.dumps(["", tried([right]), ""]))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for told in threads.map(of, moved(image, identity, right)):
            print(json.dumps(told), flush=True)


main()
