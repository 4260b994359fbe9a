"""
Nights that follow each other: what has not changed is never paid again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrank.domain import Positions
from batchrank.errors import ChangedError, JobError, NotReady, OutputError
from batchrank.events import Silence
from batchrank.examine.plan import plan
from batchrank.job import load
from batchrank.job import run as run_job
from batchrank.job.opening import opened
from batchrank.job.reusing import reuse
from batchrank.job.world import Wishes
from batchrank.observe.report import Summary
from batchrank.operate.rehearse import rehearse
from tests.e2e.jobs import (
    MODEL,
    Book,
    Watched,
    bytes_of,
    digests,
    embedded,
    faults_of,
    folder_of,
    loaded,
    set_apart,
    write_job,
    write_source,
)
from tests.e2e.small_jobs import Liar, SmallJob, cli, groups, http

pytestmark = pytest.mark.campaign

GROUPS = 40
CHANGED = (7, 20, 33)
CALLED_NOT = GROUPS - len(CHANGED)


@pytest.fixture(scope="module")
def running() -> Iterator[Watched]:
    """
    One server for all tests of this file.
    """
    with embedded() as watched:
        yield watched


@pytest.fixture
def server(running: Watched) -> Watched:
    """
    The server, with nothing counted.
    """
    running.reset()
    return running


def run(job: Path, **wishes: Any) -> Summary:
    """
    Run it in this process.
    """
    set_apart()
    return run_job(load(job), **wishes)


class Nights:
    """
    Jobs in one folder, each with a source and an output of its own; scores are a function of texts.

    *first* is an output of the rows as they are in the beginning.
    """

    def __init__(self, folder: Path, server: Watched, first: Path | None = None) -> None:
        self.folder = folder
        self.server = server
        self.table = pq.read_table(write_source(folder, GROUPS, documents=3, row_group=13))
        self.rows: list[dict[str, Any]] = self.table.to_pylist()
        self._first = first

    def job(self, name: str, output: dict[str, object] | None = None, **tables: Any) -> Path:
        """
        The job *name*, whose source are the rows as they are now.
        """
        source = self.folder / f"{name}.parquet"
        table = type(self.table).from_pylist(self.rows, schema=self.table.schema)
        pq.write_table(table, source, row_group_size=13)
        placed = {"path": f"out/{name}", "part_groups": 16, **(output or {})}
        base_url = self.server.base_url
        return write_job(
            self.folder, base_url, file=f"{name}.toml", source=source, output=placed, **tables
        )

    def first(self, **output: object) -> Path:
        """
        The job of the first night, done; what the server has counted of it is forgotten.

        A copy is all that is needed of an output that is as ever: whoever reuses it reads no more.
        """
        job = self.job("first", output)
        if self._first and not output:
            shutil.copytree(self._first, folder_of(job))
        else:
            assert 0 == run(job).exit_code
        self.server.reset()
        return job

    def second(self, **tables: Any) -> Path:
        """
        The job of the second night, which may take scores from the first.
        """
        output = {"reuse": ["out/first"], **tables.pop("output", {})}
        return self.job("second", output, **tables)

    def called(self, job: Path) -> list[int]:
        """
        The positions of *job* that the server was asked about, as often as it was.
        """
        known = digests(job)
        return sorted(known[body] for body in self.server.arrivals().elements())


@pytest.fixture(scope="module")
def done(running: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The output of a first night.
    """
    return folder_of(Nights(tmp_path_factory.mktemp("first"), running).first())


@pytest.fixture
def nights(tmp_path: Path, done: Path, server: Watched) -> Nights:
    """
    No night yet.
    """
    return Nights(tmp_path, server, done)


def scores(job: Path) -> dict[tuple[str, str], str]:
    """
    Every score to its last bit, by the ids of query and document.
    """
    rows = pq.read_table(loaded(job).output).to_pylist()
    return {(row["query_id"], row["doc_id"]): row["relevance_score"].hex() for row in rows}


# --- what is called -------------------------------------------------------------------------------


