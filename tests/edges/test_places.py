"""
Objects that answer as paths do: their names, without any store.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.places.remote import Place, Remote, is_within, placed
from batchrank.places.uri import Uri, parsed
from tests.laws import law

NAME = st.text(st.characters(codec="ascii", min_codepoint=33, blacklist_characters="/"), min_size=1)
NAMES = st.lists(NAME.filter(lambda name: name.strip(".")), min_size=1, max_size=5)


def at(*names: str) -> Remote:
    """
    A place in a bucket.
    """
    return Remote(Uri("s3", "lake", "/".join(names)))


@law(100)
@given(NAMES, NAMES)
def test_names_are_those_of_a_posix_path(above: list[str], below: list[str]) -> None:
    """
    Of one whose root is the bucket.
    """
    place, path = at(*above).joinpath(*below), PurePosixPath("/", *above, *below)

    assert f"s3://lake{path}" == str(place)
    assert (path.name, path.suffix) == (place.name, place.suffix)
    assert f"s3://lake{path.parent}" == str(place.parent)
    assert [f"s3://lake{each}" for each in path.parents] == list(map(str, place.parents))
    assert f"s3://lake{path.with_name('other')}" == str(place.with_name("other"))
    assert place.is_relative_to(at(*above))
    assert not at(*above).is_relative_to(place)


def test_a_bucket_is_its_own_parent() -> None:
    """
    As the root of a disk is, so that whoever climbs comes to an end.
    """
    bucket = Remote(parsed("s3://lake"))

    assert bucket == bucket.parent
    assert () == bucket.parents
    assert ("lake", "") == (bucket.name, bucket.suffix)


@pytest.mark.parametrize(
    ("place", "folder", "within"),
    [
        (at("a", "b"), at("a"), True),
        (at("a"), at("a"), True),
        (at("ab"), at("a"), False),
        (Remote(Uri("s3", "other", "a/b")), at("a"), False),
        (Remote(Uri("gs", "lake", "a/b")), at("a"), False),
        (Path("/a/b"), at("a"), False),
        (at("a"), Path("/a"), False),
        (Path("/a/b"), Path("/a"), True),
    ],
)
def test_what_lies_in_what(place: Place, folder: Place, *, within: bool) -> None:
    """
    Nothing in a store lies in a folder of this machine, nor the other way round.
    """
    assert within is is_within(place, folder)


def test_a_path_of_this_machine_starts_at_the_base() -> None:
    """
    An address starts nowhere.
    """
    base = Path("/jobs")

    assert Path("/jobs/out") == placed(base, "out")
    assert Path("/out") == placed(base, "/out")
    assert at("out") == placed(base, "s3://lake/out")
