"""
Jobs for tests that start and stop real processes: a source and a job file in a folder, the embedded
server in a process of its own, `batchrank` in another, and what the server and the ledger say.

Every process is started within a context that kills it. Nothing here asserts.
"""

from __future__ import annotations

import gc
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.cli.main import outcome
from batchrank.domain import PERHAPS_BILLED, Positions
from batchrank.examine.verify import verify
from batchrank.job import Job, load
from batchrank.operate.serve import Server
from batchrank.policy.capacity import Bounds
from batchrank.policy.slicing import requests
from batchrank.source.parquet import open_source
from batchrank.store.parts import sha256_of
from batchrank.store.reading import LedgerReader
from tests.e2e.forks import FORKS, Fork, command

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-or-v1-for-tests-only"
MODEL = "cohere/rerank-v3.5"

PATIENCE_S = 30.0
"""No process of these tests takes longer for anything, on a busy machine either."""


# --- a job ----------------------------------------------------------------------------------------


def write_source(folder: Path, groups: int, documents: int = 2, row_group: int = 256) -> Path:
    """
    Write so many groups with small texts to `groups.parquet`; no two ask the same.
    """
    texts = [
        [{"id": f"d{p}-{d}", "text": f"passage {d} about subject {p}"} for d in range(documents)]
        for p in range(groups)
    ]
    kind = pa.list_(pa.struct([("id", pa.string()), ("text", pa.string())]))
    table = pa.table(
        {
            "query_id": [f"q{p}" for p in range(groups)],
            "query": [f"what is subject {p}" for p in range(groups)],
            "documents": pa.array(texts, kind),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "groups.parquet"
    pq.write_table(table, path, row_group_size=row_group)
    return path


def at_full_speed(limits: Mapping[str, Any]) -> dict[str, Any]:
    """
    *limits*, and without one of requests the word that there is none: no time to look for it.
    """
    told = any(key.startswith("requests") for key in limits)
    return dict(limits) if told else {**limits, "unlimited": True}


def write_job(
    folder: Path,
    base_url: str,
    *,
    file: str = "job.toml",
    source: Path | str | None = None,
    concurrency_max: int = 8,
    output: Mapping[str, object] | None = None,
    **tables: Mapping[str, object],
) -> Path:
    """
    Write a job file that asks the server at *base_url*; *tables* are further ones of it.
    """
    written: dict[str, Mapping[str, object]] = {
        "source": {
            "path": str(source or "groups.parquet"),
            "query_id": "query_id",
            "doc_id": "id",
            "text": "text",
        },
        "provider": {"name": "openrouter", "model": MODEL, "base_url": base_url, "key_file": "key"},
        "limits": {"concurrency_max": concurrency_max},
        "output": {"path": "out/scores", **(output or {})},
    }
    for name, table in tables.items():
        written[name] = {**written.get(name, {}), **table}
    written["limits"] = at_full_speed(written["limits"])
    lines = []
    for name, table in written.items():
        lines.append(f"[{name}]")
        # JSON's texts, numbers and booleans are TOML's too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    path = folder / file
    path.write_text("\n".join(lines) + "\n")
    return path


# --- the server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """
    What the server counted: calls that *arrived*, those *billed*, and its bill in 10^-9 US dollars.
    """

    arrived: int = 0
    billed: int = 0
    in_flight: int = 0
    nano_usd: int = 0


class Watched:
    """
    An embedded server in a process of its own, and what it counted.
    """

    def __init__(self, running: Server) -> None:
        self.base_url = running.base_url
        self.turn = running.turn
        self.reset = running.reset
        self._running = running

    @property
    def port(self) -> int:
        """
        Where it listens.
        """
        return int(self.base_url.rpartition(":")[2].partition("/")[0])

    def account(self) -> Account:
        """
        What it has counted until now.
        """
        seen = self._running.account()
        owed = sum(bill["nano_usd"] for bill in seen["bill"].values())
        return Account(seen["calls"], seen["billed_calls"], seen["in_flight"], owed)

    def settled(self) -> Account:
        """
        The same once nobody waits for an answer, and nothing that was sent is still to be read.
        """
        quiet = 0
        last = self.account()
        for _ in patiently():
            now = self.account()
            quiet = quiet + 1 if now == last and not now.in_flight else 0
            if quiet == 3:
                break
            last = now
        return last

    def arrivals(self) -> Counter[str]:
        """
        How often each request body came, by its digest.
        """
        return Counter(self._running.arrivals()["digest"])

    def arrived_at(self) -> list[float]:
        """
        When each call came, by the clock of `time.monotonic`, the first one first.
        """
        return sorted(self._running.arrivals()["at_s"])


@contextmanager
def embedded(*options: str) -> Iterator[Watched]:
    """
    Start the embedded server, a fork, with the options of `batchrank serve`.
    """
    told, held = FORKS.Pipe(duplex=False)
    with TemporaryDirectory(prefix="serve-") as folder, held:
        out, err = (Path(folder) / stream for stream in ("out", "err"))
        out.touch()
        err.touch()
        fork = Fork(command, out, err, (*SERVE, *options), told)
        told.close()
        try:
            until(lambda: out.read_text().endswith("\n") or fork.poll() is not None)
            said = out.read_text()
            assert said, err.read_text()
            yield Watched(Server(**json.loads(said)))
        finally:
            held.close()  # at the end of its standard input it leaves, however this process ends
            fork.wait(PATIENCE_S)


SERVE = ("serve", "--port", "0", "--until-stdin-closes", "--scorer", "hashed")


# --- a process ------------------------------------------------------------------------------------


class Process:
    """
    `batchrank`, under way or over.
    """

    def __init__(self, process: subprocess.Popen[bytes] | Fork, out: Path, err: Path) -> None:
        self._process = process
        self._out = out
        self._err = err
        self.began_at = time.monotonic()
        self.ended_at = self.began_at

    @property
    def pid(self) -> int:
        """
        Its process id.
        """
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """
        Tell whether it has not ended yet.
        """
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> float:
        """
        Send a signal; returns when, by the clock of `time.monotonic`.
        """
        self._process.send_signal(number)
        return time.monotonic()

    def kill(self) -> None:
        """
        SIGKILL it, and wait until it is gone.
        """
        self._process.kill()
        self.exit_code()

    def exit_code(self, within_s: float = PATIENCE_S) -> int:
        """
        Wait for its end, but no longer than *within_s*; a signal that ended it is negative.

        Raises:
            TimeoutExpired: it goes on.
        """
        code = self._process.wait(within_s)
        self.ended_at = time.monotonic()
        return code

    @property
    def said(self) -> str:
        """
        Its standard error.
        """
        return self._err.read_text()

    @property
    def summary(self) -> dict[str, Any]:
        """
        The summary that it printed.
        """
        read: dict[str, Any] = json.loads(self._out.read_text())
        return read

    @property
    def events(self) -> list[dict[str, Any]]:
        """
        The lines of its log.
        """
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]


_NUMBERS = count(1)


@contextmanager
def started(folder: Path, *arguments: str, anew: bool = False, **popen: Any) -> Iterator[Process]:
    """
    Start `batchrank ARGUMENTS` with its words in files of *folder*; it is killed at the end.

    It is a fork of a process that has imported everything. *anew* it begins with an interpreter of
    its own, and with options of Popen.
    """
    number = next(_NUMBERS)
    out, err = (folder / f"{number}-{arguments[0]}.{stream}" for stream in ("out", "err"))
    process: subprocess.Popen[bytes] | Fork
    if anew:
        process = _begun_anew(out, err, arguments, **popen)
    else:
        out.touch()
        err.touch()
        process = Fork(command, out, err, arguments)
    try:
        yield Process(process, out, err)
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _begun_anew(
    out: Path, err: Path, arguments: tuple[str, ...], **popen: Any
) -> subprocess.Popen[bytes]:
    with out.open("wb") as out_file, err.open("wb") as err_file:
        return subprocess.Popen(
            [sys.executable, "-m", "batchrank", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            **popen,
        )


@contextmanager
def running(job: Path, *options: str, **how: Any) -> Iterator[Process]:
    """
    Start `batchrank run`; *how* as for `started`.
    """
    with started(job.parent, "run", str(job), "--json", *options, **how) as process:
        yield process


def set_apart() -> None:
    """
    Set all that the tests hold apart from the garbage collector, until a run in this process ends.

    A run begins with a collection: a tenth of a second among the objects of three thousand tests.
    """
    gc.freeze()


def here(*arguments: str) -> tuple[int, str]:
    """
    Run `batchrank` in this process, quicker by a start: the exit code and what stderr was told.
    """
    set_apart()
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        return outcome(list(arguments)), err.getvalue()


def run_here(job: Path) -> int:
    """
    Run a job to its end in this process; returns the exit code.
    """
    return here("run", str(job))[0]


def run(job: Path, *options: str, **how: Any) -> Process:
    """
    Run a job to its end, in a process; *how* as for `started`.
    """
    with running(job, *options, **how) as process:
        process.exit_code()
    return process


# --- waiting --------------------------------------------------------------------------------------


def patiently(step_s: float = 0.01, within_s: float = PATIENCE_S) -> Iterator[None]:
    """
    Yield every *step_s*, for whoever waits for something.

    Raises:
        TimeoutError: it does not come.
    """
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        yield
        time.sleep(step_s)
    raise TimeoutError(f"waited {within_s:.0f} s in vain")


def until(
    is_so: Callable[[], object], process: Process | None = None, *, step_s: float = 0.01
) -> None:
    """
    Return when *is_so*, or when *process* is over.
    """
    for _ in patiently(step_s):
        if is_so() or (process is not None and not process.is_alive):
            return


def under_way(watched: Watched, calls: int = 1, process: Process | None = None) -> None:
    """
    Return when so many calls are in flight at the server.
    """
    until(lambda: watched.account().in_flight >= calls, process)


# --- the ledger -----------------------------------------------------------------------------------

REACHED = ("ok", *(kind for kind in ("throttled", "unknown", "bad_reply", "bad_group", "fatal")))
"""Endings of calls that the server saw."""

BILLED = ("ok", *(kind.value for kind in PERHAPS_BILLED))
"""Endings of calls that the embedded server charges for."""


@dataclass(frozen=True, slots=True)
class Book:
    """
    What the ledger holds at one moment.

    Attributes:
        calls: attempts by position and how they ended ("ok", or the class of failure).
        ranked: positions that have scores.
        twice: positions with more than one final word.
        codes: failed attempts by code.
        parts: files by name, and the digest that each was published with.
        runs: exit codes of runs, None where one was killed.
        sound: what SQLite says of the file's integrity.
    """

    calls: Counter[tuple[int, str]] = field(default_factory=Counter)
    ranked: frozenset[int] = frozenset()
    twice: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    parts: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[int | None] = ()
    sound: str = "ok"

    @classmethod
    def of(cls, job: Path) -> Book:
        """
        Read the ledger of a job, if there is one yet.
        """
        ledger = loaded(job).state.ledger
        if not ledger.exists() or not ledger.stat().st_size:
            return cls()
        with LedgerReader.open(ledger) as reader:
            ask = reader.connection.execute
            if not ask("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return cls()
            calls = ask("SELECT position, coalesce(failure, 'ok') FROM calls")
            codes = ask("SELECT code FROM calls WHERE code IS NOT NULL")
            return cls(
                calls=Counter((position, ending) for position, ending in calls),
                ranked=frozenset(p for (p,) in ask("SELECT position FROM ranked")),
                twice=reader.outcomes_twice(),
                codes=Counter(code for (code,) in codes),
                parts={part.file: part.sha256 for part in reader.parts()},
                runs=[run.exit_code for run in reader.runs()],
                sound=ask("PRAGMA integrity_check").fetchone()[0],
            )

    def count(self, endings: Sequence[str] = REACHED) -> int:
        """
        How many attempts ended like that.
        """
        return sum(times for (_, ending), times in self.calls.items() if ending in endings)

    def attempts(self) -> Counter[int]:
        """
        How many attempts that the server saw are durable, by position.
        """
        found: Counter[int] = Counter()
        for (position, ending), times in self.calls.items():
            if ending in REACHED:
                found[position] += times
        return found


def folder_of(job: Path) -> Path:
    """
    The output's folder; it lies on this machine.
    """
    output = loaded(job).output
    assert isinstance(output, Path)
    return output


def loaded(job: Path) -> Job:
    """
    The job, without its key.
    """
    return load(job, with_key=False)


def wrong_parts(job: Path, book: Book) -> list[str]:
    """
    The parts that the ledger says are published, and whose bytes are not those.
    """
    folder = folder_of(job)

    def is_wrong(name: str, sha256: str) -> bool:
        return not (folder / name).exists() or sha256_of(folder / name) != sha256

    return [name for name, sha256 in book.parts.items() if is_wrong(name, sha256)]


def unpublished_parts(job: Path, book: Book) -> list[Path]:
    """
    Part files that lie aside, or in the output without the ledger's word that they are whole.
    """
    found = loaded(job)
    aside = found.state.staging.glob("part-*")
    placed = (path for path in folder_of(job).glob("part-*") if path.name not in book.parts)
    return [*aside, *placed]


def digests(job: Path) -> dict[str, int]:
    """
    The position that each request body asks about, by the digest that the server notes.
    """
    loaded_job = loaded(job)
    vendor = loaded_job.vendor
    assert vendor is not None
    translation = vendor.make(loaded_job.settings())
    source = open_source(loaded_job.config.source, loaded_job.base)
    found = {}
    for batch in source.batches(Positions(source.total), source.total):
        for position in range(batch.position, batch.position + batch.rows):
            (request,) = requests(batch.group(position), Bounds(vendor.documents_max))
            body = translation.call(request).body
            found[blake2b(body, digest_size=8).hexdigest()] = position
    return found


# --- the output -----------------------------------------------------------------------------------


def bytes_of(job: Path) -> dict[str, bytes]:
    """
    Everything in the output folder, hidden files too, by name.
    """
    return {path.name: path.read_bytes() for path in loaded(job).output.iterdir()}


def faults_of(job: Path) -> list[str]:
    """
    What `batchrank verify` finds wrong.
    """
    found = verify(loaded(job))
    return [f"{check.name}: {check.found}" for check in found.checks if check.holds is False]
