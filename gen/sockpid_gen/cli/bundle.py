"""Commands of the generator that make bundles and look at them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Annotated, List, Optional, Tuple

import typer
from rich.markup import escape

from sockpid.arch import of_machine
from sockpid.bundle import signature
from sockpid.bundle.bundle import unpack
from sockpid.errors import UsageError
from sockpid.event.text import printable

from .shared import DEFAULT_OFFSETS, Json, ReadOffsets, app, out


@app.command()
def bundle(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write.")],
    offsets: ReadOffsets = DEFAULT_OFFSETS,
    arch: Annotated[
        Optional[List[str]], typer.Option(metavar="MACHINE", help="Kernels of this architecture; repeatable.")
    ] = None,
    series: Annotated[
        Optional[List[str]], typer.Option(metavar="X.Y", help="Kernels of this series; repeatable.")
    ] = None,
    release: Annotated[
        Optional[List[str]], typer.Option(metavar="GLOB", help="Kernels whose release fits; repeatable.")
    ] = None,
    build_id: Annotated[
        Optional[List[str]], typer.Option(metavar="HEX", help="Kernels whose build-id starts so; repeatable.")
    ] = None,
    without_pyroute2: Annotated[
        bool, typer.Option("--without-pyroute2", help="Leave out pyroute2; sockets are then listed from /proc/net.")
    ] = False,
    precompile: Annotated[
        Optional[str],
        typer.Option(
            metavar="PYTHON",
            help="Add bytecode of this interpreter: with its version, bundles start faster.",
        ),
    ] = None,
    sign: Annotated[
        Optional[Path], typer.Option(metavar="KEY", help="Sign with this OpenSSH key, into FILE.sig.")
    ] = None,
    standalone: Annotated[
        bool,
        typer.Option("--standalone", help="Make a program for hosts without Python, with the Python of this machine."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one file that holds all that a host needs: `python3 sockpid.pyz run`.

    It runs with Python 3.7 or later and its standard library. The same
    inputs make the same bytes. It looks at every byte of itself when it
    starts; that finds damage. Only a signature, checked from outside, finds
    an attacker.

    [bold]Examples[/bold]

      sockpid-gen bundle -o sockpid.pyz   [dim]# every kernel of the tables[/dim]

      sockpid-gen bundle -o web.pyz --arch x86_64 --release '6.1.0-*-cloud-amd64'

      sockpid-gen bundle -o one.pyz --build-id 3b43fad5 --without-pyroute2

      sockpid-gen bundle -o sockpid.pyz --precompile python3.11   [dim]# other versions take the source[/dim]

      sockpid-gen bundle -o sockpid.pyz --sign ~/.ssh/id_ed25519

      sockpid-gen bundle -o sockpid --standalone   [dim]# `./sockpid --version` says which C library it takes[/dim]
    """
    from sockpid_gen.bundle import bundle as bundles
    from sockpid_gen.table import shard

    if standalone:
        arch = [_demand_here(arch or [])]
    choice = bundles.Choice(arch or (), series or (), release or (), build_id or ())
    built = bundles.build(offsets, choice, not without_pyroute2, precompile)
    content, about = built.content, None
    if standalone:
        from sockpid_gen.bundle import standalone as programs

        content, about = programs.build(unpack(content, str(output))[1], content)
    shard.write(output, content, 0o755)
    signed = Path(f"{output}.sig")
    if sign is not None:
        shard.write(signed, signature.sign(str(output), content, str(sign), _run).encode())
    elif signed.exists():
        signed.unlink()  # it is of the bundle that was here before
    digest = hashlib.sha256(content).hexdigest()
    if as_json:
        document = {
            "file": str(output),
            "bytes": len(content),
            "sha256": digest,
            "kernels": [{"arch": machine, "release": name} for machine, name in built.kernels],
            "packages": built.packages,
            "signature": str(signed) if sign is not None else None,
            "standalone": about,
        }
        print(json.dumps(document, indent=1))
        return
    brought = "".join(f", {name} {about['version']}" for name, about in built.packages.items())
    out.print(f"[green]wrote[/green] {output}: {len(built.kernels)} kernels{brought}, {len(content):,} bytes")
    if about:
        out.print(about.splitlines()[1])
    out.print(f"sha256 {digest}" + (f", signed in {signed}" if sign is not None else ""))


def _demand_here(archs: List[str]) -> str:
    """The one architecture that a standalone program can be for."""
    from sockpid_gen.bundle.standalone import architecture

    here = architecture()
    others = [name for name in archs if of_machine(name).name != here]
    if others:
        raise UsageError(f"--standalone takes along the Python of this machine: for {here} alone, not {others[0]}")
    return here


@app.command()
def verify_bundle(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.")],
    keyring: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Demand a signature of one of these allowed signers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at every byte of a bundle from outside, and at its signature.

    Nothing in the file is run. `ssh-keygen -Y verify -n sockpid` does the
    same for the signature on a host without sockpid-gen.

    [bold]Examples[/bold]

      sockpid-gen verify-bundle sockpid.pyz

      sockpid-gen verify-bundle sockpid.pyz --keyring allowed_signers
    """
    from sockpid_gen.bundle import bundle as bundles

    # Once: what is said is said of these bytes, whatever becomes of the file.
    content, shown = bundles.read(path), printable(str(path))
    manifest, files = unpack(content, shown)
    signer = signature.verify(str(path), content, str(keyring), _run) if keyring is not None else None
    digest = hashlib.sha256(content).hexdigest()
    if as_json:
        print(json.dumps({**manifest, "file": str(path), "sha256": digest, "signer": signer}, indent=1))
        return
    by = escape(manifest["producer"])
    out.print(f"[green]ok[/green] {escape(shown)}: {len(files)} members, {manifest['kernels']} kernels, by {by}")
    said = f"signed by {escape(printable(signer))}" if signer else "signature not looked at"
    out.print(f"sha256 {digest}, {said}")


def _run(command: List[str], stdin: Optional[bytes]) -> Tuple[int, str]:
    """How `sockpid.bundle.signature` runs ssh-keygen here."""
    try:
        done = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")
