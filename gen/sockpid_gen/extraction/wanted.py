"""What to look for in a kernel: exactly what the relocations of the bytecode images name. There is no second list."""

from __future__ import annotations

import functools

from sockpid import data
from sockpid.arch import Arch
from sockpid.errors import ImageError
from sockpid.image.image import Image, file_name, parse_image
from sockpid.table.layout import Wanted


@functools.lru_cache(maxsize=None)
def image_for(arch: Arch) -> Image:
    """The bytecode image that runs on an architecture. Raises ImageError."""
    name = "bpf_bytecode/" + file_name(arch.byte_order)
    content = data.read(name)
    if content is None:
        raise ImageError(f"{name} is not part of this installation")
    return parse_image(content, name)


def wanted_fields(arch: Arch) -> Wanted:
    """Types and fields that the image for an architecture reads. Raises ImageError."""
    return image_for(arch).wanted(arch)
