"""
What each of these programs does: reads a question a line, asks it, prints what came.

`python -m tests.others.clients.NAME BASE_URL`: lines are JSON. In goes `[key, query, documents]`;
out comes `{"scores": [...]}` in the documents' order, or `{"raised": class, "status": number}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

Ask = Callable[[str, str, list[str]], Sequence[tuple[int, float]]]
"""From a key, a query and its documents to indices and scores."""


def answer(ask: Ask) -> None:
    """
    Ask until standard input ends. What a client raises is what is looked at, whatever it is.
    """
    for line in sys.stdin:
        key, query, documents = json.loads(line)
        said: dict[str, object]
        try:
            said = {"scores": [score for _, score in sorted(ask(key, query, documents))]}
        except Exception as error:  # noqa: BLE001 - told by its name
            said = {"raised": type(error).__name__, "status": getattr(error, "status_code", None)}
        print(json.dumps(said), flush=True)
