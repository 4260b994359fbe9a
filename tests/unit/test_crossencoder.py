"""
The cross-encoder's scorer around a model that is none: what it does with memory that does not do,
with numbers that are no scores, and what tells two models apart. The real thing is tested in
`tests/others/test_local.py`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from batchrank.domain import Answer, Failure, FailureKind, RerankReply, RerankRequest, Slice, Usage
from batchrank.local.crossencoder import CrossEncoderOptions, CrossEncoderScorer, digest_of


class Encoder:
    """
    Scores a pair by its document's length, if so many pairs fit into its memory.
    """

    def __init__(self, fits: int = 1000, error: BaseException | None = None) -> None:
        self.fits = fits
        self.error = error or RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.tried: list[int] = []
        self.relieved = 0
        self.threads: set[str] = set()

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        """
        A document's text as a number.
        """
        self.threads.add(threading.current_thread().name)
        self.tried.append(batch_size)
        if min(batch_size, len(pairs)) > self.fits:
            raise self.error
        return [float(document) for _, document in pairs]

    def relieve(self) -> None:
        """
        Count.
        """
        self.relieved += 1


def request(*documents: str) -> RerankRequest:
    """
    A request for these documents.
    """
    indices = tuple(range(len(documents)))
    return RerankRequest(Slice(0, 0, len(documents)), "q", documents, indices)


def answers(encoder: Encoder, *requests: RerankRequest, batch_size: int = 32) -> list[Answer]:
    """
    What a scorer says to requests that come at once.
    """

    async def ask() -> list[Answer]:
        scorer = CrossEncoderScorer(encoder, "m", batch_size)
        try:
            return await asyncio.gather(*(scorer.score(each) for each in requests))
        finally:
            await scorer.aclose()

    return asyncio.run(ask())


def test_each_request_gets_its_own_scores_in_one_thread_for_nothing() -> None:
    """
    In the order of its documents, whatever else is asked at the same time.
    """
    encoder = Encoder()
    first, second = answers(encoder, request("3", "1", "2"), request("9"))

    assert isinstance(first, RerankReply)
    assert isinstance(second, RerankReply)
    assert ((3.0, 1.0, 2.0), (9.0,)) == (first.scores, second.scores)
    assert ("m", "sentence-transformers") == (first.served.model, first.served.provider)
    assert Usage(cost_usd=0.0) == first.usage
    assert {"crossencoder_0"} == encoder.threads


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(error: BaseException) -> None:
    """
    And stays so for the next ones.
    """
    encoder = Encoder(fits=3, error=error)
    first, second = answers(encoder, request(*"123456789"), request(*"987654321"), batch_size=8)

    assert isinstance(first, RerankReply)
    assert isinstance(second, RerankReply)
    assert tuple(map(float, "123456789")) == first.scores
    assert ([8, 4, 2, 2], 2) == (encoder.tried, encoder.relieved)


def test_a_document_that_does_not_fit_alone_rejects_its_group() -> None:
    """
    With the setting that mends it; batches of one are not tried for ever.
    """
    encoder = Encoder(fits=0)
    (answer,) = answers(encoder, request("1", "2"), batch_size=2)

    assert isinstance(answer, Failure)
    assert (FailureKind.BAD_GROUP, "out_of_memory") == (answer.kind, answer.code)
    assert "max_length" in answer.message
    assert [2, 1] == encoder.tried


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nmore"),
        IndexError("index out of range in self"),
        ValueError("Cannot handle batch sizes > 1 if no padding token is defined."),
    ],
)
def test_a_model_that_fails_stops_the_job(error: BaseException) -> None:
    """
    By value, in its own words, in one line.
    """
    (answer,) = answers(Encoder(fits=0, error=error), request("1"))

    assert isinstance(answer, Failure)
    assert (FailureKind.FATAL, "model_failed") == (answer.kind, answer.code)
    assert answer.message.startswith(f"the model failed: {type(error).__name__}: ")
    assert "\n" not in answer.message


class Wrong(Encoder):
    """
    Gives numbers that are no scores.
    """

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        """
        Always these.
        """
        return self.numbers


@pytest.mark.parametrize(
    "numbers", [(1.0,), (1.0, 2.0, 3.0), (1.0, float("nan")), (float("inf"), 1.0)]
)
def test_numbers_that_are_no_scores_are_a_bad_reply(numbers: tuple[float, ...]) -> None:
    """
    Too few, too many, not finite.
    """
    (answer,) = answers(Wrong(*numbers), request("1", "2"))

    assert isinstance(answer, Failure)
    assert FailureKind.BAD_REPLY == answer.kind


# --- which model ----------------------------------------------------------------------------------


def test_a_model_is_told_from_others_by_names_and_contents_of_its_files(tmp_path: Path) -> None:
    """
    Not by its times, what is hidden, or what is for people to read.
    """
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    first = digest_of(model)

    (model / "README.md").write_text("about it")
    (model / ".cache").mkdir()
    (model / ".cache" / "lock").write_text("")
    (model / "config.json").touch()
    same = digest_of(model)
    (model / "model.safetensors").write_bytes(b"weighty")
    trained = digest_of(model)
    (model / "config.json").rename(model / "other.json")

    assert first == same
    assert 3 == len({first, trained, digest_of(model)})


def test_a_folder_without_a_model_has_no_digest(tmp_path: Path) -> None:
    """
    Neither one that is not there.
    """
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OSError, match="No model is there"):
            digest_of(folder)


def test_all_settings_but_the_size_of_a_batch_and_the_number_of_a_gpu_decide_scores() -> None:
    """
    What is left out counts as what it stands for.
    """
    plain = CrossEncoderOptions()
    other = CrossEncoderOptions(batch_size=4)

    assert {"device": "cpu", "dtype": "float32"} == plain.decisive() == other.decisive()
    assert (
        CrossEncoderOptions(device="cuda:1").decisive()
        == CrossEncoderOptions(device="cuda").decisive()
    )
    assert {"device": "cpu", "dtype": "float16", "max_length": 99, "activation": "identity"} == (
        CrossEncoderOptions(dtype="float16", max_length=99, activation="identity").decisive()
    )


@pytest.mark.parametrize(
    "options",
    [{"revision": "main"}, {"device": "gpu"}, {"batch_size": 0}, {"dtype": "int8"}, {"x": 1}],
)
def test_what_cannot_be_is_refused(options: dict[str, object]) -> None:
    """
    A branch is no revision: it moves.
    """
    with pytest.raises(ValidationError):
        CrossEncoderOptions.model_validate(options)


def test_nobody_imports_what_the_extra_brings() -> None:
    """
    Before a model is loaded: the command line does not even begin to.
    """
    looks = "import sys, batchrank.cli.main, batchrank.job.running as r; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "batchrank.local.crossencoder" in loaded
    assert not {"torch", "transformers", "sentence_transformers"} & loaded
