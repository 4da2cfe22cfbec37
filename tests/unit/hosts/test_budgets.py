"""What a host has under way: the one that has too much waits until there is room again."""

from __future__ import annotations

import gevent

from relay.hosts.budgets import MAX_BYTES_IN_FLIGHT, MAX_EVENTS_IN_FLIGHT, Budget


def test_a_full_budget_blocks_until_room_is_released() -> None:
    budget = Budget()
    for _ in range(2):
        budget.take(MAX_BYTES_IN_FLIGHT)
        assert budget.full and not budget.wait_for_room(0.01)
        waiter = gevent.spawn(budget.wait_for_room, 600)
        gevent.sleep(0)
        assert not waiter.ready()
        budget.release(MAX_BYTES_IN_FLIGHT)
        assert waiter.get(timeout=60)


def test_the_number_of_events_is_bounded_as_well() -> None:
    budget = Budget()
    for _ in range(MAX_EVENTS_IN_FLIGHT):
        assert not budget.full
        budget.take(1)
    assert budget.full
