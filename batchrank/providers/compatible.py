"""
One adapter for every API that is shaped as Cohere's is: a query, documents, results by index.

Driven by a `Shape` (what stands where); knows no vendor by name. As strict as every adapter: each
index in range and once, all of them there, every score finite, an echo the document that was sent,
a model that is named the one asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

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
    text_of,
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
from batchrank.providers.shape import Phrase, PresetOptions, RequestShape, Shape


class Page(msgspec.Struct, frozen=True, gc=False):
    """
    A reply's results, not yet bound to documents, what else it told, and its *body*.
    """

    results: Results
    known: Failure
    body: object


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
        self._url = address(settings.base_url.rstrip("/") + shape.path, settings)
        self._headers = (("Content-Type", "application/json"), *options.sent_headers().items())
        self._top_n = settings.top_n if shape.request.top_n else None
        self._fields = _fixed(options, settings, shape.request)
        self._lines = _lines_of(shape)
        self._by_id = shape.request.document_form == "record"

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
        return self.called(asked)

    def called(self, asked: dict[str, Any]) -> HttpCall:
        """
        The call with such a body.
        """
        return HttpCall("POST", self._url, self._headers, msgspec.json.encode(asked))

    def read(
        self, request: RerankRequest, reply: HttpReply, now_epoch_s: float | None = None
    ) -> Answer:
        """
        What *reply* says. An error inside a 200 is an error.
        """
        page = self.page(reply, now_epoch_s)
        answer = page if isinstance(page, Failure) else self.bound(request, reply, page)
        return limited(answer, reply, now_epoch_s)

    def page(self, reply: HttpReply, now_epoch_s: float | None) -> Page | Failure:
        """
        The results in *reply*, or the failure that it is.
        """
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
            return Page(self._results(body), known, body)
        except (msgspec.ValidationError, OverflowError) as error:
            return bad_reply(reply, f"not a rerank reply: {error}", known)

    def _results(self, body: object) -> Results:
        """
        The results, line by line.

        Raises:
            msgspec.ValidationError, OverflowError: there are none, or they are something else.
        """
        lines = msgspec.convert(at(body, self._shape.reply.results), self._lines)
        if not self._shape.reply.index:
            return Results(range(len(lines)), lines, [None] * len(lines))
        place = self._shape.reply.text
        return Results(
            [int(line.index) for line in lines] if self._by_id else [line.index for line in lines],
            [line.score for line in lines],
            [None if (told := line.document) is None else _echo(told, place) for line in lines],
        )

    def bound(self, request: RerankRequest, reply: HttpReply, page: Page) -> Answer:
        """
        The answer whose results are all in *page*; *reply* is the one it came with.
        """
        results, known = page.results, page.known
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
        told = (_told(reply, body, place) for place in errors.code)
        codes = [_formed(str(code), errors.code_form) for code in told if _is_code(code)]
        status = reply.status if reply.status != 200 else _status_in(codes)
        phrase = self._phrase(message, status)
        failure = Failure(
            self._retried(phrase.kind if phrase else self._kind(codes, status), reply),
            message or f"HTTP {reply.status} without a readable error",
            status=status,
            code=codes[0] if codes else None,
            retry_after_s=retry_after_s(reply.headers, now_epoch_s),
            too_large=status == 413 or bool(phrase and (phrase.too_large or phrase.too_many)),
            too_many=bool(phrase and phrase.too_many),
            documents_max=phrase.most_in(message) if phrase else None,
            usage=self._usage(reply, body),
            request_id=text(_told(reply, body, self._shape.reply.request_id)),
        )
        if failure.kind is FailureKind.BAD_REPLY:
            return bad_reply(reply, failure.message, failure)
        return failure

    def _phrase(self, message: str, status: int) -> Phrase | None:
        """
        The words that are known of an error of this status, if there are such in its message. A
        redirect carries the key elsewhere whatever it says.
        """
        words = message.casefold()
        known = () if 300 <= status < 400 else self._shape.errors.phrases
        return next((p for p in known if p.status == status and p.says.casefold() in words), None)

    def _kind(self, codes: Sequence[str], status: int) -> FailureKind:
        kinds = {} if 300 <= status < 400 else self._shape.errors.kinds
        known = (kinds[code] for code in (*codes, str(status)) if code in kinds)
        return next(known, None) or kind_of_status(status)

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
    if form == "record":
        return [{"id": str(n), "content": text_of(d)} for n, d in enumerate(documents)]
    if form == "structure":
        return [structure(d if isinstance(d, RichDocument) else RichDocument(d)) for d in documents]
    return [text_of(d) for d in documents]


def address(template: str, settings: Settings) -> str:
    """
    A URL with what stands for `<model>`, and for whatever the options name, put in its place.
    """
    model, told = settings.model, settings.options.places()
    filled = {"<model>": in_a_path(model), "<model-id>": in_a_path(model, "")}
    filled |= {f"<{name}>": in_a_path(value, "") for name, value in told.items()}
    return re.sub(r"<[a-z-]+>", lambda found: filled.get(found[0], found[0]), template)


# --- replies --------------------------------------------------------------------------------------


_Id = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")]
"""A record's id as we gave it: its place."""


def _lines_of(shape: Shape) -> Any:
    """
    The type of a reply's results: only what scores depend on is typed.
    """
    places = shape.reply
    if not places.index:
        return list[float]
    index = _Id if shape.request.document_form == "record" else int
    fields: list[Any] = [("index", index), ("score", float), ("document", Any, None)]
    # Where no document comes back, "" is looked for, and no field is called so.
    rename = {"index": places.index, "score": places.score, "document": places.document}
    return list[msgspec.defstruct("Line", fields, rename=rename, gc=False)]  # type: ignore[misc] # made from data


def _echo(told: object, place: str) -> Document | None:
    if isinstance(told, str):
        return told
    if not isinstance(told, dict):
        return None
    words: Any = told[place] if place in told else at(told, place)
    image = told.get("image")
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


def _formed(code: str, form: str) -> str:
    return code.rpartition("#")[2].partition(":")[0] if form == "name" else code


def _status_in(codes: Sequence[str]) -> int:
    """
    The status that a code is, where the reply's own is 200; 200 if none is one.
    """
    statuses = (int(code) for code in codes if len(code) == 3 and code.isdecimal())
    return next((status for status in statuses if 400 <= status < 600), 200)
