"""
Arguments that several commands share.

Owns how `--set NAME=VALUE` is read. What a variable means is the job file's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).")]

Variables = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a variable of the job file."),
]

Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Agree to what it may cost (budget.confirm_usd): ask nobody."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON, for programs.")]


def overrides(given: list[str] | None) -> dict[str, str]:
    """
    `--set name=value`, read.
    """
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, found {text!r}", param_hint="--set")
        pairs[name] = value
    return pairs
