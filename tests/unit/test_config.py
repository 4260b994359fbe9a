"""
The job file: every refusal with its line and remedy, every default, variables, times, fingerprints.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from batchrank.config import (
    RESERVED_COLUMNS,
    JobConfig,
    deadline_at,
    earlier_outputs,
    fingerprint,
    json_schema,
    output_settings,
    parse,
    score_settings,
)
from batchrank.config.lines import Lines
from batchrank.config.values import shown, time_zones
from batchrank.domain import Price, RateLimit
from batchrank.errors import Exit, JobError, Problem
from batchrank.providers import OPENROUTER
from batchrank.providers.base import Options
from tests.laws import law

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OPTION_MODELS: dict[str, type[Options]] = {"lexical": Options, "openrouter": OPENROUTER.options}

SMALL = """\
[source]
path = "groups.parquet"
[provider]
name = "openrouter"
[output]
path = "out"
"""
"""Everything that has no default. What is appended begins on line 7."""


def read(
    text: str,
    overrides: Mapping[str, str] | None = None,
    *,
    where: str = "jobs/nightly.toml",
    now: datetime = NOW,
) -> JobConfig:
    """
    Read a job file.
    """
    return parse(text, where=where, now=now, option_models=OPTION_MODELS, overrides=overrides)


def refusal(text: str, overrides: Mapping[str, str] | None = None) -> JobError | None:
    """
    How a job file is refused, if it is.
    """
    try:
        read(text, overrides)
    except JobError as error:
        return error
    return None


def problems(text: str, overrides: Mapping[str, str] | None = None) -> list[Problem]:
    """
    What is wrong with a job file.
    """
    refused = refusal(text, overrides)
    return list(refused.problems) if refused else []


def job(changes: Mapping[str, object] | None = None) -> JobConfig:
    """
    A small job with some settings changed, named as in `{"limits.concurrency_max": 3}`.
    """
    held: dict[str, Any] = tomllib.loads(SMALL)
    for path, value in (changes or {}).items():
        *tables, key = path.split(".")
        at = held
        for table in tables:
            at = at.setdefault(table, {})
        at[key] = value
    return JobConfig.model_validate(held)


# --- refusals -------------------------------------------------------------------------------------

REFUSALS = [
    pytest.param("[limits]\nconcurency_max = 5", 8, "limits.concurency_max", "unknown key",
                 "did you mean concurrency_max?", id="a key that is nearly right"),
    pytest.param("[limits]\nzzz = 5", 8, "limits.zzz", "unknown key", "known here: ",
                 id="a key that is like no other"),
    pytest.param("[limits]\ncost_usd_mx = 5", 8, "limits.cost_usd_mx", "unknown key",
                 "did you mean budget.cost_usd_max?", id="a key of another table"),
    pytest.param("[limitz]\nx = 5", 7, "limitz", "unknown key", "did you mean limits?",
                 id="a table that is nearly right"),
    pytest.param("[limits]\nconcurrency_max = 0", 8, "limits.concurrency_max",
                 "is 0, expected at least 1", "requests under way at once", id="too small"),
    pytest.param("[limits]\nconcurrency_max = 2000", 8, "limits.concurrency_max",
                 "is 2000, expected at most 1024", "", id="too large"),
    pytest.param('[limits]\nconcurrency_max = "9"', 8, "limits.concurrency_max",
                 'is "9", expected a whole number', "without quotes: 9", id="a number in quotes"),
    pytest.param("[limits]\nconcurrency_max = 5.5", 8, "limits.concurrency_max",
                 "is 5.5, expected a whole number", "", id="a fraction"),
    pytest.param('[limits]\nrequests_per_minute = "1.5"', 8, "limits.requests_per_minute",
                 'is "1.5", expected a number', "without quotes: 1.5", id="a fraction in quotes"),
    pytest.param('[provider.price]\nusd_per_search_unit = 1\nas_of = "2026-11-20"', 9,
                 "provider.price.as_of", 'is "2026-11-20", expected a date',
                 "without quotes: 2026-11-20", id="a date in quotes"),
    pytest.param("[limits]\nrequests_per_minute = true", 8, "limits.requests_per_minute",
                 "is true, expected a number", "", id="true is no number"),
    pytest.param("[limits]\nrequests_per_minute = inf", 8, "limits.requests_per_minute",
                 "is inf, expected a number other than inf", "", id="no limit is no number"),
    pytest.param("[limits]\nrequests_per_minute = nan", 8, "limits.requests_per_minute",
                 "is nan, expected a number other than", "", id="not a number"),
    pytest.param("[budget]\ncost_usd_max = inf", 8, "budget.cost_usd_max",
                 "is inf, expected a number other than inf", "", id="a budget without end"),
    pytest.param("[budget]\ncost_usd_max = 0", 8, "budget.cost_usd_max",
                 "is 0, expected more than 0", "", id="a budget of nothing"),
    pytest.param("[budget]\ncost_usd_max = 2e9", 8, "budget.cost_usd_max",
                 "expected at most 1000000000", "", id="a budget beyond all money"),
    pytest.param("[limits]\nrequests_per_minute = 5\nrequests_per_hour = 9", 9, "limits",
                 "requests_per_minute and requests_per_hour exclude each other", "keep one",
                 id="two limits of requests"),
    pytest.param("[limits]\nrequests_per_day = 5\nunlimited = true", 9, "limits",
                 "requests_per_day and unlimited exclude each other", "keep one",
                 id="a limit, and none"),
    pytest.param("[limits]\nunlimited = true\nrequests = { count = 5, per_s = 1 }", 8, "limits",
                 "requests and unlimited exclude each other", "keep one",
                 id="a limit of any period, and none"),
    pytest.param("[limits]\nunlimited = 1", 8, "limits.unlimited",
                 "is 1, expected true or false", "a server of your own", id="one is not true"),
    pytest.param("[limits]\ndocuments_per_minute = 5\ndocuments = { count = 5, per_s = 1 }", 9,
                 "limits", "documents_per_minute and documents exclude each other", "keep one",
                 id="two limits of documents"),
    pytest.param("[limits]\ntokens_per_minute = 5\ntokens = { count = 5, per_s = 1 }", 9, "limits",
                 "tokens_per_minute and tokens exclude each other", "keep one",
                 id="two limits of tokens"),
    pytest.param("[limits]\ntokens_per_minute = 0", 8, "limits.tokens_per_minute",
                 "is 0, expected at least 1e-06", "", id="no tokens"),
    pytest.param("[limits]\ntokens = 5", 8, "limits.tokens", "is 5, expected a table",
                 "{ count = 50000, per_s = 10 }", id="a number in place of a table of tokens"),
    pytest.param("[limits]\ntokens_per_hour = 5", 8, "limits.tokens_per_hour", "unknown key",
                 "did you mean tokens_per_minute?", id="a period without a name of its own"),
    pytest.param('[limits]\nconcurrency = "fast"', 8, "limits.concurrency",
                 'is "fast", expected "auto" or a whole number', "requests under way at once",
                 id="neither a word that is known nor a number"),
    pytest.param('[limits]\nconcurrency = "aut"', 8, "limits.concurrency",
                 'is "aut", expected "auto" or a whole number', "did you mean auto?",
                 id="a word that is nearly right, or a number"),
    pytest.param('[limits]\nconcurrency = "8"', 8, "limits.concurrency",
                 'is "8", expected "auto" or a whole number', "without quotes: 8",
                 id="a number in quotes, or a word"),
    pytest.param("[limits]\nconcurrency = 0", 8, "limits.concurrency",
                 'is 0, expected "auto" or at least 1', "", id="a fixed number too small"),
    pytest.param("[limits]\nconcurrency = 2000", 8, "limits.concurrency",
                 'is 2000, expected "auto" or at most 1024', "", id="a fixed number too large"),
    pytest.param("[limits]\nconcurrency = true", 8, "limits.concurrency",
                 'is true, expected "auto" or a whole number', "", id="neither word nor number"),
    pytest.param("[limits]\nconcurrency_max = 4\nconcurrency = 8", 9, "limits.concurrency",
                 "is 8, and concurrency_max allows 4", "keep one of them, or lower this one",
                 id="a fixed number above the most"),
    pytest.param("[limits]\nrequests = { count = 1 }", 8, "limits.requests.per_s", "is missing",
                 "", id="a period left out"),
    pytest.param("[limits]\nrequests = 5", 8, "limits.requests", "is 5, expected a table",
                 "{ count = 50, per_s = 10 }", id="a number in place of a table"),
    pytest.param("[[limits]]\nconcurrency_max = 5", 7, "limits", "is a list, expected a table",
                 "write [limits], in single brackets", id="a table in double brackets"),
    pytest.param('[provider.price]\nas_of = 2026-11-20', 7, "provider.price",
                 "expected usd_per_search_unit or usd_per_million_tokens", "",
                 id="a price without a price"),
    pytest.param("[provider.price]\nusd_per_search_unit = 1", 7, "provider.price.as_of",
                 "is missing", "the day on which this price was seen", id="a price without a day"),
    pytest.param("[provider.price]\nusd_per_search_unit = -1\nas_of = 2026-11-20", 8,
                 "provider.price.usd_per_search_unit", "is -1, expected at least 0", "",
                 id="a negative price"),
    pytest.param('[provider.options]\nuserr = "me"', 8, "provider.options.userr", "unknown key",
                 "did you mean user?", id="a vendor's option that is nearly right"),
    pytest.param("[provider.options.provider]\nsort = 5", 8, "provider.options.provider.sort",
                 'is 5, expected "price", "throughput", "latency" or "exacto", or a table', "",
                 id="a vendor's option of another type"),
    pytest.param('[provider.options.provider]\nsort = "prices"', 8,
                 "provider.options.provider.sort", 'is "prices", expected "price", "throughput"',
                 "did you mean price?", id="a word that is nearly right, or a table"),
    pytest.param('[provider.options.provider]\nsort = { by = "prices" }', 8,
                 "provider.options.provider.sort.by", 'is "prices", expected "price"',
                 "did you mean price?", id="the table that could be a word"),
    pytest.param("[provider.options.provider]\npreferred_max_latency = true", 8,
                 "provider.options.provider.preferred_max_latency",
                 "is true, expected a number or a table", "", id="neither number nor table"),
    pytest.param('[provider.options]\ncategories = ["Help Desk"]', 8,
                 "provider.options.categories[0]", "expected small letters and digits", "",
                 id="a text of other letters"),
    pytest.param('[provider.options]\ncategories = ["a", "b", "c"]', 8,
                 "provider.options.categories", "is a list, expected at most 2 of them", "",
                 id="too many"),
    pytest.param("[provider.options]\ncategories = 5", 8, "provider.options.categories",
                 'is 5, expected a list, as in ["a", "b"]', "", id="a number in place of a list"),
    pytest.param("[run]\ndeadline = 06:00:00", 8, "run.deadline",
                 "is 06:00:00, expected text", 'put it in quotes: "06:00"',
                 id="a time of day without quotes"),
    pytest.param("[run]\ndeadline = \"25s\"", 8, "run.deadline",
                 'is "25s", and its last 25 s (run.drain_s_max) are kept for calls under way',
                 "expected a longer duration", id="a deadline that leaves no time"),
    pytest.param("[run]\ndrain_s_max = 90\ndeadline = \"1m\"", 9, "run.deadline",
                 "its last 90 s", "", id="a drain longer than the deadline"),
    pytest.param("[run]\ndeadline = \"25:00\"", 8, "run.deadline", "expected a time of day", "",
                 id="a clock that does not exist"),
    pytest.param("[run]\ndeadline = \"soon\"", 8, "run.deadline", "expected a time of day", "",
                 id="no time at all"),
    pytest.param('[labels]\nteam = 5', 8, "labels.team", "is 5, expected text",
                 'put it in quotes: "5"', id="a label that is a number"),
    pytest.param("[labels]\nTeam = 5", 8, "labels.Team", "is 5, expected text", "",
                 id="a label with a capital"),
    pytest.param("[labels]\nstr = true", 8, "labels.str", "is true, expected text",
                 'put it in quotes: "true"', id="a label with a name of Python's"),
    pytest.param('[variables]\nday = 5', 8, "variables.day", "is 5, expected text", "",
                 id="a variable that is a number"),
    pytest.param('[variables]\nday = 5\n[labels]\na = "{day}"', 8, "variables.day",
                 "is 5, expected text", "", id="a variable that is a number, and is used"),
    pytest.param('[variables]\ndate = 2026-11-20', 8, "variables.date",
                 "is 2026-11-20, expected text", 'put it in quotes: "2026-11-20"',
                 id="a day without quotes"),
    pytest.param('[variables]\ndate = "2026-13-45"\n[labels]\na = "{yesterday}{date}"', 8,
                 "variables.date", 'is "2026-13-45", and no calendar has that day',
                 "as in 2026-11-20", id="a day that does not exist"),
    pytest.param('[variables]\ndate = "latest"\n[labels]\na = "{yesterday}"', 10, "labels.a",
                 '{yesterday} is the day before {date}, and that is "latest"',
                 "set yesterday too", id="the day before no day"),
    pytest.param('[variables]\na = "{b}"\nb = "x"', 8, "variables.a", "{b} is not known yet",
                 "in their order", id="a variable that comes later"),
    pytest.param('[variables]\na = "{a}"', 8, "variables.a", "{a} is not known yet",
                 "in their order", id="a variable made of itself"),
    pytest.param('[variables]\na = "{dat}"\nb = "{a}"\n[labels]\na = "{a}{b}"', 8, "variables.a",
                 "no variable is called {dat}", "did you mean date?",
                 id="a mistake in a value is told once"),
    pytest.param('[labels]\nteam = "{taem}"', 8, "labels.team", "no variable is called {taem}",
                 "declare it under [variables]", id="a variable that nobody declared"),
    pytest.param('[labels]\nday = "{dat}"', 8, "labels.day", "no variable is called {dat}",
                 "did you mean date?", id="a variable that is nearly right"),
    pytest.param('[labels]\nday = "{date"', 8, "labels.day", "a brace without its partner", "",
                 id="a brace without its partner"),
    pytest.param('[labels]\nday = "{date:%Y}"', 8, "labels.day", "no format can follow it",
                 "write {date}", id="a variable with a format"),
    pytest.param('[labels]\nday = "{date!r}"', 8, "labels.day", "no format can follow it",
                 "write {date}", id="a variable with a conversion"),
    pytest.param('state = "a\\u0000b"', 7, "output.state", "holds a zero character", "",
                 id="a zero in a path"),
    pytest.param("[output]\n", 7, "output", "stands twice, first in line 5", "keep one",
                 id="a table twice"),
    pytest.param('[limits]\n[output]\nx = "', 8, "output", "stands twice, first in line 5", "",
                 id="a table twice, and worse behind it"),
    pytest.param('top_n = 1\ntop_n = 2', 8, "output.top_n", "stands twice, first in line 7",
                 "keep one", id="a key twice"),
    pytest.param('x = { a = 1, a = 2 }', 7, "output.x.a", "stands twice, first in line 7", "",
                 id="a key twice in a small table"),
    pytest.param('x = { a = 1 }\nx = { b = 1 }', 8, "output.x", "stands twice, first in line 7", "",
                 id="a small table twice"),
    pytest.param('top_n = 1\ntop_n.x = 2', 8, "", "a key stands twice, or is a value in one place",
                 "keep one", id="a value that is a table too"),
    pytest.param("[labels]\nx = ", 8, "", "not TOML: no value stands behind the =",
                 "text goes in quotes", id="no value"),
    pytest.param("[labels]\nx = abc", 8, "", "not TOML: no value stands", "text goes in quotes",
                 id="a text without quotes"),
    pytest.param('[labels]\nx = "abc', 8, "", "not TOML: a quotation mark opens", "close it",
                 id="a text without its end"),
    pytest.param('[labels]\nx = "abc\ny = 1', 8, "", "not TOML: a quotation mark opens", "close it",
                 id="a line without its end"),
    pytest.param("[labels]\nx = 'abc\ny = 1", 8, "", "not TOML: a quotation mark opens", "close it",
                 id="a line in single quotes without its end"),
    pytest.param('[labels]\nx = """a\n\n', 8, "", "not TOML: a quotation mark opens", "close it",
                 id="a long text without its end"),
    pytest.param("[labels]\nx = '''a\n\n", 8, "", "not TOML: a quotation mark opens", "close it",
                 id="a long text in single quotes without its end"),
    pytest.param('[labels]\nx = "C:\\data"', 8, "", "not TOML: a \\ in double quotes",
                 "write it twice", id="a path of Windows"),
    pytest.param('[labels]\nx = "a\x01"', 8, "", "not TOML: holds a control character", "",
                 id="a control character"),
    pytest.param("[labels\nx = 1", 7, "", "not TOML: the name of a table is not closed", "",
                 id="a table without its end"),
    pytest.param('[labels]\nx = ["a"\ny = 1', 9, "", "not TOML: a list is not closed by ]", "",
                 id="a list without its end"),
    pytest.param("[labels]\nx = { a = 1", 8, "", "not TOML: a { table } is not closed by }", "",
                 id="a small table without its end"),
    pytest.param("[run]\ndeadline = 06:00", 8, "", "not TOML: something stands behind the value",
                 "go in quotes", id="a time without quotes"),
    pytest.param("hello", 7, "", "not TOML: this is neither KEY = VALUE", "", id="only a word"),
    pytest.param("x = { = 5 }", 7, "", "not TOML: no key stands where one should", "", id="no key"),
    pytest.param("x = 2026-02-30", 7, "", "not TOML: this is no date or time that exists", "",
                 id="no date"),
    pytest.param("x = " + "9" * 5000, 0, "", "not TOML: a number has thousands of digits", "",
                 id="an endless number"),
    pytest.param("x = " + "[" * 5000, 0, "", "not TOML: lists or tables lie too deep", "",
                 id="endless brackets"),
]  # fmt: skip
"""What is appended to a small job file; line, key, words and remedy of the one problem."""


