"""When a worker process on demand is started, and when it is ended again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import gevent
import pytest

from relay.ingest import relief
from relay.ingest.gate import Gate
from relay.ingest.relief import BEHIND_SECONDS, CALM_SECONDS, RETRY_SECONDS, Relief
from relay.ingest.worker_pool import WorkerPool


class Pool:
    """A pool whose processes are `ready` when they are, and its checks done when it is `idle`."""

    def __init__(self) -> None:
        self.ready = self.idle = True
        self.problem: str | None = None
        self.busy_seconds = 0.0
        self.starts = self.stops = 0

    def start(self) -> None:
        self.starts += 1

    def stop(self) -> None:
        self.stops += 1


class Relay:
    """A relay of which is said what it does each second, and its clocks."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.gate = cast(Gate, type("FakeGate", (), {"pool": None, "verified_seconds": 0.0})())
        self.now = self.cpu = self.waited = 0.0
        self.relief = Relief(cast(WorkerPool, self.pool), self.gate)

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.cpu

    def run(self, seconds: float, cpu: float, verifying: float, waited: float = 0.0) -> float | None:
        """Look once a second. The hub has so much of a core, verifications take so much of the time, and the hub has
        waited for a core for as much.
        """
        wait = None
        for _ in range(round(seconds)):
            self.now += 1.0
            self.cpu += cpu
            self.waited += waited
            if self.helped:
                self.pool.busy_seconds += verifying
            else:
                self.gate.verified_seconds += verifying
            wait = self.relief._look()
        return wait

    @property
    def helped(self) -> bool:
        return self.gate.pool is not None


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Relay:
    relay = Relay()
    monkeypatch.setattr(relief, "time", relay)
    monkeypatch.setattr(relief, "waited_seconds", lambda: relay.waited)
    relay.relief._before = relay.relief._spent()
    return relay


def behind(relay: Relay) -> None:
    relay.run(2 * BEHIND_SECONDS, cpu=0.95, verifying=0.42)
    assert relay.helped


@pytest.mark.parametrize(
    ("cpu", "verifying", "waited"),
    [
        pytest.param(0.0, 0.0, 0.0, id="at rest"),
        pytest.param(0.2, 0.12, 0.0, id="at the rate of the network"),
        pytest.param(0.75, 0.33, 0.0, id="at four times that rate"),
        pytest.param(0.95, 0.1, 0.0, id="busy with a thousand consumers"),
        pytest.param(0.4, 0.5, 0.55, id="on a machine that others use up"),
    ],
)
def test_without_a_backlog_or_without_a_core_there_is_no_worker(
    relay: Relay, cpu: float, verifying: float, waited: float
) -> None:
    relay.run(600, cpu, verifying, waited)
    assert relay.pool.starts == 0 and not relay.helped


@pytest.mark.parametrize(("cpu", "verifying", "waited"), [(0.95, 0.42, 0.0), (0.65, 0.4, 0.25)])
def test_a_backlog_starts_a_worker_within_seconds(relay: Relay, cpu: float, verifying: float, waited: float) -> None:
    relay.run(BEHIND_SECONDS, cpu, verifying, waited)
    assert relay.pool.starts == 1 and relay.helped


def test_a_burst_starts_none(relay: Relay) -> None:
    for _ in range(100):
        relay.run(10, cpu=0.2, verifying=0.12)
        relay.run(2, cpu=0.95, verifying=0.42)
    assert relay.pool.starts == 0


def test_a_worker_ends_once_the_relay_has_kept_up_for_a_minute(relay: Relay) -> None:
    behind(relay)
    relay.run(300, cpu=0.9, verifying=0.6)
    assert relay.helped and relay.pool.stops == 0
    relay.run(CALM_SECONDS / 2, cpu=0.15, verifying=0.12)
    assert relay.helped
    relay.run(2 * CALM_SECONDS, cpu=0.15, verifying=0.12)
    assert not relay.helped and (relay.pool.starts, relay.pool.stops) == (1, 1)


def test_a_worker_ends_on_a_machine_that_others_use_up(relay: Relay) -> None:
    behind(relay)
    relay.run(2 * CALM_SECONDS, cpu=0.15, verifying=0.3, waited=0.6)
    assert not relay.helped


def test_the_kernel_says_how_long_a_thread_waited_for_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relief.waited_seconds() >= 0.0
    for text, expected in [("5 2500000000 7\n", 2.5), ("0 0 0\n", 0.0), ("", 0.0), ("nonsense nonsense", 0.0)]:
        (tmp_path / "schedstat").write_text(text)
        monkeypatch.setattr(relief, "SCHEDULED", tmp_path / "schedstat")
        assert relief.waited_seconds() == expected
    monkeypatch.setattr(relief, "SCHEDULED", tmp_path / "none")
    assert relief.waited_seconds() == 0.0


def test_a_worker_ends_though_consumers_keep_the_hub_busy(relay: Relay) -> None:
    behind(relay)
    relay.run(2 * CALM_SECONDS, cpu=0.9, verifying=0.1)
    assert not relay.helped


@pytest.mark.parametrize("in_line", [0.1 * number for number in range(10)])
def test_no_steady_load_starts_workers_again_and_again(relay: Relay, in_line: float) -> None:
    """Of what the hub does, two fifths are verification, which a worker takes away."""
    behind(relay)
    for _ in range(3600):
        relay.run(1, cpu=in_line * (0.6 if relay.helped else 1.0), verifying=in_line * 0.4)
    assert relay.pool.starts == 1
    assert relay.helped == (in_line > 0.75)


def test_a_worker_ends_when_it_has_nothing_in_hand(relay: Relay) -> None:
    behind(relay)
    relay.pool.idle = False
    running = gevent.spawn(relay.run, 2 * CALM_SECONDS, 0.1, 0.1)
    gevent.sleep(3 * relief.POLL_SECONDS)
    assert not relay.helped and relay.pool.stops == 0
    relay.pool.idle = True
    running.join(30)
    assert relay.pool.stops == 1


def test_a_worker_that_does_not_start_is_not_waited_for(relay: Relay) -> None:
    relay.pool.ready = False
    relay.pool.problem = "verifiers do not start"
    assert relay.run(BEHIND_SECONDS, cpu=0.95, verifying=0.42) == RETRY_SECONDS
    assert not relay.helped and (relay.pool.starts, relay.pool.stops) == (1, 1)
    relay.pool.ready, relay.pool.problem = True, None
    relay.run(BEHIND_SECONDS, cpu=0.95, verifying=0.42)
    assert relay.helped


def test_a_worker_that_does_not_come_back_is_not_waited_for(relay: Relay) -> None:
    behind(relay)
    relay.pool.idle = False
    relay.pool.problem = "verifiers do not start"
    assert relay.run(1, cpu=0.0, verifying=0.0) == RETRY_SECONDS
    assert not relay.helped and relay.pool.stops == 1
