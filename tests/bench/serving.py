"""
The bench server as its users see it: started for a cell, asked what it saw, gone afterwards.

Owns its certificate, which is made for one run and trusted through `SSL_CERT_FILE`, as all sides
understand it.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

STOP_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    A key with its certificates in one file, and who vouches for them in another.
    """

    chain: Path
    authority: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """
        Make both for this machine, valid for whoever trusts the authority.
        """
        made = cls(folder / "server.pem", folder / "authority.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(made.authority))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(made.chain)
        )
        return made


@dataclass(frozen=True, slots=True)
class Serving:
    """
    A server that runs: its API, and what a client's environment needs to trust it.
    """

    port: int
    certificate: Certificate | None

    @property
    def base_url(self) -> str:
        """
        What a job file names.
        """
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}/api/v1"

    @property
    def environment(self) -> Mapping[str, str]:
        """
        Variables for the processes that call it.
        """
        if self.certificate is None:
            return {}
        return {"SSL_CERT_FILE": str(self.certificate.authority)}

    def stats(self) -> dict[str, Any]:
        """
        What it saw since it began or was reset.
        """
        return self._get("/stats")  # type: ignore[no-any-return] # JSON of our own

    def arrivals(self) -> list[float]:
        """
        When each call had been read, in seconds of a clock that never jumps.
        """
        return self._get("/arrivals")  # type: ignore[no-any-return] # JSON of our own

    def reset(self) -> None:
        """
        Have it forget both; what it remembers of replies stays.
        """
        self._get("/reset")

    def _get(self, path: str) -> Any:
        place = ("127.0.0.1", self.port)
        if self.certificate:
            import ssl

            trust = ssl.create_default_context(cafile=str(self.certificate.authority))
            asking: http.client.HTTPConnection = http.client.HTTPSConnection(*place, context=trust)
        else:
            asking = http.client.HTTPConnection(*place)
        try:
            asking.request("GET", path)
            return json.loads(asking.getresponse().read())
        finally:
            asking.close()


@contextmanager
def serving(latency_s: float = 0.0, certificate: Certificate | None = None) -> Iterator[Serving]:
    """
    Start a server in a process of its own, and stop it at the end.
    """
    command = [sys.executable, "-m", "tests.bench.server", "--latency", str(latency_s)]
    if certificate:
        command += ["--tls", str(certificate.chain)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield Serving(said["port"], certificate)
        finally:
            process.stdin.close()
            process.wait(STOP_S_MAX)
