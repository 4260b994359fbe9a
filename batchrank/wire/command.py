"""
A key that a command prints: `gcloud auth print-access-token`, `az account get-access-token`.

Owns how the command is run: without a shell, without a terminal, within a time, and so that nothing
it says is repeated, neither what it prints nor what it complains of. Knows no vendor: one way
serves every token that ends before a night does.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batchrank.errors import JobError, Problem
from batchrank.providers.base import HttpCall, HttpReply, KeyHeader
from batchrank.wire.auth import KEY_BYTES_MAX, Bearer, Secret, checked
from batchrank.wire.carrier import Lines
from batchrank.wire.failures import KeyNotRenewed

COMMAND_S_MAX = 30.0
"""Tools that ask for a token over the network take a second or two."""


class CommandKey:
    """
    The key that *command* prints, run in *folder*, and anew after *age_s_max* seconds. It may take
    *patience_s* seconds.

    A token may be refused while calls with it are still under way: the last one is redacted, too.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        header: KeyHeader,
        age_s_max: float,
        *,
        patience_s: float = COMMAND_S_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._folder = folder
        self._header = header
        self._age_s_max = age_s_max
        self._patience_s = patience_s
        self._clock = clock
        self._running: subprocess.Popen[bytes] | None = None
        self._take(self._printed())

    def __repr__(self) -> str:
        return "<CommandKey>"

    def lines(self, call: HttpCall) -> Lines:  # noqa: ARG002 - the same for every call
        """
        The one header.
        """
        return self._lines

    def is_due(self) -> bool:
        """
        Tell whether the command was last run too long ago.
        """
        return self._clock() - self._asked_at > self._age_s_max

    def is_refused(self, reply: HttpReply) -> bool:
        """
        Tell a 401: what is not allowed to a key that is good is a 403.
        """
        return reply.status == 401

    def renew(self, *, refused: bool) -> bool:  # noqa: ARG002 - a command is run all the same
        """
        Run the command again, and tell whether it printed another key.

        Raises:
            KeyNotRenewed: it failed.
        """
        before = self._secret.reveal()
        try:
            self._take(self._printed())
        except JobError as error:
            (problem,) = error.problems
            raise KeyNotRenewed(f"the key was refused, and {problem.message}") from None
        return self._secret.reveal() != before

    def close(self) -> None:
        """
        End the command if it is under way.
        """
        if self._running is not None:
            _kill(self._running)

    def redact(self, text: str) -> str:
        """
        *text* without the key, nor the one before.
        """
        return self._before.redact(self._secret.redact(text))

    def _take(self, secret: Secret) -> None:
        self._before = getattr(self, "_secret", secret)
        self._secret = secret
        self._lines = Bearer(secret, self._header).headers()

    def _printed(self) -> Secret:
        """
        What the command prints, if that is a key.

        Raises:
            JobError: it is not, or the command failed.
        """
        self._asked_at = self._clock()
        # People paste the key itself into this setting: only what is a program is repeated.
        program = shutil.which(self._command[0])
        name = Path(program).name if program else "the command"
        printed = self._run(name)
        remedy = "it has to print the key, and nothing else"
        try:
            text = printed.decode().strip()
        except UnicodeDecodeError:
            raise _refused(f"what {name} printed is not text", remedy) from None
        return checked(text, "key_command", f"what {name} printed", remedy)

    def _run(self, name: str) -> bytes:
        """
        What the command writes to its standard output; not more of it than could be a key.

        Raises:
            JobError: it cannot be run, takes too long, or fails.
        """
        try:
            self._running = running = subprocess.Popen(  # noqa: S603 - the job file names it
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # tools trace what they do, and the key with it
                start_new_session=True,  # so that what it starts in turn can be ended with it
            )
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "not a command"
            raise _refused(f"{name} cannot be run: {why}", "name a program on the PATH") from None
        try:
            printed = _read(running, time.monotonic() + self._patience_s)
        except subprocess.TimeoutExpired:
            took = f"{name} took more than {self._patience_s:g} s"
            raise _refused(took, f"run {name} by hand") from None
        finally:
            _end(running)
        if running.returncode and len(printed) <= KEY_BYTES_MAX:
            how = f"ended with status {running.returncode}"
            raise _refused(f"{name} {how}", f"run {name} by hand: it says why")
        return printed


def _read(running: subprocess.Popen[bytes], until_s: float) -> bytes:
    """
    What the command prints until it ends, or until that is too much for a key.

    Raises:
        subprocess.TimeoutExpired: it goes on beyond *until_s*, by the monotonic clock.
    """
    assert running.stdout is not None
    printed = b""
    ready = select.poll()  # `select` knows the first thousand files only, and connections are many
    ready.register(running.stdout, select.POLLIN)
    while len(printed) <= KEY_BYTES_MAX:
        left_s = max(0.0, until_s - time.monotonic())
        if not ready.poll(left_s * 1000):
            raise subprocess.TimeoutExpired(running.args, 0)
        more = os.read(running.stdout.fileno(), KEY_BYTES_MAX)
        if not more:
            running.wait(max(0.1, until_s - time.monotonic()))
            break
        printed += more
    return printed


def _end(running: subprocess.Popen[bytes]) -> None:
    """
    End the command, and what it has started, if it has not ended by itself.
    """
    _kill(running)
    running.wait()
    assert running.stdout is not None
    running.stdout.close()


def _kill(running: subprocess.Popen[bytes]) -> None:
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)


def _refused(message: str, remedy: str) -> JobError:
    return JobError("the key", [Problem(0, "provider.key_command", message, remedy)])
