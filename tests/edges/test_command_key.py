"""
A key that a command prints: real commands, good and bad.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from batchrank.errors import JobError
from batchrank.providers.base import HttpCall, HttpReply, KeyHeader
from batchrank.wire.command import CommandKey
from batchrank.wire.failures import KeyNotRenewed

CALL = HttpCall("POST", "https://h.example", (), b"")
BEARER = KeyHeader()


def sh(script: str, folder: Path, *, patience_s: float = 10.0) -> CommandKey:
    """
    The key that a shell's script prints.
    """
    return CommandKey(("sh", "-c", script), folder, BEARER, 300.0, patience_s=patience_s)


def refusal(script: str, folder: Path, patience_s: float = 10.0) -> str:
    """
    Why such a command gives no key.
    """
    with pytest.raises(JobError) as refused:
        sh(script, folder, patience_s=patience_s)
    return str(refused.value)


def test_what_a_command_prints_is_the_key(tmp_path: Path) -> None:
    """
    In the header that the vendor names; run beside the job file, without a terminal.
    """
    (tmp_path / "token").write_text("sk-1")
    made = CommandKey(("cat", "token"), tmp_path, KeyHeader("api-key", ""), 300.0)

    assert (("api-key", "sk-1"),) == made.lines(CALL)
    assert (("authorization", "Bearer sk-2"),) == sh("echo '  sk-2  '", tmp_path).lines(CALL)
    assert "Bearer eof" in str(sh("cat; echo eof", tmp_path).lines(CALL))
    assert "sk" not in repr(made)


def test_it_is_run_again_after_its_age_or_when_it_is_refused(tmp_path: Path) -> None:
    """
    And tells whether the key is another one; both are redacted.
    """
    now = [0.0]
    script = "echo x >> asked; echo sk-$(wc -l < asked | tr -d ' ')-longer"
    command = ("sh", "-c", script)
    made = CommandKey(command, tmp_path, BEARER, 300.0, clock=lambda: now[0])
    assert not made.is_due()
    now[0] = 301.0

    assert made.is_due()
    assert made.renew(refused=False)
    assert not made.is_due()
    assert (("authorization", "Bearer sk-2-longer"),) == made.lines(CALL)
    assert "*** and ***" == made.redact("sk-1-longer and sk-2-longer")
    assert made.is_refused(HttpReply(401, {}, b""))
    assert not made.is_refused(HttpReply(403, {}, b""))
    assert not sh("echo sk-same", tmp_path).renew(refused=True)


def test_a_renewal_that_fails_keeps_what_there_was(tmp_path: Path) -> None:
    """
    And is not due at once again.
    """
    made = sh("[ -e gone ] && exit 7; echo sk-1", tmp_path)
    (tmp_path / "gone").touch()

    with pytest.raises(KeyNotRenewed, match="the key was refused, and sh ended with status 7"):
        made.renew(refused=True)

    assert (("authorization", "Bearer sk-1"),) == made.lines(CALL)
    assert not made.is_due()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("exit 3", "sh ended with status 3", id="it fails"),
        pytest.param("echo sk-canary; exit 1", "sh ended with status 1", id="it fails later"),
        pytest.param("kill -9 $$", "sh ended with status -9", id="it is killed"),
        pytest.param("echo sk-canary >&2", "what sh printed is empty", id="to the wrong place"),
        pytest.param("echo sk-canary two", "holds a space", id="two words"),
        pytest.param("echo sk-canary; echo more", "holds a space, a second line", id="two lines"),
        pytest.param("echo '\"sk-canary\"'", "holds quotation marks", id="as JSON"),
        pytest.param(r"printf 'sk-canary\377'", "is not text", id="bytes"),
        pytest.param("yes sk-canary", "too large to be a key", id="without end"),
    ],
)
def test_what_is_no_key_is_told_and_not_repeated(tmp_path: Path, script: str, told: str) -> None:
    """
    Neither what was printed, nor what it complained of.
    """
    said = refusal(script, tmp_path)

    assert told in said
    assert "canary" not in said


@pytest.mark.parametrize(
    "command", [("sk-or-v1-canary",), ("/canary/none",), ("",), ("canary\0",), ("echo", "\0")]
)
def test_a_command_that_is_none_is_told_and_not_repeated(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """
    People paste the key itself there.
    """
    with pytest.raises(JobError, match="cannot be run") as refused:
        CommandKey(command, tmp_path, BEARER, 300.0)

    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("end", ["wait", "exec >&-; wait", "while :; do echo; sleep 0.1; done"])
def test_one_that_does_not_end_is_ended_with_all_it_began(tmp_path: Path, end: str) -> None:
    """
    It may ask a question that nobody hears.
    """
    said = refusal(f"sleep 60 & echo $! > begun; {end}", tmp_path, patience_s=0.3)

    assert "sh took more than 0.3 s" in said
    begun = int((tmp_path / "begun").read_text())
    assert any(is_over(begun) for _ in range(1000))


def test_one_that_is_under_way_can_be_ended(tmp_path: Path) -> None:
    """
    By whoever leaves, from another thread.
    """
    made = sh("[ -e begun ] && sleep 60; touch begun; echo sk-1", tmp_path, patience_s=60.0)
    told: list[KeyNotRenewed] = []

    def renew() -> None:
        with pytest.raises(KeyNotRenewed) as failed:
            made.renew(refused=False)
        told.append(failed.value)

    renewing = threading.Thread(target=renew)
    renewing.start()
    while renewing.is_alive():
        made.close()
        renewing.join(0.01)

    assert "sh ended with status -9" in str(told[0])


def is_over(pid: int) -> bool:
    """
    Tell whether a process has ended, also where nobody has heard of it yet; else wait a moment.
    """
    if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
        return False
    return True
