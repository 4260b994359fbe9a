"""
Write the pins anew: exact versions with hashes, for every platform, and no registry's address.

On Linux the torch of the public registry needs two gigabytes of libraries for GPUs, and a CPU build
of the same version is not published there. So torch and what it needs for GPUs stand in a file of
their own, and the CPU build in another: where pip finds that build, it is taken.
"""

import re
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent
PROJECT = PINS.parent / "pyproject.toml"
GROUPS = {"run": [], "demo": ["demo"], "dev": ["dev"]}

TORCH = "torch==2.13.0"
TORCH_CPU = f"""\
{TORCH}+cpu \\
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
"""
"""The build for CPython 3.11 on x86-64 Linux."""

is_torch = re.compile(r"(cuda|nvidia|torch|triton)\b").match


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


def resolve_torch(output: Path, *sources: str, text: str = "") -> None:
    """
    As `resolve`, with TORCH; it and what only it needs go beside *output*, as `NAME-torch.txt`.
    """
    resolve(output, *sources, "-", text=f"{text}\n{TORCH}\n")
    pins = re.split(r"^(?=\S)", output.read_text(), flags=re.MULTILINE)
    torch = "".join(pin for pin in pins if is_torch(pin))
    output.with_stem(f"{output.stem}-torch").write_text(torch)
    output.write_text("".join(pin for pin in pins if not is_torch(pin)))


if __name__ == "__main__":
    for name, groups in GROUPS.items():
        chosen = [arg for group in groups for arg in ("--group", f"{PROJECT}:{group}")]
        resolve(PINS / f"{name}.txt", *chosen, str(PROJECT), str(PINS / "build.in"))
    (PINS / "torch-cpu.txt").write_text(TORCH_CPU)
    resolve_torch(PINS / "local.txt", "--extra", "local", str(PROJECT))
