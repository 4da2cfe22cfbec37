"""What is told of health without a request: as of the last look, and red when there was none for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from relay.kit.errors import StoreError
from relay.web import health
from relay.web.health import LOOK_SECONDS, STALE_SECONDS, HealthWatch
from tests.support.wait import until


class Db:
    """A database that can be taken away."""

    away = False

    def read(self, _ask: Callable[..., Any]) -> None:
        if self.away:
            raise StoreError("store-away", "connection refused")


@pytest.fixture
def serving() -> SimpleNamespace:
    serving = SimpleNamespace(db=Db(), wrong=None)
    serving.problem = lambda: serving.wrong
    return serving


@pytest.fixture
def watch(serving: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthWatch]:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    watch = HealthWatch(serving)
    yield watch
    watch.stop()


def healthy() -> float | None:
    return REGISTRY.get_sample_value("relay_healthy")


def test_it_is_red_until_the_first_look(watch: HealthWatch) -> None:
    assert (watch.problem(), healthy()) == ("the relay is starting", 0)
    watch.start()
    assert (watch.problem(), healthy()) == (None, 1)


def test_it_follows_the_event_path_and_the_database(watch: HealthWatch, serving: SimpleNamespace) -> None:
    watch.start()
    serving.wrong = "the log cannot be written"
    until(lambda: watch.problem() == "the log cannot be written" and healthy() == 0)
    serving.wrong, serving.db.away = None, True
    until(lambda: watch.problem() == "can't connect to database: store-away" and healthy() == 0)
    serving.db.away = False
    until(lambda: watch.problem() is None and healthy() == 1)


def test_a_hub_that_looks_no_more_is_red(watch: HealthWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.start()
    watch.stop()
    later = time.monotonic() + STALE_SECONDS + 1
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: later))
    assert "stuck" in (watch.problem() or "") and healthy() == 0


def test_a_look_at_a_database_that_hangs_is_not_taken_for_a_stuck_hub() -> None:
    assert health.ANSWER_SECONDS + LOOK_SECONDS < STALE_SECONDS
