"""Turns of an address, and of all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.jsonstream import update_pace
from relay.jsonstream.update_pace import PIECE_BYTES, PIECES_BURST, UpdatePace


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits for an address's turn and for that of all, of each text."""
    waits: list[float] = []
    monkeypatch.setattr(update_pace, "_sleep", lambda seconds, _: waits.append(round(seconds, 1)))
    yield waits


def test_an_address_that_says_much_waits_and_others_do_not(waited: list[float]) -> None:
    pace = UpdatePace()
    half = PIECES_BURST // 2 * PIECE_BYTES - 1
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"):
        pace.wait(address, half, bool)
    assert waited == [0, 0, 0, 0, 5, 0, 0, 0]
    pace.wait("192.0.2.3", PIECE_BYTES * 400 - 1, bool)
    assert waited[-2] == 0 and waited[-1] > 0.5, "all of them together have a pace as well"


def test_who_waits_goes_on_once_it_is_over() -> None:
    pace = UpdatePace()
    for _ in range(3):
        pace.wait("192.0.2.1", PIECES_BURST * PIECE_BYTES, lambda: True)
