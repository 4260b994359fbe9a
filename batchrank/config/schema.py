"""
The schema of the job file: its tables, their defaults, and which keys go together.

Knows nothing of TOML, variables or lines: `reading` does that. What each setting decides is told in
`deciding`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from batchrank.config.braces import template_fields
from batchrank.config.times import clock, duration_s
from batchrank.config.values import time_zones
from batchrank.domain import Price, RateLimit

RESERVED_COLUMNS = frozenset(
    (
        *("query_id", "doc_id", "index", "rank", "relevance_score", "model", "provider", "digest"),
        *("pair_digest", "results"),
    )
)
"""What an output column may not be called when it is carried over."""


Names = Annotated[tuple[str, ...], Field(strict=False)]
"""A list of names; frozen, as everything here."""


class Table(BaseModel):
    """
    A table of the job file: frozen, and strict about keys it does not know.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, str_min_length=1, allow_inf_nan=False
    )


# --- the tables -----------------------------------------------------------------------------------


def _are_free(columns: tuple[str, ...]) -> tuple[str, ...]:
    names = [column.rpartition(".")[2] for column in columns]
    if taken := sorted(set(names) & RESERVED_COLUMNS):
        raise ValueError(f"{', '.join(taken)} would hide a column that the output has anyway")
    if len(set(names)) < len(names):
        raise ValueError("a column is named twice")
    return columns


def _is_template(form: str) -> str:
    template_fields(form)
    return form


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?B)")
_UNIT_BYTES = {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate(("", "k", "M", "G", "T"))
    for unit, base in (("B", 1000), ("iB", 1024))
}


def size_bytes(text: str) -> int:
    """
    A size such as "1GB" or "512MiB", in bytes.

    Raises:
        ValueError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError('expected a size such as "1GB" or "512MiB"')
    return int(float(found[1]) * _UNIT_BYTES[found[2]])


def _is_size(text: str) -> str:
    if size_bytes(text) < 100_000_000:
        raise ValueError('expected at least "100MB"')
    return text


def _is_environment_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("expected the name of an environment variable, not the key itself")
    return name


EnvironmentName = Annotated[str, AfterValidator(_is_environment_name)]
"""Where a secret is; never the secret."""


class AttachTable(Table):
    """
    A database beside the first, read only, under a name of its own in the SELECT.
    """

    type: Literal["duckdb", "sqlite", "postgres"] = Field(
        description="duckdb, sqlite or postgres; of the last two DuckDB's extension has to be"
        " installed"
    )
    path: str | None = Field(None, description="its file, where type is duckdb or sqlite")
    dsn_env: EnvironmentName | None = Field(
        None,
        description="the environment variable that holds PostgreSQL's connection string; without"
        " it libpq's own (PGHOST, PGSERVICE, ...) and its password file",
    )


Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""What an attached database is called in SQL, without quotes."""


