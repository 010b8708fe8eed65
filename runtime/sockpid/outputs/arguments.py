"""What stands behind the kind of an output: `--output KIND[:PLACE][,key=value]...`."""

from __future__ import annotations

from sockpid.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Arguments:
    """What stands behind an output's kind. Each is asked for by name, once; what nobody asked for is a mistake."""

    def __init__(self, text: str) -> None:
        head, *pairs = text.split(",")
        self.kind, _, place = head.partition(":")
        self.spec = text
        self._place = place
        self._pairs: Dict[str, str] = {}
        self._known: List[str] = []
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals or not value:
                raise self.wrong(f"{pair!r} is not of the form key=value")
            self._pairs[name] = value

    def wrong(self, why: str) -> UsageError:
        return UsageError(f"--output {self.spec}: {why}")

    def place(self, default: Optional[str] = None) -> str:
        """What stands after the colon. Raises UsageError if there is neither that nor a default."""
        if not self._place and default is None:
            raise self.wrong(f"{self.kind} needs a place: {self.kind}:PLACE")
        return self._place or default or ""

    def no_place(self) -> None:
        if self._place:
            raise self.wrong(f"{self.kind} takes no place")

    def text(self, name: str, default: str = "") -> str:
        self._known.append(name)
        return self._pairs.pop(name, default)

    def words(self, name: str, default: str, known: Tuple[str, ...] = ()) -> Tuple[str, ...]:
        """Words joined by "+"."""
        found = tuple(word for word in self.text(name, default).split("+") if word)
        for word in found:
            if known and word not in known:
                raise self.wrong(f"{name}={word} is none of {', '.join(known)}")
        return found

    def size(self, name: str, default: str) -> int:
        """Bytes: 4096, 64K, 100M, 2G."""
        return int(self._scaled(name, default, {**SIZES, **{unit.lower(): size for unit, size in SIZES.items()}}))

    def seconds(self, name: str, default: str) -> float:
        """Seconds: 30, 30s, 5m, 12h, 7d."""
        return self._scaled(name, default, TIMES)

    def number(self, name: str, default: int, least: int = 1) -> int:
        text = self.text(name, str(default))
        if not text.isdecimal() or int(text) < least:
            raise self.wrong(f"{name}={text} is not a number of at least {least}")
        return int(text)

    def mode(self, name: str, default: str) -> int:
        text = self.text(name, default)
        if not text or any(digit not in "01234567" for digit in text) or int(text, 8) > 0o777:
            raise self.wrong(f"{name}={text} is not a mode such as 0640")
        return int(text, 8)

    def _scaled(self, name: str, default: str, units: Dict[str, float]) -> float:
        text = self.text(name, default)
        digits = text.rstrip("KMGkmgshd")
        unit = text[len(digits) :]
        if unit not in units or not digits.replace(".", "", 1).isdecimal() or float(digits) <= 0:
            raise self.wrong(f"{name}={text} is not a number with one of the units {' '.join(u for u in units if u)}")
        return float(digits) * units[unit]

    def done(self) -> None:
        """Raises UsageError if something was given that nobody asked for."""
        for name in self._pairs:
            raise self.wrong(f"unknown key {name!r}; {self.kind} knows {', '.join(sorted(self._known)) or 'none'}")
