"""
OpenRouter: `POST /api/v1/rerank`.

Sources: OpenRouter's OpenAPI document of 2026-08-22 (request, reply, error bodies); its pages
"Errors and debugging" (typed codes, `availability`, errors inside a 200), "App attribution"
(headers) and "Limits"; its Python SDK 1.3.84 (`user`, `trace`, `session_id`, provider `options`).
Not documented, and so not guessed: the most documents, bytes or tokens of one request, and the
range of scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace
from pydantic import Field

from batchrank.domain import (
    Answer,
    Document,
    Failure,
    FailureKind,
    Price,
    RerankReply,
    RerankRequest,
    RichDocument,
    Served,
    Usage,
)
from batchrank.providers.base import (
    RETRY_AFTER_S_MAX,
    Facts,
    HeaderText,
    HttpCall,
    HttpReply,
    Options,
    Results,
    Settings,
    Vendor,
    bad_reply,
    bind,
    kind_of_status,
    positive,
    retry_after_s,
    same_model,
    structure,
)
from batchrank.providers.checks import Check, KeyPlaces, ModelPlaces
from batchrank.providers.reading import (
    UNREADABLE,
    another_model,
    bill,
    limited,
    mended,
    table,
    text,
    whatever,
)

# --- what a job may set ---------------------------------------------------------------------------

Names = Annotated[tuple[str, ...], Field(strict=False)]


class SortBy(Options):
    """
    A sorting strategy with its partition.
    """

    by: Literal["price", "throughput", "latency", "exacto"] | None = None
    partition: Literal["model", "none"] | None = None


class MaxPrice(Options):
    """
    The most to pay, as strings in USD: per million tokens, per image, per audio unit, per request.
    """

    prompt: str | None = None
    completion: str | None = None
    image: str | None = None
    audio: str | None = None
    request: str | None = None


class Percentiles(Options):
    """
    Cut-offs by percentile.
    """

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


Quantization = Literal[
    "int4",
    "int8",
    "fp4",
    "mxfp4",
    "nvfp4",
    "fp6",
    "fp8",
    "mxfp8",
    "fp16",
    "bf16",
    "fp32",
    "unknown",
]


class ProviderPreferences(Options):
    """
    Which upstream providers may serve, and in which order.
    """

    allow_fallbacks: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    enforce_distillable_text: bool | None = None
    ignore: Names | None = None
    max_price: MaxPrice | None = None
    only: Names | None = None
    order: Names | None = None
    preferred_max_latency: float | Percentiles | None = None
    preferred_min_throughput: float | Percentiles | None = None
    quantizations: Annotated[tuple[Quantization, ...], Field(strict=False)] | None = None
    require_parameters: bool | None = None
    sort: Literal["price", "throughput", "latency", "exacto"] | SortBy | None = None
    zdr: bool | None = None
    options: dict[str, dict[str, Any]] | None = Field(
        None, description="options for one upstream provider, by its slug (SDK 1.3.84)"
    )


Category = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=30)]


class OpenRouterOptions(Options):
    """
    OpenRouter's request fields and attribution headers.
    """

    provider: ProviderPreferences | None = Field(None, description="provider preferences, whole")
    user: str | None = Field(None, description="a stable id of your end user")
    session_id: Annotated[str, Field(max_length=256)] | None = None
    trace: dict[str, Any] | None = Field(None, description="metadata for observability")
    http_referer: HeaderText | None = Field(
        None, description="your site: HTTP-Referer, for attribution"
    )
    title: HeaderText | None = Field(None, description="your application: X-OpenRouter-Title")
    categories: Annotated[tuple[Category, ...], Field(strict=False, max_length=2)] | None = Field(
        None, description="X-OpenRouter-Categories, at most two"
    )


# --- what a reply says ----------------------------------------------------------------------------


class _Echo(msgspec.Struct, gc=False):
    text: str | None = None
    image: str | None = None


class _Result(msgspec.Struct, gc=False):
    index: int
    relevance_score: float
    document: _Echo | None = None


class _Reply(msgspec.Struct):
    """
    Only what scores depend on is typed: a bill that cannot be read must not cost a paid result.
    """

    model: str
    results: list[_Result]
    id: Any = None
    provider: Any = None
    usage: Any = None
    error: Any = None


_read_reply = msgspec.json.Decoder(_Reply).decode


# --- errors ---------------------------------------------------------------------------------------

CODE_KINDS: Mapping[str, FailureKind] = {
    # typed codes ("use this value, not the HTTP status code alone")
    "context_length_exceeded": FailureKind.BAD_GROUP,
    "max_tokens_exceeded": FailureKind.BAD_GROUP,
    "token_limit_exceeded": FailureKind.BAD_GROUP,
    "string_too_long": FailureKind.BAD_GROUP,
    "invalid_request": FailureKind.BAD_GROUP,
    "invalid_prompt": FailureKind.BAD_GROUP,
    "content_policy_violation": FailureKind.BAD_GROUP,
    "refusal": FailureKind.BAD_GROUP,
    "invalid_image": FailureKind.BAD_GROUP,
    "image_too_large": FailureKind.BAD_GROUP,
    "image_too_small": FailureKind.BAD_GROUP,
    "unsupported_image_format": FailureKind.BAD_GROUP,
    "image_download_failed": FailureKind.BAD_GROUP,
    "image_not_found": FailureKind.BAD_GROUP,
    "precondition_failed": FailureKind.BAD_GROUP,
    "payload_too_large": FailureKind.BAD_GROUP,
    "unprocessable": FailureKind.BAD_GROUP,
    "authentication": FailureKind.FATAL,
    "payment_required": FailureKind.FATAL,
    "permission_denied": FailureKind.FATAL,
    "not_found": FailureKind.FATAL,
    "rate_limit_exceeded": FailureKind.THROTTLED,
    "provider_overloaded": FailureKind.THROTTLED,
    "server": FailureKind.UNKNOWN,
    "unmapped": FailureKind.UNKNOWN,
    "provider_unavailable": FailureKind.UNKNOWN,
    "timeout": FailureKind.UNKNOWN,
    # quotas that waiting does not bring back, in the words of several vendors behind OpenRouter
    "insufficient_quota": FailureKind.FATAL,
    "credit_balance_exhausted": FailureKind.FATAL,
    "enforced_spend_limit_reached": FailureKind.FATAL,
}
"""What a typed code means, before any status is looked at."""

TOO_LARGE = {"payload_too_large", "context_length_exceeded", "token_limit_exceeded"}
"""Codes that half of the request may not get."""


class OpenRouter:
    """
    OpenRouter with one job's model and options.
    """

    def __init__(self, settings: Settings) -> None:
        options = settings.options
        assert isinstance(options, OpenRouterOptions)
        self._model = settings.model
        self._top_n = settings.top_n
        self._url = f"{settings.base_url.rstrip('/')}/rerank"
        self._headers = tuple(_headers(options))
        self._fields = options.model_dump(
            mode="json", include={"provider", "user", "session_id", "trace"}, exclude_none=True
        )
        if settings.top_n is not None:
            self._fields["top_n"] = settings.top_n

    def call(self, request: RerankRequest) -> HttpCall:
        """
        The call that asks *request*.
        """
        body = msgspec.json.encode(
            {
                "model": self._model,
                "query": request.query,
                "documents": [d if type(d) is str else _sent(d) for d in request.documents],
                **self._fields,
            }
        )
        return HttpCall("POST", self._url, self._headers, body)

    def read(
        self, request: RerankRequest, reply: HttpReply, now_epoch_s: float | None = None
    ) -> Answer:
        """
        What *reply* says. An error inside a 200 is an error.
        """
        return limited(self._answer(request, reply, now_epoch_s), reply, now_epoch_s)

    def _answer(
        self, request: RerankRequest, reply: HttpReply, now_epoch_s: float | None
    ) -> Answer:
        if reply.status != 200:
            return _failure(reply, now_epoch_s)
        try:
            read = _read_reply(reply.body)
        except UNREADABLE as error:
            return _unread(reply, error, now_epoch_s)
        if read.error is not None:
            return _failure(reply, now_epoch_s)
        return self._bound(request, reply, read)

    def _bound(self, request: RerankRequest, reply: HttpReply, read: _Reply) -> Answer:
        served = Served(read.model, text(read.provider))
        if not same_model(self._model, read.model):
            return another_model(self._model, _known(reply, read.usage, read.id, served))
        results = _results(read.results)
        scores = bind(request, results, self._top_n)
        if isinstance(scores, str):
            known = _known(reply, read.usage, read.id, served)
            return bad_reply(reply, scores, replace(known, code="bad_results"))
        echoed = None not in results.echoes
        request_id = _request_id(read.id, reply)
        return RerankReply(scores, served, _usage(read.usage), request_id, echoed)


def _headers(options: OpenRouterOptions) -> Iterator[tuple[str, str]]:
    yield "Content-Type", "application/json"
    if options.http_referer:
        yield "HTTP-Referer", options.http_referer
    if options.title:
        yield "X-OpenRouter-Title", options.title
    if options.categories:
        yield "X-OpenRouter-Categories", ",".join(options.categories)


def _sent(document: Document) -> str | dict[str, str]:
    return document if isinstance(document, str) else structure(document)


def _results(read: list[_Result]) -> Results:
    return Results(
        [result.index for result in read],
        [result.relevance_score for result in read],
        [None if (echo := result.document) is None else _echo(echo) for result in read],
    )


def _echo(echo: _Echo) -> Document:
    if echo.text is not None and echo.image is None:
        return echo.text
    return RichDocument(echo.text, echo.image)


def _usage(read: object) -> Usage:
    said = table(read)
    return bill(said.get("search_units"), said.get("total_tokens"), said.get("cost"))


def _unread(reply: HttpReply, error: Exception, now_epoch_s: float | None) -> Failure:
    """
    A 200 that is not a rerank reply: an error in it counts as one, everything else is a bad reply.
    """
    try:
        body = mended(reply.body)
    except UNREADABLE:
        return bad_reply(reply, "the reply is not JSON", _known(reply))
    if body.get("error") is not None:
        return _failure(reply, now_epoch_s)
    return bad_reply(
        reply, f"not a rerank reply: {error}", _known(reply, body.get("usage"), body.get("id"))
    )


def _known(
    reply: HttpReply, usage: object = None, named: object = None, served: Served | None = None
) -> Failure:
    """
    What a reply tells whatever is wrong with it: its bill, what it is known by, and who served it.
    """
    return Failure(
        FailureKind.BAD_REPLY,
        "",
        status=reply.status,
        usage=_usage(usage),
        served=served,
        request_id=_request_id(named, reply),
    )


def _failure(reply: HttpReply, now_epoch_s: float | None) -> Failure:
    """
    Class an error by `availability.retryable`, which the vendor says always to switch on; else by
    its typed code, else by the code in the body, else by the status.
    """
    body = whatever(reply)
    error = _error_in(body)
    metadata = table(error.get("metadata"))
    availability = table(error.get("availability"))
    status = _status(error, reply.status)
    code = text(metadata.get("error_type")) or text(error.get("error_type"))
    code = code or text(availability.get("code"))
    failure = Failure(
        _kind(code, availability, metadata, status),
        _message(error, metadata, reply),
        status=status,
        code=code,
        retry_after_s=_wait_s(availability, reply, now_epoch_s),
        too_large=status == 413 or code in TOO_LARGE,
        usage=_usage(body.get("usage")),
        served=_served(body),
        request_id=_request_id(body.get("id"), reply),
    )
    if failure.kind is FailureKind.BAD_REPLY:
        return bad_reply(reply, failure.message, failure)
    return failure


def _kind(
    code: str | None, availability: dict[str, Any], metadata: dict[str, Any], status: int
) -> FailureKind:
    if 300 <= status < 400:
        return FailureKind.FATAL  # whatever else it says, it would carry the key elsewhere
    if status == 403 and ("reasons" in metadata or "patterns" in metadata):
        return FailureKind.BAD_GROUP  # moderation or a guardrail: this content, not this key
    by_code = CODE_KINDS.get(code or "")
    match availability.get("retryable"):
        case True if by_code is not FailureKind.UNKNOWN:
            return FailureKind.THROTTLED
        case False:
            return FailureKind.FATAL
    # An outcome that is unknown may have been billed, and is not asked for without end.
    return by_code or kind_of_status(status)


def _error_in(body: dict[str, Any]) -> dict[str, Any]:
    error = body.get("error")
    return error if isinstance(error, dict) else {"message": error}


def _served(body: dict[str, Any]) -> Served | None:
    """
    Who scored in spite of the error: somebody did if there are results beside it.
    """
    model = text(body.get("model"))
    return Served(model, text(body.get("provider"))) if model and body.get("results") else None


def _request_id(named: object, reply: HttpReply) -> str | None:
    """
    What the vendor knows the call by, in the body or in a header: its word in a dispute on a bill.
    """
    return text(named) or text(reply.headers.get("x-generation-id"))


def _status(error: dict[str, Any], status: int) -> int:
    """
    The body's own status where it has one: transient errors from upstream arrive as 400, or 200.
    """
    for name in ("code", "http_status"):
        value = error.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return status


def _message(error: dict[str, Any], metadata: dict[str, Any], reply: HttpReply) -> str:
    """
    The message, and the upstream's own words where there are any: they hold the real reason.
    """
    told = (error.get("message"), metadata.get("provider_name"), metadata.get("raw"))
    words = ": ".join(dict.fromkeys(filter(None, map(text, told))))
    return words or f"HTTP {reply.status} without a readable error"


def _wait_s(
    availability: dict[str, Any], reply: HttpReply, now_epoch_s: float | None
) -> float | None:
    said = retry_after_s(reply.headers, now_epoch_s)
    return positive(availability.get("retry_after"), RETRY_AFTER_S_MAX) if said is None else said


CHECKS = (
    Check(
        "/key",
        key=KeyPlaces(
            within="data",
            limit_usd="data.limit",
            left_usd="data.limit_remaining",
            resets="data.limit_reset",
            expires_at="data.expires_at",
            free_tier="data.is_free_tier",
        ),
    ),
    Check(
        "/models?output_modalities=rerank",
        model=ModelPlaces(
            names=("id", "canonical_slug"),
            tasks="architecture.output_modalities",
            listed_usd="pricing.prompt",
        ),
        entries="data",
        complete=True,
        more="links.next",
    ),
    Check(
        "/models/<slug>/endpoints",
        model=ModelPlaces(
            names=("data.id",),
            tasks="data.architecture.output_modalities",
            hosts="data.endpoints",
            host="provider_name",
        ),
    ),
)
"""
The OpenAPI document's `/key`, `/models` and `/models/{author}/{slug}/endpoints`. What the account
has left, where a key has no limit of its own, is told to management keys alone.
"""

OPENROUTER = Vendor(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    key_env="OPENROUTER_API_KEY",
    options=OpenRouterOptions,
    make=OpenRouter,
    score_options=frozenset({"provider"}),
    bills_hundreds=True,
    takes_images=True,
    checks=CHECKS,
    facts=Facts(
        "OpenRouter, which passes on to others",
        limits=("no limit of requests for paid models is published",),
        billing="search units or tokens, by the model; the cost is in the reply",
        scores="as the upstream provider gives them; their range is not documented",
        pairs="inferred: it passes on to cross-encoders",
        verified="OpenAPI of 2026-08-22, its pages on errors and limits, SDK 1.3.84",
        unknown=("documents, bytes or tokens of one request", "range of scores"),
    ),
    prices={
        "cohere/rerank-v3.5": Price(0.001, None, "2026-11-20", "openrouter.ai model page"),
        "cohere/rerank-4-pro": Price(0.0025, None, "2026-11-20", "openrouter.ai model page"),
        "cohere/rerank-4-fast": Price(0.002, None, "2026-11-20", "a test fixture of a third party"),
        "cohere/rerank-5-fast": Price(None, 0.02, "2026-11-20", "openrouter.ai model page"),
    },
)