@pytest.mark.parametrize(("more", "line", "key", "words", "remedy"), REFUSALS)
def test_each_mistake_is_told_with_line_and_remedy(
    more: str, line: int, key: str, words: str, remedy: str
) -> None:
    """
    Where it stands, what is wrong, how to mend it; and only that.
    """
    found = problems(SMALL + more)

    assert {(line, key)} == {(problem.line, problem.key) for problem in found}
    assert words in found[0].message
    assert remedy in found[0].remedy


CHANGED = [
    pytest.param('path = "groups.parquet"\n', "", 1, "source",
                 "expected path or run or table or sql or sql_file", "", id="no source path"),
    pytest.param('path = "groups.parquet"', 'run = "a"\nqueries = "b"', 2, "source.run",
                 "run needs corpus beside it", "", id="a run without a corpus"),
    pytest.param('path = "groups.parquet"', 'path = "a"\nsql = "SELECT 1"', 3, "source",
                 "path and sql exclude each other", "keep one", id="two sources"),
    pytest.param('path = "groups.parquet"', 'path = "a"\nparameters = { x = 1 }', 3,
                 "source.parameters", "parameters needs sql or sql_file beside it", "",
                 id="parameters of nothing"),
    pytest.param('path = "groups.parquet"', 'table = "candidates"', 2, "source.table",
                 "table needs database or attach beside it", "", id="a table of no database"),
    pytest.param('path = "groups.parquet"', 'path = "a"\nattach = { x = { type = "postgres" } }', 3,
                 "source.attach", "attach needs table or sql or sql_file beside it", "",
                 id="something attached to files"),
    pytest.param('path = "groups.parquet"', 'path = "a"\nmemory = "1 gigabyte"', 3,
                 "source.memory", 'expected a size such as "1GB" or "512MiB"', "", id="no size"),
    pytest.param('path = "groups.parquet"', 'path = "a"\nmemory = "1MB"', 3,
                 "source.memory", 'expected at least "100MB"', "", id="hardly any memory"),
    pytest.param('path = "groups.parquet"', 'path = ""', 2, "source.path",
                 'is "", expected something between the quotes', "", id="an empty path"),
    pytest.param('path = "groups.parquet"', "path = 5", 2, "source.path", "is 5, expected text",
                 'put it in quotes: "5"', id="a path that is a number"),
    pytest.param('path = "groups.parquet"', 'path = ["a", "b"]', 2, "source.path",
                 "is a list, expected one text in quotes", "a folder of them, or a glob",
                 id="several paths"),
    pytest.param('name = "openrouter"', 'name = "openroutr"', 4, "provider.name",
                 'no provider is called "openroutr"', "did you mean openrouter?",
                 id="a provider that is nearly right"),
    pytest.param('name = "openrouter"', 'name = "acme"', 4, "provider.name",
                 'no provider is called "acme"', "known are lexical, openrouter",
                 id="a provider that nobody knows"),
    pytest.param('[output]\npath = "out"', "", 0, "output", "is missing", "a table [output]",
                 id="no output"),
    pytest.param('path = "out"', 'path = "out"\nlayout = "wide"', 7, "output.layout",
                 'is "wide", expected "candidates" or "groups"', "",
                 id="a layout that does not exist"),
    pytest.param('path = "out"', 'path = "out"\ntop_n = 0', 7, "output.top_n",
                 "is 0, expected more than 0", "", id="the best none"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ncarry = ["a", "x.rank"]', 3,
                 "source.carry", "rank would hide a column that the output has anyway", "",
                 id="a carried column that would hide a score"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ncarry = ["a", "x.a"]', 3, "source.carry",
                 "a column is named twice", "", id="a carried column twice"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ncarry = ["a",\n  5]', 4, "source.carry[1]",
                 "is 5, expected text", "", id="a column that is a number"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ntemplate = "{title\\n{body}"', 3,
                 "source.template", "a brace without its partner", "", id="a broken template"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ntemplate = "constant"', 3,
                 "source.template", "names no field of the documents", "",
                 id="a template without a field"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ntemplate = "{title:>9}"', 3,
                 "source.template", "only plain fields such as {title}", "",
                 id="a template with a format"),
    pytest.param('path = "groups.parquet"', 'path = "g"\ntext = "t"\ntemplate = "{t}"', 4, "source",
                 "text and template exclude each other", "keep one", id="two rules for texts"),
    pytest.param("[source]", 'time_zone = "Europe/Berlim"\n[source]', 1, "time_zone",
                 "did you mean Europe/Berlin?", "", id="a time zone that is nearly right"),
    pytest.param("[source]", 'name = "a b"\n[source]', 1, "name",
                 'is "a b", expected letters, digits, dots', "", id="a name with a space"),
    pytest.param("[source]", "nam = 1\n[source]", 1, "nam", "unknown key", "did you mean name?",
                 id="a key at the top"),
    pytest.param("[source]", "\ufeff[source]", 1, "", "not TOML: begins with a byte order mark",
                 "save it without one", id="a byte order mark"),
]  # fmt: skip
"""What is replaced in the small job file, by what; and the one problem."""


