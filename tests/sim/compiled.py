"""
The long form of the oracle, compiled: the same source, arguments and figures, in a quarter of the
time.

    python -m tests.sim.compiled [--seeds 1000] [--only WORDS] [--held-out]

Owns which modules are compiled (what runs for every request), by mypyc, in a copy that is deleted
afterwards: the tree is never touched. Where mypyc, setuptools or a C compiler is missing the copy
plays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]

POLICY = ("accepted", "ceilings", "concurrency", "control", "gate", "latency", "pace", "rate")
SIM = ("clients", "reference", "servers")
MODULES = (
    *(f"batchrank/policy/{name}.py" for name in POLICY),
    "batchrank/rehearsal/limits.py",
    *(f"tests/sim/{name}.py" for name in SIM),
)
OPTIONS = ("--follow-imports=silent", "--ignore-missing-imports")


def main() -> int:
    """
    Copy, compile, play.
    """
    with TemporaryDirectory(prefix="oracle-") as name:
        folder = Path(name)
        _copy(folder)
        mypyc = [sys.executable, "-m", "mypyc", *OPTIONS, *MODULES]
        built = subprocess.run(mypyc, cwd=folder, capture_output=True, text=True, check=False)
        if built.returncode:
            said = (built.stdout + built.stderr).strip().splitlines() or ["nothing"]
            words = f"not compiled, mypyc says: {said[-1]}"
            print(words, file=sys.stderr)  # noqa: T201 - for whoever runs it
        play = [sys.executable, "-m", "tests.sim", *sys.argv[1:]]
        return subprocess.run(play, cwd=folder, check=False).returncode


def _copy(folder: Path) -> None:
    compiled = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "batchrank", folder / "batchrank", ignore=compiled)
    shutil.copytree(ROOT / "tests" / "sim", folder / "tests" / "sim", ignore=compiled)
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests")


if __name__ == "__main__":
    sys.exit(main())
