"""How much healing may send: an account, its host and all hosts have a bound each, and what is refused uses up none."""

from __future__ import annotations

import pytest

from relay.healing import budgets
from relay.healing.budgets import Budgets
from tests.support.hosts import known_host

NEVER = 1e9


def test_each_bound_holds_and_what_is_refused_uses_up_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "OF_ACCOUNT", (1, NEVER))
    monkeypatch.setattr(budgets, "OF_HOST", (2, NEVER))
    monkeypatch.setattr(budgets, "OF_TRUSTED_HOST", (3, NEVER))
    monkeypatch.setattr(budgets, "IN_ALL", (5, 10.0))
    found = Budgets()
    one, two, trusted = known_host(id=1), known_host(id=2), known_host(id=3, trusted=True)
    assert [found.take(did, one, 0.0) for did in ("a", "a", "b", "c")] == [True, False, True, False], "two of a host"
    assert [found.take(did, trusted, 0.0) for did in ("a", "b", "c", "d")] == [True, True, True, False], "three"
    assert not found.take("x", two, 0.0), "five in all"
    assert found.take("x", two, 10.0)
    assert len(found) == 9
