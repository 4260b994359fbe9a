"""
Real abstracts under a limit that the server enforces, too: how close to the limit a job comes.

The one bench against the embedded server, because it refuses what is too fast.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchrank.operate.serve import server
from tests.bench.children import ROOT, run
from tests.bench.material import KEY, Tables, write_job
from tests.bench.sides import BATCHRANK

SCIFACT = ROOT.parent / "shared/data/scifact/groups_test.parquet"
"""300 queries, 100 abstracts each; not part of this repository."""

LIMIT_PER_MINUTE = 3_000
IN_FLIGHT = 32


def limited(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """
    Run SciFact at the limit; None where its groups are not to be had.
    """
    if not SCIFACT.exists():
        say("limit: not measured, SciFact is not here")
        return None
    tables: Tables = {
        "source": {"doc_id": "id", "text": "text"},
        "limits": {"requests_per_minute": LIMIT_PER_MINUTE, "concurrency": IN_FLIGHT},
    }
    place = folder / "limited"
    place.mkdir()
    with server(["--limit", f"{LIMIT_PER_MINUTE}/min", "--latency", "0.15"]) as embedded:
        job = write_job(place, SCIFACT, embedded.base_url, tables)
        done = run([*BATCHRANK, "run", str(job), "--json"], KEY).said
        run([*BATCHRANK, "verify", str(job), "--json"], {})
        seen = embedded.account()
    shutil.rmtree(place)
    found = {
        "groups": done["groups"],
        "rows": done["rows"],
        "rejected": done["rejected"],
        "refused": seen["limit_refusals"],
        "elapsed_s": done["elapsed_s"],
        "allowed_s": 60 * done["groups"] / LIMIT_PER_MINUTE,
    }
    say(f"limit: {found}")
    return found
