"""
The units that `jobs/README.md` tells people to copy are units that systemd loads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "jobs" / "README.md"
UNIT = re.compile(r"```ini\n# (?P<name>\S+)\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """
    A key that it does not allow for the type makes it refuse the whole unit.
    """
    units = {found["name"]: found["text"] for found in UNIT.finditer(README.read_text())}
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace("/usr/bin/batchrank", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in units)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert {"batchrank.service", "batchrank.timer"} == set(units)
    # Of other units of the machine it may complain.
    assert (0, False) == (verified.returncode, "batchrank." in verified.stderr), verified.stderr
