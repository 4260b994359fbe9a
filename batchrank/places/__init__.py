"""
Where things lie: folders of this machine, and object stores that look like them.

Owns URIs (`uri`), the file systems of pyarrow behind them with their settings (`stores`), and
objects that answer as `pathlib.Path` does (`remote`). Knows nothing of groups, parts or jobs.
"""
