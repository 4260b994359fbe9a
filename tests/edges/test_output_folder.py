"""
The output folder: what is seen in it at every moment, and what is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrank.domain import Outcome
from batchrank.errors import OutputError, StorageError
from batchrank.events import Event, ManifestWritten, PartMoment, SuccessWritten
from batchrank.store.ledger import Ledger, Records
from batchrank.store.output import OutputFolder, StateFolder, part_file, unfit
from batchrank.store.parts import Layout, schema_of
from batchrank.store.reading import PartRow
from tests.edges.ledgers import Held, begun, filled, ranked

HELD = Held([2] * 20)
LAYOUT = Layout(part_groups=8)
SCHEMA = schema_of(HELD.packed(0, 0)[2], LAYOUT)
POINTS = ["rendered", "verified", "synced", "renamed", "folder_synced"]


@dataclass
class Scene:
    """
    An output with its state, and a listener that looks into the folder at every moment.
    """

    output: Path
    state: StateFolder
    ledger: Ledger
    seen: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = OutputFolder(self.output, self.state, self.tell)
        self.state.prepare()

    def tell(self, event: Event) -> None:
        """
        Look.
        """
        name = event.point if isinstance(event, PartMoment) else event.name
        self.seen.append((name, sorted(path.name for path in self.output.iterdir())))

    def publish(self, number: int, through: int | None = None) -> PartRow:
        """
        Publish one part.
        """
        end = min(number * 8 + 8, 20) if through is None else through
        return self.folder.publish(self.ledger, LAYOUT, SCHEMA, number, end)


def scene(output: Path, state: Path) -> Scene:
    """
    An output of twenty groups, all of them ranked.
    """
    ledger = begun(None)
    ended: list[Outcome] = [ranked(p, [0.25, 0.5]) for p in range(20)]
    filled(ledger, HELD, ended)
    return Scene(output, StateFolder(state), ledger)


@pytest.fixture
def ready(tmp_path: Path) -> Scene:
    """
    The usual case: output and state on one disk, and the output prepared.
    """
    found = scene(tmp_path / "out", tmp_path / "state")
    found.folder.prepare(begun=False)
    return found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """
    A folder on another file system than the tests' own.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system to write to")
    folder = Path(tempfile.mkdtemp(dir=memory))
    yield folder
    shutil.rmtree(folder)


# --- publishing -----------------------------------------------------------------------------------


def test_a_part_gets_its_name_in_this_order(ready: Scene) -> None:
    """
    Nothing is seen before it was read back and synced; then the whole file, at once.
    """
    row = ready.publish(0)

    assert [(point, []) for point in POINTS[:3]] == ready.seen[:3]
    assert [(point, ["part-00000.parquet"]) for point in POINTS[3:]] == ready.seen[3:]
    assert [] == list(ready.state.staging.iterdir())
    assert PartRow(0, "part-00000.parquet", 8, 16, 8, row.sha256, stale=False) == row
    assert [] == ready.folder.damaged([row])


