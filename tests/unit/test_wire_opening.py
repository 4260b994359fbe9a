"""
The way to a connection without a network: names are asked once, and addresses race.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

import pytest

from batchrank.wire import opening
from batchrank.wire.connection import Connection
from batchrank.wire.opening import NotOpened, Opener, Step
from batchrank.wire.routes import Route, parsed

ROUTE = Route(parsed("http://reranker.test:8080/", "it"))


def no_trust() -> ssl.SSLContext:
    """
    Nothing here is encrypted.
    """
    raise AssertionError


class Nowhere(asyncio.Transport):
    """
    A transport that can be closed, and no more.
    """

    def abort(self) -> None:
        """
        Nothing is to be done.
        """


class Paper(Opener):
    """
    An opener in a world of paper: *found* is what each lookup finds, *hosts* what each address
    does. Connections are made of nothing.
    """

    def __init__(
        self,
        found: Sequence[Sequence[str] | NotOpened] = (("10.0.0.1",),),
        hosts: dict[str, str] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, lambda: Connection(loop, 1), no_trust)
        self.found = list(reversed(found))
        self.hosts = hosts or {}
        self.tried: list[str] = []
        self.opened: dict[str, Connection] = {}

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(0)
        found = self.found.pop()
        if isinstance(found, NotOpened):
            raise found
        return found

    async def _connect(self, address: str, port: int) -> Connection:
        self.tried.append(address)
        match self.hosts.get(address, "answers"):
            case "hangs":
                await asyncio.Event().wait()
            case "refuses":
                raise NotOpened(Step.TCP, ConnectionRefusedError(address))
        self.opened[address] = self._make()
        self.opened[address].is_open = True
        return self.opened[address]


def test_a_name_is_asked_once_for_all_who_want_it() -> None:
    """
    Also for those who come while the answer is on its way; a second answer would be missing here.
    """

    async def main() -> int:
        paper = Paper()
        made = await asyncio.gather(*(paper.open(ROUTE) for _ in range(100)))
        made.append(await paper.open(ROUTE))
        return len(made)

    assert asyncio.run(main()) == 101


def test_a_name_that_was_not_found_is_asked_again() -> None:
    """
    Resolvers fail for a minute, and not for the whole job.
    """

    async def main() -> Sequence[str]:
        paper = Paper([NotOpened(Step.NAME), ["10.0.0.1"]])
        with pytest.raises(NotOpened):
            await paper.open(ROUTE)
        await paper.open(ROUTE)
        return paper.tried

    assert ["10.0.0.1"] == asyncio.run(main())


def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    """
    A lookup is shared, so one caller cannot cancel it.
    """

    async def main() -> bool:
        paper = Paper()
        first = asyncio.create_task(paper.open(ROUTE))
        second = asyncio.create_task(paper.open(ROUTE))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).is_open

    assert asyncio.run(main())


@pytest.mark.parametrize(
    ("hosts", "tried", "answered"),
    [
        pytest.param({}, ["1"], "1", id="the first answers"),
        pytest.param({"1": "refuses"}, ["1", "2"], "2", id="the first refuses"),
        pytest.param({"1": "hangs"}, ["1", "2"], "2", id="the first hangs"),
        pytest.param({"1": "hangs", "2": "refuses"}, ["1", "2", "3"], "3", id="two are no good"),
    ],
)
def test_one_address_after_the_other_is_tried(
    hosts: dict[str, str], tried: list[str], answered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A host with a dead address costs a moment, not the whole time for connecting.
    """
    monkeypatch.setattr(opening, "NEXT_ADDRESS_S", 0.001)

    async def main() -> None:
        paper = Paper([["1", "2", "3"]], hosts)
        made = await paper.open(ROUTE)

        assert (tried, made) == (paper.tried, paper.opened[answered])

    asyncio.run(main())


def test_where_no_address_answers_the_last_word_holds() -> None:
    """
    Somebody has to be quoted.
    """

    async def main() -> None:
        paper = Paper([["1", "2"]], {"1": "refuses", "2": "refuses"})
        with pytest.raises(NotOpened) as failed:
            await paper.open(ROUTE)

        assert (Step.TCP, "2") == (failed.value.step, str(failed.value.error))

    asyncio.run(main())


def test_what_opens_when_nobody_wants_it_any_more_is_closed() -> None:
    """
    Whoever gave up may have been connected in the same moment.
    """

    async def main() -> bool:
        paper = Paper()
        attempt = asyncio.create_task(paper._connect("1", 80))
        await asyncio.sleep(0)
        opening.abandon(attempt)
        paper.opened["1"].transport = Nowhere()
        await asyncio.sleep(0)
        return paper.opened["1"].is_open

    assert not asyncio.run(main())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ()),
        (["1", "2"], ("1", "2")),
        (["a:1", "a:2", "1", "2"], ("a:1", "1", "a:2", "2")),
        (["1", "a:1", "a:2", "a:3"], ("1", "a:1", "a:2", "a:3")),
        (["1", "1"], ("1",)),
    ],
)
def test_both_families_have_their_turn(found: list[str], expected: tuple[str, ...]) -> None:
    """
    So that a network without IPv6 costs one address's time, not five's.
    """
    assert expected == opening._interleaved(found)


def test_what_the_resolver_says_is_kept() -> None:
    """
    And an answer without an address is none.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        opener = Opener(loop, lambda: Connection(loop, 1), no_trust)
        with pytest.raises(NotOpened) as failed:
            await opener.open(Route(parsed("http://nonexistent.invalid/", "it")))
        assert failed.value.step is Step.NAME
        assert isinstance(failed.value.error, socket.gaierror)
        with pytest.raises(NotOpened) as failed:
            await Paper([[]]).open(ROUTE)
        assert failed.value.step is Step.NAME

    asyncio.run(main())
