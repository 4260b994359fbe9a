"""
Runs a program until it ends, or until standard input does: whoever started this is gone then, and
nothing is left running. `python -m tests.others.minding COMMAND ...`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

STOP_S_MAX = 15.0


def _stops(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    started = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_stops, args=(started,), daemon=True).start()
    raise SystemExit(started.wait())