class SourceTable(Table):
    """
    Where the groups are, and which columns hold what.

    Exactly one of *path*, *run*, *table*, *sql* and *sql_file* says where they are. Groups that lie
    nested in Parquet are read as they are; everything else is staged once, in the state folder.
    """

    path: str | None = Field(
        None,
        description="a Parquet file, a folder of them, or a glob; also of CSV or JSON lines, and"
        " with one row per candidate",
    )
    run: str | None = Field(
        None, description="files with one row per candidate: query_id, doc_id, and score or rank"
    )
    queries: str | None = Field(None, description="files with query_id and query, beside run")
    corpus: str | None = Field(None, description="files with doc_id and the texts, beside run")
    database: str | None = Field(
        None, description="a DuckDB file, opened read-only, for table, sql or sql_file"
    )
    attach: dict[Alias, AttachTable] = Field(
        default_factory=dict,
        description="other databases by their names in the SELECT: DuckDB, SQLite or PostgreSQL",
    )
    table: str | None = Field(
        None, description="a table or a view in database, or ALIAS.table in one that is attached"
    )
    sql: str | None = Field(
        None, description="one SELECT: a row per group or a row per candidate; it only reads"
    )
    sql_file: str | None = Field(None, description="a file with that SELECT, beside the job file")
    parameters: dict[str, str | int | float | bool | date] = Field(
        default_factory=dict, description="values for $name in the SELECT, never pasted into it"
    )
    reads: Names = Field(
        (), description="files, folders and globs that the SELECT may read beside the database"
    )
    query: str = Field("query", description="column with the query's text")
    query_id: str | None = Field(
        None,
        description="column with the query's id, string or integer; without it the position, or"
        " query_id where there is a row per candidate",
    )
    documents: str = Field(
        "documents", description="column with the candidates: a list of strings or of structs"
    )
    doc_id: str | None = Field(
        None,
        description="field of the structs (or list column beside the strings) with the ids;"
        " where there is a row per candidate a column, doc_id if it is there",
    )
    text: str | None = Field(
        None, description="field of the structs with the text, or column of the candidates' rows"
    )
    template: Annotated[str, AfterValidator(_is_template)] | None = Field(
        None, description='text made of several fields, as in "{title}\\n{body}"'
    )
    yaml: Names | None = Field(
        None, description="fields that are sent as YAML, as Cohere recommends for structured data"
    )
    image: str | None = Field(
        None, description="field of the structs with an image URL or data URI"
    )
    max_chars: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="cut each document to so many characters (code points) of text"
    )
    dedupe_documents: bool = Field(
        False,
        description="send equal documents of a group once: each candidate gets the score of its"
        " text",
    )
    dedupe: bool | None = Field(
        None,
        description="ask once about groups whose query and documents are the same, and give the"
        " outcome to all of them; true where the source is staged, else false",
    )
    carry: Annotated[Names, AfterValidator(_are_free)] = Field(
        (),
        description="columns to carry into the output; a field of the structs after their column's"
        " name and a dot, as in documents.price",
    )
    score: str | None = Field(
        None, description="column of the candidates' rows: the highest is the first candidate"
    )
    rank: str | None = Field(
        None, description="column of the candidates' rows: the lowest is the first candidate"
    )
    depth: PositiveInt | None = Field(
        None, description="take the first so many candidates of each query"
    )
    group_order: Names = Field(
        (), description="columns that order the groups, before query_id as a string"
    )
    unmatched: Literal["refuse", "reject"] = Field(
        "refuse",
        description="ids in run that queries or corpus do not have: refuse to start, or reject the"
        " groups that they are in",
    )
    memory: Annotated[str, AfterValidator(_is_size)] = Field(
        "1GB", description="what DuckDB may use for staging; the rest goes to the state folder"
    )
    keep_staged: bool = Field(
        True, description="keep what was staged when the job is done, for the next time"
    )
    require_success: bool = Field(
        False, description="refuse to start (exit 75) until the folder holds _SUCCESS"
    )

    @property
    def paths(self) -> tuple[str, ...]:
        """
        Every path of files that is read, the database's excepted.
        """
        given = (self.path, self.run, self.queries, self.corpus, *self.reads)
        return tuple(path for path in given if path is not None)

    @property
    def shown(self) -> str:
        """
        Where the groups are, in a few words.
        """
        if self.path or self.run:
            return " + ".join(self.paths)
        said = self.table or self.sql_file or "a SELECT"
        places = [*filter(None, [self.database]), *self.attach]
        return f"{said} in {' + '.join(places)}" if places else said


class PriceTable(Table):
    """
    What the model costs, where it differs from the price that batchrank knows.
    """

    usd_per_search_unit: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        None, description="US dollars for one search unit"
    )
    usd_per_million_tokens: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        None, description="US dollars for a million tokens"
    )
    as_of: date = Field(description="the day on which this price was seen")

    def as_price(self) -> Price:
        """
        The same as the value that the other rooms know.
        """
        return Price(
            self.usd_per_search_unit,
            self.usd_per_million_tokens,
            self.as_of.isoformat(),
            "the job file",
        )


