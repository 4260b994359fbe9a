"""
The `openrouter` SDK: `OpenRouter.rerank.rerank`.
"""

from __future__ import annotations

import sys

from openrouter import OpenRouter  # type: ignore[import-not-found] # lives in its own environment
from openrouter.utils import RetryConfig  # type: ignore[import-not-found] # as above

from tests.others.clients.asking import answer


def ask(key: str, query: str, documents: list[str]) -> list[tuple[int, float]]:
    """
    Ask once.
    """
    once = RetryConfig("none", None, retry_connection_errors=False)
    client = OpenRouter(api_key=key, server_url=f"{sys.argv[1]}/api/v1", retry_config=once)
    reply = client.rerank.rerank(model="cohere/rerank-v3.5", query=query, documents=documents)
    return [(result.index, result.relevance_score) for result in reply.results]


if __name__ == "__main__":
    answer(ask)
