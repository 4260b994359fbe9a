"""
Where things stand in a call and a reply that are shaped as Cohere's are: names, not code.

Owns the description that `compatible` is driven by. A preset is such a description with a vendor's
names in it; a job file may write one for a vendor that nobody described. "" always means that there
is no such thing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from batchrank.domain import FailureKind
from batchrank.providers.base import HeaderText, KeyHeader, Options

Words = Annotated[tuple[str, ...], Field(strict=False)]
Kind = Annotated[FailureKind, Field(strict=False)]


class RequestShape(Options):
    """
    The names of the request's fields, and the form of what is in them.
    """

    model: str = Field("model", description='field with the model; "" where none is sent')
    query: str = Field("query", description="field with the query")
    documents: str = Field("documents", description="field with the documents")
    top_n: str = Field("top_n", description='field for top_n; "" where there is none')
    query_form: Literal["text", "structure", "repeated"] = Field(
        "text", description='the text, {"text": ...}, or a list with the text once a document'
    )
    document_form: Literal["text", "structure", "record"] = Field(
        "text",
        description='each document as text, as {"text": ...}, or as {"id": "0", "content": ...}:'
        " then results come by id",
    )


class ReplyShape(Options):
    """
    Where in a reply things stand: steps with dots between them, or `header:name`.
    """

    results: str = Field("results", description='the list of results; "" for the whole body')
    index: str = Field(
        "index", description='in a result: its place; "" where results are scores in input order'
    )
    score: str = Field("relevance_score", description="in a result: its score")
    document: str = Field("document", description="in a result: the document, if it comes back")
    text: str = Field("text", description="in a document that comes back as an object: its text")
    model: str = Field("", description="who scored: compared with the model that was asked for")
    request_id: str = Field("id", description="what the vendor knows the call by")
    search_units: str = Field("", description="the search units that are billed")
    total_tokens: str = Field("", description="the tokens that are billed")
    cost_usd: str = Field("", description="what the call cost, in US dollars")


class Phrase(Options):
    """
    What an error means whose status is *status* and whose message holds *says*, in any case.
    """

    status: int
    says: str
    kind: Kind = FailureKind.BAD_GROUP
    too_large: bool = Field(False, description="the request would do if it were smaller")
    too_many: bool = Field(False, description="it would do with fewer documents")
    most_after: str = Field(
        "", description="the words before the number of documents that one request may have"
    )

    def most_in(self, message: str) -> int | None:
        """
        How many documents one request may have, if *message* says so.
        """
        words = re.escape(self.most_after)
        found = words and re.search(rf"{words}\D{{0,3}}(\d[\d,]{{0,11}})", message, re.IGNORECASE)
        return int(found[1].replace(",", "")) if found else None


class ErrorShape(Options):
    """
    Where in an error things stand, and what it means beyond its status.
    """

    message: Words = Field(
        ("error.message", "message", "detail", "error"),
        description="where the message may stand, the first that is there",
    )
    code: Words = Field(
        ("error.code", "error.type", "error_type", "code"),
        description="where a typed code may stand, the first that is there",
    )
    code_form: Literal["whole", "name"] = Field(
        "whole", description="name: of a code as AWS writes it, namespace#Name:address, the name"
    )
    kinds: dict[str, Kind] = Field(
        default_factory=dict, description="the class of an error by its code, else by its status"
    )
    phrases: Annotated[tuple[Phrase, ...], Field(strict=False)] = Field(
        (), description="the class of an error by its status and its words"
    )
    should_retry: str = Field(
        "", description="the header that says true or false: whether trying again makes sense"
    )


class Shape(Options):
    """
    A vendor's whole interface. In *path* `<model>` stands for the model, `<model-id>` for the model
    as one step of the path.
    """

    path: str = "/rerank"
    request: RequestShape = RequestShape()
    reply: ReplyShape = ReplyShape()
    errors: ErrorShape = ErrorShape()


# --- what a job may set ---------------------------------------------------------------------------

_KEYISH = ("authorization", "cookie", "key", "token", "secret", "password")


def _is_no_key(name: str) -> str:
    if any(word in name.lower() for word in _KEYISH):
        raise ValueError("a key never stands in a job file: key_env or key_file says where it is")
    return name


_PATH = r"^(/[\x21\x22\x24-\x7e]*)?$"


def _is_a_path(text: str) -> str:
    if not re.fullmatch(_PATH, text):
        raise ValueError("expected a path such as /v1/rerank, or nothing")
    return text


Path = Annotated[str, AfterValidator(_is_a_path), Field(json_schema_extra={"pattern": _PATH})]
"""Of a URL: from its slash on, without a fragment; nothing at all where base_url is all of it."""

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]

OURS = frozenset(
    (
        *("model", "query", "queries", "top_n", "top_k"),
        *("documents", "texts", "passages", "input", "records"),
    )
)
"""Request fields that batchrank fills itself."""


def _leaves_ours(body: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(OURS & set(body)):
        raise ValueError(f"{', '.join(taken)} is filled by batchrank itself")
    return body


class PresetOptions(Options):
    """
    What every vendor of this shape lets a job set; a vendor's own request fields come beside. What
    nobody could find out about a vendor, or what has changed, a job can say here.
    """

    IN_HEADERS: ClassVar[dict[str, str]] = {}
    """Options that are sent as a header, by its name."""

    IN_ADDRESS: ClassVar[tuple[str, ...]] = ()
    """Options that stand in the address, for `<name>`."""

    FREE: ClassVar[frozenset[str]] = frozenset({"key_header", "errors"})
    """Options that decide no score."""

    path: Path | None = Field(
        None, description='the path after base_url, if not the usual one; "" for none'
    )
    key_header: HeaderName | None = Field(
        None, description="header for the key, if not the usual one: Authorization gets Bearer"
    )
    headers: dict[Annotated[HeaderName, AfterValidator(_is_no_key)], HeaderText] | None = Field(
        None, description="further headers; never a key"
    )
    body: Annotated[dict[str, Any], AfterValidator(_leaves_ours)] | None = Field(
        None, description="further request fields, sent as they are"
    )
    request: RequestShape | None = Field(
        None, description="names of request fields, where they are not the usual ones"
    )
    reply: ReplyShape | None = Field(
        None, description="where in a reply things stand, where that is not the usual place"
    )
    errors: ErrorShape | None = Field(
        None, description="where in an error things stand and what they mean, likewise"
    )

    def keyed(self, usual: KeyHeader) -> KeyHeader:
        """
        Where the key goes: into the header that is named here, else where it *usually* goes.
        """
        if self.key_header is None:
            return usual
        name = self.key_header.lower()
        return KeyHeader() if name == KeyHeader().name else KeyHeader(name, "")

    def places(self) -> dict[str, str]:
        """
        What stands in an address for `<name>`.
        """
        return {name: getattr(self, name) for name in self.IN_ADDRESS}

    def shaped(self, usual: Shape) -> Shape:
        """
        The interface, if it is *usually* that one: what is said here goes before that.
        """
        return Shape(
            path=usual.path if self.path is None else self.path,
            request=_changed(usual.request, self.request),
            reply=_changed(usual.reply, self.reply),
            errors=_changed(usual.errors, self.errors),
        )

    def fields(self) -> dict[str, Any]:
        """
        The request fields that are set here.
        """
        mine = {*PresetOptions.model_fields, *self.IN_HEADERS, *self.IN_ADDRESS}
        own = self.model_dump(mode="json", exclude=mine, exclude_none=True)
        return {**(self.body or {}), **own}

    def sent_headers(self) -> dict[str, str]:
        """
        The headers that are set here.
        """
        own = {h: getattr(self, name) for name, h in self.IN_HEADERS.items()}
        return {**(self.headers or {}), **{h: value for h, value in own.items() if value}}


Some = TypeVar("Some", bound=Options)


def _changed(usual: Some, said: Some | None) -> Some:
    """
    *usual* with what was *said* otherwise.
    """
    if said is None:
        return usual
    return usual.model_copy(update={name: getattr(said, name) for name in said.model_fields_set})


def decisive(options: type[PresetOptions]) -> frozenset[str]:
    """
    Which options decide a score: all that are not known to decide none.
    """
    return frozenset(options.model_fields) - options.FREE - PresetOptions.FREE