class RouteTable(Table):
    """
    One way to a model: who scores, with which model and key.
    """

    name: str = Field(
        description="the provider: `batchrank providers` lists them; lexical and crossencoder score"
        " in process"
    )
    model: str = Field("", description='the model\'s slug, such as "cohere/rerank-v3.5"')
    key_env: EnvironmentName | None = Field(
        None, description="the environment variable that holds the key"
    )
    key_file: str | None = Field(
        None, description="a file with the key that only its owner can read (0400 or 0600)"
    )
    key_command: Annotated[Names, Field(min_length=1)] | None = Field(
        None,
        description="a command that prints the key, for keys that do not last:"
        ' ["gcloud", "auth", "print-access-token"]',
    )
    key_age_s_max: Annotated[float, Field(ge=1)] = Field(
        300.0,
        description="after so many seconds key_command is run again; also when its key is refused",
    )
    base_url: str | None = Field(None, description="where the API is, if not at its usual place")
    connect_timeout_s: PositiveFloat = Field(10.0, description="to reach the server, in seconds")
    timeout_s: PositiveFloat = Field(
        120.0, description="to the end of the reply, in seconds; a false timeout pays twice"
    )
    documents_max: PositiveInt | None = Field(
        None, description="documents in one request, at most, where that is not the provider's own"
    )
    bytes_max: PositiveInt | None = Field(
        None,
        description="bytes of one request, at most, where that is not the provider's own: of its"
        " body, unless the provider is known to count otherwise",
    )
    tokens_max: PositiveInt | None = Field(
        None,
        description="tokens of one request, at most, where that is not the provider's own: the"
        " query once for every document",
    )
    splits: bool | None = Field(
        None,
        description="pairs are scored independently, so that a group may be asked in several"
        " requests; unless told, as far as that is known of the provider",
    )
    check: bool = Field(
        True,
        description="before the first call, ask what the provider tells for nothing: of the key,"
        " the model, its limits",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="the vendor's own request fields, named as it names them"
    )
    price: PriceTable | None = None
    route: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        None, description="what this way is called in summaries; the provider's name unless told"
    )


Count = Annotated[float, Field(ge=1e-6, le=1e9)]
"""How many in a period; fractions are rare, and right: one in two days is 0.5 a day."""


class AnyPeriod(Table):
    """
    A limit over any period.
    """

    count: Count = Field(description="how many in the period")
    per_s: Annotated[float, Field(ge=1e-3, le=1e8)] = Field(
        description="how long the period is, in seconds"
    )


_PERIODS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}


Concurrency = Annotated[int, Field(ge=1, le=1024)]
"""How many requests may be under way at once."""


class LimitsTable(Table):
    """
    What the provider allows. A limit of requests that is not told is found out, by its 429s.
    """

    requests_per_second: Count | None = Field(None, description="requests in any second")
    requests_per_minute: Count | None = Field(None, description="requests in any minute")
    requests_per_hour: Count | None = Field(None, description="requests in any hour")
    requests_per_day: Count | None = Field(None, description="requests in any day")
    requests: AnyPeriod | None = Field(None, description="any period: { count = 50, per_s = 10 }")
    unlimited: bool = Field(
        False,
        description="there is no limit of requests, as on a server of your own: only the"
        " concurrency holds back",
    )
    documents_per_minute: Count | None = Field(
        None, description="documents in any minute, over all requests"
    )
    documents: AnyPeriod | None = Field(
        None, description="documents in any period: { count = 5000, per_s = 10 }"
    )
    tokens_per_minute: Count | None = Field(
        None, description="tokens in any minute, over all requests, as the provider counts them"
    )
    tokens: AnyPeriod | None = Field(
        None, description="tokens in any period: { count = 50000, per_s = 10 }"
    )
    concurrency: Literal["auto"] | Concurrency = Field(
        "auto", description='requests under way at once: a number, or "auto" for what is needed'
    )
    concurrency_max: Concurrency = Field(
        256, description="requests under way at once, at most, where their number is found out"
    )

    @property
    def request_limit(self) -> RateLimit | None:
        """
        The one limit of requests that is set, if any.
        """
        return _limit(self, "requests")

    @property
    def document_limit(self) -> RateLimit | None:
        """
        The one limit of documents that is set, if any.
        """
        return _limit(self, "documents")

    @property
    def token_limit(self) -> RateLimit | None:
        """
        The one limit of tokens that is set, if any.
        """
        return _limit(self, "tokens")

    @property
    def concurrency_fixed(self) -> int | None:
        """
        How many requests are under way at once; None if that is to be found out.
        """
        return None if self.concurrency == "auto" else self.concurrency

    @property
    def concurrency_most(self) -> int:
        """
        How many requests are ever under way at once.
        """
        return self.concurrency_fixed or self.concurrency_max


def _limit(limits: LimitsTable, unit: str) -> RateLimit | None:
    """
    The limit of *unit* that is set: for any period, or for one that has a name.
    """
    period: AnyPeriod | None = getattr(limits, unit)
    if period:
        return RateLimit(period.count, period.per_s)
    for name, period_s in _PERIODS_S.items():
        if (count := getattr(limits, f"{unit}_per_{name}", None)) is not None:
            return RateLimit(count, period_s)
    return None


class FallbackTable(RouteTable):
    """
    Another way, with limits of its own.
    """

    limits: LimitsTable = LimitsTable()
    same_model: bool = Field(
        False,
        description="you state that this is the same model as the first one, with the same scores,"
        " where batchrank does not know it",
    )


