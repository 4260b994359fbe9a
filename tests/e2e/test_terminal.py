"""
Commands on a terminal: what people see there, and Ctrl-C, which reaches all that is in front.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.small_jobs import SmallJob, groups

LATER = 75
PATIENCE_S = 30.0

ON_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.environ.update(TERM="xterm", COLUMNS="200", LINES="40")
sys.argv[1:2] = []
from batchrank.cli.main import main
main()
"""
"""The command line, at the head of a session of its own that has a terminal."""

STEERING = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """
    A terminal with a command at work in it, and all that could be read there until now.
    """

    def __init__(self, screen: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._screen = screen
        self._raw = b""

    @property
    def text(self) -> str:
        """
        What was shown, without what steers the terminal.
        """
        return STEERING.sub(b"", self._raw).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        """
        Press keys: the terminal makes a signal of Ctrl-C, for every process in front.
        """
        os.write(self._screen, keys)

    def shows(self, pattern: str) -> str:
        """
        Read until *pattern* is found; returns what was found.

        Raises:
            TimeoutError: it does not come.
        """
        while not (found := re.search(pattern, self.text)):
            if not self._read():
                raise TimeoutError(f"no {pattern!r} in {self.text!r}")
        return found[0]

    def exit_code(self) -> int:
        """
        Read to the end, and wait for it.
        """
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        if not select.select([self._screen], [], [], PATIENCE_S)[0]:
            return False
        try:
            piece = os.read(self._screen, 65_536)
        except OSError:  # nobody has the terminal open any more
            return False
        self._raw += piece
        return bool(piece)


@contextlib.contextmanager
def terminal(*arguments: object) -> Iterator[Terminal]:
    """
    Start the command line on a terminal of its own; it is killed at the end.
    """
    screen, inner = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(inner), *map(str, arguments)], pass_fds=[inner]
    )
    os.close(inner)
    try:
        yield Terminal(screen, process)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        os.close(screen)


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    """
    A job for OpenRouter that a rehearsal takes a while for.
    """
    return SmallJob(tmp_path, port=9, limits={"concurrency_max": 2}).source(groups(400))


def test_ctrl_c_stops_a_rehearsal_in_good_order(job: SmallJob) -> None:
    """
    Calls under way come home, for which the server must outlive the signal; then the summary.
    """
    with terminal("rehearse", job.file, "--latency", "0.1") as shown:
        shown.shows(r"groups +[1-9]\d* of 400")
        shown.press(b"\x03")
        pressed_at = time.monotonic()
        code = shown.exit_code()
        took_s = time.monotonic() - pressed_at

    assert LATER == code, shown.text
    ending = shown.text[shown.text.rindex("\njob ") :]
    assert "stopped by SIGINT" in ending
    assert "0 repeated" in ending
    assert "failed:" not in ending
    assert re.search(r"\nserver +saw \d+ calls, billed \d+", ending)
    assert "Traceback" not in shown.text
    assert took_s < 10


def test_serve_tells_people_how_to_use_and_to_stop_it() -> None:
    """
    On a terminal in their words; Ctrl-C ends it with 0, without a traceback.
    """
    with terminal("serve", "--port", 0) as shown:
        shown.shows("Ctrl-C stops it")
        told = shown.text
        shown.press(b"\x03")
        code = shown.exit_code()

    assert re.search(r'base_url = "http://127.0.0.1:\d+/api/v1"', told)
    assert re.search(r"http://127.0.0.1:\d+/admin\n", told)
    assert "any key will do" in told
    assert "{" not in told
    assert 0 == code
    assert "Traceback" not in shown.text