def test_only_what_has_changed_is_called(nights: Nights) -> None:
    """
    And the output is the one that calling everybody makes, byte for byte.
    """
    first = nights.first()
    for position in CHANGED:
        nights.rows[position]["documents"][1]["text"] += " again"
    second = nights.second()

    summary = run(second)

    assert list(CHANGED) == nights.called(second)
    assert (0, GROUPS, CALLED_NOT, 3) == (
        summary.exit_code,
        summary.ranked,
        summary.reused,
        summary.calls,
    )
    assert [] == faults_of(second)
    before, after = scores(first), scores(second)
    changed = {f"q{position}" for position in CHANGED}
    assert {key[0] for key in after if after[key] != before[key]} <= changed
    asked = nights.job("asked")
    run(asked)
    assert bytes_of(asked) == bytes_of(second)


def test_the_order_of_groups_and_where_they_lie_do_not_matter(nights: Nights) -> None:
    """
    Ids are not compared, and are those of the second night.
    """
    nights.first()
    nights.rows = nights.rows[::-1][:30]
    for row in nights.rows:
        row["query_id"] = f"other-{row['query_id']}"
    second = nights.second()
    second.write_text(second.read_text().replace("[source]", '[source]\ncarry = ["query"]'))

    run(second)

    assert [] == nights.called(second)
    rows = pq.read_table(loaded(second).output).to_pylist()
    assert {(f"other-q{n}", f"what is subject {n}") for n in range(10, 40)} == {
        (row["query_id"], row["query"]) for row in rows
    }


def _permuted(nights: Nights) -> dict[str, Any]:
    for row in nights.rows:
        row["documents"].reverse()
    return {}


def _tables(tables: dict[str, Any]) -> Callable[[Nights], dict[str, Any]]:
    return lambda _: dict(tables)


OTHER_MODEL = {"provider": {"model": "cohere/rerank-4-fast"}}
UPSTREAM = {"provider.options.provider": {"order": ["cohere"]}}
FREE = {
    "limits": {"concurrency_max": 3, "requests_per_second": 5000},
    "budget": {"cost_usd_max": 100.0},
    "output": {"layout": "groups", "part_groups": 7},
    "provider.options": {"title": "the second night"},
    "provider.price": {"usd_per_search_unit": 0.5, "as_of": "2026-11-20"},
}


@pytest.mark.parametrize(
    ("change", "called"),
    [
        pytest.param(_tables(OTHER_MODEL), GROUPS, id="the model"),
        pytest.param(_tables(UPSTREAM), GROUPS, id="a parameter"),
        pytest.param(_permuted, GROUPS, id="documents in another order"),
        pytest.param(_tables(FREE), 0, id="price, concurrency, and what else decides no score"),
    ],
)
def test_what_decides_a_score_decides_what_is_called(
    nights: Nights, change: Callable[[Nights], dict[str, Any]], called: int
) -> None:
    """
    A score of another question is no score. What `plan` has foretold is what `run` does.
    """
    nights.first()
    second = nights.second(**change(nights))
    second.write_text(second.read_text().replace('"2026-11-20"', "2026-11-20"))  # JSON has no days

    planned, ran = (cli(name, second, "--json") for name in ("plan", "run"))

    assert (0, 0) == (planned.code, ran.code)
    assert [called, called] == planned.json["requests"]
    assert called == nights.server.settled().arrived == ran.json["calls"]
    assert GROUPS - called == planned.json["reused"] == ran.json["reused"]


def test_a_third_night_takes_from_both(nights: Nights) -> None:
    """
    The second one's output is as good as any, wherever its scores came from.
    """
    nights.first()
    for position in CHANGED:
        nights.rows[position]["query"] += "?"
    run(nights.second())
    nights.server.reset()
    nights.rows[0]["query"] += "?"
    nights.rows[7]["query"] = nights.rows[7]["query"].removesuffix("?")
    third = nights.job("third", {"reuse": ["out/second", "out/first"]})

    run(third)

    assert [0] == nights.called(third)


def test_what_top_n_has_cut_is_called_and_told(nights: Nights) -> None:
    """
    Two of three scores do not serve; a group of two candidates is whole. Whoever is refused for a
    source that has changed is not promised more.
    """
    nights.rows[5]["documents"].pop()
    first = nights.first(top_n=2)
    second = nights.second()

    planned, ran = (cli(name, second, "--json").json for name in ("plan", "run"))
    nights.rows[0]["query"] += "?"
    nights.job("first", {"top_n": 2})
    refused = cli("run", first)

    assert (1, [39, 39]) == (planned["reused"], planned["requests"])
    assert (1, 39) == (ran["reused"], ran["calls"])
    told = "39 groups are in earlier outputs with some scores only, as output.top_n cut them there"
    assert all(any(told in note for note in notes) for notes in (planned["warnings"], ran["notes"]))
    assert 2 == refused.code
    assert "are not paid again, but for those that output.top_n has cut" in refused.err


