"""The images that this code was made with: `content` of each (docs/image-format.md), by byte order.

Nothing else is loaded: of what a wrong instruction does, the self-check sees a part alone. Written by `make image`.
"""

CONTENT = {
    "little": "e9c9bbb8d15f0d491188f3ef91b3103d4a4cbed457ce3340550302e3775bdd88",
    "big": "1da39e84a60716304ee635e3026bf9dff029be920bc530299788adadcc43678f",
}
