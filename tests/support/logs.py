"""What was logged in a test. Of an earlier one something may still run, and find that its database is closed."""

from __future__ import annotations

import pytest

OF_OTHERS = "relay.store.outage"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages so far."""
    return [record.getMessage() for record in caplog.records if record.name != OF_OTHERS]
