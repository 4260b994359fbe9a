"""
`batchrank serve`: the embedded rerank server, alone.

Its options are the server's dials; how they are read is the business of `rehearsal`. The one dial
without an option is the list of known keys: a key has no place on a command line, where every
process of the machine can read it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.saying import say

if TYPE_CHECKING:
    from batchrank.operate.serve import Server


class ScorerName(StrEnum):
    """
    Who makes the numbers.
    """

    LEXICAL = "lexical"
    HASHED = "hashed"


Latency = Annotated[
    str | None, typer.Option(help='Seconds: "0.15", "0.1..0.3", "lognormal:0.15,0.5".')
]
Limit = Annotated[
    str | None,
    typer.Option(help='Requests: "1000/min" (sliding), "fixed:1000/min", "bucket:100/s,10".'),
]
DocumentLimit = Annotated[str | None, typer.Option(help="The same, for documents.")]
RetryAfter = Annotated[
    str | None,
    typer.Option(
        help="How a 429 or 503 says when to come back: absent, seconds, date, milliseconds, absurd."
    ),
]
ConcurrencyMax = Annotated[int | None, typer.Option(help="More calls at once than this get a 529.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(help='By odds or by call number: "429:0.01", "529@17,40", "drop:0.001".'),
]
SlowBody = Annotated[
    float | None, typer.Option(help="How long a body drips that meets the fault slow-body (10).")
]
Price = Annotated[
    str | None,
    typer.Option(
        help="US dollars, for every model: "
        '"0.002/unit" (a search unit) or "0.05/mtok" (a million tokens).'
    ),
]
Usage = Annotated[
    str | None, typer.Option(help="What a reply tells of its bill: all, no-cost or none.")
]
Credit = Annotated[float | None, typer.Option(help="What each key can spend before it gets a 402.")]
KeyExpires = Annotated[
    str | None, typer.Option(help='From when on every key gets a 401: "2026-11-20T22:00:00Z".')
]
Models = Annotated[
    str | None,
    typer.Option(help='Those that exist: "a/b,c/d". Another gets a 404; unless told, all exist.'),
]
BodyMax = Annotated[int | None, typer.Option(help="A request of more bytes gets a 413 (32 MiB).")]
DocumentsMax = Annotated[
    int | None, typer.Option(help="A request with more documents is refused as too large.")
]
Seed = Annotated[int, typer.Option(help="Decides everything that looks random.")]
Scorer = Annotated[ScorerName, typer.Option(help="Real lexical scores, or cheap hashed ones.")]
UntilStdin = Annotated[
    bool, typer.Option("--until-stdin-closes", help="Leave when standard input ends.")
]


def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any free port.")] = 8765,
    latency: Latency = None,
    limit: Limit = None,
    document_limit: DocumentLimit = None,
    retry_after: RetryAfter = None,
    concurrency_max: ConcurrencyMax = None,
    fault: Faults = None,
    slow_body_s: SlowBody = None,
    price: Price = None,
    usage: Usage = None,
    credit_usd: Credit = None,
    key_expires_at: KeyExpires = None,
    models: Models = None,
    body_bytes_max: BodyMax = None,
    documents_max: DocumentsMax = None,
    seed: Seed = 0,
    scorer: Scorer = ScorerName.LEXICAL,
    until_stdin_closes: UntilStdin = False,
) -> None:
    """
    Serve OpenRouter's rerank API on this machine: no key, no cost, with faults on demand.

    Cohere's is at /v2/rerank, TEI's at /rerank. Any key is taken. The bill that it would have
    charged, and all it saw, are at /admin.

    What the options set can be changed while it runs: POST it as JSON to /admin/dials.
    """
    from batchrank.operate.serve import serve as serve_here

    dials = {
        "latency": latency,
        "limit": limit,
        "document_limit": document_limit,
        "retry_after": retry_after,
        "concurrency_max": concurrency_max,
        "faults": fault,
        "slow_body_s": slow_body_s,
        "price": price,
        "usage": usage,
        "credit_usd": credit_usd,
        "key_expires_at": key_expires_at,
        "models": models,
        "body_bytes_max": body_bytes_max,
        "documents_max": documents_max,
        "seed": seed,
    }
    serve_here(
        {name: value for name, value in dials.items() if value is not None},
        scorer.value,
        host=host,
        port=port,
        ready=_announce,
        until_stdin_closes=until_stdin_closes,
    )


def _announce(server: Server) -> None:
    """
    Some lines for people on a terminal, else one of JSON for programs.
    """
    say(_for_people(server) if sys.stdout.isatty() else json.dumps(asdict(server)))


def _for_people(server: Server) -> str:
    return (
        "OpenRouter's rerank API on this machine: any key will do, and nothing is charged.\n"
        f'  in a job file    [provider] base_url = "{server.base_url}"\n'
        f"  calls and bill   {server.admin}\n"
        "  Ctrl-C stops it."
    )
