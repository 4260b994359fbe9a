"""
AWS Bedrock: `InvokeModel` with Cohere's and Amazon's rerankers, and the agent-runtime's `Rerank`.

Sources: the service models in botocore 1.44.5 (addresses, limits, errors), cohere-python's issue
613 (`api_version`), AWS's page on rerank pricing and LiteLLM 1.109.1 (prices), AWS's list of errors
that all its services have in common (signatures), public reports of one wording (an invalid model).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, Provider, Settings, Signing, Vendor
from batchrank.providers.bedrock import BedrockRerank
from batchrank.providers.compatible import Compatible
from batchrank.providers.presets.known import a_unit
from batchrank.providers.shape import (
    ErrorShape,
    Phrase,
    PresetOptions,
    ReplyShape,
    RequestShape,
    Shape,
    decisive,
)


class BedrockOptions(PresetOptions):
    """
    What either of Bedrock's operations needs to know.
    """

    IN_ADDRESS: ClassVar[tuple[str, ...]] = ("region",)

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")] = Field(
        description="the region that is asked, as in us-east-1"
    )
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        None, description="longer documents are cut there; for Cohere's models"
    )


class InvokeOptions(BedrockOptions):
    """
    The request fields of the models behind `InvokeModel`.
    """

    api_version: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Cohere's; 2 unless told where the model's name says that it is Cohere's"
    )


_THROTTLED = ("ThrottlingException", "ServiceQuotaExceededException", "ModelNotReadyException")
_UNKNOWN = (
    *("InternalServerException", "BadGatewayException", "DependencyFailedException"),
    *("ConflictException", "ModelTimeoutException", "ModelErrorException"),
)
_FATAL = (
    *("AccessDeniedException", "ResourceNotFoundException"),
    *("InvalidSignatureException", "IncompleteSignatureException", "ExpiredTokenException"),
    *("UnrecognizedClientException", "MissingAuthenticationTokenException"),
)

ERRORS = ErrorShape(
    message=("message", "Message"),
    code=("header:x-amzn-errortype", "__type", "code"),
    code_form="name",
    kinds={
        "ValidationException": FailureKind.BAD_GROUP,
        "ServiceUnavailableException": FailureKind.THROTTLED,
        **dict.fromkeys(_THROTTLED, FailureKind.THROTTLED),
        **dict.fromkeys(_UNKNOWN, FailureKind.UNKNOWN),
        **dict.fromkeys(_FATAL, FailureKind.FATAL),
    },
    phrases=(Phrase(status=400, says="model identifier is invalid", kind=FailureKind.FATAL),),
)

_INVOKED = Shape(
    path="/model/<model-id>/invoke",
    request=RequestShape(model=""),
    reply=ReplyShape(
        request_id="header:x-amzn-requestid",
        total_tokens="header:x-amzn-bedrock-input-token-count",
    ),
    errors=ERRORS,
)

_RERANKED = Shape(
    path="/rerank",
    reply=ReplyShape(
        score="relevanceScore",
        text="textDocument.text",
        request_id="header:x-amzn-requestid",
    ),
    errors=ERRORS,
)


def _invoking(settings: Settings) -> Provider:
    options = settings.options
    assert isinstance(options, InvokeOptions)
    if options.api_version is None and "cohere." in settings.model:
        # A model that is not Cohere's need not take the field, so it is not sent to all.
        settings = replace(settings, options=options.model_copy(update={"api_version": 2}))
    return Compatible("bedrock", _INVOKED, settings)


def _reranking(settings: Settings) -> Provider:
    return BedrockRerank("bedrock-rerank", _RERANKED, settings)


_PRICES = {
    "cohere.rerank-v3-5:0": a_unit(0.002),
    "amazon.rerank-v1:0": a_unit(0.001),
}
_BILLED = (
    "search units: a query with up to 100 chunks of documents, each of up to 512 tokens with the"
    " query"
)
_PAIRS = "inferred: a chunk is billed with the query, as cross-encoders read them"
_QUOTA = "requests: your account's quota in the region"

BEDROCK = Vendor(
    name="bedrock",
    base_url="https://bedrock-runtime.<region>.amazonaws.com",
    key_env="AWS_BEARER_TOKEN_BEDROCK",
    signing=Signing("bedrock", or_key=True),
    options=InvokeOptions,
    make=_invoking,
    score_options=decisive(InvokeOptions),
    documents_max=1000,
    prices=_PRICES,
    facts=Facts(
        "AWS Bedrock, InvokeModel: Cohere's and Amazon's rerankers, by id or ARN",
        limits=("1,000 documents a request, inferred from bedrock-rerank", _QUOTA),
        billing=_BILLED,
        scores="0 to 1 from Cohere's; of Amazon's not documented",
        pairs=_PAIRS,
        verified="service model of botocore 1.44.5 (calls, errors), signatures by AWS's own rules;"
        " bodies as in code of others",
        unknown=("search units in replies", "the parameters of amazon.rerank-v1", "Retry-After"),
    ),
)

BEDROCK_RERANK = Vendor(
    name="bedrock-rerank",
    base_url="https://bedrock-agent-runtime.<region>.amazonaws.com",
    key_env="",
    signing=Signing("bedrock", or_key=False),
    options=BedrockOptions,
    make=_reranking,
    score_options=decisive(BedrockOptions),
    documents_max=1000,
    prices=_PRICES,
    facts=Facts(
        "AWS Bedrock, the agent-runtime's Rerank: the same models, one interface for both",
        limits=(
            "1,000 documents a request",
            "32,000 characters a document or query: source.max_chars cuts them",
            _QUOTA + "; a page of results is one more (smaller groups have fewer, `bedrock` none)",
        ),
        billing=_BILLED,
        scores="0 to 1 from Cohere's; of Amazon's not documented",
        pairs=_PAIRS,
        verified="service model of botocore 1.44.5 (calls, replies, errors), signatures by AWS's"
        " own rules",
        unknown=(
            "whether a page of results is billed like a call, and how large it is",
            "Retry-After",
        ),
    ),
)
