"""The form of a bundle: one file that Python runs, of which every byte follows from the members' contents.

A bundle is a first line for the kernel, a second one for a Python that finds no archive's end (`SHEBANG`), and a zip
archive in one canonical form: the manifest first, then all members in the order of their names, without gaps, extra
fields, comments or times. So nothing can be changed, added or hidden anywhere in it that `unpack` would not see; what
it cannot see is somebody who writes a whole new bundle. That is what signatures are for (`sockpid.bundle.signature`).

MANIFEST.json: `schema` ("1.0"), `producer`, `version` (of sockpid), `kernels` (how many the tables have), `packages`
(what travels along: name -> version, licence, Python it needs), `members` (name -> SHA-256 of the content, hex).
"""

from __future__ import annotations

import struct
import zlib

from sockpid import plain_json
from sockpid.errors import BundleError
from sockpid.namedtuple import NamedTuple
from sockpid.sha256 import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

SHEBANG = b"#!/usr/bin/env python3\n# coding: the-end-of-this-bundle-is-missing\n"
"""Without its end it is no archive to Python, but a script in an encoding that there is not, which Python then says."""
MANIFEST = "MANIFEST.json"
SCHEMA = "1.0"

# APPNOTE.TXT of PKWARE, 4.3.7, 4.3.12 and 4.3.16. Version 2.0, no flags, 1 January 1980; made on Unix: -rw-r--r--.
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6HIIIHHHHHII")
_END = struct.Struct("<4s4HIIH")
_VERSION, _DATE, _UNIX, _MODE = 20, 0x21, 3 << 8, 0o100644 << 16
_STORED, _DEFLATED = 0, 8
_LEVEL = 9

LIMIT, MEMBER_LIMIT = 1 << 28, 1 << 26
"""Bytes, of a bundle before and after it was unpacked, and of a member: tens of times what all tables take."""
_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+"
_ABOUT = {"schema": str, "producer": str, "version": str, "kernels": int, "packages": dict, "members": dict}
_PACKAGE = {"version", "licence", "python"}


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
    first, *members = verified(data, name)
    manifest = _manifest(first.content, name)
    _demand_form(manifest, first.content, name)
    return manifest, {member.name: member.content for member in members}


def verified(data: bytes, name: str) -> Iterator[Member]:
    """The members, the manifest first, one at a time. All of it is verified once the last was given; see unpack()."""
    digests: Optional[Dict[str, str]] = None
    seen: List[str] = []
    folded: Set[str] = set()
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
            if member.name.lower() in folded:
                raise BundleError(f"{name}: {member.name} is there in capitals and in small letters")
            seen.append(member.name)
        folded.add(member.name.lower())
        yield member
    lost = sorted(set(digests or ()) - set(seen))
    if lost:
        raise BundleError(f"{name}: {', '.join(lost)} of the manifest is not there")


def _members(data: bytes, name: str) -> Iterator[Member]:
    """All members, in order. Raises BundleError unless the archive is in canonical form from first byte to last."""
    if len(data) > LIMIT:
        raise BundleError(f"{name}: more than {LIMIT} bytes: no bundle is")
    if not data.startswith(SHEBANG + b"PK\3\4"):
        raise BundleError(f"{name}: does not start as a bundle does: it was damaged, or something was put before it")
    at = data.rfind(b"PK\5\6")
    if at < 0 or at + _END.size != len(data):
        raise BundleError(f"{name}: does not end as a bundle does: it was cut off, or something was put after it")
    count, size, start = struct.unpack_from("<HII", data, at + 10)
    if start + size != at or data[at:] != _end(count, size, start):
        raise BundleError(f"{name}: the end of the archive was altered")
    entry, end_of_last, unpacked = start, len(SHEBANG), 0
    while entry < at:
        member = _member(data, entry, end_of_last, name)
        entry += _CENTRAL.size + len(member.name)
        end_of_last = member.offset + _LOCAL.size + len(member.name) + len(member.packed)
        count -= 1
        unpacked += len(member.content)
        if unpacked > LIMIT:
            raise BundleError(f"{name}: its members have more than {LIMIT} bytes: no bundle's do")
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
    if not _is_plain(path):
        raise BundleError(f"{name}: {path[:99]!r} is no name that a member has")
    if size > MEMBER_LIMIT:
        raise BundleError(f"{name}: {path} would have {size} bytes: no member has")
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


def _is_plain(path: str) -> bool:
    """Whether a member may be called so: below where it is put, in what every file system and terminal can show."""
    return all(part and part[0] != "." and not part.strip(_NAME) for part in path.split("/"))


def _manifest(content: Any, name: str) -> Dict[str, Any]:
    try:
        manifest = plain_json.loads(content)
        schema, members = manifest["schema"], manifest["members"]
        if not all(_is_plain(member) and type(digest) is str for member, digest in members.items()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError(f"{name}: {MANIFEST} is missing or malformed") from None
    if schema != SCHEMA:
        raise BundleError(f"{name}: {MANIFEST} has schema {str(schema)[:9]!a}, but this sockpid reads {SCHEMA}")
    return dict(manifest)


def _demand_form(manifest: Dict[str, Any], content: bytes, name: str) -> None:
    """Raises BundleError unless a manifest says what it has to, each key once, and nothing that a terminal obeys."""
    import json

    if {key: type(value) for key, value in manifest.items()} != _ABOUT:
        raise BundleError(f"{name}: {MANIFEST} does not have the keys {', '.join(_ABOUT)}, or not of their types")
    texts = [manifest["producer"], manifest["version"]]
    for package, about in manifest["packages"].items():
        if type(about) is not dict or set(about) != _PACKAGE:
            raise BundleError(f"{name}: {MANIFEST} does not say what package {package[:99]!a} is")
        texts += [package, *(value for value in about.values() if value is not None)]
    if not all(type(text) is str and text.isascii() and text.isprintable() for text in texts):
        raise BundleError(f"{name}: {MANIFEST} has characters that are not printed: {ascii(texts)[:200]}")
    if (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode("ascii") != content:
        raise BundleError(f"{name}: {MANIFEST} is not in the form in which sockpid-gen writes it")


def _end(count: int, size: int, start: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
