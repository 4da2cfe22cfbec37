"""Which host is dialled next."""

from relay.hosts.schedule import Schedule


def test_hosts_come_in_the_order_in_which_they_are_due() -> None:
    schedule = Schedule()
    for host, due in ((1, 30.0), (2, 10.0), (3, 20.0)):
        schedule.set(host, due)
    assert schedule.next_due() == 10.0
    assert [schedule.pop(25.0), schedule.pop(25.0), schedule.pop(25.0)] == [2, 3, None]


def test_the_newest_plan_of_a_host_holds() -> None:
    schedule = Schedule()
    schedule.set(1, 10.0)
    schedule.set(1, 50.0)
    assert schedule.pop(20.0) is None
    schedule.set(1, 5.0)
    assert schedule.pop(20.0) == 1
    assert schedule.pop(100.0) is None
    assert len(schedule) == 0


def test_a_cancelled_host_is_not_dialled() -> None:
    schedule = Schedule()
    schedule.set(1, 10.0)
    schedule.cancel(1)
    assert schedule.next_due() is None
    assert schedule.pop(20.0) is None


def test_planning_a_host_anew_for_ever_takes_no_more_room() -> None:
    schedule = Schedule()
    for due in range(10_000):
        schedule.set(1, float(due))
    assert sum(map(len, schedule._heaps.values())) < 100
    assert schedule.pop(10_000.0) == 1


def test_hosts_that_are_tried_again_come_after_the_others() -> None:
    schedule = Schedule()
    schedule.set(1, 10.0, again=True)
    schedule.set(2, 20.0)
    schedule.set(3, 30.0)
    assert (schedule.next_due(), schedule.next_due(again=False)) == (10.0, 20.0)
    assert schedule.pop(15.0, again=False) is None
    assert [schedule.pop(25.0), schedule.pop(25.0), schedule.pop(25.0)] == [2, 1, None]


def test_a_host_that_is_not_tried_again_any_more() -> None:
    schedule = Schedule()
    schedule.set(1, 10.0, again=True)
    schedule.set(1, 10.0)
    assert [schedule.pop(10.0, again=False), schedule.pop(10.0)] == [1, None]
    assert (schedule.next_due(), schedule.due(1), len(schedule)) == (None, None, 0)