def test_a_model_of_another_day_is_told_with_a_remedy_that_works(tmp_path: Path) -> None:
    """
    Copied scores fix the model as replies do, and nobody can ask for it again.
    """
    model = f"{MODEL}-20260101"
    with Liar(lambda heard: http(heard.reply(model=model))) as liar:
        rows = groups(6)
        job = SmallJob(tmp_path, liar.port, output={"path": "first"}).source(rows)
        job.run()
        rows[3]["query"] += "?"
        job.source(rows).change(output={"path": "second", "reuse": ["first"]})
        model = f"{MODEL}-20260606"
        stopped = job.cli("run", "--json").json
        job.change(output={"reuse": None})
        done = job.cli("run", "--restart", "--json").json

    assert (3, 5) == (stopped["exit_code"], stopped["reused"])
    assert f"this job's scores are {MODEL}-20260101's, now {model} answers" in stopped["reason"]
    assert "take out output.reuse, and run with --restart" in stopped["notes"][-1]
    assert (0, 0, 6, [model]) == tuple(
        done[key] for key in ("exit_code", "reused", "calls", "models")
    )


def test_a_rehearsal_calls_about_everything(nights: Nights) -> None:
    """
    It is there to see what a whole night does.
    """
    nights.first()

    rehearsed = rehearse(loaded(nights.second()), {"latency": "0"})

    assert (0, GROUPS) == (rehearsed.summary.reused, rehearsed.servers["openrouter"]["calls"])


# --- interruptions --------------------------------------------------------------------------------


class Mortal(Positions):
    """
    Positions that end whoever adds to them, after so many.
    """

    left = 25

    def add(self, position: int) -> None:
        """
        Add one, if any is left.
        """
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().add(position)


def test_whoever_is_ended_while_copying_carries_on(nights: Nights) -> None:
    """
    Nothing is copied twice, and nothing is called that was copied or can be.
    """
    nights.first()
    for position in CHANGED:
        nights.rows[position]["query"] += "?"
    second = nights.second()
    with (
        opened(load(second), Wishes(), Silence()) as world,
        pytest.raises(KeyboardInterrupt),
    ):
        reuse(world, Silence(), Mortal(GROUPS), together=10)
    held = Book.of(second)
    assert 30 == len(held.ranked)

    summary = run(second)

    assert list(CHANGED) == nights.called(second)
    assert (CALLED_NOT, 3, 0) == (summary.reused, summary.calls, Book.of(second).twice)
    asked = nights.job("asked")
    run(asked)
    assert bytes_of(asked) == bytes_of(second)


def test_a_part_of_the_night_takes_what_it_needs(nights: Nights) -> None:
    """
    With a limit nothing beyond it is looked up, and what is done is not looked up again.
    """
    nights.first()
    nights.rows[20]["query"] += "?"
    second = nights.second()

    few = run(second, limit=30)
    nothing = run(second, limit=30)
    whole = run(second)

    assert [(29, 1), (29, 1), (39, 1)] == [(s.reused, s.calls) for s in (few, nothing, whole)]
    assert [20] == nights.called(second)


# --- which outputs --------------------------------------------------------------------------------


def dated(nights: Nights, day: str, **more: object) -> Summary:
    """
    Run the job of a day, whose source are the rows as they are now.
    """
    job = nights.job("day", {"path": "out/dt={date}", "reuse": "previous", **more})
    set_apart()
    return run_job(load(job, {"date": day}))


def test_previous_is_the_newest_that_is_finished(nights: Nights) -> None:
    """
    Days may be missing, or have failed.
    """
    alone = dated(nights, "2026-11-10")
    nights.rows[0]["query"] += "?"
    dated(nights, "2026-11-13")
    (nights.folder / "out/dt=2026-11-15").mkdir()
    nights.rows[1]["query"] += "?"
    nights.server.reset()

    summary = dated(nights, "2026-11-17")

    assert (0, GROUPS) == (alone.reused, alone.calls)
    assert any("none of the outputs of the 366 days before is finished" in n for n in alone.notes)
    assert (GROUPS - 1, 1) == (summary.reused, summary.calls)
    assert any("dt=2026-11-13" in note for note in summary.notes)


