"""The process's own figures: they move when what they measure happens, and a scrape changes nothing that it reads."""

from __future__ import annotations

import gc
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from cachetools import TTLCache
from prometheus_client import REGISTRY

from relay.kit import metrics
from relay.kit.allocator import STATES
from relay.kit.version import package_version, revision
from relay.kit.vitals import TICK_SECONDS, Vitals
from tests.support.wait import until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def vitals() -> Iterator[Vitals]:
    vitals = Vitals("edge")
    vitals.start()
    yield vitals
    vitals.stop()


def value(name: str, **labels: str) -> float:
    sample = REGISTRY.get_sample_value(name, labels)
    assert sample is not None, name
    return sample


def test_a_blocked_hub_shows_as_lag(vitals: Vitals) -> None:
    def over_a_quarter() -> float:
        return value("relay_hub_lag_seconds_count") - value("relay_hub_lag_seconds_bucket", le="0.25")

    before = over_a_quarter()
    gevent.sleep(TICK_SECONDS / 2)
    busy_until = time.monotonic() + 0.5
    while time.monotonic() < busy_until:
        pass
    until(lambda: over_a_quarter() > before)


def test_an_idle_hub_is_looked_at_ten_times_a_second(vitals: Vitals) -> None:
    before = value("relay_hub_lag_seconds_count")
    until(lambda: value("relay_hub_lag_seconds_count") >= before + 3)
    assert value("relay_hub_lag_seconds_count") - before < 20


def test_a_full_collection_is_timed(vitals: Vitals) -> None:
    before = value("relay_gc_pause_seconds_count")
    gc.collect()
    until(lambda: value("relay_gc_pause_seconds_count") > before)


def test_greenlets_are_counted_until_they_end(vitals: Vitals) -> None:
    before = value("relay_greenlets")
    waiting = [gevent.spawn(gevent.sleep, 60) for _ in range(100)]
    assert value("relay_greenlets") >= before + 100
    gevent.killall(waiting)
    waiting.clear()
    gc.collect()
    assert value("relay_greenlets") < before + 100


def test_memory_and_threads_are_told(vitals: Vitals) -> None:
    assert value("relay_memory_peak_bytes") > 10 << 20
    assert value("relay_threads") >= 1
    assert value("relay_allocator_bytes", state="used") > 1 << 20
    assert all(value("relay_allocator_bytes", state=state) >= 0 for state in STATES)


def test_what_runs_here_is_told(vitals: Vitals) -> None:
    build = re.search(r"relay_build_info{(.*)} 1.0", _exposition())
    assert build
    labels = dict(re.findall(r'(\w+)="([^"]*)"', build[1]))
    assert (labels["version"], labels["revision"]) == (package_version(), revision())
    assert (labels["mode"], labels["python"]) == ("edge", platform.python_version())


def test_no_scrape_asks_a_ttl_cache_for_its_length() -> None:
    """It would forget entries in the metrics' native thread, under the hub's feet."""
    for path in (ROOT / "relay").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for cache in re.findall(r"self\.(\w+): TTLCache", text):
            assert not re.search(rf"\blen\(self\.{cache}\)|{cache}\.__len__", text), (path, cache)


def test_a_scrape_makes_a_cache_forget_nothing() -> None:
    now = 0.0
    cache: TTLCache[str, int] = TTLCache(10, 1.0, timer=lambda: now)
    cache["a"] = 1
    now = 5.0
    assert metrics.kept(cache) == 1
    assert len(cache) == metrics.kept(cache) == 0


def _exposition() -> str:
    from prometheus_client import generate_latest

    return generate_latest().decode()
