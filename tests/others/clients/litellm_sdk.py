"""
`litellm.arerank`, through its Cohere provider.
"""

from __future__ import annotations

import asyncio
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks for prices when it is imported

import litellm  # type: ignore[import-not-found] # lives in its own environment

from tests.others.clients.asking import answer

litellm.suppress_debug_info = True  # it goes to standard output


def ask(key: str, query: str, documents: list[str]) -> list[tuple[int, float]]:
    """
    Ask once.
    """
    reply = asyncio.run(
        litellm.arerank(
            model="rerank-v3.5",
            query=query,
            documents=documents,
            custom_llm_provider="cohere",
            api_key=key,
            api_base=sys.argv[1],
            max_retries=0,
        )
    )
    return [(each["index"], each["relevance_score"]) for each in reply.results]


if __name__ == "__main__":
    answer(ask)
