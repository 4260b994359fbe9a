"""
What every fork has in memory: loaded by the server that forks (see `forks`), and by nobody else.

Whatever a run, a server or a staging imports when it comes to it is imported here, once. All of it
is set apart from the garbage collector, which would look through it in each fork, and by that have
its pages copied.
"""

import atexit
import gc
import os
from importlib import import_module

for name in (
    "anyio._backends._asyncio",
    "anyio.to_thread",
    "duckdb",
    "pyarrow.dataset",
    "structlog",
    "uvloop",
    "batchrank.cli.watching",
    "batchrank.job",
    "batchrank.observe.logs",
    "batchrank.observe.pulse",
    "batchrank.operate.backfill",
    "batchrank.operate.serve",
    "tests.e2e.jobs",
    "tests.e2e.killing",
):
    import_module(name)

gc.collect()
gc.freeze()

# Nothing is to be tidied up, and DuckDB's binding tells a page about what is frozen. Forks do not
# come by here: multiprocessing ends them.
atexit.register(os._exit, 0)
