"""The comparison with indigo counts what is better in the right direction, and leaves out what was not measured."""

from __future__ import annotations

from typing import Any

from tests.bench.peers.table import compare, text


def test_ratios_say_how_many_times_better() -> None:
    ours = {"load": [{"events_per_cpu_second": speed, "rss_mib": 50.0} for speed in (6000, 8000)]}
    indigo: dict[str, list[dict[str, Any]]] = {
        "load": [{"events_per_cpu_second": 3500, "rss_mib": 200.0}],
        "paced": [{"latency_p50_ms": None}],
    }
    lines = {line.label: line for line in compare(ours, {}, indigo)}
    speed, memory = lines["verified events per CPU second"], lines["RSS at the end, MiB"]
    assert (speed.ours, speed.indigo, speed.times_better, speed.goal) == (7000, 3500, 2, 2)
    assert memory.times_better == 4
    assert lines["latency at 500 events/s, p50 ms"].times_better is None
    assert "RSS with 3,000 hosts, MiB" not in lines
    assert "| verified events per CPU second | 7,000 | - | 3,500 | 2 | - | ≥ 2 |" in text(
        "sqlite", list(lines.values())
    )