@pytest.mark.parametrize(("old", "new", "line", "key", "words", "remedy"), CHANGED)
def test_each_mistake_in_what_must_be_there_is_told_too(
    old: str, new: str, line: int, key: str, words: str, remedy: str
) -> None:
    """
    Something that is missing is told at the table that lacks it.
    """
    found = problems(SMALL.replace(old, new))

    assert [(line, key)] == [(problem.line, problem.key) for problem in found]
    assert words in found[0].message
    assert remedy in found[0].remedy


def test_all_mistakes_are_told_at_once_in_the_order_of_lines() -> None:
    """
    Nobody mends a job file one error a run.
    """
    text = SMALL + '[limits]\nconcurrency_max = 0\n[labels]\na = "{x}"\n[zzz]\n'

    error = refusal(text, {"dat": "2026-01-01"})

    assert error is not None
    assert [0, 8, 10, 11] == [problem.line for problem in error.problems]
    assert Exit.USAGE is error.exit_code
    assert str(error).startswith("jobs/nightly.toml: 4 problems\n  --set dat: the job file has no")
    assert "\n  line 8: limits.concurrency_max: is 0, expected at least 1" in str(error)


@pytest.mark.parametrize("column", sorted(RESERVED_COLUMNS))
def test_no_carried_column_hides_one_of_the_outputs_own(column: str) -> None:
    """
    Every column that the output has anyway is refused.
    """
    found = problems(SMALL.replace("[provider]", f'carry = ["documents.{column}"]\n[provider]'))

    assert [f"{column} would hide a column that the output has anyway"] == [
        problem.message for problem in found
    ]


@law(80)
@given(
    st.lists(
        st.sampled_from(["[source]", "path", "=", '"x"', "[", "]", "{", "}", "\n", ",", "[[a]]"])
        | st.text(max_size=6),
        max_size=25,
    ).map("".join)
)
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    """
    Whatever stands in a job file, it is a job or a list of problems with sane lines.
    """
    assert all(0 <= problem.line <= text.count("\n") + 1 for problem in problems(text))


# --- what people paste ----------------------------------------------------------------------------

