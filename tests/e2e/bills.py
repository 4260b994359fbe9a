"""
Jobs of every kind, drawn by a number, and how near a plan comes to what the server bills them.

The server counts four bytes as a token, whatever the script. The plan knows nothing of that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.examine.plan import plan
from tests.e2e.small_jobs import SmallJob
from tests.rehearsing import Server

SAMPLE = 50

ALPHABETS = {
    "English": ("etaoinshrdlucmfwypvbgkqjxz", 4.7, " "),
    "German": ("enisratdhulcgmobwfkzpvüäöß", 5.9, " "),
    "Turkish": ("aeinrlıkdtysmuobüşzgçğvch", 6.1, " "),
    "Russian": ("оеаинтсрвлкмдпуяызбгйчжхшюцщэф", 5.3, " "),
    "Hindi": ("करनसतमहपयलवगजदटबचथधभािीेुोंै्", 4.5, " "),
    "Chinese": (
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能",
        12.0,
        "，",
    ),
    "Japanese": ("のにはをたがでてとしれさあいるもなからこ日本人年大会国事者社学時", 14.0, "、"),
    "Korean": ("이다는을가에고의지한하나로기서사도자리시어대", 3.1, " "),
    "numbers": ("0123456789", 4.0, ", "),
    "code": ("abcdefghijklmnoprstuvwxyz_", 5.5, "("),
}
"""Letters, the mean length of a word, and what stands between words."""

LENGTHS: dict[str, Callable[[random.Random], int]] = {
    "short": lambda chance: chance.randint(20, 120),
    "passages": lambda chance: int(chance.lognormvariate(6.3, 0.5)),
    "abstracts": lambda chance: chance.randint(800, 2200),
    "long": lambda chance: chance.randint(1500, 6000),
    "few long": lambda chance: (
        chance.randint(3000, 9000) if chance.random() < 0.03 else chance.randint(100, 600)
    ),
}
"""Bytes of a document, more or less."""

COUNTS: dict[str, Callable[[random.Random], int]] = {
    "tiny": lambda chance: chance.randint(1, 12),
    "some dozens": lambda chance: chance.randint(15, 60),
    "about a hundred": lambda chance: chance.randint(85, 115),
    "hundreds": lambda chance: chance.choice((120, 200, 250, 330)),
    "mixed": lambda chance: chance.choice((3, 20, 50, 100, 150)),
}
"""Candidates of a group."""


@dataclass(frozen=True)
class Drawn:
    """
    What a job is like. *batches*: row groups of a size that a hurried look sees only one of.
    """

    number: int
    script: str
    lengths: str
    counts: str
    groups: int
    by_tokens: bool
    documents_max: int | None
    batches: int | None

    @property
    def price(self) -> dict[str, float]:
        """
        As a job file states it.
        """
        return (
            {"usd_per_million_tokens": 0.05} if self.by_tokens else {"usd_per_search_unit": 0.001}
        )


def drawn(number: int) -> Drawn:
    """
    The job of this number.
    """
    chance = random.Random(number)
    counts = chance.choice([*COUNTS])
    most = 70 if counts == "hundreds" else 160
    return Drawn(
        number,
        chance.choice([*ALPHABETS, "mixed"]),
        chance.choice([*LENGTHS]),
        counts,
        chance.randint(60, most),
        chance.random() < 0.5,
        chance.choice((None, None, None, 40, 100, 130)),
        chance.choice((None, None, None, None, 25)),
    )


def rows_of(job: Drawn) -> pa.Table:
    """
    Its groups: some are empty, ask nothing, or have a document twice or none in its place.
    """
    chance = random.Random(job.number + 1_000_000)
    length, count = LENGTHS[job.lengths], COUNTS[job.counts]
    scripts = [*ALPHABETS] if job.script == "mixed" else [job.script]
    pools = {script: words(script, chance) for script in scripts}
    shelves = {
        script: [text(pools[script], length(chance), chance) for _ in range(400 // len(scripts))]
        for script in scripts
    }
    rows = []
    for n in range(job.groups):
        script = chance.choice(scripts)
        documents: list[str | None] = [*chance.choices(shelves[script], k=count(chance))]
        if chance.random() < 0.05:
            documents.append(chance.choice((None, documents[0])))
        if chance.random() < 0.02:
            documents = []
        query = text(pools[script], chance.randint(15, 90), chance)
        rows.append(
            {
                "query_id": f"q{n}",
                "query": query if chance.random() > 0.01 else " ",
                "documents": [{"id": f"{n}-{i}", "text": each} for i, each in enumerate(documents)],
            }
        )
    kind = pa.list_(pa.struct({"id": pa.string(), "text": pa.string()}))
    schema = pa.schema({"query_id": pa.string(), "query": pa.string(), "documents": kind})
    return pa.Table.from_pylist(rows, schema)


def words(script: str, chance: random.Random) -> list[str]:
    """
    Some hundred words, the letters that come first being the frequent ones; each with what parts
    it from the next.
    """
    letters, mean, between = ALPHABETS[script]
    weights = [1 / (n + 3) for n in range(len(letters))]
    lengths = (max(1, round(chance.gauss(mean, mean / 3))) for _ in range(300))
    return ["".join(chance.choices(letters, weights, k=length)) + between for length in lengths]


def text(pool: Sequence[str], size: int, chance: random.Random) -> str:
    """
    A text of about so many bytes of UTF-8.
    """
    some = chance.choices(pool, k=max(1, size // 4))
    return "".join(some).encode()[:size].decode(errors="ignore") or pool[0]


# --- plan and bill --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """
    A bill in dollars, and what was foretold: by the rule alone, and after a sample.
    """

    job: Drawn
    bill: float
    by_rule: tuple[float, float]
    by_sample: tuple[float, float]

    def holds(self, said: tuple[float, float]) -> bool:
        """
        The bill lies between the two, but for the fractions that are no money.
        """
        return said[0] * (1 - 1e-9) <= self.bill <= said[1] * (1 + 1e-9)

    def width(self, said: tuple[float, float]) -> float:
        """
        How far they are from each other, as a share of the bill.
        """
        return (said[1] - said[0]) / self.bill


def compared(job: Drawn, folder: Path, server: Server) -> Compared:
    """
    Plan it, pay for a sample, plan the rest, run it, and look at the server's bill.
    """
    unit = "mtok" if job.by_tokens else "unit"
    server.turn(price=f"{next(iter(job.price.values()))}/{unit}")
    folder.mkdir()
    small = SmallJob(folder, server.port, source={"documents": "documents"})
    provider: dict[str, Any] = {
        "documents_max": job.documents_max,
        "price": {**job.price, "as_of": date(2026, 11, 20)},
    }
    small.change(provider=provider, limits={"concurrency_max": 64}, output={"rejected_max": 99})
    pq.write_table(rows_of(job), folder / "groups.parquet", row_group_size=job.batches)
    hurry = 0.0 if job.batches else 60.0
    server.reset()
    before = plan(small.job, sample_s_max=hurry).cost_usd
    spent = small.run(sample=SAMPLE).cost_usd
    after = plan(small.job, sample_s_max=hurry, sample=SAMPLE).cost_usd
    assert 0 == small.run().exit_code
    (bill,) = server.admin()["bill"].values()
    assert before is not None
    assert after is not None
    return Compared(job, bill["nano_usd"] / 1e9, before, (spent + after[0], spent + after[1]))


def figures(found: Sequence[Compared]) -> str:
    """
    How often the bill lay within, and how wide that was: for people.
    """
    kinds: list[tuple[str, Iterable[Compared]]] = [
        ("all", found),
        ("by search units, all looked at", _those(found, by_tokens=False, hurried=False)),
        ("by tokens, all looked at", _those(found, by_tokens=True, hurried=False)),
        ("one batch of it looked at", [one for one in found if one.job.batches]),
    ]
    lines = [f"{'jobs':32}{'n':>4}  by the rule: within, median width    after {SAMPLE} calls"]
    for name, those in kinds:
        if held := [*those]:
            rule = _figures([(one, one.by_rule) for one in held])
            sample = _figures([(one, one.by_sample) for one in held])
            lines.append(f"{name:32}{len(held):>4}{rule:>33}{sample:>25}")
    return "\n".join(lines)


def _figures(said: Sequence[tuple[Compared, tuple[float, float]]]) -> str:
    within = sum(one.holds(interval) for one, interval in said)
    return f"{within:>6} {median(one.width(interval) for one, interval in said):>14.1%}"


def _those(found: Sequence[Compared], *, by_tokens: bool, hurried: bool) -> list[Compared]:
    return [
        one
        for one in found
        if one.job.by_tokens is by_tokens and (one.job.batches is not None) is hurried
    ]
