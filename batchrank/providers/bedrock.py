"""
AWS Bedrock's `Rerank` (agent-runtime): a nested request, and results that may come in pages.

Owns the request, and what a page means. What a page holds is read by `compatible`, errors too.

Sources: the service model in botocore 1.44.5 (request, reply, pages). Not documented: whether each
page is billed like a call. So what goes wrong after the first page may have been billed, whatever
it is (`later_page`).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from batchrank.domain import Answer, Failure, RerankRequest, text_of
from batchrank.providers.base import (
    HttpCall,
    HttpReply,
    Onward,
    Results,
    Settings,
    bad_reply,
    later_page,
)
from batchrank.providers.compatible import Compatible, Page
from batchrank.providers.reading import limited, table, text
from batchrank.providers.shape import PresetOptions, Shape

PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
"""Parts of AWS that are apart from the rest, by what their regions' names begin with."""


class BedrockRerank:
    """
    Bedrock's `Rerank` with one job's model and options.
    """

    def __init__(self, name: str, shape: Shape, settings: Settings) -> None:
        assert isinstance(settings.options, PresetOptions)
        self._plain = Compatible(name, shape, settings)
        self._top_n = settings.top_n
        self._model: dict[str, Any] = {"modelArn": model_arn(settings)}
        if more := settings.options.fields():
            self._model["additionalModelRequestFields"] = more

    def call(self, request: RerankRequest) -> HttpCall:
        """
        The call that asks *request*.
        """
        return self._plain.called(self._asked(request))

    def read(
        self, request: RerankRequest, reply: HttpReply, now_epoch_s: float | None = None
    ) -> Answer | Onward:
        """
        What *reply* says, or the call for its next page.
        """
        return self._read(request, reply, now_epoch_s, NOTHING)

    def _read(
        self,
        request: RerankRequest,
        reply: HttpReply,
        now_epoch_s: float | None,
        before: Results,
    ) -> Answer | Onward:
        page = self._plain.page(reply, now_epoch_s)
        answer = page if isinstance(page, Failure) else self._told(request, reply, page, before)
        if isinstance(answer, Onward):
            return answer
        if isinstance(answer, Failure) and before is not NOTHING:
            answer = later_page(answer)
        return limited(answer, reply, now_epoch_s)

    def _told(
        self, request: RerankRequest, reply: HttpReply, page: Page, before: Results
    ) -> Answer | Onward:
        """
        What a page tells together with those *before*. Who asks on has got a result that was
        missing, so that pages come to an end.
        """
        whole = replace(page, results=_joined(before, page.results))
        indices = whole.results.indices
        token = text(table(page.body).get("nextToken"))
        twice = len(set(indices)) < len(indices)
        if token is None or twice or len(indices) >= self._wanted(request):
            return self._plain.bound(request, reply, whole)
        if not page.results.indices:
            return bad_reply(reply, "a page without results, and more to come", page.known)
        return self._onward(request, token, whole.results)

    def _onward(self, request: RerankRequest, token: str, so_far: Results) -> Onward:
        call = self._plain.called({**self._asked(request), "nextToken": token})
        return Onward(call, lambda reply, now: self._read(request, reply, now, so_far))

    def _wanted(self, request: RerankRequest) -> int:
        """
        How many results there have to be.
        """
        count = len(request.documents)
        return count if self._top_n is None else min(self._top_n, count)

    def _asked(self, request: RerankRequest) -> dict[str, Any]:
        ranking = {
            "modelConfiguration": self._model,
            "numberOfResults": self._wanted(request),  # how many come unless told is not documented
        }
        sources = [
            {"type": "TEXT", "textDocument": {"text": text_of(d)}} for d in request.documents
        ]
        return {
            "queries": [{"type": "TEXT", "textQuery": {"text": request.query}}],
            "sources": [{"type": "INLINE", "inlineDocumentSource": source} for source in sources],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": ranking,
            },
        }


NOTHING = Results((), (), ())
"""What came before the first page."""


def _joined(before: Results, page: Results) -> Results:
    return Results(
        [*before.indices, *page.indices],
        [*before.scores, *page.scores],
        [*before.echoes, *page.echoes],
    )


def model_arn(settings: Settings) -> str:
    """
    The ARN of the model, which may be named by its id alone.
    """
    if settings.model.startswith("arn:"):
        return settings.model
    region = settings.options.places()["region"]
    apart = (name for start, name in PARTITIONS.items() if region.startswith(f"{start}-"))
    return f"arn:{next(apart, 'aws')}:bedrock:{region}::foundation-model/{settings.model}"
