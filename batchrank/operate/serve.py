"""
Run the embedded server, in this process or in another one.

Owns the wiring of the server with its scorer, what its dials are called as options of the command,
the life of a server that serves one rehearsal, and the client of its admin.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from batchrank.errors import JobError, RehearsalError
from batchrank.local import lexical
from batchrank.rehearsal import Dials, hashed_scores, turned
from batchrank.rehearsal import run as run_server

SCORERS: Mapping[str, Callable[[str, Sequence[str]], list[float]]] = {
    "lexical": lexical.scores,
    "hashed": hashed_scores,
}

START_S_MAX = 30.0

WHERE = "the embedded server's options"


def option(dial: str) -> str:
    """
    What a dial is called on the command line.
    """
    return "--fault" if dial == "faults" else f"--{dial.replace('_', '-')}"


def read(dials: Mapping[str, object]) -> Dials:
    """
    The dials as a person wrote them on the command line; what is wrong is told by its option.

    Raises:
        JobError: with every problem, if there is any.
    """
    try:
        return turned(Dials(), dials)
    except JobError as error:
        problems = [replace(problem, key=option(problem.key)) for problem in error.problems]
        raise JobError(WHERE, problems) from None


def options(dials: Mapping[str, object]) -> list[str]:
    """
    Dials as options of `batchrank serve`; a list is an option that comes several times.
    """
    words = []
    for dial, value in dials.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [option(dial), str(each)]
    return words


@dataclass(frozen=True, slots=True)
class Server:
    """
    Where an embedded server listens: its API, and its admin.

    Each method asks the admin, past any proxy.

    Raises:
        RehearsalError: the server is gone, or refuses what it is told.
    """

    base_url: str
    admin: str

    def account(self) -> dict[str, Any]:
        """
        What the server saw and would have charged.
        """
        return self._ask()  # type: ignore[no-any-return] # our own server's word

    def arrivals(self) -> dict[str, list[Any]]:
        """
        The calls that it remembers, as columns: when each came, and what became of it.
        """
        return self._ask("/arrivals")  # type: ignore[no-any-return] # as above

    def turn(self, **dials: object) -> None:
        """
        Turn dials in mid-run; None sets one back to what it is unturned.
        """
        self._ask("/dials", json.dumps(dials).encode())

    def reset(self) -> None:
        """
        Make it forget what it saw.
        """
        self._ask("/reset", b"")

    def _ask(self, path: str = "", told: bytes | None = None) -> Any:
        directly = build_opener(ProxyHandler({}))
        try:
            with directly.open(Request(self.admin + path, told), timeout=START_S_MAX) as reply:  # noqa: S310 - our own server's address
                return json.load(reply)
        except HTTPError as refusal:
            said = refusal.read().decode()
            raise RehearsalError(f"the embedded server refuses {path}: {said}") from refusal
        except OSError as error:
            raise RehearsalError(f"the embedded server at {self.admin} is gone") from error


def serve(
    dials: Mapping[str, object],
    scorer: str,
    *,
    host: str,
    port: int,
    ready: Callable[[Server], object],
    until_stdin_closes: bool = False,
) -> None:
    """
    Serve until a signal, or until standard input ends; *ready* hears when it listens, and where.

    Raises:
        JobError: a dial cannot be read.
        PortInUse: somebody listens there already.
    """

    def listening(bound: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        ready(Server(f"http://{shown}:{bound}/api/v1", f"http://{shown}:{bound}/admin"))

    run_server(
        read(dials),
        SCORERS[scorer],
        host=host,
        port=port,
        ready=listening,
        until_stdin_closes=until_stdin_closes,
    )


@contextmanager
def server(options: Sequence[str]) -> Iterator[Server]:
    """
    Start a server with the options of `batchrank serve`, and stop it at the end.

    It is out of reach of Ctrl-C, which stops the job in good order, and the job needs it for that.

    Raises:
        RehearsalError: it did not start, and has said why on standard error.
    """
    command = [sys.executable, "-m", "batchrank", "serve", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(  # noqa: S603 - our own command
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RehearsalError("the embedded server did not start; it said why above")
            said = json.loads(line)
            yield Server(said["base_url"], said["admin"])
        finally:
            process.stdin.close()
            process.wait(START_S_MAX)
