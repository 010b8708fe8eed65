"""What a start found out about this kernel, kept for the next: what its BTF says, or what was proved or calibrated.

A table file of one kernel below /var/lib/sockpid, called after the kernel's build-id and a digest of the table and the
image that it was made with: with others it is found out anew. Only what root alone may have written is read.
"""

from __future__ import annotations

import contextlib
import os

from sockpid import __version__, data, whole_file
from sockpid.errors import TableError
from sockpid.host.kernel import Identity
from sockpid.image import hooks
from sockpid.image.image import Image
from sockpid.sha256 import sha256

from .source import Offsets, function_ids, is_trusted, no_id, read, shard_name, unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Mapping, Optional

    from sockpid.table.layout import Layout

DIRECTORY = "/var/lib/sockpid/offsets"
ABOVE = ("/var/lib/sockpid", "/var/lib", "/var")


def find(image: Image, kernel: Identity) -> Optional[Offsets]:
    """What is kept of this kernel and can be believed; None where there is nothing. What is damaged, or others may have
    written, is as if it were not there: it is found out again."""
    path = _path(image, kernel)
    if path is None or not os.path.exists(path):
        return None
    try:
        if not all(map(is_trusted, (DIRECTORY, *ABOVE))):
            return None
        shard = read(path, trusted=True)
        entry = shard.find(kernel.build_id, kernel.release, kernel.banner)
        if shard.arch != kernel.arch.name or entry is None:
            return None
        layout = shard.layout(entry)
    except (TableError, OSError):
        return None
    if entry.provenance["kind"] == "calibrated":
        from .calibration import complete

        return Offsets(complete(layout, unused()), "calibrated", path, no_id)
    if image.missing(kernel.arch, layout):
        return None
    if "note" in entry.provenance:
        return Offsets(layout, "consensus", path, no_id)
    return Offsets(layout, "btf", path, function_ids(entry.btf_ids or {}, None))


def keep(image: Image, kernel: Identity, found: Offsets) -> Optional[str]:
    """Keeps what the self-check has proved. Returns where, or None: it is not root who runs us, the kernel has no
    build-id to be recognised by, or there is no place to write."""
    ids: Optional[Dict[str, int]] = None
    provenance = {"kind": "calibrated" if found.origin == "calibrated" else "btf", "source": "running kernel"}
    if found.origin == "consensus":
        provenance["note"] = "another build's, proved on this host"
    if found.origin == "btf":
        ids = {name: found.btf_id(name) for name in sorted(hooks.functions())}
    return write(image, kernel, found.layout, provenance, ids)


def write(
    image: Image,
    kernel: Identity,
    layout: Layout,
    provenance: Mapping[str, object],
    ids: Optional[Mapping[str, int]] = None,
) -> Optional[str]:
    """The same with what an entry of a table says: see docs/offsets-format.md. ids: of functions, in its BTF."""
    from sockpid.table import table, writer

    path = _path(image, kernel)
    if path is None or os.geteuid() != 0:
        return None
    document = writer.empty(kernel.arch.name, table.series_of(kernel.release), f"sockpid {__version__}")
    entry = {
        "build_id": kernel.build_id,
        "release": kernel.release,
        "banner": kernel.banner.rstrip(),
        "distribution": None,
        "btf_ids": ids,
        "provenance": {**provenance, "sha256": None, "tools": {"sockpid": __version__}},
    }
    writer.add(document, entry, layout)
    try:
        for directory in (ABOVE[0], DIRECTORY):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o755)
        if not all(map(is_trusted, (DIRECTORY, *ABOVE))):
            return None
        former = [name for name in os.listdir(DIRECTORY) if name.startswith(f"{kernel.build_id}-")]
        whole_file.write(path, writer.encode(document))
        for name in former:  # of another table or image
            if name != os.path.basename(path):
                os.unlink(os.path.join(DIRECTORY, name))
    except OSError:
        return None
    return path


def forget() -> None:
    """Takes away what is kept, as far as there is something."""
    with contextlib.suppress(OSError):
        for name in os.listdir(DIRECTORY):
            os.unlink(os.path.join(DIRECTORY, name))
        for directory in (DIRECTORY, ABOVE[0]):
            os.rmdir(directory)  # the other one may hold what outputs have put there


def _path(image: Image, kernel: Identity) -> Optional[str]:
    if kernel.build_id is None:
        return None
    shard = data.read(shard_name(kernel)) or b""
    digest = sha256(sha256(shard).digest() + image.content.encode("ascii")).hexdigest()[:16]
    return f"{DIRECTORY}/{kernel.build_id}-{digest}.json"
