"""
What can be asked of a vendor for nothing, before the first paid call: where, and where in the reply
things stand.

Owns the description of such a question; a preset has its own as data. What an answer means is
`told`'s. "" always means that there is no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """
    Where in what is told of a key things stand, all of it *within* one object.
    """

    within: str
    limit_usd: str
    left_usd: str
    resets: str
    expires_at: str
    free_tier: str


@dataclass(frozen=True, slots=True)
class ModelPlaces:
    """
    Where in what is told of a model things stand.

    *tasks* is what it can do, as a word, a list of words or an object by these words, and *task*
    the one that we need. *cuts* says whether longer texts are cut, as the option *cut_by* asks for;
    *listed_usd* is the price of a token, *hosts* lists who serves it, each by the name at *host*.
    *loosely*: no request names a model, so that a job may call it as people do, by the last step of
    its name.
    """

    names: tuple[str, ...] = ("id",)
    tasks: str = ""
    task: str = "rerank"
    documents_max: str = ""
    tokens_max: str = ""
    cuts: str = ""
    cut_by: str = ""
    deprecated: str = ""
    listed_usd: str = ""
    hosts: str = ""
    host: str = ""
    loosely: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """
    One question that costs nothing.

    Attributes:
        path: after `base_url`; `<model>` stands for the model, `<slug>` for it without a variant.
        key: where things stand, if the question is about the key. Only then is a 403 its refusal:
            a listing may be closed to a key that is good for reranking.
        model: where things stand, if it is about models.
        entries: the list of models; None where the whole reply is about one.
        complete: a model that is not told of is not served: not in the list, or not the one that
            a server of one model has.
        more: where a list says that it goes on elsewhere, and so is not complete.
        absent: status and words of the refusal that means that there is no such model.
    """

    path: str
    key: KeyPlaces | None = None
    model: ModelPlaces | None = None
    entries: str | None = None
    complete: bool = False
    more: str = ""
    absent: tuple[int, str] | None = None


LISTING = Check("/v1/models", model=ModelPlaces(), entries="data", complete=True)
"""The list of models as OpenAI has it, of a server that serves those and no others."""

OPEN_LISTING = replace(LISTING, complete=False)
"""The same of a server that may serve more than it lists, or whatever a request calls it."""
