"""The comparison counts what is better in the right direction, leaves out what was not measured, and patches rsky."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bench.peers import rsky
from tests.bench.peers.rounds import ROUNDS
from tests.bench.peers.table import ROWS, compare, faults, text


def test_ratios_say_how_many_times_better() -> None:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        "ours": {"load": [{"events_per_cpu_second": speed, "rss_mib": 50.0} for speed in (6000, 8000)]},
        "+ worker": {"load": [{"failed": "first events are missing"}]},
        "indigo": {
            "load": [{"events_per_cpu_second": 3500, "rss_mib": 200.0}],
            "paced-500": [{"latency_p50_ms": None}],
        },
        "rsky": {"load": [{"events_per_cpu_second": 14000}]},
    }
    lines = {line.label: line for line in compare(found)}
    speed, memory = lines["verified events per CPU second"], lines["RSS at the end, MiB"]
    assert speed.medians == {"ours": 7000, "+ worker": None, "indigo": 3500, "rsky": 14000}
    assert (speed.times_better, speed.goal) == ({"indigo": 2, "rsky": 0.5}, 2.5)
    assert memory.times_better == {"indigo": 4, "rsky": None}
    assert lines["CPU seconds per 1,000 events at 500 events/s"].times_better["indigo"] is None
    assert "RSS with 3,000 hosts, MiB" not in lines
    table = text("sqlite", list(lines.values())).split("\n")
    assert table[0] == "| sqlite | ours | + worker | indigo | rsky | times indigo | times rsky | goal |"
    assert "| verified events per CPU second | 7,000 | - | 3,500 | 14,000 | 2 | 0.5 | ≥ 2.5 |" in table


def test_every_row_is_of_a_round() -> None:
    assert {row.round for row in ROWS} == set(ROUNDS)


def test_a_run_that_is_not_right_is_marked() -> None:
    assert faults({"complete": True, "missing": 0}) == ""
    assert faults({"complete": False, "missing": 3, "out_of_order": 1}) == "missing 3, out of order 1"
    assert faults({"complete": False}) == "incomplete"
    assert faults({"failed": "first events are missing"}) == "first events are missing"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Files in which each line that is replaced stands once."""
    for file, before, _ in rsky.PATCH:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as sources:
            sources.write(f"let it = {before};\n")
    return tmp_path


def test_rsky_is_patched(sources: Path) -> None:
    rsky.patch(sources)
    assert "wss://" not in (sources / "crawler/connection.rs").read_text()
    assert "RELAY_PLC_HOST" in (sources / "validator/resolver.rs").read_text()


def test_a_patch_that_does_not_fit_says_where(sources: Path) -> None:
    with pytest.raises(ValueError, match=r"another version: server/server\.rs has 0 times"):
        rsky.patch(sources / "elsewhere")
    connection = sources / "crawler/connection.rs"
    connection.write_text(connection.read_text().replace("{path}", "{nsid}"))
    with pytest.raises(ValueError, match=r"another version: crawler/connection\.rs has 0 times"):
        rsky.patch(sources)


def test_without_a_checkout_or_cargo_rsky_takes_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RSKY_DIR", raising=False)
    assert rsky.missing() == "RSKY_DIR names no checkout"
    monkeypatch.setenv("RSKY_DIR", str(tmp_path))
    assert rsky.missing() == f"there is no rsky-relay in {tmp_path}"
    (tmp_path / "rsky-relay").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rsky.missing() == "cargo is not installed"
