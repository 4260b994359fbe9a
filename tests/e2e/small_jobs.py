"""
Small jobs on the disk: a job file, a key and a source in a folder, and ways to run them.

Commands run in this process where that proves the same, because an interpreter takes most of a
second to start; `process` is the real thing.
"""

from __future__ import annotations

import io
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

import batchrank
from batchrank import Summary
from batchrank.cli.main import outcome
from batchrank.job.loading import Job, load
from batchrank.rehearsal import hashed_scores
from tests.e2e.jobs import at_full_speed, set_apart

MODEL = "cohere/rerank-v3.5"
PROVIDER = "batchrank-rehearsal"
KEY = "sk-or-v1-for-small-jobs"

Row = Mapping[str, Any]


def groups(count: int, candidates: int = 3) -> list[dict[str, Any]]:
    """
    So many groups of structs, each with its own texts; ids are not positions.
    """
    return [
        {
            "query_id": f"q{1000 + n}",
            "query": f"what is known of subject {n}",
            "documents": [
                {"id": f"d{n}-{i}", "text": f"passage {i} about subject {n}"}
                for i in range(candidates)
            ],
        }
        for n in range(count)
    ]


def texts_of(row: Row) -> list[str | None]:
    """
    The documents' texts, from structs or strings.
    """
    return [d if d is None or isinstance(d, str) else d["text"] for d in row["documents"] or ()]


@dataclass(frozen=True)
class Ran:
    """
    What a command said, and how it left.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """
        Standard output as JSON.
        """
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """
        Standard error as JSON lines.
        """
        return [json.loads(line) for line in self.err.splitlines()]

    @property
    def why(self) -> str:
        """
        What kept the command from its work, in a person's words, whether or not it keeps a log.
        """
        return str(self.events[-1]["why"]) if self.err.startswith("{") else self.err


def cli(*arguments: object) -> Ran:
    """
    Run the command line in this process.
    """
    set_apart()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = outcome([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """
    The command line as a process of its own.
    """
    return [sys.executable, "-m", "batchrank", *map(str, arguments)]


def process(*arguments: object, environ: Mapping[str, str] | None = None, **options: Any) -> Ran:
    """
    Run the command line as a process, to its end.
    """
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        env={**os.environ, **(environ or {})},
        text=True,
        timeout=30,
        check=False,
        **options,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class SmallJob:
    """
    A job in the folder *base*. Without a *port* it is scored in process, by the lexical scorer.

    *tables* are settings by table, on top of the usual ones; None takes one away.
    """

    def __init__(
        self, base: Path, port: int | None = None, key: str = KEY, **tables: Mapping[str, Any]
    ) -> None:
        self.base = base
        self.file = base / "job.toml"
        self.output = base / "out"
        self._tables: dict[str, dict[str, Any]] = {
            "source": {"path": "groups.parquet", "query_id": "query_id", "doc_id": "id"},
            "provider": {"name": "lexical"},
            "limits": {"concurrency_max": 8},
            "output": {"path": "out"},
        }
        if port is not None:
            self._tables["provider"] = {
                "name": "openrouter",
                "model": MODEL,
                "key_file": "key",
                "base_url": f"http://127.0.0.1:{port}/api/v1",
            }
            self.write_key(key)
        self.change(**tables)

    def change(self, **tables: Mapping[str, Any]) -> SmallJob:
        """
        Change settings, and write the job file.
        """
        for name, table in tables.items():
            held = {**self._tables.get(name, {}), **table}
            self._tables[name] = {key: value for key, value in held.items() if value is not None}
        lines = []
        for name, table in self._tables.items():
            if name == "limits":
                table = at_full_speed(table)
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())]
        self.file.write_text("\n".join(lines) + "\n")
        return self

    def write_key(self, key: str, mode: int = 0o600) -> Path:
        """
        Write the key's file.
        """
        path = self.base / "key"
        path.unlink(missing_ok=True)
        path.write_text(key)
        path.chmod(mode)
        return path

    def source(
        self,
        rows: Sequence[Row] | pa.Table,
        name: str = "groups.parquet",
        **options: Any,
    ) -> SmallJob:
        """
        Write a source file; *options* are pyarrow's.
        """
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **options)
        return self

    def run(self, **wishes: Any) -> Summary:
        """
        Run it in this process.
        """
        set_apart()
        return batchrank.run(self.file, **wishes)

    def cli(self, name: str, *options: object) -> Ran:
        """
        Run one of the commands on it, in this process.
        """
        return cli(name, self.file, *options)

    @property
    def job(self) -> Job:
        """
        The job as loaded, without its key.
        """
        return load(self.file, with_key=False)

    @property
    def state(self) -> Path:
        """
        The state folder of its output.
        """
        return self.job.state.path

    def parts(self) -> list[Path]:
        """
        The files of the output, but for `_SUCCESS`.
        """
        return sorted(self.output.glob("*.parquet"))

    def rows(self) -> list[dict[str, Any]]:
        """
        The rows of all parts, in order, without digests: `test_reuse` is about these.
        """
        tables = (pq.read_table(part).drop_columns(["digest"]) for part in self.parts())
        return [row for table in tables for row in table.to_pylist()]

    def calls(self) -> list[dict[str, Any]]:
        """
        The calls table.
        """
        return pq.read_table(self.state / "calls.parquet").to_pylist()  # type: ignore[no-any-return] # pyarrow has no types

    def rejects(self) -> list[dict[str, Any]]:
        """
        The rejects table.
        """
        return pq.read_table(self.state / "rejects.parquet").to_pylist()  # type: ignore[no-any-return] # as above


def toml(value: object) -> str:
    """
    A value as TOML writes it.
    """
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value)
    return str(value)


# --- a server that says what it is told to --------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """
    One request: its number from 1, its headers (names in lower case), and what it asks; as bytes
    where it matters how that was written, beside its first line.
    """

    number: int
    headers: Mapping[str, str]
    asked: Any
    line: str = ""
    body: bytes = b""

    @property
    def key(self) -> str:
        """
        The key that came with it.
        """
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def reply(self, **changes: Any) -> dict[str, Any]:
        """
        A good reply as JSON data, with *changes*.
        """
        texts = self.asked["documents"]
        scores = hashed_scores(self.asked["query"], texts)
        results = [
            {"index": index, "relevance_score": score, "document": {"text": text}}
            for index, (score, text) in enumerate(zip(scores, texts, strict=True))
        ]
        usage = {"search_units": 1, "total_tokens": 9, "cost": 0.001}
        known = {"id": f"gen-{self.number}", "model": self.asked["model"], "provider": PROVIDER}
        return {**known, "results": results, "usage": usage, **changes}


def http(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, reason: str = "-"
) -> bytes:
    """
    A whole HTTP response; a *body* that is not bytes becomes JSON.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": len(content), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode() + content


