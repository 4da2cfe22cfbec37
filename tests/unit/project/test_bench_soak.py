"""The soak notices an event that is lost, repeated or out of order, and tells what rises from what does not."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.soak.__main__ import Soak
from tests.bench.soak.checking import Checker, compare
from tests.bench.soak.population import RECORDS, Account
from tests.bench.soak.readings import Reading, grown, slope


def account_with_frames(count: int) -> tuple[Account, list[bytes]]:
    account = Account(7)
    return account, [account.commit(seq) for seq in range(1, count + 1)]


def found(frames: list[bytes], *, sent: int, taken: bool = False) -> dict[str, int]:
    account, _ = account_with_frames(0)
    checker = Checker({account.did} if taken else set())
    for frame in frames:
        checker.take(frame, 0.0)
    return compare({} if taken else {account.did: (sent, 0)}, checker.found())


def test_what_came_is_compared_with_what_was_sent() -> None:
    _, (first, second, third) = account_with_frames(3)
    assert not any(found([first, second, third], sent=3).values())
    assert found([first, third], sent=3) == {"lost": 1, "repeated": 0, "out of order": 0}
    assert found([first, second, second, third], sent=3) == {"lost": 0, "repeated": 1, "out of order": 0}
    assert found([second, first, third], sent=3) == {"lost": 0, "repeated": 0, "out of order": 1}


def test_a_repeated_event_does_not_make_up_for_a_lost_one() -> None:
    _, (first, _, third) = account_with_frames(3)
    assert found([first, first, third], sent=3)["repeated"] == 1


def test_events_may_lack_of_accounts_that_are_taken_down_but_not_change_their_order() -> None:
    _, (first, second, third) = account_with_frames(3)
    assert not any(found([first, third], sent=3, taken=True).values())
    assert found([second, first], sent=3, taken=True)["out of order"] == 1


def test_an_identity_that_did_not_come_is_lost() -> None:
    account, frames = account_with_frames(1)
    frames.append(account.change_identity(2))
    checker = Checker(set())
    for frame in frames:
        checker.take(frame, 0.0)
    assert not any(compare({account.did: (1, 1)}, checker.found()).values())
    assert compare({account.did: (1, 2)}, checker.found())["lost"] == 1


def test_an_account_does_not_grow() -> None:
    account, _ = account_with_frames(3 * RECORDS)
    assert len(account.repo.records) == RECORDS


def test_what_grew_is_told_by_kind_and_name() -> None:
    readings = [
        Reading(hours, {"MiB VmRSS": 100 + 2 * hours, "cache accounts": 5.0, "objects Chunk": 60 * hours})
        for hours in (0.0, 0.5, 1.0)
    ]
    assert slope([(reading.hours, reading.figures["MiB VmRSS"]) for reading in readings]) == pytest.approx(2)
    assert grown(readings, "MiB", 0.1) == ["VmRSS +2.0 an hour, now 102.0"]
    assert grown(readings, "objects", 50.0) == ["Chunk +60.0 an hour, now 60.0"]
    assert grown(readings, "cache", 1.0) == []


class SlowRelay:
    """One that answers from the second time on."""

    def __init__(self) -> None:
        self.child = SimpleNamespace(running=True, process=SimpleNamespace(pid=os.getpid()))
        self.asked: list[str] = []

    def admin(self, path: str, body: dict[str, str]) -> None:
        self.asked.append(f"{path} {body['did']}")
        if len(self.asked) == 1:
            raise TimeoutError("timed out")


def test_an_answer_that_takes_too_long_does_not_end_a_soak() -> None:
    soak: Any = Soak.__new__(Soak)
    soak._taken_down = [(0.0, "did:a"), (1e12, "did:b")]
    relay: Any = SlowRelay()
    soak.run(relay, 0.0)
    assert relay.asked == [f"repo/reverseTakedown {did}" for did in ("did:a", "did:a", "did:b")]
