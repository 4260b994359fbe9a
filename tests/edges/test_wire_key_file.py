"""
A key in a file: ours alone, regular, and one line.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.errors import JobError
from batchrank.wire.auth import key_from_file
from tests.laws import law


def written(path: Path, content: bytes = b"sk-canary\n", mode: int = 0o600) -> Path:
    """
    A file at *path*.
    """
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(path: str | Path, base: str | Path = "") -> str:
    """
    What is said of the file; never a part of the key.
    """
    with pytest.raises(JobError) as refused:
        key_from_file(path, base)
    [problem] = refused.value.problems

    assert problem.key == "provider.key_file"
    assert "canary" not in str(refused.value)
    return f"{problem.message} ({problem.remedy})"


@pytest.mark.parametrize("mode", [0o600, 0o400])
@pytest.mark.parametrize("content", [b"sk-canary", b"sk-canary\n", b"sk-canary\r\n"])
def test_a_file_of_ones_own_is_read(tmp_path: Path, mode: int, content: bytes) -> None:
    """
    One newline at its end is the editor's.
    """
    path = written(tmp_path / "key", content, mode)

    assert key_from_file(path).reveal() == "sk-canary"
    assert key_from_file(str(path)).reveal() == "sk-canary"


def test_a_link_to_such_a_file_is_followed(tmp_path: Path) -> None:
    """
    That is how secrets are mounted; the file itself is what counts.
    """
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path / "key"))

    assert key_from_file(link).reveal() == "sk-canary"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o611, 0o777])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """
    With the command that closes it.
    """
    path = written(tmp_path / "key", mode=mode)

    assert f"{path} is open to others ({mode:04o}) (chmod 600 {path})" == refusal(path)


@pytest.mark.parametrize("mode", [0o700, 0o500, 0o200, 0o4600])
def test_a_file_of_any_other_mode_is_refused(tmp_path: Path, mode: int) -> None:
    """
    A key is read, by its owner, and nothing else; what else is allowed was not meant.
    """
    path = written(tmp_path / "key", mode=mode)
    if os.geteuid() != 0 and not mode & 0o400:
        assert "cannot be opened" in refusal(path)
    else:
        assert f"{path} has mode {mode:04o}, expected 0400 or 0600 (chmod 600 {path})" == refusal(
            path
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """
    Who could change it could send our requests elsewhere.
    """
    path = written(tmp_path / "key")
    os.chown(path, 12_345, -1)

    assert "belongs to somebody else" in refusal(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n", "is empty", id="a newline"),
        pytest.param(b"sk-canary\n\n", "a second line", id="two newlines"),
        pytest.param(b"sk-canary \n", "a space", id="a space at the end"),
        pytest.param(b"KEY=sk-canary\nOTHER=x\n", "a space", id="several lines"),
        pytest.param(b"\xef\xbb\xbfsk-canary", "another character", id="a byte order mark"),
        pytest.param(b"\xff\xfes\x00k\x00", "not text", id="UTF-16"),
        pytest.param(b"k" * 1_000_000, "too large", id="another file"),
    ],
)
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    """
    Nothing is guessed, and nothing of the content is shown.
    """
    assert problem in refusal(written(tmp_path / "key", content))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """
    A FIFO would be waited for, a device read for ever.
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    assert "not a regular file" in refusal(fifo)
    assert "not a regular file" in refusal(tmp_path)
    assert "not a regular file" in refusal("/dev/zero")


def test_a_path_starts_from_the_job_files_folder(tmp_path: Path) -> None:
    """
    Wherever the command is run; one that is whole stays as it is.
    """
    (tmp_path / "keys").mkdir()
    path = written(tmp_path / "keys" / "one")

    assert key_from_file("keys/one", tmp_path).reveal() == "sk-canary"
    assert key_from_file(path, "/nowhere").reveal() == "sk-canary"


@pytest.mark.parametrize(
    "path",
    ["keys/one", "../one", "one.key", "~nobody-of-this-name/one", "secrets-2026/openrouter"],
)
def test_a_path_that_leads_nowhere_is_told_as_it_was_meant(tmp_path: Path, path: str) -> None:
    """
    With the job file's folder in front, which is what people forget.
    """
    told = f"{tmp_path}/{path} cannot be opened: No such file or directory"

    assert refusal(path, tmp_path).startswith(told)


def test_a_name_that_could_be_a_key_is_told_by_where_it_was_looked_for(tmp_path: Path) -> None:
    """
    The folder alone says enough.
    """
    told = refusal("kk", tmp_path)

    assert "kk" not in told.replace(str(tmp_path), "")
    assert told.startswith("that file cannot be opened: No such file or directory (")
    assert f"the path of a file with the key, as seen from {tmp_path})" in told


@pytest.mark.parametrize(
    "key",
    [
        "sk-canary/0123",
        "Bearer canary/x",
        "keys/sk-or-v1-canary",
        "canary0123456789abcdef.json",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYcanaryKEY0",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.canary",
        "canary/with\x1bescape",
    ],
)
def test_a_key_with_a_slash_or_a_dot_is_not_taken_for_a_path(tmp_path: Path, key: str) -> None:
    """
    Not a letter of it is repeated.
    """
    assert refusal(key, tmp_path).startswith("that file cannot be opened: ")


@law(40)
@given(
    st.binary(min_size=24, max_size=48).map(lambda key: base64.b64encode(key).decode())
    | st.binary(min_size=24, max_size=48).map(lambda key: base64.urlsafe_b64encode(key).decode())
    | st.binary(min_size=12, max_size=48).map(bytes.hex)
)
def test_no_key_of_random_bytes_is_repeated(key: str) -> None:
    """
    Whatever slashes it holds.
    """
    with pytest.raises(JobError) as refused:
        key_from_file(key, "/nowhere")

    assert key not in str(refused.value)


@pytest.mark.parametrize("path", ["sk-canary-0123", "", "nul\0canary"])
def test_a_key_in_the_place_of_a_path_is_not_repeated(path: str) -> None:
    """
    People paste keys into every setting with that word in it.
    """
    assert "cannot be opened" in refusal(path)
