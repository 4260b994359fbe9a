"""
`batchrank serve`: the embedded rerank server, alone.

Its options are the server's dials; how they are read is the business of `rehearsal`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from batchrank.cli.saying import say


class ScorerName(StrEnum):
    """
    Who makes the numbers.
    """

    LEXICAL = "lexical"
    HASHED = "hashed"


def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any free port.")] = 8765,
    latency: Annotated[
        str | None, typer.Option(help='Seconds: "0.15", "0.1..0.3", "lognormal:0.15,0.5".')
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(help='Requests: "1000/min" (sliding), "fixed:1000/min", "bucket:100/s,10".'),
    ] = None,
    document_limit: Annotated[str | None, typer.Option(help="The same, for documents.")] = None,
    retry_after: Annotated[
        str | None, typer.Option(help="absent, seconds, date, milliseconds or absurd.")
    ] = None,
    concurrency_max: Annotated[
        int | None, typer.Option(help="More calls at once than this get a 529.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help='By odds or by call number: "429:0.01", "529@17,40", "drop:0.001".'),
    ] = None,
    credit_usd: Annotated[float | None, typer.Option(help="What each key can spend.")] = None,
    seed: Annotated[int, typer.Option(help="Decides everything that looks random.")] = 0,
    scorer: Annotated[
        ScorerName, typer.Option(help="Real lexical scores, or cheap hashed ones.")
    ] = ScorerName.LEXICAL,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Leave when standard input ends.")
    ] = False,
) -> None:
    """
    Serve OpenRouter's rerank API on this machine: no key, no cost, with faults on demand.

    Any key is taken. The bill that it would have charged, and all it saw, are at /admin.
    """
    from batchrank.operate.serve import Server
    from batchrank.operate.serve import serve as serve_here

    def ready(server: Server) -> None:
        say(json.dumps(asdict(server)))

    dials = {
        "latency": latency,
        "limit": limit,
        "document_limit": document_limit,
        "retry_after": retry_after,
        "concurrency_max": concurrency_max,
        "faults": fault,
        "credit_usd": credit_usd,
        "seed": seed,
    }
    serve_here(
        {name: value for name, value in dials.items() if value is not None},
        scorer.value,
        host=host,
        port=port,
        ready=ready,
        until_stdin_closes=until_stdin_closes,
    )