@pytest.mark.skipif(sys.platform == "darwin", reason="there F_FULLFSYNC is asked for instead")
def test_each_step_is_on_the_disk_before_the_next(
    ready: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A part's bytes before its name; its name, and that it is gone from aside, before anyone is told.
    """
    folders = {path.stat().st_ino: path.name for path in (ready.output, ready.state.staging)}
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        ready.seen.append((f"fsync of {folders.get(os.fstat(file).st_ino, 'the part')}", []))

    monkeypatch.setattr(os, "fsync", noted)

    ready.publish(0)

    assert [
        *("rendered", "verified", "fsync of the part", "synced", "renamed"),
        *("fsync of out", "fsync of staging", "folder_synced"),
    ] == [name for name, _ in ready.seen]


def test_a_part_that_reads_back_as_other_bytes_is_not_published(ready: Scene) -> None:
    """
    It is proved before it gets its name: one bit that a disk has turned is enough.
    """
    aside = ready.state.staging / "part-00000.parquet"

    def tell(event: Event) -> None:
        if isinstance(event, PartMoment) and event.point == "rendered":
            written = bytearray(aside.read_bytes())
            written[len(written) // 3] ^= 1
            aside.write_bytes(written)

    ready.folder = OutputFolder(ready.output, ready.state, tell)
    ready.folder.prepare(begun=True)

    with pytest.raises(StorageError, match="reads back as other bytes"):
        ready.publish(0)

    assert [] == ready.folder.visible()


def test_at_no_moment_is_anything_seen_but_parts_and_success(ready: Scene) -> None:
    """
    From the first part to `_SUCCESS`, rendering again included.
    """
    rows = [ready.publish(number) for number in (2, 0, 1, 0)]
    ready.folder.write_manifest({}, rows)
    ready.folder.write_success()

    assert all([] == unfit(names) for _, names in ready.seen)
    assert ["manifest.written", "success.written"] == [name for name, _ in ready.seen[-2:]]
    assert "_SUCCESS" not in ready.seen[-2][1]
    assert ["_SUCCESS", *(part_file(n) for n in range(3))] == ready.seen[-1][1]


def test_publishing_again_replaces_the_part_at_once(ready: Scene) -> None:
    """
    Readers see the old part or the new one; here both are the same bytes.
    """
    first = ready.publish(1)
    path = ready.output / first.file
    path.write_bytes(b"damaged")
    assert [1] == ready.folder.damaged([first])

    assert first == ready.publish(1)
    assert [] == ready.folder.damaged([first])


def test_a_part_may_be_published_as_far_as_it_goes(ready: Scene) -> None:
    """
    With `--limit` the last part ends where the run does.
    """
    row = ready.publish(1, through=11)

    assert (11, 3, 6) == (row.through, row.groups, row.rows)
    assert 6 == pq.read_metadata(ready.output / row.file).num_rows


def test_a_part_of_a_pruned_ledger_is_not_rendered(ready: Scene) -> None:
    """
    What is there stays: nothing is replaced by less.
    """
    before = ready.publish(0)
    ready.ledger.prune()

    with pytest.raises(StorageError, match="the ledger lacks 8 of its groups") as refused:
        ready.publish(0)

    assert "pruned" in refused.value.hint
    assert [] == ready.folder.damaged([before])


def test_a_full_disk_leaves_the_old_part_and_no_rest(ready: Scene) -> None:
    """
    What was half written is not left in the way of the ledger.
    """
    before = ready.publish(0)
    aside = ready.state.staging / "part-00000.parquet"
    aside.symlink_to("/dev/full")

    with pytest.raises(StorageError, match=r"cannot write part-00000\.parquet") as full:
        ready.publish(0)

    assert full.value.out_of_space
    assert not aside.is_symlink()
    assert [] == ready.folder.damaged([before])


def test_nothing_is_published_before_the_folder_is_prepared(tmp_path: Path) -> None:
    """
    Whoever forgets it is told.
    """
    with pytest.raises(AssertionError, match="prepare"):
        scene(tmp_path / "out", tmp_path / "state").publish(0)


def test_a_listener_that_fails_is_not_taken_for_the_disk(ready: Scene) -> None:
    """
    Only errors of the system are errors of the disk.
    """

    def tell(event: Event) -> None:
        raise ValueError("a bug")

    ready.folder = OutputFolder(ready.output, ready.state, tell)
    ready.folder.prepare(begun=True)

    with pytest.raises(ValueError, match="a bug"):
        ready.publish(0)


# --- where parts are written aside ----------------------------------------------------------------


def test_on_one_disk_parts_are_written_in_the_state_folder(ready: Scene, tmp_path: Path) -> None:
    """
    Nothing appears beside the output.
    """
    ready.publish(0)

    assert ["out", "state"] == sorted(path.name for path in tmp_path.iterdir())


def test_on_another_disk_parts_are_written_beside_the_output(
    elsewhere: Path, tmp_path: Path
) -> None:
    """
    In a hidden folder, on the output's own file system, from which a part can be renamed.
    """
    found = scene(elsewhere / "out", tmp_path / "state")
    found.folder.prepare(begun=False)

    row = found.publish(0)

    assert [".out.batchrank", "out"] == sorted(path.name for path in elsewhere.iterdir())
    assert [] == list((elsewhere / ".out.batchrank").iterdir())
    assert [] == found.folder.damaged([row])
    assert all([] == unfit(names) for _, names in found.seen)


MOUNTED = """
import sys
from pathlib import Path
from batchrank.errors import OutputError
from batchrank.store.output import OutputFolder, StateFolder

state = StateFolder(Path(sys.argv[1]) / "state")
state.prepare()
try:
    OutputFolder(Path(sys.argv[1]) / "mounted", state, print).prepare(begun=False)
except OutputError as error:
    print(error)
"""


def test_a_mount_point_itself_cannot_be_an_output(tmp_path: Path) -> None:
    """
    Nothing can be renamed into it from outside; a folder below it can be one.
    """
    (tmp_path / "mounted").mkdir()
    inside = 'mount -t tmpfs none "$2/mounted" && exec "$0" -c "$1" "$2"'
    command = ["unshare", "-rm", "sh", "-c", inside, sys.executable, MOUNTED, str(tmp_path)]
    if shutil.which("unshare") is None:
        pytest.skip("this machine has no unshare, with which to mount something")

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    if done.returncode and not done.stdout and "Traceback" not in done.stderr:
        pytest.skip(f"this machine does not let us mount anything: {done.stderr.strip()}")
    assert "mounted is a mount point" in done.stdout
    assert "name a folder below it as output.path" in done.stdout


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["part-00000.parquet", "notes.txt", "_SUCCESS", "sub"])
def test_a_folder_that_holds_something_is_no_new_output(tmp_path: Path, name: str) -> None:
    """
    What this job has not written is not mixed with what it will write; nothing is touched.
    """
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"x")
    found = scene(tmp_path / "out", tmp_path / "state")

    with pytest.raises(OutputError, match=f"holds {name}, and this job's state") as refused:
        found.folder.prepare(begun=False)

    assert "--restart" in refused.value.hint
    assert b"x" == (tmp_path / "out" / name).read_bytes()
    found.folder.prepare(begun=True)


def test_hidden_files_are_in_nobodys_way(tmp_path: Path) -> None:
    """
    Readers skip what begins with a dot, and so do we.
    """
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()

    scene(tmp_path / "out", tmp_path / "state").folder.prepare(begun=False)


def test_the_state_folder_is_for_its_owner_only(ready: Scene) -> None:
    """
    Ids and messages of other people's documents stand in it.
    """
    assert 0o700 == ready.state.path.stat().st_mode & 0o777
    assert 0o700 == ready.state.staging.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["part-00000.parquet", "_SUCCESS", "part-123456.parquet"], []),
        (["part-0.parquet", "part-00000.parquet.tmp", "_success", "a"],
         ["part-0.parquet", "part-00000.parquet.tmp", "_success", "a"]),
    ],
)  # fmt: skip
def test_what_has_no_business_there_is_named(names: list[str], expected: list[str]) -> None:
    """
    Parts and `_SUCCESS`, nothing else.
    """
    assert expected == unfit(names)


def test_numbers_beyond_five_digits_are_names_too() -> None:
    """
    A billion groups are a hundred thousand parts.
    """
    assert "part-00007.parquet" == part_file(7)
    assert "part-100000.parquet" == part_file(100_000)


# --- the end --------------------------------------------------------------------------------------


def test_success_is_empty_and_written_once(ready: Scene) -> None:
    """
    Writing it again is telling it again; it can be withdrawn, and that twice as well.
    """
    assert not ready.folder.has_success()
    for _ in range(2):
        ready.folder.write_success()
        assert b"" == (ready.output / "_SUCCESS").read_bytes()
    assert ["success.written"] * 2 == [name for name, _ in ready.seen]
    for _ in range(2):
        ready.folder.withdraw_success()
        assert not ready.folder.has_success()


def test_parts_of_another_layout_are_removed_and_foreign_files_stay(ready: Scene) -> None:
    """
    Only what is named like a part, and not what is kept.
    """
    for number in range(3):
        ready.publish(number)
    for name in ("part-7.parquet", "notes.txt", ".hidden", "part-00000.parquet.bak"):
        (ready.output / name).touch()

    ready.folder.remove_parts(keep=["part-00001.parquet"])

    assert [
        ".hidden",
        "notes.txt",
        "part-00000.parquet.bak",
        "part-00001.parquet",
        "part-7.parquet",
    ] == sorted(path.name for path in ready.output.iterdir())


def test_a_manifest_lists_the_parts(ready: Scene) -> None:
    """
    With what the output consists of; it lies in the state folder.
    """
    rows = [ready.publish(number) for number in range(3)]

    ready.folder.write_manifest({"job": "nightly", "labels": {"team": "Süd"}}, rows)

    found: dict[str, Any] = json.loads(ready.state.manifest.read_text("utf-8"))
    assert ("nightly", {"team": "Süd"}) == (found["job"], found["labels"])
    assert [(r.file, r.rows, r.groups, r.sha256) for r in rows] == [
        (p["file"], p["rows"], p["groups"], p["sha256"]) for p in found["parts"]
    ]


@pytest.mark.parametrize(
    ("before", "same"),
    [
        pytest.param(lambda path: None, True, id="the same"),
        pytest.param(lambda path: path.write_text("{}"), False, id="another"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), False, id="nonsense"),
        pytest.param(lambda path: path.unlink(), False, id="none"),
    ],
)
def test_a_manifest_is_written_only_if_it_changed(
    ready: Scene, before: Callable[[Path], object], same: bool
) -> None:
    """
    Running a finished job again changes no byte and no time.
    """
    ready.folder.write_manifest({"job": "nightly"}, [])
    content = ready.state.manifest.read_bytes()
    (kept := ready.state.path / "kept").hardlink_to(ready.state.manifest)
    before(ready.state.manifest)

    ready.folder.write_manifest({"job": "nightly"}, [])

    assert content == ready.state.manifest.read_bytes()
    assert same is kept.samefile(ready.state.manifest)
    assert [ManifestWritten.name] * 2 == [name for name, _ in ready.seen]


def test_events_of_the_end_are_told_by_name() -> None:
    """
    The order manifest, then `_SUCCESS` is what others wait for.
    """
    assert ("manifest.written", "success.written") == (ManifestWritten.name, SuccessWritten.name)


def test_a_part_that_is_missing_is_damaged(ready: Scene) -> None:
    """
    As is one that cannot be read.
    """
    rows = [ready.publish(number) for number in range(3)]
    (ready.output / rows[0].file).unlink()
    (ready.output / rows[1].file).unlink()
    (ready.output / rows[1].file).mkdir()

    assert [0, 1] == ready.folder.damaged(rows)


def test_records_of_a_part_make_it_done(ready: Scene) -> None:
    """
    What `publish` returns is what the ledger is to be told.
    """
    row = ready.publish(0)

    ready.ledger.commit(Records(parts=[row]))

    assert [row] == ready.ledger.parts()
