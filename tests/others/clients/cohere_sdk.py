"""
The `cohere` SDK: `ClientV2.rerank`.
"""

from __future__ import annotations

import sys

from cohere import ClientV2  # type: ignore[import-not-found] # lives in its own environment

from tests.others.clients.asking import answer


def ask(key: str, query: str, documents: list[str]) -> list[tuple[int, float]]:
    """
    Ask once.
    """
    client = ClientV2(api_key=key, base_url=sys.argv[1], max_retries=0)
    reply = client.rerank(model="rerank-v3.5", query=query, documents=documents)
    return [(result.index, result.relevance_score) for result in reply.results]


if __name__ == "__main__":
    answer(ask)
