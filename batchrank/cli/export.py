"""
`batchrank export`: the scores in a form that other tools read.

Which forms there are, and what may be exported, is decided in `store.formats` and in `operate`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say


def export(
    job: JobFile,
    to: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")],
    variables: Variables = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="trec, beir, csv, duckdb or jsonl. Unless told, the file's ending decides: .trec"
            " .run, .json, .csv, .duckdb .db, .jsonl.",
        ),
    ] = None,
    run_name: Annotated[
        str | None, typer.Option(help="trec: the last column (the job's name).")
    ] = None,
    doc_id: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="trec, beir: the column that names documents (doc_id)."
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="duckdb: the table (scores).")] = None,
    spreadsheet: Annotated[
        bool,
        typer.Option(
            "--spreadsheet", help="csv: put ' before texts that a spreadsheet takes for formulas."
        ),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what is published, finished or not.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, or the table in it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Write the scores as a TREC run, BEIR results, CSV, JSON lines or a table in a DuckDB file.

    Calls nobody; needs no key. The file is there whole or not at all.
    """
    from batchrank.job import load
    from batchrank.operate.export import Options
    from batchrank.operate.export import export as export_job

    options = Options(form, run_name, doc_id, table, spreadsheet, partial, force)
    done = export_job(load(job, overrides(variables), with_key=False), to, options)
    say(json.dumps(done.as_data(), ensure_ascii=False) if as_json else done.as_text())
