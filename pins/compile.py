"""
Write the pins anew: exact versions with hashes, for every platform, and no registry's address.
"""

import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent
PROJECT = PINS.parent / "pyproject.toml"
GROUPS = {"run": [], "demo": ["demo"], "dev": ["dev"]}


def compile_pins(name: str, groups: list[str]) -> None:
    """
    Resolve the project and *groups* for all supported Pythons and platforms into one file.
    """
    extra = PINS / "build.in"
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
        *("--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"),
        *("--no-emit-find-links", "--no-annotate", "--no-header", "--upgrade"),
        *(arg for group in groups for arg in ("--group", f"{PROJECT}:{group}")),
        *("-o", str(PINS / f"{name}.txt"), str(PROJECT), str(extra)),
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for name, groups in GROUPS.items():
        compile_pins(name, groups)