def test_late_rows_are_taken_with_what_was_set_aside(nights: Nights) -> None:
    """
    A finished day whose source has changed is refused, and says how it is taken.
    """
    dated(nights, "2026-11-20")
    nights.rows.insert(3, {**nights.rows[0], "query": "what came late"})
    job = nights.job("day", {"path": "out/dt={date}", "reuse": "previous"})
    nights.server.reset()
    with pytest.raises(ChangedError, match=r"--restart \(as output.reuse says"):
        run_job(load(job, {"date": "2026-11-20"}))
    foretold = plan(load(job, {"date": "2026-11-20"}))

    with (
        opened(load(job, {"date": "2026-11-20"}), Wishes(restart=True), Silence()) as world,
        pytest.raises(KeyboardInterrupt),
    ):
        reuse(world, Silence(), Mortal(GROUPS + 1), together=10)
    summary = run_job(load(job, {"date": "2026-11-20"}))

    assert (0, GROUPS, 1) == (summary.exit_code, summary.reused, summary.calls)
    assert not any("days before" in note for note in summary.notes)  # it has taken enough
    assert 1 == nights.server.settled().arrived
    assert (GROUPS, (1, 1)) == (foretold.reused, foretold.requests)


def _missing(output: Path) -> None:
    output.rename(output.with_name("elsewhere"))


def _unfinished(output: Path) -> None:
    (output / "_SUCCESS").unlink()


def _older(output: Path) -> None:
    part = output / "part-00001.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["digest"]), part)


def _corrupt(output: Path) -> None:
    part = output / "part-00001.parquet"
    with pq.ParquetFile(part) as file:
        names = file.schema_arrow.names
        chunk = file.metadata.row_group(0).column(names.index("relevance_score"))
        end = chunk.dictionary_page_offset + chunk.total_compressed_size
    body = bytearray(part.read_bytes())
    body[end - 3] ^= 1
    part.write_bytes(body)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(_missing, OutputError, id="missing"),
        pytest.param(_unfinished, NotReady, id="unfinished"),
        pytest.param(_older, OutputError, id="without digests"),
        pytest.param(_corrupt, OutputError, id="corrupt"),
    ],
)
def test_an_output_that_cannot_be_used_is_refused_before_a_call(
    nights: Nights, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    """
    Whoever names it wants its scores: going on without would be a bill that nobody foretold.
    """
    spoil(folder_of(nights.first()))
    second = nights.second()

    for command in (lambda: run(second), lambda: plan(loaded(second))):
        with pytest.raises(error, match=r"output.reuse: .*first"):
            command()

    assert 0 == nights.server.settled().arrived


def test_a_finished_output_needs_nobody_elses_any_more(nights: Nights) -> None:
    """
    Whoever keeps few nights may run the last one again.
    """
    first = nights.first()
    second = nights.second()
    run(second)
    before = bytes_of(second)
    _missing(folder_of(first))

    again = run(second)

    assert (0, 0) == (again.exit_code, again.calls_now)
    assert before == bytes_of(second)
    assert GROUPS == plan(loaded(second)).done


def test_what_asks_for_the_best_only_has_nothing_to_reuse(nights: Nights) -> None:
    """
    The others would never have a score.
    """
    job = nights.second(provider={"send_top_n": True}, output={"top_n": 2})

    with pytest.raises(JobError, match=r"output.reuse: needs every score"):
        load(job)


# --- foretold -------------------------------------------------------------------------------------


def test_plan_tells_what_is_saved_and_writes_nothing(nights: Nights) -> None:
    """
    In calls and money; what is left is estimated without it.
    """
    nights.first()
    for position in CHANGED:
        nights.rows[position]["query"] += "?"
    second = nights.second()

    foretold = plan(loaded(second))

    assert MODEL == foretold.model
    assert (37, (3, 3), (3, 3)) == (foretold.reused, foretold.requests, foretold.search_units)
    assert ((0.037, 0.037), (0.003, 0.003)) == (foretold.saved_usd, foretold.cost_usd)
    assert "37 of 40 groups, from earlier outputs: 37 calls and $0.0370" in foretold.as_text()
    assert not loaded(second).output.exists()
    assert not loaded(second).state.path.exists()
