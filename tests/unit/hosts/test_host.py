"""A host's budget: full means its subscriber waits, released means it goes on."""

import gevent

from relay.hosts import host as host_module
from relay.hosts.host import Budget


def test_a_full_budget_blocks_until_room_is_released() -> None:
    budget = Budget()
    budget.take(host_module.MAX_BYTES_IN_FLIGHT)
    assert budget.full and not budget.wait_for_room(0.01)
    waiter = gevent.spawn(budget.wait_for_room, 5)
    gevent.sleep(0)
    assert not waiter.ready()
    budget.release(host_module.MAX_BYTES_IN_FLIGHT)
    assert waiter.get(timeout=1)


def test_the_number_of_events_is_bounded_as_well() -> None:
    budget = Budget()
    for _ in range(host_module.MAX_EVENTS_IN_FLIGHT):
        assert not budget.full
        budget.take(1)
    assert budget.full