KEY = "sk-or-v1-0123456789abcdef"
secrets = st.text("abcdefXYZ0123456789-_.+/=", min_size=12, max_size=60)


@law(30)
@given(secrets, st.sampled_from(['"{}"', '["{}"]', '{{ k = "{}" }}', '"{} "', '"-{}"']))
def test_what_is_pasted_in_place_of_a_keys_name_is_never_repeated(secret: str, form: str) -> None:
    """
    Neither by `key_env` nor by `key_file` or `key_command`, in whatever form; a list is a command.
    """
    for name in ("key_env", "key_file", "key_command"):
        text = SMALL.replace("[output]", f"{name} = {form.format(secret)}\n[output]")
        if name != "key_command" or not form.startswith("["):
            assert secret not in str(refusal(text))


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "apiKey", "API-KEY", "token", "secret", "password", "Authorization",
     "openrouter_api_key", "client-secret", "access_token", "bearer"],
)  # fmt: skip
@pytest.mark.parametrize("table", ["[provider]\n", "[provider]\noptions."])
def test_a_key_that_looks_like_a_secret_is_sent_to_its_place(name: str, table: str) -> None:
    """
    The value is not repeated, and the remedy says where keys are named.
    """
    found = problems(SMALL.replace("[provider]\n", f'{table}{name} = "{KEY}"\n'))

    assert ["a key never stands in a job file"] == [problem.message for problem in found]
    assert ["name it with provider.key_env or key_file"] == [problem.remedy for problem in found]
    assert [4] == [problem.line for problem in found]


def test_a_typing_mistake_is_not_taken_for_a_secret() -> None:
    """
    Names that merely hold such a word are unknown keys like any other.
    """
    found = problems(SMALL + "[provider.price]\nusd_per_million_token = 1\nas_of = 2026-11-20")

    assert any("did you mean usd_per_million_tokens?" == problem.remedy for problem in found)


# --- databases that are attached ------------------------------------------------------------------

ATTACHED = [
    ('x = { type = "sqlite" }', "x", "path is missing", "expected its file"),
    ('x = { type = "duckdb", dsn_env = "A", path = "b" }', "x.dsn_env", "is not for type", "path"),
    ('x = { type = "postgres", path = "CANARY" }', "x.path", "is not for type", "dsn_env"),
    ('x = { type = "sqlite", path = "postgres://CANARY" }', "x.path", "is no file of this", ""),
    ('x = { path = "CANARY" }', "x.type", "is missing", "expected duckdb, sqlite or postgres"),
    ('x = { type = "CANARY", path = "a" }', "x.type", 'expected "duckdb", "sqlite" or "postg', ""),
    ('x = { type = "postgres", dsn_env = "a://CANARY" }', "x.dsn_env", "the name of an env", ""),
    ('x = { type = "postgres", dsn = "CANARY" }', "x.dsn", "unknown key", "did you mean dsn_env?"),
    ('x = { type = "postgres", host = "CANARY" }', "x.host", "unknown key", "dsn_env, path, type"),
    ('x = { type = "postgres", password = "CANARY" }', "x.password", "a key never", "in dsn_env"),
    ('x = "CANARY"', "x", "expected a table", ""),
    ('"a-b" = { type = "postgres" }', "a-b", "expected letters, digits and _", ""),
    ('Main = { type = "postgres" }', "Main", "is what another database is called", "another name"),
    ('Night = { type = "postgres" }', "Night", "is what another database is called", "another"),
    ('a = { type = "postgres" }, A = { type = "postgres" }', "A", "is what another database", ""),
]


@pytest.mark.parametrize(
    ("tables", "key", "words", "remedy"), ATTACHED, ids=[tables for tables, *_ in ATTACHED]
)
def test_what_is_wrong_with_an_attached_database_is_told(
    tables: str, key: str, words: str, remedy: str
) -> None:
    """
    With its line, and never with what may be a connection string.
    """
    source = f'database = "in/night.duckdb"\ntable = "t"\nattach = {{ {tables} }}'
    text = SMALL.replace('path = "groups.parquet"', source)

    found = problems(text)

    assert [(4, f"source.attach.{key}")] == [(problem.line, problem.key) for problem in found]
    assert words in found[0].message
    assert remedy in found[0].remedy
    assert "CANARY" not in str(refusal(text))


def test_databases_are_attached_under_names_of_their_own() -> None:
    """
    In tables of one line or of several, with variables in paths; a table needs no first database.
    """
    more = """table = "crm.main.candidates"
        attach.crm = { type = "sqlite", path = "crm/{date}.sqlite" }
        [source.attach.shop]
        type = "postgres"
        dsn_env = "SHOP_DSN"
        [provider]"""

    held = read(SMALL.replace('path = "groups.parquet"\n[provider]', more)).source

    assert ["crm", "shop"] == list(held.attach)
    assert f"crm/{NOW.date()}.sqlite" == held.attach["crm"].path
    assert "SHOP_DSN" == held.attach["shop"].dsn_env
    assert "crm.main.candidates in crm + shop" == held.shown


# --- defaults -------------------------------------------------------------------------------------

DEFAULTS: dict[str, object] = {
    "name": "job",
    "time_zone": "UTC",
    "labels": {},
    "variables": {},
    "source.path": "groups.parquet",
    "source.run": None,
    "source.queries": None,
    "source.corpus": None,
    "source.database": None,
    "source.attach": {},
    "source.table": None,
    "source.sql": None,
    "source.sql_file": None,
    "source.parameters": {},
    "source.reads": (),
    "source.query": "query",
    "source.query_id": None,
    "source.documents": "documents",
    "source.doc_id": None,
    "source.text": None,
    "source.template": None,
    "source.yaml": None,
    "source.image": None,
    "source.carry": (),
    "source.score": None,
    "source.rank": None,
    "source.depth": None,
    "source.group_order": (),
    "source.unmatched": "refuse",
    "source.memory": "1GB",
    "source.keep_staged": True,
    "source.max_chars": None,
    "source.dedupe": None,
    "source.dedupe_documents": False,
    "source.require_success": False,
    "provider.name": "openrouter",
    "provider.model": "",
    "provider.key_env": None,
    "provider.key_file": None,
    "provider.key_command": None,
    "provider.key_age_s_max": 300.0,
    "provider.base_url": None,
    "provider.check": True,
    "provider.connect_timeout_s": 10.0,
    "provider.timeout_s": 120.0,
    "provider.bytes_max": None,
    "provider.documents_max": None,
    "provider.tokens_max": None,
    "provider.splits": None,
    "provider.send_top_n": False,
    "provider.route": None,
    "provider.strategy": "failover",
    "provider.allow_other_models": False,
    "provider.fallbacks": (),
    "provider.options": {},
    "provider.price": None,
    "limits.requests_per_second": None,
    "limits.requests_per_minute": None,
    "limits.requests_per_hour": None,
    "limits.requests_per_day": None,
    "limits.requests": None,
    "limits.unlimited": False,
    "limits.documents_per_minute": None,
    "limits.documents": None,
    "limits.tokens_per_minute": None,
    "limits.tokens": None,
    "limits.concurrency": "auto",
    "limits.concurrency_max": 256,
    "output.path": "out",
    "output.layout": "candidates",
    "output.top_n": None,
    "output.part_groups": 10_000,
    "output.rejected_max": 0,
    "output.state": None,
    "output.reuse": None,
    "output.reuse_pairs": False,
    "run.deadline": None,
    "run.drain_s_max": 25.0,
    "run.outage_s_max": 1800.0,
    "run.throttled_s_max": 21_600.0,
    "budget.cost_usd_max": None,
    "budget.requests_max": None,
    "budget.search_units_max": None,
    "budget.confirm_usd": 50.0,
    "budget.shared": None,
    "budget.day_usd_max": None,
    "budget.month_usd_max": None,
    "budget.day_requests_max": None,
    "budget.month_requests_max": None,
    "budget.day_search_units_max": None,
    "budget.month_search_units_max": None,
    "stores.s3.endpoint": None,
    "stores.s3.anonymous": False,
    "stores.s3.region": None,
    "stores.gs.endpoint": None,
    "stores.gs.anonymous": False,
    "stores.abfss.endpoint": None,
}
"""What each setting is unless the job file says otherwise."""


