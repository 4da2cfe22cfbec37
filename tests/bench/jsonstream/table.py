"""The figures of all contenders side by side. Used by `tests.bench.jsonstream` on what `rounds` found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from tests.bench.peers.table import number

# The contenders: our relay without a consumer of its JSON stream, with one of everything, with the two hundred; an edge
# and Jetstream with the two hundred, behind a relay that serves none.
NOBODY, ONE, RELAY, EDGE, JETSTREAM = "relay, nobody", "relay, one", "relay, 200", "edge, 200", "Jetstream, 200"
_BESIDE = (EDGE, JETSTREAM)

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # contender -> the figures of each time


class Column(NamedTuple):
    """Medians of a contender's figures, and the CPU that the JSON stream took: all that of a process which does nothing
    else, or what a relay took beside what it takes without. None: not known.
    """

    figures: dict[str, float]
    json_us: float | None

    def per_cpu_second(self, name: str) -> float | None:
        """A figure for each second of that CPU."""
        return self.figures[name] / (self.json_us * self.figures["events"] / 1e6) if self.json_us else None


Row = tuple[str, Callable[[Column], float | None], str, bool]
ROWS: tuple[Row, ...] = (
    ("CPU of the process, µs an event", lambda it: it.figures["cpu_us_per_event"], "", False),
    ("- of it for the JSON stream", lambda it: it.json_us, "≤ 60 for one", False),
    ("deliveries of JSON a second", lambda it: it.figures["deliveries_per_second"] or None, "", True),
    ("- per CPU second of the JSON stream", lambda it: it.per_cpu_second("deliveries") or None, "≥ 2 times", True),
    ("events per CPU second of the JSON stream", lambda it: it.per_cpu_second("events"), "", True),
    ("RSS at the end, MiB", lambda it: it.figures["rss_mib"], "", False),
    ("- at most", lambda it: it.figures["rss_peak_mib"], "", False),
)
# Where events come at their time.
PACED_ROWS: tuple[Row, ...] = (
    ("firehose of the relay, p50 ms", lambda it: it.figures.get("firehose_p50_ms"), "", False),
    ("- p99 ms", lambda it: it.figures.get("firehose_p99_ms"), "as with nobody", False),
)


def columns(runs: Runs) -> dict[str, Column]:
    """A column for each contender that got through a run."""
    found = {name: _medians(times) for name, times in runs.items()}
    found = {name: figures for name, figures in found.items() if figures}
    alone = found.get(NOBODY, {}).get("cpu_us_per_event")
    return {
        name: Column(figures, _json_us(name, figures["cpu_us_per_event"], alone)) for name, figures in found.items()
    }


def text(title: str, runs: Runs, *, paced: bool) -> str:
    """A table in Markdown, with how many times better the edge is than Jetstream."""
    shown = columns(runs)
    rows = [[title, *shown, "edge, times Jetstream", "goal"]]
    rows.append(["---"] * len(rows[0]))
    for label, value, goal, higher_is_better in ROWS + (PACED_ROWS if paced else ()):
        values = {name: value(column) for name, column in shown.items()}
        ours, theirs = values.get(EDGE), values.get(JETSTREAM)
        ratio = (ours / theirs if higher_is_better else theirs / ours) if ours and theirs else None
        rows.append([label, *map(number, values.values()), number(ratio), goal])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _json_us(name: str, cpu_us: float, alone: float | None) -> float | None:
    if name in _BESIDE:
        return cpu_us
    return None if alone is None else round(cpu_us - alone, 1)


def _medians(times: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    whole = [figures for figures in times if "failed" not in figures]
    names = [name for name, value in whole[0].items() if isinstance(value, int | float)] if whole else []
    return {name: median([figures[name] for figures in whole if figures[name] is not None]) for name in names}
