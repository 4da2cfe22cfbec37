"""SQLite alone, for tests of what happens before the database or beside it: on PostgreSQL they would be the same.

A module of tests imports the fixture, which then takes the place of the one on both engines.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fixtures import sqlite_urls


@pytest.fixture
def new_database_url(tmp_path: Path) -> Callable[[], str]:
    """Gives the address of another empty database at each call."""
    return sqlite_urls(tmp_path)
