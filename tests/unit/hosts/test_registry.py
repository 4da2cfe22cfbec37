"""The table of hosts: a database that is an older one may give a known host's id to another."""

from __future__ import annotations

from typing import Any, cast

import pytest

from relay.hosts.registry import HostRegistry
from relay.kit.errors import StoreError
from relay.stream.cursors import CursorBook
from tests.support.hosts import EmptyLog, known_host


def test_no_host_takes_the_place_of_another() -> None:
    nothing = cast(Any, None)
    registry = HostRegistry(nothing, CursorBook(EmptyLog()), nothing)
    host = registry.add(known_host().row)
    assert registry.add(known_host().row) is host
    with pytest.raises(StoreError, match="store-behind"):
        registry.add(known_host(hostname="other.test").row)
    assert registry.by_id(1) is host and registry.by_name("other.test") is None
