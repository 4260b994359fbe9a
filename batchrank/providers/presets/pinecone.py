"""
Pinecone: `POST /rerank`.

Sources: docs.pinecone.io, its Python SDK. The API's version is a date that its documents name; it
goes into a header, and a job has to say which one it means.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, HeaderText, KeyHeader, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class PineconeOptions(PresetOptions):
    """
    Pinecone's request fields.
    """

    IN_HEADERS: ClassVar[dict[str, str]] = {"api_version": "X-Pinecone-Api-Version"}
    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    api_version: HeaderText = Field(
        description="the API's version, as its documents date it: X-Pinecone-Api-Version"
    )
    rank_fields: tuple[str, ...] | None = Field(
        None, strict=False, description="documents are sent with the one field text"
    )
    parameters: dict[str, Any] | None = Field(
        None, description="the model's own: truncate, max_tokens_per_doc"
    )
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    request=RequestShape(document_form="structure"),
    reply=ReplyShape(
        results="data", score="score", model="model", search_units="usage.rerank_units"
    ),
)

PINECONE = Vendor(
    name="pinecone",
    options=PineconeOptions,
    make=compatible("pinecone", SHAPE),
    score_options=decisive(PineconeOptions),
    base_url="https://api.pinecone.io",
    key_env="PINECONE_API_KEY",
    key_header=KeyHeader("api-key", ""),
    documents_max_by_model={"cohere-": 200},
    bills_hundreds=True,
    splits=False,
    facts=Facts(
        "Pinecone",
        limits=("200 documents a request for Cohere's models",),
        billing="units: a query with up to 100 documents; above 500 tokens one is several",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its documents and its SDK",
        unknown=(
            "documents of one request for bge",
            "prices",
            "error bodies",
            "the range of scores",
        ),
    ),
)
