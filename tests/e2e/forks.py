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
from pathlib import Path
from typing import Any

from batchrank.cli.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "batchrank.cli.watching",
        "batchrank.job",
        "batchrank.operate.backfill",
        "tests.e2e.killing",
        "uvloop",
    ]
)


class Fork:
    """
    A function at work in a fork, with those methods of `subprocess.Popen` that tests need.
    """

    def __init__(self, do: Callable[..., object], *arguments: Any) -> None:
        self._process = FORKS.Process(target=do, args=arguments)
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


def command(out: Path, err: Path, arguments: tuple[str, ...]) -> None:
    """
    Be `batchrank ARGUMENTS`, with its words in files that are there.
    """
    for path, descriptor in ((Path(os.devnull), 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where nohup runs the tests
    sys.argv = ["batchrank", *arguments]
    main()
