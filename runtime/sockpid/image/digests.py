"""The images that this code was made with: `content` of each (docs/image-format.md), by byte order.

Nothing else is loaded: of what a wrong instruction does, the self-check sees a part alone. Written by `make image`.
"""

CONTENT = {
    "little": "b7760858baf1ed79c689bc0742cfc193000032839cd650def7cd86c52e63b3ed",
    "big": "2a80bf885b8a102bb6071215eb0c10afbe775a92b9d6a273467f2846d598caf9",
}
