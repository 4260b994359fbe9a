"""
`litellm.arerank` under a semaphore, through its Cohere provider.
"""

from __future__ import annotations

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks for prices when it is imported

import litellm  # type: ignore[import-not-found] # lives in its own environment

from tests.bench.peers.task import KEY, MODEL, TIMEOUT_S, Task, in_order, under_a_semaphore


async def main() -> None:
    """
    Ask about every group.
    """
    task = Task.given()

    async def ask(query: str, documents: list[str]) -> list[float]:
        reply = await litellm.arerank(
            model=MODEL,
            query=query,
            documents=documents,
            custom_llm_provider="cohere",
            api_key=KEY,
            api_base=task.base_url,
            timeout=TIMEOUT_S,
        )
        return in_order([(each["index"], each["relevance_score"]) for each in reply.results])

    await under_a_semaphore(task, ask)


if __name__ == "__main__":
    asyncio.run(main())
