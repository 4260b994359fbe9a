"""
Write the pins anew: exact versions with hashes, for every platform, and no registry's address.
"""

import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent
PROJECT = PINS.parent / "pyproject.toml"
GROUPS = {"run": [], "demo": ["demo"], "dev": ["dev"]}


def resolve(output: Path, *sources: str, text: str | None = None) -> None:
    """
    Resolve *sources* for all supported Pythons and platforms into *output*; "-" is *text*.
    """
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
        *("--python-version", "3.11", "--generate-hashes"),
        *("--no-annotate", "--no-header", "--upgrade"),
        *("-o", str(output), *sources),
    ]
    subprocess.run(command, check=True, text=True, input=text, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    for name, groups in GROUPS.items():
        chosen = [arg for group in groups for arg in ("--group", f"{PROJECT}:{group}")]
        resolve(PINS / f"{name}.txt", *chosen, str(PROJECT), str(PINS / "build.in"))
