"""The load benches in small: every event of a fake network arrives at every consumer, once and in order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.relay_process import ROOT

pytestmark = pytest.mark.timeout(600)
# More than a busy machine needs.
BENCH_SECONDS = 500


PACES = {
    "as fast as it goes": ["--commits-only"],
    "500 a second": ["--rate", "500"],
    "500 a second of TLS hosts": ["--rate", "500", "--tls"],
}


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
def test_nothing_is_lost_or_repeated_under_load(tmp_path: Path, pace: list[str]) -> None:
    """As fast as it goes, one account sends more while its identity is looked up anew than may wait for that."""
    size = ["--hosts", "5", "--accounts", "60", "--events", "1500", "--consumers", "4", *pace]
    command = [sys.executable, "-m", "tests.bench.network", *size, "--json", str(tmp_path / "result")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BENCH_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result").read_text())
    assert result["deliveries"] == 4 * (result["checked_events"] - 60)


def test_a_storm_of_new_accounts_loses_nothing(tmp_path: Path) -> None:
    """How late known accounts are is for the bench on a quiet machine: here, that they go on at all."""
    size = ["--new", "200", "--new-hosts", "3", "--known", "40", "--known-hosts", "4", "--rate", "100"]
    pace = ["--calm", "1", "--storm", "5", "--plc-latency", "0.2", "--goal", "60000"]
    command = [sys.executable, "-m", "tests.bench.storm", *size, *pace, "--json", str(tmp_path / "result")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BENCH_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result").read_text())
    assert result["plc_requests_in_storm"] >= 200 and result["storm_events"] > 0
