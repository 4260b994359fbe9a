"""
The job file: TOML in, a `JobConfig` out, or every problem in it at once.

`schema` says what may stand in it and what each setting decides; `reading` checks a text, with
`syntax`, `variables` and `braces`; `wording`, `values` and `lines` make a finding useful to a
person. This module owns the room's public names. Nothing in the room reads a file, a clock or the
environment.
"""

from batchrank.config.reading import OptionModels, earlier_outputs, parse
from batchrank.config.schema import (
    RESERVED_COLUMNS,
    JobConfig,
    LimitsTable,
    OutputTable,
    ProviderTable,
    SourceTable,
    Table,
    asking,
    deadline_at,
    fingerprint,
    json_schema,
    output_settings,
    score_settings,
)

__all__ = [
    "RESERVED_COLUMNS",
    "JobConfig",
    "LimitsTable",
    "OptionModels",
    "OutputTable",
    "ProviderTable",
    "SourceTable",
    "Table",
    "asking",
    "deadline_at",
    "earlier_outputs",
    "fingerprint",
    "json_schema",
    "output_settings",
    "parse",
    "score_settings",
]
