"""
The `openrouter` SDK under a semaphore: one client, httpx's own pool, but large enough.
"""

from __future__ import annotations

import asyncio

from openrouter import OpenRouter  # type: ignore[import-not-found] # lives in its own environment

from tests.bench.peers.pool import pool
from tests.bench.peers.task import KEY, MODEL, Task, in_order, under_a_semaphore


async def main() -> None:
    """
    Ask about every group.
    """
    task = Task.given()
    async with pool(task.in_flight) as client:
        sdk = OpenRouter(api_key=KEY, server_url=task.base_url, async_client=client)

        async def ask(query: str, documents: list[str]) -> list[float]:
            reply = await sdk.rerank.rerank_async(model=MODEL, query=query, documents=documents)
            return in_order([(result.index, result.relevance_score) for result in reply.results])

        await under_a_semaphore(task, ask)


if __name__ == "__main__":
    asyncio.run(main())
