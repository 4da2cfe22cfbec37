"""What is compared, and how: rows of figures for both relays, with their ratio and the goal that it is held to.

Used by `tests.bench.peers` on what `rounds` found. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # round -> the figures of each time


class Row(NamedTuple):
    """A figure of a round. `goal` is how many times better than indigo this relay is meant to be."""

    label: str
    round: str
    figure: str
    higher_is_better: bool
    goal: float | None = None


ROWS = (
    Row("verified events per CPU second", "load", "events_per_cpu_second", True, 2),
    Row("CPU seconds per 1,000 events", "load", "cpu_seconds_per_1000_events", False),
    Row("  of the database server, beside it", "load", "database_cpu_seconds_per_1000_events", False),
    Row("verified events per CPU second, database included", "load", "events_per_cpu_second_with_database", True, 2),
    Row("verified events a second", "load", "events_per_second", True),
    Row("deliveries a second, 10 consumers", "load", "deliveries_per_second", True),
    Row("RSS at the end, MiB", "load", "rss_mib", False),
    Row("RSS at most, MiB", "load", "rss_peak_mib", False),
    Row("replay from disk, events a second", "load", "replay_events_per_second", True, 5),
    Row("  share of the log that came", "load", "replayed_share", True),
    Row("  CPU seconds per 1,000 events", "load", "replay_cpu_seconds_per_1000_events", False),
    Row("deliveries a second, 1,000 consumers", "fan-out", "deliveries_per_second", True, 4),
    Row("  per CPU second", "fan-out", "deliveries_per_cpu_second", True),
    Row("  RSS at most, MiB", "fan-out", "rss_peak_mib", False),
    Row("latency at 500 events/s, p50 ms", "paced", "latency_p50_ms", False),
    Row("  p99 ms", "paced", "latency_p99_ms", False),
    Row("  p99.9 ms", "paced", "latency_p99.9_ms", False),
    Row("  CPU seconds per 1,000 events", "paced", "cpu_seconds_per_1000_events", False),
    Row("RSS with 3,000 hosts, MiB", "hosts", "rss_mib", False, 4),
    Row("  at most, MiB", "hosts", "rss_peak_mib", False),
)


class Line(NamedTuple):
    """Medians, and how many times better ours and ours with a worker process are; None: not measured, or 0."""

    label: str
    ours: float | None
    worker: float | None
    indigo: float | None
    times_better: float | None
    worker_better: float | None
    goal: float | None


def compare(ours: Runs, worker: Runs, indigo: Runs) -> Iterator[Line]:
    """A line for each row of which there are figures."""
    for row in ROWS:
        if row.round in ours or row.round in indigo:
            mine, with_worker, theirs = (_median(runs, row) for runs in (ours, worker, indigo))
            better, worker_better = (_times_better(own, theirs, row.higher_is_better) for own in (mine, with_worker))
            yield Line(row.label, mine, with_worker, theirs, better, worker_better, row.goal)


def text(title: str, lines: Sequence[Line]) -> str:
    """A table in Markdown."""
    rows = [f"| {title} | ours | + worker | indigo | times better | + worker | goal |", "|---|---|---|---|---|---|---|"]
    rows += [
        f"| {line.label.replace('  ', '- ')} | {_number(line.ours)} | {_number(line.worker)} | {_number(line.indigo)}"
        f" | {_number(line.times_better)} | {_number(line.worker_better)}"
        f" | {f'≥ {line.goal:g}' if line.goal else ''} |"
        for line in lines
    ]
    return "\n".join(rows)


def _median(runs: Runs, row: Row) -> float | None:
    values = [figures[row.figure] for figures in runs.get(row.round, ()) if figures.get(row.figure) is not None]
    return median(values) if values else None


def _times_better(ours: float | None, indigo: float | None, higher_is_better: bool) -> float | None:
    if not ours or not indigo:
        return None
    return round(ours / indigo if higher_is_better else indigo / ours, 2)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
