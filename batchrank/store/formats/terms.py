"""
What a format is asked for, and what it says of what it wrote.

Owns the names of the options, which are those of `batchrank export`. Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class How:
    """
    How to write. Each format looks at what concerns it.

    Attributes:
        spill: a folder for what does not fit into memory.
        run_name: the last column of a TREC run.
        doc_id: the column of the output that names documents in a run.
        table: the table in a DuckDB file.
        spreadsheet: keep spreadsheets from taking texts for formulas.
        force: replace the table if it is there.
    """

    spill: Path
    run_name: str = "batchrank"
    doc_id: str = "doc_id"
    table: str = "scores"
    spreadsheet: bool = False
    force: bool = False


@dataclass(slots=True)
class Tally:
    """
    What was written, and what was not as it is in the parts.

    Attributes:
        rows: candidates, or groups where those are written whole.
        queries: queries in a run; None in formats that hold rows of any kind.
        unscored: candidates that are left out because they have no score.
        repeated: candidates that are left out because a better one of their query has their id.
        lowered: scores that were lowered because they were tied.
        formulas: texts that a spreadsheet takes for a formula.
        defused: texts that it would take for one, were there no apostrophe before them.
    """

    rows: int = 0
    queries: int | None = None
    unscored: int = 0
    repeated: int = 0
    lowered: int = 0
    formulas: int = 0
    defused: int = 0
