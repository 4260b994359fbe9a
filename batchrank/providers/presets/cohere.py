"""
Cohere: `POST /v2/rerank`.

Sources: Cohere's OpenAPI document of 2026-08-20 (request, reply, error bodies), its pages "Errors",
"Reranking best practices" and "Rate limits" of the same day, LiteLLM's price map 1.109.1. Nothing
here guesses what they do not tell: see `unknown`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, HeaderText, Vendor
from batchrank.providers.checks import Check, ModelPlaces
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import a_million, a_unit
from batchrank.providers.shape import (
    ErrorShape,
    Phrase,
    PresetOptions,
    ReplyShape,
    Shape,
    decisive,
)


class CohereOptions(PresetOptions):
    """
    Cohere's request fields (v2).
    """

    IN_HEADERS: ClassVar[dict[str, str]] = {"client_name": "X-Client-Name"}
    FREE: ClassVar[frozenset[str]] = frozenset({"priority", "client_name"})

    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        None, description="longer documents are cut there by Cohere; 4096 unless told"
    )
    priority: Annotated[int, Field(ge=0, le=999)] | None = Field(
        None, description="0 is the highest, and the last to be dropped under load"
    )
    client_name: HeaderText | None = Field(None, description="your application: X-Client-Name")


ERRORS = ErrorShape(
    message=("message",),
    code=(),
    kinds={
        "498": FailureKind.BAD_GROUP,  # a deny-listed token in this text
        "501": FailureKind.FATAL,  # what is not implemented for one is so for all
    },
    phrases=(
        # a month's quota, which waiting does not bring back
        Phrase(status=429, says="api calls / month", kind=FailureKind.FATAL),
        Phrase(status=400, says="max chunks", kind=FailureKind.BAD_GROUP, too_large=True),
    ),
)

SHAPE = Shape(
    path="/v2/rerank",
    reply=ReplyShape(
        search_units="meta.billed_units.search_units",
        total_tokens="meta.billed_units.input_tokens",
    ),
    errors=ERRORS,
)

CHECK = Check(
    "/v1/models/<model>",
    model=ModelPlaces(names=("name",), tasks="endpoints", deprecated="is_deprecated"),
    complete=True,
    absent=(404, "model '<model>' not found"),
)
"""
The page "Get a Model"; what a 404 says is what the page "Errors" documents for a model that is not
there. Any other 404 is that of a server in between which does not know the route.
"""

COHERE = Vendor(
    name="cohere",
    base_url="https://api.cohere.com",
    key_env="COHERE_API_KEY",
    options=CohereOptions,
    make=compatible("cohere", SHAPE),
    score_options=decisive(CohereOptions),
    documents_max=1000,
    bills_hundreds=True,
    checks=(CHECK,),
    prices={
        "rerank-english-v3.0": a_unit(0.002),
        "rerank-multilingual-v3.0": a_unit(0.002),
        "rerank-v3.5": a_unit(0.002),
        "rerank-v4.0-fast": a_unit(0.002),
        "rerank-v4.0-pro": a_unit(0.0025),
        "rerank-v5.0-fast": a_million(0.02),
        "rerank-v5.0-pro": a_million(0.05),
    },
    facts=Facts(
        "Cohere, v2",
        limits=(
            "1,000 documents a request recommended, 10,000 are an error",
            "1,000 requests a minute; with a trial key 10 a minute and 1,000 a month",
            "a document is cut at max_tokens_per_doc, a query at half the context",
        ),
        billing="search units: a query with up to 100 documents, longer ones count as several;"
        " tokens for v5",
        scores="0 to 1, not proportional to relevance",
        pairs="inferred: a document's score is that of its best chunk",
        verified="OpenAPI of 2026-08-20 (calls, replies and error bodies are held against it)",
        unknown=(
            "Retry-After",
            "an idempotency key",
            "whether v4 splits documents at 500 tokens in its bill",
            "how v5 counts the query's tokens",
        ),
    ),
)
