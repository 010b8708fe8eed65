"""Who signed a bundle: detached signatures of OpenSSH (ssh-keygen -Y, PROTOCOL.sshsig), checked by ssh-keygen itself.

The signature of FILE is FILE.sig, in the namespace "sockpid". The keyring is a file of allowed signers (ssh-keygen(1)).
What runs ssh-keygen is given by the caller.
"""

from __future__ import annotations

from typing import Callable, List, Optional, Tuple

from sockpid.errors import BundleError
from sockpid.event.text import printable

NAMESPACE = "sockpid"

Run = Callable[[List[str], Optional[bytes]], Tuple[int, str]]
"""Runs a command with these bytes (None: nothing) as its standard input. Returns its exit status and all that it
printed. Raises OSError if there is no such command."""


def sign(path: str, content: bytes, key: str, run: Run) -> str:
    """The signature of a file that has this content. Raises BundleError."""
    status, said = _try(run, ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", NAMESPACE], content)
    begin = said.find("-----BEGIN SSH SIGNATURE-----")
    if status != 0 or begin < 0:
        raise BundleError(f"sign {printable(path)} with {key}: {_telling(said)}")
    return said[begin:]


def verify(path: str, content: bytes, keyring: str, run: Run) -> str:
    """Who signed this content, by the signature that lies beside the file it was read from; one whom the keyring
    allows. Raises BundleError if there is none."""
    signature = f"{path}.sig"
    find = ["ssh-keygen", "-Y", "find-principals", "-s", signature, "-f", keyring]
    status, said = _try(run, find, None)
    if status != 0:
        raise BundleError(f"{printable(path)}: no signature of anybody in {keyring}: {_telling(said)}")
    reasons = ""
    for signer in said.splitlines():
        check = ["ssh-keygen", "-Y", "verify", "-f", keyring, "-I", signer, "-n", NAMESPACE, "-s", signature]
        status, reasons = _try(run, check, content)
        if status == 0:
            return signer
    raise BundleError(f"{printable(path)}: {printable(signature)} is not a signature of this file: {_telling(reasons)}")


def _try(run: Run, command: List[str], stdin: Optional[bytes]) -> Tuple[int, str]:
    try:
        return run(command, stdin)
    except OSError as error:
        what = f"{error.filename or command[0]}: {error.strerror}"
        raise BundleError(f"{what} (signatures need OpenSSH 8.2 or later)") from None


def _telling(said: str) -> str:
    return (
        "; ".join(printable(line.strip()) for line in said.splitlines() if line.strip())
        or "ssh-keygen does not say why"
    )
