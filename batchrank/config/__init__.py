"""
The job file: TOML in, a `JobConfig` out, or every problem in it at once.

`schema` says what may stand in it, `deciding` what each setting decides; `reading` checks a text,
with `syntax`, `variables`, `braces` and `times`; `wording`, `values` and `lines` make a finding
useful to a person. This module owns the room's public names. Nothing in the room reads a file, a
clock or the environment.
"""

from batchrank.config.deciding import asking, fingerprint, output_settings, score_settings
from batchrank.config.reading import OptionModels, earlier_outputs, parse
from batchrank.config.schema import (
    RESERVED_COLUMNS,
    JobConfig,
    LimitsTable,
    OutputTable,
    ProviderTable,
    SourceTable,
    Table,
    json_schema,
)
from batchrank.config.times import deadline_at

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
