"""
Keys that do not last: when they are got anew, and what becomes of calls meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.carrier import Lines
from batchrank.wire.exchange import Wire
from batchrank.wire.failures import KeyNotRenewed
from batchrank.wire.renewing import Renewing

pytestmark = pytest.mark.anyio

CALL = HttpCall("POST", "https://h.example/rerank", (("Content-Type", "application/json"),), b"{}")


class Keys:
    """
    Keys `k0`, `k1` and so on. *last* is the last one that is given out; asking waits for *give*.
    """

    def __init__(self, last: int = 9) -> None:
        self.number = 0
        self.last = last
        self.due = False
        self.broken = False
        self.asked: list[bool] = []
        self.give = threading.Event()
        self.give.set()

    def lines(self, call: HttpCall) -> Lines:
        """
        The key in a header.
        """
        return (("authorization", f"k{self.number}"),)

    def is_due(self) -> bool:
        """
        As it was set.
        """
        return self.due

    def is_refused(self, reply: HttpReply) -> bool:
        """
        Tell a 401.
        """
        return reply.status == 401

    def renew(self, *, refused: bool) -> bool:
        """
        Give the next key, if there is one and it may be given.
        """
        self.asked.append(refused)
        self.due = False
        assert self.give.wait(10)
        if self.broken:
            raise KeyNotRenewed("nobody gives one")
        before, self.number = self.number, min(self.last, self.number + 1)
        return self.number != before

    def close(self) -> None:
        """
        Give what is waited for.
        """
        self.give.set()

    def redact(self, text: str) -> str:
        """
        Without the key.
        """
        return text.replace(f"k{self.number}", "***")


class Server:
    """
    A carrier with a server behind it that takes the keys that *takes* says.
    """

    def __init__(self, takes: Callable[[str], bool]) -> None:
        self.seen: list[str] = []
        self.arrived = asyncio.Event()
        self._takes = takes

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        200 or 401.
        """
        key = dict(headers)["authorization"]
        self.seen.append(key)
        self.arrived.set()
        await asyncio.sleep(0)
        return HttpReply(200 if self._takes(key) else 401, {}, b"")

    async def aclose(self) -> None:
        """
        Nothing to close.
        """


def wired(keys: Keys, takes: Callable[[str], bool]) -> tuple[Wire, Server]:
    """
    A wire with such keys, and the server at its end.
    """
    server = Server(takes)
    renewing = Renewing(server, keys)
    return Wire(renewing, renewing), server


async def until(condition: Callable[[], bool]) -> None:
    """
    Let others work until it is so.
    """
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never is")


async def test_a_key_that_serves_is_left_alone() -> None:
    """
    Nobody is asked for another one.
    """
    keys = Keys()
    wire, server = wired(keys, lambda _: True)

    await wire.exchange(CALL)
    await wire.exchange(CALL)

    assert (["k0", "k0"], []) == (server.seen, keys.asked)


async def test_one_that_is_due_is_renewed_beside_the_calls() -> None:
    """
    They go on with what there is, one renewal is under way at a time, and then they have the new
    one.
    """
    keys = Keys()
    keys.give.clear()
    wire, server = wired(keys, lambda _: True)
    keys.due = True
    await wire.exchange(CALL)
    await until(lambda: keys.asked == [False])
    keys.due = True
    await wire.exchange(CALL)
    keys.give.set()
    await until(lambda: keys.number == 1)
    await wire.exchange(CALL)

    assert ["k0", "k0", "k1"] == server.seen


async def test_a_renewal_beside_the_calls_that_fails_is_of_no_harm() -> None:
    """
    As long as the key is good, nobody need know.
    """
    keys = Keys()
    keys.due = keys.broken = True
    wire, server = wired(keys, lambda _: True)

    for _ in range(3):
        assert isinstance(await wire.exchange(CALL), HttpReply)
        await asyncio.sleep(0.01)

    assert ["k0", "k0", "k0"] == server.seen


async def test_a_refused_key_is_renewed_once_for_all_and_calls_are_to_be_tried_again() -> None:
    """
    They were not billed: whoever paces calls sends them again, with the new key.
    """
    keys = Keys()
    wire, server = wired(keys, lambda key: key != "k0")

    answers = await asyncio.gather(*(wire.exchange(CALL) for _ in range(20)))

    assert {(FailureKind.NEVER_SENT, "key_renewed")} == {
        (answer.kind, answer.code) for answer in answers if isinstance(answer, Failure)
    }
    assert ([True], ["k0"] * 20) == (keys.asked, server.seen)
    assert isinstance(await wire.exchange(CALL), HttpReply)


async def test_where_there_is_no_other_key_the_refusal_stands() -> None:
    """
    It is read as any 401, which stops the job.
    """
    wire, _ = wired(Keys(last=0), lambda _: False)

    reply = await wire.exchange(CALL)

    assert isinstance(reply, HttpReply)
    assert 401 == reply.status


async def test_where_nobody_gives_a_key_it_is_an_outage() -> None:
    """
    The gate waits for its end: a job is not over because a tool has failed once.
    """
    keys = Keys()
    keys.broken = True
    wire, _ = wired(keys, lambda key: key != "k0")

    failure = await wire.exchange(CALL)
    keys.broken = False
    again = await wire.exchange(CALL)

    assert isinstance(failure, Failure)
    assert (FailureKind.NEVER_SENT, "key_not_renewed") == (failure.kind, failure.code)
    assert isinstance(again, Failure)
    assert "key_renewed" == again.code


async def test_a_refusal_waits_for_a_renewal_that_is_under_way() -> None:
    """
    It may be the other key already.
    """
    keys = Keys()
    keys.give.clear()
    keys.due = True
    wire, _ = wired(keys, lambda key: key != "k0")
    calling = asyncio.ensure_future(wire.exchange(CALL))
    await until(lambda: keys.asked == [False])
    keys.give.set()

    failure = await calling

    assert isinstance(failure, Failure)
    assert ("key_renewed", [False]) == (failure.code, keys.asked)


async def test_a_call_that_is_given_up_takes_no_renewal_with_it() -> None:
    """
    Others wait for it, too.
    """
    keys = Keys()
    keys.give.clear()
    wire, _ = wired(keys, lambda key: key != "k0")
    one, other = (asyncio.ensure_future(wire.exchange(CALL)) for _ in range(2))
    await until(lambda: keys.asked == [True])
    one.cancel()
    await asyncio.sleep(0)
    keys.give.set()

    failure = await other

    assert isinstance(failure, Failure)
    assert ("key_renewed", [True]) == (failure.code, keys.asked)


class Buggy(Keys):
    """
    Keys that cannot be renewed for a reason that is nobody's outage.
    """

    def renew(self, *, refused: bool) -> bool:
        """
        Raise what no key raises.
        """
        raise ZeroDivisionError


async def test_a_bug_in_a_renewal_beside_the_calls_is_raised() -> None:
    """
    Not by the call that began it: by the next.
    """
    keys = Buggy()
    keys.due = True
    renewing = Renewing(Server(lambda _: True), keys)
    wire = Wire(renewing, renewing)
    await wire.exchange(CALL)
    await until(lambda: renewing._aside is not None and renewing._aside.done())

    with pytest.raises(ZeroDivisionError):
        await wire.exchange(CALL)


async def test_who_leaves_waits_for_no_renewal() -> None:
    """
    It is given up, and its thread with it.
    """
    keys = Keys()
    keys.give.clear()
    keys.due = True
    wire, _ = wired(keys, lambda _: True)
    await wire.exchange(CALL)
    await until(lambda: keys.asked == [False])

    await wire.aclose()

    assert keys.give.is_set()
