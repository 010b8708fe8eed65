"""A kernel's DWARF found elsewhere by its build-id: in /usr/lib/debug, or on a debuginfod server. drgn knows where."""

from __future__ import annotations

import os
from typing import BinaryIO, Optional, Sequence

from sockpid.arch import Arch
from sockpid.errors import UsageError

FINDERS = ("standard", "debuginfod")
"""drgn's finders. standard: below /usr/lib/debug; debuginfod: the servers in DEBUGINFOD_URLS."""

_PATIENCE = {"DEBUGINFOD_TIMEOUT": "20", "DEBUGINFOD_RETRY_LIMIT": "1"}
"""So that a server out of reach costs seconds (man 7 debuginfod-client-config); what the user has set counts."""


def find(build_id: str, arch: Arch, finders: Sequence[str]) -> Optional[BinaryIO]:
    """The debug file of the kernel with this build-id (hex), opened; None if none of `finders` has it.

    Raises UsageError for a finder that is none of FINDERS, or that drgn was built without.
    """
    import drgn

    from sockpid_gen.btf.finder import platform

    prog = drgn.Program(platform(arch))
    unknown = set(finders) - set(prog.registered_debug_info_finders()) or set(finders) - set(FINDERS)
    if unknown:
        raise UsageError(f"--find {', '.join(sorted(unknown))}: drgn here only knows {', '.join(FINDERS)}")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    module = prog.extra_module("vmlinux", create=True)
    module.build_id = bytes.fromhex(build_id)
    prog.set_enabled_debug_info_finders(list(finders))
    prog.load_module_debug_info(module)
    return open(module.debug_file_path, "rb") if module.debug_file_path else None
