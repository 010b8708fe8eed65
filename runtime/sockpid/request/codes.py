"""A request as QR codes, and back: what crosses where nothing but a camera can.

The text is compressed and written in the letters that QR codes hold best, and that survive being wrapped, indented or
typed in lower case. One code holds `SOCKPID/2/3/5D1C5AE0/...`: its number, how many there are, which request it is of,
and a piece of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from typing import Dict, List, Tuple

from sockpid.errors import RequestError

from . import qr

LARGEST = 22
"""Version of the largest code that is made: 105 modules. Cameras have trouble with more of them on a screen."""
SMALLEST = 3

_HEAD = "SOCKPID/{}/{}/{}/"
_ROOM_OF_HEAD = len(_HEAD.format(10, 10, "00000000"))
_PART = re.compile(r"SOCKPID/(\d{1,2})/(\d{1,2})/([0-9A-F]{8})/((?:(?!SOCKPID/)[A-Z2-7\s])+)", re.IGNORECASE)
_MOST = 1 << 16  # bytes that a request may have unpacked


def split(text: str, columns: int) -> List[str]:
    """The texts of the codes for a terminal that is so many characters wide; all of about the same size."""
    letters = base64.b32encode(zlib.compress(text.encode(), 9)).decode("ascii").rstrip("=")
    version = min(max((columns - qr.size(0) - 2 * qr.QUIET) // 4, SMALLEST), LARGEST)
    count = -(-len(letters) // (qr.capacity(version) - _ROOM_OF_HEAD))
    each = -(-len(letters) // count)
    mark = hashlib.sha256(text.encode()).hexdigest()[:8].upper()
    return [_HEAD.format(n + 1, count, mark) + letters[n * each : (n + 1) * each] for n in range(count)]


def codes(text: str, columns: int, coloured: bool) -> List[str]:
    """The codes as lines to print, each under a line that says which it is.

    coloured: light on dark in the terminal's own terms, so that it does not matter what it is set to.
    """
    before, after = ("\x1b[37;40m", "\x1b[0m") if coloured else ("", "")
    found: List[str] = []
    parts = split(text, columns)
    for number, part in enumerate(parts, 1):
        found.append(f"code {number} of {len(parts)}")
        found += [before + line + after for line in qr.lines(qr.encode(part))]
    return found


def is_scanned(text: str) -> bool:
    """Whether a text is what a scanner has read."""
    return text.lstrip("\ufeff \t\r\n").upper().startswith("SOCKPID/")


def join(text: str, name: str) -> str:
    """The request out of the texts of all its codes, in any order. `name` is the file's, for messages.

    Raises RequestError that says which code is missing, or that they are of several requests.
    """
    found: Dict[int, str] = {}
    kinds: Dict[Tuple[int, str], None] = {}
    for number, count, mark, letters in _PART.findall(text):
        kinds[int(count), mark.upper()] = None
        found[int(number)] = "".join(letters.split()).upper()
    if len(kinds) != 1:
        raise RequestError(f"{name}: the codes are of {len(kinds)} requests; give those of one")
    ((count, mark),) = kinds
    missing = sorted(set(range(1, count + 1)) - set(found))
    if missing:
        raise RequestError(f"{name}: of {count} codes these are missing: {', '.join(map(str, missing))}")
    letters = "".join(found[number] for number in range(1, count + 1))
    try:
        packed = base64.b32decode(letters + "=" * (-len(letters) % 8))
        whole = zlib.decompressobj().decompress(packed, _MOST).decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise RequestError(f"{name}: the codes were copied with a mistake: {error}") from None
    if hashlib.sha256(whole.encode()).hexdigest()[:8].upper() != mark:
        raise RequestError(f"{name}: the codes were copied with a mistake: the request is not {mark}")
    return whole
