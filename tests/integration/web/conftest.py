"""Relays whose API is tested: started with settings of the test's choice, stopped after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.store.database import Database
from tests.support.web import Web

StartWeb = Callable[..., Web]


@pytest.fixture
def start_web(tmp_path: Path, new_database_url: Callable[[], str]) -> Iterator[StartWeb]:
    """Starts relays with settings of the test's choice."""
    started: list[Web] = []

    def start(db: Database | None = None, tail_bytes: int = 64 << 20, **settings: Any) -> Web:
        opened = db or Database.open(new_database_url(), max_connections=4)
        web = Web(opened, tmp_path / str(len(started)), tail_bytes, **settings)
        web.start()
        started.append(web)
        return web

    yield start
    for web in started:
        web.stop()
        web.db.close()


@pytest.fixture
def web(start_web: StartWeb) -> Web:
    """A started relay on the default settings."""
    return start_web()
