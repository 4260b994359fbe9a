"""
Daft, Parquet to Parquet: an async class with one aiohttp session, as its users write it.
"""

from __future__ import annotations

import aiohttp
import daft  # type: ignore[import-not-found] # lives in its own environment

from tests.bench.peers.task import KEY, MODEL, Task, clocked, in_order

SCORES = daft.DataType.list(daft.DataType.float64())


def main() -> None:
    """
    Score every group of the source into Parquet.
    """
    task = Task.given()
    source = task.first_groups(task.output.parent / "few")

    @daft.cls(max_concurrency=task.in_flight)
    class Reranker:
        def __init__(self, url: str, in_flight: int) -> None:
            self._url = url
            self._in_flight = in_flight
            self._session: aiohttp.ClientSession | None = None

        @daft.method(return_dtype=SCORES)  # type: ignore[untyped-decorator] # Daft is not seen here
        async def scores(self, query: str, documents: list[str]) -> list[float]:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=self._in_flight),
                    headers={"Authorization": f"Bearer {KEY}"},
                )
            asked = {"model": MODEL, "query": query, "documents": documents}
            async with self._session.post(self._url, json=asked) as reply:
                reply.raise_for_status()
                results = (await reply.json())["results"]
            return in_order([(each["index"], each["relevance_score"]) for each in results])

    reranker = Reranker(task.url, task.in_flight)
    with clocked(task):
        groups = daft.read_parquet(str(source))
        scored = groups.select(
            groups["query_id"],
            reranker.scores(groups["query"], groups["documents"]).alias("scores"),
        )
        scored.write_parquet(str(task.output))


if __name__ == "__main__":
    main()