def values_of(table: BaseModel, above: str = "") -> Iterator[tuple[str, object]]:
    """
    Every setting of a table and of the tables in it.
    """
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from values_of(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def test_every_setting_has_the_default_that_the_documents_tell() -> None:
    """
    A default that changes changes this table.
    """
    assert DEFAULTS == dict(values_of(job()))


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("jobs/nightly.toml", "nightly"),
        ("/a/b/nightly run (2).toml", "nightly-run-2"),
        ("日本.toml", "job"),
        (".toml", "toml"),
        ("-x-.toml", "x"),
        ("nightly.v2.toml", "nightly.v2"),
    ],
)
def test_a_job_is_called_as_its_file(where: str, name: str) -> None:
    """
    Whatever the file is called, the name is one that may stand in messages and folders.
    """
    assert name == read(SMALL, where=where).name


def test_a_job_may_have_a_name_of_its_own() -> None:
    """
    What the file says goes before what it is called.
    """
    assert "backfill" == read('name = "backfill"\n' + SMALL).name


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ("", None),
        ("requests_per_second = 2.5", RateLimit(2.5, 1)),
        ("requests_per_minute = 1000", RateLimit(1000, 60)),
        ("requests_per_hour = 1000", RateLimit(1000, 3600)),
        ("requests_per_day = 1000", RateLimit(1000, 86_400)),
        ("requests = { count = 50, per_s = 10 }", RateLimit(50, 10)),
    ],
)
def test_a_limit_of_requests_is_of_any_period(more: str, limit: RateLimit | None) -> None:
    """
    The usual periods by name, any other by its length.
    """
    assert limit == read(f"{SMALL}[limits]\n{more}").limits.request_limit


@pytest.mark.parametrize("unit", ["document", "token"])
@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ("", None),
        ("{unit}s_per_minute = 9", RateLimit(9, 60)),
        ("{unit}s = {{ count = 50, per_s = 10 }}", RateLimit(50, 10)),
        ("requests_per_minute = 9", None),
    ],
)
def test_documents_and_tokens_are_limited_too(
    unit: str, more: str, limit: RateLimit | None
) -> None:
    """
    By the minute, or for any period; each by itself.
    """
    limits = read(f"{SMALL}[limits]\n{more.format(unit=unit)}").limits

    assert limit == getattr(limits, f"{unit}_limit")


def test_all_units_may_be_limited_at_once() -> None:
    """
    A provider that counts requests, documents and tokens does so side by side.
    """
    more = "requests_per_second = 1\ndocuments_per_minute = 2\ntokens_per_minute = 3"

    limits = read(f"{SMALL}[limits]\n{more}").limits

    assert (RateLimit(1, 1), RateLimit(2, 60), RateLimit(3, 60)) == (
        limits.request_limit,
        limits.document_limit,
        limits.token_limit,
    )


@pytest.mark.parametrize(
    ("more", "unlimited"),
    [
        ("", False),
        ("unlimited = true", True),
        ("unlimited = false\nrequests_per_minute = 5", False),
        ("unlimited = true\ndocuments_per_minute = 5\ntokens_per_minute = 5", True),
    ],
)
def test_a_server_of_ones_own_may_have_no_limit_of_requests(more: str, unlimited: bool) -> None:
    """
    Only a limit of requests contradicts it.
    """
    assert unlimited is read(f"{SMALL}[limits]\n{more}").limits.unlimited


@pytest.mark.parametrize(
    ("more", "fixed", "most"),
    [
        ("", None, 256),
        ('concurrency = "auto"', None, 256),
        ('concurrency = "auto"\nconcurrency_max = 9', None, 9),
        ("concurrency = 8", 8, 256),
        ("concurrency = 8\nconcurrency_max = 8", 8, 8),
        ("concurrency = 1024", 1024, 256),
    ],
)
def test_concurrency_is_fixed_or_found_out(more: str, fixed: int | None, most: int) -> None:
    """
    The most by default binds only what is found out.
    """
    limits = read(f"{SMALL}[limits]\n{more}").limits

    assert (fixed, most) == (limits.concurrency_fixed, limits.concurrency_max)


def test_a_price_of_the_jobs_own_says_where_it_is_from() -> None:
    """
    With the day on which it was seen.
    """
    more = "[provider.price]\nusd_per_search_unit = 0.002\nas_of = 2026-11-20"

    price = read(SMALL + more).provider.price

    assert price is not None
    assert Price(0.002, None, "2026-11-20", "the job file") == price.as_price()


# --- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "zone", "today", "yesterday"),
    [
        ("2026-11-20T12:00+00:00", "UTC", "2026-11-20", "2026-11-19"),
        ("2026-11-20T23:59+00:00", "UTC", "2026-11-20", "2026-11-19"),
        ("2026-11-20T23:59+00:00", "Europe/Berlin", "2026-11-21", "2026-11-20"),
        ("2026-11-20T12:00+00:00", "Pacific/Kiritimati", "2026-11-21", "2026-11-20"),
        ("2026-11-20T04:59+00:00", "America/New_York", "2026-11-19", "2026-11-18"),
        ("2026-11-20T02:00-08:00", "UTC", "2026-11-20", "2026-11-19"),
        ("2027-01-01T00:30+00:00", "UTC", "2027-01-01", "2026-12-31"),
        ("2028-03-01T00:30+00:00", "UTC", "2028-03-01", "2028-02-29"),
        ("2026-03-28T23:30+00:00", "Europe/Berlin", "2026-03-29", "2026-03-28"),
        ("2026-03-29T22:30+00:00", "Europe/Berlin", "2026-03-30", "2026-03-29"),
        ("2026-10-25T22:30+00:00", "Europe/Berlin", "2026-10-25", "2026-10-24"),
        ("2026-10-25T23:30+00:00", "Europe/Berlin", "2026-10-26", "2026-10-25"),
    ],
)  # fmt: skip
def test_today_and_yesterday_are_those_of_the_jobs_time_zone(
    now: str, zone: str, today: str, yesterday: str
) -> None:
    """
    Around midnight, the new year, leap days, and the nights in which clocks are put.
    """
    text = f'time_zone = "{zone}"\n[labels]\na = "{{date}}"\nb = "{{yesterday}}"\n{SMALL}'

    assert {"a": today, "b": yesterday} == read(text, now=datetime.fromisoformat(now)).labels


def test_time_zones_are_found_once_however_many_days_are_asked_for() -> None:
    """
    The system takes milliseconds to list them: a backfill of two weeks took twenty seconds.
    """
    text = f'time_zone = "Europe/Berlin"\n{SMALL}'
    time_zones.cache_clear()

    read(text, now=NOW)
    assert [] != earlier_outputs(text, NOW, {})

    assert 1 == time_zones.cache_info().misses


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        pytest.param("{market}", {}, "en", id="its default"),
        pytest.param("{market}", {"market": "de"}, "de", id="set for this run"),
        pytest.param("{market}", {"market": "{date}"}, "{date}", id="a value is not filled again"),
        pytest.param("{market}-{market}", {"market": ""}, "-", id="set to nothing"),
        pytest.param("{date}", {"date": "2020-01-02"}, "2020-01-02", id="another day"),
        pytest.param("{{date}}", {}, "{date}", id="literal braces"),
        pytest.param("{{{date}}}", {}, "{2026-11-20}", id="both"),
        pytest.param("plain", {}, "plain", id="no variable"),
    ],
)
def test_variables_are_filled_in(text: str, overrides: dict[str, str], expected: str) -> None:
    """
    Wherever a string stands, also in lists and in the vendor's own options.
    """
    filled = read(
        f'{SMALL}state = "{text}"\n[variables]\nmarket = "en"\n[labels]\na = "{text}"\n'
        f'[provider.options.trace]\nname = "{text}"\n',
        overrides=overrides,
    )

    assert [expected] * 3 == [
        filled.output.state,
        filled.labels["a"],
        filled.provider.options["trace"]["name"],
    ]


def test_braces_of_a_template_mean_fields_of_a_document() -> None:
    """
    The one setting in which variables are not filled.
    """
    text = SMALL.replace("[provider]", 'template = "{date}: {title}"\n[provider]')

    assert "{date}: {title}" == read(text).source.template


