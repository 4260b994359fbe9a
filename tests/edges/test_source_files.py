"""
A path names files; "not there yet" and "wrong" are told apart by a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from batchrank.domain import SourceFile
from batchrank.errors import BatchrankError, NotReady, SourceError
from batchrank.source.files import differences, find, relative


def grow(base: Path, names: Sequence[str]) -> None:
    """
    Make files, and folders where a name ends with a slash.
    """
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()


def found(base: Path, path: str, *, require_success: bool = False) -> list[str]:
    """
    The source's files by their relative paths.
    """
    return [relative(file, base) for file in find(path, base, require_success=require_success)]


@pytest.mark.parametrize(
    ("there", "path", "files"),
    [
        pytest.param(["a.parquet"], "a.parquet", ["a.parquet"], id="a file"),
        pytest.param(["_a"], "_a", ["_a"], id="a file that is named may be called anything"),
        pytest.param(
            ["d/b.parquet", "d/a.parquet", "d/x/c.parquet", "d/readme.txt"],
            "d",
            ["d/a.parquet", "d/b.parquet", "d/x/c.parquet"],
            id="a folder and all below it, sorted",
        ),
        pytest.param(
            ["d/10.parquet", "d/9.parquet", "d/9/z.parquet", "d/É.parquet"],
            "d",
            ["d/10.parquet", "d/9.parquet", "d/9/z.parquet", "d/É.parquet"],
            id="the order is that of the paths' letters",
        ),
        pytest.param(
            ["d/_x.parquet", "d/.x.parquet", "d/_old/a.parquet", "d/.git/a.parquet", "d/a.parquet"],
            "d",
            ["d/a.parquet"],
            id="names that start with _ or . are left out",
        ),
        pytest.param(
            ["d/out.parquet/part-0.parquet", "d/out.parquet/_SUCCESS"],
            "d",
            ["d/out.parquet/part-0.parquet"],
            id="a folder that is called like a file",
        ),
        pytest.param(
            ["d/a.parquet", "d/b.pq", "d/x/a.parquet"],
            "d/*.parquet",
            ["d/a.parquet"],
            id="a glob takes one level",
        ),
        pytest.param(["d/a.pq", "d/b.txt"], "d/*.pq", ["d/a.pq"], id="a glob takes any suffix"),
        pytest.param(
            ["d/a.parquet", "d/x/y/a.parquet", "d/_x/a.parquet"],
            "d/**/a.parquet",
            ["d/a.parquet", "d/x/y/a.parquet"],
            id="two stars take all levels, and none",
        ),
        pytest.param(
            ["d/a.parquet", "d/x/b.parquet", "d/c.txt"],
            "d/**",
            ["d/a.parquet", "d/x/b.parquet"],
            id="two stars at the end are a folder",
        ),
        pytest.param(
            ["d/a.parquet", "d/x/y/a.parquet"],
            "**/**/*.parquet",
            ["d/a.parquet", "d/x/y/a.parquet"],
            id="no file is taken twice",
        ),
        pytest.param(
            ["d/dt=1/a.parquet", "d/dt=2/x/b.parquet", "d/dt=31/c.parquet"],
            "d/dt=?",
            ["d/dt=1/a.parquet", "d/dt=2/x/b.parquet"],
            id="folders that match stand for what is below them",
        ),
        pytest.param(
            ["d/[1].parquet", "d/1.parquet"],
            "d/[1].parquet",
            ["d/[1].parquet"],
            id="a name that exists is not a glob",
        ),
        pytest.param(
            ["d/[1].parquet", "d/1.parquet", "d/2.parquet"],
            "d/[!2].parquet",
            ["d/1.parquet"],
            id="a set of letters",
        ),
        pytest.param(
            ["x/y/a.parquet"], "x/y/../y/*.parquet", ["x/y/a.parquet"], id="dots are worked out"
        ),
        pytest.param(
            ["d/_SUCCESS"], "d", [], id="a folder that is finished and empty holds no groups"
        ),
        pytest.param(["d/_SUCCESS"], "d/*.parquet", [], id="a glob into such a folder neither"),
        pytest.param(
            ["a.parquet", "_temporary/"], "a.parquet", ["a.parquet"], id="a file that is there is"
        ),
    ],
)
def test_a_path_names_files(tmp_path: Path, there: list[str], path: str, files: list[str]) -> None:
    """
    A file, a folder or a glob, in an order that never changes.
    """
    grow(tmp_path, there)

    assert files == found(tmp_path, path)


@pytest.mark.parametrize(
    ("there", "path", "files"),
    [
        pytest.param(["d/a.parquet", "d/_SUCCESS"], "d", ["d/a.parquet"], id="beside the files"),
        pytest.param(
            ["d/p=1/a.parquet", "d/_SUCCESS"], "d", ["d/p=1/a.parquet"], id="above the files"
        ),
        pytest.param(
            ["d/1/a.parquet", "d/1/_SUCCESS", "d/2/b.parquet", "d/2/_SUCCESS"],
            "d/*/*.parquet",
            ["d/1/a.parquet", "d/2/b.parquet"],
            id="in each folder of a glob",
        ),
        pytest.param(
            ["d/a.parquet", "d/_SUCCESS"], "d/a.parquet", ["d/a.parquet"], id="beside one file"
        ),
        pytest.param(["d/_SUCCESS"], "d", [], id="alone"),
    ],
)
def test_success_is_found(tmp_path: Path, there: list[str], path: str, files: list[str]) -> None:
    """
    With `require_success` the marker stands in the files' folder, or above up to the root.
    """
    grow(tmp_path, there)

    assert files == found(tmp_path, path, require_success=True)


NOT_READY, WRONG = NotReady, SourceError


@pytest.mark.parametrize(
    ("there", "path", "require_success", "error", "words"),
    [
        pytest.param(
            ["d/_temporary/", "d/a.parquet"], "d", False, NOT_READY, "d/_temporary/",
            id="a folder that Spark is filling",
        ),
        pytest.param(
            ["d/_temporary/", "d/_SUCCESS"], "d", True, NOT_READY, "d/_temporary/",
            id="and although it succeeded before",
        ),
        pytest.param(
            ["d/1/_temporary/", "d/2/a.parquet"], "d/*/*.parquet", False, NOT_READY,
            "d/1/_temporary/", id="one folder of a glob",
        ),
        pytest.param(
            ["d/p=1/_temporary/", "d/p=2/a.parquet"], "d", False, NOT_READY,
            "d/p=1/_temporary/", id="one folder below a folder",
        ),
        pytest.param(
            ["d/_temporary/"], "d/a.parquet", False, NOT_READY, "_temporary",
            id="a file that is missing there",
        ),
        pytest.param(
            ["d/a.parquet"], "d", True, NOT_READY, "d holds no _SUCCESS",
            id="no success in the folder",
        ),
        pytest.param(
            ["d/1/a.parquet", "d/1/_SUCCESS", "d/2/b.parquet"], "d/*/*.parquet", True, NOT_READY,
            "d/2 holds no _SUCCESS", id="no success in one folder of a glob",
        ),
        pytest.param(
            ["d/a.parquet"], "d/a.parquet", True, NOT_READY, "d holds no _SUCCESS",
            id="no success beside one file",
        ),
        pytest.param(
            ["_SUCCESS", "d/a.parquet"], "d", True, NOT_READY, "d holds no _SUCCESS",
            id="success above the root is not meant",
        ),
        pytest.param(
            ["data/x"], "d", True, NOT_READY, "d is not there yet", id="no folder, success required"
        ),
        pytest.param(
            [], "d/a.parquet", True, NOT_READY, "d is not there yet",
            id="no folder for a file, success required",
        ),
        pytest.param(
            [], "d/*.parquet", True, NOT_READY, "d is not there yet",
            id="no folder for a glob, success required",
        ),
        pytest.param(
            ["data/x"], "date", True, NOT_READY, "and in it data",
            id="a folder that is perhaps spelt otherwise",
        ),
        pytest.param(["d/"], "d", False, NOT_READY, "d is still empty", id="an empty folder"),
        pytest.param(
            ["d/.crc", "d/_log", "d/x/"], "d", False, NOT_READY, "d is still empty",
            id="a folder without anything visible",
        ),
        pytest.param(
            ["d/"], "d/*.parquet", False, NOT_READY, "d is still empty", id="a glob into it"
        ),
        pytest.param(
            ["d/"], "d/a.parquet", False, NOT_READY, "d is still empty", id="a file in it"
        ),
        pytest.param(
            ["data/x"], "date/a.parquet", False, WRONG, "and in it data", id="no folder for a file"
        ),
        pytest.param(["data/x"], "date", False, WRONG, "and in it data", id="no folder"),
        pytest.param(
            ["data/x"], "data/d/*.parquet", False, WRONG, "data is there, but no d",
            id="no folder for a glob",
        ),
        pytest.param(
            ["d/groups.parquet"], "d/group.parquet", False, WRONG, "and in it groups.parquet",
            id="no file of that name",
        ),
        pytest.param(
            ["d/_SUCCESS"], "d/a.parquet", False, WRONG, "there is no d/a.parquet",
            id="upstream has finished without that file",
        ),
        pytest.param(
            ["d/_SUCCESS", "d/a.csv"], "d", True, WRONG, "d/a.csv",
            id="upstream has finished with other files",
        ),
        pytest.param(["d/a.csv"], "d", False, WRONG, "d/a.csv", id="other files only"),
        pytest.param(
            ["d/x/a.parquet"], "d/*.parq", False, WRONG, "d/x/a.parquet",
            id="a glob that matches nothing",
        ),
        pytest.param(
            ["a.parquet"], "a.parquet/*.parquet", False, WRONG, "a.parquet", id="below a file"
        ),
        pytest.param(
            ["t/_delta_log/", "t/a.parquet"], "t", False, WRONG, "Delta Lake", id="a Delta table"
        ),
        pytest.param(
            ["t/metadata/v1.metadata.json", "t/data/a.parquet"], "t", False, WRONG, "Iceberg",
            id="an Iceberg table",
        ),
        pytest.param(
            [], "hdfs://host/d", False, WRONG, "no store that is known", id="an unknown store"
        ),
        pytest.param(["x"], "a" * 5000, False, WRONG, "a", id="a name that is too long"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_late_or_wrong(
    tmp_path: Path,
    there: list[str],
    path: str,
    require_success: bool,
    error: type[BatchrankError],
    words: str,
) -> None:
    """
    Late is told where something says that it will come; what is told names what is there.
    """
    grow(tmp_path, there)

    with pytest.raises(error) as raised:
        found(tmp_path, path, require_success=require_success)

    assert error is type(raised.value)
    assert words in str(raised.value)


def test_a_table_of_a_lake_may_be_read_by_naming_its_files(tmp_path: Path) -> None:
    """
    A glob says that every file is meant.
    """
    grow(tmp_path, ["t/_delta_log/", "t/a.parquet"])

    assert ["t/a.parquet"] == found(tmp_path, "t/*.parquet")


def test_links_to_folders_are_followed_where_they_are_named(tmp_path: Path) -> None:
    """
    `latest -> 2026-11-20` beside its target does not make groups twice, and can be a source.
    """
    grow(tmp_path, ["d/2026-11-20/a.parquet"])
    (tmp_path / "d/latest").symlink_to("2026-11-20")
    (tmp_path / "d/2026-11-20/round").symlink_to("..")

    assert ["d/2026-11-20/a.parquet"] == found(tmp_path, "d")
    assert ["d/latest/a.parquet"] == found(tmp_path, "d/latest")
    assert ["d/2026-11-20/a.parquet"] == found(tmp_path, "d/**/*.parquet")


def test_paths_are_relative_to_the_job_file(tmp_path: Path) -> None:
    """
    A source outside the job's folder, or named in full, is told by the way from that folder.
    """
    grow(tmp_path, ["jobs/", "data/a.parquet"])

    assert ["../data/a.parquet"] == found(tmp_path / "jobs", "../data")
    assert ["../data/a.parquet"] == found(tmp_path / "jobs", str(tmp_path / "data/*.parquet"))


BEFORE = SourceFile("d/b.parquet", 100, "aa", (10, 5))


@pytest.mark.parametrize(
    ("now", "accepted", "sentences"),
    [
        pytest.param([BEFORE], [], [], id="the same"),
        pytest.param([], [], ["d/b.parquet is missing"], id="missing"),
        pytest.param([], ["d/b.parquet"], ["d/b.parquet is missing"], id="missing, accepted"),
        pytest.param(
            [BEFORE, replace(BEFORE, path="d/c.parquet")],
            ["d/c.parquet"],
            ["d/c.parquet is new"],
            id="new, accepted",
        ),
        pytest.param(
            [replace(BEFORE, path="d/a.parquet")],
            [],
            ["d/a.parquet is new", "d/b.parquet is missing"],
            id="renamed",
        ),
        pytest.param(
            [replace(BEFORE, size_bytes=99)],
            [],
            ["d/b.parquet changed: it had 100 bytes and has 99"],
            id="another size",
        ),
        pytest.param(
            [replace(BEFORE, footer_sha256="bb")],
            ["d/c.parquet"],
            ["d/b.parquet changed: its footer is another"],
            id="another footer, and another file accepted",
        ),
        pytest.param(
            [replace(BEFORE, size_bytes=99, footer_sha256="bb")],
            ["d/b.parquet"],
            [],
            id="mended and accepted",
        ),
        pytest.param(
            [SourceFile("d/b.parquet", 99, "bb", (15,))],
            ["d/b.parquet"],
            [
                (
                    "d/b.parquet changed: it had 100 bytes and has 99; its footer is another; it "
                    "had 2 row groups and has 1, so that --accept is not possible"
                )
            ],
            id="cut otherwise: cannot be accepted",
        ),
        pytest.param(
            [replace(BEFORE, footer_sha256="bb", row_groups=(5, 10))],
            ["d/b.parquet"],
            [
                (
                    "d/b.parquet changed: its footer is another; its row group 0 (counted from 0) "
                    "had 10 rows and has 5, so that --accept is not possible"
                )
            ],
            id="as many rows in other row groups",
        ),
    ],
)
def test_differences_are_told_in_sentences(
    now: list[SourceFile], accepted: list[str], sentences: list[str]
) -> None:
    """
    Every file that is not what the output began with is named, unless it may be accepted.
    """
    assert sentences == differences([BEFORE], now, accepted)
