"""
Groups in, in position order, in the memory of one batch.

`parquet` is the source that a job opens, `files` finds its files, `fitting` maps their schema to
`columns`, `reading` decodes one file, `batch` makes groups of rows, `rows` reads what they ask,
`texts` makes texts of fields, `carried` packs what a part needs besides scores, `profile` counts
for a plan.
"""

from batchrank.source.files import differences
from batchrank.source.parquet import ParquetSource, open_source
from batchrank.source.profile import Lengths, Profile

__all__ = ["Lengths", "ParquetSource", "Profile", "differences", "open_source"]