@pytest.mark.parametrize(
    ("variables", "overrides", "expected"),
    [
        pytest.param('date = "2026-01-01"', {}, "2025-12-31", id="before the job's own day"),
        pytest.param("", {"date": "2026-01-01"}, "2025-12-31", id="before the day that is set"),
        pytest.param('date = "2026-05-05"', {"date": "2028-03-01"}, "2028-02-29", id="before both"),
        pytest.param('yesterday = "x"', {"date": "2026-01-01"}, "x", id="its own"),
        pytest.param("", {"date": "2026-01-01", "yesterday": "y"}, "y", id="set itself"),
        pytest.param("", {"date": "latest", "yesterday": "y"}, "y", id="set beside no day"),
        pytest.param('date = "{yesterday}"', {}, "2026-11-18", id="before yesterday"),
        pytest.param('yesterday = "{date}"', {"date": "2026-01-01"}, "2026-01-01", id="today"),
    ],
)
def test_yesterday_is_the_day_before_the_date_that_holds(
    variables: str, overrides: dict[str, str], expected: str
) -> None:
    """
    A backfill of another day never mixes with the day on which it runs.
    """
    text = f'{SMALL}[variables]\n{variables}\n[labels]\na = "{{yesterday}}"'

    assert {"a": expected} == read(text, overrides).labels


@pytest.mark.parametrize("day", ["2026-13-45", "2026-02-30", "0000-01-01"])
@pytest.mark.parametrize("name", ["date", "yesterday"])
def test_a_day_that_is_set_exists(name: str, day: str) -> None:
    """
    It would be a folder that nobody finds.
    """
    [found] = problems(SMALL, {name: day})

    assert (f"--set {name}", f'is "{day}", and no calendar has that day') == (
        found.key,
        found.message,
    )


def test_the_first_day_of_all_has_none_before_it() -> None:
    """
    That is told, as for what is no day.
    """
    [found] = problems(SMALL + '[labels]\na = "{yesterday}"', {"date": "0001-01-01"})

    assert "{yesterday} is the day before {date}" in found.message


@pytest.mark.parametrize(
    ("variables", "overrides", "expected"),
    [
        pytest.param('a = "{date}-z"', {}, "2026-11-20-z", id="the day"),
        pytest.param('a = "{date}-z"', {"date": "2026-01-01"}, "2026-01-01-z", id="another day"),
        pytest.param('a = "{date}"\ndate = "2026-05-05"', {}, "2026-05-05", id="the job's own day"),
        pytest.param('b = "{date}"\na = "{b}/x"', {}, "2026-11-20/x", id="one above"),
        pytest.param('b = "y"\na = "{b}/x"', {"b": "{date}"}, "{date}/x", id="what is set stays"),
        pytest.param('a = "{{date}}"', {}, "{date}", id="literal braces"),
        pytest.param('a = "{nobody}"', {"a": "set"}, "set", id="what is set goes before"),
    ],
)
def test_values_of_variables_may_name_others(
    variables: str, overrides: dict[str, str], expected: str
) -> None:
    """
    Those that are always there, and those that stand above.
    """
    text = SMALL.replace('"out"', '"{a}"') + f"[variables]\n{variables}"

    assert expected == read(text, overrides).output.path


def test_a_variable_that_the_job_does_not_have_cannot_be_set() -> None:
    """
    A typing mistake in `--set` would silently run the default.
    """
    found = problems(SMALL + '[variables]\nmarket = "en"', {"markt": "de", "x": "1"})

    assert {
        ("--set markt", "did you mean market?"),
        ("--set x", "the job file's are date, market, yesterday"),
    } == {(problem.key, problem.remedy) for problem in found}


# --- times ----------------------------------------------------------------------------------------


def deadline_of(held: JobConfig, now: datetime) -> datetime:
    """
    When a run of a job that has a deadline must have left.
    """
    assert held.run.deadline is not None
    return deadline_at(held.run.deadline, held.time_zone, now)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7h30m", 27_000),
        ("7h 30m", 27_000),
        ("90m", 5_400),
        ("45s", 45),
        ("1h1m1s", 3_661),
        ("0s", 0),
        ("48h", 172_800),
        ("999999h", 3_599_996_400),
    ],
)
def test_a_deadline_may_be_a_duration(text: str, seconds: int) -> None:
    """
    From now, by the clock that is not put.
    """
    held = job({"run.deadline": text, "time_zone": "Europe/Berlin"})
    night = datetime.fromisoformat("2026-10-25T02:30+02:00")

    for now in (NOW, night):
        at = deadline_of(held, now)
        assert timedelta(seconds=seconds) == at - now


@pytest.mark.parametrize(
    "text",
    ["24:00", "6", "6:0", "06:60", "-1h", "1.5h", "7h30", "30m7h", "h", " ", "1d", "9999999h"],
)
def test_what_is_neither_a_time_nor_a_duration_is_refused(text: str) -> None:
    """
    The message shows both.
    """
    found = problems(f'{SMALL}[run]\ndeadline = "{text}"')

    expected = 'expected a time of day such as "06:00", or a duration such as "7h30m"'
    assert [f'is "{text}", {expected}'] == [problem.message for problem in found]


def test_a_deadline_that_leaves_time_is_taken() -> None:
    """
    However little it is; of a time of day nobody knows before the run.
    """
    assert "26s" == read(SMALL + '[run]\ndeadline = "26s"').run.deadline
    assert "1s" == read(SMALL + '[run]\ndrain_s_max = 0\ndeadline = "1s"').run.deadline
    assert "06:00" == read(SMALL + '[run]\ndrain_s_max = 9e9\ndeadline = "06:00"').run.deadline


@pytest.mark.parametrize(
    ("now", "zone", "clock", "expected"),
    [
        pytest.param("2026-11-20T22:00+00:00", "UTC", "23:00", "2026-11-20T23:00+00:00",
                     id="later today"),
        pytest.param("2026-11-20T22:00+00:00", "UTC", "06:00", "2026-11-21T06:00+00:00",
                     id="past midnight"),
        pytest.param("2026-11-20T22:00+00:00", "UTC", "6:00", "2026-11-21T06:00+00:00",
                     id="an hour of one digit"),
        pytest.param("2026-11-20T06:00+00:00", "UTC", "06:00", "2026-11-21T06:00+00:00",
                     id="now is tomorrow"),
        pytest.param("2026-11-20T05:59:59+00:00", "UTC", "06:00", "2026-11-20T06:00+00:00",
                     id="in a second"),
        pytest.param("2026-12-31T22:00+00:00", "UTC", "06:00", "2027-01-01T06:00+00:00",
                     id="past the new year"),
        pytest.param("2026-11-20T22:00+00:00", "Europe/Berlin", "06:00",
                     "2026-11-21T06:00+01:00", id="in another zone"),
        pytest.param("2026-11-20T22:00+00:00", "Asia/Tokyo", "06:00", "2026-11-22T06:00+09:00",
                     id="where it is the next day already"),
        pytest.param("2026-03-28T22:00+00:00", "Europe/Berlin", "06:00",
                     "2026-03-29T06:00+02:00", id="a night of seven hours"),
        pytest.param("2026-10-24T21:00+00:00", "Europe/Berlin", "06:00",
                     "2026-10-25T06:00+01:00", id="a night of nine hours"),
        pytest.param("2026-03-29T00:00+00:00", "Europe/Berlin", "02:30",
                     "2026-03-29T03:30+02:00", id="an hour that is left out"),
        pytest.param("2026-10-25T00:00+00:00", "Europe/Berlin", "02:30",
                     "2026-10-25T02:30+02:00", id="an hour that comes twice, before the first"),
        pytest.param("2026-10-25T00:40+00:00", "Europe/Berlin", "02:30",
                     "2026-10-25T02:30+01:00", id="an hour that comes twice, between"),
        pytest.param("2026-10-25T01:40+00:00", "Europe/Berlin", "02:30",
                     "2026-10-26T02:30+01:00", id="an hour that comes twice, after both"),
    ],
)  # fmt: skip
def test_a_deadline_may_be_the_next_time_the_clock_shows_it(
    now: str, zone: str, clock: str, expected: str
) -> None:
    """
    In the job's time zone, also in the nights in which clocks are put.
    """
    at = deadline_of(job({"run.deadline": clock, "time_zone": zone}), datetime.fromisoformat(now))

    # In UTC: times of a night in which the clock is put equal none of another zone.
    assert datetime.fromisoformat(expected).astimezone(UTC) == at.astimezone(UTC)


def test_without_a_deadline_there_is_none() -> None:
    """
    A run ends when it is done.
    """
    assert job().run.deadline is None


