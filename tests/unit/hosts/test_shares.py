"""A host's share of CPU time, for which it waits only while others have work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from relay.hosts.shares import QUANTUM, Share, Shares


@contextmanager
def work_of(share: Share) -> Iterator[None]:
    share.begin()
    yield
    share.end()


def started(share: Share, seconds: float = QUANTUM) -> gevent.Greenlet[..., bool]:
    """A piece of work of `seconds`, as far as it gets now."""
    taking = gevent.spawn(share.take, seconds)
    gevent.sleep(0.01)
    return taking


def test_a_host_alone_gets_everything() -> None:
    share = Share(Shares())
    with gevent.Timeout(60):
        for _ in range(1000):
            share.take(10 * QUANTUM)


def test_a_host_in_debt_waits_while_another_has_work_and_credit() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    modest.begin()
    waiting = started(greedy)
    assert not waiting.ready()
    modest.end()
    waiting.get(timeout=60)


def test_it_waits_until_the_other_has_used_up_as_much() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3.5 * QUANTUM)
    with work_of(modest):
        waiting = started(greedy)
        for _ in range(2):
            modest.charge(1.01 * QUANTUM)
            gevent.sleep(0.01)
            assert not waiting.ready()
        modest.charge(1.01 * QUANTUM)
        waiting.get(timeout=60)


def test_those_that_always_have_work_get_as_much_as_one_another() -> None:
    shares = Shares()
    prices = {Share(shares): price for price in (QUANTUM / 20, QUANTUM / 2, 7 * QUANTUM)}
    taken = dict.fromkeys(prices, 0.0)

    def work(share: Share) -> None:
        while sum(taken.values()) < 300 * QUANTUM:
            share.take(prices[share])
            with work_of(share):
                gevent.sleep(0)
                taken[share] += prices[share]

    gevent.joinall([gevent.spawn(work, share) for share in prices], timeout=60, raise_error=True)
    assert all(75 * QUANTUM < spent < 125 * QUANTUM for spent in taken.values()), taken.values()


def test_what_was_charged_in_advance_is_given_back_and_no_more_than_a_round_is_saved() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    with work_of(other):
        share.take(5 * QUANTUM)
        waiting = started(share)
        assert not waiting.ready()
        share.charge(-4.5 * QUANTUM)
        waiting.get(timeout=60)
    share.charge(-100 * QUANTUM)
    assert share.credit <= QUANTUM
    shares.round += 100
    assert share.credit <= QUANTUM


def test_those_of_one_host_go_on_in_order_and_only_as_its_credit_allows() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    done: list[int] = []

    def work(number: int) -> None:
        share.take(0.6 * QUANTUM)
        done.append(number)

    share.take(2 * QUANTUM)
    other.begin()
    working = [gevent.spawn(work, number) for number in range(10)]
    gevent.sleep(0.01)
    assert done == []
    for _ in range(2):
        other.charge(1.01 * QUANTUM)
        gevent.sleep(0.02)
    assert len(done) <= 2
    other.end()
    gevent.joinall(working, timeout=60, raise_error=True)
    assert done == list(range(10))


def test_one_that_comes_as_another_of_its_host_is_called_waits_for_that_one() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    with work_of(other):
        share.take(2 * QUANTUM)
        waiting = started(share)
        share.charge(-3 * QUANTUM)
        with gevent.Timeout(60):
            assert share.take(QUANTUM / 10), "there is credit, but it is not its turn"
        assert waiting.ready()


def test_work_that_is_held_up_elsewhere_stops_others_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.hosts.shares.WAIT_SECONDS", 0.05)
    shares = Shares()
    greedy, stuck = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    with work_of(stuck):
        for _ in range(3):
            started(greedy).get(timeout=60)


def test_one_that_is_killed_while_it_waits_lets_the_next_one_go_on() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    modest.begin()
    first, second = started(greedy), started(greedy)
    first.kill()
    modest.end()
    second.get(timeout=60)
    assert not shares.waiting and not shares.working
