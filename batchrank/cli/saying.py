"""
Words to whoever called the command.

A pipe that nobody reads any more, or a full disk under it, changes no exit code: what a command did
is done, whether or not somebody hears of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def say(text: str, to: TextIO | None = None, end: str = "\n") -> None:
    """
    Print *text* and *end* to standard output, or *to* another stream.
    """
    stream = to or sys.stdout
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError:
        # What is still buffered goes nowhere, or the interpreter would complain at its end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
