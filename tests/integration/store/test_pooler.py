"""A pooler before PostgreSQL: one that keeps sessions apart serves, any other is refused at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay.kit.errors import StoreError
from relay.store import installation, postgres_lock
from relay.store.open import open_database
from tests.support.pooler import PROGRAM, Pooler
from tests.support.postgres import Databases

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed: `make test` does that")

StartPooler = Callable[[str], Pooler]


@pytest.fixture
def start_pooler(postgres_cluster: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartPooler]:
    monkeypatch.setattr(postgres_lock, "START_SECONDS", 0.3)
    started: list[Pooler] = []

    def start(mode: str) -> Pooler:
        started.append(Pooler(postgres_cluster, mode))
        return started[-1]

    yield start
    for pooler in started:
        pooler.close()


def reason(work: Callable[[], Any]) -> str:
    with pytest.raises(StoreError) as refused:
        work()
    return refused.value.reason


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_who_cannot_be_held_is_not_opened(postgres_cluster: Databases, start_pooler: StartPooler, mode: str) -> None:
    """The lock would be that of whichever session a transaction gets: a second relay could get the same."""
    url = postgres_cluster.create()
    through = start_pooler(mode).url(url)
    assert reason(lambda: open_database(through, max_connections=2, hold=True)) == "store-pooled"
    # Nor was anything left that keeps a relay away that asks the server itself.
    open_database(url, max_connections=2, hold=True).close()
    postgres_cluster.give_back(url)


def test_who_keeps_sessions_apart_serves(postgres_cluster: Databases, start_pooler: StartPooler) -> None:
    url = postgres_cluster.create()
    through = start_pooler("session").url(url)
    first = open_database(through, max_connections=2, hold=True)
    first.write(installation.put, "here", "yes")
    assert reason(lambda: open_database(through, max_connections=2, hold=True)) == "store-locked"
    assert reason(lambda: open_database(url, max_connections=2, hold=True)) == "store-locked"
    first.close()
    second = open_database(through, max_connections=2, hold=True)
    assert second.read(installation.get, "here") == "yes"
    second.close()
    postgres_cluster.give_back(url)
