"""
Ray Data, Parquet to Parquet: an actor whose batches are gathered over one aiohttp session.
"""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import pyarrow as pa
import ray  # type: ignore[import-not-found] # lives in its own environment

from tests.bench.peers.task import KEY, MODEL, Task, clocked, in_order

BATCH_GROUPS = 64
ACTOR_CPUS = 0.25
"""It mostly waits; with a whole core of its own it would keep reading and writing from one."""


class Reranker:
    """
    What each actor is: one session, and no more calls at once than it may have.
    """

    def __init__(self, url: str, in_flight: int) -> None:
        self._url = url
        self._in_flight = in_flight
        self._session: aiohttp.ClientSession | None = None
        self._semaphore = asyncio.Semaphore(in_flight)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """
        Score a batch.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._in_flight),
                headers={"Authorization": f"Bearer {KEY}"},
            )
        pairs = zip(batch["query"].to_pylist(), batch["documents"].to_pylist(), strict=True)
        scores = await asyncio.gather(*(self._scores(*pair) for pair in pairs))
        return batch.select(["query_id"]).append_column("scores", pa.array(scores))

    async def _scores(self, query: str, documents: list[str]) -> list[float]:
        assert self._session is not None
        asked = {"model": MODEL, "query": query, "documents": documents}
        async with self._semaphore, self._session.post(self._url, json=asked) as reply:
            reply.raise_for_status()
            results = (await reply.json())["results"]
        return in_order([(each["index"], each["relevance_score"]) for each in results])


def main() -> None:
    """
    Score every group of the source into Parquet.
    """
    task = Task.given()
    source = task.first_groups(task.output.parent / "few")
    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with clocked(task):
        groups = ray.data.read_parquet(str(source))
        scored = groups.map_batches(
            Reranker,
            fn_constructor_args=(task.url, task.in_flight),
            batch_size=BATCH_GROUPS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=ACTOR_CPUS,
        )
        scored.write_parquet(str(task.output))
    ray.shutdown()


if __name__ == "__main__":
    main()
