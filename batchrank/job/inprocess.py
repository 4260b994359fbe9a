"""
Scorers in this process, as a job file names them.

Owns what each may be told, what is wrong with that, what decides its scores, and how it is made.
What vendors on the wire have instead stands in `providers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchrank.config.schema import RouteTable
from batchrank.engine.scorer import Scorer
from batchrank.errors import JobError, Problem
from batchrank.local import crossencoder
from batchrank.local.crossencoder import CrossEncoderOptions, CrossEncoderScorer, Encoder, Wanted
from batchrank.local.lexical import SERVED, LexicalScorer
from batchrank.places.remote import absolute
from batchrank.providers.base import Options

Made = tuple[Scorer, Callable[[], Awaitable[None]]]
"""A scorer, and how to let go of what it holds."""

Raw = tuple[tuple[str, ...], str, str]
"""A problem without its line: where in the provider's table, message, remedy."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """
    One kind of scorer. What it does with a job is given the job file's folder, too.

    Attributes:
        model: what it is called in the output; "" if the job names it.
        options: the model of `[provider.options]`.
        splits: pairs are scored independently.
        takes_images: documents may have images.
        concurrency: how many requests are under way at once, unless the job says; None: found out.
        about: what a person should know, by topic.
        problems: what is wrong with a job, as far as its file tells.
        decisive: the settings that decide a score, beside those that every job has.
        missing: what has to be installed first, with the command for it; "" if nothing has.
        ready: raises a JobError if it could not score; what takes long is done once only.
        make: the scorer, ready to score.
    """

    model: str
    options: type[Options]
    splits: bool
    takes_images: bool
    concurrency: int | None
    about: Mapping[str, str]
    problems: Callable[[RouteTable], Iterator[Raw]]
    decisive: Callable[[RouteTable, Path], Mapping[str, object]]
    missing: Callable[[], str]
    ready: Callable[[RouteTable, Path], object]
    make: Callable[[RouteTable, Path], Made]


# --- lexical --------------------------------------------------------------------------------------


async def _nothing() -> None:
    pass


LEXICAL = InProcess(
    model=SERVED.model,
    options=Options,
    takes_images=True,
    splits=False,  # a document's score depends on how many others hold the words
    concurrency=None,
    about={"scores": "in process: no key, no cost, no limit", "model": SERVED.model},
    problems=lambda _table: iter(()),
    decisive=lambda _table, _base: {},
    missing=lambda: "",
    ready=lambda _table, _base: None,
    make=lambda _table, _base: (LexicalScorer(), _nothing),
)


# --- cross-encoders -------------------------------------------------------------------------------


def _is_folder(model: str) -> bool:
    return model.startswith((".", "/", "~"))


def _problems(table: RouteTable) -> Iterator[Raw]:
    model, revision = table.model, _options(table).revision
    if not model:
        remedy = 'a folder, as in "./models/reranker", or a name on the Hugging Face hub'
        yield ("model",), "is missing", remedy
    elif _is_folder(model) and revision:
        remedy = "leave it out: a folder is told from others by what is in it"
        yield ("options", "revision"), "is for models on the hub", remedy
    elif not _is_folder(model) and not revision:
        remedy = "the commit of the model on the hub; or begin a folder's path with ./"
        yield ("options", "revision"), "is missing", remedy


def _options(table: RouteTable) -> CrossEncoderOptions:
    return CrossEncoderOptions.model_validate(table.options)


def _wanted(table: RouteTable, base: Path) -> Wanted:
    """
    The model that a job wants.

    Raises:
        JobError: its folder cannot be read.
    """
    model, options = table.model, _options(table)
    if not _is_folder(model):
        return Wanted(model, "", options)
    folder = absolute(base, model)
    try:
        return Wanted(str(folder), crossencoder.digest_of(folder), options)
    except OSError as error:
        why = f"{folder}: {error.strerror or error}"
        raise _refused(why, "name the folder that a model was saved to") from error


def _decisive(table: RouteTable, base: Path) -> dict[str, object]:
    wanted = _wanted(table, base)
    named = {f"provider.options.{key}": value for key, value in wanted.options.decisive().items()}
    return named | ({"provider.model.files": wanted.digest} if wanted.digest else {})


def _encoder(table: RouteTable, base: Path) -> Encoder:
    try:
        return crossencoder.load(_wanted(table, base))
    except crossencoder.CannotLoad as error:
        raise _refused(str(error), error.remedy) from error


def _make(table: RouteTable, base: Path) -> Made:
    size = _options(table).batch_size
    scorer = CrossEncoderScorer(_encoder(table, base), table.model, size)
    return scorer, scorer.aclose


def _refused(why: str, remedy: str) -> JobError:
    return JobError("", [Problem(0, "provider.model", why, remedy)])


CROSSENCODER = InProcess(
    model="",
    options=CrossEncoderOptions,
    splits=True,
    takes_images=False,
    concurrency=2,  # one computes, one is ready: what waits behind would not be drained in time
    about={
        "model": "a cross-encoder of sentence-transformers: a folder, or a name on the Hugging Face"
        " hub with options.revision",
        "needs": crossencoder.INSTALL,
        "cost": "none: it is your own CPU or GPU (options.device)",
        "pairs": "each is scored alone; how a batch is padded moves the last bits",
        "scores": "as the model's files say, 0 to 1 (sigmoid) unless they say otherwise; raw with"
        ' options.activation = "identity"',
    },
    problems=_problems,
    decisive=_decisive,
    missing=crossencoder.missing,
    ready=_encoder,
    make=_make,
)

IN_PROCESS: Mapping[str, InProcess] = {"lexical": LEXICAL, "crossencoder": CROSSENCODER}
"""Every scorer in process by the name that a job file calls it."""
