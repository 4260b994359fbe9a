"""
Servers that others wrote, each in a process that ends with its context, on a port that was free.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.others.environments import ROOT

START_S_MAX = 180.0

QUIET = {
    "HF_HUB_OFFLINE": "1",  # nobody is asked for anything
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


@contextmanager
def serving(base: Path, alive: str, *command: object) -> Iterator[str]:
    """
    Run *command*, in which PORT stands for a free port, until the context ends; yields the
    server's address once it answers at the path *alive*. What it says lies in *base*.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(port) if word == "PORT" else str(word) for word in command]
    said = base / "server.log"
    with (
        said.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.others.minding", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
            cwd=base,
        ) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(process, address + alive, said)
            yield address
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _wait(process: subprocess.Popen[bytes], url: str, said: Path) -> None:
    directly = build_opener(ProxyHandler({}))
    until = time.monotonic() + START_S_MAX
    while process.poll() is None and time.monotonic() < until:
        try:
            with directly.open(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"{url} never answered:\n{said.read_text()[-2000:]}")


def infinity(python: Path, model: Path, *options: object) -> Sequence[object]:
    """
    The command for Infinity over *model*, which it calls `tiny`.
    """
    usual = ("--host", "127.0.0.1", "--port", "PORT", "--device", "cpu", "--engine", "torch")
    fast = ("--no-bettertransformer", "--no-model-warmup", "--dtype", "float32")
    named = ("--model-id", model, "--served-model-name", "tiny")
    return (python.with_name("infinity_emb"), "v2", *named, *usual, *fast, *options)
