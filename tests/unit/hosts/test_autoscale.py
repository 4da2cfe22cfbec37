"""The rule by which an account limit grows: slowly, bounded, and only for a host in good standing."""

from datetime import UTC, datetime

import pytest

from relay.hosts.autoscale import CEILING, grown_limit
from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from tests.support.hosts import NOW, known_host


def test_a_host_in_good_standing_grows_by_a_quarter() -> None:
    assert grown_limit(known_host(accounts=80), 1_000.0, 0, NOW) == 125
    assert grown_limit(known_host(accounts=9_000, account_limit=10_000), 1_000.0, 0, NOW) == 12_500


def test_the_ceiling_holds() -> None:
    assert grown_limit(known_host(accounts=90_000, account_limit=90_000), 1e6, 0, NOW) == CEILING
    assert grown_limit(known_host(accounts=CEILING, account_limit=CEILING), 1e6, 0, NOW) is None
    assert grown_limit(known_host(accounts=200_000, account_limit=200_000), 1e6, 0, NOW) is None


@pytest.mark.parametrize(
    "one",
    [
        known_host(accounts=79),
        known_host(accounts=100, trusted=True),
        known_host(Status.THROTTLED, accounts=100),
        known_host(accounts=100, connected=False),
        known_host(accounts=100, created_at=datetime.fromtimestamp(NOW - 6 * 86_400, UTC)),
    ],
    ids=["room left", "trusted", "throttled", "not connected", "new"],
)
def test_who_does_not_grow(one: Host) -> None:
    assert grown_limit(one, 1_000.0, 0, NOW) is None


def test_drops_weigh_against_what_was_sent() -> None:
    one = known_host(accounts=100)
    assert grown_limit(one, 1_000.0, 20, NOW) == 125
    assert grown_limit(one, 1_000.0, 21, NOW) is None
    assert grown_limit(one, 0.0, 11, NOW) is None
