"""
The environments of the peers, and of others' clients and servers: one each, made when it is first
needed, and kept.

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

from pins.compile import resolve, resolve_torch

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

SERVERS: Mapping[str, tuple[str, ...]] = {"litellm_proxy": ("litellm[proxy]",)}
TORCH_SERVERS: Mapping[str, tuple[str, ...]] = {"infinity": ("infinity-emb[server,torch]",)}
"""What others' servers need; those of the second table compute with torch."""

LOCAL = HERE.parents[2] / "pins" / "local.txt"
"""The pins of `batchrank[local]`, whose environment is called `local`."""

WHY_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Environment:
    """
    The Python of one peer, or why there is none.
    """

    python: Path
    missing: str = ""

    @classmethod
    def of(cls, module: str, pins: Path | None = None) -> Environment:
        """
        Find it, or make it; *pins* are those of *module* in PINS unless told.
        """
        folder, pins = ENVS / module, pins or PINS / f"{module}.txt"
        made = cls(folder / "bin" / "python")
        stamp = folder / "pins.txt"
        if stamp.exists() and stamp.read_text() == pins.read_text():
            return made
        shutil.rmtree(folder, ignore_errors=True)
        ENVS.mkdir(exist_ok=True)
        (ENVS / ".gitignore").write_text("*\n")
        venv.create(folder, with_pip=True)
        if missing := made._installed(pins):
            return cls(made.python, missing)
        shutil.copy(pins, stamp)
        return made

    def _installed(self, pins: Path) -> str:
        """
        Install *pins*; returns why that failed, or "".
        """
        torch = pins.with_stem(f"{pins.stem}-torch")
        if not torch.exists():
            return self._pip("-r", str(pins))
        # All of them together are complete; none of them is alone.
        failed = self._pip("--no-deps", "-r", str(pins))
        if failed or not self._pip("--no-deps", "-r", str(LOCAL.with_name("torch-cpu.txt"))):
            return failed
        return self._pip("--no-deps", "-r", str(torch))

    def _pip(self, *arguments: str) -> str:
        # Most of what is installed is never imported, and compiling it takes half of the time.
        install = ["install", "--no-compile", "--require-hashes"]
        pip = ["-m", "pip", "--disable-pip-version-check", "-q", *install]
        done = subprocess.run(
            [self.python, *pip, *arguments], check=False, capture_output=True, text=True
        )
        last = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        return last[:WHY_CHARS_MAX] if done.returncode else ""


if __name__ == "__main__":
    PINS.mkdir(exist_ok=True)
    for name, wanted in {**WANTED, **SERVERS}.items():
        resolve(PINS / f"{name}.txt", "-", text="\n".join(wanted))
    for name, wanted in TORCH_SERVERS.items():
        resolve_torch(PINS / f"{name}.txt", text="\n".join(wanted))
