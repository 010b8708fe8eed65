"""The images that this code was made with: `content` of each (docs/image-format.md), by byte order.

Nothing else is loaded: of what a wrong instruction does, the self-check sees a part alone. Written by `make image`.
"""

CONTENT = {
    "little": "f7cf5af5123a7b8099828e8f2d9d0c2eee0ab80f9610220938b2e71b63704464",
    "big": "b34dd8be93e1b3c73c3d85487f4dfa389399b422b01534a4b457a74633b6a842",
}
