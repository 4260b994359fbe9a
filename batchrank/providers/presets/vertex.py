"""
Vertex AI's ranking API (Google Cloud, Discovery Engine): `POST rankingConfigs/<config>:rank`.

Sources: cloud.google.com (ranking: request, reply, limits; google.rpc.Status for errors), its
reference of `RankRequest`, LiteLLM 1.109.1 (price). Records are found again by their ids: we give
them their places.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, HeaderText, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import a_unit
from batchrank.providers.shape import (
    ErrorShape,
    PresetOptions,
    ReplyShape,
    RequestShape,
    Shape,
    decisive,
)

_Step = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]


class VertexOptions(PresetOptions):
    """
    Where the ranking API is asked, and its request fields.
    """

    IN_ADDRESS: ClassVar[tuple[str, ...]] = ("project", "location", "config")
    IN_HEADERS: ClassVar[dict[str, str]] = {"user_project": "X-Goog-User-Project"}
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"user_project", "userLabels", "ignoreRecordDetailsInResponse"}
    )

    project: _Step = Field(description="the project that is asked")
    location: _Step = "global"
    config: _Step = "default_ranking_config"
    user_project: HeaderText | None = Field(
        None, description="the project that pays (X-Goog-User-Project); the one asked unless told"
    )
    ignoreRecordDetailsInResponse: bool = Field(  # noqa: N815 - the vendor's own name
        True, description="false: they come back, and are compared"
    )
    userLabels: dict[str, str] | None = None  # noqa: N815 - the vendor's own name

    def sent_headers(self) -> dict[str, str]:
        """
        The headers that are set here; without the project that pays, keys of people are refused.
        """
        return {"X-Goog-User-Project": self.project, **super().sent_headers()}


SHAPE = Shape(
    path="/v1/projects/<project>/locations/<location>/rankingConfigs/<config>:rank",
    request=RequestShape(documents="records", top_n="topN", document_form="record"),
    reply=ReplyShape(results="records", index="id", score="score", document="content"),
    errors=ErrorShape(message=("error.message",), code=("error.status",)),
)

_PRICE = a_unit(0.001, "LiteLLM 1.109.1's price map, for any of its models")

VERTEX = Vendor(
    name="vertex",
    base_url="https://discoveryengine.googleapis.com",
    key_env="GOOGLE_OAUTH_ACCESS_TOKEN",
    options=VertexOptions,
    make=compatible("vertex", SHAPE),
    score_options=decisive(VertexOptions),
    documents_max=200,
    splits=False,
    prices={"semantic-ranker-default@latest": _PRICE, "semantic-ranker-512@latest": _PRICE},
    facts=Facts(
        "Vertex AI ranking API (Google Cloud)",
        limits=(
            "200 records a request",
            "requests: your project's quota",
            'tokens end after an hour: key_command = ["gcloud", "auth", "print-access-token"]',
        ),
        billing="search units: a query with up to 100 records",
        scores="rounded to two decimals, so that many are equal; their range is not documented",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its reference and the code of others",
        unknown=("which errors a spent quota has", "Retry-After", "the tokens of one record"),
    ),
)
