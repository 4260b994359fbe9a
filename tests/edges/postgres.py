"""
A PostgreSQL of our own, on a socket in a folder of its own, where the machine has one to start.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "canary of 'quotes\\ and spaces"
"""Awkward on purpose: it has to come through unchanged, and never to be seen."""


@dataclass(frozen=True)
class Server:
    """
    Where it listens, and as whom one comes in.
    """

    folder: Path

    def way(self, password: str = PASSWORD) -> str:
        """
        The connection string.
        """
        escaped = password.replace("\\", "\\\\").replace("'", "\\'")
        return f"host='{self.folder}' user=me dbname=postgres password='{escaped}'"

    def do(self, sql: str) -> None:
        """
        Run some SQL.
        """
        where = ["-h", str(self.folder), "-U", "me", "-d", "postgres"]
        command = [_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *where, "-c", sql]
        environ = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(command, env=environ, check=True, capture_output=True)

    def asked(self, sql: str) -> str:
        """
        What a SELECT gives, in psql's plain form.
        """
        where = ["-h", str(self.folder), "-U", "me", "-d", "postgres"]
        command = [_program("psql"), "-X", "-A", "-t", *where, "-c", sql]
        environ = {**os.environ, "PGPASSWORD": PASSWORD}
        return subprocess.run(
            command, env=environ, check=True, capture_output=True, text=True
        ).stdout.strip()


@contextmanager
def server() -> Iterator[Server]:
    """
    Start one, and end it. It refuses to run as root, so then somebody else has to be there.
    """
    user = _somebody() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
    try:
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        data = folder / "data"
        made = [_program("initdb"), "-D", str(data), "-A", "scram-sha-256", "-U", "me"]
        made += [f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        control = [_program("pg_ctl"), "-D", str(data), "-w"]
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -F"
        start = [*control, "-o", options, "-l", str(folder / "log"), "start"]
        subprocess.run(start, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        try:
            yield Server(folder)
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder)


def _somebody() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is neither postgres nor nobody")


def _program(name: str) -> str:
    there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(there[-1]) if there else None)
    if found is None:
        pytest.skip(f"there is no {name} on this machine")
    return found
