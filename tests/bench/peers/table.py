"""What is compared, and how: rows of figures for all relays, with their ratios and the goal that they are held to.

Used by `tests.bench.peers` on what `rounds` found. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from tests.bench.network.measure import WRONG

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # round -> the figures of each time
OURS = "ours"
WORKER = "+ worker"


class Row(NamedTuple):
    """A figure of a round. `goal` is how many times better than indigo this relay is meant to be."""

    label: str
    round: str
    figure: str
    higher_is_better: bool
    goal: float | None = None


def _paced(which: str, what: str) -> tuple[Row, ...]:
    return (
        Row(f"CPU seconds per 1,000 events at {what}", which, "cpu_seconds_per_1000_events", False, 2),
        Row("  of the database server, beside it", which, "database_cpu_seconds_per_1000_events", False),
        Row("  latency, p50 ms", which, "latency_p50_ms", False),
        Row("  p99 ms", which, "latency_p99_ms", False),
        Row("  p99.9 ms", which, "latency_p99.9_ms", False),
        Row("  RSS at the end, MiB", which, "rss_mib", False),
    )


def _hosts(which: str, what: str) -> tuple[Row, ...]:
    return (
        Row(f"RSS with {what}, MiB", which, "rss_mib", False, 6),
        Row("  when all were connected, before any event, MiB", which, "connected_rss_mib", False),
        Row("  at most, MiB", which, "rss_peak_mib", False),
        Row("  after two minutes in which nothing came, MiB", which, "rested_rss_mib", False, 6),
        Row("  CPU meanwhile, ms a second", which, "idle_cpu_ms_a_second", False),
    )


ROWS = (
    Row("verified events per CPU second", "load", "events_per_cpu_second", True, 2.5),
    Row("CPU seconds per 1,000 events", "load", "cpu_seconds_per_1000_events", False),
    Row("  of the database server, beside it", "load", "database_cpu_seconds_per_1000_events", False),
    Row("verified events per CPU second, database included", "load", "events_per_cpu_second_with_database", True, 2.5),
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
    *_paced("paced-500", "500 events/s"),
    *_paced("paced-700", "700 events/s"),
    *_paced("paced-hosts", "700 events/s of 3,000 hosts"),
    *_paced("paced-tls-500", "500 events/s of TLS hosts"),
    *_hosts("hosts", "3,000 hosts"),
    *_hosts("tls-hosts", "3,000 TLS hosts"),
)


class Line(NamedTuple):
    """Medians by relay, and how many times better ours is than each peer; None: not measured, or 0."""

    label: str
    medians: dict[str, float | None]
    times_better: dict[str, float | None]
    goal: float | None


def compare(found: Mapping[str, Runs]) -> Iterator[Line]:
    """A line for each row of which there are figures; `found` is by relay."""
    for row in ROWS:
        if any(row.round in runs for runs in found.values()):
            medians = {name: _median(runs, row) for name, runs in found.items()}
            times_better = {
                name: _times_better(medians.get(OURS), value, row.higher_is_better)
                for name, value in medians.items()
                if name not in (OURS, WORKER)
            }
            yield Line(row.label, medians, times_better, row.goal)


def text(title: str, lines: Sequence[Line]) -> str:
    """A table in Markdown: a column for each relay, and the ratio to each peer."""
    names, peers = list(lines[0].medians), list(lines[0].times_better)
    rows = [[title, *names, *(f"times {peer}" for peer in peers), "goal"]]
    rows.append(["---"] * len(rows[0]))
    for line in lines:
        numbers = [number(value) for value in (*line.medians.values(), *line.times_better.values())]
        rows.append([line.label.replace("  ", "- "), *numbers, f"≥ {line.goal:g}" if line.goal else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def faults(figures: Mapping[str, Any]) -> str:
    """What was wrong with a run's events, empty when nothing was."""
    wrong = [f"{key.replace('_', ' ')} {figures[key]}" for key in WRONG if figures.get(key)]
    return ", ".join(wrong if wrong or figures.get("complete") else [str(figures.get("failed", "incomplete"))])


def _median(runs: Runs, row: Row) -> float | None:
    values = [figures[row.figure] for figures in runs.get(row.round, ()) if figures.get(row.figure) is not None]
    return median(values) if values else None


def _times_better(ours: float | None, peer: float | None, higher_is_better: bool) -> float | None:
    if not ours or not peer:
        return None
    return round(ours / peer if higher_is_better else peer / ours, 2)


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
