"""The command image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List

import typer

from sockpid.errors import UsageError

from .shared import app


@app.command()
def image(
    object_file: Annotated[Path, typer.Argument(metavar="OBJECT", help="What clang made of the BPF C sources.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The image to write.")],
    source: Annotated[List[Path], typer.Option(metavar="FILE", help="A source of OBJECT, for the digest; repeatable.")],
) -> None:
    """Link a BPF object into a bytecode image, with relocations by name.

    [bold]Example[/bold]

      sockpid-gen image sockpid.bpf.o -o sockpid.bpfel.json --source sockpid.bpf.c --source kernel.h
    """
    from sockpid_gen.image import image as linker
    from sockpid_gen.table import shard

    try:
        content = linker.build(object_file, source)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    shard.write(output, content)
