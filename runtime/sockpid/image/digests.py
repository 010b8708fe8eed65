"""The images that this code was made with: `content` of each (docs/image-format.md), by byte order.

Nothing else is loaded: of what a wrong instruction does, the self-check sees a part alone. Written by `make image`.
"""

CONTENT = {
    "little": "fda9e538ee285b5ac29e1f698b9842be2c84178c68a21c542eaca83eefa3959b",
    "big": "084be003b29f98e8627ce117a85623559ee6060a0821f4894a5d605510b108dd",
}