def _tells_nothing(_path: str) -> bytes:
    return http({"error": {"message": "Not Found"}}, 404)


class Liar:
    """
    A server on a port of this machine that answers each request with the bytes that *answer* gives.

    *heard* is what it was asked, and *billed* counts the answers with status 200. What is asked for
    nothing, by path, is answered as *tell* says, and *questions* are these paths, with headers.
    """

    def __init__(
        self, answer: Callable[[Heard], bytes], tell: Callable[[str], bytes] | None = None
    ) -> None:
        told = tell or _tells_nothing
        self.heard: list[Heard] = []
        self.questions: list[tuple[str, Mapping[str, str]]] = []
        self.billed = 0
        liar, lock = self, threading.Lock()

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    method, _, rest = line.decode().partition(" ")
                    lines = iter(self.rfile.readline, b"\r\n")
                    named = (line.decode().rstrip().partition(": ") for line in lines)
                    headers = {name.lower(): value for name, _, value in named}
                    body = self.rfile.read(int(headers.get("content-length", 0)))
                    if method == "GET":
                        path = rest.partition(" ")[0]
                        with lock:
                            liar.questions.append((path, headers))
                        self.wfile.write(told(path))
                        continue
                    with lock:
                        asked = json.loads(body) if body else None
                        number = len(liar.heard) + 1
                        heard = Heard(number, headers, asked, line.decode().rstrip(), body)
                        liar.heard.append(heard)
                    said = answer(heard)
                    with lock:
                        liar.billed += said.startswith(b"HTTP/1.1 200")
                    self.wfile.write(said)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 256  # a connection that finds no room waits for a second

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client has gone: its good right

        self._server = Server(("127.0.0.1", 0), Connection)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


# --- what there should be -------------------------------------------------------------------------


def expected(rows: Sequence[Row], top_n: int | None = None) -> list[dict[str, Any]]:
    """
    The output's rows in the layout `candidates`, made the plain way from the server's scores.
    """
    return [line for n, row in enumerate(rows) for line in _lines(n, row, top_n)]


def _lines(position: int, row: Row, top_n: int | None) -> Iterator[dict[str, Any]]:
    texts = texts_of(row)
    sent = [index for index, text in enumerate(texts) if text and text.strip()]
    scores = dict(
        zip(sent, hashed_scores(row["query"], [texts[i] or "" for i in sent]), strict=True)
    )
    best = sorted(sent, key=lambda index: (-scores[index], index))
    rest = [index for index in range(len(texts)) if index not in scores]
    for rank, index in enumerate(best[:top_n], 1):
        yield _line(position, row, index, rank, scores[index])
    for index in rest if top_n is None else ():
        yield _line(position, row, index, None, None, asked=bool(sent))


def _line(
    position: int,
    row: Row,
    index: int,
    rank: int | None,
    score: float | None,
    *,
    asked: bool = True,
) -> dict[str, Any]:
    document = row["documents"][index]
    return {
        "query_id": row.get("query_id", position),
        "doc_id": document.get("id") if isinstance(document, Mapping) else None,
        "index": index,
        "rank": rank,
        "relevance_score": score,
        "model": MODEL if asked else None,
        "provider": PROVIDER if asked else None,
    }


def everything_in(*folders: Path) -> dict[Path, bytes]:
    """
    The bytes of every file below *folders*.
    """
    return {
        path: path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
