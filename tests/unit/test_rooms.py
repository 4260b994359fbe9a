"""
The rooms: imports point down, and a contract that is broken says so.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / ".importlinter"
LINT = Path(sys.executable).with_name("lint-imports")


def report(folder: Path) -> tuple[int, str]:
    """
    What the linter says of the package in *folder*, in lines that are not wrapped.
    """
    done = subprocess.run(
        [LINT, "--no-cache", "--no-logo", "--config", RULES],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rooms_are_as_the_contracts_say() -> None:
    """
    No module imports what its room may not, and each has a room.
    """
    code, words = report(ROOT)

    assert 0 == code, words
    assert re.search(r"Contracts: \d+ kept, 0 broken", words)


BROKEN = [
    ("policy/pace.py", "import pyarrow", "pyarrow"),
    ("policy/gate.py", "import time", "time"),
    ("policy/retry.py", "from random import random", "random"),
    ("policy/billing.py", "from batchrank.providers import base", "batchrank.providers.base"),
    ("config/schema.py", "import os", "os"),
    ("providers/openrouter.py", "import httpx", "httpx"),
    ("events.py", "import structlog", "structlog"),
    ("domain.py", "import batchrank.errors", "batchrank.errors"),
    ("errors.py", "import batchrank.events", "batchrank.events"),
    ("store/disk.py", "from batchrank.engine import runner", "batchrank.engine.runner"),
    ("store/tables.py", "from batchrank.source import parquet", "batchrank.source.parquet"),
    ("wire/auth.py", "import pyarrow", "pyarrow"),
    ("source/texts.py", "import sqlite3", "sqlite3"),
    ("source/batch.py", "import duckdb", "duckdb"),
    ("engine/feed.py", "import sqlite3", "sqlite3"),
    ("engine/caller.py", "from batchrank.job import run", "batchrank.job"),
    ("engine/backlog.py", "import httpx", "httpx"),
    ("observe/pulse.py", "import anyio", "anyio"),
    ("examine/plan.py", "from batchrank.operate import serve", "batchrank.operate.serve"),
    ("examine/verify.py", "import typer", "typer"),
    ("job/ending.py", "import rich", "rich"),
    ("job/inprocess.py", "import torch", "torch"),
    ("job/loading.py", "import tomllib", "tomllib"),
    ("cli/run.py", "import yaml", "yaml"),
    ("rehearsal/desk.py", "import batchrank.local", "batchrank.local"),
]
"""One import too many each: file, the line that is added, what it imports."""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    What the linter says of a copy with all of them at once, and with a room that nobody planned.
    """
    folder = tmp_path_factory.mktemp("rooms")
    shutil.copytree(
        ROOT / "batchrank", folder / "batchrank", ignore=shutil.ignore_patterns("__pycache__")
    )
    for file, line, _ in BROKEN:
        with (folder / "batchrank" / file).open("a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    (folder / "batchrank" / "cellar.py").write_text('"""A room of its own."""\n')
    code, words = report(folder)
    assert 1 == code, words
    return words


@pytest.mark.parametrize(
    ("file", "imported"),
    [pytest.param(file, imported, id=f"{file}: {line}") for file, line, imported in BROKEN],
)
def test_one_import_too_many_breaks_a_contract(broken: str, file: str, imported: str) -> None:
    """
    It is told with the module and what it imports.
    """
    module = "batchrank." + file.removesuffix(".py").replace("/", ".")

    assert re.search(rf"- +{re.escape(module)} -> {re.escape(imported)} \(l\.\d+\)", broken)


def test_a_module_without_a_room_breaks_a_contract(broken: str) -> None:
    """
    Whoever adds one has to say who may enter.
    """
    assert "not listed as layers:\n\n- batchrank.cellar" in broken


FREE = {"msgspec": "a codec: providers and the rehearsal server speak JSON with it"}
"""Libraries that any room may use, and why."""

UNNAMED = {"tzdata": "the time zones of zoneinfo"}
"""Libraries that nobody imports by name."""

IMPORTED_AS = {
    "http-sf": "http_sf",
    "pyyaml": "yaml",
    "tree-sitter": "tree_sitter",
    "tree-sitter-toml": "tree_sitter_toml",
}


def test_every_library_has_its_rooms() -> None:
    """
    A new dependency is confined, or it is said why not.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[<>=!~ \[]", line, maxsplit=1)[0] for line in project["dependencies"]}
    rules = configparser.ConfigParser()
    rules.read(RULES, "utf-8")
    confined = {
        name
        for section in rules.values()
        for name in section.get("forbidden_modules", "").split()
        if section.name != "importlinter:contract:pure"
    }

    assert names - FREE.keys() - UNNAMED.keys() <= {
        name for name in names if IMPORTED_AS.get(name, name) in confined
    }
