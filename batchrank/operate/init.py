"""
Write a job file to start from, and the schema that editors check it with.

Owns the template, and that the schema which comes with the package is the one of the code.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from batchrank.config import json_schema
from batchrank.errors import JobError, OutputError, Problem
from batchrank.job.ways import OPTION_MODELS

SCHEMA_NAME = "batchrank.schema.json"


def write_job_file(path: Path, *, force: bool = False) -> list[Path]:
    """
    Write the commented job file *path* and the schema beside it; returns what was written.

    Raises:
        JobError: it is there already, and *force* is not given.
        OutputError: the folder cannot be written.
    """
    if path.exists() and not force:
        problem = Problem(0, "", "is there already", "name another file, or use --force")
        raise JobError(str(path), [problem])
    schema = path.parent / SCHEMA_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template(), encoding="utf-8")
        schema.write_text(packaged_schema(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return [path, schema]


def template() -> str:
    """
    The commented job file.
    """
    return (files("batchrank.operate") / "job_template.toml").read_text(encoding="utf-8")


def packaged_schema() -> str:
    """
    The JSON Schema of job files, as it comes with the package.
    """
    return (files("batchrank.operate") / SCHEMA_NAME).read_text(encoding="utf-8")


def schema_text() -> str:
    """
    The same, made anew from the code.
    """
    return json.dumps(json_schema(OPTION_MODELS), indent=1, sort_keys=True) + "\n"


def write_packaged_schema() -> None:
    """
    Bring the package's schema up to date with the code.
    """
    (Path(__file__).parent / SCHEMA_NAME).write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write_packaged_schema()
