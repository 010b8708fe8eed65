"""`make surface`: docs/surface.txt anew."""

from __future__ import annotations

from .page import PAGE, text


def main() -> None:
    PAGE.write_text(text(), encoding="ascii")


if __name__ == "__main__":
    main()
