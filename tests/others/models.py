"""
The small models that the tests build, and what sentence-transformers says of them by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.others.environments import ROOT, python_of
from tests.others.serving import QUIET

Row = Mapping[str, Any]

TOLERANCE = 1e-5
"""So far scores may lie apart: how a batch is padded moves the last bits of 32."""


def program(module: str, *arguments: object, told: str = "") -> str:
    """
    What a program of ours prints in the environment `local`.
    """
    done = subprocess.run(
        [python_of("local"), "-m", module, *map(str, arguments)],
        input=told,
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def build(folder: Path) -> Path:
    """
    Build all of them into *folder*: `tiny`, and those that are no rerankers.
    """
    program("tests.others.tiny", folder)
    return folder


def said_directly(model: Path, rows: Sequence[Row], activation: str = "sigmoid") -> list[float]:
    """
    The scores of all rows' documents, in order.
    """
    asked = [[row["query"], [each["text"] for each in row["documents"]]] for row in rows]
    lines = "".join(f"{json.dumps(group)}\n" for group in asked)
    said = program("tests.others.direct", model, activation, told=lines)
    return [score for line in said.splitlines() for score in json.loads(line)]


def in_order(rows: Sequence[Row]) -> list[float]:
    """
    An output's scores by group and place in it.
    """
    ordered = sorted(rows, key=lambda row: (row["query_id"], row["index"]))
    return [row["relevance_score"] for row in ordered]