class ProviderTable(RouteTable):
    """
    Who scores: the first way, and those that take over or help.
    """

    send_top_n: bool = Field(
        False, description="send output.top_n to the provider: the others get no score at all"
    )
    strategy: Literal["failover", "spread"] = Field(
        "failover",
        description="where there are fallbacks: ask them in their order when those before are down,"
        " or all at once, so that their limits add up",
    )
    allow_other_models: bool = Field(
        False,
        description="fallbacks may be other models: no group has scores of two, but the output has",
    )
    fallbacks: Annotated[tuple[FallbackTable, ...], Field(strict=False)] = Field(
        (), description="further ways to the same model, in the order in which they take over"
    )

    @property
    def routes(self) -> tuple[RouteTable, ...]:
        """
        Every way, the first one first.
        """
        return (self, *self.fallbacks)


class OutputTable(Table):
    """
    Where the scores go, and in which form.
    """

    path: str = Field(description="the folder of the parts; it holds nothing else")
    layout: Literal["candidates", "groups"] = Field(
        "candidates", description="one row per candidate, or one per group with nested results"
    )
    top_n: PositiveInt | None = Field(None, description="keep the best n of each group")
    part_groups: PositiveInt = Field(10_000, description="groups in one part file")
    rejected_max: NonNegativeInt = Field(
        0, description="more rejected groups than this, and there is no _SUCCESS (exit 1)"
    )
    state: str | None = Field(
        None, description="the folder for ledgers, on a local disk; .batchrank beside the job file"
    )
    reuse: Literal["previous"] | Names | None = Field(
        None,
        description="finished outputs whose scores are taken for groups that have not changed:"
        ' folders, or "previous" for the newest before this {date}',
    )
    reuse_pairs: bool = Field(
        False,
        description="take scores of single documents, too, of groups that have changed; for models"
        " that score each document alone and are not billed by search units",
    )


def _reads_as_deadline(text: str) -> str:
    if clock(text) is None and duration_s(text) is None:
        raise ValueError('expected a time of day such as "06:00", or a duration such as "7h30m"')
    return text


class RunTable(Table):
    """
    When a run ends before it is done.
    """

    deadline: Annotated[str, AfterValidator(_reads_as_deadline)] | None = Field(
        None, description='leave in time: "06:00" in time_zone, or after a while: "7h30m"'
    )
    drain_s_max: Annotated[float, Field(ge=0)] = Field(
        25.0, description="after a signal, how long calls under way may take to come home"
    )
    outage_s_max: PositiveFloat = Field(
        1800.0, description="leave (exit 75) when nothing has succeeded for so long"
    )
    throttled_s_max: PositiveFloat = Field(
        21_600.0, description="leave (exit 75) when everything has been throttled for so long"
    )


Usd = Annotated[float, Field(gt=0, le=1e9)]
"""A cap on money, in US dollars."""

Calls = Annotated[int, Field(ge=1, le=10**12)]
"""A cap on something that is counted."""


class BudgetTable(Table):
    """
    What may be spent: by this output over all its runs, and by all jobs that share a file.
    """

    cost_usd_max: Usd | None = Field(
        None, description="stop (exit 3) before the output has cost more than this, in US dollars"
    )
    requests_max: Calls | None = Field(
        None,
        description="stop (exit 3) after so many requests for the output, failed ones included",
    )
    search_units_max: Calls | None = Field(
        None, description="stop (exit 3) before the output has cost more search units than this"
    )
    confirm_usd: Annotated[float, Field(ge=0, le=1e9)] = Field(
        50.0, description="ask, or need --yes, where what is left may cost more than this"
    )
    shared: str | None = Field(
        None,
        description="the file in which jobs of this machine count together, by UTC day and month;"
        " one of the user's own unless told",
    )
    day_usd_max: Usd | None = Field(
        None, description="US dollars a UTC day, for all jobs that share the file"
    )
    month_usd_max: Usd | None = Field(None, description="US dollars a month, likewise")
    day_requests_max: Calls | None = Field(None, description="requests a UTC day, likewise")
    month_requests_max: Calls | None = Field(None, description="requests a month, likewise")
    day_search_units_max: Calls | None = Field(None, description="search units a day, likewise")
    month_search_units_max: Calls | None = Field(None, description="search units a month, likewise")

    def capped(self, *endings: str) -> list[str]:
        """
        The caps that are set and whose names end so.
        """
        names = type(self).model_fields
        return [n for n in names if n.endswith(endings) and getattr(self, n) is not None]

    @property
    def is_shared(self) -> bool:
        """
        Whether this job counts together with others.
        """
        return self.shared is not None or any(
            name.startswith(("day_", "month_")) for name in self.capped("_max")
        )


