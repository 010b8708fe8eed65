"""Python's bytecode beside the modules of a bundle: a Python of that version starts without compiling them each time.

Other versions see by the first bytes that it is not theirs, and take the source.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Mapping

from sockpid.errors import UsageError

_COMPILE = "import compileall, py_compile, sys; sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, legacy=True, \
stripdir=sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"
"""Next to the sources, which is where zipimport looks; with paths as in the bundle; never held against the source, for
all of a bundle is held against its manifest. Needs Python 3.9."""


def precompile(files: Mapping[str, bytes], python: str) -> Dict[str, bytes]:
    """The bytecode of the modules among `files`, by name in the bundle, as `python` (an interpreter) compiles them.

    Raises UsageError if that cannot be run, or cannot compile them.
    """
    with tempfile.TemporaryDirectory(prefix="sockpid.") as directory:
        root = Path(directory)
        for name, content in files.items():
            if name.endswith(".py"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
        try:
            # Hashes of strings decide in which order sets are written.
            environment = {"PYTHONHASHSEED": "0"}
            command = [python, "-S", "-c", _COMPILE, directory]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        except OSError as error:
            raise UsageError(f"--precompile {python}: {error.strerror}") from None
        if done.returncode:
            told = (done.stderr or done.stdout).strip().splitlines()
            raise UsageError(f"--precompile {python}: it did not compile the modules: {(told or ['no reason'])[-1]}")
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.pyc"))}
