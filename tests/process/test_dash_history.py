"""The dashboard's charts over the ends of a process: SIGKILL, a file that was damaged, a stop in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.dash.past import FILE, Past
from tests.support.dash import DashAdmin
from tests.support.dash_week import plant_week
from tests.support.relay_process import PASSWORD, RelayProcess


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    relay = RelayProcess(tmp_path, {})
    plant_week(tmp_path / "persist")
    yield relay
    relay.close()


def week(relay: RelayProcess) -> list[str]:
    """The values of the chart of memory over seven days; half an hour each, empty where there is none."""
    admin = DashAdmin(relay.url)
    admin.log_in(PASSWORD)
    body = admin.get("/dash/?range=7d").body.decode()
    (chart,) = re.findall(r'id="chart-memory">.*?</figure>', body, re.DOTALL)
    values: list[str] = re.findall(r'data-values="([^"]*)"', chart)
    return values[0].split("|")


def test_a_week_outlives_a_kill_and_a_damaged_file_is_begun_anew(relay: RelayProcess, tmp_path: Path) -> None:
    file = tmp_path / "persist" / FILE
    planted = file.read_bytes()
    relay.start()
    # What was sampled is kept at once.
    relay.wait_until(lambda: file.read_bytes() != planted, timeout=60)
    assert sum(map(bool, week(relay))) > 300
    relay.kill()
    relay.start()
    assert sum(map(bool, week(relay))) > 300
    assert relay.stop() == 0
    assert file.stat().st_size == len(planted)
    assert Past(tmp_path / "persist").version > 0

    kept = file.read_bytes()
    file.write_bytes(kept[: len(kept) // 2])
    relay.start()
    relay.wait_until(lambda: f"the dashboard's history starts afresh: {file}" in relay.log.read_text())
    relay.wait_until(lambda: file.read_bytes()[: len(kept)] != kept[: len(kept) // 2], timeout=60)
    assert sum(map(bool, week(relay))) <= 2
