"""The last week of the relay's own figures, kept over restarts in a small file of fixed size beside the log.

Fed by `history`, read by `charts`. The file is replaced as a whole once a minute: what a crash takes is that minute. A
file that is damaged, or cannot be read, is begun anew with a warning; one that cannot be written is told of once, and
the figures go on in memory. Must not know where a figure comes from or how it is drawn.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from math import nan
from pathlib import Path

from gevent.threadpool import ThreadPool

from relay.dash.rings import Course, Rings, Series, Shape
from relay.eventlog import disk
from relay.kit import metrics
from relay.kit.background import in_thread

FILE = "dash-history"
SAVE_SECONDS = 60.0
# Far more than all series take.
MAX_FILE_BYTES = 1 << 20

RANGES = {"1h": Shape(15, 240), "24h": Shape(300, 288), "7d": Shape(1800, 336)}
"""What is kept, by its name: seconds between two places, and how many there are."""

SERIES = (
    Series("received"),
    Series("logged"),
    Series("dropped"),
    Series("sent"),
    Series("queued-99", peak=True),
    Series("logged-99", peak=True),
    Series("sync-99", peak=True),
    Series("hub-99", peak=True),
    Series("hosts"),
    Series("consumers"),
    Series("lag", peak=True),
    Series("memory"),
    Series("cpu"),
    Series("log-bytes"),
    Series("behind", peak=True),
)

log = logging.getLogger(__name__)


class Past:
    """The figures of `SERIES` for each of `RANGES`. Without a `folder` they are in memory only."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / FILE
        self._rings = Rings(tuple(RANGES.values()), SERIES)
        self._pool = ThreadPool(1)
        self._saved_at = -SAVE_SECONDS
        self._failing = False
        capacity = self._rings.capacity
        # Fixed: the rings are as large when they are empty.
        metrics.show_bound("dash-history", lambda: capacity, capacity)
        self._load()

    @property
    def version(self) -> int:
        """Changes when there is something new to draw."""
        return self._rings.version

    def note(self, at: float, values: Mapping[str, float]) -> None:
        """Take the figures of a moment, Unix seconds; those that are left out are not known."""
        self._rings.add(at, [values.get(series.name, nan) for series in SERIES])

    def course(self, range_name: str, series: str, now: float) -> Course:
        """A figure in one of RANGES, up to `now`."""
        return self._rings.course(RANGES[range_name].step, series, now)

    def save_if_due(self) -> None:
        """Keep it on disk, once a minute."""
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Keep it on disk now, as far as the disk lets us."""
        if self._path is None:
            return
        self._saved_at = time.monotonic()
        try:
            in_thread(self._pool, disk.replace, self._path, self._rings.to_bytes())
        except OSError as error:
            if not self._failing:
                log.warning("the dashboard's history cannot be kept on disk: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            if self._path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError("it is too large")
            self._rings.load(disk.start_of_file(self._path, MAX_FILE_BYTES))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("the dashboard's history starts afresh: %s: %s", os.fspath(self._path), error)
