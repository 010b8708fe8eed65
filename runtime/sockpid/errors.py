"""The tree of errors; the exit code of each is documented here and in README.md.

SockpidError                         1
 +- UsageError                       2   bad command line or option value
 +- CapabilityError                  3   the process lacks a Linux capability
 +- UnknownKernelError               4   no table entry and no BTF for the running kernel
 |   +- OtherKernelError            13   --offsets FILE speaks of other kernels only
 |   +- ConsensusError               4   --consensus, and the builds that are known do not agree
 +- TableError                       5   offset table damaged or not in canonical form
 |   +- SchemaError                  6   offset table or image of a schema this reader does not know
 |   +- ConflictError                5   two sources say different things of one kernel
 +- BtfError                         7   BTF truncated or malformed
 +- SelfCheckError                   8   a field read back from the live kernel is not what it must be
 +- ProgError                        9   the kernel refused a BPF program or map
 |   +- VerifierError                9   as above, with the verifier's log
 +- AttachError                     10   no mechanism of a mandatory hook was accepted
 +- UnsupportedArchError            11   this machine's architecture is not one we know
 +- ImageError                      12   bytecode image damaged, or a relocation cannot be satisfied
 |   +- RelocationError             12   the field it names is in the error
 +- SourceError                     14   a kernel package, vmlinux or archive cannot be read
 |   +- NoTypesError                14   the kernel was read, but has neither BTF nor DWARF
 +- PinError                        15   the directory of pins is in use, not to be trusted, or holds no map of ours
 +- BundleError                     16   the bundle is damaged, altered, or not signed as demanded
 +- InstallError                    17   a file cannot be installed or taken away
 +- OutputError                     18   an output of `run` cannot be opened
 +- CalibrationError                19   a field of the running kernel was not found, or found at several places
 +- RequestError                    20   a request file is damaged, or was copied with a mistake
 +- SyscallError (also OSError)      1   any other refusal of the kernel
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Tuple


class SockpidError(Exception):
    """Base of every error that sockpid raises on purpose. `exit_code` is what the commands exit with."""

    exit_code = 1


class UsageError(SockpidError):
    exit_code = 2


class CapabilityError(SockpidError):
    """The process lacks a capability. `capability` is its name, such as "CAP_BPF"."""

    exit_code = 3

    def __init__(self, message: str, capability: str) -> None:
        super().__init__(message)
        self.capability = capability


class UnknownKernelError(SockpidError):
    """No offsets are known for the running kernel. `nearest` lists releases that the table does have."""

    exit_code = 4

    def __init__(self, message: str, nearest: Tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest


class OtherKernelError(UnknownKernelError):
    exit_code = 13


class ConsensusError(UnknownKernelError):
    """The builds that a table has are too few, or differ. `field` is the first they differ in, if they do."""

    def __init__(self, message: str, field: Optional[str]) -> None:
        super().__init__(message)
        self.field = field


class TableError(SockpidError):
    exit_code = 5


class SchemaError(TableError):
    exit_code = 6


class ConflictError(TableError):
    """Two sources differ about a kernel. `conflicts` holds one line for each kernel, with both sources."""

    def __init__(self, message: str, conflicts: List[str]) -> None:
        super().__init__(message)
        self.conflicts = conflicts


class BtfError(SockpidError):
    exit_code = 7


class SelfCheckError(SockpidError):
    """Fields read back from a socket of our own differ from what is known. `mismatches` holds one line each."""

    exit_code = 8

    def __init__(self, message: str, mismatches: List[str]) -> None:
        super().__init__(message)
        self.mismatches = mismatches


class ProgError(SockpidError):
    exit_code = 9


class VerifierError(ProgError):
    """The verifier refused a program. `log` is all it said; str() shows its last telling line."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class AttachError(SockpidError):
    """No mechanism of a mandatory hook was accepted. `reasons` holds (mechanism, what the kernel answered)."""

    exit_code = 10

    def __init__(self, message: str, reasons: List[Tuple[str, str]]) -> None:
        super().__init__(message)
        self.reasons = reasons


class UnsupportedArchError(SockpidError):
    exit_code = 11


class ImageError(SockpidError):
    exit_code = 12


class RelocationError(ImageError):
    """A relocation cannot be resolved. `type_name` and `path` name the C field."""

    def __init__(self, message: str, type_name: str, path: str) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.path = path


class SourceError(SockpidError):
    exit_code = 14


class NoTypesError(SourceError):
    pass


class PinError(SockpidError):
    exit_code = 15


class BundleError(SockpidError):
    exit_code = 16


class InstallError(SockpidError):
    exit_code = 17


class OutputError(SockpidError):
    exit_code = 18


class CalibrationError(SockpidError):
    """`fields` names what could not be found, and why: "struct sock.sk_protocol: 2 places fit: 516, 772"."""

    exit_code = 19

    def __init__(self, message: str, fields: List[str]) -> None:
        super().__init__(message)
        self.fields = fields


class RequestError(SockpidError):
    exit_code = 20


class SyscallError(SockpidError, OSError):
    """A system call was refused. `name` is the call, such as "bpf(BPF_MAP_CREATE)"; `errno` the kernel's answer."""

    def __init__(self, name: str, errno: int, detail: Optional[str] = None) -> None:
        OSError.__init__(self, errno, os.strerror(errno))
        self.name = name
        self.detail = detail

    def __str__(self) -> str:
        what = f"{self.name}: {self.strerror}"
        return f"{what} ({self.detail})" if self.detail else what
