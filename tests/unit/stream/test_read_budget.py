"""Shares of what is read for consumers: in the order in which they were asked for, and none for one that is gone."""

from __future__ import annotations

from relay.eventlog.segment import BLOCK
from relay.stream.read_budget import READING, ReadBudget, Share


def test_shares_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    budget = ReadBudget(2 * BLOCK)
    shares = [Share(budget) for _ in range(5)]
    assert [share.ask(0) for share in shares] == [True, True, False, False, False]
    shares[0].settle(BLOCK)
    assert not shares[2].held, "what is not sent yet takes room"
    shares[0].sent()
    assert shares[2].held and not shares[3].held and not Share(budget).ask(0)
    for share in shares[1:3]:
        share.settle(0)
    assert shares[3].held and shares[4].held


def test_one_that_waits_no_longer_is_given_nothing() -> None:
    budget = ReadBudget(BLOCK)
    first, gone, last = (Share(budget) for _ in range(3))
    assert first.ask(0) and not gone.ask(0) and not last.ask(0)
    gone.give_back()
    first.give_back()
    assert last.held and not gone.held
    last.give_back()
    assert (budget.taken, budget.reading, list(budget.waiting)) == (0, 0, [])


def test_few_read_at_a_time() -> None:
    budget = ReadBudget()
    shares = [Share(budget) for _ in range(READING + 2)]
    assert [share.ask(0) for share in shares] == [True] * READING + [False] * 2
    shares[0].settle(10)
    assert shares[READING].held and not shares[READING + 1].held
