"""
Processes that are measured: started, looked at while they live, and their end taken down.

Owns how CPU and memory are read. A process and all that it has waited for count together. Of its
peak memory the kernel says no less than its parent had when it was started: so nothing large is
done in the process of the bench itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
LAST_WORDS = 2_000


@dataclass(frozen=True, slots=True)
class Ran:
    """
    A process that ended: the last JSON object that it printed, how long it lived, its peak memory,
    its CPU.
    """

    said: Any
    exit_code: int
    wall_s: float
    peak_mb: float
    cpu_s: float


class Failed(Exception):
    """
    A process left with an exit code that nobody expected; the message is its last words.
    """


class Child:
    """
    A command that runs in the project's folder, and does not outlive its context.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._command = command
        self._said = _file()
        self._complained = _file()
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._complained,
        )
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    @property
    def is_over(self) -> bool:
        """
        Whether it has ended; it is not waited for, so that its CPU can still be read.
        """
        return self._seen.status() == psutil.STATUS_ZOMBIE

    @property
    def cpu_s(self) -> float:
        """
        Seconds of CPU so far, user and system.
        """
        times = self._seen.cpu_times()
        return times.user + times.system

    def send(self, number: int) -> None:
        """
        Send a signal.
        """
        self._process.send_signal(number)

    def finish(self, *expected: int) -> Ran:
        """
        Wait for its end. Any exit code but 0 and those *expected* is a failure.

        Raises:
            Failed: with its last words.
        """
        _, status, usage = os.wait4(self._process.pid, 0)
        wall_s = time.perf_counter() - self._began
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        said, complained = (_contents(each) for each in (self._said, self._complained))
        if code not in (0, *expected):
            command = " ".join(map(str, self._command))
            raise Failed(f"{command} left with {code}:\n{(complained or said)[-LAST_WORDS:]}")
        objects = [line for line in said.splitlines() if line.startswith("{")]
        return Ran(
            json.loads(objects[-1]) if objects else None,
            code,
            wall_s,
            usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),
            usage.ru_utime + usage.ru_stime,
        )


def _file() -> IO[str]:
    return tempfile.TemporaryFile("w+")


def _contents(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


def run(command: Sequence[str | Path], environment: Mapping[str, str], *expected: int) -> Ran:
    """
    Run a command to its end.

    Raises:
        Failed: it left with anything but 0 and *expected*.
    """
    with Child(command, environment) as child:
        return child.finish(*expected)
