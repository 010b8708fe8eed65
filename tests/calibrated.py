"""A calibrated table file held against what a kernel's debug information says."""

from __future__ import annotations

from sockpid.offsets.calibration import BESIDE
from sockpid.table import table
from sockpid.table.layout import Layout, Struct

SIZES_UNKNOWN = {"struct request_sock.__req_common"}
"""Fields of which only the place can be observed."""


def differences(content: bytes, truth: Layout) -> tuple[int, list[str]]:
    """How many fields were compared, and what is different or only in one of the two.

    A field that the kernel does not have is one that the calibration does not have or calls absent. The start of a task
    has another name before Linux 5.5, which no observation tells.
    """
    shard = table.parse_shard(content, "calibrated.json")
    layout = shard.layout(shard.entries[0])
    wrong: list[str] = []
    compared = 0
    for name, row in truth.items():
        mine = layout.get(name)
        fields = mine.fields if isinstance(mine, Struct) else {}
        for path, field in (row.fields if isinstance(row, Struct) else {}).items():
            full, found = f"{name}.{path}", fields.get(path)
            if name == "struct task_struct" and path in ("start_boottime", "real_start_time"):
                assert isinstance(row, Struct)
                field = row.fields.get("start_boottime") or row.fields.get("real_start_time")  # noqa: PLW2901
                found = fields.get("start_boottime")
            if (field is None or full in BESIDE) and found is None:
                continue
            compared += 1
            if full in SIZES_UNKNOWN and field is not None and found is not None:
                found = found._replace(bit_size=field.bit_size)
            if found is not None:
                found = found._replace(signed=field is not None and field.signed)
            if found != field:
                wrong.append(f"{full}: {found}, expected {field}")
    return compared, wrong
