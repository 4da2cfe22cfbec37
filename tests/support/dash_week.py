"""A week of a relay's figures as the dashboard keeps them, made up, with days and nights, a pause and a bad hour."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

from relay.dash.past import RANGES, Past

# When the relay was not running, and when something was wrong, in seconds before now.
PAUSE = (61 * 3600.0, 58 * 3600.0)
BAD_HOUR = (5.2 * 3600.0, 4.1 * 3600.0)


def plant_week(folder: Path, now: float | None = None) -> None:
    """Leave a history that ends `now` in the folder of a relay's log, for its next start."""
    end = time.time() if now is None else now
    folder.mkdir(parents=True, exist_ok=True)
    past = Past(folder)
    rng = random.Random(7)
    fine, middle, coarse = RANGES.values()
    # As fine as each ring shows it, the oldest first.
    spans = [(coarse, middle), (middle, fine), (fine, None)]
    for shape, finer in spans:
        at = end - shape.step * shape.slots
        until = end if finer is None else end - finer.step * finer.slots
        while at < until:
            if not PAUSE[1] < end - at < PAUSE[0]:
                past.note(at, _figures(at, end, rng))
            at += min(shape.step, 15 if finer is None else shape.step)
    past.save()


def _figures(at: float, end: float, rng: random.Random) -> dict[str, float]:
    day = 0.5 + 0.5 * math.sin(2 * math.pi * (at / 86_400 - 0.3))
    bad = BAD_HOUR[1] < end - at < BAD_HOUR[0]
    received = (260 + 420 * day) * rng.uniform(0.93, 1.07)
    dropped = received * (0.06 if bad else 0.004) * rng.uniform(0.7, 1.3)
    consumers = 21 + round(4 * day) + rng.randint(-1, 1)
    return {
        "received": received,
        "logged": received - dropped,
        "dropped": dropped,
        "sent": (received - dropped) * consumers,
        "queued-99": (0.4 if bad else 0.004 + 0.004 * day) * rng.uniform(0.8, 1.4),
        "logged-99": (0.3 if bad else 0.022 + 0.008 * day) * rng.uniform(0.8, 1.3),
        "sync-99": (0.11 if bad else 0.012) * rng.uniform(0.8, 1.5),
        "hub-99": (0.05 if bad else 0.006) * rng.uniform(0.6, 1.8),
        "hosts": 2871 + 12 * day + rng.randint(-3, 3) - (160 if bad else 0),
        "consumers": consumers,
        "lag": received * (9 if bad else 0.3) * rng.uniform(0.2, 1.8),
        "memory": 310e6 + 40e6 * day + 4e6 * rng.random(),
        "cpu": 0.2 + 0.3 * day + 0.03 * rng.random(),
        "log-bytes": 61e9 + 6e9 * day,
        "behind": received * 0.25 * rng.uniform(0.6, 1.6),
    }
