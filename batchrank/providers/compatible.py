"""
One adapter for every API that is shaped as Cohere's is: a query, documents, results by index.

Driven by a `Shape` (what stands where); knows no vendor by name. As strict as every adapter: each
index in range and once, all of them there, every score finite, an echo the document that was sent,
a model that is named the one asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from batchrank.domain import (
    Answer,
    Document,
    Failure,
    FailureKind,
    RerankReply,
    RerankRequest,
    RichDocument,
    Served,
    Usage,
)
from batchrank.providers.base import (
    HttpCall,
    HttpReply,
    Provider,
    Results,
    Settings,
    bad_reply,
    bind,
    kind_of_status,
    retry_after_s,
    same_model,
    structure,
)
from batchrank.providers.reading import (
    UNREADABLE,
    another_model,
    at,
    bill,
    in_a_path,
    limited,
    said,
    text,
    whatever,
)
from batchrank.providers.shape import PresetOptions, RequestShape, Shape


def compatible(name: str, shape: Shape) -> Callable[[Settings], Provider]:
    """
    What makes a vendor's provider; *name* stands in the output as who scored.
    """
    return lambda settings: Compatible(name, shape, settings)


class Compatible:
    """
    A vendor of this shape with one job's model and options.
    """

    def __init__(self, name: str, shape: Shape, settings: Settings) -> None:
        options = settings.options
        assert isinstance(options, PresetOptions)
        self._shape = shape = options.shaped(shape)
        self._served = Served(settings.model, name)
        path = shape.path.replace("<model>", in_a_path(settings.model))
        self._url = settings.base_url.rstrip("/") + path
        self._headers = (("Content-Type", "application/json"), *options.sent_headers().items())
        self._top_n = settings.top_n if shape.request.top_n else None
        self._fields = _fixed(options, settings, shape.request)
        self._lines = _lines_of(shape)

    def call(self, request: RerankRequest) -> HttpCall:
        """
        The call that asks *request*.
        """
        names = self._shape.request
        asked = {
            **self._fields,
            names.query: _query(request, names.query_form),
            names.documents: _documents(request.documents, names.document_form),
        }
        return HttpCall("POST", self._url, self._headers, msgspec.json.encode(asked))

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
            return self._failure(reply, whatever(reply), now_epoch_s)
        try:
            body = msgspec.json.decode(reply.body)
        except UNREADABLE:
            body = whatever(reply)
        if at(body, "error"):
            return self._failure(reply, body, now_epoch_s)
        known = self._known(reply, body)
        try:
            results = self._results(body)
        except (msgspec.ValidationError, OverflowError) as error:
            return bad_reply(reply, f"not a rerank reply: {error}", known)
        return self._bound(request, reply, results, known)

    def _results(self, body: object) -> Results:
        """
        The results, line by line.

        Raises:
            msgspec.ValidationError, OverflowError: there are none, or they are something else.
        """
        lines = msgspec.convert(at(body, self._shape.reply.results), self._lines)
        if not self._shape.reply.index:
            return Results(range(len(lines)), lines, [None] * len(lines))
        return Results(
            [line.index for line in lines],
            [line.score for line in lines],
            [None if (told := line.document) is None else _echo(told) for line in lines],
        )

    def _bound(
        self, request: RerankRequest, reply: HttpReply, results: Results, known: Failure
    ) -> Answer:
        served = known.served or self._served
        if not same_model(self._served.model, served.model):
            return another_model(self._served.model, known)
        scores = bind(request, results, self._top_n)
        if isinstance(scores, str):
            return bad_reply(reply, scores, replace(known, code="bad_results"))
        echoed = None not in results.echoes
        return RerankReply(scores, served, known.usage, known.request_id, echoed)

    # --- what a reply tells whatever is wrong with it ---------------------------------------------

    def _known(self, reply: HttpReply, body: object) -> Failure:
        places = self._shape.reply
        model = text(_told(reply, body, places.model))
        return Failure(
            FailureKind.BAD_REPLY,
            "",
            status=reply.status,
            usage=self._usage(reply, body),
            served=replace(self._served, model=model) if model else self._served,
            request_id=text(_told(reply, body, places.request_id)),
        )

    def _usage(self, reply: HttpReply, body: object) -> Usage:
        places = self._shape.reply
        told = (places.search_units, places.total_tokens, places.cost_usd)
        return bill(*(_told(reply, body, place) for place in told))

    def _failure(self, reply: HttpReply, body: object, now_epoch_s: float | None) -> Failure:
        """
        Class an error by its words where they are known, else by its code, else by its status; a
        header that says whether trying again makes sense has the last word on that.
        """
        errors = self._shape.errors
        message = next(filter(None, (said(at(body, place)) for place in errors.message)), "")
        codes = [str(code) for place in errors.code if _is_code(code := at(body, place))]
        status = reply.status if reply.status != 200 else _status_in(codes)
        kind, too_large = self._kind(codes, message, status)
        failure = Failure(
            self._retried(kind, reply),
            message or f"HTTP {reply.status} without a readable error",
            status=status,
            code=codes[0] if codes else None,
            retry_after_s=retry_after_s(reply.headers, now_epoch_s),
            too_large=too_large or status == 413,
            usage=self._usage(reply, body),
            request_id=text(_told(reply, body, self._shape.reply.request_id)),
        )
        if failure.kind is FailureKind.BAD_REPLY:
            return bad_reply(reply, failure.message, failure)
        return failure

    def _kind(self, codes: Sequence[str], message: str, status: int) -> tuple[FailureKind, bool]:
        """
        The class of an error, and whether it would do if it were smaller.
        """
        errors = self._shape.errors
        if 300 <= status < 400:
            return FailureKind.FATAL, False  # whatever it says, it would carry the key elsewhere
        words = message.casefold()
        for phrase in errors.phrases:
            if phrase.status == status and phrase.says.casefold() in words:
                return phrase.kind, phrase.too_large
        known = (errors.kinds[code] for code in (*codes, str(status)) if code in errors.kinds)
        return next(known, None) or kind_of_status(status), False

    def _retried(self, kind: FailureKind, reply: HttpReply) -> FailureKind:
        header = self._shape.errors.should_retry
        match reply.headers.get(header, "").lower() if header else "":
            case "true" if kind is FailureKind.BAD_GROUP:
                return FailureKind.UNKNOWN
            case "false" if kind in (FailureKind.UNKNOWN, FailureKind.THROTTLED):
                return FailureKind.BAD_GROUP
        return kind


# --- calls ----------------------------------------------------------------------------------------


def _fixed(options: PresetOptions, settings: Settings, names: RequestShape) -> dict[str, Any]:
    """
    The fields that are the same in every call of a job.
    """
    fields = options.fields()
    if names.model:
        fields[names.model] = settings.model
    if settings.top_n is not None and names.top_n:
        fields[names.top_n] = settings.top_n
    return fields


def _query(request: RerankRequest, form: str) -> object:
    match form:
        case "structure":
            return {"text": request.query}
        case "repeated":
            return [request.query] * len(request.documents)
    return request.query


def _documents(documents: Sequence[Document], form: str) -> list[object]:
    if form == "structure":
        return [structure(d if isinstance(d, RichDocument) else RichDocument(d)) for d in documents]
    return [d if isinstance(d, str) else d.text or "" for d in documents]


# --- replies --------------------------------------------------------------------------------------


def _lines_of(shape: Shape) -> Any:
    """
    The type of a reply's results: only what scores depend on is typed.
    """
    places = shape.reply
    if not places.index:
        return list[float]
    fields: list[Any] = [("index", int), ("score", float), ("document", Any, None)]
    # Where no document comes back, "" is looked for, and no field is called so.
    rename = {"index": places.index, "score": places.score, "document": places.document}
    return list[msgspec.defstruct("Line", fields, rename=rename, gc=False)]  # type: ignore[misc] # made from data


def _echo(told: object) -> Document | None:
    if isinstance(told, str):
        return told
    if not isinstance(told, dict):
        return None
    words, image = told.get("text"), told.get("image")
    if isinstance(words, str) and not isinstance(image, str):
        return words
    return RichDocument(words, image) if isinstance(image, str) else None


def _told(reply: HttpReply, body: object, place: str) -> object:
    """
    What stands at *place* in the body, or in a header.
    """
    if not place:
        return None
    if place.startswith("header:"):
        return reply.headers.get(place.removeprefix("header:").lower())
    return at(body, place)


def _is_code(told: object) -> bool:
    return bool(text(told)) or (isinstance(told, int) and not isinstance(told, bool))


def _status_in(codes: Sequence[str]) -> int:
    """
    The status that a code is, where the reply's own is 200; 200 if none is one.
    """
    statuses = (int(code) for code in codes if len(code) == 3 and code.isdecimal())
    return next((status for status in statuses if 400 <= status < 600), 200)
