"""
`batchrank providers`: who can be asked, and what is known of them.

What is known stands in `providers`, as data.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson
from batchrank.cli.saying import say


def providers(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them; all unless told.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    List the providers with their limits, prices and scores, and how each of that is known.

    Calls nobody; needs no key and no job file.
    """
    from batchrank.examine.providers import providers as known

    found = known(name)
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
