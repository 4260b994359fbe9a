"""
`batchrank init`: write a commented job file to start from.

Tells what was written, and what to do next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.saying import say


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE")] = Path("job.toml"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """
    Write a commented job file to start from, and the schema for editors beside it.
    """
    from batchrank.operate.init import write_job_file

    for written in write_job_file(path, force=force):
        say(f"wrote {written}")
    say(f"next: edit it, then `batchrank plan {path}`")