@law(40)
@given(
    st.integers(0, 3 * 365 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_a_deadline_is_never_past_and_never_more_than_a_day_and_an_hour_away(
    now: datetime, zone: str, hour: int, minute: int
) -> None:
    """
    Whatever the clock does in between.
    """
    at = deadline_of(job({"run.deadline": f"{hour}:{minute:02}", "time_zone": zone}), now)

    assert timedelta(0) < at - now <= timedelta(hours=25)


# --- earlier outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "day", "variables", "newest"),
    [
        ("out/dt={date}", "2026-03-01", "", ["out/dt=2026-02-28", "out/dt=2026-02-27"]),
        ("out/{yesterday}/x", "2026-01-02", "", ["out/2025-12-31/x", "out/2025-12-30/x"]),
        ("out/{run}", "2026-01-02", 'run = "{date}-a"', ["out/2026-01-01-a", "out/2025-12-31-a"]),
        ("out", "2026-03-01", "", ["out"]),
        ("out/{date}", "latest", "", []),
        ("out/{date}", "0001-01-02", "", ["out/0001-01-01"]),
    ],
)
def test_earlier_outputs_are_those_of_the_days_before(
    path: str, day: str, variables: str, newest: list[str]
) -> None:
    """
    Whatever follows from the day follows from the day before, too.
    """
    text = f'[variables]\n{variables}\n[output]\npath = "{path}"'

    found = earlier_outputs(text, datetime(2026, 11, 20, tzinfo=UTC), {"date": day})

    assert newest == found[:2]
    assert len(set(found)) == len(found) <= 366


@pytest.mark.parametrize(
    "written",
    ['"previous"', '["out/a", "out/dt={yesterday}"]', "[]"],
)
def test_reuse_is_a_word_or_a_list(written: str) -> None:
    """
    As in the documents.
    """
    lines = SMALL.replace("[output]", f"[output]\nreuse = {written}")

    assert read(lines).output.reuse is not None


# --- what a setting decides -----------------------------------------------------------------------

DECIDES: dict[str, tuple[str, object]] = {
    "name": ("free", "other"),
    "time_zone": ("free", "Europe/Berlin"),
    "labels": ("free", {"team": "search"}),
    "variables": ("free", {"market": "en"}),
    "source.path": ("free", "other.parquet"),  # the files themselves are in the fingerprint
    "source.run": ("free", "other.parquet"),
    "source.queries": ("free", "other.parquet"),
    "source.corpus": ("free", "other.parquet"),
    "source.database": ("free", "other.duckdb"),
    "source.reads": ("free", ["other.parquet"]),
    "source.attach.x.type": ("score", "duckdb"),
    "source.attach.x.path": ("score", "other.sqlite"),  # two of them may change places
    "source.attach.x.dsn_env": ("free", "OTHER"),
    "source.table": ("score", "other"),
    "source.sql": ("score", "SELECT 1"),
    "source.sql_file": ("score", "other.sql"),
    "source.parameters": ("score", {"other": 1}),
    "source.score": ("score", "other"),
    "source.rank": ("score", "other"),
    "source.depth": ("score", 3),
    "source.group_order": ("score", ["other"]),
    "source.unmatched": ("score", "reject"),
    "source.memory": ("free", "2GB"),
    "source.keep_staged": ("free", False),
    "source.query": ("score", "other"),
    "source.query_id": ("score", "other"),
    "source.documents": ("score", "other"),
    "source.doc_id": ("score", "other"),
    "source.text": ("score", "other"),
    "source.template": ("score", "{other}"),
    "source.yaml": ("score", ["other"]),
    "source.image": ("score", "other"),
    "source.max_chars": ("score", 3),
    "source.dedupe": ("free", True),
    "source.dedupe_documents": ("score", True),
    "source.carry": ("output", ["other"]),
    "source.require_success": ("free", True),
    "provider.name": ("score", "lexical"),
    "provider.model": ("score", "other"),
    "provider.key_env": ("free", "OTHER"),
    "provider.key_file": ("free", "other"),
    "provider.key_command": ("free", ["other"]),
    "provider.key_age_s_max": ("free", 3.0),
    "provider.base_url": ("score", "https://other"),
    "provider.check": ("free", False),
    "provider.connect_timeout_s": ("free", 3.0),
    "provider.timeout_s": ("free", 3.0),
    "provider.bytes_max": ("free", 3_000_000),
    "provider.documents_max": ("free", 3),
    "provider.tokens_max": ("free", 50_000),
    "provider.splits": ("free", False),
    "provider.send_top_n": ("score", True),
    "provider.route": ("free", "other"),
    "provider.strategy": ("free", "spread"),
    "provider.allow_other_models": ("free", True),  # the models that it lets in are told apart
    "provider.fallbacks": ("free", [{"name": "openrouter", "key_env": "OTHER"}]),
    "provider.options": ("score", {"provider": {"order": ["Cohere"]}}),
    "provider.price.usd_per_search_unit": ("free", 0.5),
    "provider.price.usd_per_million_tokens": ("free", 0.5),
    "provider.price.as_of": ("free", date(2026, 11, 21)),
    "limits.requests_per_second": ("free", 3),
    "limits.requests_per_minute": ("free", 3),
    "limits.requests_per_hour": ("free", 3),
    "limits.requests_per_day": ("free", 3),
    "limits.requests.count": ("free", 3),
    "limits.requests.per_s": ("free", 3),
    "limits.unlimited": ("free", True),
    "limits.documents_per_minute": ("free", 3),
    "limits.documents.count": ("free", 3),
    "limits.documents.per_s": ("free", 3),
    "limits.tokens_per_minute": ("free", 3),
    "limits.tokens.count": ("free", 3),
    "limits.tokens.per_s": ("free", 3),
    "limits.concurrency": ("free", 3),
    "limits.concurrency_max": ("free", 3),
    "output.path": ("free", "other"),  # another output, with a ledger of its own
    "output.layout": ("output", "groups"),
    "output.top_n": ("output", 3),
    "output.part_groups": ("output", 3),
    "output.rejected_max": ("free", 3),
    "output.state": ("free", "other"),
    "output.reuse": ("free", ["out/other"]),
    "output.reuse_pairs": ("output", True),
    "run.deadline": ("free", "06:00"),
    "run.drain_s_max": ("free", 3.0),
    "run.outage_s_max": ("free", 3.0),
    "run.throttled_s_max": ("free", 3.0),
    "budget.cost_usd_max": ("free", 3.0),
    "budget.requests_max": ("free", 3),
    "budget.search_units_max": ("free", 3),
    "budget.confirm_usd": ("free", 3.0),
    "budget.shared": ("free", "other"),
    "budget.day_usd_max": ("free", 3.0),
    "budget.month_usd_max": ("free", 3.0),
    "budget.day_requests_max": ("free", 3),
    "budget.month_requests_max": ("free", 3),
    "budget.day_search_units_max": ("free", 3),
    "budget.month_search_units_max": ("free", 3),
    "stores.s3.endpoint": ("free", "https://minio.example:9000"),
    "stores.s3.anonymous": ("free", True),
    "stores.s3.region": ("free", "eu-central-1"),
    "stores.gs.endpoint": ("free", "https://gcs.example"),
    "stores.gs.anonymous": ("free", True),
    "stores.abfss.endpoint": ("free", "https://azurite.example:10000"),
}
"""Every setting: what it decides (design D11), and a value that is not its default."""


def leaves(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """
    The name of every setting that the schema knows.
    """
    for name, field in model.model_fields.items():
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        tables = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if tables and get_origin(field.annotation) is not tuple:
            alias = "x." if get_origin(field.annotation) is dict else ""
            yield from leaves(tables[0], f"{above}{name}.{alias}")
        else:
            yield f"{above}{name}"


def test_every_setting_is_known_to_decide_something_or_nothing() -> None:
    """
    A new setting has to be classed before it can be added.
    """
    assert sorted(leaves(JobConfig)) == sorted(DECIDES)


BESIDE: dict[str, dict[str, object]] = {
    "source.attach.x": {"source.attach.x.type": "sqlite", "source.attach.x.path": "a.sqlite"},
    "provider.price": {
        "provider.price.as_of": date(2026, 1, 1),
        "provider.price.usd_per_search_unit": 1.0,
    },
    "output": {"output.reuse": ["out/other"]},
    **{
        table: {f"{table}.count": 1, f"{table}.per_s": 1}
        for table in ("limits.requests", "limits.documents", "limits.tokens")
    },
}
"""What must stand beside a setting of these tables."""


def decided(held: JobConfig) -> tuple[str, dict[str, object]]:
    """
    The fingerprint of what decides scores, and what shapes parts.
    """
    base_url = held.provider.base_url or "https://usual"
    settings = score_settings(held, held.provider.options, base_url)
    return fingerprint(settings), output_settings(held)


@pytest.mark.parametrize(
    ("setting", "kind", "value"), [pytest.param(k, *v, id=k) for k, v in DECIDES.items()]
)
def test_a_setting_decides_what_its_kind_says(setting: str, kind: str, value: object) -> None:
    """
    Score settings change the fingerprint, output settings the parts, all others neither.
    """
    beside = BESIDE.get(setting.rpartition(".")[0], {})
    before, after = decided(job(beside)), decided(job(beside | {setting: value}))

    assert {
        "score": (True, False),
        "output": (False, True),
        "free": (False, False),
    }[kind] == (before[0] != after[0], before[1] != after[1])


def test_a_top_n_that_is_sent_decides_scores() -> None:
    """
    What was cut off has no score, so it is both.
    """
    three = decided(job({"provider.send_top_n": True, "output.top_n": 3}))
    four = decided(job({"provider.send_top_n": True, "output.top_n": 4}))

    assert three[0] != four[0]
    assert three[1] != four[1]


def test_a_fingerprint_is_stable() -> None:
    """
    The order of keys means nothing; a later version computes the same from the same settings.
    """
    one = {"b": [1, None, "é"], "a": {"x": 1.5, "y": True}}
    other = {"a": {"y": True, "x": 1.5}, "b": [1, None, "é"]}

    assert fingerprint(one) == fingerprint(other)
    assert "21e05ee6" == fingerprint(one)[:8]


def test_score_settings_are_plain_data() -> None:
    """
    What is read back from the ledger equals what is computed now, tuples and all.
    """
    held = job({"source.yaml": ["a", "b"]})

    settings = score_settings(held, {"provider": {"order": ("x",)}}, "https://usual")

    assert json.loads(json.dumps(settings)) == settings
    assert json.loads(json.dumps(output_settings(held))) == output_settings(held)


# --- lines ----------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=5)
quoted = names.map(lambda name: json.dumps(name, ensure_ascii=False))
fillers = st.lists(st.sampled_from(["", "# words", "   ", '# [not.a] = "table"']), max_size=3)
bodies = st.sampled_from(
    ["1", '"x"', "[1,\n  # two\n  2]", '"""\na = 1\n[b]\n"""', "{ p = 1, q = 2 }", "'''\n'''"]
)
tables = st.dictionaries(quoted, st.dictionaries(quoted, st.tuples(fillers, bodies), max_size=4))


@law(50)
@given(tables, fillers)
def test_every_key_is_found_on_its_line(
    held: dict[str, dict[str, tuple[list[str], str]]], first: list[str]
) -> None:
    """
    Whatever keys are called, and whatever stands between them.
    """
    written, expected = list(first), dict[tuple[str, ...], int]()
    for table, pairs in held.items():
        written.append(f"[{table}]")
        expected[json.loads(table),] = len(written)
        for key, (above, body) in pairs.items():
            written += above
            expected[json.loads(table), json.loads(key)] = len(written) + 1
            written += f"{key} = {body}".split("\n")
    text = "\n".join(written)
    tomllib.loads(text)

    lines = Lines(text)

    assert expected == {path: lines.of(path) for path in expected}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("a", 1), 2),
        (("t",), 4),
        (("t", "dotted", "key"), 5),
        (("t", "inline", "x"), 6),
        (("rows", 0, "x"), 8),
        (("rows", 1), 9),
        (("rows", 1, "x"), 10),
        (("rows", 1, "missing"), 9),
        (("nowhere",), 0),
    ],
)
def test_arrays_dots_and_inline_tables_have_lines_too(
    path: tuple[str | int, ...], line: int
) -> None:
    """
    What is not there has the line of the table that lacks it.
    """
    text = (
        'a = [1,\n2]\n\n[t]\ndotted."key" = 1\ninline = { x = 1 }\n'
        "[[rows]]\nx = 1\n[[rows]]\nx = 2\n"
    )

    assert line == Lines(text).of(path)


