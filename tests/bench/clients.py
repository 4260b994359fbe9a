"""
The other sides, each in a process of its own: bodies out, replies in, nothing else.

`python -m tests.bench.clients NAME URL SOURCE COUNT IN_FLIGHT` prints requests per second as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvloop

from tests.bench.material import bodies

HEADERS = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
DIFFERENT = 500

Send = Callable[[bytes], Awaitable[int]]


@asynccontextmanager
async def bare_aiohttp(url: str, in_flight: int) -> Any:
    """
    One aiohttp session, as fast as it goes.
    """
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(body: bytes) -> int:
            async with session.post(url, data=body, headers=HEADERS) as reply:
                return len(await reply.read())

        yield send


@asynccontextmanager
async def stock_httpx(url: str, in_flight: int) -> Any:
    """
    One `httpx.AsyncClient` with a pool as large as what is in flight.
    """
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as client:

        async def send(body: bytes) -> int:
            return len((await client.post(url, content=body, headers=HEADERS)).content)

        yield send


CLIENTS = {"bare aiohttp": bare_aiohttp, "stock httpx": stock_httpx}


async def measure(name: str, url: str, source: Path, count: int, in_flight: int) -> float:
    """
    Requests per second of one side.
    """
    ready = bodies(source, min(count, DIFFERENT))
    left: Iterator[bytes] = (ready[n % len(ready)] for n in range(count))
    async with CLIENTS[name](f"{url}/rerank", in_flight) as send:

        async def worker() -> None:
            for body in left:
                await send(body)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return count / (time.perf_counter() - began)


def main() -> None:
    """
    Measure what the command line says.
    """
    name, url, source, count, in_flight = sys.argv[1:]
    rate = uvloop.run(measure(name, url, Path(source), int(count), int(in_flight)))
    print(json.dumps(rate))


if __name__ == "__main__":
    main()
