"""Writes runtime/sockpid/image/digests.py: which images belong to this code. Run by `make image`."""

from __future__ import annotations

import sys
from pathlib import Path

from sockpid.image.image import content_digest, file_name

_MODULE = '''"""The images that this code was made with: `content` of each (docs/image-format.md), by byte order.

Nothing else is loaded: of what a wrong instruction does, the self-check sees a part alone. Written by `make image`.
"""

CONTENT = {{
    "little": "{little}",
    "big": "{big}",
}}
'''


def module(images: Path) -> str:
    """The source of the module for the images in a directory."""
    return _MODULE.format(**{o: content_digest((images / file_name(o)).read_bytes()) for o in ("little", "big")})


if __name__ == "__main__":
    sys.stdout.write(module(Path("bpf_bytecode")))
