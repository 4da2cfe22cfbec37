"""Drops of the last day: whole, bounded, and gone when the day is."""

from relay.hosts.drops import Drops

HOUR = 3600.0


def test_drops_are_counted_by_host_and_reason():
    drops = Drops()
    for reason in ("signature-invalid", "rev-future", "signature-invalid"):
        drops.note("a.test", reason, 1000 * HOUR)
    drops.note("b.test", "rev-future", 1000 * HOUR)
    assert drops.last_day("a.test", 1000 * HOUR) == {"signature-invalid": 2, "rev-future": 1}
    assert drops.last_day("c.test", 1000 * HOUR) == {}
    assert [drops.total(host, 1000 * HOUR) for host in ("a.test", "b.test", "c.test")] == [3, 1, 0]


def test_a_day_later_they_are_forgotten():
    drops = Drops()
    drops.note("a.test", "rev-future", 1000 * HOUR)
    assert drops.last_day("a.test", 1023 * HOUR) == {"rev-future": 1}
    assert [drops.total("a.test", hour * HOUR) for hour in (1023, 1024)] == [1, 0]
    assert drops.last_day("a.test", 1024 * HOUR) == {}
    assert drops._hours == {}


def test_a_host_that_drops_for_ever_takes_a_day_of_room():
    drops = Drops()
    for hour in range(1000):
        drops.note("a.test", "rev-future", hour * HOUR)
    assert len(drops._hours["a.test"]) <= 24
