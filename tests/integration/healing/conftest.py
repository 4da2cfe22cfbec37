"""Healing does not depend on who verifies: its tests run without worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.event_path import EventPath
from tests.support.plc import FakePlc


@pytest.fixture
def path(tmp_path: Path, database_url: str, plc: FakePlc) -> Iterator[EventPath]:
    opened = EventPath(tmp_path / "persist", database_url, plc)
    yield opened
    opened.close()
