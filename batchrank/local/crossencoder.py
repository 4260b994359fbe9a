"""
A cross-encoder of sentence-transformers, on this machine's CPU or GPU.

Owns what a job may say of it, what tells its files from others, its loading, and the one thread
that it computes in. Needs the extra `batchrank[local]`, which is imported when a model is loaded
and never before: whoever asks somebody else pays nothing for it.

The pairs of one request make a batch of their own, never with another's: how texts are padded
moves the last bits of a score, and so a group's scores do not depend on what else was asked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import file_digest, sha256
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from batchrank.domain import (
    Answer,
    Failure,
    FailureKind,
    RerankReply,
    RerankRequest,
    Served,
    Usage,
    text_of,
)
from batchrank.providers.base import Options

EXTRA = "sentence_transformers"
INSTALL = "pip install 'batchrank[local]'"

HOST = "sentence-transformers"
"""What stands in the output as provider."""


# --- what a job may say ---------------------------------------------------------------------------


def _matching(pattern: str, expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


Commit = Annotated[
    str,
    _matching("[0-9a-f]{40}", "the 40 digits of a commit: a branch or a tag may move"),
    Field(json_schema_extra={"pattern": "^[0-9a-f]{40}$"}),
]
Device = Annotated[
    str,
    _matching("cpu|mps|cuda(:[0-9]{1,2})?", '"cpu", "cuda", "cuda:1" or "mps"'),
    Field(json_schema_extra={"pattern": "^(cpu|mps|cuda(:[0-9]{1,2})?)$"}),
]


class CrossEncoderOptions(Options):
    """
    How a cross-encoder is loaded and asked. All but the size of a batch decides scores.
    """

    revision: Commit | None = Field(
        None, description="which of the model's versions: the commit on the Hugging Face hub"
    )
    device: Device = Field("cpu", description='where it computes: "cpu", "cuda", "cuda:1", "mps"')
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="the numbers that it computes with"
    )
    activation: Literal["sigmoid", "identity"] | None = Field(
        None, description="sigmoid: 0 to 1; identity: raw; unless told, as the model's files say"
    )
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] | None = Field(
        None, description="tokens of query and document together; unless told, the model's own"
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        32, description="pairs at once; halved where the memory does not do"
    )

    def decisive(self) -> dict[str, object]:
        """
        Those that decide a score. Which of several equal GPUs computes does not.
        """
        told = self.model_dump(mode="json", exclude_none=True, exclude={"batch_size"})
        return {**told, "device": self.device.partition(":")[0]}


# --- which files ----------------------------------------------------------------------------------


def digest_of(folder: Path) -> str:
    """
    SHA-256 over names and contents of a model's files, in hex. Hidden files and words for people do
    not count. A file is read once a process, unless it changes.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and _counts(path, folder)]
    if not files:
        raise FileNotFoundError(2, "No model is there", str(folder))
    whole = sha256()
    for path in sorted(files):
        looks = path.stat()
        content = _digest(path, looks.st_size, looks.st_mtime_ns, looks.st_ino)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def _counts(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.suffix != ".md" and not any(part.startswith(".") for part in parts)


@cache
def _digest(path: Path, _size: int, _changed_ns: int, _inode: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


# --- loading --------------------------------------------------------------------------------------


class Encoder(Protocol):
    """
    A model that is loaded.
    """

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        """
        One score for each pair of query and document, in their order; *batch_size* pairs at once.
        """

    def relieve(self) -> None:
        """
        Give back what memory is not needed.
        """


class CannotLoad(Exception):
    """
    The model cannot be had as the job says; message and *remedy* are for a person.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    One model as a job wants it: *name* is a folder's path, or a name on the hub; *digest* is that
    of a folder's files.
    """

    name: str
    digest: str
    options: CrossEncoderOptions


def missing() -> str:
    """
    What has to be installed first; "" if the extra is there. Imports nothing.
    """
    return "" if find_spec(EXTRA) else f"needs sentence-transformers: {INSTALL}"


@lru_cache(1)
def load(wanted: Wanted) -> Encoder:
    """
    Load a model, once for all runs of a process. Code that comes with a model is never run.

    Raises:
        CannotLoad: it is not there, is no cross-encoder with one score, or its device is not there.
    """
    if needs := missing():
        raise CannotLoad(needs)
    _silence()
    from sentence_transformers import CrossEncoder
    from torch import nn

    options = wanted.options
    named = {"sigmoid": nn.Sigmoid, "identity": nn.Identity}
    try:
        made = CrossEncoder(
            wanted.name,
            device=options.device,
            revision=options.revision,
            max_length=options.max_length,
            activation_fn=named[options.activation]() if options.activation else None,
            trust_remote_code=False,
            model_kwargs={"dtype": options.dtype},
        )
    # What is wrong with a model's files, a device or the hub comes as exceptions of all kinds.
    except Exception as error:
        raise CannotLoad(f"cannot be loaded: {_first_line(error)}", CHECK) from error
    return _checked(made, options.max_length)


CHECK = "see that its files are there and whole, and so is the device in provider.options"
ANOTHER = "name a model that was trained to give one score for a pair"


def _silence() -> None:
    """
    Keep bars and warnings off standard error: there the log of the run is.
    """
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _checked(made: Any, most: int | None) -> _Loaded:
    heads = getattr(made.config, "architectures", None) or []
    if not any(name.endswith("ForSequenceClassification") for name in heads):
        # transformers would make a head up, of random numbers, and say so in a warning.
        raise CannotLoad("is no cross-encoder: its files hold no weights for a score", ANOTHER)
    if made.num_labels != 1:
        why = f"is no reranker: it gives {made.num_labels} numbers for a pair, not one"
        raise CannotLoad(why, ANOTHER)
    places = getattr(made.config, "max_position_embeddings", None)
    if most and places and most > places:
        why = f"takes {places} tokens, and provider.options.max_length is {most}"
        raise CannotLoad(why, "lower it, or leave it out")
    return _Loaded(made)


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"[:300]


class _Loaded:
    """
    A CrossEncoder, without what is not needed of it.
    """

    def __init__(self, made: Any) -> None:
        self._made = made

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        found = self._made.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)
        return [float(score) for score in found]

    def relieve(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# --- scoring --------------------------------------------------------------------------------------


class CrossEncoderScorer:
    """
    Scores requests with *encoder*, one after the other, in a thread of its own.

    *model* is what stands in the output. After the first memory error batches stay as small as was
    found to do.
    """

    def __init__(self, encoder: Encoder, model: str, batch_size: int) -> None:
        self._encoder = encoder
        self._served = Served(model, HOST)
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, "crossencoder")

    async def score(self, request: RerankRequest) -> Answer:
        """
        The scores of *request*, for nothing. The loop goes on meanwhile.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._scored, request)

    async def aclose(self) -> None:
        """
        Let go of the thread, once it is done with what it computes.
        """
        self._thread.shutdown(cancel_futures=True)

    def _scored(self, request: RerankRequest) -> Answer:
        pairs = [(request.query, text_of(document)) for document in request.documents]
        try:
            scores = self._computed(pairs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, it is told by value
            return _failure(error)
        if len(scores) != len(pairs):
            return _bad(f"{len(scores)} scores for {len(pairs)} documents")
        if not all(map(isfinite, scores)):
            return _bad("a score that is not finite")
        return RerankReply(tuple(scores), self._served, Usage(cost_usd=0.0))

    def _computed(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        while True:
            try:
                return self._encoder.scores(pairs, self._batch_size)
            # Each backend has an error of its own for it, some none but RuntimeError.
            except Exception as error:
                if not _is_out_of_memory(error) or self._batch_size == 1:
                    raise
            self._batch_size //= 2  # here, because the error holds on to the memory
            self._encoder.relieve()


def _is_out_of_memory(error: BaseException) -> bool:
    # CUDA and MPS have the first, the allocator of CPUs the second.
    told = str(error).lower()
    short = "out of memory" in told or "can't allocate memory" in told
    return isinstance(error, MemoryError) or short


def _failure(error: BaseException) -> Failure:
    if _is_out_of_memory(error):
        why = "out of memory with one document at a time: set provider.options.max_length"
        return Failure(FailureKind.BAD_GROUP, why, code="out_of_memory")
    return Failure(
        FailureKind.FATAL, f"the model failed: {_first_line(error)}", code="model_failed"
    )


def _bad(why: str) -> Failure:
    return Failure(FailureKind.BAD_REPLY, why, code="model_failed")
