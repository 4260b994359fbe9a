"""
What scores become for other tools: TREC runs, BEIR results, CSV, JSON lines, a table in DuckDB.

`published` reads parts, `rankings` makes queries of their rows, `once` finds queries that come
twice; then a format is a file, and `choice` lists them. Nothing here knows a job: it gets the files
of parts and the path of a file, and either writes that whole or leaves what was there.
"""
