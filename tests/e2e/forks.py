"""
Processes that begin at once: forks of one that has imported all of batchrank and run nothing.

An interpreter of its own needs most of a second of CPU to come to the first line that a test is
about. From there on both do the same, and are signalled, killed and waited for in the same way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from batchrank.cli.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.e2e.warm"])


class Fork:
    """
    A function at work in a fork, with those methods of `subprocess.Popen` that tests need.
    """

    def __init__(self, do: Callable[..., object], *arguments: Any) -> None:
        self._process = FORKS.Process(target=_as_here, args=(dict(os.environ), do, *arguments))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """
        How it ended, a signal as a negative number; None while it goes on.
        """
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """
        Send a signal, unless it is over.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """
        SIGKILL it, unless it is over.
        """
        self._process.kill()

    def wait(self, within_s: float) -> int:
        """
        Wait for its end; how it ended.

        Raises:
            TimeoutExpired: it goes on.
        """
        self._process.join(within_s)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a fork", within_s)
        return code


def _as_here(environ: dict[str, str], do: Callable[..., object], *arguments: Any) -> None:
    """
    Do it with the environment of whoever asks, not with that in which the first fork was made.
    """
    os.environ.clear()
    os.environ.update(environ)
    do(*arguments)


def command(
    out: Path, err: Path, arguments: tuple[str, ...], told: Connection | None = None
) -> None:
    """
    Be `batchrank ARGUMENTS`, with its words in files that are there; *told* is its standard input.
    """
    for path, descriptor in ((Path(os.devnull), 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    if told is not None:
        os.dup2(told.fileno(), 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where nohup runs the tests
    sys.argv = ["batchrank", *arguments]
    main()
