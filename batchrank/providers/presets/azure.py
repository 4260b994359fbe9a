"""
Azure AI: Cohere's models on a Foundry resource (v2), and on serverless endpoints (v1).

Sources: Microsoft's page on Cohere rerank models in the repository azure-ai-docs at 116b095,
LiteLLM 1.109.1 (addresses, price map), Cohere's OpenAPI document (bodies). The address is one's own
in both forms; the key goes as a bearer, or with `key_header = "api-key"`. A token of Entra, which
ends, comes from `key_command = ["az", "account", "get-access-token", ...]`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.cohere import ERRORS
from batchrank.providers.presets.known import a_unit
from batchrank.providers.shape import (
    ErrorShape,
    PresetOptions,
    ReplyShape,
    RequestShape,
    Shape,
    decisive,
)


class FoundryOptions(PresetOptions):
    """
    Cohere's request fields (v2) on a Foundry resource.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"priority"})

    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    priority: Annotated[int, Field(ge=0, le=999)] | None = None


class ServerlessOptions(PresetOptions):
    """
    Cohere's request fields (v1) on a serverless endpoint.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


_GATEWAY = ErrorShape(kinds=ERRORS.kinds, phrases=ERRORS.phrases)
"""The model's errors are Cohere's; the gateway's own body is not documented, so both are read."""

_REPLY = ReplyShape(search_units="meta.billed_units.search_units")
_PRICED = "search units: a query with up to 100 documents, longer ones count as several"
_PAIRS = "inferred, as at Cohere's own: a document's score is that of its best chunk"
_ENTRA = 'tokens of Entra end: key_command = ["az", "account", "get-access-token", ...] renews them'
_HELD = "Microsoft's page and LiteLLM's code; bodies as in Cohere's OpenAPI"

AZURE = Vendor(
    name="azure",
    base_url="",
    key_env="AZURE_AI_API_KEY",
    address='it is your resource\'s: base_url = "https://RESOURCE.services.ai.azure.com"',
    options=FoundryOptions,
    make=compatible(
        "azure", Shape(path="/providers/cohere/v2/rerank", reply=_REPLY, errors=_GATEWAY)
    ),
    score_options=decisive(FoundryOptions),
    documents_max=1000,
    bills_hundreds=True,
    prices={
        "Cohere-rerank-v4.0-pro": a_unit(0.0025),
        "Cohere-rerank-v4.0-fast": a_unit(0.002),
    },
    facts=Facts(
        "Azure AI Foundry resource: Cohere's models, v2; the model is the deployment's name",
        limits=(
            "1,000 documents a request, as at Cohere's own",
            "requests: your deployment's quota",
            _ENTRA,
        ),
        billing=_PRICED,
        scores="0 to 1, not proportional to relevance",
        pairs=_PAIRS,
        verified=_HELD,
        unknown=("the gateway's error body", "Retry-After on this route"),
    ),
)

AZURE_SERVERLESS = Vendor(
    name="azure-serverless",
    base_url="",
    key_env="AZURE_AI_API_KEY",
    address='it is your deployment\'s: base_url = "https://DEPLOYMENT.REGION.models.ai.azure.com"',
    options=ServerlessOptions,
    make=compatible(
        "azure-serverless",
        Shape(path="/v1/rerank", request=RequestShape(model=""), reply=_REPLY, errors=_GATEWAY),
    ),
    score_options=decisive(ServerlessOptions),
    documents_max=1000,
    bills_hundreds=True,
    facts=Facts(
        "Azure AI serverless endpoint: Cohere's models, v1; the address decides the model",
        limits=(
            "1,000 documents a request, as at Cohere's own",
            "1,000 requests and 200,000 tokens a minute for each deployment unless you have more",
            _ENTRA,
        ),
        billing=_PRICED + "; v3 models $0.002 (LiteLLM): state it in [provider.price]",
        scores="0 to 1, not proportional to relevance",
        pairs=_PAIRS,
        verified=_HELD,
        unknown=("the gateway's error body", "Retry-After on this route", "which model answers"),
    ),
)
