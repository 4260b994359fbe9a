"""
The environments of the peers: one each, made when it is first needed, and kept.

Owns `.envs/` beside this file, which git ignores, and `pins/`, which says exactly what goes into
each. A peer that cannot be installed is told in the table with the reason, never left out.
`python -m tests.bench.peers.envs` writes the pins anew.
"""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pins.compile import resolve

HERE = Path(__file__).parent
ENVS = HERE / ".envs"
PINS = HERE / "pins"

WANTED: Mapping[str, tuple[str, ...]] = {
    "openrouter_sdk": ("openrouter", "pyarrow", "psutil"),
    "cohere_sdk": ("cohere", "pyarrow", "psutil"),
    "litellm_sdk": ("litellm", "pyarrow", "psutil"),
    "daft_udf": ("daft", "aiohttp", "pyarrow", "psutil"),
    "ray_data": ("ray[data]", "aiohttp", "pyarrow", "psutil"),
    "py_spy": ("py-spy",),
}
"""What each peer needs, by the name of its module; and what draws the flame graph."""

WHY_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Environment:
    """
    The Python of one peer, or why there is none.
    """

    python: Path
    missing: str = ""

    @classmethod
    def of(cls, module: str) -> Environment:
        """
        Find it, or make it.
        """
        folder, pins = ENVS / module, PINS / f"{module}.txt"
        made = cls(folder / "bin" / "python")
        stamp = folder / "pins.txt"
        if stamp.exists() and stamp.read_text() == pins.read_text():
            return made
        shutil.rmtree(folder, ignore_errors=True)
        ENVS.mkdir(exist_ok=True)
        (ENVS / ".gitignore").write_text("*\n")
        venv.create(folder, with_pip=True)
        pip = [
            "-m",
            "pip",
            "--disable-pip-version-check",
            "-q",
            "install",
            "--require-hashes",
            "-r",
        ]
        done = subprocess.run(
            [made.python, *pip, pins], check=False, capture_output=True, text=True
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            return cls(made.python, last[:WHY_CHARS_MAX])
        shutil.copy(pins, stamp)
        return made


if __name__ == "__main__":
    PINS.mkdir(exist_ok=True)
    for name, wanted in WANTED.items():
        resolve(PINS / f"{name}.txt", "-", text="\n".join(wanted))
