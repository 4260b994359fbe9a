"""
Objects that answer as paths do: their names, without any store.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.places.remote import Place, Remote, in_words, is_within, placed
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


def test_no_message_holds_what_opens_a_store() -> None:
    """
    Azure's client tells the address that it asked, token and all.
    """
    error = OSError(
        "GetProperties for 'https://acct.blob.core.windows.net/box/x?sv=2022-11-02&sig=s3cr%2Ft%3D"
        "&se=2027' failed. Azure Error: [] Fail to get a new connection\nand more"
    )

    told = in_words(error)

    assert "s3cr" not in str(told)
    assert "sig=***&se=2027' failed. Azure Error" in str(told)
    assert told.outage


@pytest.mark.parametrize(
    ("text", "outage"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", False),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", False),
        ("AWS Error SLOW_DOWN during GetObject operation", True),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 52", True),
    ],
)
def test_an_outage_is_told_from_a_wrong_setting(text: str, *, outage: bool) -> None:
    """
    The one heals by itself, the other takes a person.
    """
    assert outage is in_words(OSError(text)).outage
