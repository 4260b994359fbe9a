"""
The file that a person wants something written to.

Owns that it can be one, and that nothing is replaced unasked. How it is written whole or not at all
is `disk`'s business.
"""

from __future__ import annotations

from pathlib import Path

from batchrank.errors import OutputError


def path_of(to: Path) -> Path:
    """
    The file that a person means, absolute.

    Raises:
        OutputError: there can be none of that name.
    """
    try:
        return to.expanduser().resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody, or links in a circle
        raise OutputError(f"{to} names no file: {error}", "name another file") from error


def check_free(file: Path, *, replaces: bool) -> None:
    """
    Refuse to write to what cannot be a file, or is one already and is not to be replaced.

    Raises:
        OutputError: saying what is in the way.
    """
    try:
        there, is_file = file.exists(), file.is_file()
        file.with_name(f".{file.name}.new").exists()  # what it is called while it is written
    except OSError as error:
        why = f"{file} cannot be written: {error.strerror or error}"
        raise OutputError(why, "name another file") from error
    if there and not is_file:
        raise OutputError(f"{file} is there and no file", "name a file")
    if there and not replaces:
        raise OutputError(
            f"{file} is there already", "name another file, or replace it with --force"
        )
