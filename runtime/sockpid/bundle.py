"""The form of a bundle: one file that Python runs, of which every byte follows from the members' contents.

A bundle is a first line for the kernel (`SHEBANG`) and a zip archive in one canonical form: the manifest first, then
all members in the order of their names, without gaps, extra fields, comments or times. So nothing can be changed, added
or hidden anywhere in it that `unpack` would not see; what it cannot see is somebody who writes a whole new bundle.
That is what signatures are for (`sockpid.signature`).

MANIFEST.json: `schema` ("1.0"), `producer`, `version` (of sockpid), `kernels` (how many the tables have), `packages`
(what travels along: name -> version, licence, Python it needs), `members` (name -> SHA-256 of the content, hex).
"""

from __future__ import annotations

import struct
import zlib

from . import plain_json
from .errors import BundleError
from .named import NamedTuple
from .sha256 import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

SHEBANG = b"#!/usr/bin/env python3\n"
MANIFEST = "MANIFEST.json"
SCHEMA = "1.0"

# APPNOTE.TXT of PKWARE, 4.3.7, 4.3.12 and 4.3.16. Version 2.0, no flags, 1 January 1980; made on Unix: -rw-r--r--.
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6HIIIHHHHHII")
_END = struct.Struct("<4s4HIIH")
_VERSION, _DATE, _UNIX, _MODE = 20, 0x21, 3 << 8, 0o100644 << 16
_STORED, _DEFLATED = 0, 8
_LEVEL = 9


class Member(NamedTuple):
    """One file of a bundle. packed: as it lies in the archive; offset: of its header in the file."""

    name: str
    content: bytes
    method: int
    packed: bytes
    offset: int

    def header(self) -> bytes:
        """The local header, name included."""
        return self._pack(_LOCAL, b"PK\3\4", (_VERSION,)) + self.name.encode("ascii")

    def entry(self) -> bytes:
        """The entry of the central directory, name included."""
        fixed = self._pack(_CENTRAL, b"PK\1\2", (_UNIX | _VERSION, _VERSION), (0, 0, 0, _MODE, self.offset))
        return fixed + self.name.encode("ascii")

    def _pack(self, form: struct.Struct, mark: bytes, versions: Tuple[int, ...], rest: Tuple[int, ...] = ()) -> bytes:
        sizes = zlib.crc32(self.content), len(self.packed), len(self.content), len(self.name), 0
        return form.pack(mark, *versions, 0, self.method, 0, _DATE, *sizes, *rest)


def pack(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """The bundle of these files by name (ASCII). about: keys of the manifest besides schema and members."""
    import json

    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    manifest = json.dumps({**about, "schema": SCHEMA, "members": digests}, indent=1, sort_keys=True) + "\n"
    everything = [(MANIFEST, manifest.encode("ascii")), *sorted(files.items())]
    data = bytearray(SHEBANG)
    entries = b""
    for name, content in everything:
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
        packed = deflate.compress(content) + deflate.flush()
        method = _DEFLATED
        if len(packed) >= len(content):
            method, packed = _STORED, content
        member = Member(name, content, method, packed, len(data))
        data += member.header() + packed
        entries += member.entry()
    return bytes(data) + entries + _end(len(everything), len(entries), len(data))


def unpack(data: bytes, name: str) -> Tuple[Dict[str, Any], Dict[str, bytes]]:
    """Manifest and files of a bundle, every byte of which has been looked at. `name` is the bundle's, for messages.

    Raises BundleError, naming the member that was altered, added, doubled or lost.
    """
    manifest, *members = verified(data, name)
    return _manifest(manifest.content, name), {member.name: member.content for member in members}


def verified(data: bytes, name: str) -> Iterator[Member]:
    """The members, the manifest first, one at a time. All of it is verified once the last was given; see unpack()."""
    digests: Optional[Dict[str, str]] = None
    seen: List[str] = []
    for member in _members(data, name):
        if digests is None:
            manifest = member.content if member.name == MANIFEST else None
            digests = _manifest(manifest, name)["members"]
        else:
            if member.name in (MANIFEST, *seen[-1:]):
                raise BundleError(f"{name}: {member.name} is there twice")
            if member.name not in digests:
                raise BundleError(f"{name}: {member.name} is not in the manifest: it was added")
            if sha256(member.content).hexdigest() != digests[member.name]:
                raise BundleError(f"{name}: {member.name} is not what the manifest says: it was altered")
            if seen and member.name < seen[-1]:
                raise BundleError(f"{name}: the order of the members was altered")
            seen.append(member.name)
        yield member
    lost = sorted(set(digests or ()) - set(seen))
    if lost:
        raise BundleError(f"{name}: {', '.join(lost)} of the manifest is not there")


def _members(data: bytes, name: str) -> Iterator[Member]:
    """All members, in order. Raises BundleError unless the archive is in canonical form from first byte to last."""
    if not data.startswith(SHEBANG + b"PK\3\4"):
        raise BundleError(f"{name}: does not start as a bundle does: it was damaged, or something was put before it")
    at = data.rfind(b"PK\5\6")
    if at < 0 or at + _END.size != len(data):
        raise BundleError(f"{name}: does not end as a bundle does: it was cut off, or something was put after it")
    count, size, start = struct.unpack_from("<HII", data, at + 10)
    if start + size != at or data[at:] != _end(count, size, start):
        raise BundleError(f"{name}: the end of the archive was altered")
    entry, end_of_last = start, len(SHEBANG)
    while entry < at:
        member = _member(data, entry, end_of_last, name)
        entry += _CENTRAL.size + len(member.name)
        end_of_last = member.offset + _LOCAL.size + len(member.name) + len(member.packed)
        count -= 1
        yield member
    if count or end_of_last != start:
        raise BundleError(f"{name}: the archive holds bytes that belong to no member")


def _member(data: bytes, entry: int, expected: int, name: str) -> Member:
    """The member whose entry of the central directory is at `entry`, and which must lie at `expected`."""
    try:
        found = _CENTRAL.unpack_from(data, entry)
        method, _crc, packed_size, size, length, offset = found[4], *found[7:11], found[-1]
        path = data[entry + _CENTRAL.size :][:length].decode("ascii")
    except (struct.error, UnicodeDecodeError):
        raise BundleError(f"{name}: the archive's directory was altered") from None
    start = offset + _LOCAL.size + length
    packed = data[start : start + packed_size]
    content = packed if method == _STORED else _inflate(packed, size) if method == _DEFLATED else None
    if offset != expected or content is None:
        raise BundleError(f"{name}: {path} was altered: it cannot be unpacked")
    member = Member(path, content, method, packed, offset)
    if data[offset:start] != member.header() or data[entry : entry + _CENTRAL.size + length] != member.entry():
        raise BundleError(f"{name}: {path} was altered: it is not what the archive's directory says")
    return member


def _inflate(packed: bytes, size: int) -> Any:
    """What a deflated member holds, or None if that is not `size` bytes and nothing else."""
    inflate = zlib.decompressobj(-15)
    try:
        content = inflate.decompress(packed, size + 1)
    except zlib.error:
        return None
    return content if inflate.eof and not inflate.unused_data and len(content) == size else None


def _manifest(content: Any, name: str) -> Dict[str, Any]:
    try:
        manifest = plain_json.loads(content)
        schema, members = manifest["schema"], manifest["members"]
        if not isinstance(members, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{name}: {MANIFEST} is missing or malformed") from None
    if schema != SCHEMA:
        raise BundleError(f"{name}: {MANIFEST} has schema {schema}, but this sockpid reads {SCHEMA}")
    return dict(manifest)


def _end(count: int, size: int, start: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
