"""The first code of a bundle, as its `__main__.py`: reads the file once, looks at every byte, and runs sockpid out of
these bytes.

Python has already read this module and those that it imports here out of the file, so the check finds damage, not an
attacker: who can write the file can write this module. All else is imported from what was looked at, those modules once
more among it. What the check itself needs of the standard library is loaded
while the file is not on the path, so that nothing put into the file can take its place. That is no more than it needs:
every start waits for it.
"""

import sys

_own = sys.path.pop(0)
for _name in ("__future__", "_json", "_sha2", "_sha256", "operator", "os", "struct", "zlib"):
    try:
        __import__(_name)
    except ImportError:  # no Python has all of these: what this one lacks is not looked for in the file, either
        sys.modules[_name] = None  # type: ignore[assignment] # as the import system has it
if sys.modules["_sha2"] is sys.modules["_sha256"] or sys.implementation.name != "cpython":
    __import__("hashlib")
if sys.modules.get("_json") is None:
    __import__("json")
sys.path.insert(0, _own)

import os  # noqa: E402 - see above

PIECE = 1 << 20


def main() -> int:
    path = os.path.dirname(os.path.abspath(__file__))
    shown = path if path.isprintable() else ascii(path)
    try:
        from sockpid.bundle.bundle import LIMIT, verified
        from sockpid.bundle.memory import Finder
        from sockpid.errors import BundleError
    except Exception as error:  # whatever a damaged module raises
        print(f"sockpid: {shown}: the bundle is damaged: {type(error).__name__}: {error}", file=sys.stderr)
        return 16
    sys.path.pop(0)
    try:
        content = b""
        with open(path, "rb") as file:
            while len(content) <= LIMIT:
                piece = file.read(PIECE)  # Python makes room for all that is asked for
                if not piece:
                    break
                content += piece
        finder = Finder(path, content)
        for member in verified(content, shown):
            finder.add(member)
    except (BundleError, OSError) as error:
        print(f"sockpid: {error}", file=sys.stderr)
        return BundleError.exit_code
    for name in [name for name in sys.modules if name.partition(".")[0] == "sockpid"]:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    from sockpid.cli.cli import main as run

    return run()


# Whatever this is called: a byte changed in that name must not make it a program that does nothing, and says so.
sys.exit(main())
