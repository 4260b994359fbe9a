"""
Object stores: what is found there, what is read, and what a put leaves when the way breaks.

A real S3 server on loopback; a proxy before it breaks connections where a test says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import S3Table, SourceTable, StoresTable
from batchrank.domain import Positions
from batchrank.errors import ChangedError, NotReady, OutputError, SourceError, StorageError
from batchrank.job.earlier import _perhaps_there
from batchrank.places.remote import Remote
from batchrank.places.stores import ATTEMPTS
from batchrank.places.uri import parsed
from batchrank.source.files import find
from batchrank.source.parquet import open_source
from batchrank.source.staged import open_groups
from batchrank.store.output import OutputFolder, StateFolder
from batchrank.store.shelf import WAITS_S, RemoteShelf
from tests.edges.test_output_folder import LAYOUT, SCHEMA, scene
from tests.stores.faults import Fault, FaultProxy
from tests.stores.s3 import ACCESS_KEY, REGION, SECRET_KEY, Bucket

OUT = "out/dt=2026-11-18"
PART = f"{OUT}/part-00000.parquet"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Credentials as S3's own tools find them.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def stores(faults: FaultProxy) -> StoresTable:
    """
    The store behind the proxy, as a job file would name it.
    """
    return StoresTable(s3=S3Table(endpoint=faults.url, region=REGION))


At = Callable[[str], Remote]


@pytest.fixture
def at(bucket: Bucket, stores: StoresTable) -> At:
    """
    Places in the bucket.
    """
    return lambda key: Remote(parsed(f"s3://{bucket.name}/{key}"), stores)


# --- what is there --------------------------------------------------------------------------------


def test_objects_answer_as_paths_do(bucket: Bucket, at: At) -> None:
    """
    A prefix is a folder as long as anything lies below it.
    """
    for key in ("a/x=1%2F2/one.parquet", "a/two.csv", "a/two.csv.d/three", "ab"):
        bucket.write(key, key.encode())

    assert [True, False, False] == [at(key).is_file() for key in ("ab", "a", "b")]
    assert [False, True, False] == [at(key).is_dir() for key in ("ab", "a", "b")]
    assert ["two.csv", "two.csv.d", "x=1%2F2"] == [entry.name for entry in at("a").iterdir()]
    assert [at("a/x=1%2F2/one.parquet")] == list(at("a").glob("x=*/*.parquet"))
    assert b"a/two.csv" == at("a/two.csv").read_bytes()
    assert 9 == at("a/two.csv").size_bytes()
    assert not list(at("b").glob("*"))
    for question in (at("b").size_bytes, at("b").read_bytes, lambda: list(at("b").iterdir())):
        with pytest.raises(FileNotFoundError):
            question()


def test_a_snapshot_lists_each_folder_once(bucket: Bucket, at: At, faults: FaultProxy) -> None:
    """
    Looking for marks beside many files costs no request for each.
    """
    for day in range(5):
        bucket.write(f"in/dt={day}/a.parquet", b"")
        bucket.write(f"in/dt={day}/_SUCCESS", b"")
    faults.reset()
    snapshot = at("in").snapshot()

    for folder in snapshot.iterdir():
        assert ["_SUCCESS", "a.parquet"] == [entry.name for entry in folder.iterdir()]
        assert (folder / "_SUCCESS").is_file()
        assert not (folder / "_temporary").is_dir()
    assert not (snapshot / "_SUCCESS").is_file()

    assert 6 == len(faults.log)


def test_of_a_year_of_days_those_are_asked_about_that_a_listing_names(
    bucket: Bucket, at: At, faults: FaultProxy
) -> None:
    """
    Where nobody may list, or days are buckets, each of them is.
    """
    bucket.write("out/dt=2/scores/_SUCCESS", b"")
    days = [at(f"out/dt={day}/scores") for day in range(1, 4)]
    faults.reset()

    assert [days[1]] == list(_perhaps_there(days))
    assert 1 == len(faults.log)
    assert [] == list(_perhaps_there([at("none/dt=1"), at("none/dt=2")]))
    faults.arm(Fault.ACCESS_DENIED, "GET", "list-type=2")
    assert days == _perhaps_there(days)
    apart = [Remote(parsed(f"s3://{bucket.name}-{day}/out")) for day in range(2)]
    assert apart == _perhaps_there(apart)


@pytest.mark.parametrize(
    ("keys_there", "path", "found"),
    [
        (["d/a.parquet", "d/b/c.parquet", "d/_x/e.parquet"], "d", ["d/a.parquet", "d/b/c.parquet"]),
        (["d/a.parquet"], "d/a.parquet", ["d/a.parquet"]),
        (["dt=1/a.parquet", "dt=2/a.parquet", "x"], "dt=*/a.parquet", None),
        (["d/dt=1%2F2/a.parquet"], "d/dt=1%2F2", ["d/dt=1%2F2/a.parquet"]),
        (["d/a b+c#é.parquet"], "d/a b+c#é.parquet", ["d/a b+c#é.parquet"]),
    ],
)
def test_files_are_found_as_on_a_disk(
    bucket: Bucket, stores: StoresTable, keys_there: list[str], path: str, found: list[str] | None
) -> None:
    """
    By a folder, a name or a glob; a key is taken letter by letter.
    """
    for key in keys_there:
        bucket.write(key, b"")
    expected = [key for key in keys_there if key.endswith(".parquet")] if found is None else found

    files = find(
        f"s3://{bucket.name}/{path}", Path("/nowhere"), require_success=False, stores=stores
    )

    assert [f"s3://{bucket.name}/{key}" for key in expected] == list(map(str, files))


@pytest.mark.parametrize(
    ("there", "path", "require_success", "error", "words"),
    [
        ([], "d/x", True, NotReady, "is not there yet"),
        (["d/x/a.parquet"], "d/x", True, NotReady, "holds no _SUCCESS yet"),
        (["d/x/_temporary/a"], "d/x", False, NotReady, "upstream is still writing"),
        (["d/nights/a.parquet"], "d/night", False, SourceError, "and in it nights"),
        (["d/x/a.csv"], "d/x", False, SourceError, "holds other files"),
    ],
)
def test_what_is_not_there_is_late_or_wrong(
    bucket: Bucket,
    stores: StoresTable,
    there: list[str],
    path: str,
    require_success: bool,
    error: type[Exception],
    words: str,
) -> None:
    """
    As on a disk.
    """
    bucket.write("d/something", b"")
    for key in there:
        bucket.write(key, b"")

    with pytest.raises(error, match=re.escape(words)):
        find(f"s3://{bucket.name}/{path}", Path(), require_success=require_success, stores=stores)


@pytest.mark.parametrize("key", ["d//a.parquet", "d/dt=1//a.parquet"])
def test_a_key_that_nobody_would_find_is_told(
    key: str, bucket: Bucket, stores: StoresTable
) -> None:
    """
    A source that holds nothing else would count as one of no groups, and as done.
    """
    bucket.write("d/_SUCCESS", b"")
    bucket.write(key, b"")

    with pytest.raises(SourceError, match="empty name between slashes"):
        find(f"s3://{bucket.name}/d", Path(), require_success=True, stores=stores)


def test_a_bucket_that_is_not_there_is_told(stores: StoresTable) -> None:
    """
    In one line, with its name.
    """
    with pytest.raises(SourceError, match=r"s3://nobodys/d .*no such bucket") as raised:
        find("s3://nobodys/d", Path(), require_success=False, stores=stores)

    assert "\n" not in str(raised.value)


def test_a_refusal_of_the_store_is_told(
    bucket: Bucket, stores: StoresTable, faults: FaultProxy
) -> None:
    """
    Nobody takes it for a folder that is not there yet.
    """
    faults.arm(Fault.ACCESS_DENIED, times=1000)

    with pytest.raises(SourceError, match="access denied: look at the credentials"):
        find(f"s3://{bucket.name}/d", Path(), require_success=True, stores=stores)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The store's client gives up at once.
    """
    monkeypatch.setattr("batchrank.places.stores.ATTEMPTS", 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize(("method", "pattern"), [("*", ""), ("GET", r"/in/a\.")])
def test_an_outage_says_nothing_about_a_source(
    name: str,
    method: str,
    pattern: str,
    bucket: Bucket,
    stores: StoresTable,
    faults: FaultProxy,
    tmp_path: Path,
) -> None:
    """
    It is neither wrong, nor late, nor empty, whether its files are looked for or read.
    """
    for key in (name, "_SUCCESS"):
        bucket.write(f"in/{key}", b"query_id,query,doc_id,text\n1,q,d,t\n")
    faults.arm(Fault.INTERNAL_ERROR, method, pattern, times=1000)
    table = SourceTable(path=f"s3://{bucket.name}/in/a.*", require_success=True)

    with pytest.raises(StorageError, match=rf"s3://{bucket.name}/in.* cannot be .*(500|INTERNAL)"):
        open_groups(table, tmp_path, tmp_path / "staging", stores=stores)


# --- sources --------------------------------------------------------------------------------------

GROUPS = 300


@pytest.fixture
def nested(bucket: Bucket, tmp_path: Path) -> SourceTable:
    """
    Two nested files in the bucket, and the `[source]` that reads them.
    """
    for number in range(2):
        rows = range(number * GROUPS, (number + 1) * GROUPS)
        table = pa.table(
            {
                "query_id": [f"q{n}" for n in rows],
                "query": [f"what is {n}" for n in rows],
                "documents": [[f"document {n} {place}" * 20 for place in range(3)] for n in rows],
            }
        )
        path = tmp_path / "made.parquet"
        pq.write_table(table, path, row_group_size=100)
        bucket.write(f"in/{number}.parquet", path.read_bytes())
    return SourceTable(path=f"s3://{bucket.name}/in", query_id="query_id")


def ids_of(table: SourceTable, stores: StoresTable) -> list[str | int | None]:
    """
    The ids of all groups, read to the end.
    """
    source = open_source(table, Path("/nowhere"), stores)
    return [
        batch.group(position).query_id
        for batch in source.batches(Positions(source.total), source.total)
        for position in range(batch.position, batch.position + batch.rows)
    ]


ALL_IDS = [f"q{n}" for n in range(2 * GROUPS)]


def test_nested_parquet_is_read_where_it_lies(
    nested: SourceTable, stores: StoresTable, bucket: Bucket
) -> None:
    """
    Its files are known by their addresses.
    """
    source = open_source(nested, Path("/nowhere"), stores)

    assert [f"s3://{bucket.name}/in/{n}.parquet" for n in (0, 1)] == [f.path for f in source.files]
    assert ids_of(nested, stores) == ALL_IDS


@pytest.mark.parametrize(
    "fault", [Fault.CUT_BEFORE, Fault.CUT_IN_REPLY, Fault.SLOW_DOWN, Fault.INTERNAL_ERROR]
)
def test_a_fault_on_the_way_is_not_seen_in_what_is_read(
    nested: SourceTable, stores: StoresTable, faults: FaultProxy, fault: Fault
) -> None:
    """
    The store's client asks again.
    """
    faults.arm(fault, "GET", r"0\.parquet", nth=2)

    assert ids_of(nested, stores) == ALL_IDS
    assert 0 == faults.waiting


def test_a_store_that_stays_away_is_no_damage(
    nested: SourceTable, stores: StoresTable, faults: FaultProxy
) -> None:
    """
    Nobody is told to mend a file that is whole.
    """
    source = open_source(nested, Path("/nowhere"), stores)
    faults.arm(Fault.ACCESS_DENIED, times=1000)

    with pytest.raises(SourceError, match="access denied") as raised:
        list(source.batches(Positions(source.total), source.total))

    assert "mend" not in str(raised.value)
    assert "run again" in raised.value.hint


def test_an_object_that_is_replaced_while_it_is_read_stops_the_job(
    nested: SourceTable, stores: StoresTable, bucket: Bucket
) -> None:
    """
    A store gives the new bytes at the old places: ids would come to stand beside other texts.
    """
    source = open_source(nested, Path("/nowhere"), stores)
    batches = source.batches(Positions(source.total), source.total)
    next(batches)
    bucket.write("in/0.parquet", bucket.read("in/1.parquet"))

    with pytest.raises(ChangedError, match=r"in/0\.parquet was changed while"):
        list(batches)


def test_an_object_that_is_taken_away_while_it_is_read_stops_the_job(
    nested: SourceTable, stores: StoresTable, bucket: Bucket
) -> None:
    """
    In words, as one that is replaced.
    """
    source = open_source(nested, Path("/nowhere"), stores)
    batches = source.batches(Positions(source.total), source.total)
    next(batches)
    bucket.delete("in/0.parquet")

    with pytest.raises(ChangedError, match=r"in/0\.parquet was taken away while"):
        list(batches)


def test_what_is_sorted_is_copied_first_and_known_by_its_address(
    bucket: Bucket, stores: StoresTable, faults: FaultProxy, tmp_path: Path
) -> None:
    """
    Each object is fetched once; of a staged source no byte is fetched to sort it again.
    """
    rows = [f"{n % 3},q {n % 3},d{n},text {n},{n}" for n in range(12)]
    bucket.write("in/a.csv", "\n".join(["query_id,query,doc_id,text,score", *rows]).encode())
    table = SourceTable(path=f"s3://{bucket.name}/in/*.csv", score="score")

    staged = open_groups(table, tmp_path, tmp_path / "staging", stores=stores)
    fetched = len(faults.seen("GET", r"in/a\.csv"))
    again = open_groups(table, tmp_path, tmp_path / "staging", stores=stores)

    assert (3, [f"s3://{bucket.name}/in/a.csv"]) == (staged.total, [f.path for f in staged.files])
    assert staged.files == again.files
    assert (2, 3) == (fetched, len(faults.seen("GET", r"in/a\.csv")))  # known, sorted, known
    assert not list((tmp_path / "staging").glob("copies/*"))


def test_a_mistake_in_an_object_is_told_with_its_address(
    bucket: Bucket, stores: StoresTable, tmp_path: Path
) -> None:
    """
    Not with that of a copy which is gone by then.
    """
    bucket.write("in/a.csv", b"query_id,query,doc_id,text\n1,q,d,t\n" * 30_000 + b"1,q,d\n")
    table = SourceTable(path=f"s3://{bucket.name}/in/a.csv")

    with pytest.raises(SourceError) as raised:
        open_groups(table, tmp_path, tmp_path / "staging", stores=stores)

    assert f"s3://{bucket.name}/in/a.csv" in str(raised.value)
    assert "copies" not in str(raised.value)


@pytest.mark.parametrize("key", ["database", "sql_file"])
def test_databases_stay_on_this_machine(key: str, tmp_path: Path, stores: StoresTable) -> None:
    """
    DuckDB is let near no network.
    """
    given = {"database": "here.duckdb", "sql": "SELECT 1", key: "s3://lake/x"}
    if key == "sql_file":
        given.pop("sql")
    table = SourceTable.model_validate(given)

    with pytest.raises(SourceError, match=rf"source.{key}: s3://lake/x is not on this machine"):
        open_groups(table, tmp_path, tmp_path / "staging", stores=stores)


# --- parts ----------------------------------------------------------------------------------------


class Waits:
    """
    What a shelf would have waited.
    """

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def __call__(self, wait_s: float) -> None:
        """
        Note it.
        """
        self.waited_s.append(wait_s)


@pytest.fixture
def waits() -> Waits:
    """
    Nobody waits.
    """
    return Waits()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """
    A part that is larger than half of what is sent at once.
    """
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(b"PAR1" + bytes(range(256)) * 1000)
    return path


BROKEN = [
    (Fault.CUT_BEFORE, 1),
    (Fault.CUT_IN_REQUEST, 1),
    (Fault.CUT_AFTER, 1),
    pytest.param(Fault.CUT_AFTER, ATTEMPTS, marks=pytest.mark.campaign),  # it is waited for
    (Fault.CUT_IN_REPLY, 1),
    (Fault.SLOW_DOWN, 1),
    (Fault.INTERNAL_ERROR, 1),
    (Fault.ACCESS_DENIED, len(WAITS_S)),
]
"""What happens, and how often: once, as often as the store's client tries, as often as we do."""


@pytest.mark.parametrize(("fault", "times"), BROKEN)
def test_a_put_is_settled_by_what_lies_there(
    fault: Fault, times: int, part: Path, at: At, bucket: Bucket, faults: FaultProxy, waits: Waits
) -> None:
    """
    Whatever became of the answer: the object is there, whole, and the shelf knows.
    """
    content = part.read_bytes()
    faults.arm(fault, "PUT", re.escape(PART), times=times)
    told: list[str] = []

    RemoteShelf(at(OUT), waits).put(part, told.append)

    assert content == bucket.read(PART)
    assert ["put", "aside_removed"] == told
    assert not part.exists()


def test_what_cannot_be_put_is_told_after_some_tries(
    part: Path, at: At, bucket: Bucket, faults: FaultProxy, waits: Waits
) -> None:
    """
    The part stays aside, and nothing of it is seen in the store.
    """
    faults.arm(Fault.ACCESS_DENIED, "PUT", re.escape(PART), times=1000)

    with pytest.raises(StorageError, match=r"cannot put s3://.*access denied") as raised:
        RemoteShelf(at(OUT), waits).put(part, lambda _: None)

    assert "run again" in raised.value.hint
    assert [0.0, *WAITS_S] == waits.waited_s
    assert part.exists()
    assert {} == bucket.keys(OUT)


def test_a_large_part_is_put_whole_or_not_at_all(
    tmp_path: Path, at: At, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    It is sent in several pieces, and listed after the last one only.
    """
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(bytes(25 * 2**20))
    faults.arm(Fault.ACCESS_DENIED, "PUT", "partNumber=3", times=2)
    seen: list[dict[str, int]] = []

    RemoteShelf(at(OUT), lambda _: seen.append(bucket.keys(OUT))).put(part, lambda _: None)

    assert 0 == faults.waiting
    assert [{}, {}, {}] == seen
    assert {PART: 25 * 2**20} == bucket.keys(OUT)


def test_an_outage_is_no_sign_of_damage(
    part: Path, at: At, faults: FaultProxy, waits: Waits
) -> None:
    """
    Parts would be rendered again for nothing.
    """
    shelf = RemoteShelf(at(OUT), waits)
    shelf.put(part, lambda _: None)
    faults.arm(Fault.ACCESS_DENIED, times=1000)

    for question in (
        lambda: shelf.sha256("part-00000.parquet"),
        lambda: shelf.has("_SUCCESS"),
        lambda: list(shelf.names()),
        lambda: shelf.remove(["part-00000.parquet"]),
    ):
        with pytest.raises(StorageError, match="access denied"):
            question()

    faults.reset()
    with pytest.raises(FileNotFoundError):
        shelf.sha256("part-00001.parquet")


def test_a_mark_keeps_other_states_out(at: At, bucket: Bucket, waits: Waits) -> None:
    """
    Until it is yielded up.
    """
    shelf = RemoteShelf(at(OUT), waits)
    shelf.claim(lambda: "here:/state 1")
    shelf.claim(lambda: "here:/state 1")

    with pytest.raises(OutputError, match=r"another state folder \(here:/state 1\)"):
        RemoteShelf(at(OUT), waits).claim(lambda: "there:/state 2")
    shelf.yield_up()
    RemoteShelf(at(OUT), waits).claim(lambda: "there:/state 2")

    assert b"there:/state 2" == bucket.read("out/_batchrank/dt=2026-11-18/owner")


def test_of_two_that_begin_at_the_same_moment_one_gives_way(
    part: Path, at: At, bucket: Bucket, faults: FaultProxy, waits: Waits
) -> None:
    """
    A mark that did not come through is never put in another's place; one that was overwritten is
    missed before the next part.
    """
    mark = "out/_batchrank/dt=2026-11-18/owner"

    def meanwhile(wait_s: float) -> None:
        if wait_s:
            bucket.write(mark, b"there:/state 2")

    faults.arm(Fault.ACCESS_DENIED, "PUT", "owner")
    with pytest.raises(OutputError, match=r"another state folder \(there:/state 2\)"):
        RemoteShelf(at(OUT), meanwhile).claim(lambda: "here:/state 1")
    assert b"there:/state 2" == bucket.read(mark)

    bucket.delete(mark)
    shelf = RemoteShelf(at(OUT), waits)
    shelf.claim(lambda: "here:/state 1")
    bucket.write(mark, b"there:/state 2")
    with pytest.raises(StorageError, match=r"by now \(there:/state 2\)"):
        shelf.put(part, lambda _: None)
    assert {} == bucket.keys(f"{OUT}/")


@pytest.mark.parametrize(
    ("key", "words"), [("", "is a whole bucket"), ("out/dt=2026-11-18", "is an object")]
)
def test_an_output_is_a_prefix(key: str, words: str, at: At, bucket: Bucket) -> None:
    """
    A bucket is too much, an object too little.
    """
    bucket.write(OUT, b"")

    with pytest.raises(OutputError, match=words):
        RemoteShelf(at(key)).prepare()


def test_an_output_folder_in_a_store(
    at: At, bucket: Bucket, stores: StoresTable, tmp_path: Path
) -> None:
    """
    Parts, a manifest beside them, `_SUCCESS` last; damage is seen and mended; all is taken down.
    """
    held = scene(tmp_path / "here", tmp_path / "state")
    points: list[str] = []
    folder = OutputFolder(at(OUT), held.state, lambda event: points.append(type(event).__name__))
    folder.prepare(begun=False)
    rows = [folder.publish(held.ledger, LAYOUT, SCHEMA, n, min(8 * n + 8, 20)) for n in range(3)]
    folder.write_manifest({"job": "test"}, rows)
    names = [part.file for part in rows]

    assert {f"{OUT}/{name}" for name in names} == set(bucket.keys(OUT))
    assert held.state.manifest.read_bytes() == bucket.read(
        "out/_batchrank/dt=2026-11-18/manifest.json"
    )
    assert not folder.has_success()
    folder.write_success()
    assert b"" == bucket.read(f"{OUT}/_SUCCESS")
    assert ["_SUCCESS", *names] == folder.visible()

    bucket.write(f"{OUT}/{names[1]}", b"damaged")
    bucket.delete(f"{OUT}/{names[2]}")
    assert [1, 2] == folder.damaged(rows)

    folder.withdraw_success()
    folder.remove_parts(keep=names[:1])
    assert names[:1] == folder.visible()

    RemoteShelf(at(OUT)).take_down(tmp_path / "aside")
    assert names[:1] == [path.name for path in (tmp_path / "aside").iterdir()]
    assert [] == folder.visible()


@pytest.mark.usefixtures("impatient")
def test_what_cannot_be_set_aside_stays(
    at: At, bucket: Bucket, faults: FaultProxy, tmp_path: Path
) -> None:
    """
    All of it: with another's folder in it, it would be refused again, and its state were gone.
    """
    bucket.write(PART, b"a part")
    bucket.write(f"{OUT}/else/where", b"")
    with pytest.raises(OutputError, match=r"else is another folder"):
        RemoteShelf(at(OUT)).take_down(tmp_path / "aside")
    bucket.delete(f"{OUT}/else/where")

    faults.arm(Fault.ACCESS_DENIED, "GET", re.escape(PART), times=1000)
    with pytest.raises(StorageError, match="cannot be set aside: AWS Error"):
        RemoteShelf(at(OUT)).take_down(tmp_path / "aside")

    assert b"a part" == bucket.read(PART)
    assert not (tmp_path / "aside").exists()


def test_an_output_without_its_bucket_is_refused(stores: StoresTable) -> None:
    """
    Before anything is paid.
    """
    with pytest.raises(OutputError, match="no such bucket"):
        RemoteShelf(Remote(parsed("s3://nobodys/out"), stores)).prepare()


def test_what_this_job_has_not_written_is_left_alone(
    at: At, bucket: Bucket, tmp_path: Path
) -> None:
    """
    As in a folder.
    """
    bucket.write(PART, b"somebody's")
    state = StateFolder(tmp_path / "state")
    state.prepare()

    with pytest.raises(OutputError, match="knows nothing of it"):
        OutputFolder(at(OUT), state, lambda _: None).prepare(begun=False)

    assert b"somebody's" == bucket.read(PART)