def _is_time_zone(name: str) -> str:
    if name not in time_zones():
        near = difflib.get_close_matches(name, time_zones(), 1)
        raise ValueError(
            "expected an IANA time zone" + (f"; did you mean {near[0]}?" if near else "")
        )
    return name


def _is_endpoint(url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+/?", url):
        raise ValueError("is no address such as https://minio.example:9000")
    return url.rstrip("/")


class StoreTable(Table):
    """
    How an object store is reached. Credentials are never told here: they are found as the store's
    own tools find them.
    """

    endpoint: Annotated[str, AfterValidator(_is_endpoint)] | None = Field(
        None, description="its address, if it is not the vendor's own: https://minio.example:9000"
    )


class PublicTable(StoreTable):
    """
    How a store is reached that may be asked by anybody.
    """

    anonymous: bool = Field(False, description="ask without credentials, for public data")


class S3Table(PublicTable):
    """
    How S3, or a store that speaks as S3 does, is reached.
    """

    region: str | None = Field(None, description="the buckets' region, as in eu-central-1")


class StoresTable(Table):
    """
    Object stores that paths of the job lie in: s3://, gs:// and abfss://.
    """

    s3: S3Table = S3Table()
    gs: PublicTable = PublicTable()
    abfss: StoreTable = StoreTable()


class JobConfig(Table):
    """
    A whole job file, valid.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "job", description="the job's name in messages; the file's name unless told"
    )
    time_zone: Annotated[str, AfterValidator(_is_time_zone)] = Field(
        "UTC", description="for {date} and the deadline"
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="team, project, run: into the manifest, the summary and the bill",
    )
    variables: dict[str, str] = Field(
        default_factory=dict, description="defaults of the variables that --set may change"
    )
    source: SourceTable
    provider: ProviderTable
    limits: LimitsTable = LimitsTable()
    output: OutputTable
    run: RunTable = RunTable()
    budget: BudgetTable = BudgetTable()
    stores: StoresTable = StoresTable()


AT_MOST_ONE: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("source",), ("path", "run", "table", "sql", "sql_file")),
    (("source",), ("text", "template", "yaml")),
    (("source",), ("score", "rank")),
    (("provider",), ("key_env", "key_file", "key_command")),
    (("provider", "price"), ("usd_per_search_unit", "usd_per_million_tokens")),
    (("limits",), (*(f"requests_per_{name}" for name in _PERIODS_S), "requests", "unlimited")),
    (("limits",), ("documents_per_minute", "documents")),
    (("limits",), ("tokens_per_minute", "tokens")),
)
"""Tables, and keys in them that exclude each other; one that is false excludes nothing."""

AT_LEAST_ONE: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("source",): ("path", "run", "table", "sql", "sql_file"),
    ("provider", "price"): ("usd_per_search_unit", "usd_per_million_tokens"),
}
"""Keys of which a table, when it is there, needs one."""

TOGETHER: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = (
    (("source",), "queries", ("run",)),
    (("source",), "corpus", ("run",)),
    (("source",), "run", ("queries",)),
    (("source",), "run", ("corpus",)),
    (("source",), "table", ("database", "attach")),
    (("source",), "database", ("table", "sql", "sql_file")),
    (("source",), "attach", ("table", "sql", "sql_file")),
    (("source",), "parameters", ("sql", "sql_file")),
    (("source",), "reads", ("sql", "sql_file")),
    (("output",), "reuse_pairs", ("reuse",)),
)
"""Tables, a key in them, and those of which one has to be there with it, unless it is false."""


# --- for editors ----------------------------------------------------------------------------------


def json_schema(option_models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """
    The JSON Schema of a job file, with each vendor's own options behind its name.
    """
    schema = JobConfig.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    branches = []
    for name, model in sorted(option_models.items()):
        options = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= options.pop("$defs", {})
        definitions[f"options.{name}"] = options
        branches.append(
            {
                "if": {"properties": {"name": {"const": name}}},
                "then": {"properties": {"options": {"$ref": f"#/$defs/options.{name}"}}},
            }
        )
    for table in ("ProviderTable", "FallbackTable"):
        definitions[table]["allOf"] = branches
        definitions[table]["properties"]["name"]["enum"] = sorted(option_models)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