# --- how values are shown -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("8", '"8"'),
        ('a "b"\n\x1b\u202e', '"a \\"b\\"\\n\\u001b\\u202E"'),
        ("é" * 61, f'"{"é" * 60}…"'),
        (8, "8"),
        (True, "true"),
        (1.5, "1.5"),
        pytest.param(10**5000, "a number of very many digits", id="what Python does not print"),
        (date(2026, 11, 20), "2026-11-20"),
        (["x"], "a list"),
        ({"x": 1}, "a table"),
    ],
)
def test_a_value_is_shown_as_toml_writes_it(value: object, text: str) -> None:
    """
    In one line that no terminal acts upon; what could be long is cut or only named.
    """
    assert text == shown(value)


# --- the schema for editors -----------------------------------------------------------------------

SCHEMA = json_schema(OPTION_MODELS)


@pytest.mark.parametrize(
    ("more", "good"),
    [
        pytest.param("", True, id="the smallest"),
        pytest.param("[limits]\nrequests_per_minute = 5", True, id="a limit"),
        pytest.param("[limits]\nrequests = { count = 5, per_s = 1.5 }", True, id="any period"),
        pytest.param("[limits]\nrequests = { count = 5 }", False, id="half a period"),
        pytest.param("[limits]\nconcurrency_max = 0", False, id="too small"),
        pytest.param("[limits]\nconcurrency_max = 5.5", False, id="a fraction"),
        pytest.param('[limits]\nconcurrency_max = "5"', False, id="a number in quotes"),
        pytest.param("[limits]\nconcurrency = 5", True, id="a number, or a word"),
        pytest.param('[limits]\nconcurrency = "auto"', True, id="a word, or a number"),
        pytest.param('[limits]\nconcurrency = "fast"', False, id="another word"),
        pytest.param("[limits]\nconcurrency = 2000", False, id="too large"),
        pytest.param("[limits]\nunlimited = true", True, id="no limit"),
        pytest.param("[limits]\ntokens = { count = 5, per_s = 1.5 }", True, id="tokens"),
        pytest.param("[limits]\nconcurency_max = 5", False, id="an unknown key"),
        pytest.param("[limitz]", False, id="an unknown table"),
        pytest.param('[labels]\nteam = "search"', True, id="a label"),
        pytest.param("[labels]\nteam = 5", False, id="a label that is a number"),
        pytest.param('layout = "groups"\ntop_n = 3', True, id="a layout"),
        pytest.param('layout = "wide"', False, id="no layout"),
        pytest.param("top_n = 0", False, id="the best none"),
        pytest.param('state = ""', False, id="an empty folder"),
        pytest.param('[provider.options]\nuser = "me"', True, id="a vendor's option"),
        pytest.param('[provider.options]\nuserr = "me"', False, id="no vendor's option"),
        pytest.param('[provider.options.provider]\norder = ["Cohere"]', True, id="options in one"),
        pytest.param("[provider.options.provider]\norder = 5", False, id="of another type"),
    ],
)
def test_editors_accept_what_we_accept(more: str, good: bool) -> None:
    """
    The JSON Schema and `parse` agree, also on the options of the vendor that is named.
    """
    assert good is (refusal(SMALL + more) is None)
    assert good is Draft202012Validator(SCHEMA).is_valid(tomllib.loads(SMALL + more))


def test_the_schema_knows_the_providers_and_their_own_options() -> None:
    """
    An option of one vendor is none of another's.
    """
    text = SMALL.replace('"openrouter"', '"lexical"') + '[provider.options]\nuser = "me"'

    Draft202012Validator.check_schema(SCHEMA)
    assert not Draft202012Validator(SCHEMA).is_valid(tomllib.loads(text))
    assert not Draft202012Validator(SCHEMA).is_valid(
        tomllib.loads(SMALL.replace('"openrouter"', '"acme"'))
    )
    named = SCHEMA["$defs"]["ProviderTable"]["properties"]["name"]
    assert ["lexical", "openrouter"] == named["enum"]


def undescribed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """
    The names of settings that editors have no words for.
    """
    for name, field in schema["properties"].items():
        references = [field, *field.get("anyOf", [])]
        tables = [one["$ref"].rpartition("/")[2] for one in references if "$ref" in one]
        if not tables and "description" not in field:
            yield f"{schema['title']}.{name}"
        for table in tables:
            yield from undescribed(definitions[table], definitions)


def test_editors_have_words_for_every_setting() -> None:
    """
    Hovering over a key tells what it is.
    """
    own = JobConfig.model_json_schema()

    assert [] == list(undescribed(own, own["$defs"]))
