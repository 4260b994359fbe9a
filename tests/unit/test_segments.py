"""
Values of variables in paths: each is one folder's name, whatever it is, and comes back from it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config.segments import SEGMENT_BYTES_MAX, escaped, path_of
from tests.laws import law
from tests.unit.test_config import SMALL, problems, read

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
HOSTILE = st.one_of(
    TEXTS, st.lists(st.sampled_from(["..", ".", "/", "\\", "%2F", "=", "*", "a"])).map("".join)
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("2026-11-20", "2026-11-20"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a=b", "a%3Db"),
        ("12:30", "12%3A30"),
        ("a*?[b]", "a%2A%3F%5Bb%5D"),
        ("a\\b{c}^#'\"", "a%5Cb%7Bc}%5E%23%27%22"),
        ("a\nb\x7f", "a%0Ab%7F"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a.b..c", "a.b..c"),
        ("Zürich 日本", "Zürich 日本"),
    ],
)
def test_a_value_is_written_as_hive_writes_a_partition(value: str, name: str) -> None:
    """
    And a dot that the name would begin with, too: hidden folders are read by nobody.
    """
    assert name == escaped(value)


@pytest.mark.parametrize(
    ("text", "value", "path"),
    [
        pytest.param("out/dt={a}", "../../x", "out/dt=..%2F..%2Fx", id="in a partition"),
        pytest.param("out/{a}/x", "..", "out/%2E./x", id="a whole name"),
        pytest.param("out/.{a}", ".", "out/.%2E", id="the second dot"),
        pytest.param("out/dt={a}", ".x", "out/dt=.x", id="no dot that a name begins with"),
        pytest.param("{a}/dt=1", "../b/*.parquet", "../b/*.parquet/dt=1", id="a path of its own"),
        pytest.param("{a}/dt=1", "/srv/x/", "/srv/x//dt=1", id="from the root"),
        pytest.param("{a}", "..", "..", id="nothing else"),
        pytest.param("{a}-{a}", "b/c", "b/c-b%2Fc", id="once a path, once a name"),
        pytest.param("s3://bucket/{a}", "b/c", "s3://bucket/b%2Fc", id="in a bucket"),
        pytest.param("out/x{a}", "", "out/x", id="nothing behind something"),
    ],
)
def test_a_value_in_a_path_is_part_of_one_name(text: str, value: str, path: str) -> None:
    """
    Unless the path begins with it: then it says where that is.
    """
    job = SMALL.replace('"out"', f'"{text}"') + '[variables]\na = "b"'

    assert path == read(job, {"a": value}).output.path


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("out/{a}", "", "a folder would have no name"),
        ("out/dt={a}/x", "", "a folder would have no name"),
        ("{a}/x", "", "a folder would have no name"),
        ("out/{a}..", "", "a folder would have no name"),
        ("out/dt={a}", "x" * 198, "a folder's name would have 201 bytes"),
        ("out/dt={a}", "/" * 66, "a folder's name would have 201 bytes"),
        ("out/dt={a}", "ü" * 99, "a folder's name would have 201 bytes"),
        ("out/dt={a}", "a\0b", "holds a zero character"),
    ],
)
def test_a_name_that_no_folder_can_have_is_refused(text: str, value: str, message: str) -> None:
    """
    With the line of the setting, before anything is made.
    """
    job = SMALL.replace('"out"', f'"{text}"') + '[variables]\na = "b"'

    [found] = problems(job, {"a": value})

    assert (6, "output.path") == (found.line, found.key)
    assert message in found.message


@given(st.lists(HOSTILE, min_size=1, max_size=3))
@law(120)
def test_no_value_leaves_the_folder_or_is_taken_for_another(values: list[str]) -> None:
    """
    As many folders as the path has, each named by its value alone, which comes back as it was.
    """
    pieces = [piece for value in values for piece in (("/k=", False), (value, True))]
    try:
        path = path_of([("out", False), *pieces])
    except ValueError:
        assert "" in values or any(len(v.encode()) * 3 > SEGMENT_BYTES_MAX - 3 for v in values)
        return

    names = PurePosixPath(path).parts
    assert normpath(path) == path
    assert ["out", *(f"k={value}" for value in values)] == [unquote(name) for name in names]


@given(HOSTILE)
@law(120)
def test_a_whole_name_is_never_a_step_up(value: str) -> None:
    """
    Nor hidden, nor two names, nor none.
    """
    name = escaped(value)

    assert not name.startswith(".")
    assert "/" not in name
    assert value == unquote(name)


def test_outside_of_paths_values_are_as_they_are() -> None:
    """
    An address is no path, a label neither.
    """
    text = (
        SMALL.replace("[output]", 'base_url = "https://{a}"\n[output]')
        + '[variables]\na = "h/api/v1"\n[labels]\nb = "x/{a}"'
    )

    job = read(text)

    assert ("https://h/api/v1", {"b": "x/h/api/v1"}) == (job.provider.base_url, job.labels)
