"""
Words to whoever called the command.

A pipe that nobody reads any more, a full disk under it, a stream that was closed, or a locale that
lacks a letter changes no exit code: what a command did is done, whoever hears of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from io import TextIOWrapper
from typing import TextIO


def ready_streams() -> None:
    """
    Have three standard streams that take every letter; for a whole process, once.

    In the place of a closed one comes the null device: its number would go to the next file that
    is opened, and what a library complains of into a ledger or a part. What is no terminal gets
    UTF-8 in every locale, as JSON has to be.
    """
    for name, flags, mode in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, TextIOWrapper):
            continue  # whoever put another in its place knows what it takes
        if not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        elif stream.encoding != "utf-8":
            stream.reconfigure(errors="backslashreplace")


_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))
"""In the order of their numbers: the lowest that is free is taken."""


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
